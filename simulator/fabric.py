"""The wires between workers: which ports and uplinks a KV transfer occupies, and when it ends.

A transfer is a chain of stages, each a flow over shared resources: with `staging: host` a copy down the sender's PCIe
before the wire and one up the receiver's after it; with compression the sender's and the receiver's codecs around all.
"""

from __future__ import annotations

from functools import partial

from planner.spec.optimizations import Compression
from planner.system.knobs import PCIE_EFFICIENCY
from planner.system.resolve import Pool, System, Wire, WorkerPlace
from simulator.clock import NEVER, Action, Call, Clock
from simulator.link import Network, Path


class _Start(Call):
    """A flow begins: its set-up is over."""

    __slots__ = ("_done", "_fabric", "_path", "_size")

    def __init__(self, fabric: Fabric, path: Path, size: int, done: Action) -> None:
        self._fabric, self._path, self._size, self._done = fabric, path, size, done

    def happen(self, now: float) -> None:
        self._fabric.start(self._path, self._size, self._done, now)


class _Drained(Call):
    """The last byte is on the wire; it arrives `latency_s` later."""

    __slots__ = ("_clock", "_done", "_latency_s")

    def __init__(self, clock: Clock, latency_s: float, done: Action) -> None:
        self._clock, self._latency_s, self._done = clock, latency_s, done

    def happen(self, now: float) -> None:
        self._clock.at(now + self._latency_s, self._done)


class _Moved(Call):
    """The next transfer ends."""

    __slots__ = ("_fabric",)

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    def happen(self, now: float) -> None:
        self._fabric.moved(now)


class Fabric:
    """All transfers of a cluster, on its clock.

    `both_ways`: any worker may send to any other, because roles change.
    """

    def __init__(self, system: System, clock: Clock, both_ways: bool = False) -> None:
        assert system.wires is not None, "an aggregated deployment has no KV transfers"
        self._wires = system.wires
        self._clock = clock
        self._paths: dict[tuple[str, str], Path] = {}
        self._wake = NEVER
        prefill, decode = system.pools
        knobs = system.spec.optimizations.transfer
        self._staged = knobs.staging == "host"
        self._compression = knobs.compression
        self._on_wire: dict[Path, int] = {}  # transfers from their start to the last byte off the wire
        self.network = Network(self._capacities(prefill, decode, both_ways))
        self.block_bytes = system.kv_bytes_per_token * decode.limits.block_size

    def send(self, source: WorkerPlace, target: WorkerPlace, size: int, now: float, done: Action) -> tuple[str, int]:
        """Move `size` bytes; `done(time_s)` is called when the last one has arrived. Returns (wire, bytes on it)."""
        path = self._path(source, target)
        codec = self._codec(path)
        on_wire = size if codec is None else int(size / codec.ratio)
        before, after = [], []
        if codec is not None:
            before.append((Path("codec", (f"{source.name}>codec",), 0.0, 0.0, True), size))
            after.append((Path("codec", (f"codec>{target.name}",), 0.0, 0.0, True), size))
        if self._staged:
            before.append((Path("pcie", (f"{source.name}>pcie",), 0.0, 0.0, False), on_wire))
            after.insert(0, (Path("pcie", (f"pcie>{target.name}",), 0.0, 0.0, False), on_wire))
        if not before and self._compression is None:
            self._flow(path, on_wire, now, done)
            return path.name, on_wire
        self._on_wire[path] = self._on_wire.get(path, 0) + 1
        self._chain([*before, (path, on_wire)], now, partial(self._left, path, after, done))
        return path.name, on_wire

    def _left(self, path: Path, after: list[tuple[Path, int]], done: Action, now: float) -> None:
        self._on_wire[path] -= 1
        self._chain(after, now, done)

    def _codec(self, path: Path) -> Compression | None:
        """Compression, when enough transfers are on this path already."""
        codec = self._compression
        return codec if codec is not None and self._on_wire.get(path, 0) >= codec.queue else None

    def _chain(self, stages: list[tuple[Path, int]], now: float, done: Action) -> None:
        """One stage after the other."""
        if not stages:
            done(now)
            return
        (path, size), *rest = stages
        self._flow(path, size, now, lambda then: self._chain(rest, then, done))

    def _flow(self, path: Path, size: int, now: float, done: Action) -> None:
        if path.setup_s:
            self._clock.at(now + path.setup_s, _Start(self, path, size, done))
        else:
            self.start(path, size, done, now)

    def start(self, path: Path, size: int, done: Action, now: float) -> None:
        """Bytes begin to flow."""
        self.network.start(path, size, now, _Drained(self._clock, path.latency_s, done) if path.latency_s else done)
        self._plan()

    def _plan(self) -> None:
        when = self.network.next_event_s()
        if when != self._wake:
            self._wake = when
            if when != NEVER:
                self._clock.at(when, _Moved(self))

    def moved(self, now: float) -> None:
        """Transfers that end at `now` are over."""
        if self._wake != now:
            return  # planned before another transfer changed the rates
        self._wake = -1.0
        self.network.advance(now)
        self._plan()

    def wire(self, source: WorkerPlace, target: WorkerPlace) -> Wire:
        if source.node == target.node:
            return self._wires.intra_node
        return self._wires.inter_node if source.rack == target.rack else self._wires.inter_rack

    def _path(self, source: WorkerPlace, target: WorkerPlace) -> Path:
        key = (source.name, target.name)
        path = self._paths.get(key)
        if path is None:
            wire = self.wire(source, target)
            resources = [f"{source.name}>{wire.name}", f"{wire.name}>{target.name}"]
            if source.node != target.node:
                resources += [f"{source.node}>uplink", f"uplink>{target.node}"]
            path = Path(wire.name, tuple(resources), wire.setup_s, wire.latency_s, wire.sharing == "fifo")
            self._paths[key] = path
        return path

    def _capacities(self, prefill: Pool, decode: Pool, both_ways: bool) -> dict[str, float]:
        """Bytes a second of every port and uplink. A worker has one port of each wire for each of its GPUs."""
        capacity: dict[str, float] = {}
        directions = [(prefill, decode), (decode, prefill), (prefill, prefill), (decode, decode)]
        for one, other in directions if both_ways else directions[:1]:
            for source in one.workers:
                for target in other.workers:
                    wire = self.wire(source, target)
                    capacity[f"{source.name}>{wire.name}"] = wire.bandwidth * one.tp
                    capacity[f"{wire.name}>{target.name}"] = wire.bandwidth * other.tp
                    for node in (source.node, target.node):
                        nic = self._wires.nic.get(node, float("inf"))
                        capacity[f"{node}>uplink"] = capacity[f"uplink>{node}"] = nic
        for pool in (prefill, decode):
            for worker in pool.workers:
                capacity |= self._own(worker, pool)
        return capacity

    def _own(self, worker: WorkerPlace, pool: Pool) -> dict[str, float]:
        """What a worker has for itself: PCIe in both directions and, when KV is compressed, its codecs."""
        pcie = pool.hardware.pcie_gb_s * 1e9 * PCIE_EFFICIENCY * pool.tp
        own = {f"{worker.name}>pcie": pcie, f"pcie>{worker.name}": pcie}
        if self._compression is not None:
            own[f"{worker.name}>codec"] = self._compression.compress_gb_s * 1e9 * pool.tp
            own[f"codec>{worker.name}"] = self._compression.expand_gb_s * 1e9 * pool.tp
        return own
