"""Faults of live runs on fake engines in processes of their own: stopped, killed, full disks, broken clients."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from fake_engine import FakeEngine, until
from live import fleet, frontend, restarts
from live.frontend import Frontend
from live.launch import LiveError
from live.server_log import why_ended
from live.servers import Servers
from live.session import LiveSession
from live.warmup import NoAnswer
from planner import cli, simulate
from planner.calibration.calibrate import calibrate
from planner.commands import read_run
from planner.messages import Failure
from planner.run import journal
from planner.run.metrics import summarise
from planner.run.tables import Run
from planner.spec import SpecError, load
from planner.system.resolve import resolve
from planner.traffic import workload
from stand_in import UNTRACED, use_fake_engines
from test_frontend import AGGREGATED, PROMPT, post, served

TWO = [
    "deployment.replicas=2",
    "workload={kind: poisson, rate: 20, requests: 60, prompt_tokens: 20, output_tokens: 20}",
]
# As fast as the answers come: a load that is far from its end whenever a slow host gets to do something to it.
LONG = "workload={kind: concurrency, concurrency: 4, requests: 400, prompt_tokens: 20, output_tokens: 20}"


def system_of(*changes: str) -> Any:
    return resolve(load("cpu-agg", [*UNTRACED[1:], *TWO, *changes]))


def engine_of(session: LiveSession, index: int = 0) -> int:
    """The process of a server, below its watchdog."""
    assert session._servers is not None
    watchdog = session._servers._running[index].pid
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
    use_fake_engines(monkeypatch, itl_s=0.02)
    monkeypatch.setattr(frontend, "STOPPED_S", 0.1)
    late: set[str] = set()
    with LiveSession(system_of(LONG, "workload.requests=60"), tmp_path) as session:
        frozen = engine_of(session)
        assert session._frontend is not None
        front = session._frontend
        stuck = front.pools[0].workers[0]

        async def freeze() -> dict[str, Any]:
            await until(lambda: len(front.records()) > 12)  # the client's few questions before the load are over
            os.kill(frozen, signal.SIGSTOP)
            await until(lambda: stuck.state == fleet.STOPPED)
            before = set(front.records())
            status, body = await asyncio.to_thread(health, session.base_url)
            assert status == 200
            await until(lambda: len(front.records().keys() - before) > 5)
            late.update(front.records().keys() - before)
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
    assert {front.records()[one].worker for one in late} == {"aggregated-1"}
    assert run.manifest["paused"].keys() == {"aggregated-0"}
    assert summarise(run).faults == ()  # no request failed
    (said,) = [text for text in run.manifest["warnings"] if "stopped by a signal" in text]
    assert said.startswith("aggregated-0 was stopped by a signal for ")


def test_silent_and_stalled_workers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "SILENT_S", 2.0)  # of the other one, too, on a busy host
    monkeypatch.setattr(fleet, "STALLED_S", 2.0)
    monkeypatch.setattr(fleet, "POLL_S", 0.05)
    monkeypatch.setattr(fleet, "POLL_TIMEOUT_S", 0.2)
    engines = [FakeEngine("aggregated-0"), FakeEngine("aggregated-1")]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        stuck, well = frontend.pools[0].workers
        engines[0].held = True  # takes requests, gives nothing
        held = [asyncio.create_task(post(session, PROMPT)) for _ in range(2)]  # one each
        await until(lambda: (stuck.state, well.state) == (fleet.STALLED, fleet.OK))
        before = len(engines[0].requests)
        assert [(await post(session, PROMPT))[0] for _ in range(4)] == [200] * 4
        assert len(engines[0].requests) == before
        engines[0].held = False
        assert [status for status, _ in await asyncio.gather(*held)] == [200, 200]
        await until(lambda: stuck.state == fleet.OK)

        engines[0].mute = True  # polls hang
        await until(lambda: (stuck.state, well.state) == (fleet.SILENT, fleet.OK))
        async with session.get("/health") as response:
            body = await response.json()
        assert body["workers"] == {"aggregated-0": False, "aggregated-1": True}
        assert body["why"]["aggregated-0"] == fleet.SILENT
        assert [(await post(session, PROMPT))[0] for _ in range(4)] == [200] * 4
        engines[1].mute = True
        await until(lambda: stuck.state == well.state == fleet.SILENT)
        async with session.get("/health") as response:
            assert response.status == 503
        assert (await post(session, PROMPT))[0] == 200  # both may only be busy: better than nobody

    served(test, engines, AGGREGATED)


# --- what dies while a load runs ------------------------------------------------------------------------


CLI = """
import signal
import sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it (nohup)
sys.path[:0] = {paths!r}
import pytest
from stand_in import use_fake_engines
with pytest.MonkeyPatch.context() as patch:
    use_fake_engines(patch, itl_s=0.01)
    from planner.cli import run
    sys.exit(run({arguments!r}))
