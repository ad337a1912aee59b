"""The workers of one pool, and how dispatch sees them."""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Callable, Sequence

from planner.engine.host_costs import MOST_TOGETHER
from planner.engine.step_time import AffineStep
from planner.routing import NEEDS_OVERLAP, STAYS, WorkerLoad, rank_of, served_before, together
from planner.spec import Retrieval
from planner.system.resolve import Pool, WorkerPlace
from planner.traffic.requests import Memory, Request
from simulator.clock import NEVER, Call
from simulator.host_pace import HostPace
from simulator.lockstep import Lockstep
from simulator.retrieval import RetrievalStation
from simulator.sequence import Posting
from simulator.worker import Worker


def turns_before(request: Request) -> list[tuple[int, int]]:
    """(tokens of its prompt, of prompt and answer) of each earlier turn of a session, by what this turn repeats."""
    answers = {content for content, _ in request.history}
    found, tokens = [], 0
    for content, size in request.segments:
        if content in answers:
            found.append((tokens, tokens + size))
        tokens += size
    return found


class Intake:
    """A worker's API server, one process: what comes while it works leaves it together, MOST_TOGETHER at a time."""

    __slots__ = ("end_s", "inside", "behind")

    def __init__(self) -> None:
        self.end_s = 0.0  # of the work on those inside
        self.inside: list[Call] = []  # what follows when a request is through
        self.behind: deque[tuple[float, Call]] = deque()  # seconds of work, and what follows

    def add(self, work_s: float, call: Call, now: float) -> bool:
        """Whether this begins its work: then somebody has to call `leave` at `end_s`."""
        if not self.inside:
            self.inside, self.end_s = [call], now + work_s
            return True
        if self.behind or len(self.inside) == MOST_TOGETHER:
            self.behind.append((work_s, call))
        else:
            self.inside.append(call)
            self.end_s += work_s
        return False

    def let_go(self) -> None:
        """The run is over: nothing leads back to who runs it."""
        self.inside = []
        self.behind.clear()

    def leave(self, now: float) -> list[Call]:
        """What follows for those that are through; those behind are inside then, if there are any."""
        through = self.inside
        coming = [self.behind.popleft() for _ in range(min(MOST_TOGETHER, len(self.behind)))]
        self.inside, self.end_s = [call for _, call in coming], now + sum(work_s for work_s, _ in coming)
        return through


class Station:
    """A worker in the cluster: its engine, its place, its own retrieval stage, and when it is woken."""

    __slots__ = (
        "place", "pool", "engine", "wake_s", "wake", "retrieval", "assigned", "read_by", "posted_s", "moved_s", "group",
        "intake", "response_s",
    )  # fmt: skip

    def __init__(self, place: WorkerPlace, pool: Pool, engine: Worker, retrieval: RetrievalStation | None) -> None:
        self.place = place
        self.pool = pool
        self.engine = engine
        self.wake_s = NEVER
        self.wake: Call | None = None  # what the cluster does then
        self.response_s = pool.profile.host.response_s
        self.retrieval = retrieval
        self.assigned = 0  # requests sent here that the engine has not seen yet (they are retrieving)
        self.read_by = 0  # transfers of KV from here that are under way
        self.intake = Intake()
        self.posted_s = 0.0  # push: when the thread that posts is done with all so far
        self.moved_s = 0.0  # and when their pieces have been moved
        self.group: Group | None = None  # the ranks that take every step with it


class Group:
    """Stations in lockstep."""

    __slots__ = ("clock", "stations")

    def __init__(self, stations: Sequence[Station], step: AffineStep) -> None:
        self.stations = stations
        self.clock = Lockstep([station.engine for station in stations], step)


