"""The requests of a spec at any rate and for any time: every rate sends the same list, further or less far.

All rates of a seed share one list of requests and gaps (common random numbers), only faster or slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.core import no_cycles
from planner.routing import STAYS
from planner.spec import Retrieval, Sessions, Spec, Workload
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
FEW = 4  # sessions of unequal length, of which one is met at a later turn


@dataclass(frozen=True, slots=True)
class Period:
    """How long requests are judged, at any rate: from `warmup_s`, when nothing tells any more how the run began, to
    `seconds`. Others follow for `after_s`, and end the run; 0: none, and it ends with the last answer.
    """

    seconds: float
    warmup_s: float
    after_s: float = 0.0
    least_warmup_s: float | None = None  # of shorter runs, for a rough rate; None: as long
    least_judged_s: float | None = None  # and what follows it; None: as long as the warm-up

    def cut(self, seconds: float) -> Period:
        """So many seconds, where that is shorter; not too short to judge by."""
        warmup_s = self.warmup_s if self.least_warmup_s is None else self.least_warmup_s
        seconds = max(seconds, warmup_s + (warmup_s if self.least_judged_s is None else self.least_judged_s))
        return replace(self, seconds=seconds, warmup_s=warmup_s) if seconds < self.seconds else self


@dataclass(frozen=True, slots=True)
class Start:
    """How a run of traffic that has long gone on begins."""

    entering_s: float  # of sessions: so long those come that began before
    token_s: float  # that answers took which have begun


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
            return _underway(spec, seed, rate, seconds, start)
        spec = _long_enough(spec, rate * seconds)
    load, offered = traffic_of(spec, seed)
    if not isinstance(load, Chained) or offered is None:
        return workload.build(at_rate(seeded(spec, seed), rate))
    factor = offered / rate
    arrivals = tuple(Arrival(arrival.time_s * factor, arrival.request) for arrival in load.arrivals)
    faster = Chained(arrivals, load.followers)
    if seconds is None:
        return faster
    cut = _cut(faster, seconds)
    return cut if start is None else _answering(cut, _Traffic.of(spec, seed), rate * start.token_s)


def _answering(load: Chained, traffic: _Traffic, requests: float) -> Underway:
    """The load as if it had come for ever: as many answers as `requests` have tokens are halfway when it begins."""
    count = round(requests * _mean_output(traffic))
    room = 256
    while room < count:
        room *= 2
    halfway = _cut_short(traffic, room)[:count]
    arrivals = (*(Arrival(0.0, one) for one in halfway), *load.arrivals)
    return Underway(Chained(arrivals, {}), frozenset(), frozenset(one.request_id for one in halfway), 0.0)


@lru_cache(maxsize=32)
def _mean_output(traffic: _Traffic) -> float:
    arrivals = _base_load(traffic)[0].start()
    return sum(one.request.output_tokens for one in arrivals) / len(arrivals)


@lru_cache(maxsize=16)
def _cut_short(traffic: _Traffic, count: int) -> list[Request]:
    """So many answers that had begun, each the likelier the longer it is, at any of its tokens; no request of the list.

    However few of them are taken, in order, they are spread evenly.
    """
    requests = [one.request for one in _base_load(traffic)[0].start()]
    reached = np.cumsum([one.output_tokens for one in requests])
    first = stream(traffic.seed, "answering").random()
    tokens = ((first + GOLDEN * np.arange(count)) % 1.0 * reached[-1]).astype(int)
    found = []
    for at, (place, token) in enumerate(zip(np.searchsorted(reached, tokens, side="right"), tokens, strict=True)):
        like, number = requests[place], len(requests) + at
        own = content_id(PROMPT, like.request_id)
        segments = tuple((content_id(PROMPT, number) if one == own else one, size) for one, size in like.segments)
        one = replace(
            like, request_id=number, session_id=number, segments=segments, output_content=content_id(ANSWER, number)
        )
        found.append(_resumed(one, int(reached[place] - token) - 1))
    return found


def _long_enough(spec: Spec, requests: float) -> Spec:
    """The spec with a list of more than `requests`. Lists of one seed begin alike: a few lengths serve every rate."""
    each = workload.mean_turns(spec.workload, spec.run.seed) if isinstance(spec.workload, Sessions) else 1.0
    count = 256
    while count < 1.2 * requests / each + 100:
        count *= 2
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={COUNTED[spec.workload.kind]: count})})


def _cut(load: Chained, seconds: float) -> Chained:
    """What begins within `seconds`, at least one request, and all that follows from it."""
    arrivals = tuple(arrival for arrival in load.arrivals if arrival.time_s <= seconds) or load.arrivals[:1]
    followers = {}
    if load.followers:
        for arrival in arrivals:
            last = arrival.request.request_id
            while last in load.followers:
                followers[last] = load.followers[last]
                last = followers[last][1].request_id
    return Chained(arrivals, followers)


class _Cast:
    """Who of a list of sessions does what, in order: the same at all rates. Turns are made when they are sent.

    Of 1 + `entering` + `answering` sessions so many each; a later turn is met in one of `few`.
    """

    def __init__(self, traffic: _Traffic, entering: int, answering: int, few: int) -> None:
        assert isinstance(traffic.workload, Sessions)
        self.drawn = drawn = workload.DrawnSessions.of(traffic.workload, traffic.seed)
        share, every = 1 + entering + answering, range(len(drawn.turns))
        older = [one for one in every if 1 <= one % share <= entering]
        draws = stream(traffic.seed, "underway")
        times = np.cumsum(draws.standard_exponential(len(older) // few)).tolist()
        chances = draws.random((len(times), 2)).tolist()
        met = [
            _met(drawn.turns, older[place * few : (place + 1) * few], which, turn)
            for place, (which, turn) in enumerate(chances)
        ]
        self.begins = every[::share]  # sessions that begin in the run
        # When, one a second on average, and a later turn of an older session.
        self.continues = [(time_s, one) for time_s, one in zip(times, met, strict=True) if one is not None]
        # Turns whose answers had begun, and their tokens.
        self.resumes = _halfway(drawn, [one for one in every if one % share > entering], traffic.seed)
        self.output_tokens = sum(drawn.answers) / len(drawn.answers)  # mean of an answer
        self.followers: dict[int, tuple[float, Request]] = {}
        self._made: dict[int, Request] = {}

    def turn(self, session: int, turn: int, tokens: int = 0) -> Request:
        """It, after so many tokens of its answer, and what follows it. Of each session one is asked for."""
        found = self._made.get(session)
        if found is None:
            requests = self.drawn.requests(session, turn)
            self.followers |= self.drawn.followers(requests)
            found = self._made[session] = _resumed(requests[0], tokens)
        return found


@no_cycles()
def _underway(spec: Spec, seed: int, rate: float, seconds: float, start: Start) -> Load:
    """Sessions as if they had come for ever: those that begin within `seconds`, and those that began before.

    Of every few sessions of the list one begins in the run and the others before it, so that all rates send the same
    ones. A session is met at any of its later turns equally often, and the more often the more it has.
    """
    assert isinstance(spec.workload, Sessions)
    each = workload.mean_turns(spec.workload, seed)
    few = 1 if isinstance(spec.workload.turns, int) else FEW
    entering = math.ceil(1.2 * few * (each - 1) * start.entering_s / seconds)
    answering = math.ceil(2 * each * request_s(spec, seed) / seconds)
    long_enough = _long_enough(spec, rate * seconds * (1 + entering + answering))
    cast = _cast(_Traffic.of(long_enough, seed), entering, answering, few)
    offered = offered_rate(seeded(long_enough, seed))
    assert offered is not None
    factor = offered / rate
    arrivals = [
        Arrival(time_s * factor, cast.turn(session, 0))
        for time_s, session in zip(cast.drawn.starts_s, cast.begins, strict=False)
        if time_s * factor <= seconds
    ]
    later_s = each / (each - 1) / rate if each > 1 else math.inf  # between later turns
    older = [
        Arrival(time_s * later_s, cast.turn(*one))
        for time_s, one in cast.continues
        if time_s * later_s <= start.entering_s
    ]
    halfway = [
        Arrival(0.0, cast.turn(*one)) for one in cast.resumes[: round(rate * start.token_s * cast.output_tokens)]
    ]
    resumed = frozenset(arrival.request.request_id for arrival in halfway)
    continued = resumed | frozenset(arrival.request.request_id for arrival in older)
    every = sorted([*halfway, *arrivals, *older], key=lambda arrival: arrival.time_s)
    every = every or [Arrival(cast.drawn.starts_s[0], cast.turn(cast.begins[0], 0))]
    return Underway(Chained(tuple(every), cast.followers), continued, resumed, start.entering_s)


@lru_cache(maxsize=8)
def _cast(traffic: _Traffic, entering: int, answering: int, few: int) -> _Cast:
    return _Cast(traffic, entering, answering, few)


def _met(turns: Sequence[int], sessions: Sequence[int], which: float, turn: float) -> tuple[int, int] | None:
    """A session and one of its turns but the first: session `which`, the likelier the more turns it has, at `turn` of
    them (both 0 to 1). None: there are none.
    """
    left = which * sum(turns[one] - 1 for one in sessions)
    for session in sessions:
        later = turns[session] - 1
        if left < later:
            return session, 1 + int(turn * later)
        left -= later
    return None


def _halfway(drawn: workload.DrawnSessions, sessions: Sequence[int], seed: int) -> list[tuple[int, int, int]]:
    """Answers that had begun, of any turn, each the likelier the longer it is: one of a session, for half of them.

    (session, turn, tokens that are there).
    """
    turns = [(session, turn) for session in sessions for turn in range(drawn.turns[session])]
    if not turns:
        return []
    lengths = [drawn.answers[drawn.firsts[session] + turn] for session, turn in turns]
    reached = np.cumsum(lengths)
    draws = stream(seed, "answering").random((len(sessions), 2))
    found: dict[int, tuple[int, int, int]] = {}
    for at, part in zip(np.searchsorted(reached, draws[:, 0] * reached[-1], side="right"), draws[:, 1], strict=True):
        session, turn = turns[at]
        if session not in found:
            found[session] = (session, turn, int(part * lengths[at]))
    return list(found.values())


def _resumed(request: Request, tokens: int) -> Request:
    """A request whose answer has so many tokens already: they belong to its prompt."""
    if tokens == 0:
        return request
    prompt = request.prompt_tokens + tokens
    return replace(
        request,
        prompt_tokens=prompt,
        output_tokens=request.output_tokens - tokens,
        max_tokens=request.max_tokens - tokens,
        segments=(*request.segments, (request.output_content, tokens)),
        shared_tokens=prompt if request.output_shared else request.shared_tokens,
    )


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
        load, _ = _base_load(traffic)
        return mean_lengths([arrival.request for arrival in load.start()])
    entry, decoders = system.pools[0], system.pools[-1]
    stays = entry.router.policy in STAYS
    found = _session_lengths(traffic, 1 if stays else len(entry.workers), not system.disaggregated)
    if not system.disaggregated:
        return found
    stays = decoders.router.policy == "session_affinity"  # else its router looks at no cache
    return replace(found, moved=_session_lengths(traffic, 1 if stays else len(decoders.workers), True).computed)


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
