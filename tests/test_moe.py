"""Mixtures of experts: how many a step touches, fits, rooflines, expert parallelism, and the measured Qwen3-30B-A3B."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import summarise
from planner.calibration.fitting import fit_step, predict
from planner.calibration.launches import fit_launches, launch_rows
from planner.calibration.observations import from_steps
from planner.engine.catalogue import hardware
from planner.engine.law import StepLaw, at_least, bounds, guess, touched
from planner.engine.model_config import load_model
from planner.engine.profiles import capture_sizes, dump_profile, load_profile
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.engine.step_time import AffineStep
from planner.engine.tp_scaling import at_tp
from planner.run.tables import Run
from planner.spec import Engine, SpecError, load
from planner.system.resolve import resolve
from planner.traffic.requests import Request
from planner.validation.intervals import prediction_intervals
from planner.validation.recorded import read_record, replay_spec
from simulator.sequence import Sequence
from simulator.worker import Worker

MODEL, PROFILE = "qwen3-30b-a3b", "h200-qwen3-30b-a3b-tp1-served"
RECORD = Path(__file__).parent.parent / "benchmarks" / "recorded" / "h200-qwen3-30b-a3b"
SIZES = capture_sizes()
EXPERTS = {"experts": 128.0, "experts_per_token": 8.0}
TRUTH = StepLaw(
    decode_s=3e-3, decode_per_seq_s=5e-6, decode_per_context_s=3e-8, prefill_floor_s=0.0, prefill_s=4e-3,
    prefill_per_token_s=1e-5, prefill_per_pair_s=1e-9, mixed_per_seq_s=2e-5, mixed_per_context_s=3e-8,
    decode_per_expert_s=1.1e-4, mixed_per_expert_s=9e-5, **EXPERTS,
)  # fmt: skip


def roof(tp: int = 1, **engine: object) -> Roof:
    options = Engine.model_validate(engine)
    return Roof(Setup.of(load_model(MODEL), hardware("h200"), options, tp))


@given(st.integers(1, 4096), st.integers(1, 512), st.data())
def test_a_batch_touches_each_tokens_experts_once_and_at_most_all(
    tokens: int, experts: int, data: st.DataObject
) -> None:
    each = data.draw(st.integers(1, experts))
    found = [float(touched(count, experts, each)) for count in (0, 1, tokens, tokens + 1, 10**6)]
    assert found[0] == 0
    assert found[1] == pytest.approx(each)
    assert found == sorted(found)
    assert found[-1] <= experts
    assert found[2] <= min(experts, tokens * each) * (1 + 1e-9)
    assert touched(10**6, experts, each) == pytest.approx(experts)
    assert touched(tokens, 0.0, 0.0) == 0


def test_the_mean_of_even_routing_is_what_drawing_gives() -> None:
    rng = np.random.default_rng(3)
    for tokens in (2, 16, 64):
        drawn = [
            len({expert for _ in range(tokens) for expert in rng.choice(128, 8, replace=False)}) for _ in range(300)
        ]
        assert np.mean(drawn) == pytest.approx(touched(tokens, 128, 8), rel=0.01)


def rows(prompts: tuple[int, ...]) -> pd.DataFrame:
    """What a calibration sees of the truth: decode batches by context, prompts, and prompts beside decodes."""
    steps = [(0, batch, batch * each) for batch in (1, 2, 4, 8, 16, 32, 64, 128) for each in (128, 1024, 4096)] * 2
    steps += [(tokens, 0, 0) for tokens in prompts] * 3
    steps += [(max(prompts), batch, batch * each) for batch in (4, 32, 64) for each in (128, 1024, 4096)]
    table = pd.DataFrame(steps, columns=["prefill_tokens", "decode_seqs", "context_tokens"]).assign(duration_s=1.0)
    apart = table.assign(worker="w", start_s=np.arange(len(table)) * 10.0)
    found = from_steps(apart, SIZES, given=EXPERTS)
    return found.assign(seconds=predict(TRUTH.model_dump(), found))


def test_a_fit_gives_the_experts_back() -> None:
    fitted = fit_step(rows((4, 16, 64, 256, 1024, 2048, 8192)), given=EXPERTS)
    assert fitted.ties == {"mixed_per_context_s": "decode_per_context_s"}
    for name in ("decode_s", "decode_per_expert_s", "mixed_per_expert_s", "prefill_per_token_s", "experts"):
        assert fitted.values[name] == pytest.approx(getattr(TRUTH, name), rel=1e-3), name


def test_an_affine_law_cannot_hide_the_experts() -> None:
    """Without them decodes are a fifth off: the terms are not a way to say the same with more parameters."""
    found = rows((64, 256, 1024, 2048, 8192)).query("kind == 'decode'")
    design = (
        found[["decode_steps", "decode_padded", "decode_context"]].to_numpy() / found["seconds"].to_numpy()[:, None]
    )
    best = np.linalg.lstsq(design, np.ones(len(found)), rcond=None)[0]
    assert np.abs(design @ best - 1).mean() > 0.15


def test_long_prompts_alone_take_the_experts_time_of_decodes() -> None:
    fitted = fit_step(rows((1024, 2048, 4096, 8192)), floored=False, given=EXPERTS)
    assert fitted.ties["mixed_per_expert_s"] == "decode_per_expert_s"
    assert fitted.values["mixed_per_expert_s"] == fitted.values["decode_per_expert_s"]


def test_the_roofline_reads_what_a_batch_touches() -> None:
    even = roof()
    assert at_least(guess(even), bounds(even))[1] == ()
    step = AffineStep(bounds(even), SIZES)
    active = even.model.active_parameters - even.model.parameters.embedding
    assert step.decode(1)[0] == pytest.approx(2 * active / even.hardware.memory_bandwidth, rel=0.01)
    everything = even.model.step_weight_bytes / even.hardware.memory_bandwidth
    assert step.decode(256)[0] == pytest.approx(everything, rel=1e-3)
    dense = Roof(Setup.of(load_model("llama-3.1-8b"), hardware("h200"), Engine()))
    assert (guess(dense).experts, guess(dense).decode_per_expert_s) == (0, 0)


@pytest.mark.parametrize("profile", ["null", PROFILE])
def test_runs_of_decode_steps_are_the_steps_one_by_one(profile: str) -> None:
    """The batch of a run is constant, and with it the experts: requests join and leave, and every time is the same."""
    pool = resolve(load("agg", [f"model={MODEL}", f"profile={profile}"])).pools[0]
    ends = []
    for fast in (True, False):
        worker = Worker("w", pool.limits, pool.profile.step, fast_forward=fast)
        rng = np.random.default_rng(1)
        sequences = []
        for number in range(60):
            prompt, output = int(rng.integers(1, 9000)), int(rng.integers(1, 200))
            request = Request(number, number, prompt, output, output, ((number + 1, prompt),), 0, -1 - number)
            time_s = 0.03 * number
            while worker.next_event_s() < time_s:
                worker.advance(worker.next_event_s())
            sequences.append(Sequence(request))
            worker.submit(sequences[-1], time_s)
        while worker.next_event_s() < math.inf:
            worker.advance(worker.next_event_s())
        ends.append([(one.prefill_end_s, one.last_token_s) for one in sequences])
    assert np.array(ends[0]) == pytest.approx(np.array(ends[1]), abs=1e-9)


def test_expert_parallelism_waits_for_the_busiest_gpu() -> None:
    even, skewed = roof(2, enable_expert_parallel=True), roof(2, enable_expert_parallel=True, expert_imbalance=1.5)
    shares = roof(2)
    assert guess(even) == guess(shares)  # a GPU reads half of the experts, or half of every expert
    assert skewed.expert_s == pytest.approx(1.5 * even.expert_s)
    assert even.token_s < skewed.token_s < 1.5 * even.token_s  # attention is shared evenly
    profile = load_profile(PROFILE)
    alike = at_tp(profile, even.setup)
    slower = at_tp(profile, skewed.setup)
    assert alike.file is not None
    assert slower.file is not None
    ratio = slower.file.step.decode_per_expert_s / alike.file.step.decode_per_expert_s
    assert ratio == pytest.approx(1.5)
    assert slower.file.step.decode_s == alike.file.step.decode_s
    assert at_tp(profile, skewed.setup.at(1)) is profile  # one GPU has them all


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["model=llama-3.1-8b", "engine.enable_expert_parallel=true"],
            "llama-3.1-8b has no experts; allowed: with mix",
        ),
        ([f"model={MODEL}", "engine.expert_imbalance=1.5"], "every GPU has a share of every expert; allowed: with ena"),
        ([f"model={MODEL}", "engine.expert_imbalance=0.5"], "engine.expert_imbalance: 0.5 is too small; allowed"),
    ],
)
def test_what_has_no_meaning_is_refused(overrides: list[str], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        resolve(load("agg", overrides))


def test_the_measured_decode_steps_are_the_laws_within_five_percent() -> None:
    """By CUDA graph, median step; an affine law was 23 % off."""
    file = load_profile(PROFILE).file
    assert file is not None
    run = Run.load(RECORD / "calibration-1")
    launches = fit_launches([run.steps], SIZES)
    found = from_steps(run.steps, SIZES, launches=launches, given=file.step.model_dump()).query("kind == 'decode'")
    errors = predict(file.step.model_dump(), found) / found["seconds"].to_numpy() - 1
    by_batch = pd.Series(errors, index=found.index).groupby(found["decode_padded"])
    often = by_batch.median()[by_batch.size() >= 5]
    assert len(often) >= 10
    assert often.abs().max() < 0.05


def test_a_prompt_that_reads_every_expert_is_not_taken_for_the_launch_after_it() -> None:
    """The same engine launches a decode step in about 3 ms; its shortest prompts run for 15 to 20."""
    found = launch_rows(Run.load(RECORD / "calibration-1").steps, SIZES[-1])
    alone = found[(found["kind"] == "launch_decode_s") & (found["decodes"] <= 4)]
    assert len(alone) >= 5
    assert alone["seconds"].median() < 4e-3


def test_the_two_loads_are_predicted_as_well_as_live_repeats_itself(tmp_path: Path) -> None:
    """Blind: fitted on the calibration alone. Live differs by 12 to 21 % from itself: its host launches unevenly.

    A prediction differs from draw to draw for the same reason: it is their middle that is judged.
    """
    record = read_record(RECORD)
    file = record.profiles["calibration"]
    assert file is not None
    path = tmp_path / "profile.yaml"
    path.write_text(dump_profile(file))
    metrics = ("ttft_p50_ms", "tpot_p50_ms", "e2e_p50_ms", "output_tokens_per_s")
    for load_, runs in record.loads.items():
        drawn = prediction_intervals(replay_spec(runs[0], str(path)), metrics, draws=16, vary_seed=False)
        for metric in metrics:
            measured = [summarise(run).number(metric) for run in runs]
            mean = sum(measured) / len(measured)
            spread = (max(measured) - min(measured)) / mean
            assert abs(drawn[metric].median / mean - 1.0) < max(2 * spread, 0.025), (load_, metric)
