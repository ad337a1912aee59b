"""Trace files, plain or gzip: read, summarise, write, and turn into the requests that both backends send.

Errors name file, line, fault and what is allowed. The formats are in planner/traffic/formats.py.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from gzip import BadGzipFile, GzipFile
from io import BufferedReader
from itertools import islice
from pathlib import Path

import numpy as np

from planner.messages import system
from planner.spec import SpecError
from planner.spec.strict_yaml import shorten
from planner.traffic.contents import ANSWER, PROMPT, content_id, shared_runs
from planner.traffic.formats import FORMATS, BadLine, Lines, TraceRequest
from planner.traffic.requests import Load, Request, Segments

__all__ = [
    "FORMATS", "Sendable", "TraceFile", "TraceRequest", "TraceSummary",
    "detect", "lru_hit_share", "read", "requests_of", "summarise", "to_requests", "write_mooncake",
]  # fmt: skip

CHUNK = 2**20
MOST_BYTES = 2 * 2**30  # of text: a week of Azure's 2024 trace
MOST_LINE = 64 * 2**20  # the whole result of `vllm bench serve` is one line


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace as read: requests in the order of their arrival, the first one at 0 s."""

    path: str
    format: str
    block_tokens: int
    requests: tuple[TraceRequest, ...]


# --- files -------------------------------------------------------------------------------------


def _bounded(source: GzipFile | BufferedReader, path: str) -> bytearray:
    """All that is left of a file. A few megabytes of gzip can unpack to terabytes, so this counts as it reads."""
    data, line = bytearray(), 0
    while chunk := source.read(CHUNK):
        data += chunk
        first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
        longest = line + (first if first >= 0 else len(chunk))
        line = longest if first < 0 else len(chunk) - last - 1
        if longest > MOST_LINE:
            raise SpecError("{path}: a line of more than {most} bytes; must be at most that", path, MOST_LINE)
        if len(data) > MOST_BYTES:
            raise SpecError("{path}: more than {most} bytes of text; must be at most that", path, MOST_BYTES)
    return data


def _text(path: str) -> str:
    """A file's text, unpacked when it begins as gzip does."""
    try:
        with Path(path).open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            data = _bounded(GzipFile(fileobj=file) if packed else file, path)
    except (EOFError, zlib.error, BadGzipFile) as error:
        raise SpecError("{path}: damaged gzip file ({error})", path, error) from None
    except OSError as error:
        raise SpecError("{path}: {fault}; workload.path must be a readable trace file", path, system(error)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(
            "{path}: byte {place} is not UTF-8; must be CSV or JSON text, plain or gzip", path, error.start
        ) from None


def _numbered(text: str) -> Lines:
    return ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())


