"""Where the share of requests within the targets falls below the asked one: the highest rate, and how sure it is.

A candidate was run at a few rates around its edge, once a seed. The misses of all runs at a rate are counted together;
between rates the logarithm of their odds is taken as a straight line. How sure that is comes from a bootstrap over
halves of runs (over quarters, with fewer than three seeds), from the bracket that the rates leave, and from what the
second halves say by themselves: where runs are so short that lines still grow, they say something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.suggestion.search import SURE, WIDEST, Probe, beside

Array = NDArray[np.float64]

FINE = 0.01  # width of the bracket that the rates of a candidate end with
COARSEST = 0.06  # width that it ends with at most
BESIDE = 0.25  # or half its width beside what chance and the step times leave open: together 3 % more than these
NEXT_STEP = 1.04  # between rates while all of them pass, or none does, at least
FARTHER = 1.25  # and at most, times as much for each rate that was run
LINES = 3  # rates that say how misses grow
STEEP = 5.0  # misses grow at least with this power of the rate, if nothing else is known
DRAWS = 4000
CONFIDENCE = 0.95
SEEDS = 3  # from so many on, runs are cut in two only: parts are the less independent the shorter they are


@dataclass(frozen=True, slots=True)
class Edge:
    """Runs of one candidate. `rates` ascend; `counts` is seeds x blocks x rates x (judged, missed)."""

    rates: Array
    counts: Array
    kept_up: Array  # seeds x rates, 1 or 0
    missing: float  # share that may miss the targets
    least_slope: float = STEEP  # misses grow at least with this power of the rate

    @staticmethod
    def of(probes: Sequence[Sequence[Probe]], attainment: float) -> Edge:
        """`probes`: for each seed, whole runs at the same rates."""
        runs = [sorted(of_seed, key=lambda one: one.rate) for of_seed in probes]
        counts = np.array(
            [[[(n, n - good) for n, good in run.blocks] for run in of_seed] for of_seed in runs], dtype=np.float64
        )
        return Edge(
            rates=np.array([run.rate for run in runs[0]]),
            counts=counts.transpose(0, 2, 1, 3),
            kept_up=np.array([[float(run.kept_up) for run in of_seed] for of_seed in runs]),
            missing=1 - attainment,
        )

    def times(self, factor: float) -> Edge:
        """The same at so many times its rates."""
        return replace(self, rates=self.rates * factor)

    @property
    def passed(self) -> list[bool]:
        """At each rate: few enough misses of all seeds together, and most of the runs keep up."""
        total = self.counts.sum(axis=(0, 1))
        few = total[:, 1] <= self.missing * total[:, 0] * (1 + 1e-9)
        return [bool(one) for one in few & (self.kept_up.mean(axis=0) >= 0.5)]

    def missed(self) -> float:
        """Of all that were judged, as a part of what may miss."""
        judged, missed = self.counts.sum(axis=(0, 1, 2))
        return float(missed / (self.missing * judged)) if missed else 0.0

    @property
    def bracket(self) -> tuple[float, float]:
        """(highest rate that passes below the lowest that fails, that one); 0 and inf where there is none."""
        passed = self.passed
        above = min((rate for rate, yes in zip(self.rates, passed, strict=True) if not yes), default=np.inf)
        below = max((rate for rate, yes in zip(self.rates, passed, strict=True) if yes and rate < above), default=0.0)
        return float(below), float(above)

    @property
    def is_known(self) -> bool:
        """It lies between two rates that were run."""
        below, above = self.bracket
        return below > 0 and math.isfinite(above)

    def is_within(self, factor: float) -> bool:
        """It lies between two rates that were run, no further apart than this factor."""
        below, above = self.bracket
        return below > 0 and above <= factor * below

    def units(self) -> tuple[Array, Array]:
        """What is drawn anew: counts (units x rates x 2) and whether its run kept up (units x rates)."""
        seeds, blocks, rates, _ = self.counts.shape
        parts = 2 if seeds >= SEEDS else blocks
        counts = self.counts.reshape(seeds * parts, blocks // parts, rates, 2).sum(axis=1)
        return counts, np.repeat(self.kept_up, parts, axis=0)

    def log_rate(self, counts: Array, kept_up: Array) -> Array:
        """The logarithm of the highest rate for each draw: counts (draws x rates x 2), share that keeps up."""
        least = 1 / (2 + float(counts[..., 0].mean()))  # between no miss and one, and as far from all
        level = _log_odds(min(max(self.missing, least), 1 - least))
        found = _crossing(np.log(self.rates), _log_missed(counts), level, self._steepness())
        if kept_up.min() < 1:
            behind = _crossing(np.log(self.rates), 1 - kept_up, 0.5, self._pace_lost())
            found = np.minimum(found, behind)
        return found

    def _steepness(self) -> float:
        """How misses grow with the rate by all runs, for draws that lie beyond the rates that were run."""
        return max(self.slope(), self.least_slope)

    def slope(self) -> float:
        """The power of the rate that misses were seen to grow with, on the whole."""
        every = _log_missed(self.counts.sum(axis=(0, 1)))
        across = math.log(self.rates[-1] / self.rates[0]) if len(self.rates) > 1 else 0.0
        return float(every.max() - every[0]) / across if across else 0.0

    @property
    def is_flat(self) -> bool:
        """Misses hardly grow with the rate, as where a few prompts are too long for the targets at any."""
        return len(self.rates) >= LINES and self.slope() < STEEP

    def _pace_lost(self) -> float:
        """How the share of runs that fall behind grows with the logarithm of the rate, by all runs; inf: not seen."""
        every = 1 - self.kept_up.mean(axis=0)
        grown = float(every.max() - every[0])
        return grown / math.log(self.rates[-1] / self.rates[0]) if grown else math.inf

    def whole(self) -> float:
        """The logarithm of the highest rate by all runs, within its bracket."""
        below, above = self.bracket
        return float(np.clip(math.log(self.expected()), np.log(below) if below else -np.inf, np.log(above)))

    def expected(self) -> float:
        """The highest rate by all runs, wherever that lies."""
        every = self.counts.sum(axis=(0, 1))[None]
        return float(np.exp(self.log_rate(every, self.kept_up.mean(axis=0)[None])[0]))

    def late(self) -> float:
        """The same by the second half of the runs."""
        half = self.counts.shape[1] // 2
        every = self.counts[:, half:].sum(axis=(0, 1))[None]
        return float(self.log_rate(every, self.kept_up.mean(axis=0)[None])[0])


def _log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def _log_missed(counts: Array) -> Array:
    """The logarithm of the odds of a miss, which grow on where nearly all miss; half a request where none does."""
    missed = counts[..., 1]
    found: Array = np.log((missed + 0.5) / (counts[..., 0] - missed + 0.5))
    return found


def _crossing(x: Array, y: Array, level: float, slope: float) -> Array:
    """Where each row of y (made to rise) reaches `level`, between the points of x; beyond them along `slope`.

    An endless slope is a step: it is never reached above the last point.
    """
    y = np.maximum.accumulate(y, axis=1)
    found = x[-1] + (level - y[:, -1]) / slope if math.isfinite(slope) else np.full(len(y), np.inf)
    for left in range(len(x) - 2, -1, -1):
        here = (y[:, left] <= level) & (y[:, left + 1] > level)
        step = np.where(here, y[:, left + 1] - y[:, left], 1.0)
        found = np.where(here, x[left] + (x[left + 1] - x[left]) * (level - y[:, left]) / step, found)
    return np.where(y[:, 0] > level, x[0] - (y[:, 0] - level) / slope, found)


def interval(edges: Sequence[Edge], seed: int = 0) -> tuple[float, float, float]:
    """(value, low, high) of the highest rate of one candidate, or of the ratio of the first to the second of two.

    The same parts of runs are drawn for both, because both served the same requests. Raises ValueError for unequal
    numbers of them.
    """
    units = [edge.units() for edge in edges]
    n = len(units[0][0])
    if any(len(counts) != n for counts, _ in units) or n < 2:
        raise ValueError("runs differ in number; allowed: as many seeds and parts of each candidate")
    index = _drawn(n, seed)
    signs = (1.0, -1.0)[: len(edges)]
    draws, middle, drift, bracket = np.zeros(DRAWS), 0.0, 0.0, 0.0
    for sign, edge, (counts, kept_up) in zip(signs, edges, units, strict=True):
        draws += sign * edge.log_rate(counts[index].sum(axis=1), kept_up[index].mean(axis=1))
        middle += sign * edge.whole()
        drift += sign * (edge.late() - edge.whole())
        bracket += _half_bracket(edge) ** 2
    below, above = _spread(draws, n)
    low = middle - float(np.sqrt(below**2 + bracket + drift**2))
    high = middle + float(np.sqrt(above**2 + bracket + drift**2))
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high))


def _drawn(units: int, seed: int) -> NDArray[np.int64]:
    """Which units each draw takes."""
    return np.random.default_rng(seed).integers(0, units, size=(DRAWS, units))


def _spread(draws: Array, units: int) -> tuple[float, float]:
    """How far CONFIDENCE of the draws of so many units reach below and above their mean; few spread too little."""
    from scipy.special import ndtri, stdtrit  # scipy.stats takes half a second to import

    tail = (1 - CONFIDENCE) / 2
    few = float(stdtrit(units - 1, 1 - tail) / ndtri(1 - tail)) * (units / (units - 1)) ** 0.5
    below, above = np.percentile(draws - np.mean(draws), (100 * tail, 100 * (1 - tail))) * few
    return float(below), float(above)


def _half_bracket(edge: Edge) -> float:
    """Half the logarithmic width of the bracket, as a 95 % half-width of a place anywhere in it."""
    below, above = edge.bracket
    return CONFIDENCE * float(np.log(above / below)) / 2 if below and np.isfinite(above) else 0.0


def is_found(edge: Edge, error: float, seed: int = 0) -> bool:
    """Its bracket is fine, or so narrow beside what is not known anyway that a finer one would say no more.

    `error`: of the step times, a share. `seed` is that of the interval that will be told.
    """
    below, above = edge.bracket
    if not edge.is_within(1 + COARSEST):
        return False
    if above / below <= 1 + FINE:
        return True
    counts, kept_up = edge.units()
    if len(counts) < 2:
        return False
    index = _drawn(len(counts), seed)
    low, high = _spread(edge.log_rate(counts[index].sum(axis=1), kept_up[index].mean(axis=1)), len(counts))
    return _half_bracket(edge) <= BESIDE * math.hypot((high - low) / 2, error)


def next_rate(edge: Edge) -> float:
    """Where to run a finalist next whose edge is not found."""
    below, above = edge.bracket
    rates, expected = edge.rates, edge.expected()
    lowest, highest = float(rates[0]), float(rates[-1])
    farthest = min(FARTHER ** (len(rates) - 1), WIDEST)  # far beyond what was run a line through it says little
    least = FARTHER if edge.is_flat else NEXT_STEP
    if not below:  # the search may have begun with a rate that one list of requests flattered
        return min(max(expected / (1 + SURE * FINE), lowest / farthest), lowest / least)
    if math.isinf(above):
        return max(min(expected * (1 + SURE * FINE), highest * farthest), highest * least)
    if len(rates) % 3 == 2:  # should the line through what is known mislead
        return math.sqrt(above * below)
    width = math.log(above / below)
    return below * math.exp(width * beside(math.log(expected / below) / width, below, above, FINE))
