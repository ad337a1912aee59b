"""What one change of a watched stack would buy: the highest rate within the targets, before and after.

The stack is the plan at the levels that were fitted, the traffic that of the watch. All changes are tried with the same
requests; those that gain most are tried with others too, which is what their intervals are of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.messages import message
from planner.report.words import number
from planner.run.tables import Progress
from planner.spec import Aggregated, Disaggregated, Empirical, Poisson, RunOptions, Spec, SpecError
from planner.suggestion.changes import hand_overs
from planner.suggestion.probe import Period
from planner.suggestion.search import Found, Runs, first_guess, highest_rate, probe
from planner.suggestion.splits import ROUTERS, PoolSize, Split, apply
from planner.suggestion.tasks import period_of
from planner.suggestion.tuning import BUDGETS, Tuning
from planner.system.resolve import System, resolve
from planner.watching.effect import Changed, gain_text
from planner.watching.observe import Histogram, Observed
from planner.watching.predict import Levels, levelled, refit
from planner.watching.statistics import Gain, paired_gain

SHOWN = 3
SEEDS = 3
REQUESTS = 400  # that are sent at the highest rate in a run
TOLERANCE = 0.02
POINTS = 16  # values that stand for a distribution of lengths


@dataclass(frozen=True, slots=True)
class Change:
    """One change, its highest rate within the targets (requests a second) and the gain over the present one's."""

    what: str
    more_gpus: int
    rate: float
    gain: Gain

    @property
    def sentence(self) -> str:
        gpus = f" ({self.more_gpus:+d} GPU)" if self.more_gpus else ""
        return message("{what}{gpus}: {rate} req/s, {gain}.", self.what, gpus, number(self.rate), gain_text(self.gain))


@dataclass(frozen=True, slots=True)
class Bought:
    """The present highest rate, and the changes with the largest gain, best first."""

    rate: float
    changes: tuple[Change, ...]
    tried: int

    def sentences(self) -> list[str]:
        if not self.rate:
            return [
                message("No rate of this traffic is within the targets on the watched stack, so no gain can be given.")
            ]
        found: list[str] = [
            message(
                "As watched it serves up to {rate} req/s within the targets; {tried} changes tried.",
                number(self.rate),
                self.tried,
            )
        ]
        found += [one.sentence for one in self.changes]
        if not self.changes:
            found.append(message("None of them gains 2 %."))
        return found


def watched_spec(spec: Spec, window: Sequence[Observed]) -> Spec:
    """The spec with the traffic of these intervals. Raises SpecError when no request ended in them."""
    rate = sum(one.arrivals for one in window) / sum(one.length_s for one in window) if window else 0.0
    prompts, outputs = Histogram(), Histogram()
    for one in window:
        prompts, outputs = prompts.plus(one.prompts), outputs.plus(one.outputs)
    if not rate or not prompts.count or not outputs.count:
        raise SpecError("--changes: no request ended while it was watched; allowed: a stack with traffic")
    rng = np.random.default_rng(0)
    prompt, output = (
        Empirical(kind="empirical", values=tuple(np.maximum(of.draws(POINTS, rng), 1.0).tolist()))
        for of in (prompts, outputs)
    )
    traffic = Poisson(rate=rate, requests=REQUESTS, prompt_tokens=prompt, output_tokens=output)
    return spec.model_copy(update={"workload": traffic})


def present(spec: Spec) -> Split:
    """The deployment of a spec as a split."""
    deployment = spec.deployment
    if isinstance(deployment, Disaggregated):
        first, second = (PoolSize(pool.replicas, pool.tp, pool.dp) for pool in (deployment.prefill, deployment.decode))
        return Split(first, second)
    assert isinstance(deployment, Aggregated)
    return Split(PoolSize(deployment.replicas, deployment.tp, deployment.dp))


def candidates(spec: Spec) -> Iterator[tuple[str, Split]]:
    """Every single change of the deployment, named."""
    now = present(spec)
    resolved = resolve(spec)
    budget = resolved.pools[0].limits.max_num_batched_tokens
    for value in BUDGETS:
        if value != budget:
            yield f"max_num_batched_tokens {value}", replace(now, tuning=Tuning(max_num_batched_tokens=value))
    policy = resolved.pools[0].router.policy
    if any(len(pool.workers) > 1 for pool in resolved.pools):
        for name in ROUTERS:
            if name != policy:
                yield f"router {name}", replace(now, router=name)
    first, second = now.first, now.second
    if second is None:
        yield "one more engine", replace(now, first=replace(first, replicas=first.replicas + 1))
        return
    yield from hand_overs(spec, now)
    more, most = replace(first, replicas=first.replicas + 1), replace(second, replicas=second.replicas + 1)
    if second.replicas > 1:
        yield (
            "a decode worker to prefill",
            replace(now, first=more, second=replace(second, replicas=second.replicas - 1)),
        )
    if first.replicas > 1:
        yield "a prefill worker to decode", replace(now, first=replace(first, replicas=first.replicas - 1), second=most)
    yield "one more prefill worker", replace(now, first=more)
    yield "one more decode worker", replace(now, second=most)


