"""ServeGen's client windows: for each client and ten minutes a rate, a law of its gaps, and tables of lengths.

`chunk-N-trace.csv` (start s, rate, cv, law, two parameters) beside `chunk-N-dataset.json` ({start: {"input_tokens":
"{tokens: probability, ...}", ...}}); one client's file or the folder of all. Requests are drawn from them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.messages import message
from planner.spec import SpecError
from planner.traffic.random_streams import stream
from planner.traffic.rows import MOST_TOKENS, RATE, SECONDS, BadLine, Rows, TraceRequest, number
from planner.traffic.trace_files import TraceSource

PAIR = re.compile(r"(?:np\.int64\()?(\d{1,12})\)?\s*:\s*(?:np\.float64\()?([0-9.]+(?:e[-+]?\d+)?)\)?")
CELLS = ("start", "rate", "cv", "law", "shape", "scale")
WIDTH_S = 600.0  # of a window without a next one
MOST_RATE = 1e5  # of one client, requests/s
CHUNK = 4096  # gaps drawn at once

Table = tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True, slots=True)
class RateWindow:
    """A client between two times. `law` is Gamma, Weibull or Poisson; its gaps have the mean 1 / rate."""

    line: int
    start_s: float
    end_s: float
    rate: float
    law: str
    shape: float


def read_servegen(source: TraceSource, block_tokens: int) -> Rows:
    """Requests of one client or a folder of clients, those of one client after the other."""
    for member in source.members("-trace.csv", "-trace.csv.gz"):
        if not re.search(r"-trace\.csv(\.gz)?$", member):
            raise BadLine("not named ...-trace.csv; must lie beside its ...-dataset.json")
        lengths = _lengths(TraceSource(re.sub(r"-trace\.csv(\.gz)?$", "-dataset.json", member)))
        rng = stream(0, f"servegen {os.path.basename(member)}")
        for window in _windows(TraceSource(member)):
            if isinstance(window, BadLine):
                yield 0, window
                continue
            start_s, end_s = max(window.start_s, source.start_s), min(window.end_s, source.end_s)
            tables = next((lengths[start] for start in sorted(lengths, reverse=True) if start <= window.start_s), None)
            if start_s < end_s and window.rate > 0 and tables is not None:
                for at_s in _times(window, start_s, end_s, rng):
                    prompt, output = (int(rng.choice(values, p=shares)) for values, shares in tables)
                    yield window.line, TraceRequest(at_s, max(prompt, 1), max(output, 1))


def _times(window: RateWindow, start_s: float, end_s: float, rng: np.random.Generator) -> Iterator[float]:
    at_s = start_s
    while True:
        if window.law == "Gamma":
            gaps = rng.gamma(window.shape, 1 / window.shape, CHUNK)
        elif window.law == "Weibull":
            gaps = rng.weibull(window.shape, CHUNK)
            gaps /= np.exp(_log_gamma(1 + 1 / window.shape))
        else:
            gaps = rng.exponential(1.0, CHUNK)
        for gap in (gaps / window.rate).tolist():
            at_s += gap
            if at_s >= end_s:
                return
            yield at_s


def _log_gamma(value: float) -> float:
    from math import lgamma

    return lgamma(value)


def _windows(source: TraceSource) -> Iterator[RateWindow | BadLine]:
    pending: RateWindow | None = None
    for line, text in source.lines():
        cells = dict(zip(CELLS, text.split(","), strict=False))
        try:
            if len(text.split(",")) != len(CELLS):
                raise BadLine(
                    "{count} cells; must be {right}: {names}", len(text.split(",")), len(CELLS), ", ".join(CELLS)
                )
            start_s = number(cells, "start", SECONDS)
            rate = number(cells, "rate", RATE, most=MOST_RATE)
            law = cells["law"].strip()
            if law not in ("Gamma", "Weibull", "Poisson", ""):
                raise BadLine("law is {law!r}; must be Gamma, Weibull or Poisson", law[:40])
            shape = (
                number(cells, "shape", message("at least {low:g}", 0.01), 0.01, 1e3)
                if law in ("Gamma", "Weibull")
                else 1.0
            )
            if pending is not None and start_s <= pending.start_s:
                raise BadLine("start is {start:g}; must be after the line before", start_s)
        except BadLine as error:
            yield BadLine("line {line}: {error}", line, error)
            continue
        if pending is not None:
            yield RateWindow(pending.line, pending.start_s, start_s, pending.rate, pending.law, pending.shape)
        pending = RateWindow(line, start_s, start_s + WIDTH_S, rate if law else 0.0, law, shape)
    if pending is not None:
        yield pending


def _lengths(source: TraceSource) -> dict[float, tuple[Table, Table]]:
    """{start s: (prompt lengths, answer lengths)} with their probabilities; windows without any are left out."""
    try:
        data = json.loads(source.text())
        found = {}
        for start, fields in data.items():
            tables = [_table(str(fields[name])) for name in ("input_tokens", "output_tokens")]
            if all(len(values) for values, _ in tables):
                found[float(start)] = (tables[0], tables[1])
        return found
    except SpecError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadLine(
            "{file}: not a dataset; must be {{start: {{input_tokens, output_tokens}}}}", os.path.basename(source.path)
        ) from None


def _table(text: str) -> Table:
    pairs = [(int(value), float(share)) for value, share in PAIR.findall(text) if int(value) <= MOST_TOKENS]
    values = np.array([value for value, _ in pairs], dtype=np.int64)
    shares = np.array([share for _, share in pairs])
    total = float(shares.sum()) if len(pairs) else 0.0
    if not 0 < total < 1e9:
        return values[:0], shares[:0]
    return values, shares / total
