"""The cluster's clock: a heap of calls. simpy's processes run on it too (simulator/processes.py)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

NEVER: Final = math.inf
NOT_YET: Final = math.nan  # the time of what has not happened
Action = Callable[[float], None]  # called with the time


class Call:
    """An action as an object, for what happens many times a request: compiled code runs it without a detour."""

    __slots__ = ()

    def __call__(self, now: float) -> None:
        self.happen(now)

    def happen(self, now: float) -> None:
        raise NotImplementedError


class _Plain(Call):
    """Any other action."""

    __slots__ = ("_action",)

    def __init__(self, action: Action) -> None:
        self._action = action

    def happen(self, now: float) -> None:
        self._action(now)


class _Entry:
    """`call` comes at `when`, and is told `time_s`."""

    __slots__ = ("call", "order", "time_s", "when")

    def __init__(self, when: float, order: int, time_s: float, call: Call) -> None:
        self.when = when
        self.order = order  # in which it was asked for
        self.time_s = time_s
        self.call = call

    def before(self, other: _Entry) -> bool:
        return self.when < other.when or (self.when == other.when and self.order < other.order)


class Clock:
    """Calls functions at their times, those of one time in the order in which they were asked for.

    Times that calls carry are exact; `now` may differ from them by one rounding.
    """

    def __init__(self) -> None:
        self.now: float = 0.0
        # A heap of its own: heapq compares such entries through Python.
        self._calls: list[_Entry] = []
        self._asked: int = 0

    @property
    def idle(self) -> bool:
        """Nothing is to come."""
        return not self._calls

    def at(self, time_s: float, action: Action) -> None:
        """Call `action(time_s)` when the clock gets there; at once where that is past."""
        delay = time_s - self.now
        self._add(self.now + delay if delay > 0.0 else self.now, time_s, action)

    @property
    def next_s(self) -> float:
        """When something comes next; there must be something."""
        return self._calls[0].when

    def after(self, delay_s: float, action: Action) -> None:
        """Call `action` so many seconds from now."""
        when = self.now + delay_s
        self._add(when, when, action)

    def _add(self, when: float, time_s: float, action: Action) -> None:
        self._asked += 1
        entry = _Entry(when, self._asked, time_s, action if isinstance(action, Call) else _Plain(action))
        calls, at = self._calls, len(self._calls)
        calls.append(entry)
        while at:  # it rises past those that come later
            above = (at - 1) >> 1
            other = calls[above]
            if other.when <= when:
                break
            calls[at] = other
            at = above
        calls[at] = entry

    def _next(self) -> _Entry:
        """Off the heap."""
        calls = self._calls
        first, last = calls[0], calls.pop()
        end = len(calls)
        if not end:
            return first
        at, below = 0, 1
        while below < end:  # the last one sinks from the top, past those that come before it
            other = calls[below]
            if below + 1 < end and calls[below + 1].before(other):
                below += 1
                other = calls[below]
            if last.before(other):
                break
            calls[at] = other
            at, below = below, 2 * below + 1
        calls[at] = last
        return first

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def step(self) -> None:
        """The next call."""
        entry = self._next()
        self.now = entry.when
        entry.call.happen(entry.time_s)

    def run(self) -> None:
        """All calls, until none is left."""
        while self._calls:
            self.step()
