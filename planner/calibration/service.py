"""A measured service (planner.spec.service) from a few end-to-end points: what was in flight, and mean TTFT and TPOT.

In a closed loop N requests are in flight, each for TTFT + TPOT (output - 1): by Little's law N over that are served a
second, and that times the decoding part decodes at once. So every point says how many decode beside one another, and
how many prompt tokens a second its prefill workers read. The rate of prefill is the highest that was seen: it reads at
least that fast, and in a queue just that. Where all that were in flight came at once, their prompts waited for one
another, which the mean TTFT holds and the steady one does not. Workers that do both spend a share of their time on
prompts, by which their TPOT is longer.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from planner.calibration.fitting import FitError, digits
from planner.engine.limits import batch_sizes
from planner.engine.memory import memory
from planner.messages import message
from planner.run.results import is_result, read_results
from planner.run.tables import Run
from planner.spec import SpecError
from planner.spec.csv_file import read_rows
from planner.spec.faults import validate
from planner.spec.service import MeasuredService, Point, TokenTime
from planner.system.resolve import Pool, System

COLUMNS = ("concurrency", "prompt_tokens", "output_tokens", "ttft_ms", "tpot_ms")
WORKERS = ("prefill_workers", "decode_workers")
PASSES = 50  # a faster prefill means a shorter burst, more served a second, and a faster prefill
QUIET = 0.3  # of the prefill's rate: below it prompts hardly wait for one another


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a point says of one worker."""

    point: Point
    load: float  # prompt tokens a second of a prefill worker
    decoding: float  # requests of a decode worker

    @classmethod
    def of(cls, point: Point, rate: float) -> _Seen:
        """`rate`: the prefill's, as far as it is known."""
        decode_ms = point.tpot_ms * (point.output_tokens - 1)
        alone_ms = 1e3 * point.prompt_tokens / rate
        ttft_ms = point.ttft_ms
        if point.requests is not None and point.requests > point.concurrency:
            burst_ms = alone_ms * point.concurrency / point.prefill_workers / 2
            later = point.requests - point.concurrency
            ttft_ms = max((point.requests * ttft_ms - point.concurrency * burst_ms) / later, alone_ms)
        served = 1e3 * point.concurrency / (ttft_ms + decode_ms)
        return cls(
            point,
            served * point.prompt_tokens / point.prefill_workers,
            served * decode_ms / 1e3 / point.decode_workers,
        )


def is_points(path: Path) -> bool:
    """Whether a CSV holds end-to-end points."""
    if path.suffix != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):
        return set(COLUMNS) <= set(next(csv.reader(file), []))
    return False


def read_points(path: Path, system: System) -> list[Point]:
    """Points of a CSV (COLUMNS, and WORKERS where they are not the deployment's), or of a result. Raises SpecError."""
    counts = tuple(len(pool.workers) for pool in (system.pools[0], system.pools[-1]))
    if is_points(path):
        found = [_row(row, number, path, counts) for number, row in enumerate(read_rows(path), 2)]
        if not found:
            raise SpecError("{path}: no points; allowed: a row for each", path)
        return found
    if is_result(path):
        return [_point(read_results(path), path, counts)]
    raise SpecError("{path}: no points; allowed: a result, a .csv with {names}", path, ", ".join(COLUMNS))


def _row(row: dict[str, str | None], line: int, path: Path, counts: tuple[int, ...]) -> Point:
    def number(name: str, otherwise: int | None = None) -> float | int:
        text = (row.get(name) or "").strip()
        if not text and otherwise is not None:
            return otherwise
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise SpecError("{path}:{line}: {name}: {text!r} is no number; allowed: numbers", path, line, name, text)
        return int(value) if otherwise is not None and value == int(value) else value

    values = {name: number(name) for name in COLUMNS}
    if (row.get("requests") or "").strip():
        values["requests"] = number("requests", 1)
    workers = {name: number(name, count) for name, count in zip(WORKERS, counts, strict=True)}
    return validate(Point, {**values, **workers, "source": f"{path.name}:{line}"}, f"{path}:{line}")


