"""What deployments hold for long: engines near their edge fill up so slowly that short runs do not see it.

Of each the highest rate up to a given one. Runs are long and few are needed: where only one deployment is looked at,
the run that its search would go on with should the next one fail is made beside that one. It changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.suggestion.probe import Pace
from planner.suggestion.search import Probe, highest_rate, probe, system_of
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
    runs: list[dict[float, Probe]] = [{} for _ in tasks]
    while True:
        ends = [_search(task.rate, known) for task, known in zip(tasks, runs, strict=True)]
        left = [(at, one.rate) for at, one in enumerate(ends) if isinstance(one, _Wanted)]
        if not left:
            return [one for one in ends if not isinstance(one, _Wanted)]
        if len(left) == 1:
            ((at, rate),) = left
            beside = _search(tasks[at].rate, runs[at] | {rate: _failed(rate)})
            left += [(at, beside.rate)] if isinstance(beside, _Wanted) else []
        found = each(for_long, [replace(tasks[at], rate=rate) for at, rate in left])
        for (at, rate), run in zip(left, found, strict=True):
            runs[at][rate] = run


class _Wanted(Exception):
    """A search goes on with a run at this rate, which is not known."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.rate = rate


def _search(start: float, known: dict[float, Probe]) -> float | _Wanted:
    """What it finds, or what it lacks."""

    def run(rate: float) -> Probe:
        if rate not in known:
            raise _Wanted(rate)
        return known[rate]

    try:
        first = run(start)
        if first.passed:
            return start
        return highest_rate(run, start, tolerance=HELD, step=1 + 0.99 * HELD, known=(first,)).rate
    except _Wanted as wanted:
        return wanted


def _failed(rate: float) -> Probe:
    return Probe(rate, False, 0.0, 0.0, 0.0, 0.0, 0.0, True)
