"""A watch as a state and what one more interval makes of it: predictions, intervals, changes, refits.

    state, line = advance(state, observed, system)

Nothing here reads a clock or a socket, so that a recording gives the same lines as the stack that it is of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from planner.messages import message
from planner.system.resolve import System
from planner.watching.observe import Observed
from planner.watching.predict import AS_PLANNED, METRICS, Levels, predict, refit, score
from planner.watching.statistics import CONFIDENCE, Sums, follow, half_width, spread

HOUR_S = 3600.0  # of scores that an interval is made of
WINDOW = 10  # intervals that levels are fitted on and simulations begin with
FIRST = 4  # intervals before the first fit
TURNAROUNDS = 3.0  # of a request: the least time that a simulation begins before its interval
LEAST_SPREAD = 0.05  # of log(measured / predicted): a shift of 5 % is no news
BIASED = 0.6  # standard deviations that the median score may be off before levels are fitted anew
WATCHED = ("ttft", "tpot")  # whose scores say that the engine changed


@dataclass(frozen=True, slots=True)
class Judged:
    """One metric of an interval, in seconds or a second. `low` and `high` are None while too little was seen."""

    metric: str
    predicted: float
    low: float | None
    high: float | None
    measured: float

    @property
    def inside(self) -> bool | None:
        if self.low is None or self.high is None or not math.isfinite(self.measured):
            return None
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True)
class Line:
    """What is said of an interval. `events`: changes and refits, a sentence each."""

    observed: Observed
    judged: tuple[Judged, ...]
    levels: Levels
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the traffic has been since it changed last, for rate, prompt and output length: logarithms by interval."""

    seen: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: MappingProxyType({}))
    sums: Mapping[str, Sums] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class State:
    levels: Levels = AS_PLANNED
    fitted: bool = False
    window: tuple[Observed, ...] = ()  # the newest
    scores: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=lambda: MappingProxyType({}))
    sums: Mapping[str, Sums] = field(default_factory=lambda: MappingProxyType({}))
    covered: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))  # (inside, judged)
    traffic: Traffic = Traffic()
    since_fit: int = 0
    refits: int = 0


def replanned(state: State) -> State:
    """The state under another plan: what was learnt of levels and scatter stays, what was watched is of the old one."""
    return replace(state, window=(), sums={}, since_fit=0)


def coverage(state: State) -> float | None:
    """The share of all intervals so far that held what was measured."""
    inside, judged = (sum(one[at] for one in state.covered.values()) for at in (0, 1))
    return inside / judged if judged else None


def advance(state: State, observed: Observed, system: System) -> tuple[State, Line]:
    """The state after one more interval, and what is said of it. The prediction knows nothing measured in it."""
    window = (*state.window, observed)[-WINDOW:]
    said = predict(_needed(window), system, state.levels)[-1]
    scores = {name: _recent(state.scores.get(name, ()), observed.end_s) for name in METRICS}
    judged = tuple(_judged(name, said[name], observed, scores[name]) for name in METRICS)
    covered = dict(state.covered)
    for one in judged:
        if one.inside is not None:
            inside, count = covered.get(one.metric, (0, 0))
            covered[one.metric] = (inside + one.inside, count + 1)
    sums, news = dict(state.sums), {one.metric: score(one.measured, one.predicted) for one in judged}
    events: list[str] = []
    traffic, told = _traffic(state.traffic, observed)
    events += told
    changed_s = None
    for name in WATCHED if state.fitted else ():
        z = news[name] / spread([value for _, value in scores[name]], LEAST_SPREAD)
        sums[name] = follow(sums.get(name, Sums()), z, observed.start_s)
        since_s = sums[name].since_s
        if since_s is not None:
            changed_s = since_s if changed_s is None else min(changed_s, since_s)
            events.append(_engine_changed(name, since_s, news[name], judged))
    scores = {name: (*scores[name], (observed.end_s, value)) if math.isfinite(value := news[name]) else scores[name]
              for name in METRICS}  # fmt: skip
    state = replace(
        state,
        window=window,
        scores=scores,
        sums=sums,
        covered=covered,
        traffic=traffic,
        since_fit=state.since_fit + 1,
    )
    state, more = _refitted(state, system, changed_s)
    return state, Line(observed, judged, state.levels, (*events, *more))


def _needed(window: tuple[Observed, ...]) -> tuple[Observed, ...]:
    """The newest intervals, from as long before the last as requests take several times over."""
    last = window[-1]
    longest = max((one.e2e_s for one in window if math.isfinite(one.e2e_s)), default=last.length_s)
    start_s = last.start_s - max(TURNAROUNDS * longest, last.length_s)
    return tuple(one for one in window if one.end_s > start_s)


def _recent(scores: tuple[tuple[float, float], ...], now_s: float) -> tuple[tuple[float, float], ...]:
    return tuple(one for one in scores if one[0] > now_s - HOUR_S)


