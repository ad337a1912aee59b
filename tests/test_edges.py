"""Highest rates from runs around an edge, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from planner.suggestion.edge import Edge, interval, is_found, next_rate
from planner.suggestion.probe import Period
from planner.suggestion.race import FIRST_STEP, LOOK, ROUNDS
from planner.suggestion.search import BLOCKS, Probe
from planner.suggestion.verdict import advantage
from search_cases import threshold


class Queue:
    """A single server with random work and random gaps: where 99 % are done within `limit_s` is known exactly.

    Sojourn times of M/M/1 are exponential with mean 1 / (speed - rate).
    """

    limit_s = 15.0

    def __init__(self, speed: float, seeds: int, trial: int, count: int) -> None:
        self.speed = speed
        draws = np.random.default_rng(trial).exponential(size=(2, seeds, 3 * count + 100))
        self.gaps, self.work = draws  # the same for every speed
        self.period = Period(count / self.truth, 0.1 * count / self.truth)

    @property
    def truth(self) -> float:
        return self.speed - math.log(100) / self.limit_s

    def run(self, seed: int, rate: float) -> Probe:
        arrivals = np.cumsum(self.gaps[seed]) / rate
        arrivals = arrivals[arrivals <= self.period.seconds]
        done = np.cumsum(self.work[seed][: len(arrivals)] / self.speed)
        done = done + np.maximum.accumulate(arrivals - np.concatenate([[0.0], done[:-1]]))
        good = done - arrivals <= self.limit_s
        length = self.period.seconds - self.period.warmup_s
        part = np.floor(BLOCKS * (arrivals - self.period.warmup_s) / length)
        blocks = tuple((int((part == i).sum()), int((good & (part == i)).sum())) for i in range(BLOCKS))
        return Probe(rate, True, 0.0, 0.0, 0.0, 0.0, 0.0, False, True, blocks)

    def edge(self, rough: float, error: float) -> Edge:
        """Run as suggest runs a finalist whose rough rate is `rough` times the truth."""
        first, others = [*range(len(self.gaps))][:LOOK], [*range(len(self.gaps))][LOOK:]
        runs: list[list[Probe]] = [[] for _ in self.gaps]

        def add(seeds: list[int], rates: list[float]) -> None:
            for seed in seeds:
                runs[seed] += [self.run(seed, rate) for rate in rates]

        add(first, [self.truth * rough / FIRST_STEP, self.truth * rough * FIRST_STEP])
        while not (look := Edge.of(runs[: len(first)], 0.99)).is_within(FIRST_STEP**2):
            add(first, [next_rate(look)])
        if others:
            runs[:] = [[one for one in of_seed if one.rate in look.bracket] for of_seed in runs]
            add(others, [*look.bracket])
        while not is_found(found := Edge.of(runs, 0.99), error):
            add(first + others, [next_rate(found)])
        return found


@pytest.mark.parametrize("count", [200, 1000, 2000])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_intervals_cover_the_truth_however_short_the_runs(count: int, seeds: int) -> None:
    """95 % intervals of two queues whose highest rates are known; 60 trials with new random numbers each."""
    trials, covered, widths = 60, 0, []
    for trial in range(trials):
        fast, slow = (Queue(speed, seeds, 1000 * count + trial, count) for speed in (1.1, 1.0))
        rough = np.exp(np.random.default_rng(trial).normal(0.03, 0.1, 2))
        found = advantage(*(queue.edge(off, 0.03) for queue, off in zip((fast, slow), rough, strict=True)))
        covered += found.low <= fast.truth / slow.truth - 1 <= found.high
        widths.append(found.high - found.low)
    assert covered / trials >= 0.9  # 3 standard errors below 0.95 would be 0.87
    assert np.median(widths) < 2.0 / math.sqrt(count * seeds / 200)  # and they do shrink


def test_a_bracket_is_as_fine_as_what_is_not_known_makes_worth_it() -> None:
    def of(below: float, above: float) -> Edge:
        runs = [replace(threshold(5.0, rate), blocks=((50, 50 if rate <= 5 else 45),) * 4) for rate in (below, above)]
        return Edge.of([runs] * 5, 0.99)

    assert not is_found(of(4.9, 5.1), 0.0)
    assert is_found(of(4.9, 5.1), 0.1)
    assert not is_found(of(4.8, 5.2), 0.5)  # however little is known


def test_targets_that_all_may_miss_have_an_edge() -> None:
    runs = [[replace(threshold(5.0, rate), blocks=((50, 0),) * 4) for rate in (4.0, 6.0)] for _ in range(2)]
    assert math.isfinite(Edge.of(runs, 0.0).expected())


def test_runs_that_fall_behind_at_one_rate_or_the_next_leave_a_narrow_interval() -> None:
    """Nobody misses a target, as where none is set: only whether runs keep up tells the edge."""
    lasting = (10.2, 10.3, 10.1, 10.2, 10.3)  # the highest rate that each seed keeps up with
    every = ((250, 250),) * 4
    runs = [
        [replace(threshold(20.0, rate), kept_up=rate <= most, blocks=every) for rate in (10.1, 10.2, 10.3)]
        for most in lasting
    ]
    rate, low, high = interval([Edge.of(runs, 0.99)])
    assert 10.0 < low < rate < high < 10.5


def _edge(*steps: float, seeds: int = 5) -> Edge:
    """Runs of 1,000 requests at 10, 10.1, 10.2, ... that miss these shares; every other seed a little more."""
    runs = []
    for seed in range(seeds):
        missed = [round(share * 250 * (1 + 0.2 * (seed % 2))) for share in steps]
        runs.append(
            [Probe(10 + 0.1 * i, True, 0, 0, 0, 0, 0, False, True, ((250, 250 - m),) * 4) for i, m in enumerate(missed)]
        )
    return Edge.of(runs, 0.99)


def test_intervals_are_paired() -> None:
    """Both rise and fall with the seed together, so that only their ratio counts."""
    one = _edge(0.004, 0.008, 0.016, 0.032)
    assert one.bracket == (pytest.approx(10.1), pytest.approx(10.2))
    alone, both = interval([one]), interval([one, one])
    assert 10.1 <= alone[0] <= 10.2
    assert both[0] == 1.0
    bracket = 2**0.5 * math.log(10.2 / 10.1) / 2
    assert math.log(both[2]) == pytest.approx(0.95 * bracket, rel=1e-6)  # nothing but what the rates leave open
    with pytest.raises(ValueError, match="as many seeds"):
        interval([one, _edge(0.004, 0.016, seeds=4)])


def test_targets_that_all_must_meet_have_an_edge() -> None:
    """No miss is allowed: the edge lies between the last rate without one and the first with one."""
    misses = {10.0: (0, 0, 0, 0, 0), 10.1: (0, 0, 0, 0, 0), 10.2: (0, 0, 0, 1, 0), 10.3: (2, 0, 1, 2, 1)}
    full = ((250, 250),) * 3
    runs = [
        [
            Probe(rate, True, 0, 0, 0, 0, 0, False, True, ((250, 250 - missed[seed]), *full))
            for rate, missed in misses.items()
        ]
        for seed in range(5)
    ]
    edge = Edge.of(runs, 1.0)
    assert edge.bracket == (10.1, 10.2)
    rate, low, high = interval([edge])
    assert 10.1 <= rate <= 10.2
    assert 9.5 < low < rate < high < 11


def test_lines_that_still_grow_widen_the_interval() -> None:
    """Few misses in the first half of the runs and many in the second: the runs were too short to tell."""

    def edge(*parts: float) -> Edge:
        """Ever twice as many misses at rates 2 % apart; `parts`: how they spread over a run."""
        runs = [
            Probe(
                10 * 1.02**i, True, 0, 0, 0, 0, 0, False, True, tuple((1000, 1000 - round(m * part)) for part in parts)
            )
            for i, m in enumerate((10, 20, 40, 80, 160))
        ]
        return Edge.of([runs] * 5, 0.99)

    _, low, high = interval([edge(0.0, 0.2, 0.3, 0.5)])
    _, calm_low, calm_high = interval([edge(0.25, 0.25, 0.25, 0.25)])
    assert high - low > 1.2 * (calm_high - calm_low)


@pytest.mark.parametrize("off", [1 / 30, 1 / 2, 1.0, 3.0, 100.0])
def test_an_edge_far_from_where_the_search_began_is_found(off: float) -> None:
    """First searches use one list of requests; all lists together may be far from it (1 GPU at tight targets)."""
    limit, runs = 5.0, list[list[Probe]]([[], []])
    rates = [limit * off / 1.04, limit * off, limit * off * 1.04]
    for _ in range(ROUNDS):
        for rate in rates:
            for of_seed in runs:
                of_seed.append(replace(threshold(limit, rate), blocks=((50, 50 if rate <= limit else 45),) * 4))
        found = Edge.of(runs, 0.99)
        rates = [] if is_found(found, 0.0) else [next_rate(found)]
        if not rates:
            break
    below, above = found.bracket
    assert below <= limit < above
    assert above / below <= 1.011
