"""The best knobs of one candidate: each value is a challenger that must serve a little more than the best so far.

All challengers get the same requests, so a difference is the knob's and not the list's. One that fails its first probe
costs no more than that probe, which ends as soon as it has missed too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from planner.spec import Spec, SpecError
from planner.suggestion.probe import Period
from planner.suggestion.search import Found, Probe, highest_rate, probe, system_of
from planner.suggestion.splits import Split, apply
from planner.suggestion.tuning import knobs
from planner.system.resolve import System

GAIN = 0.015  # that a value must bring to be taken: less is the noise of a short run
CLEAR_GAIN = 0.03  # and in a first look, whose rates are known to 4 %
STEPS = (1 / 16, 1 / 4, 1.0)  # of the closed form, where no rate is known that passes


@dataclass(frozen=True, slots=True)
class TuneTask:
    """`rate`: the highest that `split` serves (0: none). `guess`: the closed form."""

    spec: Spec  # without the split
    split: Split
    seed: int
    rate: float
    guess: float
    period: Period | None
    gain: float = GAIN


@dataclass(frozen=True, slots=True)
class Tuned:
    """The split with its best knobs; `found` is None where none of them helps."""

    split: Split
    found: Found | None


def tune(task: TuneTask) -> Tuned:
    """One knob after the other, each at the best values of those before it."""
    split, rate, best = task.split, task.rate, None
    spec = apply(task.spec, split)
    system = system_of(spec)
    tried = {_sizes(system)}
    for values in knobs(spec, _posts(system)):
        for value in values:
            other = replace(split, tuning=replace(split.tuning, **value))  # type: ignore[arg-type]
            try:
                system = system_of(apply(task.spec, other))
            except SpecError:  # vLLM would refuse it, or it does not fit
                continue
            if _sizes(system) in tried:  # the same engines
                continue
            tried.add(_sizes(system))
            found = _challenge(system, task, rate)
            if found is not None:
                split, rate, best = other, found.rate, found
    return Tuned(split, best)


def _posts(system: System) -> bool:
    return system.wires is not None and system.wires.hand_over.post_s > 0


def _sizes(system: System) -> tuple[object, ...]:
    """What the knobs change."""
    return (tuple(pool.limits for pool in system.pools), None if system.wires is None else system.wires.hand_over)


def _challenge(system: System, task: TuneTask, rate: float) -> Found | None:
    """The highest rate of a system where that is beyond `rate`."""

    @cache
    def run(at: float) -> Probe:
        return probe(system, at, task.seed, period=task.period)

    missing = 1 - system.spec.slo.attainment
    if rate > 0:
        start = rate * (1 + task.gain)
        return highest_rate(run, start, tolerance=task.gain, step=1.08, missing=missing) if run(start).passed else None
    for share in STEPS:
        if run(share * task.guess).passed:
            return highest_rate(run, share * task.guess, tolerance=task.gain, missing=missing)
    return None
