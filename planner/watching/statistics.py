"""The mathematics of watching, as pure functions: conformal half-widths, and when something has changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.9
SLACK, LIMIT = 0.5, 6.0  # of the sums below, in standard deviations: a shift of one is noticed after some 12 intervals
CLIPPED = 4.0  # no single interval counts for more
NORMAL = 1.4826  # standard deviations in a median absolute deviation


def half_width(scores: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """How far from a prediction the next measurement lies with at least `confidence`, going by earlier `scores`.

    Scores are log(measured / predicted). Split conformal prediction: the ceil((n + 1) * confidence)-th smallest of
    their absolute values covers the next, whatever their distribution, while they are exchangeable (Vovk, Gammerman
    and Shafer 2005). None: fewer scores than that takes (9 for 90 %).
    """
    place = math.ceil((len(scores) + 1) * confidence - 1e-9)
    return sorted(map(abs, scores))[place - 1] if place <= len(scores) else None


def spread(scores: Sequence[float], least: float) -> float:
    """A robust standard deviation: NORMAL times the median distance from the median, at least `least`."""
    if not scores:
        return least
    values = np.asarray(scores, dtype=float)
    return max(NORMAL * float(np.median(np.abs(values - np.median(values)))), least)


@dataclass(frozen=True, slots=True)
class Sums:
    """Page's two cumulative sums of standardised values (Biometrika 41, 1954), and when each left zero last."""

    up: float = 0.0
    down: float = 0.0
    up_since_s: float = math.nan
    down_since_s: float = math.nan

    @property
    def since_s(self) -> float | None:
        """Since when the values have been others; None: they have not changed."""
        if max(self.up, self.down) < LIMIT:
            return None
        return self.up_since_s if self.up >= self.down else self.down_since_s


def follow(sums: Sums, z: float, start_s: float) -> Sums:
    """The sums after one more value, `z` standard deviations from what was expected, of an interval from `start_s`."""
    if not math.isfinite(z):
        return sums
    z = min(max(z, -CLIPPED), CLIPPED)
    up, down = max(0.0, sums.up + z - SLACK), max(0.0, sums.down - z - SLACK)
    return Sums(
        up,
        down,
        math.nan if not up else start_s if not sums.up else sums.up_since_s,
        math.nan if not down else start_s if not sums.down else sums.down_since_s,
    )


@dataclass(frozen=True, slots=True)
class Gain:
    """How much more one total is than another, as a share, with its 95 % interval over paired runs."""

    value: float
    low: float
    high: float


def paired_gain(ours: Sequence[float], theirs: Sequence[float]) -> Gain:
    """The mean of the ratios of runs with the same requests, less 1, with Student's interval; endless for one pair."""
    from scipy.stats import t

    ratios = [a / b - 1 for a, b in zip(ours, theirs, strict=True) if b > 0]
    n = len(ratios)
    if n < 2:
        return Gain(ratios[0] if n else math.nan, -math.inf, math.inf)
    mean = sum(ratios) / n
    deviation = math.sqrt(sum((one - mean) ** 2 for one in ratios) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Gain(mean, mean - half, mean + half)


def shift(before: Sequence[float], after: Sequence[float]) -> Gain:
    """By how much values became more, with Welch's 95 % interval. At least two on each side; taken as independent."""
    from scipy.stats import t

    parts = [(float(np.mean(of)), float(np.var(of, ddof=1)) / len(of), len(of)) for of in (before, after)]
    (old, old_share, n), (new, new_share, m) = parts
    both = max(old_share + new_share, 1e-18)
    freedom = both**2 / max(old_share**2 / (n - 1) + new_share**2 / (m - 1), 1e-36)
    half = float(t.ppf(0.975, max(freedom, 1.0))) * math.sqrt(both)
    return Gain(new - old, new - old - half, new - old + half)


def mean_of(expected: Sequence[float], scatter: Sequence[float], least: float) -> Gain:
    """The mean of `expected`, and where the shift of as many measurements lies in 95 % of cases, if it is right.

    `scatter`: how measurements scattered before, by a standard deviation of at least `least`.
    """
    from scipy.stats import t

    deviation = max(float(np.std(scatter, ddof=1)), least)
    half = float(t.ppf(0.975, len(scatter) - 1)) * deviation * math.sqrt(1 / len(scatter) + 1 / len(expected))
    mean = float(np.mean(expected))
    return Gain(mean, mean - half, mean + half)
