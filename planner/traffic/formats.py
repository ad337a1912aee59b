"""Trace formats of one request a line: one function each, and all formats in a dict.

A reader turns a file into numbered rows: a `TraceRequest`, a `BadLine` for a row that does not fit, or None for a
request that had failed when it was recorded. What it raises as BadLine makes the whole file unusable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from planner.messages import Message, message
from planner.traffic import columns as plain
from planner.traffic import trace_documents as documents
from planner.traffic.rows import (
    COUNT,
    MILLISECONDS,
    NANOSECONDS,
    SECONDS,
    BadLine,
    Found,
    Rows,
    TraceRequest,
    clock,
    delimiter_of,
    hash_ids,
    identifier,
    maybe,
    number,
    part,
    session_of,
    table,
    tokens,
)
from planner.traffic.servegen import read_servegen
from planner.traffic.trace_files import TraceSource

__all__ = ["FORMATS", "BadLine", "Format", "TraceRequest", "recognised"]

ESTIMATED = message("The trace holds text: lengths are estimated at a token for every 4 characters.")
KEYS = re.compile(r'"((?:[^"\\]|\\.){1,80})"\s*:')


def _each(rows: Iterable[tuple[int, Any]], read: Callable[[Any], Found]) -> Rows:
    """`read` applied to every row; a row that does not fit says its line."""
    for line, row in rows:
        try:
            if isinstance(row, BadLine):
                raise row
            yield line, read(row)
        except BadLine as error:
            yield line, BadLine("line {line}: {error}", line, error)


# --- formats -----------------------------------------------------------------------------------


def _mooncake(source: TraceSource, block_tokens: int) -> Rows:
    """Mooncake JSONL: timestamp (ms), input_length, output_length, hash_ids; optional session_id and delay (ms)."""

    def read(row: dict[str, Any]) -> TraceRequest:
        prompt = tokens(row, "input_length")
        session = session_of(row, "session_id")
        at_ms = None
        if row.get("timestamp") is not None or session is None or "delay" not in row:
            at_ms = number(row, "timestamp", MILLISECONDS)
        return TraceRequest(
            None if at_ms is None else at_ms / 1e3,
            prompt,
            tokens(row, "output_length"),
            hash_ids(row, prompt, block_tokens),
            session,
            number(row, "delay", MILLISECONDS) / 1e3 if at_ms is None else 0.0,
        )

    return _each(source.objects(), read)


def _bailian(source: TraceSource, block_tokens: int) -> Rows:
    """Qwen-Bailian JSONL: chat_id, parent_chat_id (-1: none), timestamp (s), lengths, hash_ids of 16 tokens."""
    roots: dict[Any, str] = {}

    def read(row: dict[str, Any]) -> TraceRequest:
        prompt = tokens(row, "input_length")
        chat, parent = identifier(row, "chat_id"), identifier(row, "parent_chat_id", -1)
        session = roots.setdefault(chat, roots.get(parent, str(chat)))
        at_s = number(row, "timestamp", SECONDS)
        return TraceRequest(at_s, prompt, tokens(row, "output_length"), hash_ids(row, prompt, block_tokens), session)

    return _each(source.objects(), read)


def _azure(source: TraceSource, block_tokens: int) -> Rows:
    """Azure LLM inference traces of 2023 and 2024: TIMESTAMP, ContextTokens, GeneratedTokens."""

    def read(row: dict[str, Any]) -> TraceRequest:
        return TraceRequest(clock(row["TIMESTAMP"]), tokens(row, "ContextTokens"), tokens(row, "GeneratedTokens"))

    return _each(table(source.lines(), ("TIMESTAMP", "ContextTokens", "GeneratedTokens")), read)


def _burstgpt(source: TraceSource, block_tokens: int) -> Rows:
    """BurstGPT CSV, with or without session columns. Rows with 0 response tokens are failed requests."""

    def read(row: dict[str, Any]) -> TraceRequest | None:
        if number(row, "Response tokens", COUNT) == 0:
            return None
        at_s = number(row, "Timestamp", SECONDS)
        prompt, output = tokens(row, "Request tokens"), tokens(row, "Response tokens")
        busy_s = maybe(row, "Elapsed time", SECONDS)
        return TraceRequest(at_s, prompt, output, (), session_of(row, "Session ID"), 0.0, busy_s)

    return _each(table(source.lines(), ("Timestamp", "Request tokens", "Response tokens")), read)


def _aiperf(source: TraceSource, block_tokens: int) -> Rows:
    """AIPerf's profile_export.jsonl: one record a request. Warm-up and requests with an error are left out."""

    def read(row: dict[str, Any]) -> TraceRequest | None:
        about, measured = part(row, "metadata"), part(row, "metrics")
        if row.get("error") or about.get("benchmark_phase", "profiling") != "profiling":
            return None
        lengths = {
            name: part(measured, name).get("value") for name in ("input_sequence_length", "output_sequence_length")
        }
        start_ns = number(about, "request_start_ns", NANOSECONDS, most=1e20)
        end_ns = number(about, "request_end_ns", NANOSECONDS, most=1e20)
        return TraceRequest(
            start_ns / 1e9,
            tokens(lengths, "input_sequence_length"),
            tokens(lengths, "output_sequence_length"),
            (),
            session_of(about, "x_correlation_id") or session_of(about, "conversation_id"),
            0.0,
            max(0.0, end_ns - start_ns) / 1e9,
        )

    return _each(source.objects(), read)


