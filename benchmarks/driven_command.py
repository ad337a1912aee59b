"""A command of planner's in a process of its own, and the processes below it: what a fault drill plays upon."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAKE = """
import sys
sys.path[:0] = {paths!r}
import pytest
from stand_in import use_fake_engines
with pytest.MonkeyPatch.context() as patch:
    use_fake_engines(patch, itl_s=0.01, start_s=2.0)
    from planner.cli import run
    sys.exit(run({words!r}))
"""
REAL = "import sys; sys.path[:0] = {paths!r}; from planner.cli import run; sys.exit(run({words!r}))"
LIMIT_S = 400.0


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    found = []
    for task in tasks:
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return sorted(found)


def tree(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *tree(child))]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Command:
    """`planner WORDS` in a process of its own, with what it has said so far."""

    def __init__(self, words: list[str], real: bool, folder: Path) -> None:
        code = (REAL if real else FAKE).format(paths=[str(ROOT), str(ROOT / "tests")], words=words)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=lines.extend, args=(pipe,), daemon=True)  # a line at a time, as they come
            for lines, pipe in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self.pids: set[int] = set()

    def wait(self, holds: Callable[[], object], within_s: float = LIMIT_S) -> bool:
        """False: it ended, or time ran out, before."""
        deadline = time.monotonic() + within_s
        while self.process.poll() is None and time.monotonic() < deadline:
            self.pids |= set(tree(self.process.pid))
            if holds():
                return True
            time.sleep(0.02)
        return False

    def has_said(self, words: str) -> bool:
        return any(re.search(words, line) for line in (*self.out, *self.err))

    def watchdogs(self) -> list[int]:
        return [pid for pid in children(self.process.pid) if "watchdog.py" in command_of(pid)]

    def end(self, within_s: float = LIMIT_S) -> int | None:
        """Its exit code; None, and it is killed, where it does not end."""
        self.pids |= set(tree(self.process.pid))
        try:
            code: int | None = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        for reader in self._readers:
            reader.join(5)
        return code

    def left(self, within_s: float) -> list[int]:
        """Processes of its that are still there after so long."""
        deadline = time.monotonic() + within_s
        while (alive := [pid for pid in self.pids if is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return alive

    def headline(self) -> str:
        lines = [line.strip() for line in self.out if line.strip()]
        said = [line.strip() for line in self.err if line.startswith("planner: ")]
        return (lines or said or [""])[0]
