"""One deployment over many rates, splits or values of a key: the tables behind curves and maps.

Each is many simulated runs of few requests, so tails are coarser than in a single long run; the callers say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from planner.backends import backend
from planner.run.metrics import Summary, summarise
from planner.run.tables import Progress, Run
from planner.spec import Spec, SpecError, dump, parse
from planner.suggestion.probe import load_at
from planner.suggestion.search import system_of
from planner.suggestion.splits import PoolSize, Split, apply
from planner.suggestion.suggest import COARSE, SearchTask, prepared, search
from planner.traffic.workload import build

CURVE = ("ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p90_ms", "tpot_p99_ms")
SWEPT = ("attainment", "requests_per_s", "goodput_requests_per_s", "ttft_p50_ms", "ttft_p99_ms", "tpot_p99_ms")


def simulated(spec: Spec, rate: float | None = None, requests: int | None = None) -> Run:
    """One run of a spec; `rate` offers the same requests faster or slower, `requests` fewer or more of them."""
    if requests is not None:
        spec = prepared(spec, spec_gpus(spec), requests, None)
    system = system_of(spec)
    load = build(spec) if rate is None else load_at(spec, spec.run.seed, rate)
    return backend("simulate").run(replace(system, spec=spec), load)


def spec_gpus(spec: Spec) -> int:
    return system_of(spec).gpus


def rates_up_to(highest: float, count: int = 9) -> list[float]:
    """Equally spaced rates from a tenth of `highest` to 1.25 times it."""
    return [round(float(share) * highest, 6) for share in np.linspace(0.1, 1.25, count)]


def load_curve(spec: Spec, rates: Sequence[float], requests: int) -> pd.DataFrame:
    """One row a rate: percentiles of TTFT and TPOT, attainment, and whether it is past saturation."""
    rows = []
    for rate in rates:
        found = summarise(simulated(spec, rate, requests))
        rows.append({"rate": rate, "saturated": found.saturation.saturated, **_values(found, (*CURVE, "attainment"))})
    return pd.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class Point:
    """One rate of a load curve, so that points can be spread over processes."""

    spec: Spec
    rate: float
    requests: int


def load_point(point: Point) -> pd.DataFrame:
    """One row of `load_curve`."""
    return load_curve(point.spec, [point.rate], point.requests)


def _values(found: Summary, names: Sequence[str]) -> dict[str, float | None]:
    return {name: found[name] for name in names}


def split_map(spec: Spec, gpus: int, requests: int, progress: Progress | None = None) -> pd.DataFrame:
    """The highest rate within the targets of every xPyD of engines with one GPU, up to `gpus` of them."""
    wanted = prepared(spec, gpus, requests, None)
    pairs = [(p, d) for p in range(1, gpus) for d in range(1, gpus - p + 1)]
    rows = []
    for done, (p, d) in enumerate(pairs, start=1):
        split = Split(PoolSize(p, 1), PoolSize(d, 1))
        found = search(SearchTask(apply(wanted, split), wanted.run.seed, None, 2 * COARSE, 1.25))
        rate = found.found.rate
        rows.append({"prefill": p, "decode": d, "rate": rate, "per_gpu": rate / (p + d), "name": split.name})
        if progress:
            progress("splits", done / len(pairs))
    return pd.DataFrame(rows)


def sweep(spec: Spec, key: str, values: Sequence[str]) -> pd.DataFrame:
    """One row a value of a YAML key: the metrics of its run. Raises SpecError for a value that is not allowed."""
    if not key.strip() or not values:
        raise SpecError("sweep: no key or no values; allowed: a key as in workload.rate and values with commas")
    text = dump(spec)
    rows = []
    for value in values:
        found = summarise(simulated(parse(text, "sweep", [f"{key.strip()}={value}"])))
        rows.append({"value": value, "meets_targets": found.meets_targets, **_values(found, SWEPT)})
    return pd.DataFrame(rows)
