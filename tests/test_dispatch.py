"""One hand-off: the simulator's and the live frontend's adapters decide the same in the same states."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from live.address import ServerAddress
from live.fleet import LivePool, LiveWorker, Turn
from live.openai_api import ApiError, ApiRequest
from live.proxy import Proxy
from live.records import FrontendRecord
from live.relay import Call
from planner import simulate
from planner.dispatch import Held, turns
from planner.routing import POLICIES, WorkerLoad, served_before
from planner.spec import load, parse
from planner.system.resolve import System, resolve
from planner.traffic.requests import Request
from planner.traffic.workload import build
from simulator.cluster import SimulatedCluster
from simulator.pool import SimulatedPool
from simulator.sequence import Sequence
from simulator.visits import Visit

STATES = 1000
NOW_S = 1e6
CONTENT = 77
# topology_aware is left out: only the simulator knows how far the workers are from each other.
ALIKE = sorted(POLICIES.keys() - {"topology_aware"})


@dataclass(frozen=True)
class WorkerState:
    running: int
    waiting: int
    queued_tokens: int
    active_blocks: int
    cached_blocks: int  # of the prompt, from its beginning
    seen: tuple[int, int]  # running and waiting as the router last read them


@dataclass(frozen=True)
class State:
    system: System
    prompt_tokens: int
    known_tokens: int | None
    session_id: int
    workers: dict[str, WorkerState]
    queued: int  # requests in the shared queue

    def load(self, name: str) -> WorkerLoad:
        one = self.workers[name]
        return WorkerLoad(name, one.running, one.waiting, one.queued_tokens, one.active_blocks, 10_000)

    def stale(self, name: str) -> WorkerLoad:
        running, waiting = self.workers[name].seen
        return WorkerLoad(name, running, waiting, 0, 0, 10_000)


@dataclass(frozen=True)
class Decision:
    """`prefill` is None while the request stays in the shared queue; `older`: who takes those that waited before it."""

    shed: bool = False
    prefill: str | None = None
    decode: str | None = None
    older: tuple[str | None, ...] = ()


@cache
def system_of(deployment: str, seed: int) -> System:
    text = f"""
