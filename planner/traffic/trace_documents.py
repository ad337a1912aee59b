"""Trace formats that are not one request a line: JSON documents, agent sessions, conversations, and our own tables."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

from planner.spec import SpecError
from planner.spec.strict_yaml import shorten
from planner.traffic.rows import (
    SECONDS,
    TOKENS,
    BadLine,
    Found,
    Rows,
    TraceRequest,
    hash_ids,
    json_object,
    maybe,
    number,
    part,
    session_of,
    tokens,
)
from planner.traffic.trace_files import TraceSource

CHARACTERS_PER_TOKEN = 4  # of English text, the usual rule of thumb
BATCH = 65_536  # rows of a table read at once


def _document(source: TraceSource) -> dict[str, Any]:
    try:
        row = json.loads(source.text())
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise BadLine("not JSON ({error}); must be one object", error) from None
    except RecursionError:
        raise BadLine("nested too deeply; must be one object") from None
    if not isinstance(row, dict):
        raise BadLine("a JSON {what}; must be one object", type(row).__name__)
    return row


# --- results of benchmarks -------------------------------------------------------------------------


def read_vllm_bench(source: TraceSource, block_tokens: int) -> Rows:
    """Result file of `vllm bench serve --save-result --save-detailed`: start_times (s), input_lens, output_lens.

    Requests that failed have 0 output tokens.
    """
    row = _document(source)
    keys = ("start_times", "input_lens", "output_lens")
    for key in keys:
        if not isinstance(row.get(key), list):
            raise BadLine(
                "no list {key!r}; must be the result of `vllm bench serve --save-result --save-detailed`", key
            )
    if len({len(row[key]) for key in keys}) != 1:
        raise BadLine("{counts}; must be equally many", ", ".join(f"{len(row[key])} {key}" for key in keys))
    for index, (start, prompt, output) in enumerate(zip(*(row[key] for key in keys), strict=True), start=1):
        cells = {"start_times": start, "input_lens": prompt, "output_lens": output}
        try:
            if output == 0:
                yield index, None
                continue
            at_s = number(cells, "start_times", SECONDS)
            yield index, TraceRequest(at_s, tokens(cells, "input_lens"), tokens(cells, "output_lens"))
        except BadLine as error:
            yield index, BadLine("request {index}: {error}", index, error)


def read_guidellm(source: TraceSource, block_tokens: int) -> Rows:
    """GuideLLM's report: the successful requests of all its benchmarks, old and new field names. Others failed."""
    for index, row in enumerate(source.values("benchmarks.item.requests.successful.item"), start=1):
        try:
            yield index, _guidellm(row)
        except BadLine as error:
            yield index, BadLine("request {index}: {error}", index, error)
    for ended in ("errored", "incomplete"):
        for index, _ in enumerate(source.values(f"benchmarks.item.requests.{ended}.item"), start=1):
            yield index, None


