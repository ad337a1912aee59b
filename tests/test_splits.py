"""Enumeration of the ways to use N GPUs, and profiles at other TP sizes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.engine.law import bounds
from planner.engine.model_config import model_config
from planner.engine.profiles import dump_profile, load_profile
from planner.engine.roof import Roof
from planner.engine.tp_scaling import at_tp, is_scaled
from planner.spec import Disaggregated, SpecError
from planner.suggestion.splits import PoolSize, Split, apply, splits, tp_sizes, variants
from planner.system.resolve import resolve


def test_eight_gpus_in_ones() -> None:
    names = [split.name for split in splits(8, [1])]
    assert names == ["8 agg", *(f"{x}P{8 - x}D" for x in range(1, 8))]


def test_unequal_tp_and_idle_gpus() -> None:
    names = {split.name: split.gpus for split in splits(4, [1, 2])}
    assert names == {
        "4 agg": 4, "2 agg TP2": 4, "1P3D": 4, "2P2D": 4, "3P1D": 4, "2P+1D(TP2)": 4, "1P(TP2)+2D": 4,
        "1P(TP2)+1D(TP2)": 4,
    }  # fmt: skip
    assert [split.gpus for split in splits(3, [2])] == [2]  # one aggregated engine, one GPU idle


@given(st.integers(1, 12), st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=3, unique=True))
def test_every_pair_of_pools_is_there_once(gpus: int, sizes: list[int]) -> None:
    found = [split for split in splits(gpus, sizes) if split.second]
    assert len(found) == len(set(found))
    for split in found:
        assert split.second is not None
        assert gpus - split.gpus < min(split.first.tp, split.second.tp)
    pairs = {
        (x, a, y, b)
        for a, b in product(sizes, sizes)
        for x, y in product(range(1, gpus + 1), repeat=2)
        if 0 <= gpus - x * a - y * b < min(a, b)
    }
    assert {(s.first.replicas, s.first.tp, s.second.replicas, s.second.tp) for s in found if s.second} >= {
        (x, a, y, b) for x, a, y, b in pairs if (x, a, y, b) == (x, a, (gpus - x * a) // b, b)
    }


def test_a_model_that_needs_two_gpus() -> None:
    spec = planner.load("agg", ["model=llama-3.1-70b", "profile=null"])
    sizes, left_out = tp_sizes(spec, 8)
    assert sizes == [2, 4, 8]
    assert len(left_out) == 1
    assert left_out[0].startswith("TP 1: deployment.tp: llama-3.1-70b does not fit at tp 1")
    with pytest.raises(SpecError, match=r"1 is too few for llama-3.1-70b on h200.*allowed: 2 or more \(--gpus 2\)$"):
        tp_sizes(spec, 1)
    small = planner.load("agg", ["model=deepseek-v3", "profile=null", "deployment.gpus_per_node=4"])
    with pytest.raises(SpecError, match="does not fit at tp 4"):  # nor does any number of such nodes help
        tp_sizes(small, 4)


def test_pools_keep_what_the_spec_says_of_them() -> None:
    spec = planner.load(
        "disagg",
        ["deployment.prefill.hardware=h100", "profile=null", "deployment.link.preset=roce_400gbe"],
    )
    made = apply(spec, Split(PoolSize(3, 1), PoolSize(2, 2)))
    assert isinstance(made.deployment, Disaggregated)
    assert (made.deployment.prefill.replicas, made.deployment.decode.tp) == (3, 2)
    assert made.deployment.prefill.hardware == "h100"
    assert made.deployment.link.preset == "roce_400gbe"
    assert resolve(made).gpus == 7


def test_variants_of_a_split() -> None:
    split = Split(PoolSize(1, 1), PoolSize(1, 1))
    found = variants(split, frozenset({"router", "local_prefill"}), [0, 100])
    assert len(found) == 8
    spec = apply(planner.load("disagg"), found[-1])
    assert isinstance(spec.deployment, Disaggregated)
    assert (spec.deployment.router.policy, spec.deployment.local_prefill.max_tokens) == ("prefix_aware", 100)
    aggregated = variants(Split(PoolSize(2, 1)), frozenset({"local_prefill"}), [0, 100])
    assert aggregated == [Split(PoolSize(2, 1))]


# --- TP sizes that were not measured ---------------------------------------------------------------


def _agg(tp: int, profile: str = "h200-llama-3.1-8b-tp1") -> planner.spec.Spec:
    return planner.load("agg", [f"deployment.tp={tp}", "deployment.replicas=1", f"profile={profile}"])


def test_a_measured_profile_is_kept_at_its_own_tp() -> None:
    pool = resolve(_agg(1)).pools[0]
    assert pool.profile.file == load_profile("h200-llama-3.1-8b-tp1").file
    assert at_tp(pool.profile, pool.setup) is pool.profile


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_scaled_profiles_say_so_and_stay_above_the_roofline(tp: int) -> None:
    system = resolve(_agg(tp))
    pool, before = system.pools[0], resolve(_agg(1)).pools[0]
    assert pool.profile.file is not None
    assert before.profile.file is not None
    assert sum("scaled from it by the roofline" in text for text in system.warnings) == 1
    assert not any("the roofline's" in text for text in system.warnings)
    law, old = pool.profile.file.step, before.profile.file.step
    floor = bounds(Roof(pool.setup))
    for name in ("decode_s", "decode_per_context_s", "prefill_per_token_s", "prefill_per_pair_s"):
        assert getattr(floor, name) <= getattr(law, name) * (1 + 1e-9)
        assert getattr(law, name) < getattr(old, name)
    # faster than one GPU, slower than perfect scaling
    assert old.prefill_per_token_s / tp < law.prefill_per_token_s < old.prefill_per_token_s


def test_a_simulation_takes_the_scaled_times_and_says_so() -> None:
    """`simulate` and `suggest` mean the same by a TP size that was not measured."""
    one, two = (planner.summarise(planner.simulate(_agg(tp))) for tp in (1, 2))
    assert two.number("tpot_mean_ms") < 0.8 * one.number("tpot_mean_ms")
    assert "h200-llama-3.1-8b-tp1 was measured at TP 1; TP 2 is scaled from it" in " ".join(two.warnings)
    assert two.profile == "h200-llama-3.1-8b-tp1-at-tp2"
    assert not one.warnings


def test_a_scaled_profile_is_as_sure_of_itself_as_the_measured_one() -> None:
    """Errors scale with what they are the errors of, and blocks that vLLM reported at another TP do not count."""
    scaled, measured = (resolve(_agg(tp)).pools[0].profile for tp in (2, 1))
    assert is_scaled(scaled.file) and not is_scaled(measured.file)
    assert scaled.kv_cache_tokens is None
    assert scaled.file is not None and scaled.file.fit is not None
    assert measured.file is not None and measured.file.fit is not None
    for index, name in enumerate(scaled.file.fit.parameters):
        new, old = getattr(scaled.file.step, name), getattr(measured.file.step, name)
        if old > 0:
            ratio = scaled.file.fit.covariance[index][index] / measured.file.fit.covariance[index][index]
            assert ratio == pytest.approx((new / old) ** 2)


def test_a_profile_is_exchanged_for_the_one_of_the_nearest_measured_tp_that_it_names() -> None:
    """And says so by its name; what is between workers stays as the named profile has it."""
    one, two, four = (resolve(_agg(tp, "h200x2-llama-3.1-8b-tp1")) for tp in (1, 2, 4))
    measured = load_profile("h200x2-llama-3.1-8b-tp2").file
    named = one.pools[0].profile.file
    file = two.pools[0].profile.file
    assert measured is not None and file is not None and named is not None
    assert (file.name, file.step, file.host) == (measured.name, measured.step, measured.host)
    assert (file.hand_over, file.link, file.spread) == (named.hand_over, named.link, named.spread)
    limits = two.pools[0].limits
    assert two.warnings == () and limits.kv_blocks * limits.block_size == pytest.approx(
        measured.kv_cache_tokens, abs=16
    )
    assert not is_scaled(two.pools[0].profile.file)
    assert four.pools[0].profile.name == "h200x2-llama-3.1-8b-tp2-at-tp4"
    assert "h200x2-llama-3.1-8b-tp2 was measured at TP 2; TP 4 is scaled from it" in " ".join(four.warnings)


def test_no_profile_is_exchanged_that_does_not_ask_for_it(tmp_path: Path) -> None:
    file = load_profile("h200x2-llama-3.1-8b-tp1").file
    assert file is not None
    mine = tmp_path / "mine.yaml"
    mine.write_text(dump_profile(file.model_copy(update={"name": "mine", "also": None})), encoding="utf-8")
    assert resolve(_agg(2, str(mine))).pools[0].profile.name == "mine-at-tp2"
    other = {"name": "mine", "also": ("h200-qwen3-1.7b-tp1-served",)}
    mine.write_text(dump_profile(file.model_copy(update=other)), encoding="utf-8")
    with pytest.raises(SpecError, match="mine: also: h200-qwen3-1.7b-tp1-served is not this engine at another"):
        resolve(_agg(2, str(mine)))


def test_waves_hold_more_sequences_where_each_gpu_has_fewer_heads() -> None:
    one, two = (resolve(_agg(tp, "h200-llama-3.1-8b-tp1-served")).pools[0].profile.file for tp in (1, 2))
    assert one is not None and two is not None
    assert two.step.decode_wave_seqs == pytest.approx(2 * one.step.decode_wave_seqs)
    assert two.step.launch_decode_s == one.step.launch_decode_s


def test_experts_kept_whole_allow_more_gpus(tmp_path: Path) -> None:
    """Scales in blocks of 128 would leave 192 of an expert's width to each of eight GPUs."""
    config = {
        **model_config("qwen3-235b-a22b").config,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    file = tmp_path / "qwen3-235b-fp8.yaml"
    file.write_text(yaml.safe_dump({"name": file.stem, "config": config}))
    changes = [f"model={file}", "profile=null", "hardware=h200"]
    sizes, left_out = tp_sizes(planner.load("agg", changes), 8)
    assert sizes == [2, 4]
    assert left_out[-1].endswith("allowed: 1, 2, 4; 8 with engine.enable_expert_parallel: true")
    assert tp_sizes(planner.load("agg", [*changes, "engine.enable_expert_parallel=true"]), 8)[0] == [2, 4, 8]