def what_changes_buy(
    spec: Spec, window: Sequence[Observed], levels: Levels, progress: Progress | None = None
) -> Bought:
    """The SHOWN changes with the largest predicted gain from the watched state. Raises SpecError."""
    spec = watched_spec(spec, window)
    spec = spec.model_copy(update={"run": _quiet(spec)})
    base = levelled(resolve(spec), levels)
    period = period_of(spec, REQUESTS, first_guess(base, spec.run.seed))
    seeds = [spec.run.seed + at for at in range(SEEDS)]
    now = _rate(base, first_guess(base, seeds[0]), seeds[0], period)
    if not now.rate:
        return Bought(0.0, (), 0)
    period = period_of(spec, REQUESTS, now.rate) or period
    found: list[tuple[float, str, Split, System]] = []
    tried = list(candidates(spec))
    for at, (name, split) in enumerate(tried):
        try:
            system = levelled(resolve(apply(spec, split)), levels)
        except SpecError:  # vLLM would refuse it, or it does not fit
            continue
        start = now.rate * (1 + TOLERANCE)
        if probe(system, start, seeds[0], period=period).passed:
            found.append((_rate(system, start, seeds[0], period).rate, name, split, system))
        if progress:
            progress("changes", (at + 1) / len(tried))
    found.sort(key=lambda one: -one[0])
    before = [_rate(base, now.rate, seed, period).rate for seed in seeds]
    changes = []
    for rate, name, split, system in found[:SHOWN]:
        after = [_rate(system, rate, seed, period).rate for seed in seeds]
        gpus = split.gpus - present(spec).gpus
        changes.append(Change(name, gpus, sum(after) / len(after), paired_gain(after, before)))
    return Bought(sum(before) / len(before), tuple(changes), len(tried))


@dataclass(frozen=True, slots=True)
class Rates:
    """The highest rate within the targets before a change, and its gain: as predicted, and at the levels since."""

    before: float
    predicted: Gain
    measured: Gain

    @property
    def sentence(self) -> str:
        if not self.before:
            return message("No rate of this traffic was within the targets before the change, so no gain can be given.")
        return message(
            "Highest rate within the targets: {before} req/s before, {predicted} predicted, {measured} by the step"
            " times since.",
            number(self.before),
            gain_text(self.predicted),
            gain_text(self.measured),
        )


def rates_of(changed: Changed) -> Rates:
    """What a change was to gain and what it did, under the traffic since. Raises SpecError without any.

    The second has the levels that the intervals since give the new plan: it is as measured as those are.
    """
    old, new = (
        watched_spec(system.spec, changed.after).model_copy(update={"run": _quiet(system.spec)})
        for system in (changed.old, changed.new)
    )
    since = refit(changed.after, changed.new, changed.levels)
    systems = [
        levelled(resolve(old), changed.levels),
        levelled(resolve(new), changed.levels),
        levelled(resolve(new), since),
    ]
    seeds = [old.run.seed + at for at in range(SEEDS)]
    start = first_guess(systems[0], seeds[0])
    period = period_of(old, REQUESTS, _rate(systems[0], start, seeds[0], period_of(old, REQUESTS, start)).rate or start)
    before, planned, seen = ([_rate(system, start, seed, period).rate for seed in seeds] for system in systems)
    if not all(before):
        nothing = Gain(math.nan, math.nan, math.nan)
        return Rates(0.0, nothing, nothing)
    return Rates(sum(before) / len(before), paired_gain(planned, before), paired_gain(seen, before))


def _quiet(spec: Spec) -> RunOptions:
    return spec.run.model_copy(update={"warmup_requests": 0, "step_records": False})


def _rate(system: System, start: float, seed: int, period: Period | None) -> Found:
    return highest_rate(Runs(system, seed, period), start, tolerance=TOLERANCE, step=1.1)
