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
    """An action as an object, for what happens many times a request: compiled code runs it without a detour.

    The clock's marks are on it, so that it must be over before it is asked for again: `when`, the `order` in which it
    was asked for, and `time_s`, the time that it carries.
    """

    __slots__ = ("order", "time_s", "when")

    when: float
    order: int
    time_s: float

    def __call__(self, now: float) -> None:
        self.happen(now)

    def __lt__(self, other: Call) -> bool:
        return self.when < other.when or (self.when == other.when and self.order < other.order)

    def happen(self, now: float) -> None:
        raise NotImplementedError


class _Plain(Call):
    """Any other action."""

    __slots__ = ("_action",)

    def __init__(self, action: Action) -> None:
        self._action = action

    def happen(self, now: float) -> None:
        self._action(now)


class Clock:
    """Calls functions at their times, those of one time in the order in which they were asked for.

    Times that calls carry are exact; `now` may differ from them by one rounding.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        self._calls: list[Call] = []  # heap
        self._asked: int = 0

    @property
    def idle(self) -> bool:
        """Nothing is to come."""
        return not self._calls

    def at(self, time_s: float, action: Action) -> None:
        """Call `action(time_s)` when the clock gets there; at once where that is past."""
        delay = time_s - self.now
        self._add(self.now + delay if delay > 0.0 else self.now, time_s, action)

    def after(self, delay_s: float, action: Action) -> None:
        """Call `action` so many seconds from now."""
        when = self.now + delay_s
        self._add(when, when, action)

    def _add(self, when: float, time_s: float, action: Action) -> None:
        self._asked += 1
        call = action if isinstance(action, Call) else _Plain(action)
        call.when, call.order, call.time_s = when, self._asked, time_s
        heappush(self._calls, call)

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def step(self) -> None:
        """The next call."""
        call = heappop(self._calls)
        self.now = call.when
        call.happen(call.time_s)

    def run(self) -> None:
        """All calls, until none is left."""
        while self._calls:
            self.step()
