"""The highest rate at which a deployment meets its targets: bisection on simulated attainment.

Every probe of a candidate, and every candidate of a comparison, serves the same requests and gaps, only faster or
slower (common random numbers), and for as many seconds: at a higher rate it gets further in the list. A run begins
with answers and sessions under way, as if requests had come for ever, and goes on for a while after the last one that
is judged: systems that fill or empty would pass at rates which they cannot hold. A probe that has missed more requests
than it may is abandoned; it could not pass any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from planner.core import no_cycles
from planner.run import targets
from planner.run.facts import LEAST_GROWTH, SATURATED, STEADY_START, Window, growth
from planner.spec import Slo, Spec
from planner.suggestion.probe import Pace, Period, lengths_of, load_at, seeded, turn_s
from planner.suggestion.underway import Start
from planner.system.capacity import guessed_rate, token_s
from planner.system.resolve import System, resolve
from planner.traffic.loads import Underway
from planner.traffic.requests import Arrival, Load
from simulator.cluster import SimulatedCluster, Visit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NAN = float("nan")
WIDEST = 4.0  # a bracket grows by at most this factor a step
FURTHER = 1.08  # and by at least this one after the first
HOPELESS = 256.0  # below guess / this the rate counts as zero
OPEN = 0.5  # of as many judged requests as may miss: still at work, they end a run (the longest answers)
ENTERING = 1  # turns that just meet their targets, with the thinking: so long sessions come in that began before
CACHED = 2  # of them: sessions that ended before are taken to be forgotten
GROWTH = 3.0  # power of the rate that tokens slow down with at most: the closed form has no bound near its edge
SPREAD = 6.0  # standard deviations of a count, which no count is beyond
BLOCKS = 4  # equal parts of the judged time: how much goodput varies within a run


@dataclass(frozen=True, slots=True)
class Probe:
    """One simulated run at one rate. Rates in requests per second, over all GPUs."""

    rate: float
    passed: bool
    attainment: float  # share of the judged requests within the targets; of those seen when abandoned
    goodput: float  # requests per second within the targets; 0 when abandoned
    output_tokens_s: float
    total_tokens_s: float
    tokens_s_user: float  # 1 / mean TPOT
    abandoned: bool
    kept_up: bool = True  # the line of waiting requests does not grow
    blocks: tuple[tuple[int, int], ...] = ()  # (judged, within the targets) of each part of the judged time


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one search. `rate` is the highest that passed (0: none does), `above` the lowest that failed."""

    rate: float
    above: float
    probes: tuple[Probe, ...]

    @property
    def best(self) -> Probe | None:
        """The probe at `rate`."""
        return next((probe for probe in self.probes if probe.passed and probe.rate == self.rate), None)


class Misses:
    """Counts judged requests that have missed a target for certain; a `stop` rule for the cluster."""

    def __init__(self, slo: Slo, judged: Window, allowed: float) -> None:
        self._ttft, self._tpot, self._e2e = targets.limits_s(slo)
        self._judged, self._allowed = judged, allowed
        self._open: list[Visit] = []
        self._seen = 0
        self.missed = self.decided = 0

    def __call__(self, cluster: SimulatedCluster) -> bool:
        now, visits = cluster.clock.now, cluster.visits
        while self._seen < len(visits) and visits[self._seen].arrival_s <= now:
            if self._judged.start_s <= visits[self._seen].arrival_s <= self._judged.end_s:
                self._open.append(visits[self._seen])
            self._seen += 1
        still: list[Visit] = []
        for visit in self._open:
            verdict = self._within(visit, now)
            if verdict is None:
                still.append(visit)
                continue
            self.decided += 1
            self.missed += not verdict
        self._open = still
        return self.hopeless

    @property
    def hopeless(self) -> bool:
        return self.missed > self._allowed

    def _within(self, visit: Visit, now: float) -> bool | None:
        """Whether the request meets its targets; None: not known yet."""
        arrival, first, end = visit.arrival_s, visit.first_token_s, visit.finish_s
        if visit.finish_reason == "rejected":
            return False
        over = end <= now  # a NaN is not over
        if (first if first <= now else now) - arrival > self._ttft + 1e-12:
            return False
        if (end if over else now) - arrival > self._e2e:
            return False
        more = visit.request.output_tokens - 1
        if first <= now and more > 0 and ((end if over else now) - first) / more > self._tpot:
            return False
        return True if over else None


