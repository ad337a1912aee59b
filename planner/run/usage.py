"""How much of the workers, KV caches, links and retrieval a run uses, over its steady window (`Facts.in_use`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.messages import message
from planner.run.columns import by_worker, equal
from planner.run.facts import Array, Facts, Mask, growth
from planner.spec import Retrieval
from planner.system.hand_over import post_work


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """One engine. None: the run holds no steps (and no samples) of it."""

    name: str
    role: str
    utilization: float | None  # share of the time in engine steps
    prefill_time_share: float | None  # share of the busy time in steps with prompt tokens
    blocked_share: float | None  # share of the time in steps that take no prompt although some wait: no slot or no KV
    decode_seqs_mean: float | None  # batch of the steps, by time
    kv_used_mean: float | None
    kv_used_max: float | None


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Workers of one role: means over them, and the largest KV use of any."""

    role: str
    workers: int
    gpus: int
    utilization: float | None
    prefill_time_share: float | None
    blocked_share: float | None
    decode_seqs_mean: float | None
    kv_used_mean: float | None
    kv_used_max: float | None


@dataclass(frozen=True, slots=True)
class LinkUse:
    """One port of a worker or uplink of a node. Above 1, `offered` says that it cannot keep up."""

    name: str
    bandwidth_bytes_s: float
    transfers: int
    bytes: int
    carried_bytes_s: float  # bytes of all transfers / time from the first one's start to the last one's end
    offered_bytes_s: float  # bytes of all transfers / sending time
    utilization: float
    offered: float
    transfer_mean_s: float


@dataclass(frozen=True, slots=True)
class Posting:
    """What a pool does to hand KV over: its workers post every piece of a transfer inside their steps."""

    role: str
    share: float  # of the time of its workers, over the steady window
    descriptors: float  # a transfer, mean
    block_size: int  # tokens


def posting(facts: Facts) -> Posting | None:
    """None where the run does not say what posting costs, or hands nothing over in the steady window."""
    known = facts.manifest.get("posting")
    window = facts.in_use
    if not known or not len(facts.transfers) or not window.length_s > 0:
        return None
    start, size = (facts.transfers.floats(name) for name in ("start_s", "bytes"))
    inside = (start >= window.start_s) & (start <= window.end_s)
    if not inside.any():
        return None
    blocks = np.ceil(size[inside] / known["block_bytes"])
    descriptors = blocks * known["block_descriptors"]
    count = sum(role == known["role"] for role in (facts.manifest.get("workers") or {}).values())
    sizes, times = np.unique(descriptors, return_counts=True)
    work = sum(often * post_work(pieces) for pieces, often in zip(sizes.tolist(), times.tolist(), strict=True))
    share = work * known["post_s"] / (max(count, 1) * window.length_s)
    return Posting(known["role"], share, float(descriptors.mean()), known["block_size"])


def workers(facts: Facts) -> tuple[WorkerUse, ...]:
    """Use of every worker of the manifest, in its order."""
    return facts.once(_workers)


def _workers(facts: Facts) -> tuple[WorkerUse, ...]:
    roles: dict[str, str] = facts.manifest.get("workers") or {}
    steps, window = facts.run.columns("steps"), facts.in_use
    if not len(steps) or not window.length_s > 0:
        return tuple(_sampled_worker(facts, name, role) for name, role in roles.items())
    codes, names = by_worker(steps)
    start, duration, prefill, decode, waiting = (
        steps.floats(name) for name in ("start_s", "duration_s", "prefill_tokens", "decode_seqs", "waiting")
    )
    kv = steps.floats("kv_used_fraction")
    inside = window.overlap(start, start + duration)

    def total(weights: Array) -> Array:
        return np.bincount(codes, weights=weights, minlength=len(names)).astype(np.float64)

    busy, has_prompt = total(inside), prefill > 0
    prompts = total(inside * has_prompt)
    blocked = total(inside * (~has_prompt & (waiting > 0)))
    batch, used = total(inside * decode), total(inside * np.nan_to_num(kv))
    highest = np.zeros(len(names))
    np.maximum.at(highest, codes, np.where(inside > 0, np.nan_to_num(kv), 0.0))
    kv_known = not bool(np.isnan(kv).all())
    place = {name: index for index, name in enumerate(names)}

    def use(name: str, role: str) -> WorkerUse:
        index = place.get(name)
        if index is None or not busy[index] > 0:  # no step in the window: idle
            return WorkerUse(name, role, 0.0, None, 0.0, None, 0.0 if kv_known else None, 0.0 if kv_known else None)
        time = float(busy[index])
        return WorkerUse(
            name=name,
            role=role,
            utilization=min(time / window.length_s, 1.0),
            prefill_time_share=float(prompts[index]) / time,
            blocked_share=float(blocked[index]) / window.length_s,
            decode_seqs_mean=float(batch[index]) / time,
            kv_used_mean=float(used[index]) / time if kv_known else None,
            kv_used_max=float(highest[index]) if kv_known else None,
        )

    return tuple(use(name, role) for name, role in (roles or dict.fromkeys(names, "aggregated")).items())


