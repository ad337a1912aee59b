"""KV transfers over shared wires: max-min fair (or first-come) sharing of ports and uplinks.

A transfer from one worker to another occupies the sender's egress port, the receiver's ingress port and, when it
leaves the node, both nodes' uplinks. Transfers with the same path form a group and share its rate; the rates of the
groups are max-min fair (progressive filling), recomputed whenever a transfer starts or ends. Within a fair group
every transfer gets the same rate, so a group is a processor-sharing queue and is kept in virtual time: cost follows
transfers, not bytes. First-come groups serve one transfer at a time.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from simulator.clock import NEVER

DONE_BYTES: Final = 1e-6  # a residue of float arithmetic, not data


Done = Callable[[float], None]


class Path(NamedTuple):
    """What a transfer occupies: names of resources, and the fixed time before and after its bytes flow."""

    name: str
    resources: tuple[str, ...]
    setup_s: float
    latency_s: float
    fifo: bool


class _Group:
    """The transfers of one path. `virtual` is the bytes that each active transfer has been served so far."""

    __slots__ = ("path", "number", "tightest", "virtual", "active", "queue", "rate")

    def __init__(self, path: Path, number: int, tightest: float) -> None:
        self.path = path
        self.number = number
        self.tightest = tightest  # the least capacity on the path
        self.virtual = 0.0
        self.active: list[tuple[float, int, Done]] = []  # heap of (virtual at its end, transfer number, then what)
        self.queue: deque[tuple[float, int, Done]] = deque()  # first-come: (bytes, as above) not yet started
        self.rate = 0.0  # bytes a second of each active transfer


def _order(group: _Group) -> int:
    return group.number


def _number(ended: tuple[int, Done]) -> int:
    return ended[0]


class Network:
    """All wires of a cluster. Time only moves forward through `advance`.

    `capacity` gives bytes a second by resource name.
    """

    def __init__(self, capacity: dict[str, float]) -> None:
        self.capacity = capacity
        self.now = 0.0
        self._groups: dict[Path, _Group] = {}
        self._busy: list[_Group] = []  # those with transfers, in the order in which they were first used
        self._end: float | None = None  # `next_event_s` of the state as it is, once asked for
        self._number = 0

    def start(self, path: Path, size_bytes: float, now: float, done: Done) -> None:
        """Bytes begin to flow at `now`; `done(time_s)` is called by `advance` when the last one has left."""
        self.advance(now)
        group = self._groups.get(path)
        if group is None:
            tightest = min([self.capacity[resource] for resource in path.resources])
            group = self._groups[path] = _Group(path, len(self._groups), tightest)
        self._number += 1
        if not group.active:
            insort(self._busy, group, key=_order)
        elif path.fifo:
            group.queue.append((size_bytes, self._number, done))
            return
        heappush(group.active, (group.virtual + size_bytes, self._number, done))
        self._share()

    @property
    def in_flight(self) -> int:
        return sum(len(group.active) + len(group.queue) for group in self._busy)

    def next_event_s(self) -> float:
        """When the next transfer ends if nothing else starts; inf when the wires are idle."""
        if self._end is None:
            self._end = NEVER
            for group in self._busy:
                end = self.now + max(group.active[0][0] - group.virtual, 0.0) / group.rate
                if end < self._end:
                    self._end = end
        return self._end

    def advance(self, now: float) -> None:
        """Move bytes up to `now`, calling back every transfer that ends on the way, in time order."""
        while True:
            end = self.next_event_s()
            target = min(end, now)
            elapsed = target - self.now
            if elapsed > 0:
                self.now = target
                if self._busy:
                    self._end = None
                    for group in self._busy:
                        group.virtual += group.rate * elapsed
            if end > now:
                return
            self._finish(end)

    def _finish(self, now: float) -> None:
        # The transfer that set the end time ends by definition; others within the residue end with it.
        ended: list[tuple[int, Done]] = []
        for group in self._busy:
            limit = group.virtual + max(DONE_BYTES, max(group.virtual * 1e-12, group.rate * now * 1e-15))
            while group.active and group.active[0][0] <= limit:
                _, number, done = heappop(group.active)
                ended.append((number, done))
            if not group.active:
                group.virtual = 0.0
                if group.queue:
                    heappush(group.active, group.queue.popleft())
        self._busy = [group for group in self._busy if group.active]
        self._share()
        if len(ended) > 1:
            ended.sort(key=_number)
        for _, done in ended:
            done(now)

    def _share(self) -> None:
        """Progressive filling: the tightest resource fixes the rate of its groups, then the rest share what is left."""
        self._end = None
        open_groups = self._busy
        if len(open_groups) == 1:
            open_groups[0].rate = open_groups[0].tightest / len(open_groups[0].active)
            return
        left = {r: self.capacity[r] for group in open_groups for r in group.path.resources}
        while open_groups:
            users: dict[str, int] = {}
            tightest, rate = "", NEVER
            for group in open_groups:
                for resource in group.path.resources:
                    users[resource] = users.get(resource, 0) + len(group.active)
            for resource, many in users.items():
                if not tightest or left[resource] / many < rate:
                    tightest, rate = resource, left[resource] / many
            rest = []
            for group in open_groups:
                if tightest in group.path.resources:
                    group.rate = rate
                    for resource in group.path.resources:
                        left[resource] = max(left[resource] - rate * len(group.active), 0.0)
                else:
                    rest.append(group)
            open_groups = rest
