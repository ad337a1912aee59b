"""The requests of a spec at any rate and for any time: every rate sends the same list, further or less far.

All rates of a seed share one list of requests and gaps (common random numbers), only faster or slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from planner.spec import Aggregated, Sessions, Spec, dump, parse
from planner.system.capacity import MeanLengths, mean_lengths
from planner.traffic import workload
from planner.traffic.loads import Chained, Underway
from planner.traffic.random_streams import draw, stream
from planner.traffic.requests import Arrival, Load, Request
from planner.traffic.workload import at_rate, offered_rate

# Kinds of workload whose lists can be made longer, and the key that says how long they are.
COUNTED = {
    "poisson": "requests",
    "gamma": "requests",
    "constant": "requests",
    "rag": "requests",
    "sessions": "sessions",
}

DRAWS_EACH = 8  # of one answer that nobody has drawn before
FEW = 4  # sessions of unequal length, of which one is met at a later turn


@dataclass(frozen=True, slots=True)
class Period:
    """How long requests are sent, at any rate, and the first part of it that only fills an empty system."""

    seconds: float
    warmup_s: float
    least_judged_s: float | None = None  # of shorter runs; None: as long as the warm-up

    @property
    def least_s(self) -> float:
        """The seconds that a shorter run takes at least."""
        return self.warmup_s + (self.warmup_s if self.least_judged_s is None else self.least_judged_s)


@dataclass(frozen=True, slots=True)
class Start:
    """How a run of traffic that has long gone on begins."""

    entering_s: float  # so long sessions come that began before
    token_s: float  # that answers took which have begun


@lru_cache(maxsize=32)
def _base_load(spec_key: str, seed: int) -> tuple[Load, float | None]:
    """The load of a spec at its own rate (its traffic only matters), built once a process."""
    spec = seeded(parse(spec_key), seed)
    return workload.build(spec), offered_rate(spec)


def seeded(spec: Spec, seed: int) -> Spec:
    return spec.model_copy(update={"run": spec.run.model_copy(update={"seed": seed})})


def traffic_of(spec: Spec, seed: int) -> tuple[Load, float | None]:
    """(load, its offered rate), shared by all specs with the same traffic."""
    plain = spec.model_copy(update={"deployment": Aggregated(mode="aggregated"), "name": "traffic"})
    return _base_load(dump(plain), seed)


def load_at(spec: Spec, seed: int, rate: float, seconds: float | None = None, start: Start | None = None) -> Load:
    """The requests of `spec` at another rate; the same objects at another time where the load allows it.

    `seconds`: those that are sent within so long, of a list that is as long as that needs. None: the spec's own list.
    `start`: others have begun before. None: nobody has.
    """
    if seconds is not None:
        if start is not None:
            return _underway(spec, seed, rate, seconds, start)
        spec = _long_enough(spec, rate * seconds)
    load, offered = traffic_of(spec, seed)
    if isinstance(load, Chained) and offered is not None:
        factor = offered / rate
        arrivals = tuple(Arrival(arrival.time_s * factor, arrival.request) for arrival in load.arrivals)
        return (
            Chained(arrivals, load.followers) if seconds is None else _cut(Chained(arrivals, load.followers), seconds)
        )
    return workload.build(at_rate(seeded(spec, seed), rate))


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
    return Chained(arrivals, _following(load, arrivals))


def _following(load: Chained, arrivals: Iterable[Arrival]) -> dict[int, tuple[float, Request]]:
    """All that follows from these requests of a load."""
    followers = {}
    if load.followers:
        for arrival in arrivals:
            last = arrival.request.request_id
            while last in load.followers:
                followers[last] = load.followers[last]
                last = followers[last][1].request_id
    return followers


def _underway(spec: Spec, seed: int, rate: float, seconds: float, start: Start) -> Load:
    """Requests as if they had come for ever: those that are sent within `seconds`, and those that began before.

    Of every few sessions of the list one begins in the run and the others before it, so that all rates and lengths
    send the same ones. A session is met at any of its turns equally often, and at one of its later turns the more
    often the more it has.
    """
    entering, least_s = 0, request_s(spec, seed)
    each = workload.mean_turns(spec.workload, seed) if isinstance(spec.workload, Sessions) else 1.0
    few = FEW if isinstance(spec.workload, Sessions) and not isinstance(spec.workload.turns, int) else 1
    if each > 1:
        entering = math.ceil(1.2 * few * (each - 1) * start.entering_s / seconds)
    answering = math.ceil(2 * each * least_s / seconds)
    share = 1 + entering + answering
    load, offered = traffic_of(_long_enough(spec, rate * seconds * share), seed)
    assert isinstance(load, Chained) and offered is not None
    factor, sessions = offered / rate, load.arrivals
    begins = [
        Arrival(when.time_s * factor, what.request)
        for when, what in zip(sessions, sessions[::share], strict=False)
        if when.time_s * factor <= seconds
    ]
    older = [one for place, one in enumerate(sessions) if 1 <= place % share <= entering]
    later_s = each / (each - 1) / rate if each > 1 else math.inf  # between later turns
    draws = stream(seed, "underway")
    times = np.cumsum(draws.standard_exponential(len(older) // few)) * later_s
    chances = draws.random((len(times), 2)).tolist()
    entries = []
    for place, (time_s, (which, turn)) in enumerate(zip(times.tolist(), chances, strict=True)):
        if time_s > start.entering_s:
            break
        met = _met(load, older[place * few : (place + 1) * few], which, turn)
        if met is not None:
            entries.append(Arrival(time_s, met))
    halfway = _halfway(load, [one for place, one in enumerate(sessions) if place % share > entering], rate, start, seed)
    arrivals = sorted([*halfway, *begins, *entries], key=lambda arrival: arrival.time_s) or [sessions[0]]
    resumed = frozenset(arrival.request.request_id for arrival in halfway)
    continued = resumed | frozenset(arrival.request.request_id for arrival in entries)
    whole = Chained(tuple(arrivals), _following(load, arrivals))
    return Underway(whole, continued if each > 1 else frozenset(), resumed, start.entering_s)


def _halfway(load: Chained, sessions: Sequence[Arrival], rate: float, start: Start, seed: int) -> list[Arrival]:
    """Answers that had begun: as many as come in the time that one takes, each the likelier the longer it is."""
    turns = [(one.request, place) for place, one in enumerate(sessions)]
    for place, one in enumerate(sessions):
        last = one.request.request_id
        while last in load.followers:
            turns.append((load.followers[last][1], place))
            last = turns[-1][0].request_id
    if not turns:
        return []
    reached = np.cumsum([one.output_tokens for one, _ in turns])
    count = round(rate * start.token_s * float(reached[-1]) / len(turns))
    draws = stream(seed, "answering").random((DRAWS_EACH * count, 2))
    found: list[Arrival] = []
    used: set[int] = set()
    for at, part in zip(np.searchsorted(reached, draws[:, 0] * reached[-1], side="right"), draws[:, 1], strict=True):
        request, place = turns[at]
        if len(found) == count:
            break
        if place not in used:
            used.add(place)
            found.append(Arrival(0.0, _resumed(request, int(part * request.output_tokens))))
    return found


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
        shared_tokens=prompt,
    )


def _met(load: Chained, sessions: Sequence[Arrival], which: float, turn: float) -> Request | None:
    """One later turn of these sessions: of `which`, the likelier the more it has, at `turn` of it (both 0 to 1).

    None: they have none.
    """
    chains: list[list[Request]] = []
    for session in sessions:
        chain, last = [], session.request.request_id
        while last in load.followers:
            chain.append(load.followers[last][1])
            last = chain[-1].request_id
        chains.append(chain)
    left = which * sum(map(len, chains))
    for chain in chains:
        if left < len(chain):
            return chain[int(turn * len(chain))]
        left -= len(chain)
    return None


def request_s(spec: Spec, seed: int) -> float:
    """Seconds that a request takes when it just meets its targets; nominal without them."""
    load, _ = traffic_of(spec, seed)
    requests = [arrival.request for arrival in load.start()]
    output = sum(request.output_tokens for request in requests) / len(requests)
    first_ms = 1000.0 if spec.slo.ttft_ms is None else spec.slo.ttft_ms
    token_ms = 50.0 if spec.slo.tpot_ms is None else spec.slo.tpot_ms
    return (first_ms + token_ms * output) / 1e3


def lengths_of(spec: Spec, seed: int) -> MeanLengths:
    """Mean lengths of the requests of a spec's own list; what the history of a session adds is taken as cached."""
    load, _ = traffic_of(spec, seed)
    requests = [arrival.request for arrival in load.start()]
    if isinstance(load, Chained):
        requests += [request for _, request in load.followers.values()]
    if isinstance(spec.workload, Sessions):
        return replace(mean_lengths(requests), computed=sum(one.segments[-1][1] for one in requests) / len(requests))
    return mean_lengths(requests)


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
