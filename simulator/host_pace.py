"""How fast a worker's host launches steps from moment to moment: a level that stays for a while, then another one."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

LONG = 64.0  # stays: after a gap as long the level is drawn anew, so that idle time costs nothing


class HostPace:
    """Launches take `levels` times what the law says, each as likely, for about `stays_s` seconds (exponential).

    A function of time and seed alone but for long gaps, so that what else happens in a run changes nothing about it.
    """

    def __init__(self, levels: Sequence[float], stays_s: float, seed: str) -> None:
        self._levels = list(levels)
        self._stays_s = stays_s
        self._random = random.Random(seed)
        self._until_s = 0.0
        self._level = 1.0

    def at(self, now: float) -> float:
        """Of a launch at `now`. Calls must come in time order."""
        if now - self._until_s > LONG * self._stays_s:
            self._until_s = now
        while self._until_s <= now:
            self._level = self._levels[int(self._random.random() * len(self._levels))]
            later = self._until_s + self._random.expovariate(1.0 / self._stays_s)
            self._until_s = max(later, math.nextafter(now, math.inf)) if later == self._until_s else later
        return self._level