def _detect(text: str, path: str) -> str:
    first = next(_numbered(text), None)
    if first is None:
        raise SpecError("{path}: the trace is empty; it must hold at least one request", path)
    line = first[1].strip()
    columns = {cell.strip() for cell in line.split(",")}
    if {"TIMESTAMP", "ContextTokens"} <= columns:
        return "azure"
    if {"Timestamp", "Request tokens"} <= columns:
        return "burstgpt"
    if line.startswith("{"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return "vllm_bench" if '"input_lens"' in text else "mooncake"
        if "input_lens" in row:
            return "vllm_bench"
        return "bailian" if "chat_id" in row else "mooncake"
    raise SpecError(
        "{path}: line {line}: unknown format; workload.format must be one of {formats}",
        path,
        first[0],
        ", ".join(FORMATS),
    )


def detect(path: str | os.PathLike[str]) -> str:
    """The format of a file, by its first line. SpecError when it is none of FORMATS."""
    return _detect(_text(os.fspath(path)), os.fspath(path))


def _checked_sessions(rows: Sequence[tuple[int, TraceRequest]], path: str) -> None:
    seen = set()
    for number, row in rows:
        if row.arrival_s is None and row.session not in seen:
            raise SpecError(
                "{path}: line {number}: first request of session {session!r} needs a timestamp",
                path,
                number,
                shorten(row.session or ""),
            )
        seen.add(row.session)


def read(
    path: str | os.PathLike[str],
    format: str = "auto",
    block_tokens: int | None = None,
    limit: int | None = None,
) -> TraceFile:
    """Read a trace; `limit` keeps the first so many lines. SpecError for a file that cannot be used or is empty."""
    path = os.fspath(path)
    text = _text(path)
    name = _detect(text, path) if format == "auto" else format
    if name not in FORMATS:
        raise SpecError(
            "workload.format: {name!r} is unknown; must be auto or one of {formats}", name, ", ".join(FORMATS)
        )
    block = block_tokens or FORMATS[name].block_tokens
    try:
        rows = list(islice(FORMATS[name].read(_numbered(text), block), limit))
    except BadLine as error:
        raise SpecError("{path}: {error}", path, error) from None
    if not rows:
        raise SpecError("{path}: the trace is empty; it must hold at least one request", path)
    _checked_sessions(rows, path)
    return TraceFile(path, name, block, tuple(_in_order([row for _, row in rows])))


def _in_order(rows: list[TraceRequest]) -> list[TraceRequest]:
    """By arrival, the first at 0 s; requests that wait for another one follow at the end, in their own order."""
    timed = sorted((row for row in rows if row.arrival_s is not None), key=lambda row: row.arrival_s or 0.0)
    start_s = timed[0].arrival_s or 0.0
    moved = [
        TraceRequest((r.arrival_s or 0.0) - start_s, r.prompt_tokens, r.output_tokens, r.hash_ids, r.session)
        for r in timed
    ]
    return moved + [row for row in rows if row.arrival_s is None]


# --- requests ----------------------------------------------------------------------------------

Sendable = tuple[tuple[tuple[float, Request], ...], dict[int, tuple[float, Request]]]


def _block_segments(row: TraceRequest, block_tokens: int) -> Segments:
    ids = row.hash_ids
    last = row.prompt_tokens - (len(ids) - 1) * block_tokens
    return (*((i, block_tokens) for i in ids[:-1]), (ids[-1], last)) if ids else ()


def to_requests(trace: TraceFile) -> Sendable:
    """Arrivals (seconds, request), and followers {request id: (delay in seconds, next request of the session)}.

    Blocks that no other request begins with become one private segment: nobody can find them in a cache.
    """
    prompts = [_block_segments(row, trace.block_tokens) for row in trace.requests]
    runs = shared_runs(prompts)
    sessions: dict[str, int] = {}
    latest: dict[str, int] = {}  # session -> its newest request
    arrivals, followers = [], {}
    for index, (row, blocks, run) in enumerate(zip(trace.requests, prompts, runs, strict=True)):
        prompt, output = row.prompt_tokens, row.output_tokens
        segments = blocks[:run]
        shared = prompt if blocks and run == len(blocks) else run * trace.block_tokens
        if shared < prompt:
            segments += ((content_id(PROMPT, index), prompt - shared),)
        session = index if row.session is None else sessions.setdefault(row.session, index)
        request = Request(index, session, prompt, output, output, segments, shared, content_id(ANSWER, index))
        if row.arrival_s is not None:
            arrivals.append((row.arrival_s, request))
        else:
            followers[latest[row.session or ""]] = (row.delay_s, request)
        if row.session is not None:
            latest[row.session] = index
    return tuple(arrivals), followers


@lru_cache(maxsize=8)
def _kept(path: str, format: str, block_tokens: int | None, limit: int | None, stamp: tuple[int, int]) -> Sendable:
    return to_requests(read(path, format, block_tokens, limit))


def requests_of(path: str, format: str = "auto", block_tokens: int | None = None, limit: int | None = None) -> Sendable:
    """`to_requests` of a file, remembered until the file changes: a search over rates reads it once."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise SpecError("{path}: {fault}; workload.path must be a readable trace file", path, system(error)) from None
    return _kept(path, format, block_tokens, limit, (status.st_mtime_ns, status.st_size))


# --- figures -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace in figures. Hit shares are of blocks, None without hash ids; `lru_hit_shares` by cache size in blocks."""

    requests: int
    duration_s: float
    rate: float | None  # requests per second; None when all come at once
    prompt_tokens: dict[str, float]  # mean, p50, p90, p99, max
    output_tokens: dict[str, float]
    gap_cv: float | None  # standard deviation of the gaps over their mean: 1 is Poisson, above is burstier
    infinite_cache_hit_share: float | None
    lru_hit_shares: dict[int, float] | None


def _spread(values: Sequence[int]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return {"mean": float(np.mean(values)), "p50": float(p50), "p90": float(p90), "p99": float(p99), "max": max(values)}


def lru_hit_share(requests: Sequence[TraceRequest], blocks: int | None) -> float:
    """Share of prompt blocks found in a cache of so many blocks (None: endless), least recently used out first."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = total = 0
    for request in requests:
        total += len(request.hash_ids)
        for block in request.hash_ids:
            if block in cache:
                hits += 1
                cache.move_to_end(block)
            else:
                cache[block] = None
                if blocks is not None and len(cache) > blocks:
                    cache.popitem(last=False)
    return hits / total


def summarise(requests: Sequence[TraceRequest], caches: Sequence[int] = (5_000, 10_000, 30_000)) -> TraceSummary:
    """Figures of a trace (`read(path).requests`)."""
    times = np.array([row.arrival_s for row in requests if row.arrival_s is not None])
    gaps = np.diff(times)
    duration_s = float(times[-1] - times[0])
    hashed = any(row.hash_ids for row in requests)
    return TraceSummary(
        requests=len(requests),
        duration_s=duration_s,
        rate=(len(requests) - 1) / duration_s if duration_s > 0 else None,
        prompt_tokens=_spread([row.prompt_tokens for row in requests]),
        output_tokens=_spread([row.output_tokens for row in requests]),
        gap_cv=float(np.std(gaps) / np.mean(gaps)) if duration_s > 0 else None,
        infinite_cache_hit_share=lru_hit_share(requests, None) if hashed else None,
        lru_hit_shares={blocks: lru_hit_share(requests, blocks) for blocks in caches} if hashed else None,
    )


# --- export ------------------------------------------------------------------------------------


def _cut(segments: Segments, block_tokens: int) -> Iterator[tuple[tuple[int, int, int], ...]]:
    """The content of each block: pieces (content id, offset in it, tokens). The last block may be short."""
    pieces: list[tuple[int, int, int]] = []
    room = block_tokens
    for content, tokens in segments:
        offset = 0
        while offset < tokens:
            taken = min(room, tokens - offset)
            pieces.append((content, offset, taken))
            offset, room = offset + taken, room - taken
            if room == 0:
                yield tuple(pieces)
                pieces, room = [], block_tokens
    if pieces:
        yield tuple(pieces)


def write_mooncake(load: Load, path: str | os.PathLike[str], block_tokens: int = 512) -> int:
    """Write an open-loop load as Mooncake JSONL (ms, whole blocks by content); returns the number of requests.

    SpecError for a load whose requests wait for others: their send times are not known beforehand.
    """
    arrivals = load.start()
    if len(arrivals) != load.expected_requests:
        raise SpecError(
            "{path}: only {count} of {all} requests have their own send time; a "
            "closed loop or sessions cannot be written as a trace",
            os.fspath(path),
            len(arrivals),
            load.expected_requests,
        )
    ids: dict[tuple[int, tuple[tuple[int, int, int], ...]], int] = {}
    with open(path, "w", encoding="utf-8") as file:
        for arrival in arrivals:
            hash_ids, parent = [], -1
            for block in _cut(arrival.request.segments, block_tokens):
                parent = ids.setdefault((parent, block), len(ids))
                hash_ids.append(parent)
            row = {
                "timestamp": round(arrival.time_s * 1e3, 3),
                "input_length": arrival.request.prompt_tokens,
                "output_length": arrival.request.output_tokens,
                "hash_ids": hash_ids,
            }
            file.write(json.dumps(row) + "\n")
    return len(arrivals)
