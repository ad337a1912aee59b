"""Every shipped deployment runs; its prediction is on record, and obeys what any prediction must."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden import CONFIGS, page, summary
from planner import load
from planner.system.resolve import resolve

PAIRS = [
    ("agg", "disagg"),
    ("long-context", "long-context-disagg"),
    ("multi-turn", "multi-turn-disagg"),
    ("rag", "rag-disagg"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_prediction_is_the_recorded_one(config: Path) -> None:
    now = summary(config)
    assert page(config).is_file(), "no record yet: python tests/golden.py"
    then = json.loads(page(config).read_text())
    assert now.keys() == then.keys()
    for name, value in then.items():
        if isinstance(value, float):
            assert now[name] == pytest.approx(value, rel=1e-4), f"{name}: python tests/golden.py, and say why it moved"
        else:
            assert now[name] == value, f"{name}: python tests/golden.py, and say why it moved"
    assert now["completed"] > 0
    assert now["rejected"] == now["failed"] == 0


@pytest.mark.parametrize(("aggregated", "split"), PAIRS)
def test_pairs_are_fair(aggregated: str, split: str) -> None:
    """The aggregated deployment of a pair has as many GPUs, the same traffic and the same targets."""
    one, other = load(aggregated), load(split)
    assert resolve(one).gpus == resolve(other).gpus
    assert (one.workload, one.slo, one.engine) == (other.workload, other.slo, other.engine)
