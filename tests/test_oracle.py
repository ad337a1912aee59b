"""The engine against vLLM's own scheduler: decisions step by step, recorded by benchmarks/record_oracle.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_cases import named_cases
from engine_replay import Case, replay

FOLDER = Path(__file__).parent / "data" / "oracle"
CASES = sorted(FOLDER.glob("*.jsonl.gz"))


def test_every_named_case_is_recorded_as_it_is_now() -> None:
    recorded = {path.name.removesuffix(".jsonl.gz"): Case.load(path) for path in CASES}
    named = {case.name: case for case in named_cases()}
    assert set(recorded) == set(named)
    for name, case in named.items():
        assert recorded[name].limits == case.limits
        assert recorded[name].jobs == case.jobs
        assert recorded[name].decisions


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".jsonl.gz"))
def test_every_step_is_vllms(path: Path) -> None:
    """Prefill chunks, decodes, context, running, waiting, free blocks and preemptions of each step, and each end."""
    case = Case.load(path)
    again = replay(case)
    for index, (theirs, ours) in enumerate(zip(case.decisions, again.decisions, strict=False)):
        assert ours == theirs, f"step {index}"
    assert len(again.decisions) == len(case.decisions)
    assert again.ends.keys() == case.ends.keys()
    for key, (time_s, cached, preemptions) in case.ends.items():
        assert again.ends[key] == (pytest.approx(time_s, abs=1e-9), cached, preemptions)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".jsonl.gz"))
def test_fast_forward_ends_alike(path: Path) -> None:
    case = Case.load(path)
    again = replay(case, fast_forward=True)
    for key, (time_s, cached, preemptions) in case.ends.items():
        assert again.ends[key] == (pytest.approx(time_s, abs=1e-9), cached, preemptions)
