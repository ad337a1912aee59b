"""The best knobs of candidates: each value is a challenger that must serve a little more than the best so far.

All challengers get the same requests, so a difference is the knob's and not the list's. Each first runs once at the
rate that it must serve, all of them at the same time; a run ends as soon as it has missed too much, and few pass. Those
that do are searched one after the other, each to beat the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from typing import Any, Protocol

from planner.spec import Spec, SpecError
from planner.suggestion.probe import Period
from planner.suggestion.search import Found, Probe, Runs, first_guess, highest_rate, paced, probe, system_of
from planner.suggestion.splits import Split, apply
from planner.suggestion.tuning import CONNECTORS, STICKY, knobs, routes
from planner.system.resolve import System

GAIN = 0.015  # that a value must bring to be taken: less is the noise of a short run
CLEAR_GAIN = 0.03  # and in a first look, whose rates are known to 4 %
STEP, FARTHEST = 1.08, 1.5  # from the rate that a challenger must serve to its next one
IN_REACH = 0.95  # of the rate of the best of a mode: what is below is not run with every seed
LATER = 0.9  # of that: a later knob may bring the rest
SEARCHED = 3  # values of a knob, after each has run once
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
    least: float = 0.0  # what less than is of no use: others of the mode serve more

    @property
    def goal(self) -> float:
        """What a challenger must serve; 0: any rate at all."""
        return max(self.rate * (1 + self.gain), self.least) if self.rate else 0.0


@dataclass(frozen=True, slots=True)
class Tuned:
    """The split with its best knobs; `found` is None where none of them helps."""

    split: Split
    found: Found | None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A value of a knob, set in `split`; `first` is its run at the task's goal."""

    task: TuneTask
    split: Split
    first: Probe | None = None


class Each(Protocol):
    """Runs a function on many inputs, which are from `part[0]` to `part[1]` of all that there is to do."""

    def __call__(
        self, function: Callable[[Any], Any], inputs: Sequence[Any], part: tuple[float, float]
    ) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class BeginTask:
    spec: Spec  # without the split
    split: Split
    seed: int


def routed(spec: Spec, split: Split, seed: int) -> Split:
    """The split with sessions kept where their histories are, where the file leaves that open and the closed form says
    that it helps. Raises SpecError when the candidate cannot be built.
    """
    plain = apply(spec, split)
    if not routes(plain):
        return split
    sticky = replace(split, tuning=replace(split.tuning, router=STICKY))
    rates = [first_guess(system_of(one), seed) for one in (plain, apply(spec, sticky))]
    return sticky if rates[1] > rates[0] else split


def begin(task: BeginTask) -> Split:
    """The split with the router and the blocks that the closed form likes best; these where hand-overs cost posts.

    A search of vLLM's small blocks would rank splits by what posting holds them back by, not by what they end at. Who
    posts is not asked of the closed form, which does not see what push makes prompts wait for. Raises SpecError when
    the candidate cannot be built.
    """
    best = split = routed(task.spec, task.split, task.seed)
    system = system_of(apply(task.spec, split))
    if not _posts(system):
        return split
    rate = first_guess(system, task.seed)
    pulled = [
        value for value in next(knobs(system.spec, True)) if value.get("connector", CONNECTORS[0]) == CONNECTORS[0]
    ]
    for other, its in _others(task.spec, split, pulled, {_sizes(system)}):
        guess = first_guess(its, task.seed)
        if guess > rate:
            best, rate = other, guess
    return best


