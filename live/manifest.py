"""What a live run was: the manifest beside its tables, with the simulator's keys and what only a real run has."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from live.launch import Runtime, step_tracing
from live.models import ServedModel
from live.results import ClientResult
from live.servers import ReadyServer
from live.step_table import EngineTrace
from live.telemetry import Telemetry
from planner.messages import message
from planner.system.resolve import System, knob_warnings


@dataclass(frozen=True)
class Circumstances:
    """Everything about a run that is not in its tables. `runtime` and `model` are None for endpoints of others."""

    system: System
    runtime: Runtime | None
    model: ServedModel | None
    workers: Sequence[ReadyServer]
    endpoints: Sequence[str]
    result: ClientResult
    telemetry: Telemetry
    traces: Mapping[str, EngineTrace]
    host: dict[str, Any]  # its load when the run began
    frontend: dict[str, Any] | None
    ended: Mapping[str, str]  # servers that ended by themselves, and why
    folder: Path


def beginning(
    system: System, runtime: Runtime | None, workers: Sequence[ReadyServer], endpoints: Sequence[str]
) -> dict[str, Any]:
    """What a run's manifest says before anything is measured."""
    from planner.spec import dump, spec_hash

    wires = system.wires
    named = {place.name: pool.role for pool in system.pools for place in pool.servers}
    links = (wires.intra_node, wires.inter_node, wires.inter_rack) if wires else ()
    return {
        "schema": 1,
        "backend": "live",
        "provenance": "mocked" if runtime is not None and runtime.kind == "mock" else "measured",
        "spec": system.spec.model_dump(mode="json", by_alias=True),
        "spec_yaml": dump(system.spec),
        "spec_hash": spec_hash(system.spec),
        "seed": system.spec.run.seed,
        "profile": {},
        "gpus": system.gpus,
        "gpus_by_role": {pool.role: len(pool.workers) * pool.tp for pool in system.pools},
        "workers": dict.fromkeys(endpoints, "aggregated") if endpoints else named,
        "kv_blocks": {pool.role: pool.limits.kv_blocks for pool in system.pools} if workers else {},
        "kv_blocks_by_worker": {worker.name: worker.kv_blocks for worker in workers},
        "links": {wire.name: wire.bandwidth for wire in links},
        "warnings": knob_warnings(system.spec),
        "stopped": False,
        "interrupted": False,
        "versions": runtime.versions() if runtime else {"python": platform.python_version()},
        "runtime": runtime.kind if runtime else "endpoint",
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "server_start_s": {worker.name: round(worker.start_s, 1) for worker in workers},
    }


def manifest(run: Circumstances) -> dict[str, Any]:
    """Same keys as the simulator's, plus counters, versions, lag and where the logs are."""
    return beginning(run.system, run.runtime, run.workers, run.endpoints) | {
        "warnings": _warnings(run),
        "died": dict(run.ended),
        "paused": _paused(run),
        "interrupted": run.result.stopped,
        "host": run.host,
        "schedule_lag_s": asdict(run.result.lag),
        "tokens": asdict(run.result.tokens()),
        "counters": run.telemetry.counters,  # over the run, the client's few probes before it included
        "frontend": run.frontend,
        "logs": str(run.folder) if run.workers else None,
    }


def _paused(run: Circumstances) -> dict[str, str]:
    """Servers that were left out for a while, why and for how long; those that ended are said to have died."""
    found: dict[str, str] = (run.frontend or {}).get("paused", {})
    return {name: text for name, text in found.items() if name not in run.ended}


def _warnings(run: Circumstances) -> list[str]:
    """What to know of this measurement. Doubts about step times belong to predictions: nothing here took any."""
    result = run.result
    found = [*knob_warnings(run.system.spec), *result.notes]
    if run.model is not None and run.model.note:
        found.append(run.model.note)
    if run.runtime is not None and run.runtime.kind == "mock":
        found.append(
            message("the engines are Dynamo's mocker: their steps last as the profile says, and no model answers")
        )
    if run.runtime is not None:
        found += [reason for reason in (step_tracing(run.runtime), other_hardware(run.system, run.runtime)) if reason]
    if result.late:
        found.append(message("the client was late: p99 of its schedule lag is {lag:.2f} s", result.lag.p99_s))
    if not result.tokens().equal:
        found.append(message("prompt or output lengths differ from the plan (see tokens in the manifest)"))
    if run.frontend is not None:
        found += run.frontend["notes"]
    found += [message("{name} was {state}", name, state) for name, state in _paused(run).items()]
    found += [message("{name} ended during the run: {why}", name, why) for name, why in run.ended.items()]
    if run.host["load_average"][0] > (run.host["cpus"] or 1):
        found.append(
            message(
                "the host was busy before the load: a load average of {load:.1f} on {cpus} cores",
                run.host["load_average"][0],
                run.host["cpus"],
            )
        )
    lost = sorted(run.telemetry.lost - run.ended.keys())
    found += [message("{name} did not answer at the end: its counters are missing", name) for name in lost]
    broken = {name: trace.broken_lines for name, trace in run.traces.items() if trace.broken_lines}
    found += [
        message("{name}: {lines} lines of its step trace are broken", name, lines) for name, lines in broken.items()
    ]
    if run.endpoints:
        found.append(message("endpoints of others: engine steps, queues and transfers are not visible and stay null"))
    return found


def other_hardware(system: System, runtime: Runtime) -> str | None:
    """A sentence when the spec's hardware is not what serves here. Catalogue names hold the model number (h200, l4)."""
    if runtime.kind != "gpu":
        return None
    there = runtime.gpus[0].name
    numbers = re.findall(r"[a-z]*\d+", system.pools[0].hardware.name)
    if numbers and re.search(rf"\b{numbers[0]}(?!\d)|\b\w*{numbers[0]}\b", there.lower()):
        return None
    return message(
        "the spec says {gpu}, but {found} serves here: a prediction is for other hardware",
        system.pools[0].hardware.name,
        there,
    )
