"""Is disaggregation worth it? The best split against the best aggregated deployment, with an interval and a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.search import Found
from planner.system import System
from planner.words import percent

Array = NDArray[np.float64]
Word = Literal["worth it", "not worth it", "too close to call"]

DRAWS = 4000
CONFIDENCE = 0.95
UNCALIBRATED = 0.10  # error taken for a roofline's ratio of two deployments: nothing measured says better
SCALED = 0.05  # as UNCALIBRATED, for a profile that was measured at another TP size


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much more P/D does than aggregated, as a share (0.12: 12 % more), with its interval."""

    value: float
    low: float
    high: float

    def text(self) -> str:
        """12 % (9 to 15 %) more than."""
        more = self.value >= 0
        low, high = (self.low, self.high) if more else (-self.high, -self.low)
        between = f"{_short(low)} to {_short(high)} %"
        return f"{_short(abs(self.value))} % ({between}) {'more' if more else 'less'} than"


def _short(share: float) -> str:
    value = share * 100
    text = f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"
    return "0" if text == "-0.0" else text.removesuffix(".0")


def advantage(ours: Sequence[Found], theirs: Sequence[Found], seed: int = 0) -> Advantage:
    """Paired bootstrap over seeds of mean rate / mean rate - 1. Each rate is anywhere in its bracket.

    Few seeds make a resampled spread too small; it is stretched by sqrt(n / (n - 1)). Raises ValueError for unequal
    counts or rates of zero.
    """
    n = len(ours)
    if n != len(theirs) or n == 0 or any(found.rate <= 0 for found in (*ours, *theirs)):
        raise ValueError(f"{n} and {len(theirs)} searches; allowed: as many of each, all with a rate above zero")
    rng = np.random.default_rng(seed)

    def logs(found: Sequence[Found]) -> tuple[Array, Array]:
        return np.log([one.rate for one in found]), np.log([one.above for one in found])

    index = rng.integers(0, n, size=(DRAWS, n))
    drawn, centre = [], []
    for low, high in (logs(ours), logs(theirs)):
        where = rng.random((DRAWS, n))
        drawn.append(np.exp(low[index] + where * (high - low)[index]).mean(axis=1))
        centre.append(float(np.exp((low + high) / 2).mean()))
    ratios = np.log(drawn[0] / drawn[1])
    middle = float(np.log(centre[0] / centre[1]))
    stretch = (n / (n - 1)) ** 0.5 if n > 1 else 1.0
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(middle + (ratios - ratios.mean()) * stretch, (tail, 100 - tail))
    return Advantage(float(np.expm1(middle)), float(np.expm1(low)), float(np.expm1(high)))


def profile_error(systems: Sequence[System]) -> float:
    """How far the step times may be off, as a share: the fit's own residuals, more where a profile was stretched."""
    worst = 0.0
    for system in systems:
        for pool in system.pools:
            file = pool.profile.file
            if file is None or pool.profile.provenance != "calibrated" or file.fit is None:
                error = UNCALIBRATED
            else:
                residuals = [residual.mean_abs_pct / 100 for residual in file.fit.residuals.values()]
                error = sum(residuals) / len(residuals) if residuals else UNCALIBRATED
                if file.name.endswith(f"-at-tp{pool.tp}"):
                    error = float(np.hypot(error, SCALED))
            worst = max(worst, error)
    return worst


def decide(found: Advantage, margin: float, error: float) -> Word:
    """The whole interval must lie beyond the margin and what the profile may be off by."""
    if found.low > margin + error:
        return "worth it"
    if found.high < margin - error:
        return "not worth it"
    return "too close to call"


def margin_text(margin: float, error: float) -> str:
    return f"The margin is {percent(margin)}, the profile's own error {percent(error)}."
