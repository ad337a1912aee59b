"""What `suggest` spreads over processes: one candidate, one seed. Tasks are plain values, so that they can be sent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from planner.report.explain import Explanation, explain
from planner.run.metrics import summarise
from planner.spec import Rag, Sessions, Slo, Spec
from planner.suggestion.probe import COUNTED, Period, request_s, traffic_of
from planner.suggestion.search import Found, Probe, Runs, first_guess, highest_rate, paced, probe, sent, system_of
from planner.traffic.workload import at_rate, mean_turns

SHORT = 1500  # requests that long runs begin their search with
HALVES = 4  # of an answer that just meets its targets: the least seconds of a run, the first of them warm-up
SHORTER = 0.75  # of a run's seconds: what is hardly shorter is no run to begin with
BRIEF = 2 / 3  # of the warm-up, the least judged seconds and those after: what a short run has, which begins under way
WARMUP = 0.1  # of the seconds of a run, at least
REQUESTS_PER_GPU, FEWEST, MOST = 400, 2000, 4000  # requests that the best candidate serves in a run; of sessions FEWEST
HELD = 0.03  # width of the bracket of a rate that is held for long
LOST = 0.1  # width of the bracket that the search of a candidate ends with that is not in the race
FAR = 0.3  # and of one that is expected so far below those that are, and turns out below them


def prepared(spec: Spec, gpus: int, requests: int | None, slo: Slo | None) -> Spec:
    """The spec with the targets and the number of requests that are searched with, and its router presets expanded."""
    at_rate(spec, 1.0)  # refuses a load without a rate
    change: dict[str, object] = {"run": spec.run.model_copy(update={"warmup_requests": 0})}
    if slo is not None:
        change["slo"] = slo
    if isinstance(spec.workload, Sessions):
        sessions = math.ceil((requests or FEWEST) / mean_turns(spec.workload, spec.run.seed))
        change["workload"] = spec.workload.model_copy(update={"sessions": sessions})
    elif spec.workload.kind != "trace" and hasattr(spec.workload, "requests"):
        count = requests or min(max(FEWEST, REQUESTS_PER_GPU * gpus), MOST)
        change["workload"] = spec.workload.model_copy(update={"requests": count})
    return spec.model_copy(update=change)


@dataclass(frozen=True, slots=True)
class SearchTask:
    spec: Spec  # with the split applied
    seed: int
    start: float | None  # None: the closed form
    tolerance: float
    step: float
    period: Period | None = None  # None: the whole list of requests at any rate
    bar: float = 0.0  # a candidate that does not serve this rate cannot be among the best: a rough rate will do
    of_guess: float = 1.0  # where to begin without a start, as others of the mode tell: this part of the closed form


@dataclass(frozen=True, slots=True)
class Searched:
    guess: float
    found: Found


@dataclass(frozen=True, slots=True)
class ProbeTask:
    spec: Spec
    seed: int
    rate: float
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the closed form says of a candidate, in requests per second."""

    rate: float
    promised: float | None  # if its hand-overs cost the workers nothing; None: they do not


def estimated(task: SearchTask) -> Estimate:
    """Raises SpecError when the candidate cannot be built."""
    system = system_of(task.spec)
    rate, wires = first_guess(system, task.seed), system.wires
    if wires is None or not wires.hand_over.post_s:
        return Estimate(rate, None)
    wires = replace(wires, hand_over=replace(wires.hand_over, post_s=0.0))
    return Estimate(rate, first_guess(replace(system, wires=wires), task.seed))


