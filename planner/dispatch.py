"""What happens to a request next: whether it is let in, who computes its prompt, who makes its tokens.

The one flow of a deployment, aggregated or P/D. The simulator and the live frontend show it the workers as they are at
that moment, and do what it says:

    sheds(entry)            when a request comes, and again after a central retrieval: it may be refused
    place(ask, ...)         on its way to an engine: the prefill worker, and the decode worker where that is due now
    turns(waiting, held)    whenever something changed: who leaves the queue that prefill workers share
    decoder(ask, decoders)  after prefill, where no decode worker has been chosen yet

Nothing is remembered but what the routing policies keep (planner.routing.RouterState).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from planner.routing import (
    NEEDS_DISTANCE,
    NEEDS_OVERLAP,
    POLICIES,
    Query,
    RouterState,
    WorkerLoad,
    least_loaded,
    prefills_locally,
)
from planner.spec import Disaggregated
from planner.system.resolve import Pool, System


class View(Protocol):
    """A pool as one request finds it: those of its workers that may take it, in a fixed order."""

    @property
    def loads(self) -> Sequence[WorkerLoad]:
        """The workers' state now."""

    @property
    def seen(self) -> Sequence[WorkerLoad]:
        """The same as the router last read it (`router.state_age_s`)."""

    @property
    def queued(self) -> int:
        """Requests in the queue that these workers share."""

    def overlap(self) -> Sequence[int]:
        """Leading prompt tokens that each has cached, of those that are known when the request comes."""

    def cached(self, index: int) -> int:
        """Leading prompt tokens that one of them has cached."""

    def distances_s(self) -> Sequence[float]:
        """How long the prompt's KV takes to each; empty where that is not known or there is none yet."""


class NoWorker(Exception):
    """A pool has no worker that the request may go to."""

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self.role = role


class Ask(Protocol):
    """A request as far as dispatch may know it."""

    @property
    def session_id(self) -> int: ...

    @property
    def prompt_tokens(self) -> int: ...


class Place:
    """Who takes a request, as indexes into the views' workers."""

    __slots__ = ("decode", "local", "prefill")

    def __init__(self, prefill: int | None, decode: int | None, local: bool = False) -> None:
        self.prefill = prefill  # computes the prompt; None: a decode worker does, or who takes it from the shared queue
        self.decode = decode  # None: chosen after prefill, or there is one kind of worker
        self.local = local  # the decode worker computes the prompt too


class _Door:
    """The router in front of one pool, and what it remembers. Random policies draw from `seed`."""

    __slots__ = (
        "_distances",
        "_holds_blocks",
        "_least_loaded",
        "_none",
        "_overlap",
        "_policy",
        "_size",
        "_state",
        "pool",
    )

    def __init__(self, pool: Pool, seed: int) -> None:
        name, role = pool.router.policy, pool.role
        self.pool = pool
        self._state = _memory(pool, seed)
        self._policy = POLICIES[name]
        self._least_loaded = name == "least_loaded"  # which compiled code calls without a detour
        self._none: list[int] = []  # cached tokens of as many workers as there were
        # A decode worker is sent the whole prompt's KV; what it has cached of it saves no prefill.
        self._overlap = name in NEEDS_OVERLAP and role != "decode"
        self._distances = name in NEEDS_DISTANCE
        self._holds_blocks = role != "prefill"
        self._size = pool.limits.block_size

    def choose(self, ask: Ask, view: View) -> int:
        workers = len(view.loads)
        if not workers:
            raise NoWorker(self.pool.role)
        if workers == 1:
            return 0
        if len(self._none) != workers:
            self._none = [0] * workers
        overlap = view.overlap() if self._overlap else self._none
        far = view.distances_s() if self._distances else ()
        query = Query(ask.session_id, ask.prompt_tokens, self._size, overlap, far, self._holds_blocks)
        if self._least_loaded:
            return least_loaded(query, view.seen, self._state)
        return self._policy(query, view.seen, self._state)


class Dispatch:
    """The rules of one deployment. Random policies draw from `run.seed`."""

    def __init__(self, system: System) -> None:
        deployment, seed = system.spec.deployment, system.spec.run.seed
        doors = [_Door(pool, seed) for pool in system.pools]
        self._entry, self._decoders = doors[0], doors[-1]
        split = deployment if isinstance(deployment, Disaggregated) else None
        self.most_waiting = self._entry.pool.router.max_queue  # at each worker that takes prompts; None: any number
        self._local = split.local_prefill if split else None
        self.conditional = split is not None and (
            split.local_prefill.max_tokens > 0 or split.local_prefill.max_queue is not None
        )
        self.shared = split is not None and split.router.prefill_dispatch == "shared_queue"
        # The decode worker's own cache decides whether a prompt stays there: then it is chosen first in any case.
        self._early = split is not None and (self.conditional or split.router.decode_choice == "at_arrival")

    def sheds(self, entry: View) -> bool:
        """Whether a request is refused: every worker has its bound waiting, an equal share of the queue included."""
        bound = self.most_waiting
        if bound is None:
            return False
        loads, queued = entry.loads, entry.queued
        return bool(loads) and all(load.waiting * len(loads) + queued >= bound * len(loads) for load in loads)

    def place(self, ask: Ask, entry: View, decoders: View) -> Place:
        """Who takes a request that was let in. Without P/D both views are of the one pool.

        Raises NoWorker, also where only a decode worker is missing: no prompt is computed that nobody could continue.
        """
        decode = self._decoders.choose(ask, decoders) if self._early else None
        if self.conditional and decode is not None and self._local is not None:
            uncached = ask.prompt_tokens - decoders.cached(decode)
            waiting = backlog(entry.loads, entry.queued)
            if prefills_locally(uncached, waiting, self._local.max_tokens, self._local.max_queue):
                return Place(None, decode, local=True)
        if not decoders.loads:
            raise NoWorker(self._decoders.pool.role)
        return Place(None if self.shared else self._entry.choose(ask, entry), decode)

    def decoder(self, ask: Ask, decoders: View) -> int:
        """The decode worker, once the prompt is computed. Raises NoWorker."""
        return self._decoders.choose(ask, decoders)


def _memory(pool: Pool, seed: int) -> RouterState:
    router = pool.router
    rng = random.Random(f"{seed}/router/{pool.role}")
    # how often it was asked before decides ties, and draws differ in it
    return RouterState(rng, pool.profile.draw, overlap_weight=router.overlap_weight, temperature=router.temperature)


def backlog(loads: Iterable[WorkerLoad], queued: int) -> int:
    """Requests waiting at some workers and in the queue that they share."""
    return sum(load.waiting for load in loads) + queued


class Held(NamedTuple):
    """What a worker that pulls from a shared queue has of it."""

    name: str
    retrieving: int  # requests that are not at its engine yet
    computing: int


def turns(waiting: Iterable[Collection[str]], held: Sequence[Held], *, ahead: bool = False) -> list[tuple[int, int]]:
    """(place in the queue, worker) of the requests that leave a shared queue now.

    Dynamo v0.3's prefill queue: an idle worker takes the oldest request, one at a time. `waiting` holds for each
    request, oldest first, the names of workers that it may not go to. `ahead`: a worker may take another one while it
    computes, to retrieve for it; idle ones come first.
    """
    free = [index for busy in range(2 if ahead else 1) for index, one in enumerate(held)
            if one.retrieving == 0 and one.computing == busy]  # fmt: skip
    taken = []
    for number, barred in enumerate(waiting):
        if not free:
            break
        index = next((index for index in free if held[index].name not in barred), None)
        if index is not None:
            free.remove(index)
            taken.append((number, index))
    return taken
