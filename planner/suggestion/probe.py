"""The requests of a spec at any rate and for any time: every rate sends the same list, further or less far.

All rates of a seed share one list of requests and gaps (common random numbers), only faster or slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from planner.spec import Aggregated, Sessions, Spec, dump, parse
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


def load_at(spec: Spec, seed: int, rate: float, seconds: float | None = None, entering_s: float = 0.0) -> Load:
    """The requests of `spec` at another rate; the same objects at another time where the load allows it.

    `seconds`: those that are sent within so long, of a list that is as long as that needs. None: the spec's own list.
    `entering_s`: sessions have begun before, and come in so long.
    """
    if seconds is not None:
        if entering_s and isinstance(spec.workload, Sessions):
            return _underway(spec, seed, rate, seconds, entering_s)
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


def _underway(spec: Spec, seed: int, rate: float, seconds: float, entering_s: float) -> Load:
    """Sessions as if they had come for ever: those that begin within `seconds`, and others at a later turn.

    Of every few sessions of the list the first begins in the run and the others before it, so that all rates and
    lengths send the same ones. A session is met at any of its turns equally often, and at one of its later turns the
    more often the more it has.
    """
    assert isinstance(spec.workload, Sessions)
    each = workload.mean_turns(spec.workload, seed)
    few = 1 if isinstance(spec.workload.turns, int) else FEW
    share = 1 + math.ceil(1.2 * few * (each - 1) * entering_s / seconds)
    spec = _long_enough(spec, rate * seconds * share)
    load, offered = traffic_of(spec, seed)
    assert isinstance(load, Chained) and offered is not None
    factor = offered / rate
    sessions = load.arrivals
    begins = [
        Arrival(when.time_s * factor, what.request)
        for when, what in zip(sessions, sessions[::share], strict=False)
        if when.time_s * factor <= seconds
    ]
    older = [one for place, one in enumerate(sessions) if place % share]
    later_s = each / (each - 1) / rate if each > 1 else math.inf  # between later turns
    draws = stream(seed, "underway")
    times = np.cumsum(draws.standard_exponential(len(older) // few)) * later_s
    chances = draws.random((len(times), 2)).tolist()
    entries = []
    for place, (time_s, (which, turn)) in enumerate(zip(times.tolist(), chances, strict=True)):
        if time_s > entering_s:
            break
        met = _met(load, older[place * few : (place + 1) * few], which, turn)
        if met is not None:
            entries.append(Arrival(time_s, met))
    arrivals = sorted([*begins, *entries], key=lambda arrival: arrival.time_s) or [sessions[0]]
    whole = Chained(tuple(arrivals), _following(load, arrivals))
    return Underway(whole, frozenset(arrival.request.request_id for arrival in entries), entering_s)


def _met(load: Chained, sessions: Sequence[Arrival], which: float, turn: float) -> Request | None:
    """One later turn of these sessions: of session `which`, the likelier the more it has, at `turn` of it (both 0 to 1).

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
