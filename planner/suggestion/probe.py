"""The requests of a spec at any rate and for any time: every rate sends the same list, further or less far.

All rates of a seed share one list of requests and gaps (common random numbers), only faster or slower.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.core import no_cycles
from planner.routing import STAYS
from planner.spec import Retrieval, Sessions, Spec, Workload
from planner.suggestion.underway import Cast, Start, gone_on, underway
from planner.system.capacity import MeanLengths, mean_lengths
from planner.system.resolve import System
from planner.traffic import workload
from planner.traffic.contents import ANSWER, PROMPT, content_id
from planner.traffic.loads import Chained, Underway
from planner.traffic.random_streams import draw, stream
from planner.traffic.requests import Arrival, Load, Request
from planner.traffic.workload import at_rate, offered_rate
from simulator.pool import turns_before

# Kinds of workload whose lists can be made longer, and the key that says how long they are.
COUNTED = {
    "poisson": "requests",
    "gamma": "requests",
    "constant": "requests",
    "rag": "requests",
    "sessions": "sessions",
}

GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it, without their whole parts, fill the space from 0 to 1 evenly


@dataclass(frozen=True, slots=True)
class Pace:
    """How long tokens took in a run of the same candidate."""

    rate: float  # requests per second
    token_s: float


@dataclass(frozen=True, slots=True)
class Period:
    """How long requests are judged, at any rate: from `warmup_s`, when nothing tells any more how the run began, to
    `seconds`. Others follow for `after_s`, and end the run; 0: none, and it ends with the last answer.
    `pace` tells how many answers are under way when it begins; None: the closed form does.
    """

    seconds: float
    warmup_s: float
    after_s: float = 0.0
    least_warmup_s: float | None = None  # of shorter runs, for a rough rate; None: as long
    least_judged_s: float | None = None  # and what follows it; None: as long as the warm-up
    least_after_s: float | None = None  # and what is sent after that; None: as long
    pace: Pace | None = None

    def cut(self, seconds: float) -> Period:
        """So many seconds, where that is shorter; not too short to judge by."""
        warmup_s = self.warmup_s if self.least_warmup_s is None else self.least_warmup_s
        seconds = max(seconds, warmup_s + (warmup_s if self.least_judged_s is None else self.least_judged_s))
        after_s = self.after_s if self.least_after_s is None else self.least_after_s
        return replace(self, seconds=seconds, warmup_s=warmup_s, after_s=after_s) if seconds < self.seconds else self


@dataclass(frozen=True, slots=True)
class _Traffic:
    """All of a spec that what is sent depends on: specs that are equal in it share their lists."""

    workload: Workload
    retrieval: Retrieval | None
    seed: int

    @classmethod
    def of(cls, spec: Spec, seed: int) -> _Traffic:
        return cls(spec.workload, spec.retrieval, seed)


@lru_cache(maxsize=32)
def _base_load(traffic: _Traffic) -> tuple[Load, float | None]:
    """The load at the workload's own rate, built once a process."""
    spec = seeded(Spec.model_construct(workload=traffic.workload, retrieval=traffic.retrieval), traffic.seed)
    return workload.build(spec), offered_rate(spec)


def seeded(spec: Spec, seed: int) -> Spec:
    return spec.model_copy(update={"run": spec.run.model_copy(update={"seed": seed})})


def traffic_of(spec: Spec, seed: int) -> tuple[Load, float | None]:
    """(load, its offered rate), shared by all specs with the same traffic."""
    return _base_load(_Traffic.of(spec, seed))


def load_at(spec: Spec, seed: int, rate: float, seconds: float | None = None, start: Start | None = None) -> Load:
    """The requests of `spec` at another rate; the same objects at another time where the load allows it.

    `seconds`: those that are sent within so long, of a list that is as long as that needs. None: the spec's own list.
    `start`: sessions, or answers, have begun before. None: none has.
    """
    if seconds is not None:
        if start is not None and isinstance(spec.workload, Sessions):
            with no_cycles():
                return underway(_cast(_Traffic.of(spec, seed)), rate, seconds, start)
        spec = _long_enough(spec, rate * seconds)
    load, offered = traffic_of(spec, seed)
    if not isinstance(load, Chained) or offered is None:
        return workload.build(at_rate(seeded(spec, seed), rate))
    factor = offered / rate
    known = load.arrivals
    if seconds is not None:
        within = bisect_right(known, seconds, key=lambda arrival: arrival.time_s * factor)
        known = known[: max(within, 1)]
    arrivals = tuple([Arrival(arrival.time_s * factor, arrival.request) for arrival in known])
    if seconds is None:
        return Chained(arrivals, load.followers)
    cut = Chained(arrivals, _following(arrivals, load.followers))
    return cut if start is None else _answering(cut, _Traffic.of(spec, seed), rate * start.token_s)


def _answering(load: Chained, traffic: _Traffic, requests: float) -> Underway:
    """The load as if it had come for ever: as many answers as `requests` have tokens are halfway when it begins."""
    count = round(requests * _mean_output(traffic))
    halfway = _cut_short(traffic).first(count)
    arrivals = (*(Arrival(0.0, one) for one in halfway), *load.arrivals)
    return Underway(Chained(arrivals, {}), len(arrivals), frozenset(one.request_id for one in halfway))


@lru_cache(maxsize=32)
def _mean_output(traffic: _Traffic) -> float:
    arrivals = _base_load(traffic)[0].start()
    return sum(one.request.output_tokens for one in arrivals) / len(arrivals)


