"""Knobs that give KV a place beyond the GPU, or less of it: swapping, tiers of host memory, keys alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knob_cases import AGG, NVLINK, PD, effect, run, summary
from planner.engine.engine_limits import EngineLimits
from planner.spec import parse
from planner.system.resolve import resolve
from simulator.host_memory import HostMemory, HostTier
from simulator.sequence import Sequence

CROWDED = ("engine.num_gpu_blocks_override=1200", "workload.rate=6", "workload.output_tokens=600",
           "engine.async_scheduling=false", "workload.prompt_tokens=1000")  # fmt: skip
SLOW_GPU = AGG.replace("hardware: h200\nprofile: h200-llama-3.1-8b-tp1", "hardware: l4\nmodel_: x").replace(
    "model_: x\n", ""
)


def test_swapping_saves_computing_again_where_computing_is_slow() -> None:
    """An L4 computes a prompt token in 0.2 ms and copies it over PCIe in 5 us; without preemption nothing happens."""
    crowded = ("engine.num_gpu_blocks_override=300", "workload.rate=0.5", "workload.output_tokens=400",
               "workload.prompt_tokens=800", "workload.requests=40")  # fmt: skip
    plain = summary(SLOW_GPU, *crowded)
    assert plain.number("preemptions") > 5
    swapped = summary(SLOW_GPU, *crowded, "optimizations.decode={preemption: swap, swap_gb: 16}")
    assert swapped.number("tpot_mean_ms") < plain.number("tpot_mean_ms")
    assert effect(AGG, "tpot_mean_ms", (), "decode.preemption=swap") == 1.0


def test_swapped_sequences_come_back_whole() -> None:
    done = run(AGG, *CROWDED, "optimizations.decode={preemption: swap, swap_gb: 4}")
    assert done.requests["preemptions"].sum() > 0
    assert (done.requests["output_tokens"] == 600).all()
    little = run(AGG, *CROWDED, "optimizations.decode={preemption: swap, swap_gb: 0.001}")  # no room: computed again
    assert little.requests.equals(run(AGG, *CROWDED).requests)


def limits(**fields: object) -> EngineLimits:
    base = {"max_num_batched_tokens": 100, "max_num_seqs": 8, "block_size": 4, "kv_blocks": 8, "max_model_len": 64}
    return EngineLimits(**{**base, **fields})  # type: ignore[arg-type]


def test_a_tier_keeps_the_most_recent_blocks_and_takes_what_its_link_can_write() -> None:
    below = HostTier(2, 4.0, 1.0, None)
    tier = HostTier(16, 1.0, 0.5, below)
    tier.put(1, 0.0)
    assert tier.holder(1, 0.4) is None  # being written
    assert tier.holder(1, 0.5) is tier
    tier.put(2, 0.0)
    tier.put(3, 0.0)
    tier.put(4, 0.0)  # 1.5 s behind, an eighth of its room is 1 s: not taken
    assert tier.holder(4, 99.0) is None
    small = HostTier(1, 1.0, 0.01, below)
    small.put(1, 10.0)
    small.put(2, 20.0)  # 1 falls into the tier below
    assert (small.holder(1, 30.0), small.holder(2, 30.0)) == (below, small)
    assert (below.read(1, 30.0), small.read(2, 30.0), below.read(1, 31.0)) == (34.0, 31.0, 38.0)  # one after the other


def test_swap_room_is_given_back() -> None:
    memory = HostMemory(limits(swap_blocks=3, swap_s_per_block=0.5))
    request = run_request()
    first, second = Sequence(request), Sequence(request)
    first.block_tokens = second.block_tokens = 4
    memory.swap_out(first, 9)
    memory.swap_out(second, 1)  # no room left
    assert (first.swapped, second.swapped, memory.claim(), memory.claim()) == (9, 0, 1.5, 0.0)
    assert memory.restorable(first, 0) == 9
    memory.swap_in(first, 1)
    assert memory.claim() == 1.0  # one of its three blocks was still on the GPU
    memory.swap_out(second, 9)
    memory.forget(second)
    memory.swap_out(first, 12)
    assert first.swapped == 12


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 12))
def test_a_swap_takes_whole_blocks_and_gives_them_back(sizes: list[int], found: int) -> None:
    """Copies are of the blocks that tokens fill, less those found on the GPU; the last token is computed."""
    room = sum(-(-tokens // 4) for tokens in sizes)
    memory = HostMemory(limits(swap_blocks=room, swap_s_per_block=1.0))
    for _ in range(2):  # the second time: all the room is free again
        for tokens in sizes:
            seq, blocks = Sequence(run_request()), -(-tokens // 4)
            seq.block_tokens, seq.length = 4, tokens
            memory.swap_out(seq, tokens)
            assert (seq.swapped, memory.claim()) == (tokens, blocks)
            assert memory.restorable(seq, 0) == tokens - 1
            seq.length = tokens + 1
            assert memory.restorable(seq, 0) == tokens
            memory.swap_in(seq, found)
            assert (seq.swapped, memory.claim()) == (0, max(0, blocks - found))
    held = [Sequence(run_request()) for _ in sizes]
    for seq, tokens in zip(held, sizes, strict=True):
        seq.block_tokens = 4
        memory.swap_out(seq, tokens)
    assert [seq.swapped for seq in held] == sizes
    late = Sequence(run_request())
    late.block_tokens = 4
    memory.swap_out(late, 1)
    assert late.swapped == 0


def run_request():  # type: ignore[no-untyped-def]
    from planner.traffic.requests import Request

    return Request(0, 0, 20, 4, 4, ((1, 20),), 0, 2)


TURNS = """
name: turns
model: llama-3.1-8b
hardware: l4
deployment: {mode: aggregated}
engine: {num_gpu_blocks_override: 500}
workload: {kind: sessions, rate: 0.05, sessions: 12, turns: 4, think_time_s: 30, prompt_tokens: 900,
  output_tokens: 30}
