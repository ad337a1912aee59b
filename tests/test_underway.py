"""Traffic that has long gone on: who comes, how many there are, and what is held for long."""

from __future__ import annotations

import math

import pytest

import planner
from planner.spec import Sessions
from planner.suggestion.lasting import held
from planner.suggestion.probe import Period, lengths_of
from planner.suggestion.search import Served, served, system_of
from planner.suggestion.splits import PoolSize, Split, apply
from planner.suggestion.tasks import ProbeTask
from planner.suggestion.tune import IN_REACH, LATER, TuneTask, _held_to
from planner.suggestion.underway import Cast, Start, underway
from planner.system.capacity import token_s
from planner.traffic.loads import Chained, Underway
from planner.traffic.requests import Arrival, Request

CHATS = Sessions(kind="sessions", rate=1.0, turns=6, think_time_s=2.0, prompt_tokens=200, output_tokens=100)


def request(number: int) -> Request:
    return Request(number, number, 10, 5, 5, ((number, 10),), 0, -number)


def test_whoever_is_ready_comes_when_a_seat_is_due() -> None:
    """And the seat's own request where nobody is; who is ready later goes on by himself."""
    asked, again, long_asked, later, seat = map(request, range(1, 6))
    load = Chained((Arrival(0.0, asked), Arrival(2.0, seat)), {1: (0.5, again), 3: (9.0, later)})
    found = Underway(load, 4, frozenset(), (), frozenset({5}), entering_s=5.0)
    assert found.start() == list(load.arrivals)
    assert found.finished(asked, 1.0) == []
    assert found.comes(seat, 1.4) is seat
    assert found.comes(long_asked, 2.0) is long_asked  # no seat: it begins in the run
    assert found.comes(seat, 2.0) is again
    assert found.comes(seat, 2.0) is seat
    assert found.finished(long_asked, 1.0) == [Arrival(10.0, later)]


def test_seeds_begin_with_as_many_sessions_as_chance_has() -> None:
    """A Poisson number of them, spread evenly over neighbouring seeds."""
    crowds = [Cast(CHATS, seed).crowd(100.0, 0.01) for seed in range(60)]
    expected = 100.0 * (100 * 0.01 + 2.0)
    mean = sum(crowds) / len(crowds)
    assert mean == pytest.approx(1.0, abs=0.005)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in crowds) / len(crowds))
    assert deviation == pytest.approx(1 / math.sqrt(expected), rel=0.1)
    assert min(crowds[:4]) < 1 < max(crowds[:4])


def test_a_request_is_the_same_at_any_rate_and_in_any_order() -> None:
    """A list that has grown for a high rate gives a low one what it gave before."""
    start = Start(entering_s=5.0, token_s=0.02, ended_s=10.0)
    cast, other = Cast(CHATS, 7), Cast(CHATS, 7)
    low = underway(cast, 20.0, 30.0, start)
    underway(other, 400.0, 30.0, start)
    again = underway(other, 20.0, 30.0, start)
    assert low.start() == again.start()
    assert (low.memories, low.resumed, low.expected_requests) == (
        again.memories,
        again.resumed,
        again.expected_requests,
    )


def test_what_a_deployment_holds_for_long_is_what_recovers_from_a_crowd() -> None:
    one = apply(planner.load("disagg", ["slo={ttft_ms: 1000, tpot_ms: 12}"]), Split(PoolSize(1, 1)))
    period = Period(60.0, 20.0, 5.0)

    def held_from(*rates: float) -> list[float]:
        return held(
            [ProbeTask(one, 0, rate, period) for rate in rates], lambda run, tasks: [run(each) for each in tasks]
        )

    assert held_from(2.0) == [2.0]
    (rate,) = held_from(40.0)
    assert 2.0 < rate < 40.0
    assert held_from(rate) == [rate]
    assert held_from(2.0, 40.0, rate) == [2.0, rate, rate]  # one run of each at a time, and what is found is the same


@pytest.mark.parametrize(("prompt", "rate"), [(600, 12.0), (600, 30.0), (3000, 7.0)])
def test_the_pace_of_engines_counts_prompts_that_share_steps(prompt: int, rate: float) -> None:
    workload = f"workload={{kind: poisson, rate: 1, prompt_tokens: {prompt}, output_tokens: 150}}"
    one = apply(planner.load("disagg", [workload, "slo={ttft_ms: 2000, tpot_ms: 60}"]), Split(PoolSize(1, 1)))
    system = system_of(one)
    run = served(system, rate, 0, period=Period(60.0, 10.0, 5.0))
    assert isinstance(run, Served)
    assert token_s(system, rate, lengths_of(system, 0), one.slo) == pytest.approx(run.tpot[run.judged].mean(), rel=0.15)


def test_challengers_must_catch_up_with_the_best_of_their_mode() -> None:
    one = planner.load("disagg")
    tasks = [TuneTask(one, Split(PoolSize(size, 1)), 0, rate, rate, None) for size, rate in ((1, 10.0), (2, 20.0))]
    last, before = (_held_to(tasks, (later, 0))[0].goal for later in (0, 1))
    assert (last, before) == pytest.approx((20.0 * IN_REACH, 20.0 * IN_REACH * LATER))
    assert _held_to(tasks, (0, 0))[1].goal == tasks[1].goal


def test_long_chats_need_not_be_made_whole() -> None:
    """Of 300 turns a run sends a few: the list that they are met in may be longer than one that is sent."""
    chats = CHATS.model_copy(update={"turns": 300})
    found = underway(Cast(chats, 0), 40.0, 20.0, Start(entering_s=5.0, token_s=0.02, ended_s=10.0))
    assert len(found.start()) == pytest.approx(40 * 5 + 40 * 0.02 * 100 + 40 / 300 * 20, rel=0.2)