"""


class Driver:
    """`planner live` on fake engines, in a process of its own that may be killed."""

    def __init__(self, out: Path, *more: str, config: str = "cpu-agg") -> None:
        sets = [word for change in (*TWO, *more) for word in ("--set", change)]
        arguments = ["live", config, *UNTRACED, *sets, "--out", str(out)]
        here = Path(__file__).parent
        code = CLI.format(paths=[str(here), str(here.parent)], arguments=arguments)
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for_rows(self, count: int) -> None:
        self.wait_for(lambda text: len(text.splitlines()) > count)

    def wait_for(self, holds: Callable[[str], bool]) -> None:
        """Until the journal of requests is so."""
        path, deadline = self.out / journal.NAME, time.monotonic() + 60
        while not path.exists() or not holds(path.read_text()):
            assert time.monotonic() < deadline, self.process.communicate()
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def engines(self) -> list[int]:
        """The fake engines: children of the watchdogs, which are the driver's children."""
        return [child for watchdog in children(self.process.pid) for child in children(watchdog)]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for task in tasks for child in task.read_text().split())


def test_a_server_that_died_is_the_headline(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "run", "deployment.replicas=1", LONG)
    driver.wait_for_rows(10)
    os.kill(driver.engines()[0], signal.SIGKILL)
    code, out, err = driver.end()
    assert code == 1, err
    first = out.splitlines()[0]
    assert first.startswith("aggregated-0 died: killed by SIGKILL. ")
    failed = int(re.search(r"(\d+) of 400 requests failed: \d+ with ", first)[1])  # type: ignore[index]
    assert 4 <= failed <= 390  # those in flight, at least
    assert "bottleneck" not in out.lower()
    shown = read_run(tmp_path / "run")
    assert (shown.requests["finish_reason"] == "error").sum() == failed
    assert shown.manifest["died"] == {"aggregated-0": "killed by SIGKILL"}
    assert not (tmp_path / "run" / journal.NAME).exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "aggregated-1 died while it warmed up: killed by SIGKILL; log: .*aggregated-1.log"),
        (signal.SIGSTOP, "aggregated-1 was stopped by a signal while it warmed up"),
    ],
)
def test_what_became_of_a_server_while_it_warmed_up(
    number: signal.Signals, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_fake_engines(monkeypatch)
    session = LiveSession(system_of(), tmp_path)

    async def fail(*_: Any, **__: Any) -> None:
        os.kill(engine_of(session, 1), number)
        raise NoAnswer("aggregated-0 failed while warming up")

    monkeypatch.setattr("live.session.warm_up", fail)
    with pytest.raises(LiveError, match=words), session:
        raise AssertionError("started")


def test_a_signal_while_servers_stop_loses_no_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_engines(monkeypatch)
    stop = Servers.stop

    async def hang_up(self: Servers) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await stop(self)

    monkeypatch.setattr(Servers, "stop", hang_up)
    sets = [word for change in (*TWO, "workload.requests=5") for word in ("--set", change)]
    assert cli.run(["live", "cpu-agg", *UNTRACED, *sets, "--out", str(tmp_path / "run")]) == 0
    assert "Latency, ms" in capsys.readouterr().out


def test_steps_of_a_server_that_died_are_no_measure() -> None:
    run = simulate(load("agg", ["workload.requests=5"]))
    run.manifest["died"] = {"aggregated-0": "killed by SIGKILL"}
    backend: Any = SimpleNamespace(run=lambda *_: run)
    with pytest.raises(Failure, match="nothing was calibrated: aggregated-0 died: killed by SIGKILL"):
        calibrate(system_of(), backend)


def test_a_server_that_stood_still_while_requests_failed_is_the_headline(tmp_path: Path) -> None:
    """Nobody else can take them: they fail at once."""
    driver = Driver(tmp_path / "run", "deployment.replicas=1", "workload.rate=8", "workload.requests=100")
    driver.wait_for_rows(10)
    (engine,) = driver.engines()
    os.kill(engine, signal.SIGSTOP)
    driver.wait_for(lambda text: "no aggregated worker can take" in text)
    os.kill(engine, signal.SIGCONT)
    code, out, err = driver.end()
    assert code == 1, err
    first = out.splitlines()[0]
    assert re.match(r"aggregated-0 was stopped by a signal for [\d.]+ s\. \d+ of 100 requests failed: ", first), first
    assert "bottleneck" not in out.lower()
    assert read_run(tmp_path / "run").manifest["died"] == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_what_was_measured_outlives_the_driver(number: signal.Signals, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "run", LONG)
    driver.wait_for_rows(12)
    engines = driver.engines()
    os.kill(driver.process.pid, number)
    code, _, err = driver.end()
    assert code == (-9 if number == signal.SIGKILL else 130), err
    run = read_run(tmp_path / "run")
    done = run.requests["finish_reason"] == "length"
    assert 12 <= done.sum() < 400
    assert (run.requests["finish_s"][done] > run.requests["arrival_s"][done]).all()
    assert run.manifest["interrupted"]
    if number == signal.SIGKILL:
        assert set(run.requests["worker"]) == {"aggregated-0", "aggregated-1"}
        assert any("cut off" in text for text in run.manifest["warnings"])
        assert cli.run(["show", str(tmp_path / "run")]) == 0
    deadline = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in engines):
        assert time.monotonic() < deadline, "an engine outlived its driver"
        time.sleep(0.05)


