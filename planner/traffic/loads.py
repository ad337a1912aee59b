"""Loads: known arrivals, requests that follow others, and a fixed number in flight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.traffic.requests import Arrival, Request

if TYPE_CHECKING:
    from planner.traffic.traces import Sendable


@dataclass(frozen=True)
class Chained:
    """Arrivals known in advance, and requests that follow others: `followers[id]` = (seconds after its end, next)."""

    arrivals: tuple[Arrival, ...]
    followers: dict[int, tuple[float, Request]]
    warnings: tuple[str, ...] = ()

    @property
    def expected_requests(self) -> int:
        return len(self.arrivals) + len(self.followers)

    def start(self) -> list[Arrival]:
        return list(self.arrivals)

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        follower = self.followers.get(request.request_id)
        return [] if follower is None else [Arrival(time_s + follower[0], follower[1])]


@dataclass(frozen=True)
class Underway:
    """Traffic that has long gone on. Of the first requests of `load` those in `continued` go on with older sessions,
    and those in `resumed` with an answer: their prompts hold what it had come to when the run began.

    Turns of older sessions come for `entering_s` seconds as often as all later turns together, and what would follow
    from any request in that time is left out, since they stand for it: as many requests come as ever, however long
    answers take. After it sessions go on by themselves.
    """

    load: Chained
    continued: frozenset[int]
    resumed: frozenset[int]
    entering_s: float

    @property
    def expected_requests(self) -> int:
        return self.load.expected_requests

    def start(self) -> list[Arrival]:
        return self.load.start()

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        return [one for one in self.load.finished(request, time_s) if one.time_s >= self.entering_s]


class Woven:
    """As `Chained`, but several requests may follow one, and one may wait for several (agents and their sub-agents)."""

    def __init__(self, arrivals: tuple[Arrival, ...], sent: Sendable) -> None:
        self.warnings = sent.warnings
        self.expected_requests = sent.requests
        self._arrivals = arrivals
        self._sent = sent
        self._waits: dict[int, int] = {}

    def start(self) -> list[Arrival]:
        self._waits = dict(self._sent.waits)
        return list(self._arrivals)

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        freed = []
        for delay_s, follower in self._sent.followers.get(request.request_id, ()):
            self._waits[follower.request_id] -= 1
            if self._waits[follower.request_id] == 0:
                freed.append(Arrival(time_s + delay_s, follower))
        return sorted(freed, key=lambda arrival: arrival.time_s)


class ClosedLoop:
    """A fixed number of requests in flight; an ended one is replaced at once."""

    def __init__(self, requests: Sequence[Request], concurrency: int, warnings: tuple[str, ...] = ()) -> None:
        self.warnings = warnings
        self.expected_requests = len(requests)
        self._requests = requests
        self._concurrency = concurrency
        self._sent = 0

    def start(self) -> list[Arrival]:
        self._sent = min(self._concurrency, len(self._requests))
        return [Arrival(0.0, request) for request in self._requests[: self._sent]]

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        if self._sent == len(self._requests):
            return []
        self._sent += 1
        return [Arrival(time_s, self._requests[self._sent - 1])]
