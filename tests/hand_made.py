"""Runs written by hand, whose metrics can be worked out on paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from planner.run.tables import Run, frame


def manifest(mode: str = "aggregated", provenance: str = "calibrated", **spec: Any) -> dict[str, Any]:
    roles = {"aggregated-0": "aggregated"} if mode == "aggregated" else {"prefill-0": "prefill", "decode-0": "decode"}
    return {
        "spec": {"name": "hand-made", "hardware": "h200", "deployment": {"mode": mode}, **spec},
        "gpus": len(roles),
        "gpus_by_role": dict.fromkeys(roles.values(), 1),
        "workers": roles,
        "provenance": provenance,
        "profile": "h200-llama-3.1-8b-tp1",
        "seed": 0,
        "links": {} if mode == "aggregated" else {"wire": 1e9},
        "warnings": [],
    }


def requests(arrival: Sequence[float], ttft: Sequence[float], tpot: float = 0.01, tokens: int = 11, **more: Any) -> Any:
    """Requests of 100 prompt tokens. The first token comes `ttft` after the arrival, the others `tpot` apart."""
    send = np.asarray(arrival, dtype=float)
    first = send + np.asarray(ttft, dtype=float)
    n = len(send)
    columns: dict[str, Any] = {
        "request_id": np.arange(n),
        "session_id": np.arange(n),
        "arrival_s": send,
        "prompt_tokens": np.full(n, 100),
        "cached_tokens": np.zeros(n, dtype=int),
        "output_tokens": np.full(n, tokens),
        "max_tokens": np.full(n, tokens),
        "worker": ["aggregated-0"] * n,
        "decode_worker": ["aggregated-0"] * n,
        "queued_s": send,
        "prefill_start_s": send,
        "prefill_end_s": first,
        "decode_start_s": first,
        "first_token_s": first,
        "finish_s": first + tpot * (tokens - 1),
        "preemptions": np.zeros(n, dtype=int),
        "finish_reason": ["length"] * n,
    }
    return frame("requests", {**columns, **more})


def steps(rows: Sequence[dict[str, Any]]) -> Any:
    """Steps from dicts; what is left out is 0, `count` 1, the worker aggregated-0."""
    usual = {
        "worker": "aggregated-0", "start_s": 0.0, "duration_s": 0.0, "prefill_tokens": 0, "decode_seqs": 0,
        "context_tokens": 0, "count": 1, "growth_s": 0.0, "running": 0, "waiting": 0, "kv_used_fraction": 0.0,
    }  # fmt: skip
    full = [{**usual, **row} for row in rows]
    return frame("steps", {name: [row[name] for row in full] for name in usual} if full else None)


def run(table: Any, step_rows: Sequence[dict[str, Any]] = (), transfers: Any = None, **spec: Any) -> Run:
    mode = spec.pop("mode", "aggregated")
    moved = frame("transfers", transfers)
    return Run(table, steps(step_rows), frame("samples"), moved, manifest=manifest(mode, **spec))
