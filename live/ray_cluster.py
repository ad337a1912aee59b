"""Servers on the nodes of a Ray cluster that exists: one actor a worker, placed as the spec says.

Each node of the spec is one bundle of a placement group, on a node of its own; a worker's actor starts its server below
the same watchdog as on one host. When the driver dies Ray ends the actors, and their watchdogs end the servers. Logs,
step traces and exit codes come home with `refresh`. This package must be installed on every node.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from live.launch import LiveError, Ports, Runtime, check, detect, server_command, server_environment
from live.models import ServedModel
from live.server_log import NODE_LOST
from live.server_process import HOST, ServerProcess, free_ports
from live.servers import Servers, check_memory
from planner.spec import SpecError
from planner.system.resolve import Pool, System, WorkerPlace

PLACEMENT_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 60.0
START_TIMEOUT_S = 900.0  # how busy the other hosts are is not known here
CLOCK_PROBES = 5
MOST_PIECE = 2**24  # bytes of a log or trace in one answer of a node


class NodeServer:
    """What runs on a node, as a Ray actor: finds out what is there, starts one server, hands its files over."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="planner-node-"))
        self._process: ServerProcess | None = None

    def look(self) -> tuple[str, Runtime, list[int]]:
        """(this node's address, what runs servers here, GPUs that Ray gave to this actor)."""
        import ray

        gpus = [int(one) for one in ray.get_gpu_ids()]
        return ray.util.get_node_ip_address(), detect(), gpus

    def clock(self) -> float:
        return time.monotonic()

    def start(
        self,
        system: System,
        pool: Pool,
        model_of: Callable[[], ServedModel],
        host: str,
        options: dict[str, Any],  # gpus, kv_events, extra, wire, traced, token
    ) -> tuple[Ports, int]:
        """Start the server; returns its ports and process id."""
        runtime, model = detect(), model_of()
        ports = Ports(*free_ports(3, host))
        command = server_command(
            system, pool, runtime, model, ports, host=host, kv_events=options["kv_events"], extra=options["extra"]
        )
        trace = self._folder / "steps.jsonl" if options["traced"] else None
        gpus = tuple(options["gpus"])
        environment = server_environment(runtime, model, gpus, ports, trace, wire=options["wire"], host=host)
        if options["token"]:
            environment["VLLM_API_KEY"] = options["token"]
        self._process = ServerProcess(command, environment, self._folder / "log")
        return ports, self._process.pid

    def read(self, log_from: int, trace_from: int) -> tuple[int | None, bytes, bytes]:
        """(exit code, what log and trace have beyond these positions)."""
        code = self._process.returncode if self._process else None  # first, so that the files are whole when it is set
        return code, _rest(self._folder / "log", log_from), _rest(self._folder / "steps.jsonl", trace_from)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()


