"""The quick search says what the exhaustive one says (benchmarks/parity.py asks forty questions; here two)."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path

import pytest

from planner.suggestion import suggest


@pytest.mark.parametrize("number", [0, 4])  # 3000/100 and 8000/100 on two GPUs, loose
def test_a_verdict_is_that_of_the_exhaustive_search(number: int, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.syspath_prepend(root / "benchmarks")
    ours = importlib.import_module("parity")
    _, spec = list(ours.questions())[number]
    said = []
    for way in (ExitStack, ours.exhaustive):
        with ours.without_changes(), way():
            said.append(ours.told(suggest.suggest(spec, 2, seeds=2, requests=150, processes=1), 0.0))
    assert said[0]["word"] == said[1]["word"]
    assert said[0]["splits"] == said[1]["splits"]
    (_, low, high), (value, _, _) = said[0]["ratio"], said[1]["ratio"]
    assert low <= value <= high
