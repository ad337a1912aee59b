"""N GPUs, a model and traffic: every split's highest rate within the targets, ranked, and whether P/D is worth it.

Stages, each a list of independent tasks whose results are taken in order, so that the answer does not depend on how
many workers there are: search every candidate with the first seed; find the best knobs of those near the best of their
mode, of both alike; run these with every seed, at the same few rates around their edge; then ask why the two best stop
where they stop, and what would change the verdict. All candidates are sent requests for the same number of seconds,
each at its own rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from planner.messages import joined, message
from planner.report.words import number
from planner.run.metrics import summarise
from planner.run.tables import Progress
from planner.spec import Aggregated, Disaggregated, Slo, Spec, dump
from planner.suggestion import changes
from planner.suggestion.answer import EqualRate, Row, Suggestion, Verdict, best_of, rank
from planner.suggestion.curves import IDLE_RATE, nearly_idle
from planner.suggestion.edge import interval
from planner.suggestion.fleet import Groups, whole
from planner.suggestion.lasting import held
from planner.suggestion.probe import Period, traffic_of
from planner.suggestion.race import LOOK, Race, unproven
from planner.suggestion.rows import rough_row, row_times
from planner.suggestion.search import Probe, system_of
from planner.suggestion.splits import Split, apply, rank_sizes, splits, tp_sizes, variants
from planner.suggestion.spread import Spread, cores, spread
from planner.suggestion.tasks import (
    HELD,
    Estimate,
    ProbeTask,
    Reason,
    Searched,
    SearchTask,
    attained,
    called,
    estimated,
    halved,
    period_of,
    prepared,
    search,
    shortened,
    why,
)
from planner.suggestion.tune import CLEAR_GAIN, GAIN, BeginTask, TuneTask, begin, tune
from planner.suggestion.tuning import kept
from planner.suggestion.verdict import advantage, decide, rate_error, unmeasured
from planner.suggestion.words import alone, engines, limit, pareto, pick, sentence, steps_origin
from planner.system.resolve import System
from planner.traffic.workload import offered_rate

__all__ = [
    "COARSE",
    "ProbeTask",
    "SearchTask",
    "attained",
    "search",
    "suggest",
]

COARSE = 0.02  # width of the brackets that first searches end with
NEAR = 0.9  # candidates above this share of the best of their mode are run with every seed
WITHIN = 0.5  # of the best of their mode: what knobs may make up for
FINALISTS = 3  # of each mode at most
WAVE = 6  # candidates that are searched at a time after these
TOLD_STEP = 1.1  # from where others of the mode tell to begin to the second rate
SHORTLIST = 2  # of each mode, in a first look
RACE, RACE_LEFT = 0.9, 0.5  # of the stage's progress: the race itself; what each later one leaves of the rest
LONGER = 2.0  # times the seconds of a run, to see what is held for long
LONG_S = 60.0  # and at least so long: engines near their edge fill up slowly
RECOVERED = 3  # of which the first part, in which a crowd may go away, is not judged
CHANGED = 1000  # requests that changes are searched with
OVERLOAD = 1.1  # how far past its highest rate a candidate is run to see what limits it


def suggest(
    spec: Spec,
    gpus: int,
    *,
    seeds: int = 5,
    requests: int | None = None,
    sweep: frozenset[str] = frozenset(),
    slo: Slo | None = None,
    processes: int | None = None,
    cluster: str | None = None,
    pool: Spread | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> Suggestion:
    """The ranked ways to use `gpus` GPUs for the spec's model, traffic and targets.

    Each of `seeds` runs is as long as the best candidate takes to be sent `requests` requests (None: as many as the
    number of GPUs says), and long enough for answers to end. Traces and the like have a length of their own.
    `sweep`: router, local_prefill. The same arguments give the same answer on any number of `processes`, here, in a
    `pool` that runs already, or on a cluster ("ray"). `quick`: a first look at the few candidates that the closed form
    prefers, without reasons. Of many GPUs one of equal groups is searched (fleet.py). Raises SpecError, and
    ImportError without ray.
    """
    wanted = prepared(spec, gpus, requests, slo)
    if "router" in sweep:  # which is then no knob
        wanted = wanted.model_copy(update={"deployment": _routed(wanted.deployment)})
    groups = Groups.of(gpus, tp_sizes(wanted, gpus)[0][0])
    sizes, left_out = tp_sizes(wanted, groups.gpus)
    with nullcontext(pool) if pool is not None else spread(cluster, processes or cores()) as workers:
        session = _Session(wanted, groups.gpus, seeds, requests, sweep, workers, progress, quick)
        found = session.answer(splits(groups.gpus, sizes, rank_sizes(wanted, groups.gpus, sizes)), left_out)
        return found if groups.count == 1 else session.of_all(found, gpus, groups)


def _routed(deployment: Aggregated | Disaggregated) -> Aggregated | Disaggregated:
    """As if the file had named its router."""
    router = deployment.router
    return deployment.model_copy(update={"router": router.model_copy(update={"policy": router.policy})})


def preferred(candidates: Sequence[Split], guesses: Sequence[float], most: int = SHORTLIST) -> list[int]:
    """Places of the candidates of each mode with the highest guesses; of equal ones the smallest engines."""
    kept: list[int] = []
    for mode in ("aggregated", "disaggregated"):
        places = [at for at, split in enumerate(candidates) if split.mode == mode]
        kept += sorted(places, key=lambda at: (-round(guesses[at], 6), candidates[at].largest_tp))[:most]
    return kept


def contenders(rows: Sequence[Row], most: int, promised: Mapping[Split, float]) -> list[Row]:
    """The rows of each mode that may become its best once tuned: `most` of those that serve WITHIN of the best's rate.

    Where none of a mode meets the targets at any rate, those with the highest closed form. And `most` of those that
    serve NEAR of the best's rate where hand-overs cost them nothing, by what the closed form has `promised`: posts may
    hold a split back to a fraction of what its tuning ends at.
    """
    kept: list[Row] = []
    best: dict[str, float] = {}
    for mode in ("aggregated", "disaggregated"):
        of_mode = sorted((row for row in rows if row.mode == mode), key=lambda row: (*rank(row)[:1], -row.guess))
        best[mode] = of_mode[0].rate if of_mode else 0.0
        kept += [row for row in of_mode[:most] if row.rate >= WITHIN * best[mode]]

    def might(row: Row) -> bool:
        return row.rate * promised[row.split] >= NEAR * best[row.mode] * row.guess

    promising = [row for row in rows if row.split in promised and might(row)]
    promising.sort(key=lambda row: -promised[row.split])
    return kept + [row for row in promising[:most] if row not in kept]


def _told(split: Split, found: Iterable[tuple[Split, Searched]]) -> float | None:
    """What part of the closed form a candidate may serve, as the most similar one of its mode did; None: no one yet.

    Where prefill has few of the GPUs it is what limits, and the closed form is off by something else than where it has
    many.
    """

    def unlike(other: Split) -> tuple[float, float]:
        pools, theirs = ((one.first, one.second or one.first) for one in (split, other))
        sizes = sum(abs(math.log2(a.engine_gpus / b.engine_gpus)) for a, b in zip(pools, theirs, strict=True))
        return abs(split.first.gpus / split.gpus - other.first.gpus / other.gpus), sizes

    known = [(unlike(other), at, one) for at, (other, one) in enumerate(found) if other.mode == split.mode]
    served = [each for each in known if each[2].found.rate > 0]
    if not served:
        return None
    *_, nearest = min(served, key=lambda each: each[:2])
    return math.sqrt(nearest.found.rate * nearest.found.above) / nearest.guess


@dataclass(frozen=True, slots=True)
class _Closing:
    """What is asked of the best of each mode. A first look asks nothing, and one mode alone has no verdict."""

    equal: tuple[Probe, ...] = ()  # both at one rate, the first seeds
    pair: tuple[changes.ChangeTask, ...] = ()  # what changes are held against,
    held: tuple[changes.Held, ...] = ()  # and what that found
    reasons: tuple[Reason, ...] = ()


class _Session:
    """The stages of one answer."""

    def __init__(
        self,
        spec: Spec,
        gpus: int,
        seeds: int,
        requests: int | None,
        sweep: frozenset[str],
        pool: Spread,
        progress: Progress | None,
        quick: bool,
    ) -> None:
        self.spec, self.gpus, self.asked, self.sweep, self._pool = spec, gpus, requests, sweep, pool
        self.seeds = [spec.run.seed + offset for offset in range(seeds)]
        self.period: Period | None = None
        self._race = Race(spec, gpus, self.seeds, lambda *runs: self._map("all seeds", *runs), told=quick)  # type: ignore[arg-type]
        self._lost: dict[Split, float] = {}  # what part of their rate is held for long
        self._promised: dict[Split, float] = {}
        self._progress, self._quick = progress, quick

    def _map(
        self, stage: str, function: Callable[..., object], inputs: Sequence[object], part: tuple[float, float] = (0, 1)
    ) -> list[object]:
        """`part` of the stage, from where to where, that these inputs are."""
        count, (begin, end) = 0, part

        def done(*_: object) -> None:
            nonlocal count
            count += 1
            if self._progress:
                self._progress(stage, begin + (end - begin) * count / len(inputs))

        return self._pool(function, inputs, done)

    def _in_parts(self, stage: str, begin: float, end: float) -> Callable[..., Any]:
        """`_map` for work in an unknown number of parts: each takes a share of what is left of this part of a stage."""
        left = [begin]

        def mapped(function: Callable[..., object], inputs: Sequence[object]) -> list[object]:
            first, left[0] = left[0], end - RACE_LEFT * (end - left[0])
            return self._map(stage, function, inputs, (first, left[0]))

        return mapped

    def answer(self, candidates: list[Split], left_out: list[str]) -> Suggestion:
        beginning = [BeginTask(self.spec, split, self.seeds[0]) for split in candidates]
        rows = self._coarse("search", self._map("estimate", begin, beginning, (0, 0.6)))  # type: ignore[arg-type]
        if self.sweep:
            base = [split for mode in ("aggregated", "disaggregated") for split in self._near(rows, mode)]
            more = [other for split in base for other in variants(split, self.sweep, self._thresholds())]
            rows += self._coarse("sweep", more)
        rows = self._tuned(rows)
        rows = self._refined(rows)
        closing = self._closing(rows)
        verdict = self._verdict(rows, closing)
        notes = [message("Left out: {what}", text) for text in left_out] + self._held(rows) + self._notes(rows)
        notes += self._extrapolated(rows, closing)
        compared = [row for mode in ("disaggregated", "aggregated") if (row := best_of(rows, mode))]
        brackets = steps_origin(self._systems(compared or rows[:1]))
        return Suggestion(
            gpus=self.gpus,
            model=self.spec.model,
            hardware=self.spec.hardware,
            slo=self.spec.slo,
            requests=getattr(self.spec.workload, "requests", None),
            seeds=len(self._race.seeds),
            seeds_asked=len(self.seeds),
            provenance=brackets,
            rows=tuple(rows),
            verdict=verdict,
            sentence=message("{sentence} {provenance}", sentence(rows, verdict, self.gpus, self.spec.slo), brackets),
            yaml=dump(apply(self.spec, pick(rows, verdict).split)),
            pareto=pareto(rows, self.gpus),
            notes=tuple(dict.fromkeys(notes)),
            period=self.period,
            as_good=self._as_good(rows, verdict),
        )

    def of_all(self, found: Suggestion, gpus: int, groups: Groups) -> Suggestion:
        """The answer for all of several groups of GPUs, of which this session has searched one."""
        return whole(found, self.spec, gpus, groups, lambda tasks: self._map("together", attained, tasks))  # type: ignore[arg-type, return-value]

    # --- stages ---

    def _coarse(self, stage: str, candidates: list[Split]) -> list[Row]:
        tasks = [SearchTask(apply(self.spec, split), self.seeds[0], None, COARSE, 1.25) for split in candidates]
        estimates: list[Estimate] = self._map("estimate", estimated, tasks, (0.6, 1))  # type: ignore[assignment]
        guesses = [one.rate for one in estimates]
        promising = {
            split: one.promised for split, one in zip(candidates, estimates, strict=True) if one.promised is not None
        }
        self._promised |= promising
        period = self.period or self._period(max(guesses))
        first = preferred(candidates, guesses, SHORTLIST if self._quick else FINALISTS)
        if self._quick and promising:
            first = list(dict.fromkeys([*first, candidates.index(max(promising, key=lambda split: promising[split]))]))
        width = 2 * COARSE if self._quick else COARSE
        tasks = [SearchTask(task.spec, task.seed, None, width, 1.25, halved(period)) for task in tasks]
        found = self._searched(stage, candidates, tasks, guesses, first)
        rows = [rough_row(self.spec, self.gpus, candidates[at], found[at]) for at in sorted(found)]
        self.period = self._period(max(row.rate for row in rows)) or period
        return rows

    def _searched(
        self, stage: str, candidates: list[Split], tasks: list[SearchTask], guesses: list[float], first: list[int]
    ) -> dict[int, Searched]:
        """The searches of the candidates at these places, and but in a first look of all others, with a rough rate.

        The foremost of each mode go before the others of `first`, and of the rest those that promise most: each wave
        tells where the next ones begin, and what they are held against.
        """
        found: dict[int, Searched] = {}
        rest = [] if self._quick else [at for at in range(len(tasks)) if at not in first]
        places = {candidates[at].mode: at for at in reversed(first)}
        wave = list(places.values())
        others = [at for at in first if at not in wave]
        known: list[tuple[Split, Searched]] = []
        bars: dict[str, float] = {}
        while wave:
            asked = []
            for at in wave:
                task, told = tasks[at], _told(candidates[at], known)
                if told is not None:
                    task = replace(task, of_guess=told, step=TOLD_STEP)
                asked.append(task if at in first else replace(task, bar=bars[candidates[at].mode]))
            begin, end = len(found), len(found) + len(wave)
            of_all = len(first) + (0 if self._quick else len(tasks) - len(first))
            results = self._map(stage, search, asked, (begin / of_all, end / of_all))
            found |= dict(zip(wave, results, strict=True))  # type: ignore[arg-type]
            known = [(candidates[at], one) for at, one in found.items()]
            bars, of_guess = self._bars(known), {at: _told(candidates[at], known) or 1.0 for at in rest}
            rest.sort(key=lambda at: -guesses[at] * of_guess[at])
            wave, others, rest = (others, [], rest) if others else (rest[:WAVE], [], rest[WAVE:])
        return found

    def _bars(self, found: Sequence[tuple[Split, Searched]]) -> dict[str, float]:
        """For each mode, the rate that another candidate must serve to be a contender or to be run with every seed."""
        bars = {}
        for mode in ("aggregated", "disaggregated"):
            rates = sorted((one.found.rate for split, one in found if split.mode == mode), reverse=True)
            last = rates[FINALISTS - 1] / (1 + COARSE) if len(rates) >= FINALISTS else 0.0
            bars[mode] = max(last, WITHIN * max(rates, default=0.0))
        return bars

    def _period(self, rate: float) -> Period | None:
        """As many seconds as `rate` takes; a first look may be too short for its interval to hold."""
        return period_of(self.spec, self.asked, rate, long=not self._quick)

    def _near(self, rows: list[Row], mode: str) -> list[Split]:
        most = 1 if self._quick else FINALISTS
        of_mode = sorted((row for row in rows if row.mode == mode and row.rate > 0), key=rank)[:most]
        return [row.split for row in of_mode if row.rate >= NEAR * of_mode[0].rate]

    def _tuned(self, rows: list[Row]) -> list[Row]:
        """Rows with the contenders of both modes at their best knobs."""
        wanted = contenders(rows, 1 if self._quick else FINALISTS, self._promised)
        brief = shortened(halved(self.period), max(row.rate or row.guess for row in rows))
        gain = CLEAR_GAIN if self._quick else GAIN
        tuning = [
            TuneTask(self.spec, row.split, self.seeds[0], row.rate, row.guess, row.period(brief), gain)
            for row in wanted
        ]
        found = tune(tuning, lambda *task: self._map("tune", *task), quick=self._quick)
        if self._progress:
            self._progress("tune", 1.0)
        better = {
            row.split: rough_row(self.spec, self.gpus, one.split, Searched(row.guess, one.found))
            for row, one in zip(wanted, found, strict=True)
            if one.found is not None
        }
        rows = [better.get(row.split, row) for row in rows]
        if better:
            self.period = self._period(max(row.rate for row in rows)) or self.period
        return rows

    def _refined(self, rows: list[Row]) -> list[Row]:
        """Rows with those near the best of their mode run by every seed, best first.

        Then those whose rough rate is above what the best has come down to, until none claims what no seed but the
        first has shown.
        """
        near = [*self._near(rows, "aggregated"), *self._near(rows, "disaggregated")]
        rows, later = self._raced(rows, near, (0.0, RACE))
        if self._race.needs_all(rows):
            until = later + (1 - RACE_LEFT) * (1 - later)
            rows, later = self._raced(*self._race.take_all(rows), (later, until))
        rows = self._lasting(rows, later)
        if self._progress:
            self._progress("all seeds", 1.0)
        return sorted(rows, key=rank)

    def _raced(self, rows: list[Row], splits: list[Split], part: tuple[float, float]) -> tuple[list[Row], float]:
        """Rows with these in the race, and then those that claim more than they have shown; and the progress."""
        rows, (_, later) = self._race.run(rows, splits, self.period, part), part
        while claims := unproven(rows, 1 if self._quick else FINALISTS, self._race.looks):
            until = later + (1 - RACE_LEFT) * (1 - later)
            rows, later = self._race.run(rows, claims, self.period, (later, until)), until
        return rows, later

    def _lasting(self, rows: list[Row], begun: float) -> list[Row]:
        """Rows in which the best of each mode serves what it holds for long.

        Engines near their edge fill up so slowly that short runs do not see it. Others of a mode that not all seeds
        have run, or that serve hardly more, are taken to lose as much.
        """
        long = self._for_longer()
        asked: set[Split] = set()
        while long is not None and self.spec.slo.targets and not self._quick:
            best = [row for mode in ("aggregated", "disaggregated") if (row := best_of(rows, mode)) is not None]
            best = [row for row in best if row.rate > 0 and row.split not in asked]
            if not best:
                break
            tasks = [ProbeTask(apply(self.spec, row.split), self.seeds[0], row.rate, row.period(long)) for row in best]
            end = begun + (1 - RACE_LEFT) * (1 - begun)
            rates = held(tasks, self._in_parts("all seeds", begun, end))
            begun = end
            for row, rate in zip(best, rates, strict=True):
                asked.add(row.split)
                if 0 < rate < row.rate:
                    self._lost[row.split] = factor = rate / row.rate
                    losing = {row.split} | {
                        one.split
                        for one in rows
                        if one.mode == row.mode
                        and one.split not in asked
                        and (not one.refined or one.rate <= (1 + HELD) * rate)
                    }
                    self._race.lose(losing, factor)
                    rows = [row_times(one, factor) if one.split in losing else one for one in rows]
        return rows

    def _closing(self, rows: list[Row]) -> _Closing:
        if self._quick:
            return _Closing()
        equal: list[ProbeTask] = []
        pair: list[changes.ChangeTask] = []
        reasons: list[ProbeTask] = []
        ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
        if ours is not None and theirs is not None:
            seed = self.seeds[0]
            brief = shortened(self.period, ours.rate, CHANGED)
            pair = changes.unchanged(
                self.spec,
                seed,
                [(row.split, row.rate / self._lost.get(row.split, 1.0), row.period(brief)) for row in (ours, theirs)],
            )
            equal = self._at_equal_rate(ours, theirs) if self.spec.slo.targets else []
            reasons = [
                ProbeTask(apply(self.spec, row.split), seed, OVERLOAD * row.rate, row.period(self.period))
                for row in (ours, theirs)
            ]
        calls = [
            *((changes.search_unchanged, one) for one in pair),  # the longest first
            *((attained, one) for one in equal),
            *((why, one) for one in reasons),
        ]
        found = iter(self._map("why", called, calls))

        def take(tasks: Sequence[object]) -> tuple[Any, ...]:
            return tuple(next(found) for _ in tasks)

        unchanged = take(pair)
        return _Closing(take(equal), tuple(pair), unchanged, take(reasons))

    def _verdict(self, rows: list[Row], closing: _Closing) -> Verdict | None:
        ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
        if ours is None or theirs is None or alone(min(ours, theirs, key=rank)) is not None:
            return None
        found = advantage(self._race.edges[ours.split], self._race.edges[theirs.split], self.spec.run.seed)
        error = rate_error(self._systems([ours, theirs]))
        margin = self.spec.run.margin
        unknown = unmeasured(system_of(apply(self.spec, ours.split)))
        word = decide(found, margin, error, unknown is not None)
        if self._quick:
            return Verdict(word, found, margin, error, unknown)
        pair, held = closing.pair, closing.held
        names, tasks = changes.tasks(self.spec, pair, held)
        before = [one.found for one in held]
        known = dict(zip(pair, before, strict=True))
        once = [task for task in dict.fromkeys(tasks) if task not in known]
        known |= zip(once, self._map("what would change it", changes.search_change, once, (0, 0.8)), strict=True)  # type: ignore[arg-type]
        outcomes = [*before, *(known[task] for task in tasks)]
        now = (found, margin, error, unknown is not None)
        mapped = self._in_parts("what would change it", 0.8, 1.0)
        while finer := changes.finer(tasks, outcomes, *now):
            again = mapped(changes.search_change, [*finer.values()])
            for place, one in zip(finer, again, strict=True):
                outcomes[place + len(pair)] = one
        if self._progress:
            self._progress("what would change it", 1.0)
        judged = changes.judged(names, outcomes, *now)
        enough = None
        if closing.reasons[0].limit.kind == "link":
            period = shortened(self.period, ours.rate, CHANGED)
            task = changes.ChangeTask(apply(self.spec, ours.split), ours.split, self.seeds[0], ours.rate, 1.0, period)
            enough = self._map("link", changes.enough_link, [task])[0]
        return Verdict(
            word=word,
            advantage=found,
            margin=margin,
            error=error,
            unmeasured=unknown,
            at_equal_rate=self._equal_rate(closing.equal) if closing.equal else None,
            why=tuple(
                message("{name}: {what}", row.name, limit(reason.limit))
                for row, reason in zip((ours, theirs), closing.reasons, strict=True)
            ),
            enough_link=enough,  # type: ignore[arg-type]
            changes=tuple(judged),
            change=changes.sentence(word, judged, offered_rate(self.spec), ours.rate, theirs.rate),
        )

    def _at_equal_rate(self, ours: Row, theirs: Row) -> list[ProbeTask]:
        """Both at a rate that the better one serves, with the first seeds."""
        rate = self._race.edges[max(ours, theirs, key=lambda row: row.rate).split].bracket[0]
        return [
            ProbeTask(apply(self.spec, row.split), seed, rate, row.period(self.period))
            for row in (ours, theirs)
            for seed in self.seeds[:LOOK]
        ]

    def _equal_rate(self, found: Sequence[Probe]) -> EqualRate:
        half = len(found) // 2
        ours, theirs = (sum(one.attainment for one in runs) / half for runs in (found[:half], found[half:]))
        return EqualRate(found[0].rate, ours, theirs)

    # --- pieces ---

    def _as_good(self, rows: Sequence[Row], verdict: Verdict | None) -> tuple[str, ...]:
        """Other candidates of the suggested one's mode whose highest rate cannot be told from its own."""
        chosen, looks = pick(rows, verdict), self._race.looks
        if chosen.split not in looks:
            return ()
        found = []
        for row in rows:
            if row.split in looks and row.mode == chosen.mode and row.split != chosen.split:
                _, low, high = interval([looks[row.split], looks[chosen.split]], self.spec.run.seed)
                if low <= 1 <= high:
                    found.append(row.name)
        return tuple(found)

    def _thresholds(self) -> list[int]:
        """Prompt lengths up to which decode workers may prefill: none, and the quartiles of the prompts."""
        load, _ = traffic_of(self.spec, self.seeds[0])
        lengths = sorted(arrival.request.prompt_tokens for arrival in load.start())
        return sorted({0, *(lengths[len(lengths) * quarter // 4] for quarter in (1, 2, 3))})

    def _for_longer(self) -> Period | None:
        if self.period is None:
            return None
        seconds = max(LONGER * self.period.seconds, LONG_S)
        return replace(self.period, seconds=seconds, warmup_s=seconds / RECOVERED)

    def _held(self, rows: Sequence[Row]) -> list[str]:
        """Where a mode's best holds less for long than short runs said."""
        long = self._for_longer()
        if long is None or self.period is None:
            return []
        return [
            message(
                "{name}: runs of {seconds} s are within the targets up to {more} req/s, runs of {long} s up to {rate}: "
                "that is its rate here.",
                row.name,
                number(self.period.seconds),
                number(row.rate / self._lost[row.split]),
                number(long.seconds),
                number(row.rate),
            )
            for row in rows
            if row.split in self._lost
        ]

    def _extrapolated(self, rows: Sequence[Row], closing: _Closing) -> list[str]:
        """Where the best of each mode, at its highest rate, is beyond what its profile was measured on."""
        best = (best_of(rows, mode) for mode in ("disaggregated", "aggregated"))
        return [
            message("{name}: {what}", row.name, text)
            for row, reason in zip((row for row in best if row), closing.reasons, strict=False)
            for text in reason.warnings
        ]

    def _least(self, row: Row) -> str:
        """What a deployment that meets no target takes even without load."""
        summary = summarise(nearly_idle(apply(self.spec, row.split)))
        named = (("TTFT", "ttft"), ("TPOT", "tpot"), ("E2E", "e2e"))
        least = [
            message("{metric} {ms} ms", name, number(summary[f"{key}_p99_ms"]))
            for name, key in named
            if getattr(self.spec.slo, f"{key}_ms") is not None
        ]
        return message(
            "Even nearly idle, at {rate} req/s, {engines} has at p99: {least}. Targets below these need a faster GPU, "
            "a smaller model or shorter prompts.",
            number(IDLE_RATE),
            engines(row),
            joined(", ", least),
        )

    def _systems(self, rows: Sequence[Row]) -> list[System]:
        return [system_of(apply(self.spec, row.split)) for row in rows]

    def _notes(self, rows: list[Row]) -> list[str]:
        notes: list[str] = []
        for row in (best_of(rows, "disaggregated"), best_of(rows, "aggregated")):
            if row is not None:
                if held := kept(apply(self.spec, row.split.untuned)):
                    keys = ", ".join(held)
                    notes.append(
                        message(
                            "{name}: {keys} kept as the file has it; left out, the best is searched.", row.name, keys
                        )
                    )
                notes += [
                    message("{name}: {what}", row.name, text)
                    for text in system_of(apply(self.spec, row.split)).warnings
                ]
        if not any(row.rate > 0 for row in rows):
            notes.append(self._least(pick(rows, None)))
        idle = [row.name for row in rows if row.idle]
        if idle:
            notes.append(message("GPUs left idle by {splits}; rates per GPU count them.", joined(", ", idle)))
        return notes
