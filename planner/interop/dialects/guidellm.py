"""guidellm: `benchmarks[0].metrics` of its JSON, and a table of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.interop.dialects.shared import rate
from planner.run.facts import Array, Facts

_POINTS = {
    "p001": 0.001, "p01": 0.01, "p05": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5,
    "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999,
}  # fmt: skip


def _distribution(values: Array, weights: Array | None = None) -> dict[str, Any]:
    """A weighted distribution; its percentiles are values that occurred, not interpolated ones."""
    weights = np.ones(len(values)) if weights is None else weights
    keep = ~np.isnan(values) & (weights > 0)
    order = np.argsort(values[keep], kind="stable")
    values, weights = values[keep][order], weights[keep][order]
    if not len(values):
        return {"mean": 0.0, "median": 0.0, "std_dev": 0.0, "min": 0.0, "max": 0.0, "count": 0, "total_sum": 0.0}
    share = weights / weights.sum()
    reached = np.cumsum(share)
    # a share of rounding below 1 must not push the last percentile past the end
    points = {
        name: float(values[min(int(np.searchsorted(reached, point - 1e-12)), len(values) - 1)])
        for name, point in _POINTS.items()
    }
    mean = float(np.dot(values, share))
    variance = float(np.dot((values - mean) ** 2, share))
    count = round(float(weights.sum()))
    return {
        "mean": mean,
        "median": points["p50"],
        "variance": variance,
        "std_dev": variance**0.5,
        "min": float(values[0]),
        "max": float(values[-1]),
        "count": count,
        "total_sum": mean * count,
        "percentiles": points,
    }


def export(facts: Facts) -> dict[str, Any]:
    """`benchmarks[0].metrics` of guidellm's JSON, the successful requests; rates have their mean only."""
    ok = facts.ok
    prompt, output, e2e = facts.prompt_tokens[ok], facts.output_tokens[ok], facts.e2e[ok]
    per_token = e2e * 1e3 / np.maximum(output, 1)

    def successful(summary: dict[str, Any]) -> dict[str, Any]:
        return {"successful": summary}

    def per_second(amount: float) -> dict[str, Any]:
        return successful({"mean": rate(amount, facts)})

    total = float(prompt.sum() + output.sum())
    metrics = {
        "request_totals": {"successful": int(ok.sum()), "incomplete": 0, "errored": int((~ok).sum()), "total": len(ok)},
        "requests_per_second": per_second(float(ok.sum())),
        "request_concurrency": per_second(float(e2e.sum())),
        "request_latency": successful(_distribution(e2e)),
        "prompt_token_count": successful(_distribution(prompt)),
        "output_token_count": successful(_distribution(output)),
        "total_token_count": successful(_distribution(prompt + output)),
        "time_to_first_token_ms": successful(_distribution(facts.ttft[ok] * 1e3)),
        "time_per_output_token_ms": successful(_distribution(per_token, output)),
        "inter_token_latency_ms": successful(_distribution(facts.tpot[ok] * 1e3, output - 1)),
        "prompt_tokens_per_second": per_second(float(prompt.sum())),
        "output_tokens_per_second": per_second(float(output.sum())),
        "tokens_per_second": per_second(total),
    }
    window = {"start_time": facts.base.start_s, "end_time": facts.base.end_s, "duration": facts.base.length_s}
    return {"benchmarks": [{**window, "metrics": metrics}]}


def table(facts: Facts, colour: bool) -> str:
    metrics = export(facts)["benchmarks"][0]["metrics"]
    columns = ("mean", "median", "p95", "p99")
    lines = [f"{'Metric (successful requests)':<32}" + "".join(f"{column:>11}" for column in columns)]
    for name, block in metrics.items():
        if name == "request_totals":
            continue
        found = block["successful"]
        row = {**found.get("percentiles", {}), **found}
        cells = "".join(f"{row[column]:>11,.2f}" if column in row else f"{'-':>11}" for column in columns)
        lines.append(f"{name:<32}{cells}")
    totals = metrics["request_totals"]
    return "\n".join([*lines, f"requests: {totals['successful']} successful, {totals['errored']} errored"])
