"""AIPerf: the shape of profile_export_aiperf.json (schema 1.5), and its table."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.interop.dialects.shared import rate
from planner.run.facts import Array, Facts, not_null

_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def _record(unit: str, values: Array) -> dict[str, Any]:
    """A metric with one value a request."""
    values = not_null(values)
    if not len(values):
        return {}
    block: dict[str, Any] = {"unit": unit, "avg": float(values.mean())}
    points = np.percentile(values, _PERCENTILES)
    block |= {f"p{percent}": float(point) for percent, point in zip(_PERCENTILES, points, strict=True)}
    block |= {"min": float(values.min()), "max": float(values.max())}
    block["std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return block | {"count": len(values), "sum": float(values.sum())}


def _gaps(facts: Facts) -> dict[str, Any]:
    pooled = facts.gaps
    if pooled is None or not pooled.total:
        return {}
    points = pooled.percentiles(_PERCENTILES)
    block = {"unit": "ms", "avg": pooled.mean() * 1e3, "max": pooled.maximum() * 1e3, "std": pooled.std() * 1e3}
    block |= {f"p{percent}": point * 1e3 for percent, point in zip(_PERCENTILES, points, strict=True)}
    return block | {"count": int(pooled.total)}


def export(facts: Facts) -> dict[str, Any]:
    """Metric tag -> its block of statistics; percentiles only where there is one value a request."""

    def scalar(unit: str, value: float) -> dict[str, Any]:
        return {"unit": unit, "avg": float(value)}

    ok = facts.ok
    inputs, outputs = facts.prompt_tokens[ok], facts.output_tokens[ok]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_user = np.where(facts.tpot > 0, 1 / facts.tpot, np.nan)
        e2e_speed = np.where(facts.e2e > 0, facts.output_tokens / facts.e2e, np.nan)
    blocks = {
        "time_to_first_token": _record("ms", facts.ttft * 1e3),
        "inter_token_latency": _record("ms", facts.tpot * 1e3),
        "inter_chunk_latency": _gaps(facts),
        "request_latency": _record("ms", facts.e2e * 1e3),
        "output_token_throughput_per_user": _record("tokens/sec/user", per_user),
        "e2e_output_token_throughput": _record("tokens/sec/user", e2e_speed),
        "input_sequence_length": _record("tokens", inputs),
        "output_sequence_length": _record("tokens", outputs),
        "request_throughput": scalar("requests/sec", rate(float(ok.sum()), facts)),
        "output_token_throughput": scalar("tokens/sec", rate(float(outputs.sum()), facts)),
        "total_token_throughput": scalar("tokens/sec", rate(float(inputs.sum() + outputs.sum()), facts)),
        "goodput": scalar("requests/sec", rate(float(facts.good.sum()), facts)),
        "good_request_count": scalar("requests", float(facts.good.sum())),
        "good_request_fraction": scalar("ratio", float(facts.good.mean()) if len(ok) else 0.0),
        "request_count": scalar("requests", float(ok.sum())),
        "error_request_count": scalar("requests", float((~ok).sum())),
        "benchmark_duration": scalar("sec", facts.base.length_s),
    }
    head: dict[str, Any] = {"schema_version": "1.5"}
    return head | {name: block for name, block in blocks.items() if block}


def table(facts: Facts, colour: bool) -> str:
    columns = ("avg", "p99", "p90", "p50")  # as many of the tool's as 80 characters hold
    lines = [f"{'Metric':<40}" + "".join(f"{column:>10}" for column in columns)]
    for name, block in export(facts).items():
        if not isinstance(block, dict):
            continue
        label = f"{name.replace('_', ' ').title()} ({block['unit']})"
        cells = "".join(f"{block[column]:>10,.2f}" if column in block else f"{'-':>10}" for column in columns)
        # the label has its own line where the columns would not fit beside it
        lines.append(f"{label:<40}{cells}" if len(label) < 40 else f"{label}\n{'':<40}{cells}")
    return "\n".join(lines)
