"""Where workers stand: which GPUs of which node. A worker's GPUs are always on one node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from planner.engine.catalogue import Hardware
from planner.messages import joined, message
from planner.spec import ClusterNode, SpecError


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One worker and where it stands."""

    name: str  # aggregated-0, prefill-1, decode-0
    node: str
    rack: str
    gpus: tuple[int, ...]  # indices within the node
    server: str = ""  # of the ranks of one server, its name; else empty


@dataclass(frozen=True, slots=True)
class Demand:
    """Workers to place: `key` is the pool's YAML key, for errors."""

    role: str
    key: str
    replicas: int
    tp: int
    hardware: Hardware
    placement: Literal["pack", "spread"]
    dp: int = 1  # ranks of a worker, each with `tp` GPUs on one node


@dataclass(slots=True)
class Host:
    """A node with GPUs to give away."""

    name: str
    rack: str
    hardware: str
    gpus: int
    nic_gb_s: float  # uplink of the whole node
    used: int = 0
    roles: dict[str, int] = field(default_factory=dict)  # workers of each role

    @property
    def free(self) -> int:
        return self.gpus - self.used

    def take(self, role: str, tp: int, index: int, rank: int | None = None) -> WorkerPlace:
        gpus = tuple(range(self.used, self.used + tp))
        self.used += tp
        self.roles[role] = self.roles.get(role, 0) + 1
        name = f"{role}-{index}"
        if rank is None:
            return WorkerPlace(name, self.name, self.rack, gpus)
        return WorkerPlace(f"{name}-rank-{rank}", self.name, self.rack, gpus, name)


def given_hosts(nodes: Sequence[ClusterNode], default: Hardware, known: dict[str, Hardware]) -> list[Host]:
    """The hosts of `cluster.nodes`; `known` maps their hardware names to entries. Raises SpecError for equal names."""
    names = [node.name for node in nodes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SpecError(
                "cluster.nodes[{index}].name: {name!r} is given twice; allowed: one name a node", index, name
            )
    hosts = []
    for node in nodes:
        hardware = known[node.hardware] if node.hardware else default
        nic = node.nic_gb_s if node.nic_gb_s is not None else hardware.nic_gb_s * node.gpus
        hosts.append(Host(node.name, node.rack, hardware.name, node.gpus, nic))
    return hosts


def _choose(hosts: list[Host], demand: Demand, gpus: int) -> Host | None:
    fitting = [host for host in hosts if host.hardware == demand.hardware.name and host.free >= gpus]
    if not fitting:
        return None
    if demand.placement == "pack":
        return fitting[0]
    return min(fitting, key=lambda host: (host.roles.get(demand.role, 0), -host.free))


def place_on(hosts: list[Host], demands: Sequence[Demand]) -> list[tuple[WorkerPlace, ...]]:
    """Workers of each demand on given hosts. Raises SpecError naming the GPUs that are missing."""
    placed = []
    for demand in demands:
        workers = []
        for index in range(demand.replicas):
            ranks = _take(hosts, demand, index)
            if ranks is None:
                raise _too_small(hosts, demand, demand.replicas - index)
            workers += ranks
        placed.append(tuple(workers))
    return placed


def _take(hosts: list[Host], demand: Demand, index: int) -> list[WorkerPlace] | None:
    """The place of one worker. None: there is none.

    Ranks stand on one node where a node can hold them all, else on as few whole nodes as hold them.
    """
    tp, dp = demand.tp, demand.dp
    if dp == 1:
        host = _choose(hosts, demand, tp)
        return None if host is None else [host.take(demand.role, tp, index)]
    most = max((host.gpus for host in hosts if host.hardware == demand.hardware.name), default=0) // tp
    ranks: list[WorkerPlace] = []
    while len(ranks) < dp and most:
        part = min(dp - len(ranks), most)
        host = _choose(hosts, demand, part * tp)
        if host is None:
            return None
        ranks += [host.take(demand.role, tp, index, rank) for rank in range(len(ranks), len(ranks) + part)]
    return ranks if len(ranks) == dp else None


def _too_small(hosts: list[Host], demand: Demand, left: int) -> SpecError:
    free = {host.name: host.free for host in hosts if host.hardware == demand.hardware.name}
    there = joined(", ", [message("{count} on {node}", count, name) for name, count in free.items()]) or message(
        "no {gpu} node", demand.hardware.name
    )
    return SpecError(
        "cluster.nodes: {left} of {replicas} {role} workers have no place: each needs {tp} free "
        "{name} GPUs on one node, free are {there}; allowed: {more} more GPUs, or fewer replicas",
        left,
        demand.replicas,
        demand.role,
        demand.tp * demand.dp,
        demand.hardware.name,
        there,
        left * demand.tp * demand.dp,
    )


def place_freely(demands: Sequence[Demand], gpus_per_node: int) -> tuple[list[Host], list[tuple[WorkerPlace, ...]]]:
    """As few nodes of `gpus_per_node` as hold everything, in one rack. Raises SpecError when a worker spans nodes."""
    for demand in demands:
        if demand.tp > gpus_per_node:
            raise SpecError(
                "{key}.tp: {tp} exceeds gpus_per_node {gpus_per_node} (a worker stays on one node); allowed: "
                "up to {gpus_per_node}",
                demand.key,
                demand.tp,
                gpus_per_node,
            )
    counts: dict[str, int] = {}
    entries = {demand.hardware.name: demand.hardware for demand in demands}
    for name in entries:
        gpus = sum(demand.replicas * demand.tp * demand.dp for demand in demands if demand.hardware.name == name)
        counts[name] = -(-gpus // gpus_per_node)
    while True:
        hosts: list[Host] = []
        for name, count in counts.items():
            uplink = entries[name].nic_gb_s * gpus_per_node
            hosts += [Host(f"node-{len(hosts) + i}", "rack-0", name, gpus_per_node, uplink) for i in range(count)]
        short = next((demand for demand in demands if not _fits(hosts, demand)), None)
        if short is None:
            break
        counts[short.hardware.name] += 1  # odd tp sizes leave holes
    fresh = [Host(host.name, host.rack, host.hardware, host.gpus, host.nic_gb_s) for host in hosts]
    return fresh, place_on(fresh, demands)


def _fits(hosts: list[Host], demand: Demand) -> bool:
    """Take the places of one demand; False when there are too few."""
    return all(_take(hosts, demand, index) is not None for index in range(demand.replicas))
