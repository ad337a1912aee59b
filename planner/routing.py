"""Routing policies: pure functions of what a router can know. Used by the simulator and the live frontend alike.

A policy sees the state of the workers as they were `router.state_age_s` ago, the prompt's known length, how many of
its leading tokens each worker has cached, and a random generator. It never sees the true output length.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class WorkerLoad:
    """One worker as the router sees it. Plain counters, updated in place by whoever owns the worker."""

    name: str
    running: int = 0  # requests in the batch
    waiting: int = 0  # requests in the engine's queue (or on their way to it)
    queued_tokens: int = 0  # prompt tokens not yet prefilled
    active_blocks: int = 0  # KV blocks in use by requests
    total_blocks: int = 1

    @property
    def requests(self) -> int:
        return self.running + self.waiting

    @property
    def kv_used_fraction(self) -> float:
        return self.active_blocks / self.total_blocks


class Query:
    """What the router knows of a request. `overlap_tokens[i]` of its prompt are cached on worker i (0s if unused).

    `distance_s`: to move its KV to each worker; empty: not known, or nothing to move. `holds_blocks` is False for a
    prefill pool, whose workers hold KV until it is fetched only.
    """

    __slots__ = ("block_size", "distance_s", "holds_blocks", "overlap_tokens", "prompt_tokens", "session_id")

    def __init__(
        self,
        session_id: int,
        prompt_tokens: int,
        block_size: int,
        overlap_tokens: Sequence[int],
        distance_s: Sequence[float] = (),
        holds_blocks: bool = True,
    ) -> None:
        self.session_id = session_id
        self.prompt_tokens = prompt_tokens
        self.block_size = block_size
        self.overlap_tokens = overlap_tokens
        self.distance_s = distance_s
        self.holds_blocks = holds_blocks


@dataclass(slots=True)
class RouterState:
    """What a router remembers between calls."""

    rng: random.Random
    turn: int = 0
    overlap_weight: float = 1.0
    temperature: float = 0.0


_MOST: Final = math.inf
Policy = Callable[[Query, Sequence[WorkerLoad], RouterState], int]


def random_choice(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """Any worker, equally often."""
    return state.rng.randrange(len(workers))


def round_robin(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """Each in turn."""
    state.turn += 1
    return (state.turn - 1) % len(workers)


def least_loaded(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """Fewest requests, then fewest prompt tokens queued; ties in turn, so that idle workers share the load."""
    state.turn += 1
    n = len(workers)
    index = best = (state.turn - 1) % n
    requests, tokens = workers[best].requests, workers[best].queued_tokens
    for _ in range(n - 1):
        index = (index + 1) % n
        worker = workers[index]
        many = worker.running + worker.waiting
        if many < requests or (many == requests and worker.queued_tokens < tokens):
            best, requests, tokens = index, many, worker.queued_tokens
    return best


def power_of_two(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """The less loaded of two random workers."""
    if len(workers) == 1:
        return 0
    first, second = state.rng.sample(range(len(workers)), 2)
    return first if workers[first].requests <= workers[second].requests else second


def prefix_aware(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """Dynamo's KV router: prompt blocks still to prefill, less what is cached, plus decode blocks in use.

    cost = (queued + new - overlap_weight * cached prompt tokens) / block_size + active blocks + new prompt blocks.
    The lowest cost wins, ties at random; with a temperature a softmax over the negated, range-normalised costs.
    Source: Dynamo's router documentation (cost of prefill blocks with overlap credit plus projected decode blocks).
    In P/D its prefill router leaves out the blocks in use, and its decode router what is cached: that is
    benchmarks/dynamo_router.py, against version 1.4.2.
    """
    tokens, size, overlap, weight = query.prompt_tokens, query.block_size, query.overlap_tokens, state.overlap_weight
    new_blocks = -(-tokens // size)
    costs: list[float] = []
    low, best, ties = _MOST, 0, 0
    for index, worker in enumerate(workers):
        cost = (worker.queued_tokens + tokens - weight * overlap[index]) / size
        if query.holds_blocks:
            cost += worker.active_blocks + new_blocks
        costs.append(cost)
        if cost < low:
            low, best, ties = cost, index, 1
        elif cost == low:
            ties += 1
    if state.temperature > 0 and (high := max(costs)) > low:
        weights = [math.exp(-(cost - low) / (high - low) / state.temperature) for cost in costs]
        return state.rng.choices(range(len(workers)), weights)[0]
    return best if ties == 1 else state.rng.choice([index for index, cost in enumerate(costs) if cost == low])


def session_affinity(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """The same worker for every request of a session (multiplicative hash of the session id)."""
    return _home(query.session_id, len(workers))


def _home(session_id: int, workers: int) -> int:
    return ((session_id * 0x9E3779B97F4A7C15) >> 17) % workers


NEAR_SLACK = 2  # requests more than on the idlest worker that a nearer one may have


def topology_aware(query: Query, workers: Sequence[WorkerLoad], state: RouterState) -> int:
    """The worker that the KV reaches soonest, among those with at most `NEAR_SLACK` more requests than the idlest.

    Without distances it is least_loaded. Source: Dynamo's router keeps transfers within a topology domain the same way
    (`kv_transfer_domain`, preferred rather than enforced).
    """
    if not query.distance_s:
        return least_loaded(query, workers, state)
    limit = min(worker.requests for worker in workers) + NEAR_SLACK
    state.turn += 1
    order = [(state.turn - 1 + step) % len(workers) for step in range(len(workers))]
    near = [index for index in order if workers[index].requests <= limit]
    return min(near, key=lambda index: (query.distance_s[index], workers[index].requests))


HALF_FULL, PRESSED = 0.5, 6.0  # share of the KV cache from which waiting requests count more, and how much


def rank_of(ranks: Sequence[WorkerLoad], first: int) -> int:
    """The rank that vLLM's API server gives a request to: the fewest requests, ties from `first` on.

    Requests that wait count up to three times more as the rank's KV cache fills beyond a half. Source: vLLM 0.32,
    DPLBAsyncMPClient.get_core_engine_for_request; `first` moves on by one with every request.
    """
    best, least = 0, math.inf
    for step in range(len(ranks)):
        index = (first + step) % len(ranks)
        load = ranks[index]
        pressure = max(0.0, load.kv_used_fraction - HALF_FULL)
        score = load.running + load.waiting * (1.0 + PRESSED * pressure)
        if score < least:
            best, least = index, score
    return best


def together(ranks: Sequence[WorkerLoad]) -> WorkerLoad:
    """The ranks of a server as a router sees them that knows servers alone."""
    load = WorkerLoad(ranks[0].name, total_blocks=0)
    for rank in ranks:
        load.running += rank.running
        load.waiting += rank.waiting
        load.queued_tokens += rank.queued_tokens
        load.active_blocks += rank.active_blocks
        load.total_blocks += rank.total_blocks
    return load


POLICIES: dict[str, Policy] = {
    "random": random_choice,
    "round_robin": round_robin,
    "least_loaded": least_loaded,
    "power_of_two": power_of_two,
    "prefix_aware": prefix_aware,
    "session_affinity": session_affinity,
    "topology_aware": topology_aware,
}


def served_before(policy: str, session_id: int, turns: int, workers: int, rng: random.Random) -> list[int]:
    """Which of `workers` had each of a session's earlier turns, in traffic that has long gone on.

    Policies that look at caches or at the session stay with a worker; all others spread turns evenly.
    """
    if policy == "session_affinity":
        return [_home(session_id, workers)] * turns
    if policy in NEEDS_OVERLAP:
        return [int(workers * rng.random())] * turns
    return [int(workers * rng.random()) for _ in range(turns)]


NEEDS_OVERLAP = frozenset({"prefix_aware"})
STAYS = NEEDS_OVERLAP | {"session_affinity"}  # turns of a session mostly go where the one before went
NEEDS_DISTANCE = frozenset({"topology_aware"})


def prefills_locally(uncached_tokens: int, prefill_queue: int, max_tokens: int, max_queue: int | None) -> bool:
    """Conditional disaggregation (Dynamo v0.3): short prompts, and any prompt while the prefill queue is long."""
    return uncached_tokens <= max_tokens or (max_queue is not None and prefill_queue >= max_queue)
