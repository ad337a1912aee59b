"""Live checks as processes of their own, so that they survive a reload of the page.

A job is a folder in runs/jobs: job.json (command, process, since when), config.yaml, out.json (the result), log.txt
(progress), run/ (tables). One lock file for the machine's GPUs: two tabs cannot start two runs on them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from planner.cli import FAULT
from planner.messages import message, unpacked

JOBS = Path("runs") / "jobs"
ALLOW = "PLANNER_UI_ALLOW_RUNS"  # set to 1: runs may be started when the UI listens beyond loopback
TOKEN = "PLANNER_TOKEN"
GRACE_S = 60.0  # servers stop, and what was measured is written
State = Literal["running", "done", "failed", "stopped"]
_LINE = re.compile(r"^(?P<stage>[a-z ]+):\s+(?P<percent>\d+) %, (?P<seconds>\d+) s$", flags=re.MULTILINE)


class Busy(RuntimeError):
    """Another run has the lock."""


@dataclass(frozen=True, slots=True)
class Job:
    folder: str
    command: tuple[str, ...]
    pid: int
    born: str  # start time of the process, so that a later process with the same number is not taken for it
    started_s: float

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def run_folder(self) -> Path:
        return self.path / "run"


@dataclass(frozen=True, slots=True)
class Step:
    """A line of progress."""

    stage: str
    share: float
    seconds: float


def allowed(address: str) -> bool:
    """Whether this UI may start runs: it listens on loopback, or the environment says so."""
    return address in ("localhost", "::1") or address.startswith("127.") or os.environ.get(ALLOW) == "1"


def _born(pid: int) -> str | None:
    """Start time of a living process in the kernel's ticks; None when there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def running(job: Job) -> bool:
    with contextlib.suppress(ChildProcessError, OSError):  # collect it when it was this process's child
        os.waitpid(job.pid, os.WNOHANG)
    return _born(job.pid) == job.born


def command(
    config: Path, folder: Path, endpoints: Sequence[str] = (), ray: str | None = None, calibrate: bool = True
) -> list[str]:
    """The command line of a check. The token is left to the environment, never written anywhere.

    `ray` is the address of a Ray cluster to start the servers on, "" for the one this machine belongs to.
    Without `calibrate` no step times are measured first where there is no profile of this machine.
    """
    parts = [sys.executable, "-m", "planner.cli", "live", str(config), "--validate", "--out", str(folder), "--json"]
    if ray is not None:
        parts += ["--cluster", f"ray={ray}" if ray else "ray"]
    if not calibrate:
        parts.append("--no-calibrate")
    for url in endpoints:
        parts += ["--endpoint", url]
    return parts


def start(
    text: str, endpoints: Sequence[str] = (), ray: str | None = None, calibrate: bool = True, root: Path = JOBS
) -> Job:
    """Start a check of this YAML. Raises Busy when another one runs."""
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    _lock(root, folder)
    try:
        folder.mkdir()
        config = folder / "config.yaml"
        config.write_text(text)
        parts = command(config, folder / "run", endpoints, ray, calibrate)
        with (folder / "out.json").open("w") as out, (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(
                parts, stdout=out, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, FAULT: str(folder.absolute() / "fault.json")},
            )  # fmt: skip
        job = Job(str(folder), tuple(parts), process.pid, _born(process.pid) or "", time.time())
        (folder / "job.json").write_text(json.dumps(asdict(job), indent=2))
    except BaseException:
        (root / "lock").unlink(missing_ok=True)
        raise
    return job


def _lock(root: Path, folder: Path) -> None:
    """One run at a time. A lock whose run has ended is taken over; creating the file decides between two tabs."""
    lock = root / "lock"
    for _ in range(2):
        try:
            with lock.open("x") as file:
                file.write(folder.name)
            return
        except FileExistsError:
            holder = load(root / lock.read_text().strip())
            fresh = time.time() - lock.stat().st_mtime < 10  # its job.json may not be written yet
            if (holder is None and fresh) or (holder is not None and running(holder)):
                raise Busy(message("another check is running; stop it first, or wait until it has ended")) from None
            lock.unlink(missing_ok=True)
    raise Busy(message("another check has just been started"))


def load(folder: Path) -> Job | None:
    """A job by its folder; None where there is none."""
    try:
        data: dict[str, Any] = json.loads((folder / "job.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return Job(**{**data, "command": tuple(data["command"])})


def latest(root: Path = JOBS) -> Job | None:
    """The job that was started last, running or ended."""
    folders = sorted((path for path in root.glob("*/job.json")), key=lambda path: path.stat().st_mtime)
    return load(folders[-1].parent) if folders else None


def stop(job: Job) -> None:
    """Ask a job to end, as Ctrl-C does: its servers stop and what was measured is kept. Again: kill it."""
    if not running(job):
        return
    asked = job.path / "stopped"
    number = signal.SIGKILL if asked.exists() and time.time() - asked.stat().st_mtime > GRACE_S else signal.SIGINT
    with contextlib.suppress(OSError):  # the folder may have been deleted under the run
        asked.touch()
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(job.pid, number)
        else:
            os.kill(job.pid, number)


def stopping(job: Job) -> bool:
    """Whether it has been asked to end."""
    return (job.path / "stopped").exists()


def state(job: Job) -> State:
    if running(job):
        return "running"
    if stopping(job):
        return "stopped"
    return "done" if result(job) is not None else "failed"


def steps(job: Job) -> list[Step]:
    """Progress so far, oldest first."""
    return [
        Step(found["stage"].strip(), int(found["percent"]) / 100, float(found["seconds"]))
        for found in _LINE.finditer(log(job))
    ]


def latest_load(steps: Sequence[Step]) -> list[Step]:
    """The steps of the load that is being sent, without those of a calibration before it."""
    found: list[Step] = []
    for step in steps:
        if step.stage == "load":
            found = [*found, step] if not found or step.share > found[-1].share else [step]
    return found


def log(job: Job) -> str:
    try:
        return (job.path / "log.txt").read_text(errors="replace")
    except OSError:
        return ""


def fault(job: Job) -> str:
    """What a failed job said at its end: its fault, or its last line."""
    try:
        return str(unpacked(json.loads((job.path / "fault.json").read_text())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # it ended in another way
    lines = [line for line in log(job).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def result(job: Job) -> dict[str, Any] | None:
    """What `--json` printed; None while it runs or when it failed."""
    try:
        data = json.loads((job.path / "out.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return data if isinstance(data, dict) else None
