"""The cluster: arrivals, retrieval, routing, engines, KV transfers. One request is one `Visit`.

Engines are advanced lazily (simulator/worker.py): the cluster wakes a worker at the time of its next outcome and
reacts to it. Times that callbacks carry are exact; `clock.now` may differ from them by one rounding.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Final

from planner.core import no_cycles
from planner.dispatch import Dispatch, Held, turns
from planner.engine.host_costs import WAY_SHARED
from planner.routing import NEEDS_DISTANCE
from planner.run.tables import Progress
from planner.spec import Disaggregated
from planner.system.hand_over import LOOKS, HandOver
from planner.system.resolve import System, WorkerPlace
from planner.traffic.loads import Underway
from planner.traffic.requests import Arrival, Load, Memory, Request
from simulator.clock import NEVER, Call, Clock
from simulator.fabric import Fabric
from simulator.layers import Push
from simulator.pool import Group, SimulatedPool, SimulatedView, Station
from simulator.posts import Posts
from simulator.retrieval import RetrievalStation
from simulator.roles import RoleSwitcher
from simulator.sharing import SharedCores, shares_cores
from simulator.visits import NOTHING_SENT, Transfers, Visit
from simulator.worker import (
    ADMITTED,
    ASKED,
    FINISHED,
    POSTED,
    PREEMPTED,
    PREFILLED,
    PROMPT_ENDING,
    Mode,
    Outcome,
    Sequence,
)

if TYPE_CHECKING:
    from simpy import Event

    from simulator.processes import Processes

__all__ = ["SimulatedCluster", "Visit"]

WATCH_EVERY: Final = 2048  # calls between two looks at progress and at the stop rule

# What is due for a visit.
ROUTE: Final = 0
HAND_OFF: Final = 1
TRANSFER: Final = 2
WRITTEN: Final = 3
ARRIVED: Final = 4
KV_SEEN: Final = 5
PUSHED: Final = 6
ENDED: Final = 7


class _Due(Call):
    __slots__ = ("_cluster", "_visit", "_what")

    def __init__(self, cluster: SimulatedCluster, visit: Visit, what: int) -> None:
        self._cluster, self._visit, self._what = cluster, visit, what

    def happen(self, now: float) -> None:
        self._cluster.happen(self._what, self._visit, now)


class _Entering(Call):
    """Visits known beforehand come in, the last one first, one at a time: the queue of calls stays short."""

    __slots__ = ("_cluster", "_coming", "_visit")

    def __init__(self, cluster: SimulatedCluster, coming: list[Visit]) -> None:
        self._cluster, self._coming = cluster, coming
        self._visit: Visit | None = None

    def expect(self) -> None:
        if self._coming:
            visit = self._visit = self._coming.pop()
            self._cluster.clock.at(self._cluster.entrance_s(visit), self)

    def happen(self, now: float) -> None:
        if self._visit is not None:
            self._cluster.enter(self._visit, now)
        self.expect()


class _Wake(Call):
    __slots__ = ("_cluster", "_station")

    def __init__(self, cluster: SimulatedCluster, station: Station) -> None:
        self._cluster, self._station = cluster, station

    def happen(self, now: float) -> None:
        self._cluster.wake(self._station, now)


class _Through(Call):
    """A station's API server is done with those inside."""

    __slots__ = ("_cluster", "_station")

    def __init__(self, cluster: SimulatedCluster, station: Station) -> None:
        self._cluster, self._station = cluster, station

    def happen(self, now: float) -> None:
        self._cluster.through(self._station, now)


class _Onwards(Call):
    """A visit leaves a station's retrieval stage, or else its API server."""

    __slots__ = ("_cluster", "_mode", "_retrieved", "_station", "_visit")

    def __init__(self, cluster: SimulatedCluster, visit: Visit, station: Station, mode: Mode, retrieved: bool) -> None:
        self._cluster, self._visit, self._station, self._mode = cluster, visit, station, mode
        self._retrieved = retrieved

    def happen(self, now: float) -> None:
        if self._retrieved:
            self._cluster.retrieved(self._visit, self._station, self._mode, now)
        else:
            self._cluster.taken_in(self._visit, self._station, self._mode, now)


