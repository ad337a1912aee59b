"""How sure a prediction is: the same load under other seeds, and under profiles and hand-overs that may be as well.

A run is drawn from what a calibration does not know: its parameters (the fit's covariance), how far steps of a kind are
from its law (residuals), and how far servers of the same engine are from each other (`Spread`). Launches take other
levels in each run. No load decides how wide an interval is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from planner.engine.law import SHAPES, of_part
from planner.engine.profile_file import GROUPS, HostLaw, ProfileFile, Spread
from planner.engine.profiles import LatencyProfile, from_file
from planner.engine.provenance import comparable
from planner.engine.tp_scaling import SCALED, is_scaled
from planner.run.tables import Run
from planner.spec import Spec
from planner.system.knobs import changed_step
from planner.system.resolve import System

# Of four H200 servers with one engine on two hosts (benchmarks/fit_hand_over.py): for profiles whose own spread is of
# too few calibrations.
SERVERS = Spread(calibrations=4, of="servers", decode=0.03, prompts=0.04, launches=0.2, requests=0.1, responses=0.13)
WAY = 0.2  # of the way between workers: 4.1 ms + 1.5 us a token on one host of two H200s, 5.4 and 1.9 on another
FEW = 3
DEVIATION = 1.25  # of a normal distribution, in its mean absolute deviations
DECODES = of_part("decode", "context")
PROMPTS = of_part("floor", "line", "prompt")
LAUNCHES = of_part("launch")


@dataclass(frozen=True, slots=True)
class Interval:
    """Central `confidence` interval of a metric, and its median."""

    low: float
    median: float
    high: float
    draws: int


def sample_files(file: ProfileFile, count: int, rng: np.random.Generator) -> list[ProfileFile]:
    """Parameter vectors drawn from the fit's covariance, never below zero; the file itself when it has no fit."""
    if file.fit is None or not file.fit.parameters:
        return [file] * count
    names = file.fit.parameters
    centre = np.array([getattr(file.step, name) for name in names])
    drawn = np.maximum(rng.multivariate_normal(centre, np.array(file.fit.covariance), size=count), 0.0)
    files = []
    for row in drawn.tolist():
        values = dict(zip(names, row, strict=True))
        values |= {name: values[other] for name, other in file.fit.ties.items() if other in values}
        host = {
            name: max(0.0, float(rng.normal(getattr(file.host, name), error)))
            for name, error in file.fit.host_errors.items()
        }
        drawn_parts = {"step": file.step.model_copy(update=values), "host": file.host.model_copy(update=host)}
        files.append(file.model_copy(update=drawn_parts))
    return files


def sample_profiles(profile: LatencyProfile, count: int, rng: np.random.Generator) -> list[LatencyProfile]:
    """Profiles with parameters drawn from the covariance. A hand-made step law has none and is repeated."""
    if profile.file is None:
        return [profile] * count
    found = comparable(profile)
    if found is not None:
        within = NormalDist().inv_cdf(0.95)  # 90 % of both signs lie within
        deviations = [np.log1p(off.p90) / within for off in (found.tpot, found.ttft)]
        factors = np.exp(rng.normal(0.0, deviations, size=(count, 2))).tolist()
        return [_slower(profile, decode, prompts) for decode, prompts in factors]
    return [replace(from_file(file), warnings=profile.warnings) for file in sample_files(profile.file, count, rng)]


def spread(file: ProfileFile) -> Spread:
    """Of the servers that the profile saw; else of those above, or of the profile's rounds where they differ more."""
    own = file.spread
    if own is not None and own.of == SERVERS.of and own.calibrations >= FEW:
        return own
    larger = {name: max(getattr(SERVERS, name), getattr(own, name) if own else 0.0) for name in GROUPS}
    return SERVERS.model_copy(update=larger)


def law_error(file: ProfileFile, decode: bool) -> float:
    """How far steps are from the law, as the deviation of a share: of rows of decode-only steps, or of all others."""
    assert file.fit is not None
    rows = [row for kind, row in file.fit.residuals.items() if kind.endswith("decode") == decode]
    count = sum(row.rows for row in rows)
    return DEVIATION * sum(row.rows * row.mean_abs_pct for row in rows) / (100.0 * count) if count else 0.0


