"""The same run in the words of other tools: their definitions, their table, their JSON keys.

| quantity | vllm bench serve | AIPerf | guidellm | multi-round-qa |
|---|---|---|---|---|
| (E2E - TTFT) / (n - 1) of a request | TPOT | ITL | ITL | - |
| E2E / n of a request | - | - | TPOT | - |
| gaps between tokens, pooled | ITL | inter chunk latency | - | - |
| n / (E2E - TTFT), mean over requests | - | - | - | generation throughput |
| goodput counts failed requests as | not sent | misses | - | - |

A key that a run cannot fill (token times of a simulated request, generated text) is left out, never invented.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from planner.facts import Array, Facts, known
from planner.records import Run
from planner.spec import SpecError


@dataclass(frozen=True, slots=True)
class Dialect:
    """One tool: what it prints and what it exports."""

    name: str
    table: Callable[[Facts, bool], str]  # (run, colour)
    export: Callable[[Facts], dict[str, Any]]


def find(name: str) -> Dialect:
    """Raises SpecError for a tool that is not known."""
    if name not in DIALECTS:
        near = difflib.get_close_matches(name, DIALECTS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SpecError(f"--table {name}: is unknown; allowed: {', '.join(DIALECTS)}{hint}")
    return DIALECTS[name]


def table(run: Run, name: str, colour: bool = False) -> str:
    """The run as the tool `name` would print it. Raises SpecError."""
    return find(name).table(Facts(run), colour)


def export_json(run: Run, name: str) -> dict[str, Any]:
    """The run under the JSON keys of the tool `name`. Raises SpecError."""
    return find(name).export(Facts(run))


# --- shared ------------------------------------------------------------------------------------


def _rate(amount: float, facts: Facts) -> float:
    return amount / facts.base.length_s if facts.base.length_s > 0 else 0.0


def _sum(values: Array) -> int:
    return int(values.sum())


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


def _workload(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = facts.spec.get("workload") or {}
    return found


# --- vllm bench serve --------------------------------------------------------------------------

_VLLM_LATENCIES = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}
_VLLM_PERCENTILES = (50, 90, 95, 99)


def _vllm_latency(facts: Facts, name: str) -> dict[str, float]:
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
                *pooled.percentiles(_VLLM_PERCENTILES),
            )
        )
    else:
        values = known({"ttft": facts.ttft, "tpot": facts.tpot, "e2el": facts.e2e}[name]) * 1e3
        values = values if len(values) else np.zeros(1)
        mean, median, std = float(values.mean()), float(np.median(values)), float(values.std())
        tail = [float(value) for value in np.percentile(values, _VLLM_PERCENTILES)]
    found = {f"mean_{name}_ms": mean, f"median_{name}_ms": median, f"std_{name}_ms": std}
    found |= {f"p{percent}_{name}_ms": value for percent, value in zip(_VLLM_PERCENTILES, tail, strict=True)}
    return {key: float(np.nan_to_num(value)) for key, value in found.items()}


def _vllm(facts: Facts) -> dict[str, Any]:
    """The result file of `vllm bench serve --save-result --save-detailed`."""
    slo, workload = facts.slo, _workload(facts)
    has_targets = any(limit is not None for limit in (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms))
    inputs, outputs = facts.prompt_tokens[facts.ok], facts.output_tokens[facts.ok]
    result: dict[str, Any] = {
        "backend": "planner",
        "label": facts.spec.get("name"),
        "model_id": facts.spec.get("model"),
        "num_prompts": len(facts.ok),
        "request_rate": workload.get("rate", "inf"),
        "burstiness": workload.get("burstiness", 1.0),
        "max_concurrency": workload.get("concurrency"),
        "duration": facts.base.length_s,
        "completed": int(facts.ok.sum()),
        "failed": int((~facts.ok).sum()),
        "total_input_tokens": _sum(inputs),
        "total_output_tokens": _sum(outputs),
        "request_throughput": _rate(float(facts.ok.sum()), facts),
        "request_goodput": _rate(float(facts.good.sum()), facts) if has_targets else None,
        "output_throughput": _rate(float(outputs.sum()), facts),
        "total_token_throughput": _rate(float(inputs.sum() + outputs.sum()), facts),
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
    for name in _VLLM_LATENCIES:
        result |= _vllm_latency(facts, name)
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


def _vllm_table(facts: Facts, colour: bool) -> str:
    result = _vllm(facts)

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
    for name, (short, title) in _VLLM_LATENCIES.items():
        if f"mean_{name}_ms" in result:
            lines.append(f"{title:-^50}")
            lines += [
                line(f"{word} {short} (ms):", result[f"{word.lower()}_{name}_ms"]) for word in ("Mean", "Median", "P99")
            ]
    return "\n".join([*lines, "=" * 50])


# --- AIPerf ------------------------------------------------------------------------------------

_AIPERF_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def _aiperf_record(unit: str, values: Array) -> dict[str, Any]:
    """A metric with one value a request."""
    values = known(values)
    if not len(values):
        return {}
    block: dict[str, Any] = {"unit": unit, "avg": float(values.mean())}
    points = np.percentile(values, _AIPERF_PERCENTILES)
    block |= {f"p{percent}": float(point) for percent, point in zip(_AIPERF_PERCENTILES, points, strict=True)}
    block |= {"min": float(values.min()), "max": float(values.max())}
    block["std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return block | {"count": len(values), "sum": float(values.sum())}


def _aiperf_gaps(facts: Facts) -> dict[str, Any]:
    pooled = facts.gaps
    if pooled is None or not pooled.total:
        return {}
    points = pooled.percentiles(_AIPERF_PERCENTILES)
    block = {"unit": "ms", "avg": pooled.mean() * 1e3, "max": pooled.maximum() * 1e3, "std": pooled.std() * 1e3}
    block |= {f"p{percent}": point * 1e3 for percent, point in zip(_AIPERF_PERCENTILES, points, strict=True)}
    return block | {"count": int(pooled.total)}


def _aiperf(facts: Facts) -> dict[str, Any]:
    """The shape of profile_export_aiperf.json (schema 1.5)."""

    def scalar(unit: str, value: float) -> dict[str, Any]:
        return {"unit": unit, "avg": float(value)}

    ok = facts.ok
    inputs, outputs = facts.prompt_tokens[ok], facts.output_tokens[ok]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_user = np.where(facts.tpot > 0, 1 / facts.tpot, np.nan)
        e2e_speed = np.where(facts.e2e > 0, facts.output_tokens / facts.e2e, np.nan)
    blocks = {
        "time_to_first_token": _aiperf_record("ms", facts.ttft * 1e3),
        "inter_token_latency": _aiperf_record("ms", facts.tpot * 1e3),
        "inter_chunk_latency": _aiperf_gaps(facts),
        "request_latency": _aiperf_record("ms", facts.e2e * 1e3),
        "output_token_throughput_per_user": _aiperf_record("tokens/sec/user", per_user),
        "e2e_output_token_throughput": _aiperf_record("tokens/sec/user", e2e_speed),
        "input_sequence_length": _aiperf_record("tokens", inputs),
        "output_sequence_length": _aiperf_record("tokens", outputs),
        "request_throughput": scalar("requests/sec", _rate(float(ok.sum()), facts)),
        "output_token_throughput": scalar("tokens/sec", _rate(float(outputs.sum()), facts)),
        "total_token_throughput": scalar("tokens/sec", _rate(float(inputs.sum() + outputs.sum()), facts)),
        "goodput": scalar("requests/sec", _rate(float(facts.good.sum()), facts)),
        "good_request_count": scalar("requests", float(facts.good.sum())),
        "good_request_fraction": scalar("ratio", float(facts.good.mean()) if len(ok) else 0.0),
        "request_count": scalar("requests", float(ok.sum())),
        "error_request_count": scalar("requests", float((~ok).sum())),
        "benchmark_duration": scalar("sec", facts.base.length_s),
    }
    head: dict[str, Any] = {"schema_version": "1.5"}
    return head | {name: block for name, block in blocks.items() if block}


def _aiperf_table(facts: Facts, colour: bool) -> str:
    columns = ("avg", "p99", "p90", "p50")  # as many of the tool's as 80 characters hold
    lines = [f"{'Metric':<40}" + "".join(f"{column:>10}" for column in columns)]
    for name, block in _aiperf(facts).items():
        if not isinstance(block, dict):
            continue
        label = f"{name.replace('_', ' ').title()} ({block['unit']})"
        cells = "".join(f"{block[column]:>10,.2f}" if column in block else f"{'-':>10}" for column in columns)
        # the label has its own line where the columns would not fit beside it
        lines.append(f"{label:<40}{cells}" if len(label) < 40 else f"{label}\n{'':<40}{cells}")
    return "\n".join(lines)


# --- guidellm ----------------------------------------------------------------------------------

_GUIDELLM_POINTS = {
    "p001": 0.001, "p01": 0.01, "p05": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5,
    "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999,
}  # fmt: skip


def _guidellm_summary(values: Array, weights: Array | None = None) -> dict[str, Any]:
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
        for name, point in _GUIDELLM_POINTS.items()
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


def _guidellm(facts: Facts) -> dict[str, Any]:
    """`benchmarks[0].metrics` of guidellm's JSON, the successful requests; rates have their mean only."""
    ok = facts.ok
    prompt, output, e2e = facts.prompt_tokens[ok], facts.output_tokens[ok], facts.e2e[ok]
    per_token = e2e * 1e3 / np.maximum(output, 1)

    def successful(summary: dict[str, Any]) -> dict[str, Any]:
        return {"successful": summary}

    def rate(amount: float) -> dict[str, Any]:
        return successful({"mean": _rate(amount, facts)})

    total = float(prompt.sum() + output.sum())
    metrics = {
        "request_totals": {"successful": int(ok.sum()), "incomplete": 0, "errored": int((~ok).sum()), "total": len(ok)},
        "requests_per_second": rate(float(ok.sum())),
        "request_concurrency": rate(float(e2e.sum())),
        "request_latency": successful(_guidellm_summary(e2e)),
        "prompt_token_count": successful(_guidellm_summary(prompt)),
        "output_token_count": successful(_guidellm_summary(output)),
        "total_token_count": successful(_guidellm_summary(prompt + output)),
        "time_to_first_token_ms": successful(_guidellm_summary(facts.ttft[ok] * 1e3)),
        "time_per_output_token_ms": successful(_guidellm_summary(per_token, output)),
        "inter_token_latency_ms": successful(_guidellm_summary(facts.tpot[ok] * 1e3, output - 1)),
        "prompt_tokens_per_second": rate(float(prompt.sum())),
        "output_tokens_per_second": rate(float(output.sum())),
        "tokens_per_second": rate(total),
    }
    window = {"start_time": facts.base.start_s, "end_time": facts.base.end_s, "duration": facts.base.length_s}
    return {"benchmarks": [{**window, "metrics": metrics}]}


