"""How many lists of requests a race takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.spec import Disaggregated
from planner.suggestion.answer import TIE, Row, best_of
from planner.suggestion.race import DOUBT, LOOK, Race, is_beyond_doubt, unproven
from planner.suggestion.rows import rough_row
from planner.suggestion.search import Found, Probe
from planner.suggestion.splits import PoolSize, Split
from planner.suggestion.suggest import suggest
from planner.suggestion.tasks import ProbeTask, Searched
from planner.suggestion.verdict import Advantage, decide


def word(found: Advantage) -> str:
    return decide(found, 0.05, 0.03)


@given(st.floats(-0.9, 2), st.floats(0, 0.3), st.floats(0, 0.3))
def test_what_is_beyond_doubt_is_no_other_verdict_anywhere_in_the_wider_interval(
    value: float, below: float, above: float
) -> None:
    found = Advantage(value, value - below, value + above)
    if is_beyond_doubt(found, word):
        for width in (0.0, 0.5, 1.0, DOUBT):
            assert word(Advantage(value, value - width * below, value + width * above)) == word(found)


@pytest.mark.parametrize(
    ("found", "sure"),
    [
        (Advantage(0.5, 0.45, 0.55), True),
        (Advantage(0.5, 0.4, 0.6), False),  # clear, but how much more it is nobody knows well
        (Advantage(0.10, 0.085, 0.12), False),  # worth it, but hardly
        (Advantage(0.10, 0.05, 0.15), False),  # too close to call, which a narrower interval need not be
        (Advantage(0.05, 0.04, 0.06), True),  # however narrow, within what the profile leaves open
        (Advantage(-0.3, -0.32, -0.28), True),
    ],
)
def test_doubt(found: Advantage, sure: bool) -> None:
    assert is_beyond_doubt(found, word) is sure


def test_a_clear_answer_takes_the_first_lists_and_says_so() -> None:
    asked = planner.load("disagg", ["workload.prompt_tokens=300", "workload.output_tokens=300", "slo.tpot_ms=12"])
    found = suggest(asked, 2, seeds=4, requests=150, processes=1)
    assert (found.seeds, found.seeds_asked) == (LOOK, 4)
    assert all(row.seeds == LOOK for row in found.rows if row.refined)
    assert found.verdict is not None
    every = suggest(asked, 2, seeds=LOOK, requests=150, processes=1)
    assert every.verdict == found.verdict
    assert (every.seeds, every.seeds_asked) == (LOOK, LOOK)


def test_where_it_is_in_doubt_every_list_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same question, but nothing is ever sure: the runs of the first lists are kept and the others join them."""
    monkeypatch.setattr("planner.suggestion.race.DOUBT", 1e9)
    asked = planner.load("disagg", ["workload.prompt_tokens=300", "workload.output_tokens=300", "slo.tpot_ms=12"])
    found = suggest(asked, 2, seeds=4, requests=150, processes=1)
    assert (found.seeds, found.seeds_asked) == (4, 4)
    assert {row.seeds for row in found.rows if row.refined} == {4}


def test_one_list_has_no_others() -> None:
    assert not Race(planner.load("disagg"), 2, [0], lambda *_: []).needs_all([])


SESSIONS = "workload={kind: sessions, sessions: 100, turns: 4, rate: 2, prompt_tokens: 300, output_tokens: 100}"


def race_of(edges: list[float], rough: float) -> tuple[Row, list[tuple[int, float]]]:
    """Two splits that hold the same; of each list of requests more miss the faster its own edge is passed."""
    spec = planner.load("disagg", [SESSIONS])
    runs: list[tuple[int, float]] = []

    def each(_: object, tasks: Sequence[ProbeTask], part: tuple[float, float]) -> list[Probe]:
        assert 0 <= part[0] <= part[1] <= 1
        runs.extend((task.seed, task.rate) for task in tasks)
        return [served(task.rate, edges[task.seed]) for task in tasks]

    split = Split(PoolSize(1, 1), PoolSize(1, 1))
    row = rough_row(spec, 2, split, Searched(rough, Found(rough, rough * 1.02, (served(rough, rough),))))
    race = Race(spec, 2, range(len(edges)), each)
    return race.run([row], [split], None, (0.0, 1.0))[0], runs


def served(rate: float, edge: float) -> Probe:
    """1 % of 400 requests miss at the edge."""
    missed = round(100 / (1 + 99 * (edge / rate) ** 40))  # of each of four parts
    share = 1 - missed / 100
    return Probe(rate, missed <= 1, share, rate * share, rate, rate, 100.0, False, True, ((100, 100 - missed),) * 4)


@given(st.lists(st.floats(80, 120), min_size=5, max_size=5), st.floats(0.8, 1.25))
@settings(max_examples=30, deadline=None)
def test_what_is_not_run_says_what_a_run_would_have(edges: list[float], off: float) -> None:
    rough = off * sum(edges) / len(edges)
    found, runs = race_of(edges, rough)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Race, "_known_at", lambda self, split, index, rate: self._runs[split][index].get(rate))
        every, more = race_of(edges, rough)
    assert found.refined and every.refined
    assert all(one.probes for one in found.searches)
    assert found.rate == pytest.approx(every.rate, rel=0.02)
    assert len(runs) == len(set(runs))  # nothing twice
    assert len(runs) <= len(more)


def of_tp(tp: int) -> Split:
    return Split(PoolSize(1, tp), PoolSize(1, tp))


@given(
    st.lists(st.floats(85, 118), min_size=5, max_size=5),
    st.lists(st.floats(0.7, 1.3), min_size=3, max_size=3),
    st.lists(st.floats(0.9, 1.1), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_nobody_that_is_left_behind_holds_more_than_the_best(
    lists: list[float], holds: list[float], off: list[float]
) -> None:
    """Three splits, each so good, of rough rates that are off: the best one by all lists wins, or one that ties."""
    spec = planner.load("disagg", [SESSIONS])
    sizes = [of_tp(tp) for tp in (1, 2, 4)]
    better = dict(zip(sizes, holds, strict=True))

    def each(_: object, tasks: Sequence[ProbeTask], part: tuple[float, float]) -> list[Probe]:
        found = []
        for task in tasks:
            pools = task.spec.deployment
            assert isinstance(pools, Disaggregated)
            found.append(served(task.rate, better[of_tp(pools.prefill.tp)] * lists[task.seed]))
        return found

    rows = []
    for split, wrong in zip(sizes, off, strict=True):
        rough = wrong * better[split] * sum(lists) / len(lists)
        found = Found(rough, rough * 1.02, (served(rough, rough),))
        rows.append(rough_row(spec, 8, split, Searched(rough, found)))
    race = Race(spec, 8, range(len(lists)), each)
    raced = {row.split: row for row in race.run(rows, sizes, None, (0.0, 1.0))}
    best = best_of([*raced.values()], "disaggregated")
    assert best is not None
    assert better[best.split] >= 0.97 * max(holds)
    assert all(row.rate <= best.rate / TIE * 1.001 for row in raced.values())
    assert not unproven([*raced.values()], 3, race.looks)


def test_the_list_that_fails_first_is_the_one_that_is_run() -> None:
    _, runs = race_of([110.0, 110.0, 110.0, 110.0, 90.0], 108.0)
    assert len({rate for seed, rate in runs if seed == 4}) > len({rate for seed, rate in runs if seed == 3})
