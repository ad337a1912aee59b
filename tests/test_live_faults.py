"""Faults of live runs on fake engines in processes of their own: stopped, killed, full disks, broken clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fake_engine import FakeEngine
from live import fleet, frontend
from live.frontend import Frontend
from live.session import LiveSession
from planner.spec import SpecError, load
from planner.system.resolve import resolve
from planner.traffic import workload
from stand_in import UNTRACED, use_fake_engines
from test_frontend import AGGREGATED, PROMPT, post, served

TWO = [
    "deployment.replicas=2",
    "workload={kind: poisson, rate: 20, requests: 60, prompt_tokens: 20, output_tokens: 20}",
]


def system_of(*changes: str) -> Any:
    return resolve(load("cpu-agg", [*UNTRACED[1:], *TWO, *changes]))


def engine_of(session: LiveSession, index: int = 0) -> int:
    """The process of a server, below its watchdog."""
    watchdog = session.workers[index].pid
    return int(Path(f"/proc/{watchdog}/task/{watchdog}/children").read_text().split()[0])


def health(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize(("bind", "words"), [(("0.0.0.0", 0), "give a token"), (None, "cannot listen on .*in use")])
def test_an_address_is_checked_before_servers_start(
    bind: tuple[str, int] | None, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = use_fake_engines(monkeypatch)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(SpecError, match=words),
            LiveSession(system_of(), tmp_path, bind=bind or taken.getsockname()),
        ):
            raise AssertionError("started")
    assert started == []


def test_a_stopped_server_gets_nothing_and_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_fake_engines(monkeypatch)
    monkeypatch.setattr(frontend, "STOPPED_S", 0.1)
    with LiveSession(system_of("workload.rate=10"), tmp_path) as session:
        frozen = engine_of(session)
        stop_s, go_s = 1.0, 4.0

        async def freeze() -> dict[str, Any]:
            await asyncio.sleep(stop_s)
            os.kill(frozen, signal.SIGSTOP)
            await asyncio.sleep(1.0)
            status, body = await asyncio.to_thread(health, session.base_url)
            assert status == 200
            await asyncio.sleep(go_s - stop_s - 1.0)
            os.kill(frozen, signal.SIGCONT)
            return body

        async def both() -> tuple[Any, dict[str, Any]]:
            freezing = asyncio.create_task(freeze())
            run = await session._measure(workload.build(session.system.spec), 0, lambda *_: None)
            return run, await freezing

        run, body = session._runner.run(both())
    assert body["workers"] == {"aggregated-0": False, "aggregated-1": True}
    assert body["why"] == {"aggregated-0": "stopped by a signal"}
    rows = run.requests
    assert (rows["finish_reason"] == "length").all()
    late = (rows["arrival_s"] > stop_s + 0.8) & (rows["arrival_s"] < go_s)
    assert late.sum() > 5
    assert set(rows["worker"][late]) == {"aggregated-1"}
    (said,) = [text for text in run.manifest["warnings"] if "stopped by a signal" in text]
    assert said.startswith("aggregated-0 was stopped by a signal for ")


def test_silent_and_stalled_workers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "SILENT_S", 0.5)
    monkeypatch.setattr(fleet, "STALLED_S", 0.3)
    monkeypatch.setattr(fleet, "POLL_S", 0.05)
    monkeypatch.setattr(fleet, "POLL_TIMEOUT_S", 0.2)
    engines = [FakeEngine("aggregated-0"), FakeEngine("aggregated-1")]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        stuck, well = frontend.crews[0].workers
        engines[0].ttft_s = 1.5  # takes requests, gives nothing
        held = [asyncio.create_task(post(session, PROMPT)) for _ in range(2)]  # one each
        await asyncio.sleep(0.8)
        assert (stuck.state, well.state) == (fleet.STALLED, fleet.OK)
        before = len(engines[0].requests)
        assert [(await post(session, PROMPT))[0] for _ in range(4)] == [200] * 4
        assert len(engines[0].requests) == before
        assert [status for status, _ in await asyncio.gather(*held)] == [200, 200]
        await asyncio.sleep(0.2)
        assert stuck.state == fleet.OK

        engines[0].mute = True  # polls hang
        await asyncio.sleep(1.0)
        async with session.get("/health") as response:
            body = await response.json()
        assert body["workers"] == {"aggregated-0": False, "aggregated-1": True}
        assert body["why"]["aggregated-0"] == fleet.SILENT
        assert [(await post(session, PROMPT))[0] for _ in range(4)] == [200] * 4
        engines[1].mute = True
        await asyncio.sleep(1.0)
        async with session.get("/health") as response:
            assert response.status == 503
        assert (await post(session, PROMPT))[0] == 200  # both may only be busy: better than nobody

    served(test, engines, AGGREGATED)
