"""The one catalogue of metrics: a metric is one entry here, and nothing else.

Latencies are in milliseconds, as in `vllm bench serve`; everything else in seconds, tokens and bytes. Percentiles are
numpy's linear ones, over the requests that finished. `planner.run.facts` defines the time base and the steady window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from planner.messages import capital, message
from planner.run import usage
from planner.run.facts import ROLES, STAGE_NAMES, STAGES, Array, Facts, not_null
from planner.spec import Slo

Better = Literal["higher", "lower", "none"]
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run. `value` gives it, or None when the run cannot show it."""

    name: str
    label: str
    unit: str  # "" for counts; "share" is 0 to 1, shown as per cent
    better: Better
    help: str
    value: Callable[[Facts], float | None]


METRICS: dict[str, Metric] = {}


def linear_percentile(ordered: Array, percent: float) -> float:
    """`np.percentile` of values in order, to the last bit; the first call of that one imports masked arrays."""
    place = percent / 100 * (len(ordered) - 1)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    share = place - below
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def _add(name: str, label: str, unit: str, better: Better, help: str, value: Callable[[Facts], float | None]) -> None:
    METRICS[name] = Metric(name, label, unit, better, help, value)


def _add_latency(name: str, label: str, help: str, seconds: Callable[[Facts], Array]) -> None:
    """Mean, percentiles and maximum of a latency, in milliseconds."""

    def mean(facts: Facts) -> float | None:
        values = not_null(seconds(facts))
        return float(values.mean()) * 1e3 if len(values) else None

    def percentile(percent: float) -> Callable[[Facts], float | None]:
        def value(facts: Facts) -> float | None:
            values = not_null(seconds(facts))
            return linear_percentile(np.sort(values), percent) * 1e3 if len(values) else None

        return value

    _add(f"{name}_mean_ms", message("{label} mean", label), "ms", "lower", message("Mean of: {what}", help), mean)
    for percent in PERCENTILES:
        text = message("{percent}th percentile of: {what}", percent, help)
        title = message("{label} p{percent}", label, percent)
        _add(f"{name}_p{percent}_ms", title, "ms", "lower", text, percentile(percent))
    title = message("{label} max", label)
    _add(f"{name}_max_ms", title, "ms", "lower", message("Longest: {what}", help), percentile(100))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


# --- counts, rates -----------------------------------------------------------------------------


def _per_s(amount: Callable[[Facts], float]) -> Callable[[Facts], float | None]:
    """Amount of the whole run per second of its time base."""
    return lambda facts: _share(amount(facts), facts.base.length_s)


def _per_gpu(rate: Callable[[Facts], float | None]) -> Callable[[Facts], float | None]:
    """Per GPU, all GPUs of the deployment counted."""

    def value(facts: Facts) -> float | None:
        total, gpus = rate(facts), float(facts.manifest.get("gpus") or 0)
        return total / gpus if total is not None and gpus else None

    return value


def _input(facts: Facts) -> float:
    return float(facts.prompt_tokens[facts.ok].sum())


def _output(facts: Facts) -> float:
    return float(facts.output_tokens[facts.ok].sum())


_requests_per_s = _per_s(lambda facts: float(facts.ok.sum()))
_output_per_s = _per_s(_output)
_total_per_s = _per_s(lambda facts: _input(facts) + _output(facts))
_goodput = _per_s(lambda facts: float(facts.good.sum()))


def _attained(
    limit: Callable[[Slo], float | None], seconds: Callable[[Facts], Array]
) -> Callable[[Facts], float | None]:
    """Share of all requests within one target; those that failed miss it."""

    def value(facts: Facts) -> float | None:
        most = limit(facts.slo)
        if most is None or not len(facts.ok):
            return None
        return float((facts.ok & ~(seconds(facts) * 1e3 > most)).mean())

    return value


def _cost_per_million(tokens: Callable[[Facts], float]) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        price = (facts.spec.get("cluster") or {}).get("price_per_gpu_hour")
        if price is None:
            return None
        spent = float(price) * float(facts.manifest["gpus"]) * facts.base.length_s / 3600
        amount = tokens(facts)
        return spent / amount * 1e6 if amount else None

    return value