class SimulatedPool:
    """One pool at work.

    `seen` is what its router has read: the workers' state as it is, unless `state_age_s` makes it old.
    """

    def __init__(
        self,
        pool: Pool,
        seed: int,
        retrieval: Retrieval | None,
        *,
        fast_forward: bool,
        record_steps: bool,
        announce: bool = False,
        posting: Posting | None = None,
    ) -> None:
        self.resolved = pool
        self.router = pool.router
        self.stations = []
        stages: dict[str, RetrievalStation] = {}
        uneven = pool.profile.launches
        for place in pool.workers:
            key = f"{seed}/launches/{pool.profile.draw}/{place.name}"
            engine = Worker(
                place.name,
                pool.limits,
                pool.profile.step,
                fast_forward=fast_forward,
                record_steps=record_steps,
                announce=announce,
                kv_consumer=pool.role == "decode",
                posting=posting,
                pace=HostPace(uneven.levels, uneven.stays_s, key) if uneven is not None else None,
                answer_s=(pool.profile.host.response_per_seq_s, pool.profile.host.response_per_token_s),
                in_lockstep=pool.in_lockstep,
                warm_slowing=pool.profile.warm_slowing,
                shared_kv=pool.shared_kv,
            )
            server = place.server or place.name
            if retrieval and server not in stages:
                stages[server] = RetrievalStation(retrieval, f"{seed}/retrieval/{server}")
            self.stations.append(Station(place, pool, engine, stages.get(server)))
        # Ranks of one server: a router sees servers, and vLLM gives its requests to ranks, unless it looks at caches.
        self.ranks = pool.dp if pool.router.policy not in NEEDS_OVERLAP else 1
        self.counts_blocks = pool.router.policy in NEEDS_OVERLAP  # its router does
        self._turns = [0] * (len(self.stations) // self.ranks)
        if pool.in_lockstep:
            step = pool.profile.step
            assert isinstance(step, AffineStep)
            for first in range(0, len(self.stations), pool.dp):
                ranks = self.stations[first : first + pool.dp]
                group = Group(ranks, step)
                for station in ranks:
                    station.group = group
        self.loads: list[WorkerLoad] = [station.engine.load for station in self.stations]
        self.seen = self.loads
        self.keys_engine = self.stations[0].engine  # any of the pool: they give the same keys

    def refresh(self, now: float) -> None:
        """The router reads the workers' state and works on that copy until it reads again."""
        self.observe(now)
        self.seen = [dataclasses.replace(load) for load in self.loads]

    def observe(self, now: float) -> None:
        """Bring what the workers show up to `now`."""
        for station in self.stations:
            station.engine.observe(now)

    def station(self, index: int, now: float) -> Station:
        """Who gets a request that the router gave to worker `index` of its view."""
        if self.ranks == 1:
            return self.stations[index]
        first = index * self.ranks
        ranks = self.stations[first : first + self.ranks]
        turn = self._turns[index]
        self._turns[index] = (turn + 1) % self.ranks
        for one in ranks:
            one.engine.observe(now)
        return ranks[rank_of([one.engine.load for one in ranks], turn)]

    def servers(self, loads: Sequence[WorkerLoad]) -> Sequence[WorkerLoad]:
        """The workers that its router sees, of the state of all ranks."""
        size = self.ranks
        if size == 1:
            return loads
        return [together(loads[first : first + size]) for first in range(0, len(loads), size)]

    def add(self, station: Station) -> None:
        """Another worker takes requests from now on."""
        self.stations.append(station)
        self._read()

    def remove(self, station: Station) -> None:
        """The worker takes no more requests."""
        self.stations.remove(station)
        self._read()

    def _read(self) -> None:
        self.loads = [station.engine.load for station in self.stations]
        self.seen = [dataclasses.replace(load) for load in self.loads] if self.router.state_age_s else self.loads

    def recall(self, memory: Memory, rng: random.Random) -> None:
        """Cache what turns of a session left behind, on the workers that had them."""
        request, role = memory.request, self.resolved.role
        own = memory.own == "all" or (memory.own == "prefill" and role == "prefill")
        policy = "spread" if role == "decode" and self.counts_blocks else self.router.policy  # it looks at no cache
        servers = len(self.stations) // self.ranks
        if policy in STAYS and self.ranks == 1:  # whose latest turn holds all before it
            said = [(request.prompt_tokens, request.prompt_tokens)] if own else turns_before(request)[-1:]
        else:
            said = turns_before(request)
            if own:
                said.append((request.prompt_tokens, request.prompt_tokens))
        keys, size = self.keys_engine.prompt_keys(request), self.resolved.limits.block_tokens(request.prompt_tokens)
        kept: dict[int, int] = {}
        for server, (asked, answered) in zip(
            served_before(policy, request.session_id, len(said), servers, rng), said, strict=True
        ):
            place = server * self.ranks + (rng.randrange(self.ranks) if self.ranks > 1 else 0)
            kept[place] = asked if role == "prefill" else answered  # who computes prompts alone has no answers
        for place, tokens in kept.items():
            self.stations[place].engine.kv.recall(keys.head(tokens // size))

    def overlap(self, request: Request) -> list[int]:
        """Known leading prompt tokens that each worker has cached, as of the latest `observe`."""
        prompt = request.prompt_tokens
        known = prompt if request.known_prefix_tokens is None else request.known_prefix_tokens
        keys, size = self.keys_engine.prompt_keys(request), self.resolved.limits.block_tokens(prompt)
        limit, whole = (prompt - 1) // size, known // size * size  # a block that is known in part has no key yet
        overlap = []
        for station in self.stations:
            engine = station.engine
            if station.pool is not self.resolved:  # a lent one may have blocks of another size
                cached = engine.cached_tokens(request)
            else:
                cached = engine.kv.found(keys, limit) * size
            overlap.append(cached if cached < whole else whole)
        return overlap


class SimulatedView:
    """A pool as one request finds it (planner.dispatch.View); `distance_s` is how long its KV takes to a place."""

    __slots__ = ("_distance_s", "_now", "_observed", "_request", "_pool", "loads", "queued")

    def __init__(
        self,
        pool: SimulatedPool,
        request: Request,
        now: float,
        queued: int = 0,
        distance_s: Callable[[WorkerPlace], float] | None = None,
    ) -> None:
        self.loads, self.queued = pool.servers(pool.loads), queued
        self._pool, self._request, self._now, self._distance_s = pool, request, now, distance_s
        self._observed = False  # the workers' state is that of now

    @property
    def seen(self) -> Sequence[WorkerLoad]:
        pool = self._pool
        if pool.counts_blocks:
            self._observe()
        return pool.servers(pool.seen)

    def _observe(self) -> None:
        if not self._observed:
            self._observed = True
            self._pool.observe(self._now)

    def overlap(self) -> Sequence[int]:
        self._observe()
        return self._pool.overlap(self._request)

    def cached(self, index: int) -> int:
        size, found = self._pool.ranks, []
        for station in self._pool.stations[index * size : (index + 1) * size]:
            station.engine.observe(self._now)
            found.append(station.engine.cached_tokens(self._request))
        return min(found)  # whichever rank the server gives it to

    def distances_s(self) -> Sequence[float]:
        if self._distance_s is None:
            return ()
        return [self._distance_s(station.place) for station in self._pool.stations[:: self._pool.ranks]]
