"""Summaries of every shipped config, so that a change in predictions shows in review.

`python tests/test_golden.py` writes them anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from planner import simulate
from planner.metrics import summarise

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
CONFIGS = sorted(path for path in (ROOT / "configs").glob("**/*.yaml") if "deployment:" in path.read_text())


def rounded(value: Any) -> Any:
    """Six digits: enough to see any change of substance, few enough to survive another libm."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def summary(config: Path) -> dict[str, Any]:
    result: dict[str, Any] = rounded(summarise(simulate(config)).to_dict())
    return result


def name(config: Path) -> str:
    return "-".join(config.relative_to(ROOT / "configs").with_suffix("").parts)


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_summary_is_as_reviewed(config: Path) -> None:
    expected = json.loads((GOLDEN / f"{name(config)}.json").read_text())
    assert json.loads(json.dumps(summary(config))) == expected


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {name(config) for config in CONFIGS}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for stale in GOLDEN.glob("*.json"):
        stale.unlink()
    for config in CONFIGS:
        (GOLDEN / f"{name(config)}.json").write_text(json.dumps(summary(config), indent=1) + "\n")
