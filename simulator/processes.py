"""simpy's processes on the cluster's clock: for what loops and waits. What happens once is a call of the clock's."""

from __future__ import annotations

import simpy
from simpy.core import SimTime
from simpy.events import NORMAL, EventPriority

from simulator.clock import Clock


class Processes(simpy.Environment):
    """An environment whose every event is a call of `clock`, and so has its place among the others."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def schedule(self, event: simpy.Event, priority: EventPriority = NORMAL, delay: SimTime = 0) -> None:
        self._now = self._clock.now  # which calls that are not simpy's have moved on
        super().schedule(event, priority, delay)
        self._clock.after(delay, lambda now: self.step())
