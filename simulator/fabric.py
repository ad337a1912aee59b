"""The wires between workers: which ports and uplinks a KV transfer occupies, and when it ends."""

from __future__ import annotations

from collections.abc import Callable

from planner.system import Pool, System, Wire, WorkerPlace
from simulator.link import Network, Path

Schedule = Callable[[float, Callable[[float], None]], None]  # (time, action(time))


class Fabric:
    """All transfers of a cluster. `at` is the cluster's clock: it calls an action at a time."""

    def __init__(self, system: System, at: Schedule) -> None:
        assert system.wires is not None, "an aggregated deployment has no KV transfers"
        self._wires = system.wires
        self._at = at
        self._paths: dict[tuple[str, str], Path] = {}
        self._wake = float("inf")
        prefill, decode = system.pools
        self.network = Network(self._capacities(prefill, decode))
        self.block_bytes = system.kv_bytes_per_token * decode.limits.block_size

    def send(
        self, source: WorkerPlace, target: WorkerPlace, size: int, now: float, done: Callable[[float], None]
    ) -> str:
        """Move `size` bytes; `done(time_s)` is called when the last one has arrived. Returns the wire's name."""
        path = self._path(source, target)

        def drained(then: float) -> None:
            if path.latency_s:
                self._at(then + path.latency_s, done)
            else:
                done(then)

        def flow(then: float) -> None:
            self.network.start(path, size, then, drained)
            self._plan()

        if path.setup_s:
            self._at(now + path.setup_s, flow)
        else:
            flow(now)
        return path.name

    def _plan(self) -> None:
        when = self.network.next_event_s()
        if when != self._wake:
            self._wake = when
            if when != float("inf"):
                self._at(when, self._moved)

    def _moved(self, now: float) -> None:
        if self._wake != now:
            return  # planned before another transfer changed the rates
        self._wake = -1.0
        self.network.advance(now)
        self._plan()

    def _wire(self, source: WorkerPlace, target: WorkerPlace) -> Wire:
        if source.node == target.node:
            return self._wires.intra_node
        return self._wires.inter_node if source.rack == target.rack else self._wires.inter_rack

    def _path(self, source: WorkerPlace, target: WorkerPlace) -> Path:
        key = (source.name, target.name)
        path = self._paths.get(key)
        if path is None:
            wire = self._wire(source, target)
            resources = [f"{source.name}>{wire.name}", f"{wire.name}>{target.name}"]
            if source.node != target.node:
                resources += [f"{source.node}>uplink", f"uplink>{target.node}"]
            path = Path(wire.name, tuple(resources), wire.setup_s, wire.latency_s, wire.sharing == "fifo")
            self._paths[key] = path
        return path

    def _capacities(self, prefill: Pool, decode: Pool) -> dict[str, float]:
        """Bytes a second of every port and uplink. A worker has one port of each wire for each of its GPUs."""
        capacity: dict[str, float] = {}
        for source in prefill.workers:
            for target in decode.workers:
                wire = self._wire(source, target)
                capacity[f"{source.name}>{wire.name}"] = wire.bandwidth * prefill.tp
                capacity[f"{wire.name}>{target.name}"] = wire.bandwidth * decode.tp
                for node in (source.node, target.node):
                    nic = self._wires.nic.get(node, float("inf"))
                    capacity[f"{node}>uplink"] = capacity[f"uplink>{node}"] = nic
        return capacity