def _judged(name: str, predicted: float, observed: Observed, scores: tuple[tuple[float, float], ...]) -> Judged:
    width = half_width([value for _, value in scores], CONFIDENCE)
    measured = observed.measured[name]
    if width is None or not math.isfinite(predicted):
        return Judged(name, predicted, None, None, measured)
    return Judged(name, predicted, predicted * math.exp(-width), predicted * math.exp(width), measured)


def _refitted(state: State, system: System, changed_s: float | None) -> tuple[State, list[str]]:
    """Levels fitted anew at first, after a change, and when predictions of a whole window lean to one side."""
    if not state.fitted:
        due = len(state.window) >= FIRST
    else:
        due = changed_s is not None or (state.since_fit >= WINDOW and _leans(state))
    if not due:
        return state, []
    within = tuple(one for one in state.window if changed_s is None or one.start_s >= changed_s - 1e-6)
    levels = refit(within, system, state.levels)
    found = predict(within, system, levels)
    scores = {
        name: tuple(
            (one.end_s, value)
            for one, said in zip(within, found, strict=True)
            if math.isfinite(value := score(one.measured[name], said[name]))
        )
        for name in METRICS
    }
    if state.fitted and changed_s is None:  # the same engine: what was learnt of its scatter stays
        first_s = within[0].start_s
        scores = {name: tuple(one for one in state.scores[name] if one[0] <= first_s) + scores[name] for name in scores}
    told = message(
        "Refitted on the last {count} intervals: prompts {prompts}, decodes {decodes} times the profile's.",
        len(within),
        f"{levels.prompts:.2f}",
        f"{levels.decodes:.2f}",
    )
    return replace(state, levels=levels, fitted=True, scores=scores, sums={}, since_fit=0, refits=state.refits + 1), [
        told
    ]


def _leans(state: State) -> bool:
    for name in WATCHED:
        values = [value for _, value in state.scores[name]]
        newest = sorted(values[-WINDOW:])
        if len(newest) == WINDOW and abs(newest[WINDOW // 2]) > BIASED * spread(values, LEAST_SPREAD):
            return True
    return False


def _engine_changed(name: str, since_s: float, newest: float, judged: tuple[Judged, ...]) -> str:
    one = next(found for found in judged if found.metric == name)
    measured, predicted = f"{one.measured * 1e3:.3g}", f"{one.predicted * 1e3:.3g}"
    if newest > 0:
        return message(
            "The engines are slower than the plan since {clock}: {metric} {measured} ms, {predicted} predicted for this"
            " traffic.",
            clock(since_s),
            METRICS[name],
            measured,
            predicted,
        )
    return message(
        "The engines are faster than the plan since {clock}: {metric} {measured} ms, {predicted} predicted for this"
        " traffic.",
        clock(since_s),
        METRICS[name],
        measured,
        predicted,
    )


# --- traffic -----------------------------------------------------------------------------------

LEAST_SEEN = 4  # intervals before a change can be noticed
KINDS = {
    "rate": (message("requests a second"), 0.1),
    "prompts": (message("tokens of a prompt"), 0.1),
    "outputs": (message("tokens an answer"), 0.1),
}


def _traffic(traffic: Traffic, observed: Observed) -> tuple[Traffic, list[str]]:
    """Rate and lengths against what they were since they changed last."""
    now = {"rate": observed.rate, "prompts": observed.prompts.mean, "outputs": observed.outputs.mean}
    seen, sums = dict(traffic.seen), dict(traffic.sums)
    events: list[str] = []
    for name, value in now.items():
        if not value > 0:
            continue
        before = seen.get(name, ())
        if len(before) >= LEAST_SEEN:
            counted = observed.arrivals if name == "rate" else max(observed.outputs.count, 1.0)
            noise = max(KINDS[name][1], 1 / math.sqrt(max(counted, 1.0)))
            usual = sorted(before)[len(before) // 2]
            z = (math.log(value) - usual) / spread(before, noise)
            sums[name] = follow(sums.get(name, Sums()), z, observed.start_s)
            since_s = sums[name].since_s
            if since_s is not None:
                events.append(
                    message(
                        "The traffic changed since {clock}: {value} {what}, it was {usual}.",
                        clock(since_s),
                        f"{value:.3g}",
                        KINDS[name][0],
                        f"{math.exp(usual):.3g}",
                    )
                )
                seen[name], sums[name] = (math.log(value),), Sums()
                continue
        seen[name] = (*before, math.log(value))[-60:]
    return Traffic(seen, sums), events


def clock(time_s: float) -> str:
    """HH:MM:SS of UTC."""
    day = int(time_s) % 86_400
    return f"{day // 3600:02d}:{day // 60 % 60:02d}:{day % 60:02d}"