_add("requests", "Requests", "", "none", "Requests sent, warm-up left out.", lambda f: float(len(f.ok)))
_add("completed", "Completed", "", "higher", "Requests that ended with stop or length.", lambda f: float(f.ok.sum()))
_add("rejected", "Rejected", "", "lower", "Requests turned away by the router.", lambda f: float(f.rejected.sum()))
_add(
    "failed", "Failed", "", "lower", "Requests that ended with an error or not at all.",
    lambda f: float((~f.ok & ~f.rejected).sum()),
)  # fmt: skip
_add("duration_s", "Duration", "s", "none", "Time base: first send to last finish.", lambda f: f.base.length_s)
_add(
    "steady_s", "Steady window", "s", "none", "From 10 % of the sending time to the last send.",
    lambda f: f.steady.length_s,
)  # fmt: skip
_add(
    "offered_requests_per_s", "Offered rate", "req/s", "none", "Rate of sending: (requests - 1) / (last - first send).",
    lambda f: f.saturation.offered_per_s,
)  # fmt: skip
_add(
    "achieved_requests_per_s", "Achieved rate", "req/s", "higher", "Requests finished per second of the steady window.",
    lambda f: f.saturation.achieved_per_s,
)  # fmt: skip
_add("requests_per_s", "Throughput", "req/s", "higher", "Completed requests / duration.", _requests_per_s)
_add("input_tokens_per_s", "Input throughput", "tok/s", "higher", "Prompt tokens / duration.", _per_s(_input))
_add("output_tokens_per_s", "Output throughput", "tok/s", "higher", "Output tokens / duration.", _output_per_s)
_add("total_tokens_per_s", "Total throughput", "tok/s", "higher", "Prompt and output tokens / duration.", _total_per_s)
_add(
    "requests_per_s_per_gpu", "Throughput per GPU", "req/s/GPU", "higher", "Throughput / all GPUs of the deployment.",
    _per_gpu(_requests_per_s),
)  # fmt: skip
_add(
    "output_tokens_per_s_per_gpu", "Output per GPU", "tok/s/GPU", "higher",
    "Output throughput / all GPUs of the deployment.", _per_gpu(_output_per_s),
)  # fmt: skip
_add(
    "total_tokens_per_s_per_gpu", "Tokens per GPU", "tok/s/GPU", "higher",
    "Total throughput / all GPUs of the deployment.", _per_gpu(_total_per_s),
)  # fmt: skip
_add("goodput_requests_per_s", "Goodput", "req/s", "higher", "Requests that meet every target / duration.", _goodput)
_add(
    "goodput_requests_per_s_per_gpu", "Goodput per GPU", "req/s/GPU", "higher",
    "Goodput / all GPUs of the deployment.", _per_gpu(_goodput),
)  # fmt: skip
_add(
    "attainment", "Attainment", "share", "higher", "Share of all requests that meet every target; failed ones miss.",
    lambda f: _share(float(f.good.sum()), float(len(f.good))),
)  # fmt: skip
_add(
    "ttft_attainment", message("{metric} attainment", "TTFT"), "share", "higher",
    message("Share of all requests within the {metric} target.", "TTFT"),
    _attained(lambda slo: slo.ttft_ms, lambda f: f.ttft),
)  # fmt: skip
_add(
    "tpot_attainment", message("{metric} attainment", "TPOT"), "share", "higher",
    message("Share of all requests within the {metric} target.", "TPOT"),
    _attained(lambda slo: slo.tpot_ms, lambda f: f.tpot),
)  # fmt: skip
_add(
    "e2e_attainment", message("{metric} attainment", "E2E"), "share", "higher",
    message("Share of all requests within the {metric} target.", "E2E"),
    _attained(lambda slo: slo.e2e_ms, lambda f: f.e2e),
)  # fmt: skip

# --- latencies ---------------------------------------------------------------------------------


def _gap(statistic: Callable[[Any], float]) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        return statistic(facts.gaps) * 1e3 if facts.gaps is not None and facts.gaps.total else None

    return value


