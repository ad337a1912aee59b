"""Workers that change sides: a decode worker lends itself to prefill while prompts queue.

Source: DistServe and Splitwise re-plan their pools; Dynamo's planner moves a worker and pays its restart.
"""

from __future__ import annotations

from planner.dispatch import backlog
from planner.spec.optimizations import RoleSwitch
from simulator.pool import SimulatedPool, Station


class RoleSwitcher:
    """One worker at a time is on its way. It first ends what it has, then is in neither pool for `delay_s`."""

    def __init__(self, knob: RoleSwitch, prefill: SimulatedPool, decode: SimulatedPool) -> None:
        self.knob = knob
        self.switches = 0
        self._prefill = prefill
        self._decode = decode
        self._lent: list[Station] = []
        self._leaving: tuple[Station, SimulatedPool] | None = None
        self._ready_s: float | None = None  # when the one that is leaving joins its new pool

    @property
    def restless(self) -> bool:
        """A worker is on its way or lent, so that another look may move one although no request came."""
        return self._leaving is not None or bool(self._lent)

    def look(self, now: float, queued: int) -> None:
        """Move on the worker that is leaving, or decide whether one should. `queued` prompts are in a shared queue."""
        if self._leaving is not None:
            self._move(*self._leaving, now)
            return
        waiting = backlog(self._prefill.loads, queued)
        if waiting > self.knob.queue * len(self._prefill.stations) and len(self._decode.stations) > 1:
            station = min(self._decode.stations, key=lambda one: one.engine.load.requests)
            self._decode.remove(station)
            self._lent.append(station)
            self._leaving = (station, self._prefill)
        elif waiting == 0 and self._lent:
            station = self._lent.pop()
            self._prefill.remove(station)
            self._leaving = (station, self._decode)

    def _move(self, station: Station, pool: SimulatedPool, now: float) -> None:
        if station.engine.load.requests or station.assigned:
            return
        if self._ready_s is None:
            self._ready_s = now + self.knob.delay_s
        if now >= self._ready_s:
            pool.add(station)
            self.switches += 1
            self._leaving = self._ready_s = None
