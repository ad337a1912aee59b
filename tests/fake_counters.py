"""vLLM's counters as engines would have shown them, made of requests whose times are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from planner.watching.scrape import Round, Scrape

GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
BOUNDS: dict[str, tuple[float, ...]] = {
    "vllm:time_to_first_token_seconds": (0.001, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10),
    "vllm:inter_token_latency_seconds": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5),
    "vllm:request_time_per_output_token_seconds": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1),
    "vllm:e2e_request_latency_seconds": (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60),
    "vllm:request_prompt_tokens": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000),
    "vllm:request_generation_tokens": (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
}


def counted(name: str, values: np.ndarray[Any, Any]) -> dict[str, float]:
    """A histogram's samples."""
    found = {f"{name}_sum": float(values.sum()), f"{name}_count": float(len(values))}
    return found | {
        f"{name}_bucket[{bound}]": float((values <= float(bound)).sum())
        for bound in (*map(float, BOUNDS[name]), "+Inf")
    }


def exposition(values: dict[str, float]) -> str:
    """The same in Prometheus' text format."""
    lines = []
    for name, value in values.items():
        base, _, label = name.partition("[")
        said = "" if not label else f',le="{label[:-1]}"' if base.endswith("_bucket") else f',source="{label[:-1]}"'
        lines.append(f'{base}{{engine="0",model_name="fake"{said}}} {value}')
    return "\n".join(lines) + "\n"


def counters(table: pd.DataFrame, until_s: float) -> dict[str, float]:
    """What one engine that served these requests (columns of planner.run.tables) has counted at `until_s`."""
    begun = table[table["first_token_s"] <= until_s]
    ended = table[table["finish_s"] <= until_s]
    tokens = ended["output_tokens"].to_numpy(float)
    tpot = ((ended["finish_s"] - ended["first_token_s"]).to_numpy() / np.maximum(tokens - 1, 1))[tokens > 1]
    inside = int((table["arrival_s"] <= until_s).sum()) - len(ended)
    span = np.maximum((begun["finish_s"] - begun["first_token_s"]).to_numpy(), 1e-9)
    share = np.clip((until_s - begun["first_token_s"].to_numpy()) / span, 0, 1)
    made = len(begun) + (share * (begun["output_tokens"].to_numpy(float) - 1)).sum()
    prompts = begun["prompt_tokens"].to_numpy(float)
    return {
        "vllm:num_requests_running": float(inside),
        "vllm:num_requests_waiting": 0.0,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:generation_tokens_total": float(round(made)),
        "vllm:prompt_tokens_total": float(prompts.sum()),
        **counted("vllm:time_to_first_token_seconds", (begun["first_token_s"] - begun["arrival_s"]).to_numpy()),
        **counted("vllm:request_time_per_output_token_seconds", tpot),
        **counted(
            "vllm:inter_token_latency_seconds", np.repeat(tpot, np.maximum(tokens[tokens > 1] - 1, 0).astype(int))
        ),
        **counted("vllm:e2e_request_latency_seconds", (ended["finish_s"] - ended["arrival_s"]).to_numpy()),
        **counted("vllm:request_prompt_tokens", ended["prompt_tokens"].to_numpy(float)),
        **counted("vllm:request_generation_tokens", tokens),
    }


def rounds(table: pd.DataFrame, every_s: float, start_unix_s: float = 1e9) -> list[Round]:
    """One engine's rounds, from the first request to the last whole interval."""
    count = int(table["finish_s"].max() // every_s)
    return [
        Round(start_unix_s + at * every_s, (Scrape(start_unix_s + at * every_s, "aggregated-0", "aggregated",
                                                   counters(table, at * every_s)),))
        for at in range(count + 1)
    ]  # fmt: skip


def pair(prefill: dict[str, float], decode: dict[str, float], seconds: float = 60.0) -> Sequence[Round]:
    """Two rounds of a pair whose counters grew by these from nothing; gauges are those of the second."""

    def scrape(at: float, engine: str, values: dict[str, float]) -> Scrape:
        return Scrape(at, f"{engine}-0", engine, values)  # type: ignore[arg-type]

    empty = [dict.fromkeys(values, 0.0) for values in (prefill, decode)]
    return [
        Round(at, (scrape(at, "prefill", one), scrape(at, "decode", two)))
        for at, one, two in ((0.0, *empty), (seconds, prefill, decode))
    ]
