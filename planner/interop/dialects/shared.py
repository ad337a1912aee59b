"""What several dialects need."""

from __future__ import annotations

from typing import Any

from planner.run.facts import Facts


def rate(amount: float, facts: Facts) -> float:
    """Per second of the time base, first send to last finish, as all the tools have it."""
    return amount / facts.base.length_s if facts.base.length_s > 0 else 0.0


def workload(facts: Facts) -> dict[str, Any]:
    """The spec's workload section."""
    found: dict[str, Any] = facts.spec.get("workload") or {}
    return found