def _rest(path: Path, position: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(position)
        return file.read(MOST_PIECE)


class RemoteServer:
    """A server on another node, with its log and trace copied here. A node that is lost counts as exit code -1."""

    def __init__(self, name: str, pool: Pool, actor: Any, host: str, log: Path, trace: Path | None) -> None:
        self.name, self.pool, self.host, self.log, self.trace = name, pool, host, log, trace
        self.ports = Ports(0, 0, 0)
        self.pid = 0
        self.gpus: tuple[int, ...] = ()  # NVML watches this host's only
        self.clock_offset_s = 0.0
        self.returncode: int | None = None
        self.actor = actor
        self._read = [0, 0]
        log.write_bytes(b"")
        if trace is not None:
            trace.write_bytes(b"")

    def stopped(self) -> bool:
        """Cannot be seen from here; the frontend notices that it falls silent."""
        return False

    async def refresh(self) -> None:
        import ray

        if self.returncode is not None:
            return
        more = True
        while more:
            try:
                code, log, trace = await asyncio.wait_for(self.actor.read.remote(*self._read), CALL_TIMEOUT_S)
            except (ray.exceptions.RayError, TimeoutError) as error:
                code, trace = NODE_LOST, b""
                log = f"\nNodeError: its node or actor is lost ({type(error).__name__})\n".encode()
            for index, (path, piece) in enumerate(((self.log, log), (self.trace, trace))):
                if path is not None and piece:
                    with path.open("ab") as file:
                        file.write(piece)
                    self._read[index] += len(piece)
            more = max(len(log), len(trace)) == MOST_PIECE
        self.returncode = code

    async def align_clock(self) -> None:
        """The offset of the quickest of a few questions: the answer was made about half-way."""
        best = None
        for _ in range(CLOCK_PROBES):
            asked = time.monotonic()
            there = await self.actor.clock.remote()
            answered = time.monotonic()
            if best is None or answered - asked < best[0]:
                best = (answered - asked, (asked + answered) / 2 - there)
        assert best is not None
        # Processes of one host share the clock: what is left is the way to ask.
        self.clock_offset_s = best[1] if abs(best[1]) > best[0] / 2 else 0.0

    async def stop(self) -> None:
        import ray

        try:
            await asyncio.wait_for(self.actor.stop.remote(), CALL_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError):
            pass  # lost with its node: the watchdog there ends the server
        ray.kill(self.actor)


class RayServers(Servers):
    """As Servers, on a Ray cluster. `address` is Ray's own ("auto": the cluster that this host belongs to).

    `make_model` makes the served model; it is called on every node. Servers on addresses beyond loopback need a
    `token`, which clients of theirs must send.
    """

    can_restart = False  # its node may be gone

    def __init__(
        self,
        system: System,
        folder: Path,
        make_model: Callable[[], ServedModel],
        *,
        address: str = "auto",
        kv_events: bool = False,
        extra: tuple[str, ...] = (),
        token: str | None = None,
        start_timeout_s: float | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        runtime = Runtime("cpu", "0", "unknown", "?", None)  # until a node says what it has
        super().__init__(
            system,
            runtime,
            make_model(),
            folder,
            kv_events=kv_events,
            extra=extra,
            progress=progress,
            start_timeout_s=start_timeout_s or START_TIMEOUT_S,
        )
        self._address, self._make_model, self._token = address, make_model, token
        self._group: Any = None
        self._bundles = 1
        self._owns_connection = False

    async def _start_all(self) -> None:
        import ray

        if not ray.is_initialized():
            _reachable(self._address)
            try:
                ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                raise no_cluster(self._address, error) from None
            self._owns_connection = True
        places = [(pool, place) for pool in self.system.pools for place in pool.servers]
        nodes = list(dict.fromkeys(place.node for _, place in places))
        self._bundles = len(nodes)
        self._group = await self._reserve(places, nodes)
        servers = [await self._place(pool, place, nodes.index(place.node)) for pool, place in places]
        self._running += servers
        views = [await one.actor.look.remote() for one in servers]
        self.runtime = views[0][1]
        check(self.system, self.runtime, gpus=sum(len(gpus) for _, _, gpus in views))
        check_memory(self.system, self.runtime)
        here = ray.util.get_node_ip_address()
        alone = all(host == here for host, _, _ in views)  # every node is this host: nobody else need reach them
        for server, (host, _, gpus) in zip(servers, views, strict=True):
            await self._start_on(server, HOST if alone else host, gpus)

    async def _reserve(self, places: list[tuple[Pool, WorkerPlace]], nodes: list[str]) -> Any:
        """One bundle for each node of the spec."""
        from ray.util.placement_group import placement_group

        gpu = self.system.pools[0].hardware.kind == "gpu"
        bundles = []
        for node in nodes:
            here = [pool for pool, place in places if place.node == node]
            bundle = {"CPU": float(len(here))}
            bundles.append(bundle | ({"GPU": float(sum(pool.tp * pool.dp for pool in here))} if gpu else {}))
        group = placement_group(bundles, strategy="STRICT_SPREAD" if len(nodes) > 1 else "STRICT_PACK")
        try:
            await asyncio.wait_for(group.ready(), PLACEMENT_TIMEOUT_S)
        except TimeoutError:
            import ray

            there = [f"{one.get('CPU', 0):.0f} CPUs {one.get('GPU', 0):.0f} GPUs" for one in _free_nodes(ray)]
            raise LiveError(
                "the Ray cluster has no room for {nodes} nodes with {bundles}; its nodes: {there}",
                len(nodes),
                bundles,
                "; ".join(there),
            ) from None
        return group

    async def _place(self, pool: Pool, place: WorkerPlace, bundle: int) -> RemoteServer:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)
        gpus = pool.tp * pool.dp if pool.hardware.kind == "gpu" else 0
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        actor = (
            ray.remote(NodeServer)
            .options(
                num_cpus=1, num_gpus=gpus, scheduling_strategy=strategy, runtime_env={"env_vars": {"PYTHONPATH": path}}
            )
            .remote()
        )
        log = self.folder / f"{place.name}.log"
        return RemoteServer(place.name, pool, actor, "", log, self.folder / f"{place.name}.steps.jsonl")

    async def _start_on(self, server: RemoteServer, host: str, gpus: list[int]) -> None:
        if host != HOST and self._token is None:
            raise SpecError("--cluster ray: servers on {host} can be reached from elsewhere; give a --token", host)
        if self.trace_of(server.name) is None or server.pool.dp > 1:  # one file comes home, and ranks have one each
            server.trace = None
        wires = self.system.wires
        options = {
            "gpus": gpus,
            "kv_events": self._kv_events,
            "extra": self._extra,
            "wire": (wires.intra_node if self._bundles == 1 else wires.inter_node).name if wires else None,
            "traced": server.trace is not None,
            "token": self._token,
        }
        server.host = host
        started = server.actor.start.remote(self.system, server.pool, self._make_model, host, options)
        server.ports, server.pid = await started
        await server.align_clock()

    async def stop(self) -> None:
        await super().stop()
        import ray

        if self._group is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(self._group)
            self._group = None
        if self._owns_connection:
            ray.shutdown()
            self._owns_connection = False


def no_cluster(address: str, error: Exception) -> LiveError:
    return LiveError("no Ray cluster at {address!r}: {error}; start one with `ray start --head`", address, error)


def _reachable(address: str) -> None:
    """Ray itself tries for minutes. Raises LiveError when nobody listens at an address that has a port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise no_cluster(address, error) from None


def _free_nodes(ray: Any) -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
