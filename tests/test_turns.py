"""Sessions send as fast as they are answered: what they ask for is seen all the same."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

import planner
from hand_made import requests, run
from planner.report.explain import explain
from planner.report.printing import sentence, warnings
from planner.run.metrics import Summary, summarise
from planner.suggestion.search import sent
from planner.suggestion.tasks import period_of
from planner.system.resolve import resolve
from simulator.backend import SimulatorBackend

TURNS, PAUSE_S = 5, 2.0


def sessions(count: int, gap_s: float, answer_s: Callable[[float], float], tokens: int = 11) -> Summary:
    """`count` sessions of five turns, one each `gap_s`; an answer takes what `answer_s` says of when it is sent."""
    session, arrival, took = [], [], []
    for number in range(count):
        time = number * gap_s
        for _ in range(TURNS):
            session.append(number)
            arrival.append(time)
            took.append(answer_s(time))
            time += took[-1] + PAUSE_S
    whole = np.array(took)
    table = requests(arrival, np.full(len(whole), 0.05), tokens=tokens, session_id=np.array(session))
    table["finish_s"] = table["arrival_s"] + whole
    return summarise(run(table, workload={"kind": "sessions", "rate": 1 / gap_s}, slo={"ttft_ms": 1e6}))


def served_by(per_s: float, count: int, gap_s: float) -> Summary:
    """One server, first come first served, of so many requests a second; the first token comes at the end."""
    session, arrival, end = [], [], []
    due = [(number * gap_s, number, 0) for number in range(count)]
    free = 0.0
    while due:
        due.sort()
        time, number, turn = due.pop(0)
        free = max(free, time) + 1 / per_s
        session.append(number)
        arrival.append(time)
        end.append(free)
        if turn + 1 < TURNS:
            due.append((free + PAUSE_S, number, turn + 1))
    table = requests(arrival, np.array(end) - arrival, tokens=1, session_id=np.array(session))
    return summarise(run(table, workload={"kind": "sessions", "rate": 1 / gap_s}))


def test_what_is_asked_is_sessions_times_turns() -> None:
    summary = sessions(100, 1.0, lambda _: 1.0)
    state = summary.saturation
    assert json.loads(json.dumps(summary.to_dict()))["saturation"]["asked_per_s"] == pytest.approx(TURNS)
    assert state.asked_per_s == pytest.approx(TURNS)
    assert state.offered_per_s is not None
    assert state.offered_per_s < TURNS  # beginning and end of the run
    assert (state.saturated, state.steady, state.reached, state.held_back) == (False, True, True, False)


def test_answers_that_take_ever_longer_are_past_saturation_although_little_waits() -> None:
    summary = sessions(200, 1.0, lambda time: 1.0 + time / 15)
    state = summary.saturation
    assert state.offered_per_s is not None
    assert state.offered_per_s < 0.8 * TURNS  # the rate that is sent gave way
    assert state.saturated
    text = sentence(summary)
    assert text.startswith("Past saturation: sessions ask 1 aggregated worker on 1x H200 for 5 req/s and get ")
    assert not summary.meets_targets
    assert explain(summary).kind == "decode"  # not prefill: first tokens come at once


def test_sessions_that_outlast_their_beginning_are_too_few_to_tell() -> None:
    summary = sessions(40, 1.0, lambda time: 1.0 if time < 12 else 12.0)
    state = summary.saturation
    assert (state.saturated, state.steady, state.held_back) == (False, False, True)
    assert " of the 5 wanted req/s; " in sentence(summary)
    assert warnings(summary)[0].startswith("Slow answers keep sessions from sending the 5 req/s that are asked")


def test_a_list_that_ends_before_the_rate_is_reached_says_so() -> None:
    summary = sessions(50, 0.1, lambda _: 1.0)
    assert (summary.saturation.saturated, summary.saturation.held_back) == (False, False)
    assert warnings(summary)[0].startswith("Too few sessions for the 50 req/s that are asked")
    assert " of the 50 wanted req/s" in sentence(summary)


@pytest.mark.parametrize(("per_s", "past"), [(6.0, False), (4.0, True)])
def test_a_server_of_sessions_is_past_saturation_where_it_serves_less_than_they_ask(per_s: float, past: bool) -> None:
    assert served_by(per_s, 300, 1.0).saturation.saturated == past  # 5 are asked


def test_how_long_a_run_drains_does_not_hide_its_line() -> None:
    state = served_by(2.0, 60, 0.5).saturation  # 10 are asked
    assert state.saturated
    assert state.asked_per_s == pytest.approx(10, rel=0.05)


def test_sessions_that_had_begun_before_their_run_are_judged_as_other_requests() -> None:
    """As `suggest` has them: the list holds later turns without the first."""
    system = resolve(planner.load("multi-turn"))
    seed, rate = system.spec.run.seed, 10.0
    run = SimulatorBackend().run(system, sent(system, seed, rate, period_of(system.spec, 200, rate)))
    assert run.manifest["underway"] is True
    assert summarise(run).saturation.asked_per_s is None
    assert "underway" not in planner.simulate(planner.load("multi-turn", ["workload.sessions=9"])).manifest


@pytest.mark.parametrize(("rate", "past"), [(4.0, False), (10.0, True)])
def test_an_engine_that_gives_all_it_has_is_past_saturation_though_its_batch_takes_everybody_in(
    rate: float, past: bool
) -> None:
    """Nobody waits long for a first token; tokens come ever more slowly. 20 and 52 req/s are asked."""
    chats = ["deployment.replicas=1", "workload.think_time_s=1", f"workload.rate={rate}"]
    spec = planner.load("multi-turn", [*chats, f"workload.sessions={90 * rate:.0f}"])
    assert summarise(planner.simulate(spec)).saturation.saturated == past
