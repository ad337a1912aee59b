"""The fewest GPUs that serve a given rate within the targets."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from planner.run.tables import Progress
from planner.spec import Slo, Spec, SpecError
from planner.suggestion.answer import Smallest
from planner.suggestion.curves import IDLE_RATE
from planner.suggestion.probe import Period
from planner.suggestion.search import first_guess, probe, system_of
from planner.suggestion.splits import PoolSize, Split, apply, rank_sizes, splits, tp_sizes
from planner.suggestion.spread import Spread, cores, spread
from planner.suggestion.tasks import period_of, prepared
from planner.suggestion.tune import routed

HOPEFUL = 0.7  # of the rate: candidates whose closed form is below are not tried


@dataclass(frozen=True, slots=True)
class RateTask:
    spec: Spec  # with the split applied
    seeds: tuple[int, ...]
    rate: float
    period: Period | None


def serves(task: RateTask) -> bool:
    """Whether the candidate meets the targets at the rate with most of the seeds."""
    system = system_of(task.spec)
    if first_guess(system, task.seeds[0]) < HOPEFUL * task.rate:
        return False
    passed = failed = 0
    for seed in task.seeds:
        if probe(system, task.rate, seed, period=task.period).passed:
            passed += 1
        else:
            failed += 1
        if 2 * max(passed, failed) > len(task.seeds):
            break
    return passed > failed


def smallest(
    spec: Spec,
    rate: float,
    *,
    limit: int = 64,
    seeds: int = 3,
    requests: int | None = None,
    slo: Slo | None = None,
    processes: int | None = None,
    cluster: str | None = None,
    pool: Spread | None = None,
    progress: Progress | None = None,
) -> Smallest:
    """Count GPUs up from one until an aggregated deployment and a split both serve `rate` (or one does and `limit` is
    reached, or twice as many did not help the other). Where a node full of GPUs does not, and engines miss the targets
    even nearly idle, no number of them would. `pool`: one that runs already. Raises SpecError.
    """
    first: dict[str, tuple[int, Split]] = {}
    with nullcontext(pool) if pool is not None else spread(cluster, processes or cores()) as workers:
        gpus = 0
        while len(first) < 2 and gpus < limit:
            gpus += 1
            if first and gpus > 2 * min(count for count, _ in first.values()):
                break
            wanted = prepared(spec, gpus, requests, slo)
            period = period_of(wanted, requests, rate)
            for mode, candidates in _candidates(wanted, gpus).items():
                if mode in first:
                    continue
                tried = tuple(wanted.run.seed + offset for offset in range(seeds))
                tasks = [RateTask(apply(wanted, split), tried, rate, period) for split in candidates]
                answers = workers(serves, tasks, _nothing)
                found = next((split for split, yes in zip(candidates, answers, strict=True) if yes), None)
                if found is not None:
                    first[mode] = (gpus, found)
            if progress:
                progress(f"fewest GPUs for {rate:g} req/s: {gpus}", gpus / limit)
            if gpus == spec.deployment.gpus_per_node and not first and not _ever(wanted, requests, workers):
                return Smallest(rate, None, None, None, None, gpus, possible=False)
    best = min(first.values(), key=lambda item: (item[0], item[1].second is not None), default=None)
    return Smallest(
        rate=rate,
        gpus=best[0] if best else None,
        name=best[1].name if best else None,
        aggregated_gpus=first["aggregated"][0] if "aggregated" in first else None,
        disaggregated_gpus=first["disaggregated"][0] if "disaggregated" in first else None,
        limit=gpus,
    )


def _ever(spec: Spec, requests: int | None, workers: Spread) -> bool:
    """Whether any engine, or any pair of them, meets the targets when hardly two requests meet."""
    node = spec.deployment.gpus_per_node
    sizes, _ = tp_sizes(spec, node)
    engines = [*(PoolSize(1, tp) for tp in sizes), *rank_sizes(spec, node, sizes)]
    candidates = [Split(first, second) for first in engines for second in (None, *engines)]
    period = period_of(spec, requests, IDLE_RATE)
    tasks = [RateTask(apply(spec, split), (spec.run.seed,), IDLE_RATE, period) for split in candidates]
    return any(workers(serves, tasks, _nothing))


def _nothing(*_: object) -> None:
    """Progress is told a GPU count at a time."""


def _candidates(spec: Spec, gpus: int) -> dict[str, list[Split]]:
    """Those that use all the GPUs, the smallest engines first; none while the model does not fit that few."""
    try:
        sizes, _ = tp_sizes(spec, gpus)
    except SpecError:
        tp_sizes(spec, spec.deployment.gpus_per_node)  # raises when no number of GPUs would do
        return {}
    found: dict[str, list[Split]] = {"aggregated": [], "disaggregated": []}
    for split in sorted(splits(gpus, sizes, rank_sizes(spec, gpus, sizes)), key=lambda split: split.largest_tp):
        if split.gpus == gpus:
            found[split.mode].append(routed(spec, split, spec.run.seed))
    return found