def _guidellm_table(facts: Facts, colour: bool) -> str:
    metrics = _guidellm(facts)["benchmarks"][0]["metrics"]
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


# --- multi-round-qa ----------------------------------------------------------------------------


def multi_round_qa_rows(facts: Facts) -> pd.DataFrame:
    """The tool's CSV: one row a finished request. question_id counts the requests that a user really sent."""
    requests = facts.run.requests.iloc[facts.rows][facts.ok]
    users = requests["session_id"].to_numpy(np.int64)
    return pd.DataFrame(
        {
            "prompt_tokens": requests["prompt_tokens"].to_numpy(np.int64),
            "generation_tokens": requests["output_tokens"].to_numpy(np.int64),
            "ttft": facts.ttft[facts.ok],
            "generation_time": (facts.finish - facts.first_token)[facts.ok],
            "user_id": users,
            "question_id": pd.Series(users).groupby(users).cumcount().to_numpy(np.int64) + 1,
            "launch_time": facts.arrival[facts.ok],
            "finish_time": facts.finish[facts.ok],
        }
    )


@dataclass(frozen=True, slots=True)
class QaSummary:
    """The figures of the tool's performance summary. `qps` is the configured rate, never a measurement."""

    qps: float
    processing_speed: float
    pending: int
    input_tokens_s: float
    output_tokens_s: float
    generation_speed: float  # mean over requests of tokens / generation time
    ttft_s: float
    start_s: float
    end_s: float