class Settled:
    """Whether all judged requests but a `few` (a share) have ended: a `stop` rule where others follow, not judged."""

    def __init__(self, judged: Window, few: float) -> None:
        self._judged, self._few = judged, few
        self._open: list[Visit] | None = None
        self._enough = 0.0

    def __call__(self, cluster: SimulatedCluster) -> bool:
        now, judged = cluster.clock.now, self._judged
        if now <= judged.end_s:
            return False
        if self._open is None:
            self._open = [one for one in cluster.visits if judged.start_s <= one.arrival_s <= judged.end_s]
            self._enough = self._few * len(self._open)
        self._open = [one for one in self._open if not one.finish_s <= now]
        return len(self._open) <= self._enough


def sent(system: System, seed: int, rate: float, period: Period | None) -> Load:
    """What is sent at `rate` for a period, as if requests had come for ever, or the whole list."""
    if period is None:
        return load_at(system.spec, seed, rate)
    pace = _pace(system, rate, seed, period.pace)
    turn = turn_s(system.spec, seed)
    start = Start(ENTERING * turn, pace, CACHED * turn)
    return load_at(system.spec, seed, rate, period.seconds + period.after_s, start)


def _pace(system: System, rate: float, seed: int, known: Pace | None) -> float:
    """Seconds a token at this rate: by the closed form, or by how it grows from a rate that was run."""
    lengths, slo = lengths_of(system, seed), system.spec.slo
    found = token_s(system, rate, lengths, slo)
    if known is None:
        return found
    grown, most = found / token_s(system, known.rate, lengths, slo), (rate / known.rate) ** GROWTH
    grown = min(grown, most) if most > 1 else max(grown, most)
    slowest_s = math.inf if slo.tpot_ms is None else slo.tpot_ms / 1e3
    return float(min(known.token_s * grown, slowest_s))


def paced(period: Period | None, told: Probe | None) -> Period | None:
    """The period of further runs of a candidate, which begin at the pace that this one has told."""
    if period is None or told is None or not told.tokens_s_user > 0:
        return period
    return replace(period, pace=Pace(told.rate, 1 / told.tokens_s_user))


class Runs:
    """Runs of one candidate and seed, each begun at the pace that the one before it has told."""

    def __init__(self, system: System, seed: int, period: Period | None) -> None:
        self._system, self._seed, self._period = system, seed, period

    def __call__(self, rate: float) -> Probe:
        found = probe(self._system, rate, self._seed, period=self._period)
        self._period = paced(self._period, found)
        return found


def system_of(spec: Spec) -> System:
    """The spec resolved. Raises SpecError."""
    return resolve(spec)


def probe(system: System, rate: float, seed: int, *, early: bool = True, period: Period | None = None) -> Probe:
    """Serve the spec's requests at `rate` and judge them. `period` None: the whole list, less the first tenth."""
    return probes(system, rate, seed, (system.spec.slo,), early=early, period=period)[0]


def probes(
    system: System, rate: float, seed: int, slos: Sequence[Slo], *, early: bool = True, period: Period | None = None
) -> list[Probe]:
    """As `probe`, one run judged by several targets; it is abandoned when it could pass by none of them."""
    run = served(system, rate, seed, slos if early else (), period=period)
    if isinstance(run, Served):
        return [judged(run, rate, slo) for slo in slos]
    shares = [1 - one.missed / max(one.decided, 1) for one in run]
    return [Probe(rate, False, share, 0.0, 0.0, 0.0, 0.0, True) for share in shares]


@dataclass(frozen=True)
class Served:
    """Columns of the requests of a run that began by the end of its window, in the order in which they became known.

    What had not ended when the run was stopped goes on as it went so far; what had not begun begins then.
    """

    window: Window  # whose requests are judged
    arrival: Floats  # seconds, as the next two
    first: Floats  # token
    end: Floats
    prompts: Floats  # tokens
    tokens: Floats  # of answers
    ok: Bools  # not refused

    @property
    def judged(self) -> Bools:
        return self.arrival >= self.window.start_s

    @property
    def ttft(self) -> Floats:
        return self.first - self.arrival

    @property
    def tpot(self) -> Floats:
        """0 for answers of one token."""
        return np.where(self.tokens > 1, (self.end - self.first) / np.maximum(self.tokens - 1, 1), 0.0)

    @property
    def kept_up(self) -> bool:
        return _keeps_up(self.arrival, np.where(self.ok, self.first, self.end), self.end, self.ok, self.window)

    def good(self, slo: Slo) -> Bools:
        """Which are within the targets."""
        return self.ok & targets.within(slo, self.ttft, self.tpot, self.end - self.arrival)