class _CutShort:
    """Answers that had begun, each the likelier the longer it is, at any of its tokens; no request of the list.

    However few of them are taken, in order, they are spread evenly.
    """

    def __init__(self, traffic: _Traffic) -> None:
        self._requests = [one.request for one in _base_load(traffic)[0].start()]
        self._reached = np.cumsum([one.output_tokens for one in self._requests])
        self._begin = stream(traffic.seed, "answering").random()
        self._made: list[Request] = []

    def first(self, count: int) -> list[Request]:
        made, reached = self._made, self._reached
        tokens = ((self._begin + GOLDEN * np.arange(len(made), max(count, len(made)))) % 1.0 * reached[-1]).astype(int)
        places = np.searchsorted(reached, tokens, side="right")
        for place, left in zip(places.tolist(), (reached[places] - tokens - 1).tolist(), strict=True):
            like, number = self._requests[place], len(self._requests) + len(made)
            own = content_id(PROMPT, like.request_id)
            segments = tuple([(content_id(PROMPT, number) if one == own else one, size) for one, size in like.segments])
            one = replace(
                like, request_id=number, session_id=number, segments=segments, output_content=content_id(ANSWER, number)
            )
            made.append(gone_on(one, left))
        return made[:count]


@lru_cache(maxsize=16)
def _cut_short(traffic: _Traffic) -> _CutShort:
    return _CutShort(traffic)


def _long_enough(spec: Spec, requests: float) -> Spec:
    """The spec with a list of more than `requests`. Lists of one seed begin alike: a few lengths serve every rate."""
    each = workload.mean_turns(spec.workload, spec.run.seed) if isinstance(spec.workload, Sessions) else 1.0
    count = 256
    while count < 1.2 * requests / each + 100:
        count *= 2
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={COUNTED[spec.workload.kind]: count})})


def _following(
    arrivals: Sequence[Arrival], followers: dict[int, tuple[float, Request]]
) -> dict[int, tuple[float, Request]]:
    """All that follows from these."""
    found: dict[int, tuple[float, Request]] = {}
    if followers:
        for arrival in arrivals:
            last = arrival.request.request_id
            while last in followers:
                found[last] = followers[last]
                last = found[last][1].request_id
    return found


@lru_cache(maxsize=8)
def _cast(traffic: _Traffic) -> Cast:
    assert isinstance(traffic.workload, Sessions)
    return Cast(traffic.workload, traffic.seed)


def request_s(spec: Spec, seed: int, part: float = 1.0) -> float:
    """Seconds that a request takes, to this part of its answer, which just meets its targets; nominal without them."""
    load, _ = traffic_of(spec, seed)
    requests = [arrival.request for arrival in load.start()]
    output = sum(request.output_tokens for request in requests) / len(requests)
    first_ms = 1000.0 if spec.slo.ttft_ms is None else spec.slo.ttft_ms
    token_ms = 50.0 if spec.slo.tpot_ms is None else spec.slo.tpot_ms
    return (first_ms + token_ms * output * part) / 1e3


def lengths_of(system: System, seed: int) -> MeanLengths:
    """Mean lengths of the requests of a system's own list; of sessions without what workers have cached of them."""
    traffic = _Traffic.of(system.spec, seed)
    if not isinstance(traffic.workload, Sessions):
        return _list_lengths(traffic)
    entry, decoders = system.pools[0], system.pools[-1]
    stays = entry.router.policy in STAYS
    found = _session_lengths(traffic, 1 if stays else len(entry.workers), not system.disaggregated)
    if not system.disaggregated:
        return found
    stays = decoders.router.policy == "session_affinity"  # else its router looks at no cache
    return replace(found, moved=_session_lengths(traffic, 1 if stays else len(decoders.workers), True).computed)


@lru_cache(maxsize=32)
def _list_lengths(traffic: _Traffic) -> MeanLengths:
    return mean_lengths([arrival.request for arrival in _base_load(traffic)[0].start()])


@lru_cache(maxsize=64)
def _session_lengths(traffic: _Traffic, workers: int, answers: bool) -> MeanLengths:
    """With turns that are spread evenly over so many workers, which keep prompts and, where they say so, answers.

    The latest turn that a worker had is what it has cached, and a system prompt in any case.
    """
    load, _ = _base_load(traffic)
    assert isinstance(load, Chained)
    assert isinstance(traffic.workload, Sessions)
    requests = [arrival.request for arrival in load.arrivals] + [one for _, one in load.followers.values()]
    system_tokens, elsewhere, computed = traffic.workload.system_tokens, 1 - 1 / workers, 0.0
    for one in requests:
        left, cached = 1.0, 0.0
        for asked, answered in reversed(turns_before(one)):
            cached += left / workers * (answered if answers else asked)
            left *= elsewhere
        computed += one.prompt_tokens - cached - left * system_tokens
    return replace(mean_lengths(requests), computed=computed / len(requests))


def turn_s(spec: Spec, seed: int) -> float:
    """As `request_s`; of sessions with the thinking after it."""
    seconds = request_s(spec, seed)
    if not isinstance(spec.workload, Sessions):
        return seconds
    return seconds + float(np.mean(draw(spec.workload.think_time_s, 1000, stream(seed, "think_time_s"))))


def turnaround_s(spec: Spec, seed: int) -> float:
    """As `request_s`; of sessions: a whole one, with its thinking."""
    turns = workload.mean_turns(spec.workload, seed) if isinstance(spec.workload, Sessions) else 1.0
    return turns * turn_s(spec, seed)