def carried_per_s(facts: Facts, role: str) -> float | None:
    """Requests a second that a pool does the work of, by its steps: their prompt tokens or decodes, whichever are more.

    Requests that finish say less: none does while a system fills.
    """
    steps, window = facts.run.columns("steps"), facts.in_use
    roles = facts.manifest.get("workers") or {}
    if not len(steps) or not window.length_s > 0 or not facts.ok.any():
        return None
    codes, names = by_worker(steps)
    mine = np.array([roles.get(name, "aggregated") == role for name in names])[codes]
    start, duration, count, prompts, decodes = (
        steps.floats(name) for name in ("start_s", "duration_s", "count", "prefill_tokens", "decode_seqs")
    )
    part = np.where(mine & (duration > 0), window.overlap(start, start + duration) / np.maximum(duration, 1e-12), 0.0)
    computed = (facts.prompt_tokens - np.nan_to_num(facts.column("cached_tokens")))[facts.ok].mean()
    decoded = (facts.output_tokens - 1)[facts.ok].mean()
    rates = [
        float((part * count * tokens).sum()) / (window.length_s * each)
        for tokens, each in ((prompts, computed), (decodes, decoded))
        if each > 0
    ]
    return max(rates, default=None)


def _sampled_worker(facts: Facts, name: str, role: str) -> WorkerUse:
    """A worker without steps, from its samples: what they can show is its KV cache."""
    samples = facts.run.columns("samples")
    kv = samples.floats("kv_used_fraction")
    kv = kv[equal(samples.texts("worker"), name) & ~np.isnan(kv)]
    mean, most = (float(kv.mean()), float(kv.max())) if len(kv) else (None, None)
    return WorkerUse(name, role, None, None, None, None, mean, most)


def pools(facts: Facts) -> tuple[PoolUse, ...]:
    """Use of each role, in the order of the manifest's workers."""
    by_role: dict[str, list[WorkerUse]] = {}
    for worker in workers(facts):
        by_role.setdefault(worker.role, []).append(worker)
    gpus: dict[str, int] = facts.manifest.get("gpus_by_role") or {}

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return tuple(
        PoolUse(
            role=role,
            workers=len(members),
            gpus=int(gpus.get(role, 0)),
            utilization=mean([member.utilization for member in members]),
            prefill_time_share=mean([member.prefill_time_share for member in members]),
            blocked_share=mean([member.blocked_share for member in members]),
            decode_seqs_mean=mean([member.decode_seqs_mean for member in members]),
            kv_used_mean=mean([member.kv_used_mean for member in members]),
            kv_used_max=max((member.kv_used_max for member in members if member.kv_used_max is not None), default=None),
        )
        for role, members in by_role.items()
    )


def links(facts: Facts) -> tuple[LinkUse, ...]:
    """Use of every link of the manifest that moved something."""
    return facts.once(_links)


