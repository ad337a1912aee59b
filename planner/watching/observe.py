"""From two rounds of counters to what happened between them. Times in seconds, rates a second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.watching.scrape import Role, Round, Scrape, Values

NAN = float("nan")
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
# Names changed between vLLM releases; the first that an engine has is taken.
TPOT = ("vllm:request_time_per_output_token_seconds", "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds")  # fmt: skip
ITL = ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
TTFT = "vllm:time_to_first_token_seconds"
E2E = "vllm:e2e_request_latency_seconds"
PROMPTS = "vllm:request_prompt_tokens"
OUTPUTS = "vllm:request_generation_tokens"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between ascending `bounds` (the last may be infinite), and the sum of what was counted."""

    bounds: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    total: float = 0.0

    @property
    def count(self) -> float:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else NAN

    def quantile(self, share: float) -> float:
        """Linear within a bucket; the last finite bound where it lies beyond. NaN without counts."""
        if not self.count:
            return NAN
        wanted, below, seen = share * self.count, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count and seen + count >= wanted:
                return below if math.isinf(bound) else below + (bound - below) * (wanted - seen) / count
            seen, below = seen + count, below if math.isinf(bound) else bound
        return below

    def draws(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """`count` values spread over the quantiles, in random order, with the mean of what was counted.

        What lies in one bucket alone is taken as equal: load generators send fixed lengths, and nothing says more.
        """
        if not self.count or not count:
            return np.full(count, NAN)
        if sum(one > 0 for one in self.counts) == 1:
            return np.full(count, self.mean)
        shares = (np.arange(count) + 0.5) / count
        values = np.array([self.quantile(float(share)) for share in shares])
        return rng.permutation(values * self.mean / values.mean())

    def plus(self, other: Histogram) -> Histogram:
        """Both together; one without counts leaves the other as it is."""
        if not self.bounds or not other.bounds:
            return self if self.bounds else other
        if self.bounds != other.bounds:
            return other
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total + other.total)


def histogram(values: Values, name: str) -> Histogram:
    """The histogram `name` of samples that hold its cumulative buckets as `name_bucket[le]`."""
    mark = f"{name}_bucket["
    found = sorted((float(key[len(mark) : -1]), value) for key, value in values.items() if key.startswith(mark))
    below = 0.0
    counts = []
    for _, value in found:
        counts.append(max(0.0, value - below))
        below = value
    return Histogram(tuple(bound for bound, _ in found), tuple(counts), values.get(f"{name}_sum", 0.0))


def first_of(values: Values, names: Sequence[str]) -> str:
    """The name that the samples have a histogram of."""
    return next((name for name in names if f"{name}_count" in values), names[0])


@dataclass(frozen=True, slots=True)
class Observed:
    """One interval of a stack. Latencies are means of what ended in it; NaN where nothing did."""

    start_s: float
    end_s: float
    arrivals: int
    prompts: Histogram
    outputs: Histogram
    ttft_s: float
    tpot_s: float
    e2e_s: float
    output_tokens_s: float
    cached_share: float  # of the prompt tokens, found in the prefix cache of who prefilled
    running: float
    waiting: float
    kv_used: float  # of the pool that decodes, at the end
    growth: Mapping[Role, Values]  # what each pool's counters grew by
    gauges: Mapping[Role, Values]  # sums over the pool at the end; shares are means

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def rate(self) -> float:
        return self.arrivals / self.length_s

    @property
    def measured(self) -> dict[str, float]:
        """The metrics that are predicted, by name."""
        return {
            "ttft": self.ttft_s,
            "tpot": self.tpot_s,
            "e2e": self.e2e_s,
            "output_tokens_s": self.output_tokens_s,
        }


def observe(before: Round, after: Round) -> Observed | None:
    """What happened between two rounds. None: engines differ, or one began anew (its counters fell)."""
    earlier = {one.engine: one for one in before.engines}
    if earlier.keys() != {one.engine for one in after.engines} or not earlier or after.time_s <= before.time_s:
        return None
    growth: dict[Role, dict[str, float]] = {}
    for one in after.engines:
        grown = _grown(earlier[one.engine].values, one.values)
        if grown is None:
            return None
        pool = growth.setdefault(one.role, {})
        for name, value in grown.items():
            pool[name] = pool.get(name, 0.0) + value
    last: Role = "decode" if "decode" in growth else "aggregated"
    if last not in growth:
        return None
    first: Role = "prefill" if "prefill" in growth else last
    served, entered = growth[last], growth[first]
    inside = [_sum(round_.engines, GAUGES[0]) + _sum(round_.engines, GAUGES[1]) for round_ in (before, after)]
    finished = served.get(f"{E2E}_count", 0.0)
    ttft, e2e = histogram(served, TTFT), histogram(served, E2E)
    ahead = (
        entered.get(f"{E2E}_sum", 0.0) if first != last else 0.0
    )  # a prefill worker answers before the decode begins
    tpot = first_of(served, TPOT)
    tokens = served.get("vllm:generation_tokens_total", 0.0)
    queried, hit = (entered.get(f"vllm:prefix_cache_{name}_total", 0.0) for name in ("queries", "hits"))
    gauges = {role: _gauges([one for one in after.engines if one.role == role]) for role in growth}
    length = after.time_s - before.time_s
    return Observed(
        start_s=before.time_s,
        end_s=after.time_s,
        arrivals=max(0, round(finished + inside[1] - inside[0])),
        prompts=histogram(served, PROMPTS),
        outputs=histogram(served, OUTPUTS),
        ttft_s=ttft.mean + ahead / ttft.count if ttft.count else NAN,
        tpot_s=served.get(f"{tpot}_sum", 0.0) / served[f"{tpot}_count"] if served.get(f"{tpot}_count") else NAN,
        e2e_s=e2e.mean + ahead / e2e.count if e2e.count else NAN,
        output_tokens_s=tokens / length,
        cached_share=min(1.0, hit / queried) if queried else 0.0,
        running=_sum(after.engines, GAUGES[0]),
        waiting=_sum(after.engines, GAUGES[1]),
        kv_used=gauges[last][GAUGES[2]],
        growth=growth,
        gauges=gauges,
    )


def _grown(before: Values, after: Values) -> dict[str, float] | None:
    """Differences of counters; None where one fell: the engine began anew."""
    grown = {}
    for name, value in after.items():
        if not _counts(name):
            continue
        grown[name] = value - before.get(name, 0.0)
        if grown[name] < 0:
            return None
    return grown


def _counts(name: str) -> bool:
    return name.partition("[")[0].endswith(("_total", "_sum", "_count", "_bucket"))


def _sum(engines: Iterable[Scrape], name: str) -> float:
    return sum(one.values.get(name, 0.0) for one in engines)


def _gauges(engines: Sequence[Scrape]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in engines:
        for name, value in one.values.items():
            if not _counts(name):
                found[name] = found.get(name, 0.0) + value / (len(engines) if name == GAUGES[2] else 1)
    return {GAUGES[2]: NAN} | found