@no_cycles()
def served(
    system: System, rate: float, seed: int, slos: Sequence[Slo] = (), *, period: Period | None = None
) -> Served | list[Misses]:
    """One run. `slos`: it is abandoned when it could pass by none of these, and what was missed is all there is."""
    spec = system.spec
    load = sent(system, seed, rate, period)
    known = load.start()
    window = _window(load, known, period)
    count = load.expected_requests
    follow = len(known) < count
    if not follow:  # what is judged is known beforehand
        count = sum(window.start_s <= one.time_s <= window.end_s for one in known)
    elif math.isfinite(window.end_s):
        likely = rate * window.length_s
        count = min(count, math.ceil(likely + SPREAD * math.sqrt(likely)))
    misses = [Misses(slo, window, (1 - slo.attainment) * count * (1 + 1e-9)) for slo in slos]
    system = replace(system, spec=seeded(spec, seed))
    rules: list[Callable[[SimulatedCluster], bool]] = []
    if misses:
        rules.append(lambda cluster: all(one(cluster) for one in misses))
    ends = period is not None and period.after_s > 0
    if ends or (follow and math.isfinite(window.end_s)):
        rules.append(Settled(window, OPEN * (1 - spec.slo.attainment)))
    stop = (lambda cluster: any(rule(cluster) for rule in rules)) if rules else None
    until_s = window.end_s + period.after_s if period is not None and ends else math.inf
    cluster = SimulatedCluster(system, load, record_steps=False, record_transfers=False, stop=stop, until_s=until_s)
    visits = cluster.run()
    if misses and cluster.stopped and all(one.hopeless for one in misses):
        return misses
    last_s = window.end_s if cluster.stopped else min(max(one.arrival_s for one in visits), window.end_s)
    visits = [one for one in visits if one.arrival_s <= last_s]
    return _columns(visits, Window(window.start_s, last_s), cluster)


def _window(load: Load, known: Sequence[Arrival], period: Period | None) -> Window:
    """Of the requests that are judged: without a period all but the first tenth of the seconds in which they come.

    There is always one: at a rate so low that nobody comes in what is judged, the last before it or the first after.
    """
    if period is None:
        first_s, last_s = known[0].time_s, known[-1].time_s
        return Window(first_s + STEADY_START * (last_s - first_s), math.inf)
    old = load.resumed if isinstance(load, Underway) else frozenset()
    come = [one.time_s for one in known if one.request.request_id not in old]
    inside = [time_s for time_s in come if time_s <= period.seconds]
    if come and not inside:
        return Window(come[0], come[0])
    return Window(min(period.warmup_s, max(inside, default=period.warmup_s)), period.seconds)


def _columns(visits: Sequence[Visit], window: Window, cluster: SimulatedCluster) -> Served:
    def column(value: Callable[[Visit], float]) -> Floats:
        return np.fromiter(map(value, visits), dtype=np.float64, count=len(visits))

    def lengths(name: str) -> Floats:
        return np.fromiter(map(attrgetter(name), requests), dtype=np.float64, count=len(requests))

    requests = [visit.request for visit in visits]
    first, end = column(attrgetter("first_token_s")), column(attrgetter("finish_s"))
    tokens = lengths("output_tokens")
    if cluster.stopped:
        until_s, answered = cluster.stopped_s, cluster.answered
        more = column(lambda v: max(answered.get(v.request.request_id, 0) - 1, 0))
        first = np.where(np.isnan(first), until_s, first)
        pace = np.where(more > 0, (until_s - first) / np.maximum(more, 1), 0.0)
        end = np.where(np.isnan(end), np.maximum(first + pace * (tokens - 1), until_s), end)
    ok = np.array([visit.finish_reason != "rejected" for visit in visits])
    return Served(window, column(attrgetter("arrival_s")), first, end, lengths("prompt_tokens"), tokens, ok)


def judged(run: Served, rate: float, slo: Slo) -> Probe:
    """What a whole run says by some targets."""
    window, within, ok, good = run.window, run.judged, run.ok, run.good(slo)
    attainment = float(good[within].mean()) if within.any() else 0.0
    part = (BLOCKS * (run.arrival - window.start_s) / max(window.length_s, 1e-9)).astype(int)
    part = np.minimum(part, BLOCKS - 1)
    blocks = tuple((int((within & (part == i)).sum()), int((good & within & (part == i)).sum())) for i in range(BLOCKS))
    kept_up = run.kept_up
    multi = ok & within & (run.tokens > 1)
    return Probe(
        rate=rate,
        passed=attainment >= slo.attainment and kept_up,
        attainment=attainment,
        goodput=rate * attainment,
        output_tokens_s=rate * float(run.tokens[ok].mean()) if ok.any() else 0.0,
        total_tokens_s=rate * float((run.tokens + run.prompts)[ok].mean()) if ok.any() else 0.0,
        tokens_s_user=1 / float(run.tpot[multi].mean()) if multi.any() and run.tpot[multi].any() else NAN,
        abandoned=False,
        kept_up=kept_up,
        blocks=blocks,
    )


