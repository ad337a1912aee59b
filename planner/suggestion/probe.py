"""The requests of a spec at any rate and for any time: every rate sends the same list, further or less far.

All rates of a seed share one list of requests and gaps (common random numbers), only faster or slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from planner.spec import Aggregated, Sessions, Spec, dump, parse
from planner.traffic import workload
from planner.traffic.loads import Chained
from planner.traffic.random_streams import draw, stream
from planner.traffic.requests import Arrival, Load
from planner.traffic.workload import at_rate, offered_rate

# Kinds of workload whose lists can be made longer, and the key that says how long they are.
COUNTED = {
    "poisson": "requests",
    "gamma": "requests",
    "constant": "requests",
    "rag": "requests",
    "sessions": "sessions",
}


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


def load_at(spec: Spec, seed: int, rate: float, seconds: float | None = None) -> Load:
    """The requests of `spec` at another rate; the same objects at another time where the load allows it.

    `seconds`: those that are sent within so long, of a list that is as long as that needs. None: the spec's own list.
    """
    if seconds is not None:
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
    followers = {}
    if load.followers:
        for arrival in arrivals:
            last = arrival.request.request_id
            while last in load.followers:
                followers[last] = load.followers[last]
                last = followers[last][1].request_id
    return Chained(arrivals, followers)


def request_s(spec: Spec, seed: int) -> float:
    """Seconds that a request takes when it just meets its targets; nominal without them."""
    load, _ = traffic_of(spec, seed)
    requests = [arrival.request for arrival in load.start()]
    output = sum(request.output_tokens for request in requests) / len(requests)
    first_ms = 1000.0 if spec.slo.ttft_ms is None else spec.slo.ttft_ms
    token_ms = 50.0 if spec.slo.tpot_ms is None else spec.slo.tpot_ms
    return (first_ms + token_ms * output) / 1e3


def turnaround_s(spec: Spec, seed: int) -> float:
    """As `request_s`; of sessions: a whole one, with its thinking."""
    seconds = request_s(spec, seed)
    if not isinstance(spec.workload, Sessions):
        return seconds
    turns = workload.mean_turns(spec.workload, seed)
    return turns * (seconds + float(np.mean(draw(spec.workload.think_time_s, 1000, stream(seed, "think_time_s")))))