def tune(tasks: Sequence[TuneTask], each: Each, *, quick: bool = False) -> list[Tuned]:
    """One knob after the other, each at the best values of those before it.

    `quick`: the first knob alone.
    """
    standing = [Tuned(task.split, None) for task in tasks]
    now = list(tasks)
    plain = [system_of(apply(task.spec, task.split)) for task in tasks]
    tried = [{_sizes(system)} for system in plain]
    bare = [apply(task.spec, task.split.untuned) for task in tasks]  # what the file sets, not what `begin` chose
    of_task = [list(knobs(spec, _posts(system))) for spec, system in zip(bare, plain, strict=True)]
    rounds = list(zip_longest(*of_task, fillvalue=()))[: 1 if quick else None]
    for place, values in enumerate(rounds):
        now = _held_to(now, [max(len(knobs_of) - 1 - place, 0) for knobs_of in of_task])
        challenges = [
            [Challenge(task, split) for split, _ in _others(task.spec, task.split, values[at], tried[at])]
            for at, task in enumerate(now)
        ]
        runs = [one for of_one in challenges for one in of_one if one.task.goal]
        begin, end = place / len(rounds), (place + 1) / len(rounds)
        half = (begin + end) / 2
        first = dict(zip(runs, each(first_run, runs, (begin, half)), strict=True))
        left = [_likeliest([replace(one, first=first.get(one)) for one in of_one]) for of_one in challenges]
        contests = [at for at, of_one in enumerate(left) if of_one]
        for at, won in zip(contests, each(contest, [left[at] for at in contests], (half, end)), strict=True):
            if won.found is not None:
                standing[at] = won
                now[at] = replace(now[at], split=won.split, rate=won.found.rate)
    return standing


def _held_to(tasks: Sequence[TuneTask], later: Sequence[int]) -> list[TuneTask]:
    """The tasks with what their challengers must serve to catch up with the best of their mode, in this round or by
    what each one's `later` ones may bring.
    """
    best: dict[str, float] = {}
    for one in tasks:
        best[one.split.mode] = max(best.get(one.split.mode, 0.0), one.rate)
    return [
        replace(one, least=IN_REACH * LATER**more * best[one.split.mode])
        for one, more in zip(tasks, later, strict=True)
    ]


def _likeliest(challenges: Sequence[Challenge]) -> tuple[Challenge, ...]:
    """Those that go on: of the ones that passed their first run the few that missed least, or all where none ran."""
    passed = [one for one in challenges if one.first is not None and one.first.passed]
    ahead = sorted(passed, key=lambda one: -one.first.attainment if one.first else 0.0)[:SEARCHED]
    return tuple(ahead or (one for one in challenges if one.first is None))


def _others(
    spec: Spec, split: Split, values: Sequence[dict[str, Any]], tried: set[tuple[object, ...]]
) -> list[tuple[Split, System]]:
    """The splits that these values make of one, without those whose engines were tried, which this adds to."""
    found = []
    for value in values:
        other = replace(split, tuning=replace(split.tuning, **value))
        try:
            sizes = _sizes(system := system_of(apply(spec, other)))
        except SpecError:  # vLLM would refuse it, or it does not fit
            continue
        if sizes not in tried:
            tried.add(sizes)
            found.append((other, system))
    return found


def _posts(system: System) -> bool:
    return system.wires is not None and system.wires.hand_over.post_s > 0


def _sizes(system: System) -> tuple[object, ...]:
    """What the knobs change."""
    hand_over = None if system.wires is None else system.wires.hand_over
    return (*((pool.limits, pool.router.policy) for pool in system.pools), hand_over)


def first_run(one: Challenge) -> Probe:
    task = one.task
    return probe(system_of(apply(task.spec, one.split)), task.goal, task.seed, period=task.period)


def contest(challenges: Sequence[Challenge]) -> Tuned:
    """The best of one task's challenges."""
    best = Tuned(challenges[0].task.split, None)
    task = challenges[0].task
    for one in challenges:
        found = _challenge(system_of(apply(task.spec, one.split)), task, one.first)
        if found is not None:
            best, task = Tuned(one.split, found), replace(task, rate=found.rate)
    return best


def _challenge(system: System, task: TuneTask, first: Probe | None) -> Found | None:
    """The highest rate of a system where that is beyond the task's."""

    runs = Runs(system, task.seed, paced(task.period, first))

    @cache
    def run(at: float) -> Probe:
        return first if first is not None and first.rate == at else runs(at)

    missing = 1 - system.spec.slo.attainment
    if task.goal:
        if not run(task.goal).passed:
            return None
        step = first_guess(system, task.seed) / task.guess  # as far as the closed form says that the value takes it
        return highest_rate(run, task.goal, tolerance=task.gain, step=min(max(step, STEP), FARTHEST), missing=missing)
    for share in STEPS:
        if run(share * task.guess).passed:
            return highest_rate(run, share * task.guess, tolerance=task.gain, missing=missing)
    return None
