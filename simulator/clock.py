"""The cluster's clock: simpy's, with the cheapest way to call a function at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import simpy


class Call(simpy.Event):
    """A Timeout that calls `action(time_s)` and nothing else: most of what happens."""

    _ok = True

    def __init__(self, env: simpy.Environment, time_s: float, action: Callable[[float], None]) -> None:
        self.env = env
        self.time_s = time_s
        self.action = action
        self.callbacks = CALLBACKS

    def happen(self) -> None:
        self.action(self.time_s)


CALLBACKS: list[Callable[[Any], None]] = [Call.happen]  # one list for all: simpy only reads it


class Clock(simpy.Environment):
    """Times that callbacks carry are exact; `now` may differ from them by one rounding."""

    def at(self, time_s: float, action: Callable[[float], None]) -> None:
        """Call `action(time_s)` when the clock gets there."""
        delay = time_s - self.now
        self.schedule(Call(self, time_s, action), delay=delay if delay > 0.0 else 0.0)


@contextmanager
def no_cycles() -> Iterator[None]:
    """What runs here leaves no reference cycles (a test counts), so Python need not spend time on looking for them."""
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()
