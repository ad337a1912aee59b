"""Trace formats: one reader each, in a dict.

A reader turns numbered lines into `TraceRequest`s; a line that does not fit raises BadLine.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from planner.messages import Fault, message
from planner.spec.strict_yaml import shorten

MOST_NUMBER = 1e15  # of any cell: milliseconds since 1970 are far below it
MOST_TOKENS = 1e9
MOST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One line of a trace. Times in seconds; `hash_ids` stand for blocks of the prompt, the last one may be partial.

    A request without `arrival_s` is sent `delay_s` after the end of its session's previous one.
    """

    arrival_s: float | None
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    session: str | None = None
    delay_s: float = 0.0


class BadLine(Fault):
    """A line that does not fit its format: what is wrong, what is allowed. The reader adds file and line."""


# --- fields ------------------------------------------------------------------------------------


def _number(row: dict[str, Any], key: str, allowed: str, low: float = 0.0, most: float = MOST_NUMBER) -> float:
    value = row.get(key)
    try:
        number = float(value) if not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not (math.isfinite(number) and number >= low):
        shown = message("missing") if value is None else shorten(repr(value))
        raise BadLine("{key} is {shown}; must be {allowed}", key, shown, allowed)
    if number > most:
        raise BadLine("{key} is {value}; must be at most {most:g}", key, shorten(repr(value)), most)
    return number


def _tokens(row: dict[str, Any], key: str) -> int:
    number = _number(row, key, message("a whole number, at least 1"), 1.0, MOST_TOKENS)
    if number != int(number):
        raise BadLine("{key} is {value}; must be a whole number, at least 1", key, shorten(repr(row[key])))
    return int(number)


