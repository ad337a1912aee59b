"""Users who type nonsense, upload it, or delete files under a page: one line in their language, never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from planner.spec import dump, load
from planner.suggestion import curves
from planner.ui import jobs, uploads
from ui_pages import page, small_machine  # noqa: F401 (small_machine is a fixture of every test here)

ENGLISH = re.compile(
    r"\b(is|are|the|allowed|must|unknown key|missing|numbers|a section|up to|no such file|not valid|cannot|of)\b"
)


def line(app: AppTest, language: str, what: object = "") -> str:
    """The one error that the page shows."""
    assert not app.exception, (what, [one.message for one in app.exception])
    assert len(app.error) == 1, (what, [one.value for one in app.error])
    text = str(app.error[0].value)
    assert text.strip(), what
    assert "\n" not in text, what
    assert len(text) < 600, text
    assert "Traceback" not in text
    assert "Errno" not in text
    if language == "zh":
        assert re.search("[\u4e00-\u9fff]", text), text
        # what PyYAML, JSON and the like say stands in brackets; names and values between quotes
        plain = re.sub(r"\S*/\S*", "", re.sub(r"（.*）", "", text))
        plain = re.sub(r"\(.*?\)|'.*?'|\".*?\"|`.*?`", "", plain)
        assert not ENGLISH.search(plain), text
    return text


EXTRA = (
    "engine.max_num_seq=3", "=", "nonsense", "a.b", "workload.requests=1000000000", "workload.rate=1e-9",
    "workload.rate=0",
    "workload.rate=.inf", "workload.prompt_tokens=-1", "slo.attainment=2",
    "model=''", "model=gpt-99", "hardware=abacus", "profile=nobody", "deployment.prefill.replicas=100000",
    "engine.gpu_memory_utilization=0.01", "workload.kind=concurrency",
    "workload.path=/nowhere",
    "deployment.router.policy=best", "deployment.link.bandwidth_gb_s=0", "run.seed=x", "name=[", "retrieval=7",
)  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("extra", EXTRA)
def test_absurd_keys(extra: str, language: str) -> None:
    """Said on Ask where the key itself is wrong, at the latest on Answer."""
    app = page("ask", lang=language)
    app.text_area(key="ask_extra").set_value(extra)
    app.run()
    if not app.error:
        app = page("answer", lang=language, extra=extra)
    line(app, language, extra)


@pytest.mark.parametrize(
    "params",
    [
        {"extra": "workload.prompt_tokens=1000000"}, {"extra": "engine.max_model_len=8"}, {"rate": "100000"},
        {"rate": "0.01"}, {"prompt": "128000", "output": "16000"},
        {"attainment": "100"},
        {"gpus": "1", "traffic": "writing"}, {"hardware": "cpu"},
        {"model": "qwen3-1.7b", "hardware": "l4"},
    ],
    ids=str,
)  # fmt: skip
def test_extreme_questions_are_answered_or_refused_in_a_line(params: dict[str, str]) -> None:
    app = page("answer", **params)
    assert not app.exception, [one.message for one in app.exception]
    if app.error:
        line(app, "en", params)
    else:
        assert re.search("GPU|req/s", app.subheader[0].value)


TEXTS = (
    "", "   ", "a: [", "name: x\nname: y", "[]", "42", "\tname: x", "model: ''", "hardware: 7", "&a [*a]",
    "x: !!python/object/apply:os.system [ls]", "workload: {kind: poisson, requests: 1000000000}",
    "workload: {kind: poisson, rate: 1.0e-8}", "deployment: {mode: aggregated, replicas: 100000}", "model: deepseek-v3",
    "workload: {kind: trace, path: /etc/passwd}", "workload: {kind: trace, path: ''}", "? [a]\n: b", "name: .nan",
    "[" * 400, "slo: {ttft_ms: -1}", "run: {sample_interval_s: 1.0e-9}", "workload: {kind: none}", "modle: y",
    "deployment: {mode: disaggregated, prefill: {tp: 3}}", "deployment: 7", "workload: {kind: rag, rate: 1}",
)  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
def test_broken_yaml_in_the_workbench(language: str) -> None:
    app = page("workbench", lang=language)
    for text in (
        one if ":" not in one or one.startswith(("name", "x:", "modle")) else f"name: x\n{one}" for one in TEXTS
    ):
        app.text_area(key="bench_text").set_value(text)
        app.run()
        line(app, language, text)
    app.text_area(key="bench_text").set_value(dump(load()))
    app.run()
    assert not app.error


@pytest.mark.parametrize("language", ["en", "zh"])
def test_absurd_sweeps(language: str) -> None:
    app = page("workbench", lang=language)
    app.segmented_control(key="bench_view").set_value("Sweep")
    app.run()
    for key, values in (
        ("", "1, 2"), ("workload.rate", ",,"), ("workload.rate", "a, b"), ("nonsense", "1"), ("model", "x"),
        ("workload.requests", "1e12"), ("workload.rate", ",".join(map(str, range(1, 60)))), ("workload.rate.x", "1"),
    ):  # fmt: skip
        app.text_input(key="bench_key").set_value(key)
        app.text_input(key="bench_values").set_value(values)
        app.run()
        line(app, language, (key, values))


TRACES: dict[str, bytes] = {
    "empty.jsonl": b"",
    "blank.jsonl": b"\n\n  \n",
    "binary.jsonl": bytes(range(256)),
    "columns.csv": b"when,what\n1,2\n",
    "header.csv": b"TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "cells.csv": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,3\n",
    "dates.csv": b"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,3,4\n",
    "types.jsonl": b'{"timestamp": 0, "input_length": "many", "output_length": 3, "hash_ids": []}\n',
    "negative.jsonl": b'{"timestamp": -5, "input_length": 8, "output_length": 3, "hash_ids": []}\n',
    "half.jsonl": b'{"timestamp": 0, "input_length": 8, "output_',
    "object.json": b"{}",
    "list.json": b"[1, 2]",
    "broken.jsonl.gz": gzip.compress(b"x" * 100)[:20],
    "cut.jsonl": b"{",
}
HUGE = b'{"timestamp": 0, "input_length": 100000000, "output_length": 3, "hash_ids": []}\n'


@pytest.mark.parametrize("language", ["en", "zh"])
def test_traces_that_are_none(language: str) -> None:
    names = {name: uploads.stored(name, data) for name, data in TRACES.items()}
    for name, kept in names.items():
        line(page("replay", lang=language, traffic="trace", trace=kept), language, name)
    asked = page("answer", lang=language, traffic="trace", trace=names["types.jsonl"])
    line(asked, language)


def test_one_request_is_a_trace() -> None:
    data = b'{"timestamp": 0, "input_length": 8, "output_length": 3, "hash_ids": [1]}\n'
    app = page("replay", traffic="trace", trace=uploads.stored("one.jsonl", data))
    assert not app.exception
    assert not app.error


def test_a_trace_that_has_gone() -> None:
    name = uploads.stored("mine.jsonl", HUGE)
    app = page("replay", traffic="trace", trace=name)
    (uploads.UPLOADS / name).unlink()
    app.run()
    assert not app.exception


# --- run folders that go, or hold something else -----------------------------------------------


def _runs(folder: Path) -> None:
    for name in ("first", "second"):
        curves.simulated(load(), None, 30).save(folder / "runs" / name)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_run_folders_that_are_broken_or_go(tmp_path: Path, language: str) -> None:
    _runs(tmp_path)
    app = page("workbench", lang=language)
    app.segmented_control(key="bench_view").set_value("Compare runs")
    app.run()
    assert not app.exception
    assert not app.error
    manifest = tmp_path / "runs" / "first" / "manifest.json"
    good = manifest.read_text()
    for text in ("", "{", "[]", "{}", "7", json.dumps({**json.loads(good), "spec": None})):
        manifest.write_text(text)
        app.run()
        line(app, language, text)
    manifest.write_text(good)
    (tmp_path / "runs" / "first" / "requests.parquet").write_bytes(b"PAR1 no table")
    app.run()
    line(app, language)
    shutil.rmtree(tmp_path / "runs" / "first")  # under the page that shows it
    app.run()
    assert not app.exception


def _job(root: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> jobs.Job:
    monkeypatch.setattr(jobs, "command", lambda *_: [sys.executable, "-c", code])
    job = jobs.start(dump(load()), root=root / "runs" / "jobs")
    until = time.monotonic() + 30
    while "sleep" not in code and jobs.running(job):
        assert time.monotonic() < until
        time.sleep(0.05)
    return job


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_check_whose_folder_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    job = _job(tmp_path, monkeypatch, 'print(\'{"answer": "x"}\')')
    run = curves.simulated(load(), None, 30)
    run.save(job.run_folder / "simulated")
    assert jobs.state(job) == "done"
    app = page("check", lang=language)  # measured tables are not there
    line(app, language)
    shutil.rmtree(job.path)
    app.run()
    assert not app.exception
    assert not app.error


def test_a_running_check_whose_folder_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, time\nprint('load:  50 %, 1 s', file=sys.stderr, flush=True)\ntime.sleep(60)"
    job = _job(tmp_path, monkeypatch, code)
    try:
        until = time.monotonic() + 30
        while not jobs.steps(job) and time.monotonic() < until:
            time.sleep(0.05)
        (job.path / "config.yaml").unlink()
        app = page("check")
        line(app, "en")
        shutil.rmtree(job.path)
        app.run()
        assert not app.exception
    finally:
        jobs.stop(job)
        jobs.stop(job)
        if jobs.running(job):
            os.killpg(job.pid, 9)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_two_tabs_cannot_start_two_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setattr(jobs, "allowed", lambda *_: True)  # a test's server has no address
    first, second = page("check", lang=language), page("check", lang=language)
    for app in (first, second):
        app.radio(key="check_way").set_value("endpoints")
        app.run()
        app.text_area(key="check_urls").set_value("http://127.0.0.1:9")
        app.run()
    monkeypatch.setattr(jobs, "command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"])
    first.button(key="check_start").click()
    job = None
    try:
        monkeypatch.setattr("streamlit.rerun", lambda: None)
        first.run()
        job = jobs.latest()
        assert job is not None
        # The second tab still shows its button: between its last run and this press the first one started.
        monkeypatch.setattr(jobs, "latest", lambda *_: None)
        second.button(key="check_start").click()
        second.run()
        line(second, language)
    finally:
        if job is not None:
            os.killpg(job.pid, 9)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_addresses_that_are_none(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setattr(jobs, "allowed", lambda _: True)
    app = page("check", lang=language)
    app.radio(key="check_way").set_value("endpoints")
    app.run()
    for text in ("ftp://x", "127.0.0.1:8000", "javascript:alert(1)", "http://", "http://a b", "https://:99999"):
        app.text_area(key="check_urls").set_value(text)
        app.run()
        line(app, language, text)
    app.text_area(key="check_urls").set_value("")
    app.run()
    app.button(key="check_start").click()
    app.run()
    line(app, language)
