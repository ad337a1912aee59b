"""The day simulated hour by hour: what each split serves, what each policy makes of it, and whether moving pays.

Splits are chosen with one list of requests and judged with others, so that nobody is credited with what was luck of
the list that chose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from planner.backends import backend
from planner.day.hours import Hour
from planner.day.policies import POLICIES, Pressure, Switching, View, idle_gpu_s, out_s, refill, staying
from planner.report.words import number, percent
from planner.run.tables import Progress
from planner.spec import Spec, SpecError, dump, parse
from planner.suggestion.probe import Period, load_at, request_s, turnaround_s
from planner.suggestion.rows import price_per_gpu_hour
from planner.suggestion.search import first_guess, probe, system_of
from planner.suggestion.splits import PoolSize, Split, apply, tp_sizes
from planner.suggestion.spread import Spread, here
from planner.system.capacity import MeanLengths, pool_rates
from planner.watching.statistics import Gain, paired_gain

REQUESTS = 300  # of an hour that are simulated
TURNAROUNDS = 3  # of a request, at least
HOPELESS = 0.5  # of the hour's rate: a closed form below says that nothing is served in time
CHOOSER = 0  # the list of requests that choices are made with
DIGITS = 3  # of a rate: forecasts that agree so far are one


@dataclass(frozen=True, slots=True)
class Task:
    spec_yaml: str  # without a split
    hour: Hour
    split: Split
    seed: int
    requests: int


def share(task: Task) -> float:
    """The share of an hour's requests within the targets on a split. 0 where the closed form is far below the rate.

    Where the line grows, later requests wait longer than the first: the last quarter of what was sent counts.
    """
    spec = task.hour.traffic(_spec(task.spec_yaml))
    try:
        system = system_of(apply(spec, task.split))
    except SpecError:
        return 0.0
    if first_guess(system, task.seed) < HOPELESS * task.hour.rate:
        return 0.0
    turnaround = turnaround_s(spec, task.seed)
    seconds = max(task.requests / task.hour.rate, TURNAROUNDS * turnaround)
    period = Period(seconds, min(turnaround, seconds / 3), request_s(spec, task.seed, 0.5))
    found = probe(system, task.hour.rate, task.seed, early=False, period=period)
    if found.kept_up or not found.blocks[-1][0]:
        return found.attainment
    judged, good = found.blocks[-1]
    return good / judged


def pressure(task: Task) -> Pressure:
    """What the load rule is told of an hour: by Little's law, means over the time in which requests are sent."""
    spec = task.hour.traffic(_spec(task.spec_yaml))
    quiet = spec.run.model_copy(update={"step_records": False, "warmup_requests": 0})
    system = system_of(apply(spec.model_copy(update={"run": quiet}), task.split))
    load = load_at(spec, task.seed, task.hour.rate, task.requests / task.hour.rate)
    requests = backend("simulate").run(system, load).requests
    served = requests[requests["finish_reason"].isin(["length", "stop"])]
    span = max(float(requests["arrival_s"].max() - requests["arrival_s"].min()), 1e-9)
    prefill, decode = system.pools
    waits = float((served["prefill_start_s"] - served["queued_s"]).sum())
    tokens = served["prompt_tokens"] + served["output_tokens"] / 2
    held = float(((served["finish_s"] - served["prefill_end_s"]) * tokens).sum())
    room = len(decode.workers) * decode.limits.kv_blocks * decode.limits.block_size
    return Pressure(waits / span / len(prefill.workers), min(held / span / room, 1.0))


@lru_cache(maxsize=8)
def _spec(text: str) -> Spec:
    return parse(text)


def all_splits(spec: Spec, gpus: int, only_pd: bool = False) -> list[Split]:
    """Every use of up to `gpus` GPUs with the smallest engines on which the model fits. Raises SpecError for none."""
    tp = tp_sizes(spec, gpus)[0][0]
    most = gpus // tp
    together = [Split(PoolSize(count, tp)) for count in range(1, most + 1)]
    apart = [
        Split(PoolSize(prefill, tp), PoolSize(decode, tp))
        for prefill in range(1, most)
        for decode in range(1, most - prefill + 1)
    ]
    if only_pd and not apart:
        raise SpecError(
            "--gpus {gpus}: engines of {tp} GPUs; allowed: at least {least} for two pools", gpus, tp, 2 * tp
        )
    return apart if only_pd else together + apart


