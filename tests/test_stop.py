"""A driver that is told to stop, or killed, at any moment of a live run leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")

DRIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import pytest
from planner import cli
from stand_in import UNTRACED, use_fake_engines
use_fake_engines(pytest.MonkeyPatch(), name=sys.argv[2], **json.loads(sys.argv[3]))
sys.exit(cli.run(["live", "cpu-1p1d", "--no-save", "--set", "workload.requests=4", *UNTRACED]))
"""
STAGES = {"start servers": '{"start_s": 600}', "warm up": '{"ttft_s": 600}'}


def engines_of(mark: str) -> list[str]:
    """Processes (not zombies) whose command line holds the mark, the driver's apart."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        if mark in words and DRIVER not in words:
            found.append(words.replace("\0", " "))
    return found


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_it_starts(tmp_path: Path, root: Path, stage: str, number: signal.Signals) -> None:
    mark = str(tmp_path)
    said = tmp_path / "stderr"
    with said.open("wb") as errors:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(root / "tests"), mark, STAGES[stage]], cwd=root, stderr=errors
        )
    try:
        deadline = time.monotonic() + 60
        while stage not in said.read_text() or len(engines_of(mark)) < 6:  # two servers, their watchdogs and guards
            assert driver.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)
        driver.send_signal(number)
        code = driver.wait(30)
    finally:
        driver.kill()
        driver.wait()
    deadline = time.monotonic() + 30
    while left := engines_of(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
        return
    assert code == 130
    assert not left
    assert said.read_text().splitlines()[-1] == "planner: interrupted"
