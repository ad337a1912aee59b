"""Prompts on a GPU that has not rested take longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner import load, simulate, summarise
from planner.engine.catalogue import hardware
from planner.engine.profiles import load_profile
from planner.engine.warmth import RISES_S, Warmth, fallen, mean, risen
from planner.system.resolve import resolve
from planner.traffic import workload
from simulator.cluster import SimulatedCluster

SLOWING = 1.2
WORK_S, TOKENS = 0.06, 3000


def test_a_step_takes_longer_the_later_the_gpu_rested() -> None:
    gpu = Warmth(SLOWING)
    first = gpu.seconds(WORK_S, 0.0, TOKENS)
    behind = [first]
    now = first
    for _ in range(20):
        behind.append(gpu.seconds(WORK_S, now, TOKENS))
        now += behind[-1]
    assert behind == sorted(behind)
    assert WORK_S < first < SLOWING * WORK_S
    assert behind[-1] == pytest.approx(SLOWING * WORK_S, rel=1e-3)
    paused, rested = gpu.seconds(WORK_S, now + 0.02, TOKENS), gpu.seconds(WORK_S, now + 5.0, TOKENS)
    assert rested == pytest.approx(first)
    assert rested < paused < behind[-1]


def test_cutting_a_step_in_two_changes_next_to_nothing() -> None:
    """Chunks of a prompt, one at once after the other."""
    whole, cut = Warmth(SLOWING).seconds(2 * WORK_S, 0.0, 2 * TOKENS), Warmth(SLOWING)
    half = cut.seconds(WORK_S, 0.0, TOKENS)
    assert half + cut.seconds(WORK_S, half, TOKENS) == pytest.approx(whole, rel=0.005)


def test_short_steps_take_what_a_rested_gpu_takes_and_let_it_rest() -> None:
    """Measured: chunks of 512 tokens take 12.6 ms at first and behind a hundred others; of 1,024 a tenth longer."""
    gpu = Warmth(SLOWING)
    first = gpu.seconds(WORK_S, 0.0, TOKENS)
    assert gpu.seconds(WORK_S, first, 512) == WORK_S
    behind = [gpu.seconds(0.02, first + WORK_S + 0.02 * number, 512) for number in range(20)]
    assert behind == [0.02] * 20
    assert gpu.seconds(WORK_S, 5.0, TOKENS) == pytest.approx(first)
    half, full = (Warmth(SLOWING).seconds(WORK_S, 0.0, tokens) - WORK_S for tokens in (768, 1024))
    assert half == pytest.approx(full / 2, rel=0.05)


def test_the_mean_is_that_of_the_way_there() -> None:
    parts, value = 1000, 0.3
    total = 0.0
    for _ in range(parts):
        total += value
        value = risen(value, RISES_S / parts)
    assert total / parts == pytest.approx(mean(0.3, RISES_S), abs=1e-3)
    assert risen(0.3, RISES_S) == pytest.approx(value)
    assert fallen(0.3, 0.0) == 0.3


def test_what_decodes_take_beside_prompts_is_no_slower_on_a_warm_gpu() -> None:
    alone, beside = Warmth(1.2), Warmth(1.2)
    more = alone.seconds(WORK_S, 0.0, TOKENS) - WORK_S
    assert beside.seconds(2 * WORK_S, 0.0, TOKENS, WORK_S) - 2 * WORK_S == pytest.approx(more, rel=0.6)
    assert Warmth(1.2).seconds(WORK_S, 0.0, TOKENS, WORK_S) == WORK_S


def test_prompts_behind_prompts_are_slower_on_pairs_and_replicas() -> None:
    """Measured: 66 ms for 3,000 tokens on a rested GPU, 73 behind a prompt."""
    keys = ["workload.kind=poisson", "workload.rate=10", "workload.requests=80", "workload.output_tokens=20"]
    prefill, decode = resolve(load("disagg", keys)).pools
    file = load_profile("h200x2-llama-3.1-8b-tp1").file
    assert file is not None
    assert prefill.profile.warm_slowing == decode.profile.warm_slowing == file.warm_slowing
    assert resolve(load("agg", keys)).pools[0].profile.warm_slowing == file.warm_slowing
    steps = simulate(load("disagg", keys)).steps
    prompts = steps[(steps["worker"] == "prefill-0") & (steps["prefill_tokens"] == 3000)].sort_values("start_s")
    ends = (prompts["start_s"] + prompts["duration_s"]).to_numpy()
    at_once = prompts["start_s"].to_numpy()[1:] - ends[:-1] < 1e-6
    seconds = prompts["duration_s"].to_numpy()[1:]
    rested = prompts["start_s"].to_numpy()[1:] - ends[:-1] > 0.15
    assert seconds[at_once].mean() / seconds[rested].mean() == pytest.approx(1.06, abs=0.03)


def test_every_step_by_itself_is_as_warm_as_in_runs_of_steps() -> None:
    spec = load("disagg", ["workload.requests=60", "engine.long_prefill_token_threshold=0"])
    system = resolve(spec)
    ends = [
        [visit.finish_s for visit in SimulatedCluster(system, workload.build(spec), fast_forward=fast).run()]
        for fast in (True, False)
    ]
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


def test_the_roofline_knows_it_of_the_gpus_that_showed_it() -> None:
    keys = ["model=qwen3-32b", "profile=null"]
    assert resolve(load("disagg", keys)).pools[0].profile.warm_slowing == hardware("h200").warm_slowing
    assert resolve(load("disagg", [*keys, "hardware=h100"])).pools[0].profile.warm_slowing == 1.0
    assert resolve(load("agg", keys)).pools[0].profile.warm_slowing == 1.0


def test_prompts_that_end_together_reach_the_decode_worker_one_after_another() -> None:
    """Measured: 11.9 ms on the way for a prompt of 2,500 tokens that ends alone, 25 where three end in one step."""
    spec = load(
        "disagg", ["workload.kind=poisson", "workload.rate=1000", "workload.requests=3", "workload.prompt_tokens=2500"]
    )
    system = resolve(spec)
    assert system.wires is not None
    wires = replace(system.wires, hand_over=replace(system.wires.hand_over, post_s=0.0))
    visits = SimulatedCluster(replace(system, wires=wires), workload.build(spec)).run()
    ways = sorted(visit.transfer_start_s - visit.prefill_end_s for visit in visits)
    lone = system.wires.hand_over.way(2500, 0.0)
    assert ways[-1] > 1.4 * lone
    assert summarise(simulate(spec)).number("completed") == 3