@dataclass
class Table:
    """Shares as they are asked for; each is simulated once."""

    spec: Spec
    requests: int = REQUESTS
    known: dict[tuple[Any, ...], float] = field(default_factory=dict)
    _pressures: dict[tuple[Any, ...], Pressure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._yaml = dump(self.spec)

    def serves(self, hour: Hour, split: Split, seed: int = CHOOSER) -> float:
        if not hour.rate:
            return 1.0
        if min(split.first.replicas, split.second.replicas if split.second else 1) < 1:
            return 0.0
        key = self._key(hour, split, seed)
        if key not in self.known:
            self.known[key] = share(self._task(hour, split, seed))
        return self.known[key]

    def fill(
        self, wanted: Iterable[tuple[Hour, Split, int]], spread: Spread, stage: str, progress: Progress | None
    ) -> None:
        """Simulate all of these (hour, split, seed) that are not known yet, on all cores."""
        named = {self._key(*one): self._task(*one) for one in wanted if one[0].rate}
        tasks = {key: task for key, task in named.items() if key not in self.known}
        done = 0

        def one_done(*_: object) -> None:
            nonlocal done
            done += 1
            if progress:
                progress(stage, done / len(tasks))

        found = spread(share, list(tasks.values()), one_done)
        self.known |= dict(zip(tasks, found, strict=True))

    def _task(self, hour: Hour, split: Split, seed: int) -> Task:
        rounded = replace(hour, rate=float(f"{hour.rate:.{DIGITS}g}"))
        return Task(self._yaml, rounded, split, self.spec.run.seed + seed, self.requests)

    def _key(self, hour: Hour, split: Split, seed: int) -> tuple[Any, ...]:
        return (f"{hour.rate:.{DIGITS}g}", hour.prompts, hour.outputs, hour.reused, split, seed)

    def pressure(self, hour: Hour, split: Split) -> Pressure:
        """How full a P/D split is in an hour. Raises SpecError where it cannot be built."""
        key = self._key(hour, split, CHOOSER)
        if key not in self._pressures:
            self._pressures[key] = pressure(self._task(hour, split, CHOOSER))
        return self._pressures[key]

    def carries(self, hour: Hour) -> tuple[float, float]:
        """Requests a second of one prefill and one decode worker, in closed form. Raises SpecError."""
        tp = tp_sizes(self.spec, 2**10)[0][0]
        system = system_of(apply(hour.traffic(self.spec), Split(PoolSize(1, tp), PoolSize(1, tp))))
        lengths = MeanLengths(hour.prompt_mean, hour.prompt_mean * (1 - hour.reused), hour.output_mean)
        rates = pool_rates(system, lengths, self.spec.slo)
        return rates["prefill"], rates["decode"]

    def room_tokens(self, split: Split) -> float:
        """Tokens of the KV cache of a worker that prefills."""
        limits = system_of(apply(self.spec, split)).pools[0].limits
        return float(limits.kv_blocks * limits.block_size)


@dataclass(frozen=True, slots=True)
class Played:
    """A day under one policy. `good`: requests within the targets, of each list of requests that judged."""

    policy: str
    splits: tuple[Split, ...]
    good: tuple[float, ...]
    offered: float
    gpu_hours: float
    cost: float | None
    changes: int
    lost_kv_tokens: float  # prompt tokens computed once more, because the caches that held them went

    @property
    def good_mean(self) -> float:
        return sum(self.good) / len(self.good)


@dataclass(frozen=True)
class Day:
    gpus: int
    hours: tuple[Hour, ...]
    fixed: Split
    best: tuple[Split, ...]  # of each hour, all GPUs used
    played: tuple[Played, ...]
    switching: Switching
    gains: dict[str, Gain]  # of each policy over `static`
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "answer": self.sentence,
            "gpus": self.gpus,
            "start_up_s": self.switching.start_s,
            "drain_s": self.switching.drain_s,
            "static": self.fixed.name,
            "hours": [
                {
                    "start_s": hour.start_s,
                    "rate": hour.rate,
                    "prompt_tokens": hour.prompt_mean,
                    "output_tokens": hour.output_mean,
                    "best": split.name,
                }
                for hour, split in zip(self.hours, self.best, strict=True)
            ],
            "policies": [
                {
                    "policy": one.policy,
                    "good_requests": one.good_mean,
                    "offered_requests": one.offered,
                    "gpu_hours": one.gpu_hours,
                    "cost": one.cost,
                    "changes": one.changes,
                    "lost_kv_tokens": one.lost_kv_tokens,
                    "gain": None if one.policy not in self.gains else asdict(self.gains[one.policy]),
                    "splits": [split.name for split in one.splits],
                }
                for one in self.played
            ],
        }