def _gap_percentile(percent: float) -> Callable[[Facts], float | None]:
    return _gap(lambda pooled: float(pooled.percentiles([percent])[0]))


def _tokens_per_s_per_user(facts: Facts) -> float | None:
    values = not_null(facts.tpot)
    values = values[values > 0]
    return float((1 / values).mean()) if len(values) else None


_add_latency("ttft", "TTFT", message("client send to first token at the client."), lambda f: f.ttft)
_add_latency("tpot", "TPOT", message("(E2E - TTFT) / (output tokens - 1), one value a request."), lambda f: f.tpot)
# Simulated ones are the engines', with the steps that wait behind a launch or a post; what the way to a client adds or
# joins is not in them: a tail of twice the median or less is mostly that.
_ITL = message("gaps between tokens, pooled over all requests.")
_add(
    "itl_mean_ms", message("{label} mean", "ITL"), "ms", "lower", message("Mean of: {what}", _ITL),
    _gap(lambda pooled: float(pooled.mean())),
)  # fmt: skip
for _percent in PERCENTILES:
    _add(
        f"itl_p{_percent}_ms", message("{label} p{percent}", "ITL", _percent), "ms", "lower",
        message("{percent}th percentile of: {what}", _percent, _ITL), _gap_percentile(_percent),
    )  # fmt: skip
_add(
    "itl_max_ms", message("{label} max", "ITL"), "ms", "lower", message("Longest: {what}", _ITL),
    _gap(lambda pooled: float(pooled.maximum())),
)  # fmt: skip
_add_latency("e2e", "E2E", message("client send to last token at the client."), lambda f: f.e2e)
_add(
    "tokens_per_s_per_user", "Speed per user", "tok/s", "higher", "Mean over requests of 1 / TPOT.",
    _tokens_per_s_per_user,
)  # fmt: skip
_add_latency(
    "ttft_without_retrieval", message("TTFT without retrieval"),
    message("TTFT less the wait for retrieval and the retrieval itself."),
    lambda f: f.ttft - f.stages["retrieval"],
)  # fmt: skip
_add_latency("retrieval", message("Retrieval"), message("service time of the document search."), lambda f: f.retrieval)


def _stage_share(stage: str) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        whole = not_null(facts.ttft)
        return _share(float(np.nansum(facts.stages[stage])), float(whole.sum()))

    return value


for _stage, _what in STAGES.items():
    _add(
        f"ttft_share_{_stage}", message("{stage} share of TTFT", capital(STAGE_NAMES[_stage])), "share", "none",
        message("Share of all time to first token: {what}.", _what), _stage_share(_stage),
    )  # fmt: skip

# --- what is used ------------------------------------------------------------------------------


def _cache_hit_rate(facts: Facts) -> float | None:
    cached = facts.column("cached_tokens")
    known = ~np.isnan(cached) & facts.ok
    return _share(float(cached[known].sum()), float(facts.prompt_tokens[known].sum()))


def _preemptions(facts: Facts) -> float | None:
    counts = not_null(facts.column("preemptions"))
    return float(counts.sum()) if len(counts) else None


def _local_prefill_share(facts: Facts) -> float | None:
    if (facts.spec.get("deployment") or {}).get("mode") != "disaggregated":
        return None
    decoders = facts.requests.texts("decode_worker")[facts.rows]
    seen = facts.ok & np.array([isinstance(name, str) for name in decoders], dtype=bool)
    return _share(float((facts.local & seen).sum()), float(seen.sum()))


def _transfer_bytes(facts: Facts) -> float | None:
    return float(facts.transfers.floats("bytes").sum()) if len(facts.transfers) else None


def _busiest_link(value: Callable[[usage.LinkUse], float]) -> Callable[[Facts], float | None]:
    return lambda facts: max((value(link) for link in usage.links(facts)), default=None)


def _pool(role: str, value: Callable[[usage.PoolUse], float | None]) -> Callable[[Facts], float | None]:
    def find(facts: Facts) -> float | None:
        return next((value(pool) for pool in usage.pools(facts) if pool.role == role), None)

    return find


