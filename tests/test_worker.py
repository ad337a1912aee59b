"""One engine in time: the closed form against single steps, invariants, P/D roles, asynchronous scheduling."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_cases import Draw, limits_of, random_case
from engine_replay import Case, Job, LinearLaw, replay
from planner.system.resolve import EngineLimits
from planner.traffic.requests import Request
from simulator.kv_cache import BlockRun, Holding
from simulator.sequence import DECODE, Plan
from simulator.worker import ADMITTED, FINISHED, PREFILLED, Sequence, Worker

KINDS = st.sampled_from(["sync", "decode", "prefill", "async", "async-decode", "async-prefill", "first", "keys"])


def case_of(seed: int, kind: str) -> Case:
    case = random_case(seed, kind)
    if kind == "first":
        limits = dataclasses.replace(case.limits, prefill_first=True, max_num_batched_tokens=2048)
        case = dataclasses.replace(case, limits=limits)
    if kind == "keys":  # blocks of two sizes, and none shared
        middle = sorted(job.request.prompt_tokens for job in case.jobs)[len(case.jobs) // 2]
        limits = dataclasses.replace(case.limits, keys_above_tokens=middle, prefix_caching=False)
        case = dataclasses.replace(case, limits=limits)
    return case


@given(st.integers(0, 10**6), KINDS)
def test_fast_forward_equals_stepping(seed: int, kind: str) -> None:
    case = case_of(seed, kind)
    slow, fast = replay(case), replay(case, fast_forward=True)
    assert len(fast.outcomes) == len(slow.outcomes)
    for ours, theirs in zip(fast.outcomes, slow.outcomes, strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-9)
        assert (ours[1], ours[2].request.request_id) == (theirs[1], theirs[2].request.request_id)
    for ours, theirs in zip(fast.sequences, slow.sequences, strict=True):
        for name in ("queued_s", "prefill_start_s", "prefill_end_s", "decode_start_s", "last_token_s"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-9, nan_ok=True)
        assert (ours.cached_tokens, ours.remote_tokens) == (theirs.cached_tokens, theirs.remote_tokens)
    totals = [
        (sum(row[5] for row in steps), sum(row[2] for row in steps), sum(row[3] * row[5] for row in steps))
        for steps in (slow.worker.steps, fast.worker.steps)
    ]
    assert totals[0] == totals[1]


@given(st.integers(0, 10**6), KINDS, st.booleans())
def test_a_router_sees_a_run_of_steps_as_it_sees_each_by_itself(seed: int, kind: str, tiers: bool) -> None:
    case, rng = case_of(seed, kind), random.Random(seed)
    if tiers:
        below = ((rng.randint(1, 60), 0.003, rng.choice((1e-4, 0.004))), (30, 0.01, 0.01))
        case = dataclasses.replace(case, limits=dataclasses.replace(case.limits, tiers=below))
    looks = [rng.uniform(0.0, case.jobs[-1].time_s + 1.0) for _ in range(30)]

    def seen(fast_forward: bool) -> tuple[list[object], list[float], list[tuple[str, int]]]:
        states: list[object] = []
        written: list[float] = []

        def look(worker: Worker, now: float) -> None:
            if now not in looks:
                return
            load, host = worker.load, worker._scheduler.host
            states.append((load.running, load.waiting, load.queued_tokens))
            worker.observe(now)
            states.append((dataclasses.astuple(load), [worker.cached_tokens(job.request) for job in case.jobs]))
            tier = host._tier if host is not None else None
            while tier is not None:
                states.append(list(tier._ready))
                written.extend(tier._ready.values())
                tier = tier.below

        outcomes = replay(case, fast_forward=fast_forward, check=look, looks=looks).outcomes
        return states, written, [(kind, sequence.request.request_id) for _, kind, sequence in outcomes]

    fast, slow = seen(True), seen(False)
    assert fast[0] == slow[0]
    assert fast[1] == pytest.approx(slow[1], abs=1e-9)
    unseen = [(kind, sequence.request.request_id) for _, kind, sequence in replay(case, fast_forward=True).outcomes]
    assert fast[2] == slow[2] == unseen


@given(st.integers(0, 10**6), KINDS, st.booleans())
def test_invariants(seed: int, kind: str, fast: bool) -> None:
    case = case_of(seed, kind)
    limits = case.limits

    def check(worker: Worker, now: float) -> None:
        scheduler = worker._scheduler
        kv = scheduler.kv
        unused = list(kv.order())
        evictable = sum(entry.end - entry.start for entry in unused if isinstance(entry, BlockRun))
        evictable += sum(entry.extent for entry in unused if isinstance(entry, Holding))
        assert kv.free == kv.blank + evictable
        assert 0 <= kv.free <= kv.total
        assert len(scheduler.running) <= limits.max_num_seqs
        assert scheduler.queued_tokens >= 0
        there = len(scheduler.running) + scheduler.queue_length()
        assert worker.load.requests == there or worker.next_event_s() <= now
        for seq in scheduler.running:  # who has a token already had its prompt done then
            assert seq.mode != "full" or not seq.sampled or seq.prefill_end_s <= now
        if kind == "keys" and not fast:
            held = 0
            for seq in scheduler.running:
                tokens = seq.length + scheduler.clock - seq.join if seq.state == DECODE else seq.computed
                held += -(-tokens // limits.block_tokens(seq.request.prompt_tokens))
            assert kv.total - kv.free == held

    again = replay(case, fast_forward=fast, check=check)
    kv = again.worker._scheduler.kv
    assert kv.free == kv.total
    assert again.worker._scheduler.queued_tokens == 0
    assert again.worker.next_event_s() == math.inf
    finished = [seq.request.request_id for _, what, seq in again.outcomes if what == FINISHED]
    assert sorted(finished) == sorted(job.request.request_id for job in case.jobs)
    times = [outcome[0] for outcome in again.outcomes]
    assert times == sorted(times)
    for chunks, decodes, *_ in again.decisions:
        assert sum(tokens for tokens, _ in chunks) + decodes <= limits.max_num_batched_tokens
        assert len(chunks) + decodes <= limits.max_num_seqs
        if limits.prefill_first:
            assert not (chunks and decodes)
    for seq in again.sequences:
        assert seq.queued_s <= seq.prefill_start_s < seq.prefill_end_s <= seq.last_token_s
    ends = [row[0] + row[1] for row in again.worker.steps]
    assert all(end <= row[0] + 1e-9 for end, row in zip(ends, again.worker.steps[1:], strict=False))


# --- by hand ---------------------------------------------------------------------------------------

LAW = LinearLaw(step=1.0, per_token=0.0, per_decode=0.0, per_context=0.0)  # every step takes a second


def request(prompt: int, output: int, number: int = 1, spare: int = 0) -> Request:
    return Request(number, number, prompt, output, output + spare, ((number, prompt),), 0, -number)


def worker_of(**changes: object) -> Worker:
    return Worker("w", dataclasses.replace(limits_of(), **changes), LAW)  # type: ignore[arg-type]


def run(worker: Worker) -> list[tuple[float, str, int]]:
    seen = []
    while worker.next_event_s() < math.inf:
        seen += [(t, kind, seq.request.request_id) for t, kind, seq in worker.advance(worker.next_event_s())]
    return seen


@pytest.mark.parametrize(("asynchronous", "first"), [(False, 3.0), (True, 4.0)])
def test_an_arrival_during_a_step_joins_the_next_or_with_async_the_one_after(asynchronous: bool, first: float) -> None:
    worker = worker_of(async_scheduling=asynchronous)
    worker.submit(Sequence(request(10, 20, 1)), 0.0)
    worker.advance(0.0)
    worker.advance(1.5)
    late = Sequence(request(10, 5, 2))
    worker.submit(late, 1.5)
    outcomes = run(worker)
    assert late.prefill_start_s == first - 1.0
    assert (first, PREFILLED, 2) in outcomes
    assert (20.0, FINISHED, 1) in outcomes


def test_async_wastes_a_step_on_a_request_that_stops_early() -> None:
    for spare, decodes in ((0, 4), (3, 5)):
        worker = worker_of(async_scheduling=True)
        worker.submit(Sequence(request(10, 5, 1, spare)), 0.0)
        assert run(worker)[-1] == (5.0, FINISHED, 1)
        assert sum(row[3] * row[5] for row in worker.steps) == decodes


def test_who_comes_as_a_run_of_steps_ends_makes_it_no_longer() -> None:
    worker = worker_of()
    worker.submit(Sequence(request(40, 4, 1)), 0.0)
    worker.advance(0.0)
    worker.advance(1.0)  # decides three equal steps
    assert worker.next_event_s() == 4.0
    worker.submit(Sequence(request(40, 1, 2)), 4.0)
    assert run(worker) == [(4.0, FINISHED, 1), (5.0, PREFILLED, 2), (5.0, FINISHED, 2)]


def test_requests_of_one_instant_share_the_first_step() -> None:
    worker = worker_of()
    for number in (1, 2, 3):
        worker.submit(Sequence(request(20, 2, number)), 1.0)
    assert run(worker)[:3] == [(2.0, PREFILLED, 1), (2.0, PREFILLED, 2), (2.0, PREFILLED, 3)]
    assert worker.steps[0][2] == 60


@given(st.integers(1, 64), st.integers(0, 8), st.integers(1, 60), st.integers(-1, 1))
def test_the_step_that_runs_is_the_first_that_ends_later(first: int, growth: int, steps: int, beside: int) -> None:
    plan = Plan()
    plan.start, plan.first, plan.growth = 2.0, first / 8, growth / 1024  # binary fractions: ends are exact
    now_s = plan.boundary(steps) + beside / 64
    ends = (plan.boundary(number) for number in itertools.count(1))
    assert plan.steps_begun(now_s) == next(number for number, end in enumerate(ends, start=1) if end > now_s)


def test_prefill_worker_keeps_blocks_until_released() -> None:
    worker = worker_of(kv_blocks=4)
    first, second = Sequence(request(40, 9, 1), "prefill_only"), Sequence(request(40, 9, 2), "prefill_only")
    worker.submit(first, 0.0)
    worker.submit(second, 0.0)
    assert run(worker) == [(1.0, PREFILLED, 1), (1.0, FINISHED, 1)]
    assert worker.load.active_blocks == 3
    assert (worker.load.running, worker.load.waiting) == (0, 1)
    worker.release(first, 5.0)
    assert run(worker) == [(6.0, PREFILLED, 2), (6.0, FINISHED, 2)]


def test_a_release_is_seen_at_once() -> None:
    worker = worker_of(kv_blocks=7)
    first, second = Sequence(request(40, 9, 1), "prefill_only"), Sequence(request(20, 9, 2), "prefill_only")
    for seq in (first, second):
        worker.submit(seq, 0.0)
    run(worker)
    assert worker.load.active_blocks == 5
    worker.release(first, 5.0)
    assert worker.load.active_blocks == 2


def test_decode_worker_allocates_then_computes_one_prompt_token() -> None:
    worker = worker_of()
    remote = Sequence(request(40, 3, 1), "remote")
    worker.submit(remote, 0.0)
    assert run(worker) == [(0.0, ADMITTED, 1)]
    assert (remote.remote_tokens, remote.remote_blocks, worker.load.active_blocks) == (40, 3, 3)
    worker.kv_arrived(remote, 2.5)
    assert run(worker) == [(3.5, PREFILLED, 1), (5.5, FINISHED, 1)]
    assert remote.decode_start_s == 2.5
    assert worker.steps[:, 2:5].tolist() == [[1, 0, 0], [0, 1, 40]]


@pytest.mark.parametrize("fast", [True, False])
def test_what_was_written_is_heard_of_a_step_later_than_what_was_read(fast: bool) -> None:
    """Asking wakes the thread that fetches the message; asked again, a step later, the connector knows."""
    first = []
    for forwarded in (False, True):
        worker = Worker("w", dataclasses.replace(limits_of(), async_scheduling=True), LAW, fast_forward=fast)
        remote = Sequence(request(40, 3, 2), "remote")
        worker.submit(Sequence(request(10, 30, 1)), 0.0)
        worker.advance(0.0)
        worker.submit(remote, 3.5)
        worker.advance(6.5)
        worker.kv_read(remote, 6.5, forwarded)
        run(worker)
        first.append(remote.prefill_end_s)
    assert first[1] == first[0] + 1.0


def test_decode_worker_reads_only_what_it_lacks() -> None:
    worker = worker_of()
    shared = dataclasses.replace(request(40, 3, 1), shared_tokens=40)
    worker.submit(Sequence(shared), 0.0)
    run(worker)
    assert worker.cached_tokens(shared) == 32
    again = Sequence(dataclasses.replace(shared, request_id=2), "remote")
    worker.submit(again, 10.0)
    run(worker)
    assert (again.cached_tokens, again.remote_tokens, again.remote_blocks) == (32, 8, 1)


@pytest.mark.parametrize(("shared", "cached"), [(15, 0), (16, 16), (17, 16)])
def test_one_whole_block_in_common_is_found(shared: int, cached: int) -> None:
    worker = worker_of()
    common = dataclasses.replace(request(40, 3, 1), shared_tokens=shared)
    worker.submit(Sequence(common), 0.0)
    run(worker)
    assert worker.cached_tokens(dataclasses.replace(common, request_id=2)) == cached


@given(st.lists(st.integers(1, 100), min_size=2, max_size=6))
def test_a_request_finds_what_the_worker_says_that_it_has_cached(prompts: list[int]) -> None:
    """All begin alike. The last token of a prompt is computed, and with it its block."""
    worker, longest = worker_of(), 0
    for number, prompt in enumerate(prompts, start=1):
        known = Request(number, number, prompt, 1, 1, ((7, prompt),), prompt, -number)
        said = worker.cached_tokens(known)
        assert said == min(longest // 16, (prompt - 1) // 16) * 16
        sequence = Sequence(known)
        worker.submit(sequence, 1000.0 * number)
        run(worker)
        assert sequence.cached_tokens == said
        longest = max(longest, prompt)


def test_keys_alone_cost_what_was_computed_before_each_part_of_a_prompt() -> None:
    limits = limits_of(keys_above_tokens=1000, keys_chunk_s=0.01, keys_decode_s=0.001)
    worker = Worker("w", limits, LAW, fast_forward=False)
    for number, prompt in enumerate((1100, 1000)):  # the shorter one keeps values too
        worker.submit(Sequence(request(prompt, 3, number)), 100.0 * number)
        run(worker)
    costs = [row[1] - 1.0 for row in worker.steps]
    assert costs[:5] == pytest.approx([0.0, 5.12, 10.24, 1.100, 1.101], abs=1e-9)
    assert costs[5:] == pytest.approx([0.0] * 4, abs=1e-9)


@given(st.integers(0, 10**6), KINDS)
def test_values_are_computed_for_every_token_that_a_step_attends_to(seed: int, kind: str) -> None:
    """Where every sequence keeps keys alone: also with delayed decodes, preemptions and steps decided early."""
    case = case_of(seed, kind)
    decode_s, chunk_s = 2**-20, 2**-16
    limits = dataclasses.replace(case.limits, keys_above_tokens=0, keys_decode_s=decode_s, keys_chunk_s=chunk_s)
    again = replay(dataclasses.replace(case, limits=limits))
    for decision, row in zip(again.decisions, again.worker.steps, strict=True):
        chunks, batch, context, *_ = decision
        extra = decode_s * context + sum((chunk_s if tokens > 1 else decode_s) * done for tokens, done in chunks)
        assert row[1] == pytest.approx(case.law.duration(chunks, batch, context) + extra, abs=1e-9)


def test_a_rank_says_what_it_adds_to_the_step_of_all() -> None:
    """The posts of whom it admits, and values computed from keys; not the step's own work."""
    limits = limits_of(keys_above_tokens=0, keys_decode_s=0.25)
    worker = Worker("w", limits, LAW, in_lockstep=True, kv_consumer=True, posting=lambda *_: (0.125, 0.25, 0.0))
    worker.submit(Sequence(request(40, 9, 1)), 0.0)
    worker.advance(0.0)
    assert worker.beside_s == 0.0
    worker.end_with_others(3.0)
    worker.submit(Sequence(request(40, 9, 2), "remote"), 2.0)
    worker.advance(3.0)
    assert worker.beside_s == pytest.approx(40 * 0.25 + 0.125)


