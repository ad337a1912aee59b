"""Traces: read, and turned into the requests that both backends send.

Errors name file, line, fault and what is allowed. The formats are in planner/traffic/formats.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.core import no_cycles
from planner.messages import Message, message, system
from planner.spec import SpecError, Trace
from planner.spec.strict_yaml import shorten
from planner.traffic.contents import ANSWER, PROMPT, content_id, shared_runs
from planner.traffic.formats import FORMATS
from planner.traffic.random_streams import stream
from planner.traffic.requests import Arrival, Request, Segments
from planner.traffic.rows import TraceRequest
from planner.traffic.trace_export import write_mooncake
from planner.traffic.trace_figures import TraceSummary, lru_hit_share, summarise
from planner.traffic.trace_scan import ALL, Scan, Selection, format_of

__all__ = [
    "FORMATS", "Selection", "Sendable", "TraceFile", "TraceRequest", "TraceSummary",
    "format_of", "lru_hit_share", "read", "requests_of", "selection_of", "summarise", "to_requests", "write_mooncake",
]  # fmt: skip

MOST_REQUESTS = 2_000_000  # kept at once; each costs about a kilobyte when it is sent
MOST_BLOCKS = 50_000_000  # hash ids kept at once
COARSE_S = 0.1  # stamps of a grid this wide or wider make bursts that nobody sent
CROWDED = 1.2  # requests per stamp from which a grid counts as coarse
IDLE = 0.9  # of a trace's time in one pause, from which its dates are doubted
LEAST = 20  # stamps below which nothing is said about a grid
Told = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace as read: requests in the order of their arrival, the first one at 0 s.

    `starts` is as in `Format`; `warnings` say what was left out, estimated or spread.
    """

    path: str
    format: str
    block_tokens: int
    requests: tuple[TraceRequest, ...]
    starts: str = "recorded"
    warnings: tuple[str, ...] = ()


def read(
    path: str | os.PathLike[str],
    format: str = "auto",
    block_tokens: int | None = None,
    limit: int | None = None,
    selection: Selection = ALL,
    told: Told | None = None,
) -> TraceFile:
    """Read what is wanted of a trace; `limit` keeps the first so many. SpecError for a file that cannot be used.

    `told` is given the share of the file that was read, now and then.
    """
    scan = Scan(path, format, block_tokens, selection if limit is None else replace(selection, requests=limit), told)
    rows, blocks = [], 0
    for row in scan:
        rows.append(row)
        blocks += len(row.hash_ids)
        if len(rows) > MOST_REQUESTS or blocks > MOST_BLOCKS:
            many = message("{count} requests", MOST_REQUESTS), message("{count} hash ids", MOST_BLOCKS)
            raise SpecError(
                "{path}: more than {what}; must be at most that: choose with workload.requests, start_s and end_s, or "
                "sample",
                scan.path,
                many[0] if len(rows) > MOST_REQUESTS else many[1],
            )
    if not rows:
        if scan.good + scan.bad + scan.failed or selection != ALL:
            raise SpecError(
                "{path}: the trace is empty in what was chosen of it; it must hold at least one request", scan.path
            )
        raise SpecError("{path}: the trace is empty; it must hold at least one request", scan.path)
    _put_in_order(rows)
    warnings = [*scan.warnings, *_pause([row.arrival_s for row in rows if row.arrival_s is not None])]
    if selection.dequantise:
        rows, grid_s = _spread(rows)
        if grid_s is not None:
            warnings.append(
                message(
                    "The trace's send times lie on a grid of {grid:g} s; requests were spread evenly within it "
                    "(workload.dequantise=false sends them in bursts).",
                    grid_s,
                )
            )
    if selection.closed_loop:
        rows = _waiting(rows)
    return TraceFile(scan.path, scan.format, scan.block_tokens, tuple(rows), scan.starts, tuple(warnings))


def _pause(times: Sequence[float]) -> list[Message]:
    """What to say of times of which nearly all is one pause: a date that is wrong, or two recordings in one file."""
    if len(times) < LEAST:
        return []
    pause_s, span_s = float(np.max(np.diff(times))), times[-1] - times[0]
    if pause_s < 3600 or pause_s < IDLE * span_s:
        return []
    return [
        message(
            "Nothing is sent for {pause:.0f} of the trace's {span:.0f} hours: are its dates right? "
            "workload.start_s and end_s choose a part.",
            pause_s / 3600,
            span_s / 3600,
        )
    ]


def _put_in_order(rows: list[TraceRequest]) -> None:
    """By arrival, the first at 0 s; requests that wait for another one follow at the end, in their own order."""
    rows.sort(key=lambda row: (row.arrival_s is None, row.arrival_s or 0.0))
    start_s = rows[0].arrival_s or 0.0
    for index, row in enumerate(rows):
        if row.arrival_s is None:
            break
        rows[index] = replace(row, arrival_s=row.arrival_s - start_s)


