"""Did a change help? What was predicted of it beside what was measured, for the traffic that came after it.

The plan before the change says what that traffic would have met without it (o), the new plan what it should meet (n);
both with the levels that were fitted before. Of what was measured (m), log(m / o) less its mean before the change is
what the change did; log(n / o) is what it was to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from planner.messages import Message, joined, message
from planner.report.words import number
from planner.spec import Spec, dump
from planner.system.resolve import System
from planner.watching.observe import Observed
from planner.watching.predict import Levels, predict, score
from planner.watching.statistics import Gain, mean_of, shift
from planner.watching.watch import LEAST_SPREAD

JUDGED = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E"}
FEWEST = 4  # intervals on each side
ENOUGH = 10  # after which the change is judged while the watch goes on
KEPT = 60  # intervals after the change
APART = ("name", "workload", "slo", "run")  # of a spec: no change of what is watched


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of the plan at `at_s` (Unix time), what was watched before it, and since."""

    at_s: float
    what: str
    old: System
    new: System
    levels: Levels  # when it came
    before: tuple[Observed, ...]
    after: tuple[Observed, ...] = ()

    def plus(self, one: Observed) -> Changed:
        return replace(self, after=(*self.after, one)[-KEPT:])


@dataclass(frozen=True, slots=True)
class Effect:
    """By which share a metric became longer. Where `measured` lies if the plan is right is `predicted`'s interval."""

    metric: str
    predicted: Gain
    measured: Gain

    @property
    def as_predicted(self) -> bool:
        return self.predicted.low <= self.measured.value <= self.predicted.high

    @property
    def missing(self) -> bool:
        """Something was to happen, and nothing did."""
        return not self.as_predicted and _sure(self.predicted) and not _sure(self.measured)


def _sure(gain: Gain) -> bool:
    return not gain.low <= 0 <= gain.high


def differences(old: Spec, new: Spec) -> str:
    """What two specs differ in that is no traffic: engine.max_num_batched_tokens 2048 to 512."""
    one, other = (_flat(yaml.safe_load(dump(spec))) for spec in (old, new))
    found = [
        f"{key} {one.get(key, 'unset')} to {other.get(key, 'unset')}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key) and key.partition(".")[0] not in APART
    ]
    return ", ".join(found)


def _flat(node: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {at: node}
    return {
        key: value for name, part in node.items() for key, value in _flat(part, f"{at}.{name}" if at else name).items()
    }


def effects(changed: Changed) -> tuple[Effect, ...]:
    """Of each metric that was seen on both sides. Empty with fewer than FEWEST intervals on a side."""
    if min(len(changed.before), len(changed.after)) < FEWEST:
        return ()
    past = predict(changed.before, changed.old, changed.levels)
    without = predict(changed.after, changed.old, changed.levels)
    planned = predict(changed.after, changed.new, changed.levels)
    found = []
    for name in JUDGED:
        usual = _known([score(one.measured[name], said[name]) for one, said in zip(changed.before, past, strict=True)])
        seen = [score(one.measured[name], said[name]) for one, said in zip(changed.after, without, strict=True)]
        asked = [score(said[name], other[name]) for said, other in zip(planned, without, strict=True)]
        both = [(one, two) for one, two in zip(seen, asked, strict=True) if math.isfinite(one) and math.isfinite(two)]
        if min(len(usual), len(both)) < FEWEST:
            continue
        measured = shift(usual, [one for one, _ in both])
        predicted = mean_of([two for _, two in both], usual, LEAST_SPREAD)
        found.append(Effect(name, _share(predicted), _share(measured)))
    return tuple(found)


def _known(scores: Sequence[float]) -> list[float]:
    return [one for one in scores if math.isfinite(one)]


def _share(of_logarithm: Gain) -> Gain:
    value, low, high = (math.expm1(min(one, 50.0)) for one in (of_logarithm.value, of_logarithm.low, of_logarithm.high))
    return Gain(value, low, high)


# --- words -------------------------------------------------------------------------------------


def effect_text(changed: Changed, clock: str) -> str:
    """Whether a change did what was predicted of it, in one message."""
    found = effects(changed)
    if not found:
        return message(
            "Changed at {clock}: {what}. Not judged yet: {before} intervals before and {after} after it, {fewest} are"
            " needed.",
            clock,
            changed.what,
            len(changed.before),
            len(changed.after),
            FEWEST,
        )
    told = joined("; ", [_one(one) for one in found])
    return message(
        "Changed at {clock}: {what}. {told}. {verdict}", clock, changed.what, told, _verdict(found)
    )  # fmt: skip


def _one(effect: Effect) -> Message:
    return message(
        "{metric} {measured} measured, {predicted} predicted",
        JUDGED[effect.metric],
        gain_text(effect.measured),
        gain_text(effect.predicted),
    )


def _verdict(found: Sequence[Effect]) -> Message:
    others = [one for one in found if not one.as_predicted]
    if not others:
        return message("It did what was predicted.")
    if all(one.missing for one in others):
        return message("Nothing of it is seen: do the engines run it?")
    names = ", ".join(JUDGED[one.metric] for one in others)
    return message("It did not do what was predicted of {metrics}.", names)


def gain_text(gain: Gain) -> str:
    """-18.2 % (-25.1 to -10.9 %)"""
    value, low, high = (_signed(one) for one in (gain.value, gain.low, gain.high))
    return f"{value} % ({low} to {high} %)"


def _signed(share: float) -> str:
    return f"{100 * share:+z.1f}" if abs(share) < 10 else f"+{number(100 * share)}"