def play_day(
    spec: Spec,
    hours: Sequence[Hour],
    gpus: int,
    switching: Switching,
    *,
    seeds: int = 3,
    requests: int = REQUESTS,
    only_pd: bool = False,
    spread: Spread = here,
    progress: Progress | None = None,
) -> Day:
    """All policies over the hours. Raises SpecError when no split can be built."""
    if not any(hour.rate for hour in hours):
        raise SpecError("the day has no hour with requests; allowed: a trace or profile with some")
    table, splits = Table(spec, requests), all_splits(spec, gpus, only_pd)
    most = max(split.gpus for split in splits)
    whole = [split for split in splits if split.gpus == most]
    table.fill(((hour, split, CHOOSER) for hour in hours for split in whole), spread, "hours", progress)

    def served(split: Split) -> float:
        return sum(hour.requests * table.serves(hour, split) for hour in hours)

    fixed = max(whole, key=served)
    best = tuple(max(whole, key=lambda split: table.serves(hour, split)) if hour.rate else fixed for hour in hours)
    best = tuple(fixed if table.serves(hour, fixed) >= table.serves(hour, split) else split
                 for hour, split in zip(hours, best, strict=True))  # fmt: skip
    days: dict[str, list[Stretch]] = {}
    for at, name in enumerate(POLICIES):
        days[name] = _stretches(name, spec, hours, splits, fixed, table, switching)
        if progress:
            progress("policies", (at + 1) / len(POLICIES))
    asked = [one for stretches in days.values() for stretch in stretches for one in stretch.asks(seeds)]
    table.fill(asked, spread, "judged", progress)
    played = [_played(name, spec, stretches, table, switching, seeds) for name, stretches in days.items()]
    base = played[0]
    gains = {one.policy: paired_gain(one.good, base.good) for one in played[1:] if base.good_mean > 0}
    day = Day(gpus, tuple(hours), fixed, best, tuple(played), switching, gains, "")
    return replace(day, sentence=sentence(day))


@dataclass(frozen=True, slots=True)
class Stretch:
    """An hour under a policy. `met`: with the caches as they are; `left` serves for the share `away` of it."""

    hour: Hour
    met: Hour
    old: Split
    new: Split
    left: Split | None
    away: float

    def asks(self, seeds: int) -> Iterator[tuple[Hour, Split, int]]:
        """What must be simulated to judge it."""
        for seed in range(1, seeds + 1):
            yield self.met, self.new, seed
            if self.away and self.left is not None:
                yield self.met, self.left, seed

    def good(self, table: Table, seed: int) -> float:
        """Requests within the targets."""
        share_ = (1 - self.away) * table.serves(self.met, self.new, seed)
        if self.away and self.left is not None:
            share_ += self.away * table.serves(self.met, self.left, seed)
        return self.hour.requests * share_


def _stretches(
    name: str,
    spec: Spec,
    hours: Sequence[Hour],
    splits: Sequence[Split],
    fixed: Split,
    table: Table,
    switching: Switching,
) -> list[Stretch]:
    """What a policy makes of the hours."""
    a_day = max(1, round(86_400 / hours[0].length_s))
    now, found = fixed, list[Stretch]()
    for at, hour in enumerate(hours):
        old = now
        now = POLICIES[name](View(hours[:at], old, splits, fixed, table, spec.slo.attainment, hour, a_day))
        away = min(out_s(old, now, switching), hour.length_s) / hour.length_s
        met = hour if old == now or not hour.reused else refill(old, now, hour, table.room_tokens(old))
        found.append(Stretch(hour, met, old, now, staying(old, now), away))
    return found


