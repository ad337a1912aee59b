"""Loads at budgets of 512 to 8,192 tokens, and in CUDA graphs of 1,024 rows, that one H200 served: in no fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

GPU = Path(__file__).parent.parent / "benchmarks" / "gpu"
sys.path.insert(0, str(GPU))

import edges  # noqa: E402


def judged(plan: str) -> dict[str, Any]:
    parts = {name: part for name, part in yaml.safe_load((GPU / plan).read_text()).items() if "loads" in part}
    found = edges.judge(parts, GPU.parent / "data" / "h200-budgets")
    return {f"{name}/{key}": one for name, rows in found.items() for key, one in rows.items()}


def test_small_budgets_take_as_long_as_they_took() -> None:
    """By one line for all lengths TPOT p50 was up to 43 % too long, and a budget of 512 came out last."""
    found = judged("budgets.yaml")
    assert len(found) == 16
    off = {key: one["predicted"]["tpot_p50_ms"] / one["measured"]["tpot_p50_ms"] - 1 for key, one in found.items()}
    assert all(abs(value) < 0.1 for key, value in off.items() if "short" not in key), off
    assert all(-0.05 < value < 0.3 for key, value in off.items() if "short" in key), off  # they wait for launches
    for of in ("measured", "predicted"):  # tokens come soonest with the smallest budget, first tokens with the largest
        small, large = (found[f"budget-{size}/long-9"][of] for size in (512, 8192))
        assert small["tpot_p50_ms"] < large["tpot_p50_ms"]
        assert small["ttft_p50_ms"] > large["ttft_p50_ms"]


def test_a_roofline_of_a_larger_model_is_near_at_a_small_budget() -> None:
    found = judged("budgets-32b.yaml")
    assert {key.partition("/")[2] for key in found} == {"long-1.8", "short-6"}
    for key, one in found.items():
        assert one["predicted"]["tpot_p50_ms"] == pytest.approx(one["measured"]["tpot_p50_ms"], rel=0.15), key
