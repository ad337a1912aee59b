"""`vllm bench serve`: the result file of --save-result --save-detailed, and the printed table."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.interop.dialects.shared import rate, workload
from planner.run.facts import Array, Facts, not_null

_LATENCIES = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}
_PERCENTILES = (50, 90, 95, 99)


def _latency(facts: Facts, name: str) -> dict[str, float]:
    """Mean, median, population deviation and percentiles in ms; 0 where there is nothing, as the tool has it."""
    if name == "itl":
        pooled = facts.gaps
        if pooled is None:
            return {}
        mean, median, std, *tail = (
            value * 1e3
            for value in (
                pooled.mean(),
                *pooled.percentiles([50]),
                pooled.std(),
                *pooled.percentiles(_PERCENTILES),
            )
        )
    else:
        values = not_null({"ttft": facts.ttft, "tpot": facts.tpot, "e2el": facts.e2e}[name]) * 1e3
        values = values if len(values) else np.zeros(1)
        mean, median, std = float(values.mean()), float(np.median(values)), float(values.std())
        tail = [float(value) for value in np.percentile(values, _PERCENTILES)]
    found = {f"mean_{name}_ms": mean, f"median_{name}_ms": median, f"std_{name}_ms": std}
    found |= {f"p{percent}_{name}_ms": value for percent, value in zip(_PERCENTILES, tail, strict=True)}
    return {key: float(np.nan_to_num(value)) for key, value in found.items()}


def export(facts: Facts) -> dict[str, Any]:
    """The result file of `vllm bench serve --save-result --save-detailed`."""
    slo, load = facts.slo, workload(facts)
    has_targets = any(limit is not None for limit in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms))
    inputs, outputs = facts.prompt_tokens[facts.ok], facts.output_tokens[facts.ok]
    result: dict[str, Any] = {
        "backend": "planner",
        "label": facts.spec.get("name"),
        "model_id": facts.spec.get("model"),
        "num_prompts": len(facts.ok),
        "request_rate": load.get("rate", "inf"),
        "burstiness": load.get("burstiness", 1.0),
        "max_concurrency": load.get("concurrency"),
        "duration": facts.base.length_s,
        "completed": int(facts.ok.sum()),
        "failed": int((~facts.ok).sum()),
        "total_input_tokens": int(inputs.sum()),
        "total_output_tokens": int(outputs.sum()),
        "request_throughput": rate(float(facts.ok.sum()), facts),
        "request_goodput": rate(float(facts.good.sum()), facts) if has_targets else None,
        "output_throughput": rate(float(outputs.sum()), facts),
        "total_token_throughput": rate(float(inputs.sum() + outputs.sum()), facts),
        "max_output_tokens_per_s": float(_per_second(facts).max(initial=0.0)),
        "max_concurrent_requests": _peak_concurrency(facts),
        "input_lens": facts.prompt_tokens.astype(int).tolist(),
        "output_lens": np.where(facts.ok, facts.output_tokens, 0).astype(int).tolist(),
        "ttfts": np.nan_to_num(facts.ttft).tolist(),
        "latencies": np.nan_to_num(facts.e2e).tolist(),
        "start_times": facts.arrival.tolist(),
        "errors": [_text(error) for error in facts.run.requests["error"].iloc[facts.rows]],
    }
    if len(facts.run.tokens):
        result["itls"] = _itls(facts)
    for name in _LATENCIES:
        result |= _latency(facts, name)
    return result


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _itls(facts: Facts) -> list[list[float]]:
    tokens = facts.run.tokens.sort_values(["request_id", "index"])
    ids, times = tokens["request_id"].to_numpy(np.int64), tokens["time_s"].to_numpy(np.float64)
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    gaps = {
        int(ids[start]): np.diff(part).tolist() for start, part in zip(starts, np.split(times, starts[1:]), strict=True)
    }
    return [gaps.get(int(key), []) for key in facts.run.requests["request_id"].iloc[facts.rows]]


def table(facts: Facts, colour: bool) -> str:
    result = export(facts)

    def line(label: str, value: float, decimals: int = 2) -> str:
        return f"{label:<40} {value:<10.{decimals}f}".rstrip()

    lines = [f"{' Serving Benchmark Result ':=^50}"]
    lines += [line("Successful requests:", result["completed"], 0), line("Failed requests:", result["failed"], 0)]
    if result["max_concurrency"] is not None:
        lines.append(line("Maximum request concurrency:", result["max_concurrency"], 0))
    if result["request_rate"] != "inf":
        lines.append(line("Request rate configured (RPS):", result["request_rate"]))
    lines += [
        line("Benchmark duration (s):", result["duration"]),
        line("Total input tokens:", result["total_input_tokens"], 0),
        line("Total generated tokens:", result["total_output_tokens"], 0),
        line("Request throughput (req/s):", result["request_throughput"]),
    ]
    if result["request_goodput"] is not None:
        lines.append(line("Request goodput (req/s):", result["request_goodput"]))
    lines += [
        line("Output token throughput (tok/s):", result["output_throughput"]),
        line("Peak output token throughput (tok/s):", result["max_output_tokens_per_s"]),
        line("Peak concurrent requests:", result["max_concurrent_requests"]),
        line("Total token throughput (tok/s):", result["total_token_throughput"]),
    ]
    for name, (short, title) in _LATENCIES.items():
        if f"mean_{name}_ms" in result:
            lines.append(f"{title:-^50}")
            lines += [
                line(f"{word} {short} (ms):", result[f"{word.lower()}_{name}_ms"]) for word in ("Mean", "Median", "P99")
            ]
    return "\n".join([*lines, "=" * 50])


def _per_second(facts: Facts) -> Array:
    """Tokens in each second after the first send. Where token times are not recorded they are taken as even."""
    if len(facts.run.tokens):
        times = facts.run.tokens["time_s"].to_numpy(np.float64)
    else:
        n = facts.output_tokens[facts.ok].astype(np.int64)
        row = np.repeat(np.arange(len(n)), n)
        index = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
        times = facts.first_token[facts.ok][row] + index * np.nan_to_num(facts.tpot[facts.ok])[row]
    return np.bincount((times - facts.base.start_s).astype(np.int64)).astype(np.float64)


def _peak_concurrency(facts: Facts) -> int:
    times = np.concatenate([facts.finish[facts.ok], facts.arrival[facts.ok]])  # ends go before starts
    change = np.repeat([-1, 1], int(facts.ok.sum()))
    return int(np.cumsum(change[np.argsort(times, kind="stable")]).max(initial=0))