def multi_round_qa_summary(rows: pd.DataFrame, qps: float = 0.0) -> QaSummary:
    """The figures from the tool's CSV columns: from the first launch to the last finish, as it recomputes them."""
    start, end = float(rows["launch_time"].min()), float(rows["finish_time"].max())
    seconds = end - start
    with np.errstate(divide="ignore"):
        speed = rows["generation_tokens"].to_numpy(np.float64) / rows["generation_time"].to_numpy(np.float64)
    return QaSummary(
        qps=qps,
        processing_speed=len(rows) / seconds,
        pending=0,
        input_tokens_s=float(rows["prompt_tokens"].sum()) / seconds,
        output_tokens_s=float(rows["generation_tokens"].sum()) / seconds,
        generation_speed=float(speed.mean()),
        ttft_s=float(rows["ttft"].mean()),
        start_s=start,
        end_s=end,
    )


def multi_round_qa_csv(path: Path) -> str:
    """The summary of a CSV that the tool wrote (its --process-summary). Raises SpecError for another file."""
    rows = pd.read_csv(path)
    wanted = ["prompt_tokens", "generation_tokens", "ttft", "generation_time", "launch_time", "finish_time"]
    missing = [column for column in wanted if column not in rows]
    if missing:
        raise SpecError(
            f"{path}: column {missing[0]} is missing; allowed: a CSV of multi-round-qa ({', '.join(wanted)})"
        )
    if rows.empty:
        raise SpecError(f"{path}: holds no requests; allowed: at least one row")
    return _qa_text(multi_round_qa_summary(rows), colour=False)