def _links(facts: Facts) -> tuple[LinkUse, ...]:
    """A wire's bandwidth is that of one GPU's port, so a worker has an outgoing and an incoming port of tp times it.

    Transfers that leave a node also share its uplink (manifest: `nodes` {worker: node}, `uplinks` {node: bytes/s}).
    """
    table = facts.transfers
    wires: dict[str, float] = facts.manifest.get("links") or {}
    if not len(table) or not wires:
        return ()
    ports: dict[str, tuple[float, Mask]] = {}  # name -> (bytes a second, its transfers)
    wire, source, target = (table.texts(column) for column in ("link", "source", "target"))
    for name, bandwidth in wires.items():
        for ends, way in ((source, message("out of")), (target, message("into"))):
            for worker in dict.fromkeys(ends[wire == name]):
                capacity = float(bandwidth) * _gpus_per_worker(facts, worker)
                port = message("{link} {way} {worker}", name, way, worker)
                ports[port] = capacity, (wire == name) & (ends == worker)
    nodes: dict[str, str] = facts.manifest.get("nodes") or {}
    leaves = np.array([nodes.get(one) != nodes.get(other) for one, other in zip(source, target, strict=True)])
    for node, bandwidth in (facts.manifest.get("uplinks") or {}).items():
        for ends, way in ((source, message("out of")), (target, message("into"))):
            mine = leaves & np.array([nodes.get(worker) == node for worker in ends])
            if mine.any() and np.isfinite(bandwidth):
                ports[message("uplink {way} {node}", way, node)] = float(bandwidth), mine
    size, start, end = (table.floats(column) for column in ("bytes", "start_s", "end_s"))
    length = end - start
    n = len(facts.arrival)
    span = float(facts.arrival[-1] - facts.arrival[0])
    # n requests have n - 1 gaps; all sent at once, they are offered over the whole run
    sending = span * n / (n - 1) if span > 0 else facts.base.length_s

    def use(name: str, capacity: float, mine: Mask) -> LinkUse:
        total = float(size[mine].sum())
        active = float(end[mine].max() - start[mine].min())
        carried = total / active if active > 0 else 0.0
        offered = total / sending if sending > 0 else 0.0
        return LinkUse(
            name=name,
            bandwidth_bytes_s=capacity,
            transfers=int(mine.sum()),
            bytes=int(size[mine].sum()),
            carried_bytes_s=carried,
            offered_bytes_s=offered,
            utilization=carried / capacity,
            offered=offered / capacity,
            transfer_mean_s=float(length[mine].mean()),
        )

    return tuple(use(name, *port) for name, port in ports.items())


def _gpus_per_worker(facts: Facts, worker: str) -> float:
    roles: dict[str, str] = facts.manifest.get("workers") or {}
    gpus: dict[str, int] = facts.manifest.get("gpus_by_role") or {}
    role = roles.get(worker)
    members = sum(other == role for other in roles.values())
    return gpus[role] / members if role in gpus and members else 1.0


def retrieval_workers(facts: Facts) -> int:
    """Workers that retrieve; 0 without retrieval. Each prefill worker has its own when it retrieves itself."""
    raw = facts.spec.get("retrieval")
    if raw is None:
        return 0
    retrieval = Retrieval.model_validate(raw)
    roles: dict[str, str] = facts.manifest.get("workers") or {}
    stations = sum(role != "decode" for role in roles.values()) if retrieval.at == "prefill_worker" else 1
    return retrieval.workers * max(stations, 1)


def retrieval_utilization(facts: Facts) -> float | None:
    """Share of the steady window that the retrieval workers are busy."""
    count, window = retrieval_workers(facts), facts.in_use
    if not count or not window.length_s > 0:
        return None
    busy = window.overlap(facts.column("retrieval_start_s"), facts.column("retrieval_end_s"))
    return float(busy.sum()) / (count * window.length_s)


def stage_growth(facts: Facts) -> dict[str, float]:
    """Growth per second of the number of requests that wait in each stage: which line is it that grows?"""
    at = {
        name: facts.column(f"{name}_s")
        for name in ("queued", "prefill_start", "prefill_end", "transfer_start", "transfer_end", "decode_start")
    }
    window, over = facts.growing, facts.finish
    found = {}
    entered, left = facts.shared_queue
    if facts.spec.get("retrieval") is not None:
        ends = facts.column("retrieval_end_s")
        begins = np.where(entered <= ends, left, facts.arrival)  # a worker retrieves once it has taken the request
        found["retrieval"] = growth(begins, np.fmin(ends, over), window)
    found["queue"] = growth(at["queued"], np.fmin(at["prefill_start"], over), window)
    if not np.isnan(entered).all():
        found["queue"] += growth(entered, np.fmin(left, over), window)
    remote = ~facts.local & ~np.isnan(at["prefill_end"])
    if remote.any() and (facts.spec.get("deployment") or {}).get("mode") == "disaggregated":
        moved = np.fmin(at["transfer_start"], at["decode_start"])
        waits = np.where(remote, at["prefill_end"], np.nan)
        found["transfer"] = growth(at["transfer_start"], np.fmin(at["transfer_end"], over), window)
        found["decode_wait"] = growth(waits, np.fmin(moved, over), window)
    return found