def test_loaded_requests_go_ahead_of_the_queue() -> None:
    worker = worker_of(max_num_seqs=1)
    remote, full = Sequence(request(40, 2, 1), "remote"), Sequence(request(40, 8, 2))
    later = Sequence(request(40, 2, 3))
    for seq in (remote, full, later):
        worker.submit(seq, 0.0)
    worker.advance(0.0)
    worker.kv_arrived(remote, 0.5)
    order = [number for _, kind, number in run(worker) if kind == PREFILLED]
    assert order == [2, 1, 3]


def test_observe_counts_the_steps_that_have_begun() -> None:
    for asynchronous, blocks in ((False, 3), (True, 4)):
        worker = worker_of(block_size=1, async_scheduling=asynchronous)
        worker.submit(Sequence(request(1, 50, 1)), 0.0)
        worker.advance(0.0)
        worker.advance(1.0)
        worker.observe(2.5)
        assert worker.load.active_blocks == blocks
        assert run(worker) == [(50.0, FINISHED, 1)]


@pytest.mark.parametrize(
    ("changes", "mode", "fault"),
    [
        ({}, "full", None),
        ({"max_model_len": 120}, "full", "max_model_len 120"),
        ({"max_model_len": 120}, "prefill_only", None),
        ({"kv_blocks": 7}, "full", "KV cache of 112 tokens"),
        ({"chunked_prefill": False, "max_num_batched_tokens": 110}, "full", "max_num_batched_tokens 110"),
        ({"prefill_first": True, "max_num_batched_tokens": 110}, "full", "not chunked"),
    ],
)
def test_refusal(changes: dict[str, object], mode: str, fault: str | None) -> None:
    reason = worker_of(**changes).refusal(request(100, 21), mode)  # type: ignore[arg-type]
    assert reason is None if fault is None else (reason is not None and fault in reason and "\n" not in reason)


def test_steps_table_has_one_row_a_run() -> None:
    law = LinearLaw()
    worker = Worker("w", limits_of(), law)
    worker.submit(Sequence(request(100, 11)), 0.0)
    run(worker)
    prefill, decode = worker.steps.tolist()
    assert prefill[2:6] == [100, 0, 0, 1]
    assert decode[2:7] == [0, 1, 100, 10, law.per_context]
    expected = sum(law.duration((), 1, 100 + step) for step in range(10))
    assert decode[1] == pytest.approx(expected, abs=1e-12)


def test_limits_type_is_the_shared_one() -> None:
    assert isinstance(worker_of().limits, EngineLimits)
    assert Job(0.0, Draw(1).plain(5, 5)).mode == "full"