"""


def test_offloaded_blocks_are_read_back_instead_of_computed() -> None:
    plain = summary(TURNS)
    kept = summary(TURNS, "optimizations.decode.offload=[{capacity_gb: 32}]")
    assert kept.number("cache_hit_rate") > plain.number("cache_hit_rate") + 0.1
    assert kept.number("ttft_mean_ms") < 0.8 * plain.number("ttft_mean_ms")
    slow = summary(TURNS, "optimizations.decode.offload=[{capacity_gb: 32, read_gb_s: 0.05}]")
    assert slow.number("ttft_mean_ms") > plain.number("ttft_mean_ms")  # a disk that is slower than computing
    assert effect(AGG, "ttft_mean_ms", (), "decode.offload=[{capacity_gb: 32}]") == 1.0  # nothing is shared


def test_only_the_request_whose_blocks_are_read_waits_for_them() -> None:
    """Steps of a second, blocks of 4 tokens that take 10 s to read; another decodes while A's content comes back."""
    from engine_replay import LinearLaw
    from planner.traffic.requests import Request
    from simulator.worker import Worker

    law = LinearLaw(step=1.0, per_token=0.0, per_decode=0.0, per_context=0.0)
    worker = Worker("w", limits(tiers=((64, 10.0, 0.01),), kv_blocks=10), law)
    shared = [Sequence(Request(n, n, 17, 1, 1, ((7, 17),), 17, -n)) for n in (1, 2)]
    other = Sequence(Request(3, 3, 30, 1, 1, ((9, 30),), 0, -3))
    worker.submit(shared[0], 0.0)
    worker.advance(5.0)
    worker.submit(other, 5.0)  # its 8 blocks push two of A's four full ones out
    worker.advance(20.0)
    decoder = Sequence(Request(5, 5, 3, 12, 12, ((6, 3),), 0, -5))
    worker.submit(decoder, 20.0)
    worker.submit(shared[1], 20.0)
    while worker.next_event_s() < 100.0:
        worker.advance(worker.next_event_s())
    assert decoder.last_token_s == 32.0  # twelve steps, none of which waited
    assert shared[1].cached_tokens == 16
    assert shared[1].prefill_start_s == 40.0  # two blocks of 10 s, then the step
    assert shared[1].last_token_s == 41.0


