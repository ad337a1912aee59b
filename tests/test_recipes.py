"""The recipes of CONTRIBUTING.md, followed: what they name exists, and a new thing of each kind works from then on."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from hand_made import requests, run
from planner import load, simulate, summarise
from planner.engine import law
from planner.engine.families import family
from planner.routing import POLICIES
from planner.run.catalogue import METRICS, Metric
from planner.system.resolve import resolve
from planner.traffic import trace_scan
from planner.traffic.formats import FORMATS, Format
from planner.traffic.rows import Rows, TraceRequest, tokens
from planner.traffic.trace_files import TraceSource
from planner.traffic.traces import read

ROOT = Path(__file__).resolve().parent.parent
RECIPES = (ROOT / "CONTRIBUTING.md").read_text().partition("## Recipes")[2].partition("## Changes")[0]


def definitions() -> set[str]:
    """Names that modules of the product define at their outermost level."""
    found = set()
    for folder in ("planner", "simulator", "live"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
                found |= {getattr(node, "name", "")}
    return found


def test_files_and_names_of_the_recipes_exist() -> None:
    words = set(re.findall(r"`([^`\s]+)`", RECIPES))
    files = {word for word in words if "/" in word and "<" not in word}
    assert len(files) > 10
    assert [file for file in files if not (ROOT / file).exists()] == []
    names = {word for word in words if re.fullmatch(r"[A-Z][A-Za-z_]*", word)}
    assert {"POLICIES", "FORMATS", "StepLaw", "Term"} <= names
    assert names - definitions() == set()


def test_a_routing_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "always_last", lambda query, workers, state: len(workers) - 1)
    spec = load("agg", ["deployment.replicas=2", "workload.requests=20", "deployment.router.policy=always_last"])
    assert set(simulate(spec).requests["worker"]) == {"aggregated-1"}


def test_a_trace_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pairs(source: TraceSource, block_tokens: int) -> Rows:
        for line, text in source.lines():
            prompt, output = text.split()
            yield line, TraceRequest(float(line), tokens({"in": prompt}, "in"), tokens({"out": output}, "out"))

    monkeypatch.setitem(FORMATS, "pairs", Format(pairs, 512))
    monkeypatch.setattr(trace_scan, "recognised", lambda head: "pairs")
    path = tmp_path / "trace.txt"
    path.write_text("3 4\n5 6\n")
    trace = read(path)
    assert (trace.format, [row.prompt_tokens for row in trace.requests]) == ("pairs", [3, 5])


def test_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = Metric("longest", "Longest", "tokens", "none", "Most answer tokens.", lambda facts: 7.0)
    monkeypatch.setitem(METRICS, "longest", longest)
    assert summarise(run(requests([0.0, 1.0], [0.1, 0.1])))["longest"] == 7.0


def test_a_term_of_the_step_law() -> None:
    """A field of the law is never without its term."""
    assert "decode_per_seq_s" in law.StepLaw.model_fields
    for name, field in law.StepLaw.model_fields.items():
        terms = [item for item in field.metadata if isinstance(item, law.Term)]
        assert terms, name


def test_a_gpu(tmp_path: Path) -> None:
    file = yaml.safe_load((ROOT / "configs" / "hardware" / "l4.yaml").read_text())
    path = tmp_path / "l5.yaml"
    path.write_text(yaml.safe_dump(file | {"name": "l5", "title": "NVIDIA L5", "memory_gb": 80, "memory_mib": 80000}))
    spec = load("agg", [f"hardware={path}", "profile=null", "workload.requests=5"])
    assert summarise(simulate(spec)).provenance == "simulated"


def test_a_model(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "configs" / "models" / "llama-3.1-8b.yaml").read_text())
    (tmp_path / "config.json").write_text(json.dumps(shipped["config"] | {"num_hidden_layers": 16}))
    spec = load("agg", [f"model={tmp_path}", "workload.requests=5"])
    assert resolve(spec).model.layers == 16
    assert family("llama") is not None
    assert family("no-such-type") is None


def test_a_link(tmp_path: Path) -> None:
    path = tmp_path / "pigeon.yaml"
    path.write_text("name: pigeon\nbandwidth_gb_s: 7\nlatency_us: 5\nsetup_us: 6\nsource: a test\n")
    spec = load("disagg", [f"deployment.link.preset={path}", "workload.requests=5"])
    assert (simulate(spec).transfers["link"] == "pigeon").all()