class SimulatedCluster:
    """One simulated run of `load` on `system`.

    `stop(cluster)` is asked now and then; when it returns True the run is abandoned where it is (`stopped`), as it is
    at `until_s`.
    """

    def __init__(
        self,
        system: System,
        load: Load,
        *,
        fast_forward: bool = True,
        record_steps: bool = True,
        record_transfers: bool = True,
        stop: Callable[[SimulatedCluster], bool] | None = None,
        until_s: float = math.inf,
    ) -> None:
        spec = system.spec
        self.clock = Clock()
        self.load = load
        self.visits: list[Visit] = []  # in the order in which they became known
        self.transfers = Transfers()
        self._record_transfers = record_transfers
        self.outstanding = 0
        self._inside = 0  # requests that have been sent and have not ended
        self._asleep: list[Event] = []  # of those who wait for somebody to come
        self.stopped = False
        self.stopped_s = math.inf
        self.answered: dict[int, int] = {}  # by request: tokens of the answers that were under way then
        self._open_loop = False  # nothing follows from the end of a request
        self._stop, self._until_s = stop, until_s
        self._by_id: dict[int, Visit] = {}  # of those that engines have
        retrieval, knobs = spec.retrieval, spec.optimizations
        self._layers = knobs.transfer.layerwise
        switch = knobs.separation.role_switch
        central = retrieval is not None and retrieval.at == "frontend"
        self._prefetch = knobs.prefill.prefetch_retrieval and retrieval is not None and not central
        self._central = RetrievalStation(retrieval, f"{spec.run.seed}/retrieval") if retrieval and central else None
        # Every step by itself where a neighbour may slow it: what it does then depends on when each begins.
        sharing = sum(len(pool.workers) for pool in system.pools if pool.hardware.kind == "cpu") > 1
        self._hand_over = system.wires.hand_over if system.wires is not None else HandOver()
        self._idle_look_s = self._hand_over.idle_look_s
        warm = any(pool.profile.warm_slowing > 1.0 for pool in system.pools)  # which that slowing stands for otherwise
        self._slowing = 1.0 if warm else self._hand_over.slowing
        self._posts = Posts(self._hand_over, system.block_descriptors)
        self._pushes = self._hand_over.push and self._posts.cost and self._layers is None
        self.pools = [
            SimulatedPool(
                pool,
                spec.run.seed,
                None if central or pool.role == "decode" else retrieval,
                fast_forward=fast_forward and not (sharing and shares_cores(pool)),
                record_steps=record_steps,
                announce=self._layers is not None,
                posting=self._posting_s if self._posts.cost and not self._hand_over.push else None,
            )
            for pool in system.pools
        ]
        self.entry, self.decoders = self.pools[0], self.pools[-1]
        self._host = self.entry.resolved.profile.host
        shares = sharing and any(shares_cores(pool) for pool in system.pools)
        self._cores = SharedCores([one for pool in self.pools for one in pool.stations]) if shares else None
        self.split = spec.deployment if isinstance(spec.deployment, Disaggregated) else None
        self._first_by_decode = self.split is not None and self.split.first_token == "decode"
        self.fabric = Fabric(system, self.clock, both_ways=switch is not None) if self.split else None
        self._dispatch = Dispatch(system)
        limits = [pool.limits for pool in system.pools]
        rules = [(one.block_size, one.keys_above_tokens, one.prefix_caching) for one in limits]
        self._same_keys = switch is None and rules[0] == rules[-1]  # both pools have the same keys for a prompt
        self._far = self.decoders.router.policy in NEEDS_DISTANCE
        self._shared_queue: deque[Visit] = deque()  # of visits that wait for an idle prefill worker
        self._underway = load if isinstance(load, Underway) else None
        self._turn = 0  # of the workers that go on with answers
        self._rng = random.Random(f"{spec.run.seed}/underway")
        self._switcher = RoleSwitcher(switch, self.entry, self.decoders) if switch and self.split else None

    # --- running --------------------------------------------------------------------------------

    def run(self, progress: Progress | None = None) -> list[Visit]:
        with no_cycles():
            arrivals = self.load.start()
            self._open_loop = len(arrivals) >= self.load.expected_requests
            self._start_processes()
            if self._underway is not None:
                for memory in self._underway.memories:
                    self._recall(memory)
            known = sorted([self._known(arrival) for arrival in arrivals], key=self.entrance_s)
            known.reverse()
            del arrivals
            _Entering(self, known).expect()
            if progress is None and self._stop is None and self._until_s == math.inf:
                self.clock.run()
            else:
                self._run_watched(progress)
            self._let_go()
        return self.visits

    def _let_go(self) -> None:
        """Nothing refers to itself any more: the memory is free as soon as nobody uses it."""
        for visit in self._by_id.values():
            visit.settle()
        self._by_id.clear()
        self.clock.clear()
        self.fabric = None  # transfers of a run that was stopped know what comes after them
        for pool in self.pools:
            for station in pool.stations:
                station.engine.let_go()
                station.intake.let_go()
                station.wake = station.group = None

    def _run_watched(self, progress: Progress | None) -> None:
        expected = max(self.load.expected_requests, 1)
        events = 0
        while not self.clock.idle:
            if self.clock.next_s > self._until_s:
                self._abandon(self._until_s)
                return
            self.clock.step()
            events += 1
            if events % WATCH_EVERY == 0:
                if progress:
                    progress("simulate", min(1.0, (len(self.visits) - self.outstanding) / expected))
                if self._stop and self._stop(self):
                    self._abandon(self.clock.now)
                    return

    def _abandon(self, now: float) -> None:
        self.stopped, self.stopped_s = True, now
        for number, visit in self._by_id.items():
            if visit.decode is not None and visit.decode_worker is not None:
                self.answered[number] = visit.decode_worker.engine.answered(visit.decode, now)

    def _start_processes(self) -> None:
        aged = [pool for pool in self.pools if pool.router.state_age_s]
        if not aged and self._switcher is None:
            return
        from simulator.processes import Processes  # most clusters need no simpy

        env = Processes(self.clock)
        for pool in aged:
            env.process(self._every(env, pool.router.state_age_s, partial(self._refresh, pool)))
        if self._switcher is not None:
            look = partial(self._switch, self._switcher)
            env.process(self._every(env, self._switcher.knob.check_every_s, look))

    def _every(self, env: Processes, period_s: float, look: Callable[[float], bool]) -> Generator[Event, None, None]:
        """`look(now)` each period until no request can come any more; it says whether a second look may differ.

        While nobody is in the system, and a look has found it so, time passes without looks.
        """
        found_empty = False
        while self.outstanding:
            changes = look(env.now)
            if self._inside or changes or not found_empty:
                found_empty = not self._inside
                yield env.timeout(period_s)
                continue
            begun = env.now
            somebody = env.event()
            self._asleep.append(somebody)
            yield somebody
            missed = math.ceil((env.now - begun) / period_s)
            yield env.timeout(max(0.0, begun + missed * period_s - env.now))

    def _refresh(self, pool: SimulatedPool, now: float) -> bool:
        pool.refresh(now)
        return False

    def _switch(self, switcher: RoleSwitcher, now: float) -> bool:
        switcher.look(now, len(self._shared_queue))
        if self._shared_queue:
            self._pull(now)
        return switcher.restless

    # --- a request's way to an engine ---------------------------------------------------------------

    def enter(self, visit: Visit, now: float) -> None:
        """A request reaches its first stage."""
        self._inside += 1
        while self._asleep:
            self._asleep.pop().succeed()
        if self._underway is not None and self._goes_on(visit, self._underway, now):
            return
        if self._central is None:
            self._route(visit, now)
        elif self._dispatch.sheds(self._view(self.entry, visit, now)):
            self._reject(visit, self._overloaded(), now)
        else:
            self._retrieve(visit, now)

    def _goes_on(self, visit: Visit, underway: Underway, now: float) -> bool:
        """Whether its answer began before the run. Who comes is known now, and workers remember older sessions."""
        if visit.request.request_id in underway.resumed:
            self._resume(visit, now)
            return True
        planned = visit.request
        visit.request = underway.comes(planned, now)
        if visit.request is planned and planned.request_id in underway.seats:
            self._recall(Memory(planned, "none"))
        return False

    def _recall(self, memory: Memory) -> None:
        for pool in self.pools:
            pool.recall(memory, self._rng)

    def _resume(self, visit: Visit, now: float) -> None:
        """An answer that began before the run: it decodes on, on each worker in turn."""
        stations = self.decoders.stations
        station = visit.worker = stations[self._turn % len(stations)]
        self._turn += 1
        self._queue(visit, station, "resumed", now)

    def _known(self, arrival: Arrival) -> Visit:
        visit = Visit(arrival.request, arrival.time_s)
        self.visits.append(visit)
        self.outstanding += 1
        return visit

    def entrance_s(self, visit: Visit) -> float:
        """When a visit reaches its first stage: retrieval, else the router."""
        return self._door(visit, visit.arrival_s) if self._central is None else visit.arrival_s

    def _door(self, visit: Visit, now: float) -> float:
        """When a request that is complete at `now` reaches the router: after HTTP and tokenisation."""
        prompt = visit.request.prompt_tokens
        return now + self._host.request(prompt) - self._host.work(prompt)

    def happen(self, what: int, visit: Visit, now: float) -> None:
        """What was due for a visit now."""
        if what == HAND_OFF:
            self._hand_off(visit, now)
        elif what == ARRIVED:
            self._arrived(visit, now)
        elif what == TRANSFER:
            self._transfer(visit, now)
        elif what == WRITTEN:
            self._written(visit, now)
        elif what == KV_SEEN:
            self._kv_seen(visit, now)
        elif what == ENDED:
            self._ended(visit, now)
        elif what == PUSHED:
            self._pushed(visit, now)
        else:
            self._route(visit, now)

    def _retrieve(self, visit: Visit, now: float) -> None:
        assert self._central is not None
        visit.retrieval_start_s, visit.retrieval_end_s = self._central.serve(now)
        self.clock.at(self._door(visit, visit.retrieval_end_s), _Due(self, visit, ROUTE))

    def _route(self, visit: Visit, now: float) -> None:
        request, entry = visit.request, self._view(self.entry, visit, now)
        reason = self._refusal(request)
        if reason is None and self._dispatch.sheds(entry):
            reason = self._overloaded()
        if reason is not None:
            self._reject(visit, reason, now)
            return
        decoders = entry if self.split is None else self._view(self.decoders, visit, now)
        place = self._dispatch.place(request, entry, decoders)
        if place.decode is not None:
            visit.decode_worker = self.decoders.station(place.decode, now)
        if place.local and visit.decode_worker is not None:
            visit.worker = visit.decode_worker
            self._submit(visit, visit.worker, "full", now)
        elif place.prefill is not None:
            self._assign(visit, self.entry.station(place.prefill, now), now)
        else:
            visit.shared_queued_s = now
            self._shared_queue.append(visit)
            self._pull(now)

    def _view(self, pool: SimulatedPool, visit: Visit, now: float) -> SimulatedView:
        return SimulatedView(pool, visit.request, now, len(self._shared_queue) if pool is self.entry else 0)

    def _reject(self, visit: Visit, reason: str, now: float) -> None:
        visit.finish_s = now
        visit.finish_reason, visit.error = "rejected", reason
        self._ended(visit, now)

    def _refusal(self, request: Request) -> str | None:
        for pool in self.pools:
            mode: Mode = "prefill_only" if pool.resolved.role == "prefill" else "full"
            reason = pool.stations[0].engine.refusal(request, mode)
            if reason is not None:
                return reason
        return None

    def _overloaded(self) -> str:
        return f"every worker has {self._dispatch.most_waiting} or more requests waiting"

    def _pull(self, now: float) -> None:
        """Prefill workers take from the shared queue what is theirs now."""
        stations = list(self.entry.stations)
        held = [Held(one.place.name, one.assigned, one.engine.load.requests) for one in stations]
        for _, index in turns(repeat((), len(self._shared_queue)), held, ahead=self._prefetch):
            self._assign(self._shared_queue.popleft(), stations[index], now)

    def _assign(self, visit: Visit, station: Station, now: float) -> None:
        visit.worker = station
        mode: Mode = "full" if self.split is None else "prefill_only"
        if station.retrieval is None:
            self._submit(visit, station, mode, now)
            return
        station.assigned += 1
        visit.retrieval_start_s, visit.retrieval_end_s = station.retrieval.serve(now)
        self.clock.at(visit.retrieval_end_s, _Onwards(self, visit, station, mode, retrieved=True))

    def retrieved(self, visit: Visit, station: Station, mode: Mode, now: float) -> None:
        station.assigned -= 1
        self._submit(visit, station, mode, now)

    def _submit(self, visit: Visit, station: Station, mode: Mode, now: float) -> None:
        """Through the worker's API server to its engine."""
        if mode == "remote":
            visit.decode_worker = station
        work_s = self._host.work(visit.request.prompt_tokens) if mode != "remote" else self._parsed_again(visit)
        if not work_s:
            self._queue(visit, station, mode, now)
            return
        station.engine.expect(1)
        if station.intake.add(work_s, _Onwards(self, visit, station, mode, retrieved=False), now):
            self.clock.at(station.intake.end_s, _Through(self, station))

    def _parsed_again(self, visit: Visit) -> float:
        """Seconds of the decode worker's API server, a part of the way between workers.

        Push: the decode worker was asked when the prefill worker was, and has waited since.
        """
        if visit.push is not None:
            return 0.0
        prompt = visit.request.prompt_tokens
        way_s, work_s = self._hand_over.way(prompt, self._host.hop_s), self._host.work(prompt)
        return WAY_SHARED * way_s if self._hand_over.way_s else min(work_s, way_s)

    def through(self, station: Station, now: float) -> None:
        """The API server is done with those inside, unless more have come."""
        intake = station.intake
        if now >= intake.end_s:
            for call in intake.leave(now):
                call.happen(now)
        if intake.inside:
            self.clock.at(intake.end_s, _Through(self, station))

    def taken_in(self, visit: Visit, station: Station, mode: Mode, now: float) -> None:
        station.engine.expect(-1)
        self._queue(visit, station, mode, now)

    def _queue(self, visit: Visit, station: Station, mode: Mode, now: float) -> None:
        sequence = Sequence(visit.request, mode)
        self._by_id[visit.request.request_id] = visit
        if mode != "remote":
            visit.prefill = sequence
        elif self._same_keys and visit.prefill is not None:
            sequence.keys = visit.prefill.keys
        if mode != "prefill_only":
            visit.decode = sequence
            visit.decode_worker = station
        station.engine.submit(sequence, now)
        self._plan(station)

    # --- engines ----------------------------------------------------------------------------------

    def _plan(self, station: Station) -> None:
        if station.group is not None:
            self._plan_group(station.group)
            return
        when = station.engine.next_event_s()
        if when != station.wake_s:
            station.wake_s = when
            if when != NEVER:
                if station.wake is None:
                    station.wake = _Wake(self, station)
                self.clock.at(when, station.wake)

    def wake(self, station: Station, now: float) -> None:
        if station.wake_s != now:
            return  # planned before something else changed the worker's plan
        station.wake_s = -1.0
        self._react(station, station.engine.advance(now), now)
        self._plan(station)
        if self._cores is not None:
            for neighbour in self._cores.looked_at(station, now):
                self._plan(neighbour)
        if self._shared_queue:
            self._pull(now)

    def _plan_group(self, group: Group) -> None:
        when = group.clock.next_event_s()
        if when != group.clock.wake_s:
            group.clock.wake_s = when
            if when != NEVER:
                self.clock.at(when, partial(self._wake_group, group))

    def _wake_group(self, group: Group, now: float) -> None:
        """Ranks in lockstep: their next step has begun before anything is done about what the last one brought."""
        if group.clock.wake_s != now:
            return
        group.clock.wake_s = -1.0
        for station, outcomes in zip(group.stations, group.clock.advance(now), strict=True):
            self._react(station, outcomes, now)
        self._plan_group(group)
        if self._shared_queue:
            self._pull(now)

    def _react(self, station: Station, outcomes: list[Outcome], now: float) -> None:
        for time_s, kind, sequence in outcomes:
            if kind == PREEMPTED:
                continue
            visit = self._by_id[sequence.request.request_id]
            if kind == FINISHED:
                self._engine_finished(visit, sequence, station, time_s)
            elif kind == PREFILLED:
                self._prefilled(visit, sequence, station, time_s)
            elif kind == ADMITTED:
                self._admitted(visit, sequence, station, time_s, now)
            elif kind == ASKED:
                self.clock.at(max(time_s, now), _Due(self, visit, ARRIVED))
            elif kind == POSTED:
                self.clock.at(max(time_s, now), _Due(self, visit, TRANSFER))
            elif kind == PROMPT_ENDING and sequence.mode == "prefill_only":
                self._push(visit, sequence, time_s)

    def _prefilled(self, visit: Visit, sequence: Sequence, station: Station, now: float) -> None:
        if sequence.mode == "prefill_only" and self._first_by_decode:
            return
        if visit.first_token_s != visit.first_token_s:  # NaN: nothing has been streamed yet
            visit.first_token_s = now + station.response_s + sequence.answer_s

    def _engine_finished(self, visit: Visit, sequence: Sequence, station: Station, now: float) -> None:
        if sequence.mode == "prefill_only":
            way_s = self._hand_over.way(visit.request.prompt_tokens, self._host.hop_s)
            self.clock.at(now + way_s - self._parsed_again(visit), _Due(self, visit, HAND_OFF))
            return
        visit.finish_s = now + station.response_s + sequence.answer_s
        visit.finish_reason = "length" if visit.request.output_tokens >= visit.request.max_tokens else "stop"
        visit.settle()
        del self._by_id[visit.request.request_id]
        if self._open_loop:
            self.outstanding -= 1
            self._inside -= 1
        else:
            self.clock.at(visit.finish_s, _Due(self, visit, ENDED))

    def _hand_off(self, visit: Visit, now: float) -> None:
        if visit.push is None:
            self._submit(visit, self._decoder(visit, now), "remote", now)
        else:
            visit.push.handed_s = now
            self._pushed(visit, now)

    def _decoder(self, visit: Visit, now: float) -> Station:
        if visit.decode_worker is not None:
            return visit.decode_worker
        distance_s = partial(self._distance_s, visit) if self._far else None
        view = SimulatedView(self.decoders, visit.request, now, distance_s=distance_s)
        return self.decoders.station(self._dispatch.decoder(visit.request, view), now)

    def _distance_s(self, visit: Visit, place: WorkerPlace) -> float:
        """How long the prompt's KV would take, alone on the wires, from where it was prefilled."""
        assert self.fabric is not None
        assert visit.worker is not None
        limits, prompt = self.entry.resolved.limits, visit.request.prompt_tokens
        size = -(-prompt // limits.block_tokens(prompt)) * self.fabric.block_bytes
        wire = self.fabric.wire(visit.worker.place, place)
        return wire.setup_s + wire.latency_s + size / wire.bandwidth

    def _admitted(self, visit: Visit, sequence: Sequence, target: Station, admitted_s: float, now: float) -> None:
        """The decode worker has allocated its blocks. Bytes flow once their descriptors are posted."""
        if visit.transfer_start_s != visit.transfer_start_s:  # NaN
            visit.transfer_start_s = admitted_s
            if visit.push is None:
                self._read(visit, 1, now)
        if not self._posts.cost or visit.push is not None:
            self._transfer(visit, admitted_s)
        elif self._hand_over.push:
            self.clock.at(max(self._thread_posts(visit, sequence, admitted_s), now), _Due(self, visit, TRANSFER))

    def _thread_posts(self, visit: Visit, sequence: Sequence, now: float) -> float:
        """When a thread of the prefill worker has posted: one transfer after another."""
        station = visit.worker
        assert station is not None
        begin_s = max(now, station.posted_s)
        posted_s, moved_s, seen_s = self._posting_s(sequence, begin_s, begin_s < station.moved_s)
        station.posted_s = begin_s + posted_s
        station.moved_s = max(max(station.moved_s, begin_s) + moved_s, station.posted_s)
        return station.moved_s + seen_s

    def _posting_s(self, sequence: Sequence, begin_s: float, behind: bool) -> tuple[float, float, float]:
        """What `simulator.sequence.Posting` says."""
        station = self._by_id[sequence.request.request_id].worker
        assert station is not None
        return self._posts.seconds(sequence.remote_blocks, begin_s, station.engine.busy_until_s, behind)

    def _read(self, visit: Visit, more: int, now: float) -> None:
        """One more or one less transfer reads from the GPU that computed the prompt, which slows prompts there."""
        station = visit.worker
        assert station is not None
        station.read_by += more
        if self._slowing > 1.0 and self._switcher is None and station.read_by == (more > 0):
            station.engine.set_pace(self._slowing if more > 0 else 1.0, now)
            self._plan(station)

    def _transfer(self, visit: Visit, now: float) -> None:
        """The decode worker gets the blocks that it lacks from the prefill worker."""
        assert self.fabric is not None
        assert visit.worker is not None
        assert visit.decode is not None
        assert visit.decode_worker is not None
        source, target = visit.worker.place, visit.decode_worker
        size = visit.decode.remote_blocks * self.fabric.block_bytes
        if visit.push is not None:
            visit.push.send(self.fabric, self.clock, source, target.place, size, now, _Due(self, visit, PUSHED))
            return
        there = _Due(self, visit, WRITTEN if self._pushes else ARRIVED)
        visit.sent = self.fabric.send(source, target.place, size, now, there)

    def _written(self, visit: Visit, now: float) -> None:
        """Push: all is there, which the decode worker is told once the prefill worker's connector is asked."""
        assert visit.worker is not None
        assert visit.prefill is not None
        self._read(visit, -1, now)
        known_s = visit.worker.engine.ask(visit.prefill, now)
        if known_s is None:
            self._plan(visit.worker)
        else:
            self.clock.at(max(known_s, now), _Due(self, visit, ARRIVED))

    def _arrived(self, visit: Visit, now: float) -> None:
        visit.transfer_end_s = now
        wire, size = visit.sent
        visit.sent = NOTHING_SENT
        if self._record_transfers:  # posting counts, as where vLLM is watched
            self.transfers.add(visit, wire, size, visit.transfer_start_s, now)
        if not self._pushes:
            self._read(visit, -1, now)
        self._release(visit, now)
        self._notice(visit, now)

    def _notice(self, visit: Visit, now: float) -> None:
        """KV is there, and its engine has not looked yet: it does with a step's results, or when it looks next."""
        assert visit.decode_worker is not None
        if visit.decode_worker.engine.in_step or not self._idle_look_s:
            self._kv_seen(visit, now)
        else:
            looks = LOOKS if self._pushes else 1
            self.clock.at(now + looks * self._idle_look_s, _Due(self, visit, KV_SEEN))

    def _kv_seen(self, visit: Visit, now: float) -> None:
        assert visit.decode is not None
        assert visit.decode_worker is not None
        visit.decode_worker.engine.kv_read(visit.decode, now, self._pushes)
        self._plan(visit.decode_worker)

    # --- KV layer by layer, while the prompt still computes ---

    def _push(self, visit: Visit, sequence: Sequence, now: float) -> None:
        """The step that ends a prompt begins: the decode worker makes room now, layers follow as they are done."""
        assert self._layers is not None
        if visit.push is None:  # else it was preempted after that and starts again: what has left need not leave twice
            visit.push = Push(now, sequence.due_s, self._layers.groups)
            self._submit(visit, self._decoder(visit, now), "remote", now)

    def _pushed(self, visit: Visit, now: float) -> None:
        """Its layers are there and its prefill is over: the decode worker may go on. Only what is exposed counts."""
        push = visit.push
        assert push is not None
        if not push.complete:
            return
        visit.transfer_start_s, visit.transfer_end_s = push.handed_s, now
        if self._record_transfers:
            self.transfers.add(visit, push.wire, push.moved, push.first_s, push.last_s)
        self._release(visit, now)
        self._notice(visit, now)

    def _release(self, visit: Visit, now: float) -> None:
        assert visit.worker is not None
        assert visit.prefill is not None
        visit.worker.engine.release(visit.prefill, now)
        self._plan(visit.worker)

    def _ended(self, visit: Visit, now: float) -> None:
        self.outstanding -= 1
        self._inside -= 1
        for arrival in self.load.finished(visit.request, now):
            _Entering(self, [self._known(arrival)]).expect()