@pytest.mark.parametrize(
    "knob", ["decode={key_only: true, key_only_above_tokens: 900}", "decode.offload=[{capacity_gb: 8}]"]
)
def test_memory_knobs_fast_forward_as_they_step(knob: str) -> None:
    from planner.traffic.workload import build
    from simulator.backend import SimulatorBackend

    crowded = ("workload.rate=0.3", "workload.prompt_tokens={kind: uniform, low: 300, high: 1500}")
    spec = parse(TURNS, overrides=[*crowded, f"optimizations.{knob}"])
    fast, slow = (
        SimulatorBackend(fast_forward=how).run(resolve(spec), build(spec)).requests.set_index("request_id")
        for how in (True, False)
    )
    assert (fast["finish_reason"] == "length").all()
    assert fast["preemptions"].equals(slow["preemptions"])
    assert fast["cached_tokens"].equals(slow["cached_tokens"])
    for name in ("first_token_s", "finish_s"):
        assert fast[name].to_numpy() == pytest.approx(slow[name].to_numpy(), abs=1e-6)


def test_only_long_sequences_keep_keys_alone() -> None:
    """On the wire: blocks of 32 tokens above 2,000 of them, of 16 below. Nobody is that long: nothing changes."""
    mixed = ("workload.prompt_tokens={kind: uniform, low: 1000, high: 3000}",)
    done = run(PD, *mixed, "optimizations.decode={key_only: true, key_only_above_tokens: 2000}")
    prompts = done.requests.set_index("request_id")["prompt_tokens"][done.transfers["request_id"]].to_numpy()
    blocks = [-(-prompt // (32 if prompt > 2000 else 16)) for prompt in prompts]
    assert (done.transfers["bytes"] == [count * 16 * 131072 for count in blocks]).all()
    assert 0 < (prompts > 2000).sum() < len(prompts)
    nobody = run(PD, *mixed, "optimizations.decode={key_only: true, key_only_above_tokens: 3000}")
    assert nobody.requests.equals(run(PD, *mixed).requests)


@pytest.mark.parametrize("scheduler", ["v1", "prefill_first"])
def test_values_are_computed_for_what_a_step_attends_to(scheduler: str) -> None:
    """Every step takes what it takes without the knob, and the knob's time for each token of its context."""
    from planner.traffic.workload import build
    from simulator.backend import SimulatorBackend

    engine = ("engine.max_model_len=8192", "engine.max_num_batched_tokens=8192", "engine.async_scheduling=false")
    spec = parse(AGG, overrides=[*engine, f"engine.scheduler={scheduler}", "optimizations.decode.key_only=true"])
    [pool] = resolve(spec).pools
    steps = SimulatorBackend(fast_forward=False).run(resolve(spec), build(spec)).steps
    alone = steps[steps["prefill_tokens"] == 0]
    assert len(alone) > 1000
    for row in alone.itertuples():
        base, slope = pool.profile.step.decode(int(row.decode_seqs))
        assert row.duration_s == pytest.approx(base + (slope + pool.limits.keys_decode_s) * row.context_tokens)
    prompts = steps[(steps["prefill_tokens"] >= 3000) & (steps["decode_seqs"] == 0)]
    assert len(prompts) > 20
    for row in prompts.itertuples():  # whole prompts: nothing was computed before them
        plain = pool.profile.step.mixed([(3000, 0)] * (int(row.prefill_tokens) // 3000), 0, 0)
        assert row.duration_s == pytest.approx(plain)


def test_keys_alone_halve_the_blocks_and_slow_every_step() -> None:
    assert effect(PD, "tpot_mean_ms", (NVLINK,), "decode.key_only=true") > 1.02
    full = ("engine.num_gpu_blocks_override=300", "workload.rate=6", "workload.output_tokens=300")
    assert effect(AGG, "requests_per_s", full, "decode.key_only=true") > 1.2  # where memory is the bound