def grid_of(times: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Seconds between the only moments at which requests are stamped; None when the stamps are fine enough."""
    stamps = np.unique(np.rint(np.asarray(times) * 1e3).astype(np.int64))
    if len(stamps) < 2 or len(times) < LEAST or len(times) < CROWDED * len(stamps):
        return None
    grid_s = float(np.gcd.reduce(np.diff(stamps))) / 1e3
    return grid_s if grid_s >= COARSE_S else None


def _spread(rows: list[TraceRequest]) -> tuple[list[TraceRequest], float | None]:
    """Requests of one coarse stamp at even chances within its grid, in the order that they had."""
    times = np.array([row.arrival_s for row in rows if row.arrival_s is not None])
    grid_s = grid_of(times)
    if grid_s is None:
        return rows, None
    within = stream(0, "within a stamp").random(len(times)) * grid_s
    moved = np.sort(times + within)  # cells do not overlap, so each keeps its own requests
    moved -= moved[0]
    found = [replace(row, arrival_s=at_s) for row, at_s in zip(rows, moved.tolist(), strict=False)]
    return found + rows[len(times) :], grid_s


def _waiting(rows: list[TraceRequest]) -> list[TraceRequest]:
    """Sessions as closed loops: every request but the first waits for the one before and the pause after it.

    The pause is the time between the two stamps less what the first one took, where the trace says that.
    """
    latest: dict[str, TraceRequest] = {}
    free, waiting = [], []
    for row in rows:
        before = latest.get(row.session) if row.session is not None else None
        if row.session is not None and row.arrival_s is not None:
            latest[row.session] = row
        if before is None or row.arrival_s is None:
            free.append(row)
        else:
            pause_s = row.arrival_s - (before.arrival_s or 0.0) - (before.busy_s or 0.0)
            waiting.append(replace(row, arrival_s=None, delay_s=max(0.0, pause_s)))
    return free + waiting


# --- requests ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sendable:
    """Arrivals, and for a request those that follow its end: (delay in seconds, request).

    `waits` says for how many ends a follower waits; `starts` and `warnings` are the trace's.
    """

    arrivals: tuple[Arrival, ...]
    followers: dict[int, tuple[tuple[float, Request], ...]]
    waits: dict[int, int]
    starts: str = "recorded"
    warnings: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        return len(self.arrivals) + len(self.waits)

    @property
    def rate(self) -> float | None:
        """Requests per second over the time that the arrivals span; None when all come at once."""
        duration_s = self.arrivals[-1].time_s - self.arrivals[0].time_s
        return (self.requests - 1) / duration_s if duration_s > 0 and self.starts in ("recorded", "drawn") else None


def _shared_segments(row: TraceRequest, run: int, block_tokens: int, known: dict[int, tuple[int, int]]) -> Segments:
    """The first `run` blocks of the prompt; the last one of all may be less than whole. `known` are the whole ones."""
    whole = min(run, row.prompt_tokens // block_tokens)
    found = [known.setdefault(block, (block, block_tokens)) for block in row.hash_ids[:whole]]
    if whole < run:
        found.append((row.hash_ids[whole], row.prompt_tokens - whole * block_tokens))
    return tuple(found)


def to_requests(trace: TraceFile) -> Sendable:
    """The requests of a trace. Blocks that no other request begins with become one private segment."""
    runs = shared_runs([row.hash_ids for row in trace.requests])
    known: dict[int, tuple[int, int]] = {}
    sessions: dict[str, int] = {}
    latest: dict[str, int] = {}  # session -> its newest request
    steps: dict[str, int] = {}  # step -> its request
    arrivals = []
    followers: dict[int, list[tuple[float, Request]]] = {}
    waits: dict[int, int] = {}
    for index, (row, run) in enumerate(zip(trace.requests, runs, strict=True)):
        prompt, output = row.prompt_tokens, row.output_tokens
        segments = _shared_segments(row, run, trace.block_tokens, known)
        shared = min(prompt, run * trace.block_tokens)
        if shared < prompt:
            segments += ((content_id(PROMPT, index), prompt - shared),)
        session = index if row.session is None else sessions.setdefault(row.session, index)
        request = Request(index, session, prompt, output, output, segments, shared, content_id(ANSWER, index))
        if row.arrival_s is not None:
            arrivals.append(Arrival(row.arrival_s, request))
        else:
            before = [steps[step] for step in row.after] or [latest[row.session or ""]]
            waits[index] = len(before)
            for earlier in before:
                followers.setdefault(earlier, []).append((row.delay_s, request))
        if row.session is not None:
            latest[row.session] = index
        if row.step:
            steps[row.step] = index
    kept = {earlier: tuple(rest) for earlier, rest in followers.items()}
    return Sendable(tuple(arrivals), kept, waits, trace.starts, trace.warnings)


@dataclass(frozen=True, slots=True)
class _Listener:
    """Who is told how far a reading is; what is read is the same for every one."""

    told: Told | None = field(compare=False)


@lru_cache(maxsize=8)
def _kept(
    path: str,
    format: str,
    block_tokens: int | None,
    selection: Selection,
    stamp: tuple[int, int],
    listener: _Listener,
) -> Sendable:
    with no_cycles():
        return to_requests(read(path, format, block_tokens, None, selection, listener.told))


def selection_of(workload: Trace) -> Selection:
    """What a spec wants of its trace."""
    return Selection(
        workload.start_s,
        float("inf") if workload.end_s is None else workload.end_s,
        workload.sample,
        workload.requests,
        workload.strict,
        workload.dequantise,
        workload.closed_loop,
    )


def requests_of(
    path: str,
    format: str = "auto",
    block_tokens: int | None = None,
    selection: Selection = ALL,
    told: Told | None = None,
) -> Sendable:
    """`to_requests` of a file, remembered until the file changes: a search over rates reads it once.

    `told` is given the share of the file that was read, now and then.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise SpecError(
            "{path}: {fault}; workload.path must be a readable trace file", shorten(str(path)), system(error)
        ) from None
    except ValueError:  # a null byte
        raise SpecError("workload.path: a path with a null byte; must be a readable trace file") from None
    return _kept(path, format, block_tokens, selection, (status.st_mtime_ns, status.st_size), _Listener(told))