def _guidellm(row: Any) -> TraceRequest:
    if not isinstance(row, dict):
        raise BadLine("{value}; must be an object", shorten(repr(row)))
    timings = part(part(row, "info"), "timings")
    asked, answered = part(row, "input_metrics"), part(row, "output_metrics")
    cells = {
        "request_start_time": _first(
            row.get("request_start_time"), row.get("start_time"), timings.get("request_start")
        ),
        "prompt_tokens": _first(row.get("prompt_tokens"), asked.get("text_tokens"), asked.get("total_tokens")),
        "output_tokens": _first(row.get("output_tokens"), answered.get("text_tokens"), answered.get("total_tokens")),
        "request_end_time": _first(row.get("request_end_time"), row.get("end_time"), timings.get("request_end")),
    }
    at_s = number(cells, "request_start_time", SECONDS)
    end_s = maybe(cells, "request_end_time", SECONDS)
    busy_s = None if end_s is None else max(0.0, end_s - at_s)
    return TraceRequest(at_s, tokens(cells, "prompt_tokens"), tokens(cells, "output_tokens"), busy_s=busy_s)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def read_planner(source: TraceSource, block_tokens: int) -> Rows:
    """The requests of a run that this project wrote: a run folder, or its requests.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = os.path.join(source.path, "requests.parquet") if os.path.isdir(source.path) else source.path
    names = ["arrival_s", "prompt_tokens", "output_tokens", "session_id", "finish_s", "finish_reason"]
    index = 0
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise BadLine("no column {missing!r}; must be the requests.parquet of a run", missing[0])
        for batch in file.iter_batches(BATCH, columns=names):
            for row in batch.to_pylist():
                index += 1
                yield index, _planner(row, index)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadLine("damaged ({error}); must be the table of a run", shorten(" ".join(str(error).split()))) from None


def _planner(row: dict[str, Any], index: int) -> Found:
    try:
        if row["finish_reason"] not in ("length", "stop"):
            return None
        at_s = number(row, "arrival_s", SECONDS)
        busy_s = number(row, "finish_s", SECONDS) - at_s
        session = session_of(row, "session_id")
        return TraceRequest(at_s, tokens(row, "prompt_tokens"), tokens(row, "output_tokens"), (), session, 0.0, busy_s)
    except BadLine as error:
        return BadLine("request {index}: {error}", index, error)


# --- agents and conversations ----------------------------------------------------------------------


def read_agents(source: TraceSource, block_tokens: int) -> Rows:
    """kv-cache-tester's agent sessions: a JSON file each, a folder of them, or one a line.

    `t`, `in`, `out`, `think_time` and `api_time` in seconds; a sub-agent's requests begin after the request before it,
    and the next one of the main agent waits for them, unless the sub-agent was launched to run on its own.
    """
    fresh = itertools.count()
    shared: dict[int, int] = {}
    index = 0
    for member in source.members(".json", ".jsonl", ".json.gz", ".jsonl.gz"):
        for session in _sessions(TraceSource(member)):
            index += 1
            shared = shared if session.get("hash_id_scope") == "global" else {}
            yield from _Agent(session, index, block_tokens, shared, fresh).rows()


def _sessions(source: TraceSource) -> Iterator[dict[str, Any]]:
    lines = source.lines()
    number_of, first = next(lines, (0, ""))
    try:
        yield json_object(first)
    except BadLine:
        yield _document(source)  # one object over many lines
        return
    for number_of, line in lines:
        try:
            yield json_object(line)
        except BadLine as error:
            raise BadLine("line {line}: {error}", number_of, error) from None


class _Agent:
    """One session of agents as rows that follow each other.

    `known` maps its ids of blocks, which are its own, to ids of the whole trace; `fresh` gives new ones.
    """

    def __init__(
        self, session: dict[str, Any], index: int, block_tokens: int, known: dict[int, int], fresh: Iterator[int]
    ) -> None:
        self._index = index
        self._name = f"{index}:{shorten(str(session.get('id', '')))}"
        self._block = int(number({"block_size": block_tokens, **session}, "block_size", TOKENS, 1.0, 1e6))
        self._entries = session.get("requests")
        if not isinstance(self._entries, list):
            raise BadLine("session {index}: requests is no list; must be a list of requests", index)
        self._known, self._fresh = known, fresh
        self._steps = 0

    def rows(self) -> Rows:
        before: tuple[str, ...] = ()  # steps that the next request of the main agent follows
        main_s = ended_s = 0.0  # recorded ends: of the main agent's last request, and of all that the next one follows
        for entry in self._entries or ():
            if isinstance(entry, dict) and entry.get("type") == "subagent":
                inner, last, end_s = self._subagent(entry, before[:1], main_s)
                yield from inner
                if last and entry.get("status") != "async_launched":
                    before, ended_s = (*before, last), max(ended_s, end_s)
                continue
            line, found, end_s = self._request(entry, before, ended_s)
            yield line, found
            if isinstance(found, TraceRequest):
                before, main_s, ended_s = (found.step,), end_s, end_s

    def _subagent(
        self, entry: dict[str, Any], before: tuple[str, ...], ended_s: float
    ) -> tuple[list[tuple[int, Found]], str, float]:
        """Its rows, the name of its last step, and when that had ended."""
        requests = entry.get("requests")
        rows: list[tuple[int, Found]] = []
        last, end_s = "", ended_s
        try:
            spawn_s = number(entry, "t", SECONDS)
            if not isinstance(requests, list):
                raise BadLine("requests of a sub-agent are no list; must be a list")
        except BadLine as error:
            return [(self._index, BadLine("session {index}: {error}", self._index, error))], "", ended_s
        first_s = requests[0].get("t") if requests and isinstance(requests[0], dict) else None
        relative = isinstance(first_s, int | float) and first_s < spawn_s
        for request in requests:
            line, found, stop_s = self._request(
                request, (last,) if last else before, end_s, spawn_s if relative else 0.0
            )
            rows.append((line, found))
            if isinstance(found, TraceRequest):
                last, end_s = found.step, stop_s
        return rows, last, end_s

    def _request(
        self, entry: Any, before: tuple[str, ...], ended_s: float, base_s: float = 0.0
    ) -> tuple[int, Found, float]:
        try:
            if not isinstance(entry, dict):
                raise BadLine("{value}; must be an object", shorten(repr(entry)))
            at_s = base_s + number(entry, "t", SECONDS)
            prompt, output = tokens(entry, "in"), tokens(entry, "out")
            think_s = maybe(entry, "think_time", SECONDS)
            busy_s = maybe(entry, "api_time", SECONDS)
            ids = hash_ids(entry, prompt, self._block)
        except BadLine as error:
            return self._index, BadLine("session {index}: {error}", self._index, error), ended_s
        self._steps += 1
        step = f"{self._name}/{self._steps}"
        delay_s = think_s if think_s is not None else max(0.0, at_s - ended_s)
        found = TraceRequest(
            None if before else (at_s if base_s else 0.0), prompt, output, self._own(ids), self._name,
            delay_s if before else 0.0, busy_s, step, before,
        )  # fmt: skip
        return self._index, found, at_s + (busy_s or 0.0)

    def _own(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        for block in ids:
            if block not in self._known:
                self._known[block] = next(self._fresh)
        return tuple(self._known[block] for block in ids)


def read_sharegpt(source: TraceSource, block_tokens: int) -> Rows:
    """ShareGPT: conversations of text, a JSON list or one a line. Each answer is a request that repeats all before it.

    Lengths are estimated from characters; nothing says when a turn was sent, so the next one follows at once.
    """
    base = 0
    for index, item in source.objects():
        if isinstance(item, BadLine):
            yield index, BadLine("line {line}: {error}", index, item)
            continue
        turns = item.get("conversations")
        if not isinstance(turns, list):
            yield index, BadLine("conversation {index}: no list 'conversations'; must be one of turns", index)
            continue
        said, longest = 0, 0
        first = True
        for turn in turns:
            text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
            who = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
            if not isinstance(text, str):
                yield index, BadLine("conversation {index}: a turn without text; must have 'from' and 'value'", index)
                break
            length = -(-len(text) // CHARACTERS_PER_TOKEN)
            if who in ("gpt", "assistant", "chatgpt", "bing", "bard") and said and length:
                ids = tuple(range(base, base + said // block_tokens))
                yield index, TraceRequest(0.0 if first else None, said, length, ids, str(index))
                first, longest = False, said
            said += length
        base += longest // block_tokens + 1
