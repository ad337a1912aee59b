"""Puts together what client, frontend, engines and wires know of a run into the tables of planner.run.tables.

The three join by the client's x-request-id, which the frontend passes on to the engines. A request that was tried
again has the times of the workers that its record names, the last ones. A column that none of them can see is null.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from live.records import FrontendRecord
from live.step_table import EXTRA_COLUMNS, EngineTimes, EngineTrace
from planner.run.tables import STEP_COLUMNS, frame
from planner.system.resolve import System

Traces = Mapping[str, EngineTrace]  # by server
_UNSEEN = FrontendRecord(received_s=float("nan"))  # never reached the frontend


def engine_times(record: FrontendRecord, header: str, traces: Traces) -> tuple[EngineTimes | None, EngineTimes | None]:
    """What the prefilling and the decoding engine noted of a request's last attempt (the same when one did both)."""

    def of(worker: str | None) -> EngineTimes | None:
        trace = traces.get(worker) if worker else None
        return trace.requests.get(header) if trace else None

    return of(record.worker), of(record.decode_worker)


def requests_table(
    client: Mapping[str, Sequence[Any]],
    headers: Sequence[str],
    records: Mapping[str, FrontendRecord],
    traces: Traces,
    start_s: float,
) -> pd.DataFrame:
    """records.REQUEST_COLUMNS: what client and frontend noted (`client`), and where an engine saw more, that.

    `headers` are the x-request-ids of the rows.
    """
    columns = {name: list(values) for name, values in client.items()}
    seen = [engine_times(records.get(header, _UNSEEN), header, traces) for header in headers]
    starts: dict[str, list[float]] = {}
    for trace in traces.values():
        for worker, start in zip(trace.steps["worker"], trace.steps["start_s"], strict=True):
            starts.setdefault(worker, []).append(start)

    def fill(name: str, values: Sequence[Any]) -> None:
        before = columns.get(name, [None] * len(headers))
        columns[name] = [old if new is None else new for old, new in zip(before, values, strict=True)]

    # Of ranks the frontend sees their server only.
    fill("worker", [prefill.worker if prefill else None for prefill, _ in seen])
    fill("decode_worker", [decode.worker if decode else None for _, decode in seen])
    fill("queued_s", [_since(prefill.queued_s if prefill else None, start_s) for prefill, _ in seen])
    fill("prefill_start_s", [_since(prefill.start_s if prefill else None, start_s) for prefill, _ in seen])
    fill("prefill_end_s", [_since(prefill.prefilled_s if prefill else None, start_s) for prefill, _ in seen])
    fill("transfer_start_s", [_since(decode.kv_start_s if decode else None, start_s) for _, decode in seen])
    fill("transfer_end_s", [_since(decode.kv_end_s if decode else None, start_s) for _, decode in seen])
    fill("decode_start_s", [_decode_start(prefill, decode, starts, start_s) for prefill, decode in seen])
    fill("preemptions", [_preemptions(prefill, decode) for prefill, decode in seen])
    fill("cached_tokens", [prefill.cached_tokens if prefill else None for prefill, _ in seen])
    return frame("requests", columns)


def _since(time_s: float | None, start_s: float) -> float | None:
    return None if time_s is None else time_s - start_s


def _preemptions(prefill: EngineTimes | None, decode: EngineTimes | None) -> int | None:
    if decode is None:
        return None
    return decode.preemptions + (prefill.preemptions if prefill is not None and prefill is not decode else 0)


def _decode_start(
    prefill: EngineTimes | None, decode: EngineTimes | None, starts: Mapping[str, list[float]], start_s: float
) -> float | None:
    """The first step of the decoding engine after the prompt was done: its own first, or the next after prefill."""
    if decode is None:
        return None
    if prefill is not decode:
        return _since(decode.start_s, start_s)
    if decode.prefilled_s is None:
        return None
    steps = starts.get(decode.worker, [])
    index = bisect.bisect_left(steps, decode.prefilled_s - start_s)
    return steps[index] if index < len(steps) and steps[index] <= decode.end_s - start_s else None


def steps_table(traces: Traces) -> pd.DataFrame:
    """records.STEP_COLUMNS, and the extra columns of live.step_table."""
    names = [*STEP_COLUMNS, *EXTRA_COLUMNS]
    columns = {name: [value for trace in traces.values() for value in trace.steps[name]] for name in names}
    extra = {name: pd.Series(columns.pop(name), dtype=dtype) for name, dtype in EXTRA_COLUMNS.items()}
    return frame("steps", columns).assign(**extra)


def transfers_table(
    system: System,
    request_ids: Sequence[int],
    headers: Sequence[str],
    records: Mapping[str, FrontendRecord],
    traces: Traces,
    start_s: float,
) -> pd.DataFrame:
    """One row for each KV cache that a decode worker read, from when its blocks were there until the read was noticed.

    Engines notice the end at a step's border. Bytes are whole blocks, those in the reader's prefix cache left out.
    """
    rows = []
    link = system.wires.intra_node.name if system.wires else None
    block_bytes = system.pools[-1].limits.block_size * system.kv_bytes_per_token
    for request_id, header in zip(request_ids, headers, strict=True):
        record = records.get(header, _UNSEEN)
        decode = engine_times(record, header, traces)[1]
        if decode is None or decode.kv_start_s is None or decode.kv_blocks is None:
            continue
        end = _since(decode.kv_end_s, start_s)
        size = decode.kv_blocks * block_bytes
        rows.append((request_id, record.worker, record.decode_worker, link, size, decode.kv_start_s - start_s, end))
    columns = ("request_id", "source", "target", "link", "bytes", "start_s", "end_s")
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return frame("transfers", dict(zip(columns, map(list, values), strict=True)))