def _load(role: str) -> Callable[[Facts], float | None]:
    """A pool's share of its own highest rate: an engine that decodes anything at all is busy all the time."""

    def value(facts: Facts) -> float | None:
        highest = (facts.manifest.get("highest_rates") or {}).get(role)
        carried = usage.carried_per_s(facts, role)
        return carried / highest if highest and carried is not None else None

    return value


def _sampled(column: str) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        samples = facts.run.columns("samples")
        if not len(samples):
            return None
        times = samples.floats("time_s")
        inside = (times >= facts.in_use.start_s) & (times <= facts.in_use.end_s)
        values = not_null(samples.floats(column)[inside])
        return float(values.mean()) if len(values) else None

    return value


_add("cache_hit_rate", "Cache hit rate", "share", "higher", "Cached prompt tokens / prompt tokens.", _cache_hit_rate)
_add("preemptions", "Preemptions", "", "lower", "Times a request lost its KV cache and began again.", _preemptions)
_add(
    "local_prefill_share", "Local prefill", "share", "none", "Share of requests prefilled by the decode worker itself.",
    _local_prefill_share,
)  # fmt: skip
for _role in ("aggregated", "prefill", "decode"):
    _who = ROLES[_role]
    _add(
        f"{_role}_utilization", message("{role} busy", capital(_who)), "share", "none",
        message("Share of the steady window that the {role} workers spend in engine steps, averaged over them.", _who),
        _pool(_role, lambda pool: pool.utilization),
    )  # fmt: skip
    _add(
        f"{_role}_load", message("{role} load", capital(_who)), "share", "none",
        message(
            "Requests whose work the {role} workers do in a second of the steady window / the highest rate that they "
            "carry within the TPOT target, in closed form from the profile (simulated runs).", _who,
        ),
        _load(_role),
    )  # fmt: skip
    _add(
        f"{_role}_kv_used", message("{role} KV used", capital(_who)), "share", "none",
        message("KV cache in use on the {role} workers, averaged over their steps in the steady window.", _who),
        _pool(_role, lambda pool: pool.kv_used_mean),
    )  # fmt: skip
_add(
    "link_utilization", "Link busy", "share", "none",
    "Bytes moved / (bandwidth x time from the first transfer to the end of the last); busiest link.",
    _busiest_link(lambda link: link.utilization),
)  # fmt: skip
_add(
    "link_offered", "Link offered", "share", "none",
    "Bytes a second the traffic needs moved / bandwidth; busiest link. Above 1 it cannot keep up.",
    _busiest_link(lambda link: link.offered),
)  # fmt: skip
_add("transfer_bytes", "KV moved", "bytes", "none", "Bytes of KV cache moved between workers.", _transfer_bytes)
_add(
    "retrieval_utilization", "Retrieval busy", "share", "none",
    "Share of the steady window that the retrieval workers are busy.", usage.retrieval_utilization,
)  # fmt: skip
_add(
    "waiting_slope_per_s", "Growth of the line", "req/s", "lower",
    "Least-squares growth, in the steady window (of sessions: while they begin), of the number of requests without a "
    "first token.",
    lambda f: f.saturation.waiting_slope_per_s,
)  # fmt: skip
_add(
    "backlog_slope_per_s", "Growth of the backlog", "req/s", "lower",
    "Least-squares growth, in the steady window (of sessions: while they begin), of the number of requests in the "
    "system.",
    lambda f: f.saturation.backlog_slope_per_s,
)  # fmt: skip
_add("gpu_utilization", "GPU utilisation", "share", "none", "Mean of the samples (live).", _sampled("gpu_utilization"))
_add("power_w", "Power per worker", "W", "none", "Mean of the samples (live).", _sampled("power_w"))
_add(
    "cost_per_million_output_tokens", "Cost per million output tokens", "price", "lower",
    "price_per_gpu_hour x all GPUs x duration / output tokens x 1e6.", _cost_per_million(_output),
)  # fmt: skip
_add(
    "cost_per_million_tokens", "Cost per million tokens", "price", "lower",
    "price_per_gpu_hour x all GPUs x duration / (prompt and output tokens) x 1e6.",
    _cost_per_million(lambda facts: _input(facts) + _output(facts)),
)  # fmt: skip
