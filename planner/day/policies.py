"""Policies: from the hours that were, the split of the next one. Each is a pure function and a line in POLICIES.

None but `oracle` sees the hour that it chooses for. A `Stack` tells what a split serves of given traffic, which only
policies that plan may ask; how full it was in the last hour, which is measured; and what a worker carries by profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from planner.day.hours import Hour
from planner.suggestion.splits import PoolSize, Split


@dataclass(frozen=True, slots=True)
class Pressure:
    """How full the pools of a split were, on average: requests that wait a prefill worker, share of decode KV used."""

    waiting: float
    kv_used: float


class Stack(Protocol):
    """What may be known of the engines."""

    def serves(self, hour: Hour, split: Split) -> float:
        """The share of an hour's requests within the targets on a split, as simulated."""

    def pressure(self, hour: Hour, split: Split) -> Pressure:
        """How full a P/D split is in an hour, as simulated in place of its measurement."""

    def carries(self, hour: Hour) -> tuple[float, float]:
        """Requests a second that one prefill and one decode worker carry within the targets, in closed form."""


@dataclass(frozen=True, slots=True)
class View:
    """What a policy knows: hours so far, the split it has, those it may take (`fixed`: the best one for all hours)."""

    past: Sequence[Hour]
    now: Split
    splits: Sequence[Split]  # of up to N GPUs
    fixed: Split
    stack: Stack
    attainment: float
    coming: Hour  # for `oracle` alone
    a_day: int  # hours of one


Policy = Callable[[View], Split]


def static(view: View) -> Split:
    """The one split that serves most of the whole day: what a good plan without changes is."""
    return view.fixed


QUEUE, KV = (0.2, 0.5), (0.5, 0.9)  # below the first a worker goes, above the second one comes
GRACE = 3  # decisions after a decode worker came in which none goes
DECIDES_S = 180.0


def dynamo_load(view: View) -> Split:
    """Dynamo's load planner with its published defaults: a worker more or fewer of a pool at each decision.

    Prefill by requests that wait a worker, decode by the KV cache in use (docs/architecture/load_planner.md of
    ai-dynamo/dynamo, 2025). It decides as often as fits into the last hour, until it would stay where it is.
    """
    now = view.now
    if not view.past or now.second is None or not view.past[-1].rate:
        return now
    last, came = view.past[-1], -GRACE
    for decision in range(max(1, int(last.length_s // DECIDES_S))):
        assert now.second is not None  # the nearest split that there is has two pools as well
        seen = view.stack.pressure(last, now)
        first = _nudged(now.first.replicas, seen.waiting, QUEUE)
        second = _nudged(now.second.replicas, seen.kv_used, KV)
        if second < now.second.replicas and decision - came < GRACE:
            second = now.second.replicas
        came = decision if second > now.second.replicas else came
        before, now = now, _closest(view, first, second)
        if now == before:
            break
    return now


def _nudged(workers: int, full: float, between: tuple[float, float]) -> int:
    least, most = between
    return workers + (full > most) - (full < least and workers > 1)


def dynamo_sla(view: View) -> Split:
    """Dynamo's SLA planner: for each pool its load over what a worker carries within the targets, rounded up.

    The forecast is the last hour, as its constant predictor has it; correction factors are 1 (planner design of
    ai-dynamo/dynamo, 2026).
    """
    if not view.past or not view.past[-1].rate:
        return view.now
    last = view.past[-1]
    prefill, decode = view.stack.carries(last)
    return _closest(view, math.ceil(last.rate / prefill), math.ceil(last.rate / decode))


def reactive(view: View) -> Split:
    """The fewest workers that serve the last hour within the targets by simulation."""
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
        split: sum(view.stack.serves(hour, split) for hour in hours) / len(hours)
        for split in view.splits
        if split.gpus == most
    }
    best = max(found, key=lambda split: found[split])
    return best if view.now not in found or found[best] > found[view.now] + 0.01 else view.now


def oracle(view: View) -> Split:
    """The best split of each hour by an hour that it sees beforehand: what no policy can beat but for its changes.

    Of splits that serve as much it keeps the one it has.
    """
    if not view.coming.rate:
        return view.now
    most = max(split.gpus for split in view.splits)
    found = {one: view.stack.serves(view.coming, one) for one in view.splits if one.gpus == most}
    return view.now if found.get(view.now, -1.0) >= max(found.values()) else max(found, key=lambda one: found[one])


POLICIES: dict[str, Policy] = {
    "static": static,
    "dynamo load": dynamo_load,
    "dynamo sla": dynamo_sla,
    "reactive": reactive,
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
        found = {split: view.stack.serves(hour, split) for split in view.splits if split.gpus == gpus}
        best = max(found, key=lambda split: found[split])
        if found[best] >= view.attainment:
            return best
    return None


def _largest(view: View) -> Split:
    return view.fixed


def _closest(view: View, first: int, second: int) -> Split:
    """The P/D split nearest to these workers that there is; prefill first where GPUs are short."""

    def far(split: Split) -> tuple[int, int]:
        assert split.second is not None
        return (
            abs(split.first.replicas - first) + abs(split.second.replicas - second),
            abs(split.first.replicas - first),
        )

    return min((split for split in view.splits if split.second is not None), key=far, default=view.now)


# --- what a change costs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Switching:
    """Seconds until a new worker serves, and until an old one has emptied."""

    start_s: float
    drain_s: float


def staying(before: Split, after: Split) -> Split | None:
    """The workers that serve while a change goes on; None: none of a pool, or another mode or TP."""
    if (before.second is None) != (after.second is None) or before.first.size != after.first.size:
        return None
    first = min(before.first.replicas, after.first.replicas)
    if before.second is None or after.second is None:
        return Split(replace(before.first, replicas=first))
    if before.second.size != after.second.size:
        return None
    second = min(before.second.replicas, after.second.replicas)
    return Split(replace(before.first, replicas=first), replace(before.second, replicas=second))


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


def refill(before: Split, after: Split, hour: Hour, room_tokens: float) -> Hour:
    """The first hour after a change as its prefix caches meet it: what went with old workers is computed once more.

    A worker that prefilled and goes takes its share of what the hour would reuse along, at most the `room_tokens` of
    its cache. Decode workers take nothing that would be asked for again: prompts come to them over the link.
    """
    left = staying(before, after)
    gone = before.first.replicas - (left.first.replicas if left else 0)
    if not gone or not hour.reused:
        return hour
    lost = gone * min(room_tokens, hour.reused_tokens / before.first.replicas)
    return replace(hour, reused=round(hour.reused * (1 - lost / hour.reused_tokens), 3))