def _hash_ids(row: dict[str, Any], prompt_tokens: int, block_tokens: int) -> tuple[int, ...]:
    ids = row.get("hash_ids") or ()
    if not isinstance(ids, list | tuple) or not all(type(i) is int and 0 <= i <= MOST_ID for i in ids):
        raise BadLine("hash_ids must be a list of whole numbers, zero or more, of 63 bits")
    if ids and len(ids) != -(-prompt_tokens // block_tokens):
        raise BadLine(
            "{count} hash_ids for {prompt_tokens} prompt tokens; with blocks of {block_tokens} tokens "
            "there must be {right} (other block sizes: workload.block_tokens)",
            len(ids),
            prompt_tokens,
            block_tokens,
            -(-prompt_tokens // block_tokens),
        )
    return tuple(ids)


def _id(row: dict[str, Any], key: str, without: int | None = None) -> int | float | str | None:
    value = row.get(key, without)
    if value is not None and not isinstance(value, int | float | str):
        raise BadLine("{key} is {value}; must be a number or text", key, shorten(repr(value)))
    return value


def _json(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadLine("not JSON ({error}); must be one object a line", error) from None
    except RecursionError:
        raise BadLine("nested too deeply; must be one object a line") from None
    if not isinstance(row, dict):
        raise BadLine("a JSON {what}; must be one object a line", type(row).__name__)
    return row


def _clock(text: str | None) -> float:
    """Seconds of an ISO date and time. Digits beyond the microsecond are cut off."""
    try:
        return datetime.fromisoformat((text or "").strip()).timestamp()
    except (ValueError, OverflowError, OSError):  # the last two: a year that the system's clock does not reach
        raise BadLine(
            "TIMESTAMP is {text}; must be a date and time such as 2023-11-16 18:15:46.68", shorten(repr(text))
        ) from None


# --- formats: (lines, block_tokens) -> (line number, request) ------------------------------------

Rows = Iterator[tuple[int, TraceRequest]]
Lines = Iterator[tuple[int, str]]


def _mooncake(lines: Lines, block_tokens: int) -> Rows:
    """Mooncake JSONL: timestamp (ms), input_length, output_length, hash_ids; optional session_id and delay (ms)."""
    for number, line in lines:
        try:
            row = _json(line)
            prompt = _tokens(row, "input_length")
            session = row.get("session_id")
            at_ms = None
            if row.get("timestamp") is not None or session is None or "delay" not in row:
                at_ms = _number(row, "timestamp", message("milliseconds, zero or more"))
            yield (
                number,
                TraceRequest(
                    None if at_ms is None else at_ms / 1e3,
                    prompt,
                    _tokens(row, "output_length"),
                    _hash_ids(row, prompt, block_tokens),
                    None if session is None else str(session),
                    _number(row, "delay", message("milliseconds, zero or more")) / 1e3 if at_ms is None else 0.0,
                ),
            )
        except BadLine as error:
            raise BadLine("line {number}: {error}", number, error) from None


def _bailian(lines: Lines, block_tokens: int) -> Rows:
    """Qwen-Bailian JSONL: chat_id, parent_chat_id (-1: none), timestamp (s), lengths, hash_ids of 16 tokens."""
    roots: dict[Any, str] = {}
    for number, line in lines:
        try:
            row = _json(line)
            prompt = _tokens(row, "input_length")
            chat, parent = _id(row, "chat_id"), _id(row, "parent_chat_id", -1)
            session = roots.setdefault(chat, roots.get(parent, str(chat)))
            at_s = _number(row, "timestamp", message("seconds, zero or more"))
            hash_ids = _hash_ids(row, prompt, block_tokens)
            yield number, TraceRequest(at_s, prompt, _tokens(row, "output_length"), hash_ids, session)
        except BadLine as error:
            raise BadLine("line {number}: {error}", number, error) from None


def _table(lines: Lines, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file as {column: text}."""
    header: list[str] | None = None
    for number, line in lines:
        try:
            cells = next(csv.reader([line]))
        except csv.Error as error:
            most = csv.field_size_limit()
            raise BadLine(
                "line {number}: not CSV ({error}); must be cells of at most {most} characters", number, error, most
            ) from None
        if header is None:
            header = [cell.strip() for cell in cells]
            missing = [column for column in columns if column not in header]
            if missing:
                raise BadLine(
                    "line {number}: no column {missing!r}; the header must have {columns}",
                    number,
                    missing[0],
                    ", ".join(columns),
                )
        elif len(cells) != len(header):
            raise BadLine(
                "line {number}: {count} cells; must be {right} as in the header", number, len(cells), len(header)
            )
        else:
            yield number, dict(zip(header, cells, strict=True))


def _azure(lines: Lines, block_tokens: int) -> Rows:
    """Azure LLM inference traces of 2023 and 2024: TIMESTAMP, ContextTokens, GeneratedTokens."""
    for number, row in _table(lines, ("TIMESTAMP", "ContextTokens", "GeneratedTokens")):
        try:
            at_s = _clock(row["TIMESTAMP"])
            yield number, TraceRequest(at_s, _tokens(row, "ContextTokens"), _tokens(row, "GeneratedTokens"))
        except BadLine as error:
            raise BadLine("line {number}: {error}", number, error) from None


def _burstgpt(lines: Lines, block_tokens: int) -> Rows:
    """BurstGPT CSV, with or without session columns. Rows with 0 response tokens are failed requests: left out."""
    for number, row in _table(lines, ("Timestamp", "Request tokens", "Response tokens")):
        try:
            if _number(row, "Response tokens", message("a whole number, zero or more")) == 0:
                continue
            at_s = _number(row, "Timestamp", message("seconds, zero or more"))
            prompt, output = _tokens(row, "Request tokens"), _tokens(row, "Response tokens")
            yield number, TraceRequest(at_s, prompt, output, (), row.get("Session ID") or None)
        except BadLine as error:
            raise BadLine("line {number}: {error}", number, error) from None


def _vllm_bench(lines: Lines, block_tokens: int) -> Rows:
    """Result file of `vllm bench serve --save-result --save-detailed`: start_times (s), input_lens, output_lens.

    Requests that failed have 0 output tokens and are left out.
    """
    row = _json("\n".join(line for _, line in lines))
    keys = ("start_times", "input_lens", "output_lens")
    for key in keys:
        if not isinstance(row.get(key), list):
            raise BadLine(
                "no list {key!r}; must be the result of `vllm bench serve --save-result --save-detailed`", key
            )
    if len({len(row[key]) for key in keys}) != 1:
        raise BadLine("{counts}; must be equally many", ", ".join(f"{len(row[key])} {key}" for key in keys))
    for index, (start, prompt, output) in enumerate(zip(*(row[key] for key in keys), strict=True)):
        if output == 0:
            continue
        cells = {"start_times": start, "input_lens": prompt, "output_lens": output}
        try:
            at_s = _number(cells, "start_times", message("seconds, zero or more"))
            yield index + 1, TraceRequest(at_s, _tokens(cells, "input_lens"), _tokens(cells, "output_lens"))
        except BadLine as error:
            raise BadLine("request {number}: {error}", index + 1, error) from None


@dataclass(frozen=True, slots=True)
class Format:
    """`read` is the reader; `block_tokens` what a hash id stands for (of no meaning where there are none)."""

    read: Callable[[Lines, int], Rows]
    block_tokens: int


FORMATS: dict[str, Format] = {
    "mooncake": Format(_mooncake, 512),
    "bailian": Format(_bailian, 16),
    "azure": Format(_azure, 512),
    "burstgpt": Format(_burstgpt, 512),
    "vllm_bench": Format(_vllm_bench, 512),
}
