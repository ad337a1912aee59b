"""The hours of a day: how many requests come, and how long they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from planner.spec import Empirical, Poisson, Spec, SpecError
from planner.spec.csv_file import read_rows
from planner.traffic.rows import TraceRequest, cells_of
from planner.traffic.trace_scan import Scan, Selection

POINTS = 16  # values that stand for an hour's distribution of lengths
FEWEST = 5  # requests of an hour below which it counts as empty
MOST_HOURS = 24 * 31


@dataclass(frozen=True, slots=True)
class Hour:
    """One stretch of the day. Lengths are quantiles of its requests, in tokens; `rate` in requests a second."""

    start_s: float
    length_s: float
    rate: float
    prompts: tuple[float, ...]
    outputs: tuple[float, ...]
    reused: float = 0.0  # share of the prompt tokens that began a prompt before, as caches that forget nothing hold

    @property
    def prompt_mean(self) -> float:
        return sum(self.prompts) / len(self.prompts) if self.prompts else 0.0

    @property
    def output_mean(self) -> float:
        return sum(self.outputs) / len(self.outputs) if self.outputs else 0.0

    @property
    def requests(self) -> float:
        return self.rate * self.length_s

    @property
    def reused_tokens(self) -> float:
        """Prompt tokens that caches may spare."""
        return self.reused * self.prompt_mean * self.requests

    def traffic(self, spec: Spec) -> Spec:
        """The spec with this hour's traffic. Prompt and output of a request are drawn apart.

        What is reused is a beginning that all prompts share, as long as makes the same share of all prompt tokens.
        """
        prompts, outputs = (Empirical(kind="empirical", values=values) for values in (self.prompts, self.outputs))
        traffic = Poisson(
            rate=self.rate,
            requests=500,
            prompt_tokens=prompts,
            output_tokens=outputs,
            shared_prefix_tokens=_beginning(self.prompts, self.reused),
        )
        return spec.model_copy(update={"workload": traffic})


def _beginning(prompts: Sequence[float], share: float) -> int:
    """The length of a common beginning of these prompts that is `share` of their tokens."""
    low, high = 0.0, max(prompts)
    for _ in range(40 if share else 0):
        middle = (low + high) / 2
        if sum(min(middle, one) for one in prompts) < share * sum(prompts):
            low = middle
        else:
            high = middle
    return round(low)


def of_trace(
    path: Path,
    form: str,
    hour_s: float,
    scale: float,
    selection: Selection,
    told: Callable[[float], None] | None = None,
) -> list[Hour]:
    """The hours of a trace, `scale` times as busy. Raises SpecError for a trace without send times, or too long."""
    hours: dict[int, list[TraceRequest]] = {}
    known: set[int] = set()
    again: dict[int, float] = {}  # prompt tokens of an hour that came before
    first: float | None = None
    last = 0.0
    for row in Scan(path, form, None, selection, told):
        if row.arrival_s is None:
            continue
        first = row.arrival_s if first is None else first
        last = max(last, row.arrival_s - first)
        at = int((row.arrival_s - first) // hour_s)
        hours.setdefault(at, []).append(row)
        if row.hash_ids:
            seen = sum(1 for _ in takewhile(known.__contains__, row.hash_ids))
            again[at] = again.get(at, 0.0) + row.prompt_tokens * seen / len(row.hash_ids)
            known.update(row.hash_ids)
    if not hours or last <= 0:
        raise SpecError("{path}: no send times; allowed: a trace of requests at different times", path)
    count = max(1, math.ceil(last / hour_s))
    if count > MOST_HOURS:
        raise SpecError(
            "{path}: {count} hours; allowed: up to {most_hours} (--hour, --from and --to choose)",
            path,
            count,
            MOST_HOURS,
        )
    lengths = [min(hour_s, last - at * hour_s) for at in range(count)]
    return [_hour(at, hour_s, lengths[at], hours.get(at, []), scale, again.get(at, 0.0)) for at in range(count)]


def _hour(at: int, hour_s: float, length_s: float, rows: Sequence[TraceRequest], scale: float, again: float) -> Hour:
    if len(rows) < FEWEST:
        return Hour(at * hour_s, length_s, 0.0, (), ())
    return Hour(
        at * hour_s,
        length_s,
        scale * len(rows) / length_s,
        _quantiles([row.prompt_tokens for row in rows]),
        _quantiles([row.output_tokens for row in rows]),
        round(again / sum(row.prompt_tokens for row in rows), 3),
    )


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """POINTS values at the middles of equal shares, stretched to the mean of all."""
    found = np.maximum(np.quantile(np.asarray(values, float), (np.arange(POINTS) + 0.5) / POINTS), 1.0)
    return tuple(np.maximum(found * np.mean(values) / found.mean(), 1.0).round(1).tolist())


COLUMNS = ("hour", "rate", "prompt_tokens", "output_tokens")
REUSED = "reused"  # a column that may be there, after the others


def of_profile(path: Path, hour_s: float, scale: float) -> list[Hour]:
    """A CSV of hours: hour, rate, prompt_tokens, output_tokens (means), maybe reused (a share). Raises SpecError."""
    found: list[Hour] = []
    last = -math.inf
    for number, row in enumerate(read_rows(path), start=2):
        try:
            hour, rate, prompt, output = (float(row[name] or "") for name in COLUMNS)
            reused = float(row.get(REUSED) or 0.0)
        except (KeyError, TypeError, ValueError):
            raise SpecError(
                "{path}:{number}: is no hour; allowed: numbers in columns {columns}", path, number, ", ".join(COLUMNS)
            ) from None
        if not (rate >= 0 and prompt >= 1 and output >= 1 and all(map(math.isfinite, (rate, prompt, output)))):
            raise SpecError("{path}:{number}: allowed: a rate from 0, and lengths from 1 token", path, number)
        if not hour > last:
            raise SpecError(
                "{path}:{number}: hour {hour:g} after {last:g}; allowed: rising hours", path, number, hour, last
            )
        last = hour
        if not 0 <= reused < 1:
            raise SpecError(
                "{path}:{number}: reused {reused:g}; allowed: a share from 0 to below 1", path, number, reused
            )
        found.append(Hour((number - 2) * hour_s, hour_s, scale * rate, (prompt,), (output,), reused))
    if not found:
        raise SpecError("{path}: no hours; allowed: a line for each, in columns {columns}", path, ", ".join(COLUMNS))
    return found


def is_profile(path: Path) -> bool:
    """Whether a file is meant as a CSV of hours: it has a column of hours or rates, which no trace has."""
    if not path.is_file() or path.suffix != ".csv":
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return not {"hour", "rate"}.isdisjoint(cells_of(file.readline()))
