"""The one judge of targets: metrics, searches and their early stops ask here."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from planner.spec import Slo

Seconds = NDArray[np.float64]


def limits_s(slo: Slo) -> tuple[float, float, float]:
    """(TTFT, TPOT, E2E) in seconds; inf where no target is set."""
    ttft, tpot, e2e = (math.inf if limit is None else limit / 1e3 for limit in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms))
    return ttft, tpot, e2e


def within(slo: Slo, ttft: Seconds, tpot: Seconds, e2e: Seconds) -> NDArray[np.bool_]:
    """Which requests miss no target that is set. A null misses none: an answer of one token has no TPOT."""
    good = np.ones(len(ttft), dtype=np.bool_)
    for limit, values in ((slo.ttft_ms, ttft), (slo.tpot_ms, tpot), (slo.e2e_ms, e2e)):
        if limit is not None:
            good &= ~(values * 1e3 > limit)
    return good
