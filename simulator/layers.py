"""One prompt's KV on its way while the prompt still computes. Its parts are the layers of the last step."""

from __future__ import annotations

from functools import partial

from planner.system.resolve import WorkerPlace
from simulator.clock import NEVER, NOT_YET, Action, Clock
from simulator.fabric import Fabric


class Push:
    """A prompt whose last step runs from `start_s` to `due_s`; layer group g of n is done after g / n of it.

    KV of earlier chunks could have left before; it goes with its layers, which makes this an upper bound.
    """

    __slots__ = ("due_s", "first_s", "groups", "handed_s", "last_s", "left", "moved", "start_s", "wire")

    def __init__(self, start_s: float, due_s: float, groups: int) -> None:
        self.start_s = start_s
        self.due_s = due_s
        self.groups = self.left = groups  # all, and those that have not arrived
        self.handed_s = NOT_YET  # the decode engine knows that the prefill is over
        self.first_s, self.last_s = NEVER, NOT_YET  # of the bytes
        self.moved = 0
        self.wire = ""

    @property
    def complete(self) -> bool:
        return not self.left and self.handed_s == self.handed_s

    def send(
        self,
        fabric: Fabric,
        clock: Clock,
        source: WorkerPlace,
        target: WorkerPlace,
        size: int,
        now: float,
        arrived: Action,
    ) -> None:
        """The target has room since `now`: each group leaves when it is computed; `arrived(time_s)` for each."""
        n = self.groups
        landed = partial(self._landed, arrived)
        for g in range(n):
            ready_s = self.start_s + (g + 1) / n * (self.due_s - self.start_s)
            part = size * (g + 1) // n - size * g // n
            clock.at(max(ready_s, now), partial(self._leave, fabric, source, target, part, landed))

    def _leave(
        self, fabric: Fabric, source: WorkerPlace, target: WorkerPlace, part: int, landed: Action, now: float
    ) -> None:
        self.first_s = min(self.first_s, now)
        self.wire, moved = fabric.send(source, target, part, now, landed)
        self.moved += moved

    def _landed(self, arrived: Action, now: float) -> None:
        self.left -= 1
        self.last_s = now
        arrived(now)
