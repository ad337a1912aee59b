"""How sure a prediction is: the same load under profiles drawn from the fit's covariance, and under other seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import LatencyProfile, from_file
from planner.run.tables import Run
from planner.spec import Spec
from planner.system.knobs import changed_step
from planner.system.resolve import System


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
    return [replace(from_file(file), warnings=profile.warnings) for file in sample_files(profile.file, count, rng)]


def _drawn(system: System, rng: np.random.Generator) -> System:
    """The system with every pool's profile drawn anew; pools that share a profile share the draw."""
    drawn: dict[str, LatencyProfile] = {}
    pools = []
    for pool in system.pools:
        if pool.profile.name not in drawn:
            drawn[pool.profile.name] = sample_profiles(pool.profile, 1, rng)[0]
        profile = drawn[pool.profile.name].for_engine(
            pool.engine, pool.limits.max_num_seqs, pool.limits.max_num_batched_tokens
        )
        profile = changed_step(profile, pool.setup, system.spec.optimizations, pool.role != "prefill")
        pools.append(replace(pool, profile=profile))
    return replace(system, pools=tuple(pools))


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
        run: Run = backend("simulate").run(_drawn(resolve(drawn), rng), workload.build(drawn))
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
