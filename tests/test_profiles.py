"""Latency profiles: the law, CUDA graph sizes, rooflines and guards, files, warnings; the shipped H200 profile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.catalogue import hardware
from planner.engine.law import StepLaw, at_least, bounds
from planner.engine.model_config import load_model
from planner.engine.profiles import capture_sizes, dump_profile, load_profile, roofline
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.engine.step_time import AffineStep
from planner.spec import Engine, SpecError

SHIPPED = "h200-llama-3.1-8b-tp1"
LAW = StepLaw(
    decode_s=1.0,
    decode_per_seq_s=0.1,
    decode_per_context_s=0.001,
    prefill_floor_s=5.0,
    prefill_s=2.0,
    prefill_per_token_s=0.01,
    prefill_per_pair_s=1e-6,
    mixed_per_seq_s=0.2,
    mixed_per_context_s=0.002,
)


def test_capture_sizes_are_vllms() -> None:
    assert capture_sizes(1024, 8192)[:5] == (1, 2, 4, 8, 16)
    assert capture_sizes(1024, 8192)[-3:] == (480, 496, 512)
    assert 248 in capture_sizes()
    assert 264 not in capture_sizes()
    assert capture_sizes(10, 8192) == (1, 2, 4, 8, 10, 16)
    assert capture_sizes(1024, 100)[-1] == 96


def test_decode_is_padded_to_a_graph_and_affine_in_context() -> None:
    step = AffineStep(LAW, capture_sizes())
    assert step.decode(1) == pytest.approx((1.1, 0.001))
    assert step.decode(3) == step.decode(4)
    assert step.decode(9)[0] == pytest.approx(1.0 + 0.1 * 16)
    assert step.decode(513)[0] == pytest.approx(1.0 + 0.1 * 513)
    assert step.decode(2000)[0] == pytest.approx(1.0 + 0.1 * 2000)


def test_eager_steps_are_not_padded_and_have_a_floor() -> None:
    step = AffineStep(LAW, (), floor_s=LAW.prefill_floor_s)
    assert step.decode(3)[0] == 5.0
    assert step.decode(100)[0] == pytest.approx(1.0 + 10.0)


def test_prompts_have_a_floor_and_attention_stays_within_a_prompt() -> None:
    step = AffineStep(LAW, ())
    assert step.mixed([(10, 0)], 0, 0) == pytest.approx(5.0 + 1e-6 * 50)
    one, two = step.mixed([(2000, 0)], 0, 0), step.mixed([(1000, 0), (1000, 0)], 0, 0)
    assert one == pytest.approx(2.0 + 20.0 + 2.0)
    assert two == pytest.approx(2.0 + 20.0 + 1.0)
    chunked = step.mixed([(1000, 0)], 0, 0) + step.mixed([(1000, 1000)], 0, 0)
    assert chunked == pytest.approx(one + 2.0)  # the same pairs, and the constant twice
    assert step.mixed([(10, 0)], 3, 500) == pytest.approx(5.0 + 1e-6 * 50 + 0.6 + 1.0)


@given(st.integers(1, 3000), st.integers(0, 1_000_000))
def test_more_work_never_takes_less_time(batch: int, context: int) -> None:
    step = load_profile(SHIPPED).step
    base, slope = step.decode(batch)
    assert step.decode(batch + 1)[0] >= base > 0
    assert slope > 0
    assert step.mixed([(batch + 1, 0)], batch, context) >= step.mixed([(batch, 0)], batch, context)
    assert step.mixed([(batch, 0)], batch + 1, context) >= step.mixed([(batch, 0)], batch, context)


@pytest.mark.parametrize(("gpu", "tp"), [("h200", 1), ("h100", 2), ("l4", 1)])
def test_no_profile_is_faster_than_the_hardware(gpu: str, tp: int) -> None:
    model, entry = load_model("llama-3.1-8b"), hardware(gpu)
    law = roofline(Setup.of(model, entry, Engine(), tp)).file
    assert law is not None
    assert at_least(law.step, bounds(Roof(Setup.of(model, entry, Engine(), tp))))[1] == ()


def test_roofline_of_the_h200_is_near_the_measured_engine() -> None:
    guess = roofline(Setup.of(load_model("llama-3.1-8b"), hardware("h200"), Engine())).step
    known = load_profile(SHIPPED).step
    for batch, context in ((1, 3000), (16, 16_000), (128, 128_000)):
        estimate, measured = ((b + c * context) for b, c in (guess.decode(batch), known.decode(batch)))
        assert estimate == pytest.approx(measured, rel=0.3)
    assert guess.mixed([(3000, 0)], 0, 0) == pytest.approx(known.mixed([(3000, 0)], 0, 0), rel=0.3)


def test_roofline_knows_precision_and_tensor_parallelism() -> None:
    model, entry = load_model("llama-3.1-8b"), hardware("h200")
    one = Setup.of(model, entry, Engine())
    plain = bounds(Roof(one))
    eight_bit = Engine(quantization="fp8")
    assert bounds(Roof(Setup.of(model, entry, eight_bit))).prefill_per_token_s < plain.prefill_per_token_s
    assert bounds(Roof(one.at(2))).decode_s == pytest.approx(plain.decode_s / 2)
    # 8 KV heads on 16 GPUs: every head is held twice, so reading KV gets no faster
    wide, narrow = bounds(Roof(one.at(16))), bounds(Roof(one.at(8)))
    assert wide.decode_per_context_s == narrow.decode_per_context_s


def test_too_fast_parameters_are_raised_and_named() -> None:
    bound = LAW.model_copy(update={"decode_s": 3.0})
    law, raised = at_least(LAW, bound)
    assert raised == ("decode_s",)
    assert law.decode_s == 3.0


def test_a_file_is_read_back_as_written(tmp_path: Path) -> None:
    profile = load_profile(SHIPPED)
    assert profile.file is not None
    path = tmp_path / "again.yaml"
    path.write_text(dump_profile(profile.file))
    assert load_profile(str(path)).file == profile.file


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (("decode_s:", "decode_z:"), "decode_z: unknown key"),
        (("tp: 1", "tp: 0"), "tp: 0 is too small"),
        (("provenance: calibrated", "provenance: guessed"), "provenance: 'guessed' is unknown"),
        (("model: llama-3.1-8b\n", "model: llama-3.1-8b\nmodel: other\n"), "model: given twice"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, edit: tuple[str, str], text: str) -> None:
    profile = load_profile(SHIPPED)
    assert profile.file is not None
    path = tmp_path / "broken.yaml"
    path.write_text(dump_profile(profile.file).replace(*edit, 1))
    with pytest.raises(SpecError, match=text) as fault:
        load_profile(str(path))
    assert "\n" not in str(fault.value)
    with pytest.raises(SpecError, match="profile: 'nothing' is unknown"):
        load_profile("nothing")


def test_extrapolation_and_other_engines_are_warned_of() -> None:
    profile = load_profile(SHIPPED)
    assert profile.outside(100, 4000, 8192) == []
    assert len(profile.outside(300, 40_000, 20_000)) == 3
    assert "batch reach 300, measured only from 1 to 256" in profile.outside(300, 0, 0)[0]
    assert profile.mismatches(Setup.of(load_model("llama-3.1-8b"), hardware("h200"), Engine()), "llama-3.1-8b") == []
    assert len(profile.mismatches(Setup.of(load_model("qwen3-32b"), hardware("h100"), Engine(), 2), "qwen3-32b")) == 2
    eager = profile.for_engine(Engine(enforce_eager=True))
    assert eager.step.decode(3)[0] > profile.step.decode(3)[0]
    assert any("eager" in warning for warning in eager.warnings)
    assert profile.for_engine(Engine()).warnings == ()


def test_the_shipped_profile_says_where_it_comes_from() -> None:
    file = load_profile(SHIPPED).file
    assert file is not None
    assert file.fit is not None
    assert set(file.fit.residuals) >= {"decode", "mixed", "prefill", "served decode", "served prompt"}
    assert all(residual.mean_abs_pct < 9 for residual in file.fit.residuals.values())
    assert len(file.fit.covariance) == len(file.fit.parameters)
    assert load_profile(SHIPPED).fitted_hashes
    law = bounds(Roof(Setup.of(load_model(file.model), hardware(file.hardware), Engine(), file.tp)))
    assert at_least(file.step, law)[1] == ()