def other_server(file: ProfileFile, rng: np.random.Generator) -> ProfileFile:
    """The profile as another server of the engine may have it; the file itself when nothing was measured."""
    if file.fit is None:
        return file
    between = spread(file)
    scaling = SCALED if is_scaled(file) else 0.0
    decode = math.hypot(between.decode, law_error(file, decode=True), scaling)
    prompts = math.hypot(between.prompts, law_error(file, decode=False), scaling)
    groups = ((DECODES, decode), (PROMPTS, prompts), (LAUNCHES, between.launches))
    step: dict[str, float] = {}
    for terms, deviation in groups:
        factor = math.exp(rng.normal(0.0, deviation))
        step |= {name: factor * getattr(file.step, name) for name in terms}
    host: dict[str, float] = {}
    for start, deviation in (("request", between.requests), ("response", between.responses)):
        factor = math.exp(rng.normal(0.0, deviation))
        seconds = [name for name in HostLaw.model_fields if name.startswith(start) and name.endswith("_s")]
        host |= {name: factor * getattr(file.host, name) for name in seconds}
    return file.model_copy(
        update={"step": file.step.model_copy(update=step), "host": file.host.model_copy(update=host)}
    )


def _hand_over(system: System, rng: np.random.Generator) -> System:
    """With a hand-over drawn by its standard errors, and the way between workers as other servers may have it."""
    files = [pool.profile.file for pool in system.pools if pool.profile.file and pool.profile.file.hand_over]
    if system.wires is None or not files:
        return system
    law, between, now = files[0].hand_over, spread(files[0]), system.wires.hand_over
    assert law is not None
    values: dict[str, Any] = {}
    for name, error in law.errors.items():
        known = getattr(now, name)  # of a spec or a preset where it is not the profile's
        deviation = math.hypot(error, max(between.requests, WAY) * known if name.startswith("way") else 0.0)
        values[name] = max(0.0, float(rng.normal(known, deviation)))
    return replace(system, wires=replace(system.wires, hand_over=replace(now, **values)))


def _slower(profile: LatencyProfile, factor: float, prompts: float) -> LatencyProfile:
    """A roofline whose every step takes `factor` times as long, but for what prompts take, `prompts` times as long."""
    assert profile.file is not None
    step = profile.file.step
    seconds = {
        name: value * (prompts if name in PROMPTS else factor)
        for name, value in step.model_dump().items()
        if name not in SHAPES
    }
    changed = profile.file.model_copy(update={"step": step.model_copy(update=seconds)})
    return replace(from_file(changed), warnings=profile.warnings)


def _drawn(system: System, rng: np.random.Generator, draw: int) -> System:
    """The system with every pool's profile drawn anew; pools that share a profile share the draw."""
    drawn: dict[str, LatencyProfile] = {}
    pools = []
    for pool in system.pools:
        if pool.profile.name not in drawn:
            one = sample_profiles(pool.profile, 1, rng)[0]
            if one.file is not None:
                one = replace(from_file(other_server(one.file, rng)), warnings=one.warnings)
            drawn[pool.profile.name] = replace(one, draw=draw)
        profile = drawn[pool.profile.name].for_engine(
            pool.engine, pool.limits.max_num_seqs, pool.limits.max_num_batched_tokens
        )
        profile = changed_step(profile, pool.setup, system.spec.optimizations, pool.role != "prefill")
        pools.append(replace(pool, profile=profile))
    return _hand_over(replace(system, pools=tuple(pools)), rng)


def prediction_intervals(
    spec: Spec, metrics: Sequence[str], *, draws: int = 20, confidence: float = 0.9, vary_seed: bool = True
) -> dict[str, Interval]:
    """Simulate `draws` times with other parameters (and other seeds) and take the quantiles of each metric.

    Leave `vary_seed` off when the prediction is for given requests, as in a paired comparison.
    """
    from planner.backends import backend
    from planner.run.metrics import summarise
    from planner.system.resolve import resolve
    from planner.traffic import workload

    rng = np.random.default_rng(spec.run.seed)
    found: dict[str, list[float]] = {name: [] for name in metrics}
    for draw in range(draws):
        seed = spec.run.seed + draw if vary_seed else spec.run.seed
        drawn = spec.model_copy(update={"run": spec.run.model_copy(update={"seed": seed, "step_records": False})})
        run: Run = backend("simulate").run(_drawn(resolve(drawn), rng, draw), workload.build(drawn))
        summary = summarise(run)
        for name in metrics:
            value = summary[name]
            if value is not None and math.isfinite(value):
                found[name].append(value)
    tail = 50 * (1 - confidence)
    intervals = {}
    for name, values in found.items():
        if values:
            low, median, high = np.percentile(values, (tail, 50, 100 - tail)).tolist()
            intervals[name] = Interval(low, median, high, len(values))
    return intervals