def _keeps_up(
    arrival: Floats,
    first: Floats,
    end: Floats,
    ok: Bools,
    window: Window,
) -> bool:
    """The rule of planner.run.facts: not behind by 5 % with a line that grows."""
    if not window.length_s > 0:
        return True
    sent = float((arrival >= window.start_s).sum())
    served = float((ok & (end > window.start_s) & (end <= window.end_s)).sum())
    piles_up = growth(arrival, first, window) * window.length_s > max(SATURATED * sent, LEAST_GROWTH)
    return not (served < (1 - SATURATED) * sent and piles_up)


def highest_rate(
    run: Callable[[float], Probe],
    start: float,
    *,
    tolerance: float,
    step: float = 1.25,
    floor: float | None = None,
    missing: float | None = None,
    known: Sequence[Probe] = (),
    enough: float | None = None,
) -> Found:
    """Narrow the space between the highest rate that passes and the lowest that fails to `tolerance`.

    `start` is where to begin and `step` the first factor away from it. Below `floor` (start / 256) it is 0.
    `missing`, the share of requests that may miss their targets, lets the shares of both ends say where to go on.
    `known` probes were made before and are not made again. `enough` ends the search with a wider bracket than
    `tolerance`, by which its rates are chosen: a search to the end makes the same runs and others.
    """
    missing = missing or None  # where none may miss, shares say nothing
    probes = [*known] or [run(start)]
    factor, wide = step, math.inf
    least = start / HOPELESS if floor is None else floor
    while True:
        low = max((one.rate for one in probes if one.passed), default=0.0)
        high = min((one.rate for one in probes if not one.passed), default=math.inf)
        if high / tolerance_of(low) <= 1 + max(tolerance, enough or 0.0) or high <= least:
            return Found(low, high, tuple(probes))
        if low and math.isfinite(high):
            width = math.log(high / low)
            share = 0.5 if missing is None or width > wide / 2 else _crossing(probes, low, high, missing, tolerance)
            rate, wide = low * math.exp(share * width), width
        else:
            rate = low * max(factor, _ahead(probes, missing, tolerance)) if low else high / factor
            factor = min(max(factor * factor, FURTHER), WIDEST)
        probes.append(run(rate))


SURE = 0.4  # of the tolerance: how far beside the expected edge a rate is tried
LEAST_CUT = 1 / 8  # of a bracket, however sure its ends seem to be


def _ahead(probes: list[Probe], missing: float | None, tolerance: float) -> float:
    """The factor from the highest rate that passes to just beyond the edge, by a line through it and the one below.

    1 where they do not say: too few miss.
    """
    passed = sorted((one.rate, 1 - one.attainment) for one in probes if one.passed)[-2:]
    if missing is None or len(passed) < 2 or not missing > passed[1][1] > max(passed[0][1], missing / 10):
        return 1.0
    (before, fewer), (rate, more) = passed
    slope = math.log(more / max(fewer, missing / 100)) / math.log(rate / before)
    return min(math.exp(math.log(missing / more) / slope) * (1 + SURE * tolerance), WIDEST)


def _crossing(probes: list[Probe], low: float, high: float, missing: float, tolerance: float) -> float:
    """What part of the bracket lies below the next rate, by a line through its ends.

    The logarithm of the share that misses grows about evenly with that of the rate. A half where the ends say nothing:
    requests wait, but few miss.
    """
    missed = {one.rate: 1 - one.attainment for one in probes}
    least = missing / 10  # few misses of a run below its edge are chance
    below, above = (math.log(max(missed[rate], least) / missing) for rate in (low, high))
    if not below < 0 < above:
        return 0.5
    return beside(below / (below - above), low, high, tolerance)


def beside(edge: float, low: float, high: float, tolerance: float) -> float:
    """Where to go on in a bracket, as a part of its logarithmic width like `edge`, where the edge is expected.

    Just beyond that, on the side that leaves the less of the bracket if it is right.
    """
    away = SURE * math.log1p(tolerance) / math.log(high / low)
    return min(max(edge + (away if edge < 0.5 else -away), LEAST_CUT), 1 - LEAST_CUT)


def tolerance_of(low: float) -> float:
    """A divisor that is never zero: no rate has passed yet."""
    return low or 1e-300


def first_guess(system: System, seed: int) -> float:
    """The closed-form rate for the spec's requests."""
    return guessed_rate(system, lengths_of(system, seed), system.spec.slo)
