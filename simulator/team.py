"""The workers of one pool and the router in front of them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from planner.routing import NEEDS_DISTANCE, NEEDS_OVERLAP, POLICIES, Query, RouterState, WorkerLoad
from planner.spec import Retrieval
from planner.system.resolve import Pool, WorkerPlace
from planner.traffic.requests import Request
from simulator.retrieval import RetrievalStation
from simulator.worker import Worker


class Station:
    """A worker in the cluster: its engine, its place, its own retrieval stage, and the wake-up planned for it."""

    __slots__ = ("place", "pool", "engine", "wake_s", "wake", "retrieval", "assigned", "read_by", "posted_s")

    wake: Callable[[float], None]  # what the cluster does then

    def __init__(self, place: WorkerPlace, pool: Pool, engine: Worker, retrieval: RetrievalStation | None) -> None:
        self.place = place
        self.pool = pool
        self.engine = engine
        self.wake_s = float("inf")
        self.retrieval = retrieval
        self.assigned = 0  # requests sent here that the engine has not seen yet (they are retrieving)
        self.read_by = 0  # transfers of KV from here that are under way
        self.posted_s = 0.0  # push: when the thread that posts is done with all so far


class Team:
    """One pool. The router sees `seen`, which is the workers' live state unless `state_age_s` makes it old."""

    def __init__(
        self,
        pool: Pool,
        seed: int,
        retrieval: Retrieval | None,
        *,
        fast_forward: bool,
        record_steps: bool,
        announce: bool = False,
        post_block_s: float = 0.0,
    ) -> None:
        self.pool = pool
        self.router = pool.router
        self.stations = []
        for place in pool.workers:
            engine = Worker(
                place.name,
                pool.limits,
                pool.profile.step,
                fast_forward=fast_forward,
                record_steps=record_steps,
                announce=announce,
                kv_consumer=pool.role == "decode",
                post_block_s=post_block_s,
                answer_s=(pool.profile.host.response_per_seq_s, pool.profile.host.response_per_token_s),
            )
            own = RetrievalStation(retrieval, f"{seed}/retrieval/{place.name}") if retrieval else None
            self.stations.append(Station(place, pool, engine, own))
        self.loads: list[WorkerLoad] = [station.engine.load for station in self.stations]
        self.seen = self.loads
        self.keys_engine = self.stations[0].engine  # any of the pool: they give the same keys
        self._policy = POLICIES[pool.router.policy]
        self._needs_overlap = pool.router.policy in NEEDS_OVERLAP
        self.needs_distance = pool.router.policy in NEEDS_DISTANCE
        self._state = RouterState(
            random.Random(f"{seed}/router/{pool.role}"),
            overlap_weight=pool.router.overlap_weight,
            temperature=pool.router.temperature,
        )

    def refresh(self, now: float) -> None:
        """The router reads the workers' state and works on that copy until it reads again."""
        for station in self.stations:
            station.engine.observe(now)
        self.seen = [dataclasses.replace(load) for load in self.loads]

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

    def choose(self, request: Request, now: float, distance_s: Callable[[WorkerPlace], float] | None = None) -> Station:
        """The worker for a request; `distance_s` is how long its KV takes to a place, where that is known."""
        if len(self.stations) == 1:
            return self.stations[0]
        overlap = self._overlap(request, now) if self._needs_overlap else [0] * len(self.stations)
        far = [distance_s(station.place) for station in self.stations] if distance_s else ()
        query = Query(request.session_id, request.prompt_tokens, self.pool.limits.block_size, overlap, far)
        return self.stations[self._policy(query, self.seen, self._state)]

    def _overlap(self, request: Request, now: float) -> list[int]:
        """Known leading prompt tokens that each worker has cached, its state brought up to `now`."""
        prompt = request.prompt_tokens
        known = prompt if request.known_prefix_tokens is None else request.known_prefix_tokens
        pool, keys, size = self.pool, self.keys_engine.prompt_keys(request), self.pool.limits.block_tokens(prompt)
        limit = (prompt - 1) // size
        overlap = []
        for station in self.stations:
            engine = station.engine
            engine.observe(now)
            if station.pool is not pool:  # a lent one may have blocks of another size
                cached = engine.cached_tokens(request)
            elif keys and keys[0] in engine.kv.table:
                cached = engine.kv.lookup(keys, limit)[0] * size
            else:
                cached = 0
            overlap.append(cached if cached < known else known)
        return overlap

    @property
    def waiting(self) -> int:
        return sum(load.waiting for load in self.loads)

    @property
    def full(self) -> bool:
        """Every worker has as many waiting as the router allows: the next request is shed."""
        bound = self.router.max_queue
        return bound is not None and all(load.waiting >= bound for load in self.loads)
