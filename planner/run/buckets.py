"""Samples of histograms, as `name_bucket[upper bound]`: what scrapes and their recordings hold."""

from __future__ import annotations

import math
from collections.abc import Iterable


def check_bounds(names: Iterable[str]) -> None:
    """Raises ValueError for a sample of a bucket whose upper bound is no number."""
    for name in names:
        _, mark, bound = name.partition("_bucket[")
        if mark and math.isnan(float(bound[:-1])):
            raise ValueError(name)
