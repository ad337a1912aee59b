"""The scheduler's rules, one small example each. Equality with vLLM is tests/test_oracle.py."""

from __future__ import annotations

import dataclasses

from engine_cases import limits_of
from planner.traffic.requests import Request
from simulator.batching import Scheduler
from simulator.sequence import Outcome, Plan, Sequence


def request(prompt: int, output: int = 4, number: int = 1, content: int | None = None) -> Request:
    segments = ((number if content is None else content, prompt),)
    shared = 0 if content is None else prompt
    return Request(number, number, prompt, output, output, segments, shared, -number)


class Steps:
    """A scheduler whose steps end at once."""

    def __init__(self, **changes: object) -> None:
        limits = dataclasses.replace(limits_of(), **changes)  # type: ignore[arg-type]
        self.scheduler = Scheduler(limits, fast_forward=False, shared_content=True)
        self.outcomes: list[Outcome] = []
        self.numbers = 0

    def add(self, prompt: int, output: int = 4, content: int | None = None) -> Sequence:
        self.numbers += 1
        sequence = Sequence(request(prompt, output, self.numbers, content))
        self.scheduler.enqueue(sequence)
        return sequence

    def step(self) -> Plan | None:
        plan = self.scheduler.schedule(0.0, self.outcomes)
        if plan is not None:
            self.scheduler.retire(plan)
            for sequence in plan.ending:
                self.scheduler.finish(sequence)
        return plan

    def chunks(self) -> tuple[tuple[int, int], ...]:
        plan = self.step()
        return () if plan is None else tuple(plan.chunks)


def test_the_last_admitted_prompt_is_cut_at_the_budget() -> None:
    steps = Steps(max_num_batched_tokens=100)
    steps.add(60)
    steps.add(90)
    steps.add(10)
    assert [steps.chunks() for _ in range(3)] == [((60, 0), (40, 0)), ((50, 40), (10, 0)), ()]


def test_without_chunks_a_prompt_waits_for_a_step_with_room_and_holds_up_the_queue() -> None:
    steps = Steps(max_num_batched_tokens=100, chunked_prefill=False)
    steps.add(60, 9)
    steps.add(90, 9)
    steps.add(10, 9)
    assert [steps.chunks() for _ in range(3)] == [((60, 0),), ((90, 0),), ((10, 0),)]


def test_decodes_come_before_an_unfinished_prompt() -> None:
    steps = Steps(max_num_batched_tokens=100)
    steps.add(50)
    steps.add(200)
    steps.step()
    plan = steps.step()
    assert plan is not None
    assert (plan.batch, plan.context, tuple(plan.chunks)) == (1, 50, ((99, 50),))


def test_long_prompts_leave_room_for_others_unless_alone() -> None:
    steps = Steps(long_prefill_token_threshold=64)
    steps.add(300)
    assert steps.chunks() == ((300, 0),)
    steps = Steps(long_prefill_token_threshold=64)
    steps.add(300)
    steps.add(100)
    assert steps.chunks() == ((64, 0), (64, 0))


def test_equal_prompts_of_one_step_share_blocks_and_recompute_the_last() -> None:
    steps = Steps(max_num_batched_tokens=2048, kv_blocks=100)
    steps.add(640, content=7)
    second = steps.add(640, content=7)
    assert steps.chunks() == ((640, 0), (16, 624))
    assert second.cached_tokens == 624
    assert steps.scheduler.kv.free == 100 - 41


def test_a_whole_prompt_must_fit_before_its_first_chunk() -> None:
    for reserve, expected in ((True, ((100, 0),)), (False, ((100, 0), (28, 0)))):
        steps = Steps(max_num_batched_tokens=128, kv_blocks=10, reserve_full_prompt=reserve)
        steps.add(100)
        steps.add(120)
        assert steps.chunks() == expected


def test_the_watermark_holds_only_while_others_run() -> None:
    steps = Steps(kv_blocks=10, watermark_blocks=3)
    steps.add(150)
    steps.add(1)
    assert steps.chunks() == ((150, 0),)
    assert steps.chunks() == ()


def test_the_last_admitted_is_preempted_and_hits_its_own_blocks_again() -> None:
    steps = Steps(kv_blocks=4)
    first, second = steps.add(32, 17), steps.add(32, 40)
    assert steps.chunks() == ((32, 0), (32, 0))
    plan = steps.step()
    assert plan is not None
    assert (plan.batch, plan.preempted, plan.running, plan.waiting) == (1, 1, 1, 1)
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert steps.outcomes == [(0.0, "PREEMPTED", second)]
    assert [steps.chunks() for _ in range(15)] == [()] * 15  # its 33 tokens need a block that is not free
    assert steps.chunks() == ((17, 16),)  # one of its two blocks was evicted for the first request


def test_prefill_first_never_mixes() -> None:
    steps = Steps(prefill_first=True, max_num_batched_tokens=100)
    steps.add(60)
    steps.add(60)
    steps.add(40)
    seen = [steps.step() for _ in range(3)]
    assert [(plan.batch, tuple(plan.chunks)) for plan in seen if plan] == [
        (0, ((60, 0),)),
        (0, ((60, 0), (40, 0))),
        (3, ()),
    ]


def test_places_limit_the_batch() -> None:
    steps = Steps(max_num_seqs=2)
    for _ in range(3):
        steps.add(10, 2)
    plan = steps.step()
    assert plan is not None
    assert (plan.running, plan.waiting, len(plan.chunks)) == (2, 1, 2)
    assert [steps.chunks(), steps.chunks()] == [(), ((10, 0),)]


def test_an_answer_is_found_by_the_turn_that_contains_it() -> None:
    steps = Steps()
    first = dataclasses.replace(request(32, 40, 1, content=7), output_shared=True)
    steps.scheduler.enqueue(Sequence(first))
    while steps.step() is not None:
        pass
    segments = ((7, 32), (first.output_content, 40), (9, 8))
    second = dataclasses.replace(request(80, 1, 2, content=7), segments=segments)
    steps.scheduler.enqueue(Sequence(second))
    assert steps.chunks() == ((16, 64),), "the last answered token was never computed: 71 tokens are four blocks"


def test_what_is_read_from_another_worker_leaves_room_for_the_prompt_in_progress() -> None:
    """Its 8 blocks, of which it has 2 after its first 32 tokens; 4 more are needed for what is read."""
    for blocks, fits in ((12, True), (11, False)):
        steps = Steps(max_num_batched_tokens=64, long_prefill_token_threshold=32, kv_blocks=blocks)
        steps.add(128)
        read = Sequence(request(64, 4, 9), "remote")
        steps.scheduler.enqueue(read)
        steps.step()
        assert (read in steps.scheduler.loading) == fits


def test_a_delayed_decode_ends_so_many_steps_later_by_its_one_entry() -> None:
    steps = Steps()
    sequence = steps.add(8, 10)
    entries = []
    for number in range(1, 20):
        plan = steps.step()
        assert plan is not None
        if plan.ending:
            break
        if number in (3, 4, 9):
            steps.scheduler.delay(sequence)
        entries.append(len(steps.scheduler.ends))
    assert number == 10 + 3
    assert set(entries) == {1}
