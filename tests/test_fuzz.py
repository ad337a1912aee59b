"""Some of what `benchmarks/fuzz.py` tries, and the limits that it led to."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from planner import cli
from planner.spec import SpecError, parse
from planner.traffic.workload import build


@pytest.fixture(scope="module")
def fuzz(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", root / "benchmarks" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "cases"),
    [("traces", 180), ("runs", 100), ("import", 80), ("spec", 60), ("checkpoints", 40), ("catalogues", 40)],
)
def test_hostile_input_gets_one_line(fuzz: ModuleType, kind: str, cases: int) -> None:
    tally = fuzz.fuzz(cases, [kind], 1)
    assert tally.tried[kind] >= cases // 2
    codes = {code for name, code in tally.codes if name == kind}
    assert 2 in codes, "some are refused"
    assert codes <= {0, 1, 2}
    faults = [(fault, case.words, case.files) for case, fault in tally.faults.get(kind, [])]
    assert not faults, faults[0]


def test_a_fault_is_seen(fuzz: ModuleType) -> None:
    """The judge itself: exit codes, tracebacks, lines and JSON."""
    case = fuzz.Case("spec", ("simulate", "x", "--json"))

    def outcome(code: int, out: str = "{}", err: str = "planner: no", size: int = 0) -> object:
        return fuzz.Outcome(code, 0.1, size, out, err)

    assert fuzz.judge(case, outcome(2)) is None
    assert fuzz.judge(case, outcome(0, '{"a": 1}', "")) is None
    assert "NaN" in fuzz.judge(case, outcome(0, '{"a": NaN}', ""))
    assert "exit code 1" in fuzz.judge(case, outcome(1))
    assert "2 lines" in fuzz.judge(case, outcome(2, "", "planner: a\nb"))
    assert "characters" in fuzz.judge(case, outcome(2, "", "planner: " + "a" * 5000))
    assert "traceback" in fuzz.judge(case, outcome(2, "", "Traceback (most recent call last)\nKeyError: 1"))
    assert "GiB" in fuzz.judge(case, outcome(0, "{}", "", 5 * 2**30))
    assert "signal 9" in fuzz.judge(case, outcome(-9))


def test_idle_time_costs_nothing() -> None:
    """Views that are renewed every 10 ms, over half a year in which twenty requests come."""
    text = (
        "{schema: 1, name: a, deployment: {mode: aggregated, replicas: 2, router: {state_age_s: 0.01}},"
        " workload: {kind: constant, rate: 0.000001, requests: 20}, run: {sample_interval_s: 1000}}"
    )
    import planner

    begun = time.process_time()
    run = planner.simulate(parse(text))
    assert time.process_time() - begun < 10
    assert (run.requests["finish_reason"] == "length").all()


def test_two_periodic_looks_do_not_keep_each_other_going() -> None:
    """Both pools' views, and workers that change roles: the run ends with its requests."""
    text = (
        "{schema: 1, name: a, deployment: {mode: disaggregated, prefill: {replicas: 2, router: {state_age_s: 0.5}},"
        " decode: {replicas: 2, router: {state_age_s: 0.5}}}, optimizations: {separation: {role_switch: {}}},"
        " workload: {kind: poisson, rate: 2, requests: 20}}"
    )
    import planner

    assert (planner.simulate(parse(text)).requests["finish_reason"] == "length").all()


def test_turns_have_a_limit() -> None:
    text = (
        "{schema: 1, name: a, deployment: {mode: aggregated},"
        " workload: {kind: sessions, rate: 1, sessions: 1000, turns: 10000}}"
    )
    with pytest.raises(SpecError, match=r"^workload\.turns: 10000000 turns in 1000 sessions; allowed: 2000000 in all"):
        build(parse(text))


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "agg", "--set", "workload.requests=" + "9" * 400],
        ["simulate", "agg", "--set", "model=" + "m" * 5000],
        ["simulate", "x" * 5000],
        ["simulate", "agg", "--set", "name=" + "n" * 90_000],
        ["simulate", "agg", "--set", "workload.rate=1e308", "--set", "workload.requests=1e308"],
        ["simulate", "rag", "--set", "retrieval.rerank_ms=1e300", "--no-save"],
        ["simulate", "rag", "--set", "retrieval.workers=2147483648", "--no-save"],
        ["simulate", "rag", "--set", "retrieval.service_cv=1e308", "--no-save"],
        ["simulate", "agg", "--set", "deployment.replicas=1000000000"],
        ["simulate", "agg", "--set", "deployment.router.state_age_s=1e-9"],
        ["simulate", "multi-round-qa", "--set", "workload.num_users=1e12"],
        ["replay", "/proc/self/mem"],
        ["trace", "x" * 5000],
        ["trace", "/dev/null"],
        ["replay", "traces/chat_azure.csv", "--speedup", "1e-12"],
    ],
)
def test_what_was_found_before_stays_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    code = cli.run(words)
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("simulate:")]
    assert code in (0, 2)
    assert len(said) <= 1
    assert all(len(line) < 1500 for line in said)
