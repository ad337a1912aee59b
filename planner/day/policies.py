"""Policies: from the hours that were, the split of the next one. Each is a pure function and a line in POLICIES.

None but `oracle` sees the hour that it chooses for. `Rates` tells what a split serves of given traffic, which only the
policies that plan may ask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from planner.day.hours import Hour
from planner.suggestion.splits import PoolSize, Split


class Serves(Protocol):
    """The share of an hour's requests within the targets on a split, as simulated."""

    def __call__(self, hour: Hour, split: Split) -> float: ...


@dataclass(frozen=True, slots=True)
class View:
    """What a policy knows: hours so far, the split it has, those it may take (`fixed`: the best one for all hours)."""

    past: Sequence[Hour]
    now: Split
    splits: Sequence[Split]  # of up to N GPUs
    fixed: Split
    serves: Serves
    attainment: float
    coming: Hour  # for `oracle` alone
    a_day: int  # hours of one


Policy = Callable[[View], Split]


def static(view: View) -> Split:
    """The one split that serves most of the whole day: what a good plan without changes is."""
    return view.fixed


def load_rule(view: View) -> Split:
    """A worker more where a pool was too full in the last hour, one fewer where it was nearly empty.

    Dynamo's load planner does so with queue and KV use (scale up at 0.5 waiting prefills and 0.9 of the KV cache, down
    at 0.2 and 0.5); here a pool's use is the share that its workers were of those that the hour needed.
    """
    if not view.past or view.now.second is None:
        return view.now
    need = _needed(view, view.past[-1])
    if need is None or need.second is None:
        return _largest(view)
    first = _nudged(view.now.first.replicas, need.first.replicas)
    second = _nudged(view.now.second.replicas, need.second.replicas)
    return _closest(view, first, second)


def sla_rule(view: View) -> Split:
    """Dynamo's SLA planner: as many workers of each pool as the forecast rate and lengths need within the targets.

    Its forecast is constant by default: the next hour is as the last.
    """
    return view.now if not view.past else _needed(view, view.past[-1]) or _largest(view)


def predictive(view: View) -> Split:
    """The same for the hour that is forecast: as yesterday's at this time, else the last with its trend."""
    return view.now if not view.past else _needed(view, forecast(view.past, view.a_day)) or _largest(view)


def planner_in_the_loop(view: View) -> Split:
    """The split of all N GPUs that serves most of the forecast hour and the last one by simulation, each half.

    A change must bring a per cent of that. A forecast alone may be of an hour that no split serves, and says nothing.
    """
    hours = [hour for hour in (forecast(view.past, view.a_day), view.past[-1]) if hour.rate] if view.past else []
    if not hours:
        return view.now
    most = max(split.gpus for split in view.splits)
    found = {
        split: sum(view.serves(hour, split) for hour in hours) / len(hours)
        for split in view.splits
        if split.gpus == most
    }
    best = max(found, key=lambda split: found[split])
    return best if view.now not in found or found[best] > found[view.now] + 0.01 else view.now


def oracle(view: View) -> Split:
    """The best split of each hour by an hour that it sees beforehand: what no policy can beat but for its changes."""
    if not view.coming.rate:
        return view.now
    most = max(split.gpus for split in view.splits)
    return max((one for one in view.splits if one.gpus == most), key=lambda split: view.serves(view.coming, split))


POLICIES: dict[str, Policy] = {
    "static": static,
    "threshold": load_rule,
    "reactive": sla_rule,
    "predictive": predictive,
    "planner in the loop": planner_in_the_loop,
    "best each hour": oracle,
}


DAMPED = 0.5  # of a trend's logarithm that is taken to go on


def forecast(past: Sequence[Hour], a_day: int) -> Hour:
    """The next hour: yesterday's where there is one, scaled by how today differs so far; else a damped trend."""
    last = past[-1]
    if len(past) > a_day:
        then, before = past[-a_day], past[-a_day - 1]
        factor = min(max(last.rate / before.rate, 0.5), 2.0) if before.rate else 1.0
        return replace(then, rate=then.rate * factor) if then.prompts else last
    if len(past) > 1 and past[-2].rate and last.rate:
        return replace(last, rate=last.rate * min(max(last.rate / past[-2].rate, 0.5), 2.0) ** DAMPED)
    return last


def _needed(view: View, hour: Hour) -> Split | None:
    """The fewest GPUs that serve an hour within the targets; of equal ones that with the highest share. None: none."""
    if not hour.rate:
        return min(view.splits, key=lambda split: split.gpus)
    for gpus in sorted({split.gpus for split in view.splits}):
        found = {split: view.serves(hour, split) for split in view.splits if split.gpus == gpus}
        best = max(found, key=lambda split: found[split])
        if found[best] >= view.attainment:
            return best
    return None


def _largest(view: View) -> Split:
    return view.fixed


def _nudged(now: int, need: int) -> int:
    return now + (need > now) - (need < now)


def _closest(view: View, first: int, second: int) -> Split:
    """The P/D split nearest to these workers that there is; prefill first where GPUs are short."""

    def far(split: Split) -> tuple[int, int]:
        assert split.second is not None
        return (
            abs(split.first.replicas - first) + abs(split.second.replicas - second),
            abs(split.first.replicas - first),
        )

    return min((split for split in view.splits if split.second is not None), key=far)


# --- what a change costs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Switching:
    """Seconds until a new worker serves, and until an old one has emptied; how often its cache spared a prompt."""

    start_s: float
    drain_s: float


def staying(before: Split, after: Split) -> Split | None:
    """The workers that serve while a change goes on; None: none of a pool, or another mode or TP."""
    if (before.second is None) != (after.second is None) or before.first.tp != after.first.tp:
        return None
    first = min(before.first.replicas, after.first.replicas)
    if before.second is None or after.second is None:
        return Split(PoolSize(first, before.first.tp))
    if before.second.tp != after.second.tp:
        return None
    second = min(before.second.replicas, after.second.replicas)
    return Split(PoolSize(first, before.first.tp), PoolSize(second, before.second.tp))


def out_s(before: Split, after: Split, cost: Switching) -> float:
    """How long a change leaves only `staying`: new workers start on idle GPUs, or after old ones have drained."""
    if before == after:
        return 0.0
    pools = [(before.first, after.first), (before.second or PoolSize(0, 1), after.second or PoolSize(0, 1))]
    more = any(b.replicas > a.replicas for a, b in pools)
    fewer = any(b.replicas < a.replicas for a, b in pools)
    if not more:
        return 0.0  # only fewer: they drain, the others serve as they will
    return cost.start_s + (cost.drain_s if fewer else 0.0)


def idle_gpu_s(before: Split, after: Split, cost: Switching) -> float:
    """GPU seconds of workers that start or drain beyond those of the new split."""
    gone = max(0, before.gpus - after.gpus)
    return gone * cost.drain_s if math.isfinite(cost.drain_s) else 0.0