def _qa_summary(facts: Facts) -> QaSummary:
    if not facts.ok.any():
        raise SpecError("--table multi-round-qa: no request finished; allowed: a run with at least one")
    workload = _workload(facts)
    return multi_round_qa_summary(multi_round_qa_rows(facts), float(workload.get("qps", workload.get("rate", 0.0))))


def _qa_text(found: QaSummary, colour: bool) -> str:
    """The tool's lines, blank ones included; its colours only where they can be seen."""
    yellow, green, plain = ("\033[33m", "\033[32m", "\033[0m") if colour else ("", "", "")
    figures = (
        ("QPS", f"{found.qps:.4f} reqs/s"),
        ("Processing speed", f"{found.processing_speed:.4f} reqs/s"),
        ("Requests on-the-fly", f"{found.pending}"),
        ("Input tokens per second", f"{found.input_tokens_s:.4f} tokens/s"),
        ("Output tokens per second", f"{found.output_tokens_s:.4f} tokens/s"),
        ("Average generation throughput (per request)", f"{found.generation_speed:.4f} tokens/req/s"),
        ("Average TTFT", f"{found.ttft_s:.4f}s"),
    )
    lines = ["", "", "=" * 20 + " Performance summary " + "=" * 22]
    for label, figure in figures:
        # the count of pending requests has no green of its own
        lines += [f"  {yellow}{label}: {'' if label.startswith('Requests') else green}{figure}{plain}", ""]
    lines.append(f"Time range: {found.start_s} - {found.end_s} ({found.end_s - found.start_s:.2f}s)")
    return "\n".join([*lines, "=" * 63, "", ""])


def _qa_json(facts: Facts) -> dict[str, Any]:
    found = _qa_summary(facts)
    return {
        "qps": found.qps,
        "processing_speed": found.processing_speed,
        "requests_on_the_fly": found.pending,
        "input_tokens_per_second": found.input_tokens_s,
        "output_tokens_per_second": found.output_tokens_s,
        "average_generation_throughput": found.generation_speed,
        "average_ttft": found.ttft_s,
        "time_range": [found.start_s, found.end_s],
        "requests": multi_round_qa_rows(facts).to_dict(orient="records"),
    }


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("vllm", _vllm_table, _vllm),
        Dialect("aiperf", _aiperf_table, _aiperf),
        Dialect("guidellm", _guidellm_table, _guidellm),
        Dialect("multi-round-qa", lambda facts, colour: _qa_text(_qa_summary(facts), colour), _qa_json),
    )
}
