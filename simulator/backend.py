"""The simulator as a backend: runs a cluster and turns its visits into tables."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np

from planner.core import installed, no_cycles
from planner.engine.host_costs import FRONTEND_READS_S, READ_S
from planner.engine.provenance import origin
from planner.run.columns import Columns, Values, by_worker
from planner.run.tables import STEP_COLUMNS, TRANSFER_COLUMNS, Progress, Run, columns
from planner.system.capacity import mean_lengths, pool_rates
from planner.system.hand_over import HandOver
from planner.system.resolve import System
from planner.traffic.loads import Underway
from planner.traffic.requests import Load, warnings_of
from simulator.clock import NOT_YET
from simulator.cluster import SimulatedCluster
from simulator.visits import Visit

MOST_SAMPLES = 100_000  # rows of a run
PACKAGES = ("numpy", "pandas", "pyarrow", "simpy")


class SimulatorBackend:
    """Serves a load on a simulated cluster. `stop` may abandon a run that cannot meet its targets any more."""

    def __init__(self, *, fast_forward: bool = True, stop: Callable[[SimulatedCluster], bool] | None = None) -> None:
        self._fast_forward = fast_forward
        self._stop = stop

    @no_cycles()
    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        record_steps = system.spec.run.step_records
        cluster = SimulatedCluster(
            system, load, fast_forward=self._fast_forward, record_steps=record_steps, stop=self._stop
        )
        visits = cluster.run(progress)
        visits.sort(key=lambda visit: visit.request.request_id)
        steps = _steps(cluster)
        return Run(
            requests=_requests(visits),
            steps=steps,
            samples=_samples(steps, system.spec.run.sample_interval_s),
            transfers=_transfers(cluster),
            manifest=manifest(
                system, [*warnings_of(load), *_extrapolations(cluster)], cluster.stopped, _cross_node(cluster, system)
            )
            | {"highest_rates": _highest_rates(system, visits)}
            | ({"underway": True} if isinstance(load, Underway) else {}),
        )


def _highest_rates(system: System, visits: list[Visit]) -> dict[str, float]:
    """{role: requests per second} for what was served; empty where nothing was."""
    served = [visit for visit in visits if visit.served and visit.finish_reason != "rejected"]
    if not served:
        return {}
    lengths = mean_lengths([visit.request for visit in served])
    cached = sum(visit.cached_tokens for visit in served) / len(served)
    return pool_rates(system, replace(lengths, computed=lengths.prompt - cached), system.spec.slo)


def _extrapolations(cluster: SimulatedCluster) -> list[str]:
    """Where the run left the range that its profiles were measured in. Needs step records."""
    served = (visit.request for visit in cluster.visits if visit.served)
    longest = max((request.prompt_tokens + request.output_tokens for request in served), default=0)
    warnings: list[str] = []
    for pool in cluster.pools:
        steps = [station.engine.steps for station in pool.stations]
        prefill_tokens, batch = (max((int(rows[:, at].max(initial=0)) for rows in steps), default=0) for at in (2, 3))
        warnings += pool.resolved.profile.outside(batch, longest if batch else 0, prefill_tokens)
    return list(dict.fromkeys(warnings))


def _cross_node(cluster: SimulatedCluster, system: System) -> dict[str, int]:
    """KV bytes between nodes, and what choosing decode workers without looking at places would have moved there."""
    nodes = {place.name: place.node for pool in system.pools for place in pool.workers}
    if system.wires is None or len(set(nodes.values())) < 2:
        return {}
    targets = [nodes[place.name] for place in system.pools[-1].workers]
    moved = blind = 0.0
    sent = cluster.transfers
    for source, target, size in zip(sent.source, sent.target, sent.bytes, strict=True):
        moved += size * (nodes[source] != nodes[target])
        blind += size * sum(node != nodes[source] for node in targets) / len(targets)
    return {"bytes": int(moved), "blind_bytes": int(blind), "saved_bytes": int(blind - moved)}


def manifest(
    system: System,
    extrapolations: list[str],
    stopped: bool = False,
    cross_node: dict[str, int] | None = None,
) -> dict[str, Any]:
    """What the run was: enough to repeat it. No wall-clock time, so that equal runs give equal bytes."""
    from planner.spec import dump, spec_hash

    profiles = {pool.role: pool.profile for pool in system.pools}
    wires = system.wires
    return {
        "schema": 1,
        "backend": "simulator",
        "provenance": "calibrated" if all(p.provenance == "calibrated" for p in profiles.values()) else "simulated",
        "origin": origin([pool.profile for pool in system.pools]),
        "spec": system.spec.model_dump(mode="json", by_alias=True),
        "spec_yaml": dump(system.spec),
        "spec_hash": spec_hash(system.spec),
        "seed": system.spec.run.seed,
        "profile": {role: profile.name for role, profile in profiles.items()},
        "profiles_measured": {
            profile.name: {"gpu": measured.gpu, "vllm": measured.vllm}
            for profile in profiles.values()
            if (measured := profile.file.measured if profile.file else None)
        },
        "gpus": system.gpus,
        "gpus_by_role": {pool.role: len(pool.workers) * pool.tp for pool in system.pools},
        "workers": {place.name: pool.role for pool in system.pools for place in pool.workers},
        "nodes": {place.name: place.node for pool in system.pools for place in pool.workers},
        "uplinks": wires.nic if wires else {},
        **({"cross_node": cross_node} if cross_node else {}),
        "kv_blocks": {pool.role: pool.limits.kv_blocks for pool in system.pools},
        "kv_block_tokens": {pool.role: pool.limits.block_size for pool in system.pools},
        "links": {w.name: w.bandwidth for w in (wires.intra_node, wires.inter_node, wires.inter_rack)} if wires else {},
        **posting_costs(system),
        **answer_costs(system),
        "fitted_on": sorted(set().union(*(profile.fitted_hashes for profile in profiles.values()))),
        "warnings": [*system.warnings, *extrapolations],
        "stopped": stopped,
        "versions": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
    }


def posting_costs(system: System) -> dict[str, object]:
    """What posting costs, for the manifest; nothing where it is not known or there are no hand-overs."""
    if system.wires is None or not system.wires.hand_over.post_s or not system.block_descriptors:
        return {}
    hand = system.wires.hand_over
    block_size = next(pool.limits.block_size for pool in system.pools if pool.role == "decode")
    role = "prefill" if hand.push else "decode"
    per_block = system.block_descriptors
    return {
        "posting": {
            "role": role,
            "post_s": hand.post_s,
            "block_size": block_size,
            "block_descriptors": per_block,
            "block_bytes": block_size * system.kv_bytes_per_token,
        }
    }


def answer_costs(system: System) -> dict[str, object]:
    """What API servers do beside handing out tokens, for the manifest; nothing where that is not known."""
    host = system.pools[-1].profile.host
    if not host.response_per_token_s:
        return {}
    hand = system.wires.hand_over if system.wires is not None else HandOver()
    return {
        "answering": {
            "first_token_per_token_s": host.response_per_token_s,
            "request_s": host.work(0),
            "request_per_token_s": host.work(1) - host.work(0),
            "way_s": hand.way_s,
            "way_per_token_s": hand.way_per_token_s,
            "read_s": READ_S,
            "read_every_s": [FRONTEND_READS_S, max(system.spec.run.sample_interval_s, READ_S)],
        }
    }


def _requests(visits: list[Visit]) -> Columns:
    def column(kind: type, values: Iterable[object]) -> Values:
        """Without a list of them in between: there may be millions."""
        return np.fromiter(values, dtype=kind, count=len(visits))

    def floats(name: str) -> Values:
        return column(float, map(attrgetter(name), visits))

    def whole(name: str) -> Values:
        return column(np.int64, map(attrgetter(name), visits))

    return columns(
        "requests",
        {
            "request_id": whole("request.request_id"),
            "session_id": whole("request.session_id"),
            "arrival_s": floats("arrival_s"),
            "prompt_tokens": whole("request.prompt_tokens"),
            "cached_tokens": column(float, (v.cached_tokens if v.served else NOT_YET for v in visits)),
            "output_tokens": column(np.int64, (v.request.output_tokens if _done(v) else 0 for v in visits)),
            "max_tokens": whole("request.max_tokens"),
            "worker": column(object, (v.worker.place.name if v.worker else None for v in visits)),
            "decode_worker": column(object, (v.decode_worker.place.name if v.decode_worker else None for v in visits)),
            "retrieval_start_s": floats("retrieval_start_s"),
            "retrieval_end_s": floats("retrieval_end_s"),
            "shared_queued_s": floats("shared_queued_s"),
            "queued_s": floats("queued_s"),
            "prefill_start_s": floats("prefill_start_s"),
            "prefill_end_s": floats("prefill_end_s"),
            "transfer_start_s": floats("transfer_start_s"),
            "transfer_end_s": floats("transfer_end_s"),
            "decode_start_s": floats("decode_start_s"),
            "first_token_s": floats("first_token_s"),
            "finish_s": floats("finish_s"),
            "preemptions": whole("preemptions"),
            "finish_reason": column(object, map(attrgetter("finish_reason"), visits)),
            "error": column(object, map(attrgetter("error"), visits)),
        },
    )


def _done(visit: Visit) -> bool:
    return visit.finish_reason in ("length", "stop")


def _steps(cluster: SimulatedCluster) -> Columns:
    stations = [station for pool in cluster.pools for station in pool.stations]
    found = [station.engine.steps for station in stations]
    names = [name for station, rows in zip(stations, found, strict=True) for name in [station.place.name] * len(rows)]
    measured = [name for name in STEP_COLUMNS if name != "worker"]
    cells = {
        name: np.concatenate([rows[:, at] for rows in found]).astype(STEP_COLUMNS[name])
        for at, name in enumerate(measured)
    }
    return columns("steps", {"worker": names, **cells})


def _transfers(cluster: SimulatedCluster) -> Columns:
    sent = cluster.transfers
    return columns("transfers", {name: getattr(sent, name) for name in TRANSFER_COLUMNS} if sent.link else None)


def _samples(steps: Columns, interval_s: float) -> Columns:
    """What polling each worker every `interval_s` would have seen: its state and its busy share since the last poll.

    A long run is polled less often: a request a year after the others must not cost a row for each second between.
    """
    if not len(steps):
        return columns("samples")
    end = float((steps.floats("start_s") + steps.floats("duration_s")).max())
    codes, workers = by_worker(steps)
    polls = max(1, MOST_SAMPLES // len(workers))
    interval_s = max(interval_s, end / polls)
    times = np.arange(interval_s, end + interval_s, interval_s)
    parts: dict[str, list[Any]] = {}
    for worker in sorted(workers):
        rows = steps.taken(codes == workers.index(worker))
        start, duration = rows.floats("start_s"), rows.floats("duration_s")
        last = np.searchsorted(start, times, side="right") - 1
        seen = np.maximum(last, 0)
        idle = (last < 0) | (times >= start[seen] + duration[seen])
        # busy seconds up to t = whole rows before the current one + the part of the current one
        before = np.concatenate([[0.0], np.cumsum(duration)])
        busy = np.where(last < 0, 0.0, before[seen] + np.clip(times - start[seen], 0.0, duration[seen]))
        seen_by_polls = {
            "time_s": times,
            "worker": np.full(len(times), worker, dtype=object),
            "running": np.where(idle, 0, rows.floats("running")[seen]),
            "waiting": np.where(idle, 0, rows.floats("waiting")[seen]),
            "kv_used_fraction": np.where(last < 0, 0.0, rows.floats("kv_used_fraction")[seen]),
            "gpu_utilization": np.diff(busy, prepend=0.0) / interval_s,
        }
        for name, values in seen_by_polls.items():
            parts.setdefault(name, []).append(values)
    return columns("samples", {name: np.concatenate(values) for name, values in parts.items()})
