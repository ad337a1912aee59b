"""The cluster's clock: a heap of calls. simpy's processes run on it too (simulator/processes.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

NEVER: Final = math.inf
NOT_YET: Final = math.nan  # the time of what has not happened
Action = Callable[[float], None]  # called with the time


class Call:
    """An action as an object, which compiled code calls without a detour: for what happens many times a request."""

    __slots__ = ()

    def __call__(self, now: float) -> None:
        raise NotImplementedError


class _Plain(Call):
    """Any other action."""

    __slots__ = ("_action",)

    def __init__(self, action: Action) -> None:
        self._action = action

    def __call__(self, now: float) -> None:
        self._action(now)


class Clock:
    """Calls functions at their times, those of one time in the order in which they were asked for.

    Times that calls carry are exact; `now` may differ from them by one rounding.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        self._calls: list[tuple[float, int, float, Call]] = []  # heap of (when, order, time that it carries, what)
        self._asked: int = 0

    @property
    def idle(self) -> bool:
        """Nothing is to come."""
        return not self._calls

    def at(self, time_s: float, action: Action) -> None:
        """Call `action(time_s)` when the clock gets there; at once where that is past."""
        delay = time_s - self.now
        self._asked += 1
        call = action if isinstance(action, Call) else _Plain(action)
        heappush(self._calls, (self.now + delay if delay > 0.0 else self.now, self._asked, time_s, call))

    def after(self, delay_s: float, action: Action) -> None:
        """Call `action` so many seconds from now."""
        when = self.now + delay_s
        self._asked += 1
        heappush(self._calls, (when, self._asked, when, _Plain(action)))

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def step(self) -> None:
        """The next call."""
        entry = heappop(self._calls)
        self.now = entry[0]
        entry[3](entry[2])

    def run(self) -> None:
        """All calls, until none is left."""
        calls = self._calls
        while calls:
            entry = heappop(calls)
            self.now = entry[0]
            entry[3](entry[2])
