"""Kinds of traffic that the benchmarks of this folder ask about, by name, and the targets that go with them."""

from __future__ import annotations

from typing import Any

TRAFFIC: dict[str, dict[str, Any]] = {
    "3000/100": {"kind": "poisson", "prompt_tokens": 3000, "output_tokens": 100},
    "8000/100": {"kind": "poisson", "prompt_tokens": 8000, "output_tokens": 100},
    "8000/200": {"kind": "poisson", "prompt_tokens": 8000, "output_tokens": 200},
    "512/256": {"kind": "poisson", "prompt_tokens": 512, "output_tokens": 256},
    "chat": {
        "kind": "poisson",
        "prompt_tokens": {"kind": "lognormal", "mean": 1200, "sigma": 1.0, "max": 12000},
        "output_tokens": {"kind": "lognormal", "mean": 220, "sigma": 0.8, "max": 1500},
    },
    "page's chat": {  # what the browser sends for its card: planner/ui/scenario.py
        "kind": "poisson",
        "prompt_tokens": {"kind": "lognormal", "mean": 1155, "sigma": 0.9, "max": 9240},
        "output_tokens": {"kind": "lognormal", "mean": 211, "sigma": 0.9, "max": 1688},
    },
    "bursts": {"kind": "gamma", "burstiness": 0.25, "prompt_tokens": 2048, "output_tokens": 64},
    "agents": {
        "kind": "sessions",
        "rate": 1,
        "turns": 6,
        "think_time_s": {"kind": "lognormal", "mean": 1.5, "sigma": 0.8},
        "system_tokens": 3000,
        "prompt_tokens": {"kind": "lognormal", "mean": 900, "sigma": 0.9, "max": 8000},
        "output_tokens": {"kind": "lognormal", "mean": 120, "sigma": 0.7, "max": 1000},
    },
}
