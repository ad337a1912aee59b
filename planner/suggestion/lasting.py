"""What deployments hold for long: engines near their edge fill up so slowly that short runs do not see it.

Of each the highest rate up to a given one. Runs are long and few are needed, so that two are made at a time where only
one deployment is looked at: at rates that halve the space twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.suggestion.probe import Pace
from planner.suggestion.search import FURTHER, HOPELESS, WIDEST, Probe, probe, system_of
from planner.suggestion.tasks import HELD, ProbeTask

FEWER = 0.05  # of the requests that may miss the targets for long, besides those that may anyway

Each = Callable[[Callable[[ProbeTask], Probe], Sequence[ProbeTask]], list[Probe]]


def for_long(task: ProbeTask) -> Probe:
    """A run that passes if all but FEWER of the requests are within the targets that have to be.

    It begins with a crowd: as many answers under way as just meet the target, of which what is held recovers. Near its
    edge a deployment may take minutes to fill up.
    """
    slo, period = task.spec.slo, task.period
    fewer = slo.model_copy(update={"attainment": max(slo.attainment - FEWER, 0.0)})
    if period is not None and slo.tpot_ms is not None:
        period = replace(period, pace=Pace(task.rate, slo.tpot_ms / 1e3))
    system = system_of(task.spec.model_copy(update={"slo": fewer}))
    return probe(system, task.rate, task.seed, period=period)


def held(tasks: Sequence[ProbeTask], each: Each) -> list[float]:
    """For each task the highest rate, up to its own, that is held for as long as its period; within HELD."""
    low, high = [0.0] * len(tasks), [math.inf] * len(tasks)
    wanted = [(at, task.rate) for at, task in enumerate(tasks)]
    while wanted:
        runs = each(for_long, [replace(tasks[at], rate=rate) for at, rate in wanted])
        for (at, rate), run in zip(wanted, runs, strict=True):
            if not run.passed:
                high[at] = min(high[at], rate)
        for (at, rate), run in zip(wanted, runs, strict=True):  # above a rate that is not held none is
            if run.passed and rate < high[at]:
                low[at] = max(low[at], rate)
        left = [at for at, task in enumerate(tasks) if _is_open(task.rate, low[at], high[at])]
        several = 2 if len(left) == 1 else 1
        wanted = [(at, rate) for at in left for rate in _next(tasks[at].rate, low[at], high[at], several)]
    return low


def _is_open(start: float, low: float, high: float) -> bool:
    if low:
        return low < start and high > (1 + HELD) * low
    return high > start / HOPELESS


def _next(start: float, low: float, high: float, several: int) -> list[float]:
    """So many rates: at even steps between the two, or ever further below where none is held yet."""
    if low:
        several = min(several, math.ceil(math.log(high / low) / math.log1p(HELD)) - 1)
        return [low * (high / low) ** (step / (several + 1)) for step in range(1, several + 1)]
    found: list[float] = []
    for _ in range(several):
        below = start / high
        high /= (1 + 0.99 * HELD) if below == 1.0 else min(max(below * below, FURTHER), WIDEST)
        found.append(high)
    return found
