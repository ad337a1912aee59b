"""Kills and stops each server, its watchdog and the driver of `planner live` at each stage, and says what came of it.

    python benchmarks/fault_drill.py [--real] [--config cpu-1p1d] [--only decode] [--stage late] [--signal KILL]

A line for each case: exit code, rows kept of the requests sent, the first line of the report (or of the error), and
processes that were left. Engines are those of tests/fake_engine.py; --real takes vLLM's CPU build (a minute a case).
Exits with 1 where a case loses rows, leaves a process, prints a traceback or names no cause, and where the exit code is
not 1 although a server died, or requests failed while it was stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from planner.commands import read_run
from planner.run import journal
from planner.spec import SpecError

ROOT = Path(__file__).parent.parent
REQUESTS = 80
SETS = [f"workload={{kind: poisson, rate: 10, requests: {REQUESTS}, prompt_tokens: 24, output_tokens: 24}}"]
FAKE = """
import sys
sys.path[:0] = {paths!r}
import pytest
from stand_in import use_fake_engines
with pytest.MonkeyPatch.context() as patch:
    use_fake_engines(patch, itl_s=0.01, start_s=2.0)
    from planner.cli import run
    sys.exit(run({arguments!r}))
"""
REAL = "import sys; sys.path[:0] = {paths!r}; from planner.cli import run; sys.exit(run({arguments!r}))"
STAGES = {"starting": None, "early": 5, "late": REQUESTS - 10}  # rows that are written by then
LIMIT_S = 400.0


@dataclass(frozen=True)
class Case:
    victim: str  # a role, "watchdog", "driver"
    stage: str
    number: signal.Signals


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for task in tasks for child in task.read_text().split())


def tree(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *tree(child))]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def victims(case: Case, driver: int, roles: list[str]) -> list[int]:
    """The processes of a server: its engine and API server, or its watchdog; servers start in the order of roles."""
    if case.victim == "driver":
        return [driver]
    watchdogs = [pid for pid in children(driver) if "watchdog.py" in command_of(pid)]
    if len(watchdogs) < len(roles):
        return []
    if case.victim == "watchdog":
        return watchdogs[-1:]
    below = tree(watchdogs[roles.index(case.victim)])
    return below[-1:] if case.number == signal.SIGKILL else below


def rows(folder: Path) -> int:
    path = folder / journal.NAME
    return len(path.read_text().splitlines()) - 1 if path.exists() else -1


def play(case: Case, arguments: argparse.Namespace, roles: list[str], folder: Path) -> tuple[str, bool]:
    """One line of the table, and whether all is as it should be."""
    words = ["live", arguments.config, *([] if arguments.real else ["--set", "run.step_records=false"])]
    words += [word for one in SETS for word in ("--set", one)] + ["--out", str(folder)]
    code = (REAL if arguments.real else FAKE).format(paths=[str(ROOT), str(ROOT / "tests")], arguments=words)
    driver = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent
    )
    wanted, deadline, hit, seen = STAGES[case.stage], time.monotonic() + LIMIT_S, [], 0
    while driver.poll() is None and time.monotonic() < deadline:
        hit = victims(case, driver.pid, roles)
        if hit and (rows(folder) >= wanted if wanted is not None else len(tree(driver.pid)) >= 2 * len(roles)):
            break
        time.sleep(0.05)
    everything, seen = tree(driver.pid), max(rows(folder), 0)
    for pid in hit:
        os.kill(pid, case.number)
    if case.number == signal.SIGSTOP:
        time.sleep(arguments.stop_s)
        for pid in hit:
            os.kill(pid, signal.SIGCONT)
    out, err = driver.communicate(timeout=LIMIT_S)
    time.sleep(0.5 if case.victim != "driver" else 12.0)
    left = [pid for pid in everything if Path(f"/proc/{pid}").exists()]
    try:
        found = read_run(folder).requests
        kept, done = len(found), int(found["finish_reason"].isin(["stop", "length"]).sum())
    except (SpecError, FileNotFoundError):
        kept = done = 0
    said = next((line for line in out.splitlines() if line.strip()), "") or (err.strip().splitlines() or [""])[-1]
    stopped = [line for line in out.splitlines() if "stopped by a signal for" in line]
    died = case.number == signal.SIGKILL
    if died:
        named = driver.returncode == 1 and (" died: " in said or "did not start: " in said)
    elif done < kept:  # requests failed meanwhile: that is the headline
        named = driver.returncode == 1 and " was stopped by a signal for " in said
    else:
        named = driver.returncode == 0 and (bool(stopped) or case.stage == "starting")
    well = "Traceback" not in out + err and not left and kept >= seen and (named or case.victim == "driver")
    more = f" | {stopped[0][:90]}" if stopped else ""
    name = case.number.name.removeprefix("SIG")
    text = f"{case.victim:10} {case.stage:8} {name:4} exit {driver.returncode:4} kept {kept:3} done {done:3}"
    return f"{'ok  ' if well else 'BAD '} {text} left {len(left)} | {said[:150]}{more}", well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="cpu-1p1d")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--only", help="a role, watchdog or driver")
    parser.add_argument("--stage", choices=list(STAGES))
    parser.add_argument("--signal", choices=["KILL", "STOP"])
    parser.add_argument("--stop-s", type=float, default=3.0)
    arguments = parser.parse_args()
    roles = ["prefill", "decode"] if "p" in arguments.config.split("-")[-1] else ["aggregated"]
    cases = [Case(role, stage, number) for role in roles for stage in STAGES
             for number in (signal.SIGKILL, signal.SIGSTOP)]  # fmt: skip
    cases += [Case(one, stage, signal.SIGKILL) for one in ("watchdog", "driver") for stage in STAGES]
    chosen = {"victim": arguments.only, "stage": arguments.stage}
    chosen["number"] = arguments.signal and signal.Signals[f"SIG{arguments.signal}"]
    bad = 0
    for case in cases:
        if all(value in (None, getattr(case, name)) for name, value in chosen.items()):
            with tempfile.TemporaryDirectory(prefix="planner-drill-") as folder:
                line, well = play(case, arguments, roles, Path(folder) / "run")
            bad += not well
            print(line, flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
