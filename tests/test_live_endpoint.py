"""`planner live --endpoint`: other people's servers, which do not take what vLLM takes and stop when they like."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")

from fake_engine import FakeEngine
from live import endpoints
from planner import cli
from planner.run.tables import Run


@contextmanager
def foreign(**options: Any) -> Iterator[FakeEngine]:
    """A fake engine in a thread of its own."""
    engine, loop = FakeEngine(**options), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result(20)
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.__aexit__(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


PLAIN = {"refuse": {"ignore_eos", "min_tokens", "return_token_ids"}}


@pytest.mark.parametrize(
    ("options", "prompts", "outputs"),
    [
        ({}, 256, 32),  # takes everything: as planned
        (PLAIN, 256, 12),  # token ids, but it stops when it likes
        (PLAIN | {"token_prompts": False}, 256, 12),  # texts only
        ({"deaf": True, "natural": 5}, 256, 5),  # takes every field and follows none
    ],
)
def test_the_lengths_that_happened_are_said_and_simulated(
    options: dict[str, Any], prompts: int, outputs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with foreign(ttft_s=0.02, itl_s=0.002, **({"natural": 12} | options)) as engine:
        sets = ["--set", "workload.requests=15", "--set", "workload.rate=20"]
        words = ["live", "cpu-agg", "--endpoint", engine.url, "--validate", "--json", "--out", str(out), *sets]
        assert cli.run(words) == 0
    answer = json.loads(capsys.readouterr().out)
    measured, simulated = Run.load(out), Run.load(out / "simulated")
    for run in (measured, simulated):
        assert len(run.requests) == 15
        assert set(run.requests["output_tokens"]) == {outputs}
        assert abs(run.requests["prompt_tokens"] - prompts).max() <= 1
    both = [run.requests.set_index("request_id")["prompt_tokens"].to_dict() for run in (measured, simulated)]
    assert both[0] == both[1]
    assert set(measured.requests["finish_reason"]) == {"length" if outputs == 32 else "stop"}
    assert measured.manifest["tokens"]["output_equal"] == (15 if outputs == 32 else 0)
    said = " ".join([*measured.manifest["warnings"], *simulated.manifest["warnings"]])
    if not options:
        assert "refused" not in said and "made of them" not in said
        return
    assert "15 requests are simulated with the prompt and output tokens that the servers made of them" in said
    assert answer["warnings"]
    assert ("output lengths are not pinned" in said) == (outputs < 8)  # of the 8 tokens that a probe asks for
    assert ("refused some fields" in said) == ("refuse" in options)
    if "refuse" not in options:
        return
    for body in engine.requests[-15:]:
        assert not {"ignore_eos", "min_tokens", "return_token_ids"} & body.keys()
        assert isinstance(body["prompt"], str) == (not options.get("token_prompts", True))


def test_who_decodes_behind_an_endpoint_is_not_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    with foreign() as engine:
        words = ["live", "cpu-1p1d", "--endpoint", engine.url, "--json", "--no-save", "--set", "workload.requests=5"]
        assert cli.run([*words, "--set", "workload.rate=50"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["local_prefill_share"] is None


def test_requests_that_fail_are_the_headline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first questions are answered.
    monkeypatch.setattr(FakeEngine, "_refusal", lambda self, _: "out of breath" if len(self.requests) > 8 else None)
    with foreign() as engine:
        sets = ["--set", "workload.requests=15", "--set", "workload.rate=50"]
        assert cli.run(["live", "cpu-agg", "--endpoint", engine.url, *sets, "--out", str(tmp_path / "run")]) == 1
    assert re.match(r"(\d+) of 15 requests failed: \1 with '400: out of breath'\. ", capsys.readouterr().out)
    assert len(Run.load(tmp_path / "run").requests) == 15


def test_a_server_that_lists_no_models_in_time_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(endpoints, "MODELS_S", 0.2)
    with socket.socket() as silent:  # its kernel takes connections
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert cli.run(["live", "cpu-agg", "--endpoint", url, "--no-save"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"planner: endpoint {url}: /v1/models is not answered")


def test_a_server_that_refuses_everything_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with foreign(refuse={"model"}) as engine:
        assert cli.run(["live", "cpu-agg", "--endpoint", engine.url, "--no-save"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"planner: endpoint {engine.url}: refuses every form of request; the last answer: 400")
