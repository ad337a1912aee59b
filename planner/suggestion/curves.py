"""One deployment over many rates or values of a key: the tables behind curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from planner.backends import backend
from planner.run.metrics import Summary, summarise
from planner.run.tables import Run
from planner.spec import Spec, SpecError, dump, parse
from planner.suggestion.probe import Period, load_at
from planner.suggestion.search import Served, judged, served, system_of
from planner.suggestion.tasks import prepared
from planner.traffic.workload import build

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
SWEPT = ("attainment", "requests_per_s", "goodput_requests_per_s", "ttft_p50_ms", "ttft_p99_ms", "tpot_p99_ms")


def simulated(spec: Spec, rate: float | None = None, requests: int | None = None) -> Run:
    """One run of a spec; `rate` offers the same requests faster or slower, `requests` fewer or more of them."""
    if requests is not None:
        spec = prepared(spec, spec_gpus(spec), requests, None)
    system = system_of(spec)
    load = build(spec) if rate is None else load_at(spec, spec.run.seed, rate)
    return backend("simulate").run(replace(system, spec=spec), load)


IDLE_RATE, IDLE_REQUESTS = 0.1, 200  # requests per second that hardly ever meet each other


def nearly_idle(spec: Spec) -> Run:
    """A run whose requests hardly ever meet: the least that this deployment takes."""
    return simulated(spec, IDLE_RATE, IDLE_REQUESTS)


def spec_gpus(spec: Spec) -> int:
    return system_of(spec).gpus


def rates_up_to(highest: float, count: int = 9) -> list[float]:
    """Equally spaced rates from a tenth of `highest` to 1.25 times it."""
    return [round(float(share) * highest, 6) for share in np.linspace(0.1, 1.25, count)]


def load_curve(spec: Spec, rates: Sequence[float], period: Period | None) -> pd.DataFrame:
    """One row a rate: percentiles of TTFT and TPOT, attainment, the tokens/s of a user and of all GPUs, and whether its
    line of requests keeps growing.

    The runs of `suggest`, judged as it judges them: `period` is the answer's; None: the whole list, less its first
    tenth. At one rate and seed, attainment is the same number.
    """
    system = system_of(spec)
    rows = []
    for rate in rates:
        run = served(system, rate, spec.run.seed, period=period)
        assert isinstance(run, Served)  # nothing was to be abandoned
        shown = judged(run, rate, spec.slo)
        begun = run.judged & run.ok
        times = {"ttft": run.ttft[begun], "tpot": run.tpot[begun & (run.tokens > 1)]}
        values = {
            f"{name}_{point}_ms": float(np.percentile(times[name] * 1e3, percent)) if len(times[name]) else None
            for name in times
            for point, percent in PERCENTILES.items()
        }
        pace = None if math.isnan(shown.tokens_s_user) else shown.tokens_s_user
        values |= {"tokens_s_user": pace, "output_tokens_s": shown.output_tokens_s}
        rows.append({"rate": rate, "saturated": not shown.kept_up, **values, "attainment": shown.attainment})
    return pd.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """One rate of a load curve, so that points can be spread over processes."""

    spec: Spec
    rate: float
    period: Period | None


def load_point(point: LoadPoint) -> pd.DataFrame:
    """One row of `load_curve`."""
    return load_curve(point.spec, [point.rate], point.period)


def _values(found: Summary, names: Sequence[str]) -> dict[str, float | None]:
    return {name: found[name] for name in names}


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
