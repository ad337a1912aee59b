"""Loads: known arrivals, requests that follow others, and a fixed number in flight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from planner.traffic.requests import Arrival, Memory, Request

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


class Underway:
    """Traffic that has long gone on. Of the first requests of `load` those in `resumed` go on with an answer: their
    prompts hold what it had come to when the run began. Workers begin with `memories`.

    For `entering_s` seconds later turns of sessions come as often as ever, however many sessions there are by then:
    when a request of `seats` is due, whoever has been ready longest comes instead of it, and it comes only where nobody
    is. Who was not called by then has gone; the others go on by themselves.
    """

    def __init__(
        self,
        load: Chained,
        expected_requests: int,
        resumed: frozenset[int],
        memories: tuple[Memory, ...] = (),
        seats: frozenset[int] = frozenset(),
        entering_s: float = 0.0,
    ) -> None:
        self.load, self.resumed, self.memories = load, resumed, memories
        self.expected_requests = expected_requests
        self.seats, self._entering_s = seats, entering_s
        self._ready: list[tuple[float, int, Request]] = []  # since when; the smallest first

    def start(self) -> list[Arrival]:
        self._ready = []
        return self.load.start()

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        later = []
        for one in self.load.finished(request, time_s):
            if one.time_s >= self._entering_s:
                later.append(one)
            else:
                heappush(self._ready, (one.time_s, one.request.request_id, one.request))
        return later

    def comes(self, request: Request, time_s: float) -> Request:
        """Who comes when this one is due."""
        if request.request_id in self.seats and self._ready and self._ready[0][0] <= time_s:
            return heappop(self._ready)[2]
        return request


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
