"""Waiting: what is being worked out, in threads, for all sessions that wait for it; how far it is, and how long yet."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from planner.run.tables import Progress

T = TypeVar("T")

KEPT = 200  # answers, first looks and runs under a load
POLL_S = 0.4  # how often a page looks, and how soon it follows a press of Cancel
ABANDONED_S = 20.0  # that work goes on when nobody waits for it: a session may have gone to another page


class GivenUp(Exception):
    """Nobody waits for this work any more."""


class Work(Generic[T]):
    """One result that is being worked out in a thread of its own. `make` is given what to tell and what to ask."""

    def __init__(self, make: Callable[[Work[T]], T], ended: Callable[[Work[T]], None]) -> None:
        self.stage, self.share = "", 0.0
        self.result: T | None = None
        self.fault: BaseException | None = None
        self._ended = threading.Event()
        self._waiting: set[object] = set()
        self._left_s = time.monotonic()
        self._dropped = False
        self._make, self._tell_end = make, ended

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._make(self)
        except BaseException as fault:  # noqa: BLE001 - it is raised in every session that waits
            self.fault = fault
        self._tell_end(self)
        self._ended.set()

    def tell(self, stage: str, share: float) -> None:
        self.stage, self.share = stage, share

    def going(self) -> None:
        """Raises GivenUp when nobody waits any more."""
        if self._dropped or (not self._waiting and time.monotonic() - self._left_s > ABANDONED_S):
            raise GivenUp

    def drop(self) -> bool:
        """End it, unless another session waits for it."""
        self._dropped = self._dropped or not self._waiting
        return self._dropped

    def wait(self, tell: Progress | None) -> None:
        """Until it has ended; `tell` hears how far it is, and what it raises ends the waiting, not the work."""
        who = object()
        self._waiting.add(who)
        try:
            while not self._ended.wait(POLL_S):
                if tell:
                    tell(self.stage, self.share)
        finally:
            self._left_s = time.monotonic()
            self._waiting.discard(who)


class Answers:
    """The latest answers, the same for every session of this server. Two sessions never work out the same one twice."""

    def __init__(self) -> None:
        self._found: OrderedDict[object, Any] = OrderedDict()
        self._works: dict[object, Work[Any]] = {}
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[Work[T]], T], tell: Progress | None = None) -> T:
        """The answer, worked out if it is not known. Raises what `make` and `tell` raise."""
        while True:
            with self._lock:
                if key in self._found:
                    known: T = self._found[key]
                    return known
                work = self._works.get(key)
                if work is None:
                    work = self._works[key] = Work(make, lambda ended: self._keep(key, ended))
                    work.start()
            work.wait(tell)
            if isinstance(work.fault, GivenUp):
                continue  # just when this session came
            if work.fault is not None:
                raise work.fault
            return cast(T, work.result)

    def _keep(self, key: object, work: Work[Any]) -> None:
        with self._lock:
            if self._works.get(key) is work:
                del self._works[key]
            if work.fault is None:
                self._found[key] = work.result
                while len(self._found) > KEPT:
                    self._found.popitem(last=False)

    def known(self, key: object) -> Any:
        """None: not worked out yet."""
        return self._found.get(key)

    def drop(self, key: object) -> None:
        """End the work on an answer, unless another session waits for it."""
        with self._lock:
            work = self._works.get(key)
            if work is not None and work.drop():
                del self._works[key]


@dataclass
class Bar:
    """How far a question is: parts one after the other, stages within them, and the time left.

    `parts`: name -> from where to where of the whole it is. It never goes back. Seconds are of any one clock.
    """

    parts: dict[str, tuple[float, float]]
    share: float = 0.0
    _begun: tuple[float, float] | None = field(default=None)  # when the first share after QUICK was told, and what

    def at(self, part: str, stage: str, share: float, now_s: float) -> float:
        """The share of the whole; stage and share are as the work tells them."""
        begin, end = self.parts[part]
        self.share = max(self.share, begin + (end - begin) * within(part, stage, share))
        if self._begun is None and stage != QUICK:
            self._begun = (now_s, self.share)
        return self.share

    def left_s(self, now_s: float) -> float | None:
        """Seconds left at the pace so far; None while too little is done to say."""
        if self._begun is None:
            return None
        begun_s, first = self._begun
        done, took_s = self.share - first, now_s - begun_s
        return (1 - self.share) * took_s / done if done >= SAYS and took_s >= 1 else None


QUICK = "estimate"  # the stage that simulates nothing: its pace says nothing about the others
SAYS = 0.04  # of the whole, done in sight of the bar: before, the time left would be a guess

# From where to where of a part each of its stages is, by the time that it takes.
STAGES: dict[str, dict[str, tuple[float, float]]] = {
    "look": {"estimate": (0.0, 0.25), "search": (0.25, 0.45), "tune": (0.45, 0.8), "all seeds": (0.8, 1.0)},
    "sure": {
        "estimate": (0.0, 0.01), "search": (0.01, 0.24), "tune": (0.24, 0.46), "all seeds": (0.46, 0.7),
        "why": (0.7, 0.8), "what would change it": (0.8, 0.99), "link": (0.99, 1.0),
        "together": (0.99, 1.0),
    },
}  # fmt: skip


def within(part: str, stage: str, share: float) -> float:
    """The share of a part that is done; a part without stages tells it itself."""
    begin, end = STAGES.get(part, {}).get(stage, (0.0, 1.0))
    return begin + (end - begin) * min(1.0, max(0.0, share))


def rounded(seconds: float) -> tuple[int, str]:
    """Time left as one says it: (40, "s"), (3, "min")."""
    if seconds < 90:
        return max(5, 5 * round(seconds / 5)), "s"
    return round(seconds / 60), "min"