def search(task: SearchTask) -> Searched:
    """One candidate, one seed. Raises SpecError when the candidate cannot be built."""
    system = system_of(task.spec)
    guess, missing = first_guess(system, task.seed), 1 - task.spec.slo.attainment
    start, step = (task.of_guess * guess, task.step) if task.start is None else (task.start, task.step)
    wide = FAR if start * (1 + FAR) <= task.bar else LOST
    if task.bar:
        step = 1 + 0.99 * wide  # two runs may do
    period, brief = task.period, shortened(task.period, max(start, task.bar))
    known: tuple[Probe, ...] = ()
    if task.start is None and (task.bar or brief != task.period):  # begin where the first seconds lead
        runs = Runs(system, task.seed, brief)

        def rough(width: float) -> Found:
            return highest_rate(runs, start, tolerance=width, step=step, missing=missing, known=known)

        if task.bar:
            near = rough(FAR)
            if near.above * (1 + LOST) <= task.bar:
                return Searched(guess, near)
            known = near.probes
        near = rough(LOST if task.bar else 2 * task.tolerance)
        if near.rate < task.bar < near.above:  # is it among the best?
            known = (*near.probes, runs(task.bar))
            near = rough(LOST)
        if near.above <= task.bar:
            return Searched(guess, near)
        known = near.probes if brief == task.period else ()
        if not known and near.rate > 0:
            start, step = near.rate, 1 + task.tolerance
            period = paced(period, near.best)
    found = highest_rate(
        Runs(system, task.seed, period),
        start,
        tolerance=task.tolerance,
        step=step,
        missing=missing,
        known=known,
    )
    return Searched(guess, found)


def attained(task: ProbeTask) -> Probe:
    """One whole run at one rate."""
    return probe(system_of(task.spec), task.rate, task.seed, early=False, period=task.period)


def called(call: tuple[Callable[[Any], Any], Any]) -> Any:
    """One of several tasks of different kinds."""
    function, task = call
    return function(task)


FURTHER = (1.0, 1.1, 1.25, 1.5)  # times the rate, until something is short


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a candidate stops where it stops, and where that run left what its profile was measured on."""

    limit: Explanation
    warnings: tuple[str, ...]


def why(task: ProbeTask) -> Reason:
    """What limits a candidate from this rate on: the first thing that falls short when more is sent."""
    from simulator.backend import SimulatorBackend

    system = system_of(task.spec)
    warnings: tuple[str, ...] | None = None
    for factor in FURTHER:
        rate = factor * task.rate
        load = sent(system, task.seed, rate, task.period)
        summary = summarise(SimulatorBackend().run(system, load))
        warnings = (
            tuple(summary.warnings) if warnings is None else warnings
        )  # further ones are of rates that it cannot serve
        found = explain(summary)
        if found.kind != "none":
            break
    return Reason(found, warnings or ())


# --- how long requests are sent ------------------------------------------------------------------------


def period_of(spec: Spec, requests: int | None, rate: float, *, long: bool = True) -> Period | None:
    """How long to send requests, where `rate` is the best candidate's. None: the workload has a length of its own.

    However few `requests` are asked for, they are sent so long that many end while others begin, but in a first look,
    which is not `long`. Caches of documents take longer to fill than batches, which are full at once.
    """
    if spec.workload.kind not in COUNTED or not rate > 0:
        return None
    seed, counted = spec.run.seed, requests or traffic_of(spec, spec.run.seed)[0].expected_requests
    half_s = request_s(spec, seed, 0.5)
    least_s, fills_s = HALVES * half_s, request_s(spec, seed) if isinstance(spec.workload, Rag) else half_s
    seconds = max(counted / rate, least_s if long else 0.0)
    warmup_s = min(max(WARMUP * seconds, fills_s), seconds / 2)
    return Period(
        seconds=seconds,
        warmup_s=warmup_s,
        after_s=half_s,
        least_warmup_s=BRIEF * warmup_s,
        least_judged_s=BRIEF * min(warmup_s, least_s),
        least_after_s=BRIEF * half_s,
    )


def shortened(period: Period | None, rate: float, requests: int = SHORT) -> Period | None:
    """The period in which `rate` sends so many requests, where that is much shorter and not too short to judge by."""
    if period is None:
        return None
    brief = period.cut(requests / rate)
    return brief if brief.seconds < SHORTER * period.seconds else period


def halved(period: Period | None) -> Period | None:
    """Half the seconds, which do for a rough rate; not too short to judge by."""
    return None if period is None else period.cut(period.seconds / 2)
