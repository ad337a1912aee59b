"""Any table of requests, CSV or JSON lines: a time, prompt and output tokens, by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from planner.messages import message
from planner.traffic.rows import (
    COUNT,
    SECONDS,
    BadLine,
    Found,
    Rows,
    TraceRequest,
    cells_of,
    clock,
    maybe,
    number,
    session_of,
    table,
    tokens,
)
from planner.traffic.trace_files import TraceSource

_USAGE = {"usage", "usagedetails"}
NOTE = message("The columns were told by their names: times are seconds where those name no other unit.")
UNITS = {"ms": 1e-3, "millis": 1e-3, "us": 1e-6, "ns": 1e-9, "nano": 1e-9, "unixnano": 1e-9}
EPOCHS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))  # a time since 1970 without a unit, by its size
MOST_TIME = 1e20
_TIME = re.compile(
    r"(?:request)?(?:(?:arriv(?:al|ed)|start|send|sent|launch|creat(?:ed|ion)|begin)(?:time|at|ts)?|time|ts|datetime)"
    r"(?:stamp)?(s|sec|seconds|ms|millis|us|ns|nano|unixnano)?"
)
# A web server's length of a request or a response is in bytes.
_PROMPT = re.compile(
    r"(?:genai)?(?:usage)?(?:num|n)?(?:prompt|input|prefill|context)(?:sequence)?(?:tokens?|tokencount|len|length|size)"
    r"|isl"
    r"|requesttokens?|tokens?(?:prompt|input)"
)
_OUTPUT = re.compile(
    r"(?:genai)?(?:usage)?(?:num|n)?(?:output|completion|candidates|generat(?:ed|ion)|decode)(?:sequence)?"
    r"(?:tokens?|tokencount|len|length)|tokensize|osl|responsetokens?|tokens?(?:completion|output)"
)
# Anthropic's `input_tokens` are those that its cache neither held nor took; other names mean the whole prompt.
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
_COUNT = re.compile(r"(?:num|n|numberof|total)(?:model)?requests|requests?count|modelrequests")
_SESSION = re.compile(r"(?:session|conversation|chat)(?:id)?")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def named(columns: Iterable[str]) -> dict[str, str] | None:
    """{time, prompt, output, and session where there is one: its column}; None when one of the three is missing.

    Raises BadLine for rows that are sums of many requests.
    """
    found: dict[str, str] = {}
    names = {column: _plain(column) for column in columns}
    counted = next((column for column, name in names.items() if _COUNT.fullmatch(name)), None)
    for column, name in names.items():
        if name == "sessionid" and "runtype" in names.values():
            continue  # LangSmith calls its projects so
        for role, pattern in (("time", _TIME), ("prompt", _PROMPT), ("output", _OUTPUT), ("session", _SESSION)):
            if name and pattern.fullmatch(name):
                found.setdefault(role, column)
    if not {"time", "prompt", "output"} <= found.keys():
        return None
    if counted is not None:
        raise BadLine("{key}: rows that are sums of many requests; must be a row a request", counted)
    return found


def _flat(row: dict[str, Any], depth: int = 3) -> dict[str, Any]:
    """A row with what its sections hold beside its own keys: `usage: {prompt_tokens: 5}`, Langfuse's `{input: 5}`."""
    made = {key: value for key, value in row.items() if not isinstance(value, dict)}
    for key, value in row.items():
        if isinstance(value, dict) and depth:
            if _plain(key) in _USAGE and not named({"time", *value}):
                value = {f"{name}_tokens" if name in ("input", "output") else name: value[name] for name in value}
            made = {**_flat(value, depth - 1), **made}
    return made


def _rows(source: TraceSource) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    if not source.head().lstrip().startswith(("{", "[")):
        yield from table(source.lines(), ())
        return
    for number_of_row, row in source.objects():
        yield number_of_row, row if isinstance(row, BadLine) else _flat(row)


def _time(row: dict[str, Any], column: str) -> float:
    """Seconds. A unit in the name counts; without one, dates are dates and large numbers milliseconds or less."""
    value = row[column]
    if isinstance(value, str) and not re.fullmatch(r"\s*[-+.\deE]+\s*", value):
        return clock(value, column)
    match = _TIME.fullmatch(_plain(column))
    found = number(row, column, SECONDS, most=MOST_TIME)
    unit = match[1] if match else None
    if unit is not None:
        return found * UNITS.get(unit, 1.0)
    return found * next((factor for least, factor in EPOCHS if found >= least), 1.0)


def _cached(row: dict[str, Any], prompt: str) -> int:
    """Tokens of the prompt that its column does not count."""
    return sum(int(maybe(row, key, COUNT) or 0) for key in _CACHED) if _plain(prompt) == "inputtokens" else 0


def read_columns(source: TraceSource, block_tokens: int) -> Rows:
    """A row a request; its columns are those of the first row."""
    roles: dict[str, str] | None = None
    for line_number, row in _rows(source):
        try:
            if isinstance(row, BadLine):
                raise row
            roles = roles or named(row)
            if roles is None:
                raise BadLine("no columns of a time, prompt tokens and output tokens; must have all three")
            missing = next((column for column in roles.values() if column not in row), None)
            if missing is not None:
                raise BadLine("{key} is missing; must be in every row", missing)
            session = session_of(row, roles["session"]) if "session" in roles else None
            prompt, output = tokens(row, roles["prompt"]) + _cached(row, roles["prompt"]), tokens(row, roles["output"])
            found: Found = TraceRequest(_time(row, roles["time"]), prompt, output, (), session)
            yield line_number, found
        except BadLine as error:
            yield line_number, BadLine("line {line}: {error}", line_number, error)


def recognises(text: str, keys: Iterable[str]) -> bool:
    """Whether the beginning of a file is such a table; `keys` are those of its JSON."""
    names = set(keys) if text.startswith(("{", "[")) else cells_of(text.partition("\n")[0])
    if {"input", "output"} <= set(names) and _USAGE & set(map(_plain, names)):
        names = {*names, "input_tokens", "output_tokens"}
    try:
        return named(names) is not None
    except BadLine:
        return True  # the reader says what is wrong with it