def _played(
    name: str, spec: Spec, stretches: Sequence[Stretch], table: Table, switching: Switching, seeds: int
) -> Played:
    price = price_per_gpu_hour(spec)
    gpu_s = sum(one.new.gpus * one.hour.length_s + idle_gpu_s(one.old, one.new, switching) for one in stretches)
    return Played(
        policy=name,
        splits=tuple(one.new for one in stretches),
        good=tuple(sum(one.good(table, seed) for one in stretches) for seed in range(1, seeds + 1)),
        offered=sum(one.hour.requests for one in stretches),
        gpu_hours=gpu_s / 3600,
        cost=None if price is None else price * gpu_s / 3600,
        changes=sum(one.old != one.new for one in stretches),
        lost_kv_tokens=sum(one.hour.reused_tokens - one.met.reused_tokens for one in stretches),
    )


# --- words -------------------------------------------------------------------------------------

WORTH = 0.01  # of the requests within the targets: less is not worth a change


def sentence(day: Day) -> str:
    """Whether moving the ratio pays, when, what a policy that sees no future gets of it, and the GPUs it spares."""
    text, spared = _pays(day), _spared(day)
    return f"{text} {spared}" if spared else text


def _spared(day: Day) -> str:
    """The fewest GPU hours of a policy that surely serves no per cent fewer; empty where none spares a per cent."""
    base = day.played[0]
    good = [one for one in day.played if one.policy in day.gains and day.gains[one.policy].low > -WORTH]
    least = min(good, key=lambda one: one.gpu_hours, default=base)
    share = 1 - least.gpu_hours / base.gpu_hours
    if share < WORTH:
        return ""
    served = _more(day.gains[least.policy])
    return f"Policy {least.policy!r} serves {served}, with {percent(share)} fewer GPU hours."


def _pays(day: Day) -> str:
    base = day.played[0]
    text = (
        f"{day.fixed.name} all day serves {percent(base.good_mean / base.offered)} of {number(base.offered)} requests"
        " within the targets"
    )
    best = day.gains.get("best each hour")
    if best is None:
        return f"{text}: no use of {day.gpus} GPUs serves any of them."
    if best.value < WORTH:
        return f"{text}; moving the ratio by the hour does not pay ({_more(best)})."
    real = max(
        (one for one in day.played if one.policy not in ("static", "best each hour")), key=lambda one: one.good_mean
    )
    got = day.gains[real.policy]
    pays = "pays" if best.low > WORTH else "may pay"
    moved = f"{text}; the best split of each hour serves {_more(best)}: moving the ratio {pays}{_when(day)}."
    if got.low > 0:
        return f"{moved} Without seeing the hour beforehand, {real.policy!r} gets {_more(got)}."
    return f"{moved} No policy that does not see the hour beforehand surely gets any of it."


def _more(gain: Gain) -> str:
    word = "more" if gain.value >= 0 else "fewer"
    return f"{percent(abs(gain.value))} {word}, {_signed(gain.low)} to {_signed(gain.high)}"


def _signed(value: float) -> str:
    return f"{_short(value)} %"


def _short(value: float) -> str:
    return f"{100 * value:+z.1f}"


def _when(day: Day) -> str:
    """In the hours 7 to 9 (3P5D) and 17 (2P6D)"""
    numbered = enumerate(zip(day.best, day.hours, strict=True))
    runs = []
    for split, group in groupby(numbered, key=lambda one: one[1][0]):
        places = [at for at, _ in group]
        if split != day.fixed:
            span = f"{places[0]}" if len(places) == 1 else f"{places[0]} to {places[-1]}"
            runs.append(f"{span} ({split.name})")
    return f" in the hours {', '.join(runs[:6])}{', ...' if len(runs) > 6 else ''}" if runs else ""


def rows(day: Day) -> list[list[str]]:
    """The table of policies: name, share within the targets, against static, GPU hours, cost, changes, KV lost."""
    found = []
    for one in day.played:
        gain = day.gains.get(one.policy)
        found.append(
            [
                one.policy,
                percent(one.good_mean / one.offered),
                "" if gain is None else f"{_short(gain.value)} ({_short(gain.low)} to {_short(gain.high)}) %",
                number(one.gpu_hours),
                "-" if one.cost is None else f"{one.cost:,.0f}",
                str(one.changes),
                number(one.lost_kv_tokens / 1e6),
            ]
        )
    return found


HEADINGS = ("policy", "in time", "against static", "GPU h", "cost", "moves", "lost KV")
