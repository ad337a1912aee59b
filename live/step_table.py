"""Reads the files that live/step_trace.py wrote: engine steps, and what each request went through in the engine."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.trace_file import of_rank

# vLLM makes `cmpl-<x-request-id>-<prompt index>-<8 hex>` and `chatcmpl-<x-request-id>-<8 hex>` of the header's id.
_ENGINE_ID = re.compile(r"^(?:cmpl-(?P<plain>.+)-\d+|chatcmpl-(?P<chat>.+))-[0-9a-f]{8}$")

# Beside records.STEP_COLUMNS: the prompt chunks as JSON [[new tokens n, already there p], ...], and the sum of
# n * (p + n / 2) over them, which attention's cost follows.
EXTRA_COLUMNS = {"chunks": "string", "prefill_pairs": "float64"}


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """One request in one engine, seconds on the host's monotonic clock; None for what did not happen."""

    worker: str
    queued_s: float
    start_s: float | None  # its first step is scheduled
    prefilled_s: float | None  # the step that ended its prompt has ended
    kv_start_s: float | None  # its blocks are allocated; the read of remote KV may start
    kv_end_s: float | None
    kv_blocks: int | None  # blocks read from the other worker
    cached_tokens: int | None
    preemptions: int
    end_s: float


@dataclass(frozen=True, slots=True)
class EngineTrace:
    """`steps` are columns of records.STEP_COLUMNS and of EXTRA_COLUMNS."""

    steps: dict[str, list[Any]]
    requests: dict[str, EngineTimes]  # by x-request-id
    broken_lines: int  # a server that was killed leaves a part of a line


def read_ranks(path: Path, ranks: Sequence[str], kv_blocks: int, start_s: float, offset_s: float = 0.0) -> EngineTrace:
    """The traces of a server's ranks as one, each named as in `ranks`; `read_trace` says the rest."""
    found = [read_trace(of_rank(path, at), name, kv_blocks, start_s, offset_s) for at, name in enumerate(ranks)]
    return EngineTrace(
        {name: [value for one in found for value in one.steps[name]] for name in found[0].steps},
        {header: times for one in found for header, times in one.requests.items()},
        sum(one.broken_lines for one in found),
    )


def header_id(engine_id: str) -> str:
    """The x-request-id that vLLM made this id from (the id itself when it was not made so)."""
    found = _ENGINE_ID.match(engine_id)
    return engine_id if found is None else found["plain"] or found["chat"]


def read_trace(path: Path, worker: str, kv_blocks: int, start_s: float, offset_s: float = 0.0) -> EngineTrace:
    """Steps from `start_s` (monotonic) on, with times counted from there, and the requests queued from there on.

    `offset_s` turns the times of the worker's host into those of this one.
    """
    names = ("start_s", "duration_s", "prefill_tokens", "decode_seqs", "context_tokens", "running", "waiting")
    others = ("worker", "count", "growth_s", "kv_used_fraction", *EXTRA_COLUMNS)
    steps: dict[str, list[Any]] = {name: [] for name in names + others}
    requests: dict[str, EngineTimes] = {}
    broken = 0
    for entry in _entries(path):
        if entry is None:
            broken += 1
            continue
        if "r" in entry:
            if entry["queued"] + offset_s >= start_s:
                requests[header_id(entry["r"])] = _times(entry, worker, offset_s)
        elif entry["t"] + offset_s >= start_s:
            chunks = entry["pf"]
            row = (
                entry["t"] + offset_s - start_s,
                entry["d"],
                sum(new for new, _ in chunks),
                entry["dec"],
                entry["ctx"],
                entry["run"],
                entry["wait"],
            )
            for name, value in zip(names, row, strict=True):
                steps[name].append(value)
            steps["worker"].append(worker)
            steps["count"].append(1)
            steps["growth_s"].append(0.0)
            steps["kv_used_fraction"].append(1 - entry["free"] / kv_blocks)
            steps["chunks"].append(json.dumps(chunks) if chunks else None)
            steps["prefill_pairs"].append(sum(new * (done + new / 2) for new, done in chunks))
    return EngineTrace(steps, requests, broken)


def _entries(path: Path) -> Iterator[dict[str, Any] | None]:
    """The lines of a trace, one at a time: hours of steps have no room in memory twice. None: cut off."""
    with contextlib.suppress(FileNotFoundError), path.open() as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                yield None


def _times(entry: dict[str, Any], worker: str, offset_s: float) -> EngineTimes:
    def at(name: str) -> float | None:
        return entry[name] + offset_s if name in entry else None

    return EngineTimes(
        worker=worker,
        queued_s=entry["queued"] + offset_s,
        start_s=at("start"),
        prefilled_s=at("prefilled"),
        kv_start_s=at("kv0"),
        kv_end_s=at("kv1"),
        kv_blocks=entry.get("kv_blocks"),
        cached_tokens=entry.get("cached"),
        preemptions=entry.get("pre", 0),
        end_s=entry["end"] + offset_s,
    )
