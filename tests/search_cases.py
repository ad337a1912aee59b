"""What tests of `planner suggest` share: a small question, and a deployment whose highest rate is known."""

from __future__ import annotations

import planner
from planner.spec import Spec
from planner.suggestion.search import Probe

EARLIER = "profile=h200-llama-3.1-8b-tp1"  # one whose budgets matter at these targets
SMALL = ["workload.requests=150", "slo.ttft_ms=1000"]


def spec(*more: str) -> Spec:
    return planner.load("disagg", [*SMALL, EARLIER, *more])


def threshold(limit: float, rate: float) -> Probe:
    """A run that passes up to `limit`."""
    return Probe(rate, rate <= limit, 1.0, rate, 0.0, 0.0, 0.0, False)