def test_a_full_disk_loses_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    use_fake_engines(monkeypatch)

    def full(self: Run, folder: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None)

    monkeypatch.setattr(Run, "save", full)
    sets = [word for change in TWO for word in ("--set", change)]
    assert cli.run(["live", "cpu-agg", *UNTRACED, *sets, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert "2 aggregated workers" in said.out
    (last,) = [line for line in said.err.splitlines() if line.startswith("planner: ")]
    assert "cannot be saved (No space left on device)" in last
    assert f"the requests are in {tmp_path}/run/{journal.NAME}" in last
    monkeypatch.undo()
    assert (read_run(tmp_path / "run").requests["finish_reason"] == "length").sum() == 60


def test_a_table_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = simulate(load("agg", ["workload.requests=20"]))

    def cut(self: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("planner.run.columns.Columns.write_parquet", cut)
        with pytest.raises(OSError, match="No space"):
            run.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpecError, match="not a run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("code", "text", "why"),
    [
        (137, "WARNING 11-29 10:00:00 [x.py:1] OSError: [Errno 24] Too many open files", "killed by SIGKILL"),
        (-9, "", "its watchdog was killed by SIGKILL"),
        (1, "INFO 11-29 10:00:00 [a] OSError: x\nValueError: bad token", "ValueError: bad token (exit code 1)"),
        (1, "ERROR 11-29 10:00:00 [c.py:1] Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.",
         "its engine process died and wrote no error (killed from outside?) (exit code 1)"),
    ],
)  # fmt: skip
def test_causes_are_exits_and_errors_never_warnings(code: int, text: str, why: str, tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(text)
    assert why_ended(code, log) == why
    memory = "; the kernel ended 2 process(es) here because memory ran out"
    assert why_ended(code, log, 2) == why + memory


def test_a_server_that_ends_is_started_again_and_then_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = use_fake_engines(monkeypatch)
    monkeypatch.setattr(restarts, "RESTARTS", 1)
    monkeypatch.setattr(fleet, "POLL_S", 0.05)
    with LiveSession(system_of(), tmp_path) as session:
        assert len(started) == 2

        async def serve() -> None:
            watching = asyncio.create_task(session._wait())

            async def until(wanted: dict[str, bool], status: int = 200) -> None:
                deadline = time.monotonic() + 20
                while True:
                    found, body = await asyncio.to_thread(health, session.base_url)
                    if body["workers"] == wanted:
                        assert found == status
                        return
                    assert time.monotonic() < deadline, body
                    assert not watching.done(), watching.exception()
                    await asyncio.sleep(0.05)

            one, two = "aggregated-0", "aggregated-1"
            async with aiohttp.ClientSession(session.base_url) as client:
                os.kill(engine_of(session), signal.SIGKILL)
                await until({one: False, two: True})
                assert (await post(client, PROMPT))[0] == 200
                await until({one: True, two: True})
                assert len(started) == 3
                assert [(await post(client, PROMPT))[0] for _ in range(4)] == [200] * 4
                os.kill(engine_of(session), signal.SIGKILL)  # once too often: the pool goes on without it
                await until({one: False, two: True})
                await asyncio.sleep(1.5)
                await until({one: False, two: True})
                assert [(await post(client, PROMPT))[0] for _ in range(4)] == [200] * 4
                assert not watching.done()
                os.kill(engine_of(session, 1), signal.SIGKILL)
                await until({one: False, two: False}, 503)
                await until({one: False, two: True})  # started again
                os.kill(engine_of(session, 1), signal.SIGKILL)
                with pytest.raises(LiveError, match="no aggregated server is left: aggregated-0 ended: killed by SIGK"):
                    await asyncio.wait_for(watching, 20)

        session._runner.run(serve())
    assert len(started) == 4
    assert (tmp_path / "aggregated-0.before.log").is_file()
    assert sum("starting it again (1 of 1)" in record.message for record in caplog.records) == 2


def test_a_server_that_ends_after_the_load_has_died_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its engine's death ended the last requests; it still answered a look at its metrics then."""
    use_fake_engines(monkeypatch, break_after=3, dies_s=2.0)
    sets = ["--set", "workload={kind: poisson, rate: 20, requests: 3, prompt_tokens: 9, output_tokens: 8}"]
    assert cli.run(["live", "cpu-agg", *UNTRACED, *sets, "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().out.startswith("aggregated-0 died: ")


def test_an_engine_that_died_unnoticed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every request was answered, and its API server has not ended yet: it knows, and says so when asked."""
    use_fake_engines(monkeypatch, last=3, dies_s=2.0)
    sets = ["--set", "workload={kind: poisson, rate: 20, requests: 3, prompt_tokens: 9, output_tokens: 8}"]
    assert cli.run(["live", "cpu-agg", *UNTRACED, *sets, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().out
    assert said.startswith("aggregated-0 died: ")
    assert (read_run(tmp_path / "run").requests["finish_reason"] == "length").all()
