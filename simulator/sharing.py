"""Engines that share one host's CPU slow each other: processor sharing, at the factor that a profile measured.

While n other engines of its host are in a step, an engine's step takes 1 + n * (factor - 1) times as long. A step that
runs when a neighbour begins or stops keeps what it has done and goes on at the new pace, so that no work is lost.
Only engines with such a factor are looked at; they take every step by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from planner.system.resolve import Pool
from simulator.pool import Station


def shares_cores(pool: Pool) -> bool:
    """Whether the pool's engines run on a host's CPU, with a measured slowing."""
    return pool.hardware.kind == "cpu" and (pool.profile.interference or 1.0) > 1.0


class SharedCores:
    """Who is in a step on which host."""

    def __init__(self, stations: Iterable[Station]) -> None:
        self._hosts: dict[str, list[Station]] = defaultdict(list)
        for station in stations:
            if station.pool.hardware.kind == "cpu":
                self._hosts[station.place.node].append(station)
        self._busy: set[str] = set()  # names of workers

    def looked_at(self, station: Station, now: float) -> list[Station]:
        """The neighbours whose pace changed at `now`, because this engine went into its first step or out of its last.

        Ask after every `advance`: only that begins and ends steps.
        """
        name = station.place.name
        if station.engine.in_step == (name in self._busy):
            return []
        self._busy ^= {name}
        host = self._hosts[station.place.node]
        busy = sum(one.place.name in self._busy for one in host)
        slowed = [one for one in host if one is not station and shares_cores(one.pool)]
        for one in slowed:
            neighbours = busy - (one.place.name in self._busy)
            one.engine.set_pace(1.0 + neighbours * ((one.pool.profile.interference or 1.0) - 1.0), now)
        return slowed
