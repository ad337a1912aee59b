"""One prompt's KV on its way while the prompt still computes. Its parts are the layers of the last step."""

from __future__ import annotations

import math


class Push:
    """A prompt whose last step runs from `start_s` to `due_s`; layer group g of n is done after g / n of it.

    KV of earlier chunks could have left before; it goes with its layers, which makes this an upper bound.
    """

    __slots__ = ("due_s", "first_s", "groups", "handed_s", "last_s", "left", "moved", "start_s", "wire")

    def __init__(self, start_s: float, due_s: float, groups: int) -> None:
        self.start_s = start_s
        self.due_s = due_s
        self.groups = self.left = groups  # all, and those that have not arrived
        self.handed_s = math.nan  # the decode engine knows that the prefill is over
        self.first_s, self.last_s = math.inf, math.nan  # of the bytes
        self.moved = 0
        self.wire = ""

    def parts(self, size: int) -> list[tuple[float, int]]:
        """(when it is computed, bytes) of each group."""
        n = self.groups
        step = (self.due_s - self.start_s) / n
        return [(self.start_s + (g + 1) * step, size * (g + 1) // n - size * g // n) for g in range(n)]