@dataclass(frozen=True, slots=True)
class Format:
    """`read` is the reader; `block_tokens` what a hash id stands for (of no meaning where there are none).

    `starts`: send times are recorded; or drawn; or unknown, and all sessions begin together; or a rate is needed.
    `note` is what a reader of the results must know.
    """

    read: Callable[[TraceSource, int], Rows]
    block_tokens: int
    starts: Literal["recorded", "drawn", "together", "unknown"] = "recorded"
    note: Message | None = None


FORMATS: dict[str, Format] = {
    "mooncake": Format(_mooncake, 512),
    "bailian": Format(_bailian, 16),
    "azure": Format(_azure, 512),
    "burstgpt": Format(_burstgpt, 512),
    "agents": Format(documents.read_agents, 64, "together"),
    "servegen": Format(read_servegen, 512, "drawn"),
    "sharegpt": Format(documents.read_sharegpt, 16, "unknown", ESTIMATED),
    "vllm_bench": Format(documents.read_vllm_bench, 512),
    "aiperf": Format(_aiperf, 512),
    "guidellm": Format(documents.read_guidellm, 512),
    "planner": Format(documents.read_planner, 512),
    "columns": Format(plain.read_columns, 512, note=plain.NOTE),
}


def recognised(head: str) -> str | None:
    """The format of a file, by the beginning of its text; None when it is none of FORMATS."""
    text = head.lstrip("\ufeff \t\r\n")
    first = text.partition("\n")[0].strip()
    columns = {cell.strip().strip('"') for cell in first.split(delimiter_of(first))}
    keys = set(KEYS.findall(text))
    if text.startswith("PAR1"):
        return "planner"
    if {"TIMESTAMP", "ContextTokens"} <= columns:
        return "azure"
    if {"Timestamp", "Request tokens"} <= columns:
        return "burstgpt"
    if re.fullmatch(r"[0-9.]+,[0-9.e-]+,[0-9.e-]+,(Gamma|Weibull|Poisson|),[0-9.e-]+,[0-9.e-]+", first):
        return "servegen"
    if not text.startswith(("{", "[")):
        return "columns" if plain.recognises(text, ()) else None
    for name, has in (
        ("sharegpt", {"conversations"}),
        ("guidellm", {"benchmarks"}),
        ("agents", {"block_size", "requests"}),
        ("vllm_bench", {"input_lens"}),
        ("vllm_bench", {"total_input_tokens", "request_throughput"}),
        ("aiperf", {"metadata", "metrics"}),
        ("bailian", {"chat_id"}),
        ("mooncake", {"input_length"}),
    ):
        if has <= keys:
            return name
    if plain.recognises(text, keys):
        return "columns"
    return "mooncake" if {"timestamp", "hash_ids"} <= keys or {"timestamp", "output_length"} <= keys else None