schema: 1
name: t
model: llama-3.1-8b
hardware: h200
run: {{seed: {seed}}}
deployment: {deployment}
workload: {{kind: poisson, rate: 1, requests: 1, prompt_tokens: 100, output_tokens: 10}}
"""
    return resolve(parse(text, "t"))


def state(draw: random.Random) -> State:
    router = [
        f"policy: {draw.choice(ALIKE)}",
        f"decode_choice: {draw.choice(['at_arrival', 'after_prefill'])}",
        f"prefill_dispatch: {draw.choice(['push', 'shared_queue'])}",
        f"max_queue: {draw.choice(['null', 1, 2, 3])}",
        f"temperature: {draw.choice([0, 0, 0.5])}",
        f"state_age_s: {draw.choice([0, 0, 5])}",
    ]
    replicas = draw.randint(1, 4), draw.randint(1, 4)
    if draw.random() < 0.25:
        deployment = f"{{mode: aggregated, replicas: {replicas[0]}, router: {{{', '.join(router)}}}}}"
    else:
        rule = draw.choice(["{}", "{}", "{max_tokens: 100}", "{max_queue: 2}", "{max_tokens: 60, max_queue: 5}"])
        deployment = (
            f"{{mode: disaggregated, prefill: {{replicas: {replicas[0]}}}, decode: {{replicas: {replicas[1]}}}, "
            f"router: {{{', '.join(router)}}}, local_prefill: {rule}}}"
        )
    system = system_of(deployment, draw.randint(0, 2))
    prompt = draw.randint(2, 400)
    shared = "shared_queue" in deployment and system.disaggregated
    workers = {}
    for pool in system.pools:
        for place in pool.workers:
            idle = draw.random() < 0.3
            cached = draw.randint(0, (prompt - 1) // pool.limits.block_size)
            busy = (0, 0, 0) if idle else (draw.randint(1, 4), draw.randint(0, 4), draw.randint(0, 500))
            seen = draw.randint(0, 4), draw.randint(0, 4)
            workers[place.name] = WorkerState(*busy, draw.randint(0, 40), cached, seen)
    known = draw.choice([None, draw.randint(1, prompt)])
    return State(system, prompt, known, draw.randrange(1 << 30), workers, draw.choice([0, 0, 1, 2, 5]) * shared)


def request(number: int, tokens: int, session: int = 0, known: int | None = None, content: int = CONTENT) -> Request:
    return Request(number, session, tokens, 4, 4, ((content, tokens),), tokens, 900 + number, False, known)


# --- the simulator -----------------------------------------------------------------------------------


def in_simulator(state: State) -> Decision:
    cluster = SimulatedCluster(state.system, build(state.system.spec), fast_forward=False)
    for pool in cluster.pools:
        _set(pool, state)
    older = [Visit(request(100 + number, 20, content=5), 0.0) for number in range(state.queued)]
    visit = Visit(request(1, state.prompt_tokens, state.session_id, state.known_tokens), NOW_S)
    for one in (*older, visit):
        cluster._by_id[one.request.request_id] = one
        cluster.outstanding += 1
    cluster._shared_queue.extend(older)
    cluster._route(visit, NOW_S)
    if visit.finish_reason == "rejected":
        return Decision(shed=True)
    if visit.worker is not None and visit.decode is None:  # a prefill worker has it: as if its prompt were done
        cluster._hand_off(visit, NOW_S)
    waited = tuple(one.worker.place.name if one.worker else None for one in older)
    prefill = visit.worker.place.name if visit.worker else None
    decode = visit.decode_worker.place.name if visit.decode_worker and visit.worker else None
    return Decision(False, prefill, decode, waited)


def _set(pool: SimulatedPool, state: State) -> None:
    for station in pool.stations:
        engine, one = station.engine, state.workers[station.place.name]
        if one.cached_blocks:
            engine.submit(Sequence(request(9, one.cached_blocks * engine.kv.block_size + 1), "full"), 0.0)
            while engine.next_event_s() < math.inf:
                engine.advance(engine.next_event_s())
        engine.kv.free -= one.active_blocks
        engine.kv.blank -= one.active_blocks
        for name in ("running", "waiting", "queued_tokens", "active_blocks"):
            setattr(engine.load, name, getattr(one, name))
    if pool.router.state_age_s:
        pool.seen = [state.stale(station.place.name) for station in pool.stations]


# --- live --------------------------------------------------------------------------------------------


class Unwired(Proxy):
    """The proxy with its network cut off: prefill is over at once."""

    async def _answer(self, worker: LiveWorker, call: Call, body: dict[str, Any]) -> dict[str, Any]:
        return {"kv_transfer_params": {}, "choices": [{}]}


def live_pool(resolved: Any, state: State) -> LivePool:
    addresses = [
        ServerAddress(place.name, resolved.role, f"http://127.0.0.1:{number + 1}", "ipc:///nowhere")
        for number, place in enumerate(resolved.workers)
    ]
    pool = LivePool(resolved, addresses)
    for worker in pool.workers:
        one, size = state.workers[worker.name], worker.block_size
        worker.load = state.load(worker.name)
        assert worker.feed is not None
        worker.feed.index.store(list(range(one.cached_blocks)), None, range(one.cached_blocks * size), size)
        if one.running + one.waiting:
            pool._busy.add(worker.name)
    if pool.router.state_age_s:
        pool._seen = {worker.name: state.stale(worker.name) for worker in pool.workers}
    return pool


async def in_frontend(state: State) -> Decision:
    pools = [live_pool(pool, state) for pool in state.system.pools]
    proxy = Unwired(state.system, pools, None, None)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    older = [Turn(loop.create_future(), ()) for _ in range(state.queued)]
    pools[0]._queue.extend(older)
    known = None if state.known_tokens is None else {"known_prefix_tokens": state.known_tokens}
    ids = tuple(range(state.prompt_tokens))
    asked = ApiRequest("completions", {}, False, False, "", ids, known, state.session_id)
    call = Call("x", asked, FrontendRecord(0.0), token_ids=ids)

    async def placed() -> None:
        async with proxy._placed(call):
            pass

    task = asyncio.create_task(placed())
    for _ in range(5):
        await asyncio.sleep(0)
    waited = tuple(turn.worker.result().name if turn.worker.done() else None for turn in older)
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return Decision(False, None, None, waited)
    refused = task.exception()
    if isinstance(refused, ApiError) and refused.status == 429:
        return Decision(shed=True)
    task.result()
    record = call.record
    return Decision(False, record.worker, record.decode_worker, waited)


def test_both_backends_decide_the_same() -> None:
    async def main() -> list[tuple[State, Decision, Decision]]:
        draw = random.Random(12)
        return [(one, in_simulator(one), await in_frontend(one)) for one in (state(draw) for _ in range(STATES))]

    decided = asyncio.run(main())
    for one, simulated, live in decided:
        assert simulated == live, (one.system.spec.deployment, one)
    split = [(one, made) for one, made, _ in decided if one.system.disaggregated]
    assert sum(made.shed for _, made in split) > 100
    assert sum(made.shed and one.queued > 0 for one, made in split) > 50
    assert sum(made.prefill is not None and made.prefill == made.decode for _, made in split) > 100  # stayed there
    assert sum(not made.shed and made.prefill is None for _, made in split) > 30  # in the shared queue
    assert sum(any(made.older) for _, made in split) > 30
    assert len({made.prefill for _, made in split}) > 8


# --- the rules themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("dispatch", ["push", "shared_queue"])
def test_a_shared_queue_sheds_as_pushing_does(dispatch: str) -> None:
    """It shed none: the bound looked at the engines alone, which never have more than one."""
    changes = ["workload.rate=40", "workload.requests=500",
               "workload.prompt_tokens=3000", "workload.output_tokens=50",
               f"deployment.router={{prefill_dispatch: {dispatch}, max_queue: 2}}"]  # fmt: skip
    run = simulate(load("disagg", changes))
    rejected = np.asarray(run.requests["finish_reason"] == "rejected")
    assert 100 < rejected.sum() < 400


def test_turns_are_by_age_and_skip_workers_that_failed() -> None:
    idle, busy = Held("a", 0, 0), Held("b", 0, 1)
    assert turns([(), ()], [busy, idle]) == [(0, 1)]
    assert turns([("a",), ()], [idle, busy]) == [(1, 0)]
    assert turns([("a",), (), ()], [idle, Held("c", 0, 0)]) == [(0, 1), (1, 0)]
    assert turns([(), (), ()], [busy, idle], ahead=True) == [(0, 1), (1, 0)]
    assert turns([()], [Held("d", 1, 0)], ahead=True) == []
    assert turns([], [idle]) == turns([()], []) == []


@pytest.mark.parametrize("policy", POLICIES)
def test_the_earlier_turns_of_a_session_were_where_its_policy_sends_it(policy: str) -> None:
    rng = random.Random(0)
    sessions = [served_before(policy, session, 5, 4, rng) for session in range(400)]
    stays = policy in ("prefix_aware", "session_affinity")
    places = sum(len(set(served)) for served in sessions) / len(sessions)
    assert places == 1 if stays else places > 2.5
    counts = np.bincount([worker for served in sessions for worker in served], minlength=4)
    assert counts.min() > 0.7 * counts.mean()  # all workers alike
