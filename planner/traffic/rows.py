"""One row of a trace, and the cells that it is read from. A cell that does not fit raises BadLine."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from planner.messages import Fault, Message, message
from planner.spec.strict_yaml import shorten

MOST_NUMBER = 1e15  # of any cell: milliseconds since 1970 are far below it
MOST_TOKENS = 1e9
MOST_ID = 2**63 - 1
MOST_HASH_IDS = 4_000_000  # of one row: a prompt of 64 million tokens in blocks of 16

# What a cell may hold.
SECONDS = message("seconds, zero or more")
MILLISECONDS = message("milliseconds, zero or more")
NANOSECONDS = message("nanoseconds, zero or more")
RATE = message("requests/s, zero or more")
TOKENS = message("tokens, at least 1")
COUNT = message("a whole number, zero or more")
FROM_ONE = message("a whole number, at least 1")


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace. Times in seconds; `hash_ids` stand for blocks of the prompt, the last one may be partial.

    A request without `arrival_s` is sent `delay_s` after the end of those that it follows: the `steps` named in
    `after`, or else its session's previous one. `busy_s` is how long the recording took to answer it.
    """

    arrival_s: float | None
    prompt_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    session: str | None = None
    delay_s: float = 0.0
    busy_s: float | None = None
    step: str = ""
    after: tuple[str, ...] = ()


class BadLine(Fault):
    """A row that does not fit its format: what is wrong, what is allowed.

    Yielded by a reader, it is one row that can be left out; raised, the file as a whole cannot be used.
    """


Found = TraceRequest | BadLine | None  # None: a request that failed when it was recorded
Rows = Iterator[tuple[int, Found]]
Lines = Iterator[tuple[int, str]]


def number(row: dict[str, Any], key: str, allowed: Message, low: float = 0.0, most: float = MOST_NUMBER) -> float:
    value = row.get(key)
    try:
        found = float(value) if not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    except OverflowError:  # a whole number of more than 308 digits
        found = math.inf
    if not (math.isfinite(found) and found >= low):
        shown = message("missing") if value is None else shorten(repr(value))
        raise BadLine("{key} is {shown}; must be {allowed}", key, shown, allowed)
    if found > most:
        raise BadLine("{key} is {value}; must be at most {most:g}", key, shorten(repr(value)), most)
    return found


def maybe(row: dict[str, Any], key: str, allowed: Message, factor: float = 1.0) -> float | None:
    """The number times `factor`, None when the row has none."""
    return None if row.get(key) in (None, "") else number(row, key, allowed) * factor


def tokens(row: dict[str, Any], key: str) -> int:
    found = number(row, key, FROM_ONE, 1.0, MOST_TOKENS)
    if found != int(found):
        raise BadLine("{key} is {shown}; must be {allowed}", key, shorten(repr(row[key])), FROM_ONE)
    return int(found)


def hash_ids(row: dict[str, Any], prompt_tokens: int, block_tokens: int) -> tuple[int, ...]:
    """Ids of the prompt's blocks: one for each, or for the whole ones only."""
    ids = row.get("hash_ids") or ()
    if not isinstance(ids, list | tuple) or not all(type(i) is int and 0 <= i <= MOST_ID for i in ids):
        raise BadLine("hash_ids must be a list of whole numbers, zero or more, of 63 bits")
    if len(ids) > MOST_HASH_IDS:
        raise BadLine("{count} hash_ids; must be at most {most}", len(ids), MOST_HASH_IDS)
    if ids and len(ids) not in (-(-prompt_tokens // block_tokens), prompt_tokens // block_tokens):
        raise BadLine(
            "{count} hash_ids for {prompt_tokens} prompt tokens; with blocks of {block_tokens} tokens there must be "
            "{right} "
            "(other block sizes: workload.block_tokens)",
            len(ids),
            prompt_tokens,
            block_tokens,
            -(-prompt_tokens // block_tokens),
        )
    return tuple(ids)


def identifier(row: dict[str, Any], key: str, without: int | None = None) -> int | float | str | None:
    value = row.get(key, without)
    if value is not None and not isinstance(value, int | float | str):
        raise BadLine("{key} is {value}; must be a number or text", key, shorten(repr(value)))
    return value


def session_of(row: dict[str, Any], key: str) -> str | None:
    value = identifier(row, key)
    return None if value in (None, "") else shorten(str(value))


def part(row: dict[str, Any], key: str) -> dict[str, Any]:
    """A section of a row; empty when it is missing."""
    value = row.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadLine("{key} is {value}; must be an object", key, shorten(repr(value)))
    return value or {}


def json_object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadLine("not JSON ({error}); must be one object a line", error) from None
    except RecursionError:
        raise BadLine("nested too deeply; must be one object a line") from None
    if not isinstance(row, dict):
        raise BadLine("a JSON {what}; must be one object a line", type(row).__name__)
    return row


def clock(text: str | None, key: str = "TIMESTAMP") -> float:
    """Seconds of an ISO date and time. Digits beyond the microsecond are cut off."""
    try:
        return datetime.fromisoformat((text or "").strip()).timestamp()
    except (ValueError, OverflowError, OSError):  # the last two: a year that the system's clock does not reach
        raise BadLine(
            "{key} is {text}; must be a date and time such as 2023-11-16 18:15:46.68", key, shorten(repr(text))
        ) from None


def delimiter_of(header: str) -> str:
    """What parts a table's cells: a comma, or where its header has none of those, a semicolon or a tab."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def cells_of(line: str, delimiter: str | None = None) -> list[str]:
    """The cells of a line of CSV. Raises csv.Error."""
    return [cell.strip() for cell in next(csv.reader([line.strip("\r\n")], delimiter=delimiter or delimiter_of(line)))]


def table(lines: Lines, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    """Rows of a CSV file as {column: text}. Raises BadLine for a header without those columns."""
    header: list[str] | None = None
    mark = ","
    for line_number, line in lines:
        try:
            mark = delimiter_of(line) if header is None else mark
            cells = next(csv.reader([line], delimiter=mark))
        except csv.Error as error:
            most = csv.field_size_limit()
            yield line_number, BadLine("not CSV ({error}); must be cells of at most {most} characters", error, most)
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            missing = [column for column in columns if column not in header]
            if missing:
                raise BadLine(
                    "line {line}: no column {missing!r}; the header must have {columns}",
                    line_number,
                    missing[0],
                    ", ".join(columns),
                )
        elif len(cells) != len(header):
            yield line_number, BadLine("{count} cells; must be {right} as in the header", len(cells), len(header))
        else:
            yield line_number, dict(zip(header, cells, strict=True))