def _point(run: Run, path: Path, counts: tuple[int, ...]) -> Point:
    """Means of a result. What was in flight is the mean over its span: all requests' times over it."""
    done = run.requests[run.requests["first_token_s"].notna() & (run.requests["output_tokens"] > 1)]
    if done.empty:
        raise SpecError("{path}: no request has a first token and more; allowed: streamed answers", path)
    ttft = done["first_token_s"] - done["arrival_s"]
    tpot = (done["finish_s"] - done["first_token_s"]) / (done["output_tokens"] - 1)
    span = float(done["finish_s"].max() - done["arrival_s"].min())
    values = {
        "concurrency": float((done["finish_s"] - done["arrival_s"]).sum()) / span,
        "prompt_tokens": float(done["prompt_tokens"].mean()),
        "output_tokens": float(done["output_tokens"].mean()),
        "ttft_ms": 1e3 * float(ttft.mean()),
        "tpot_ms": 1e3 * float(tpot.mean()),
    }
    return validate(Point, {**values, **dict(zip(WORKERS, counts, strict=True)), "source": path.name}, str(path))


def fit_service(points: Sequence[Point], system: System, name: str | None = None) -> MeasuredService:
    """The law of the system's workers. Raises FitError for points that do not tell its terms apart."""
    least = max(1e3 * point.prompt_tokens / point.ttft_ms for point in points)
    rate = math.inf  # no burst: the least that was served
    for _ in range(PASSES):
        seen = [_Seen.of(point, rate) for point in points]
        rate = max(least, *(one.load for one in seen))
    if len({round(one.decoding, 2) for one in seen}) < 2:
        raise FitError(
            "--from: {count} points of one batch; allowed: two or more that decode different numbers", len(seen)
        )
    together = len(system.pools) == 1
    base, more = _token_time(seen, rate if together else math.inf)
    pool = system.pools[-1]
    notes: list[str] = []
    kv = _kv_tokens(seen, pool)
    if kv is not None:
        notes.append(message("its workers held {tokens} tokens, more than the memory gives under vLLM's rules", kv))
    quiet = [one for one in seen if one.load < QUIET * rate]
    spare = [one.point.ttft_ms - 1e3 * one.point.prompt_tokens / rate for one in quiet]
    context = [round(one.point.prompt_tokens + one.point.output_tokens) for one in seen]
    batches = [one.decoding for one in seen]
    return MeasuredService(
        kind="measured_service",
        name=name or f"{pool.model.name}-{pool.hardware.name}-service",
        model=system.spec.model,
        hardware=pool.hardware.name,
        tp=pool.tp,
        prefill_tokens_per_s=digits(rate),
        tpot_ms=TokenTime(base=digits(base), per_request=digits(more)),
        request_ms=digits(max(min(spare, default=0.0), 0.0)),
        kv_cache_tokens=kv,
        batch=(math.floor(min(batches)), math.ceil(max(batches))),
        context=(min(context), max(context)),
        points=tuple(points),
        notes=tuple(notes),
    )


def _token_time(seen: Sequence[_Seen], rate: float) -> tuple[float, float]:
    """(ms of a step, ms more of each request in it). `rate`: of the prompts between a worker's own steps."""
    times = np.array([one.point.tpot_ms * (1.0 - min(one.load / rate, 0.9)) for one in seen])
    design = np.array([[1.0, one.decoding] for one in seen]) / times[:, None]
    found, _ = nnls(design, np.ones(len(seen)))
    if found[0] <= 0:
        raise FitError("--from: TPOT grows faster than the batch; allowed: points of one engine and one length")
    return float(found[0]), float(found[1])


def _kv_tokens(seen: Sequence[_Seen], pool: Pool) -> int | None:
    """Tokens that a decode worker held at least, where vLLM would not have room for them; None where it has."""
    held = max(one.decoding * (one.point.prompt_tokens + one.point.output_tokens) for one in seen)
    budget, seqs, _ = batch_sizes(pool.setup)
    room = memory(pool.setup, budget, seqs).kv / pool.setup.kv_bytes_per_token
    return math.ceil(held) if held > room else None
