"""Hostile and broken input against every reader: `python benchmarks/fuzz.py --cases 20000`.

Hypothesis draws a case: a command line and the files it reads. Each runs in a process of its own, with 60 s of
processor time and 4 GiB. Allowed: exit code 0, or 2 (1 where servers answer) with one short line; JSON without NaN; no
traceback. Prints a table by kind, and the first cases of every fault; exit code 1 when there are any.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_cases import KINDS, Case
from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60
BYTES = 4 * 2**30
SLOW = 10  # seconds of a case that is worth a line
ENDED = {signal.SIGXCPU: f"{SECONDS} s of processor time", signal.SIGALRM: f"{3 * SECONDS} s"}
LINE = 1_500  # characters of a refusal


# --- running one -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    code: int
    seconds: float
    bytes: int
    out: str
    err: str


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process whose forks run the cases; ends when this one does, which closes its input."""
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    if server.stdout.readline() != "{}\n":
        raise RuntimeError("the fork server did not start")
    return server


def run(case: Case, seconds: int = SECONDS) -> Outcome:
    """Run it in a forked process, with its limits."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        for name, data in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        asked = {
            "words": [word.replace("@DIR@", str(folder)) for word in case.words],
            "folder": str(folder),
            "seconds": seconds,
            "bytes": BYTES + 2 * 2**30,  # shared libraries count in it
            "answer": None if case.answer is None else case.answer.decode("latin-1"),
        }
        begun = time.monotonic()
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        told = json.loads(server.stdout.readline())
        took = time.monotonic() - begun
        texts = [
            (folder / name).read_text(errors="replace") if (folder / name).exists() else "" for name in (".out", ".err")
        ]
        return Outcome(os.waitstatus_to_exitcode(told["status"]), took, told["bytes"], *texts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def judge(case: Case, outcome: Outcome) -> str | None:
    """What is wrong with an outcome; None when nothing is."""
    if "Traceback" in outcome.err or "Traceback" in outcome.out:
        return "traceback: " + outcome.err.strip().splitlines()[-1][:200]
    if outcome.code < 0:
        return ENDED.get(-outcome.code) or f"killed by signal {-outcome.code}"
    if outcome.bytes > BYTES:
        return f"{outcome.bytes / 2**30:.1f} GiB"
    if outcome.code not in ((0, 1, 2) if case.kind == "endpoints" else (0, 2)):
        return f"exit code {outcome.code}: {outcome.err.strip()[-200:]}"
    if outcome.code == 2 and case.kind != "endpoints":  # there, servers that start and stop are told
        said = [line for line in outcome.err.splitlines() if not re.match(r"\w[\w ]*: +\d+ %", line)]
        if len(said) != 1:
            return f"{len(said)} lines for exit code 2"
        if len(said[0]) > LINE:
            return f"a line of {len(said[0])} characters"
    if outcome.code == 0 and "--json" in case.words and case.words[0] != "import":
        try:
            for text in outcome.out.splitlines() if case.kind == "watch" else [outcome.out]:  # it tells as it goes
                json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            return f"no JSON: {error}"
    return None


# --- all of them -------------------------------------------------------------------------------


@dataclass
class Tally:
    tried: Counter[str] = field(default_factory=Counter)
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: dict[str, list[tuple[Case, str]]] = field(default_factory=dict)
    slowest: float = 0.0
    largest: int = 0


def fuzz(cases: int, kinds: list[str], number: int = 0) -> Tally:
    """Try so many cases, equally many of each kind."""
    sys.path.insert(0, str(ROOT))

    tally = Tally()
    for kind in kinds:
        _try(kind, max(1, cases // len(kinds)), number, tally)
        print(_row(kind, tally), flush=True)
    return tally


def _try(kind: str, cases: int, number: int, tally: Tally) -> None:
    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind]())
    def each(case: Case) -> None:
        outcome = run(case)
        tally.tried[kind] += 1
        tally.codes[kind, outcome.code] += 1
        tally.slowest = max(tally.slowest, outcome.seconds)
        tally.largest = max(tally.largest, outcome.bytes)
        if outcome.seconds > SLOW:
            print(f"{outcome.seconds:.0f} s: planner {' '.join(word[:200] for word in case.words)}", file=sys.stderr)
        fault = judge(case, outcome)
        if fault is not None:
            faults = tally.faults.setdefault(kind, [])
            if fault not in [known for _, known in faults]:
                print(told(case, fault), file=sys.stderr, flush=True)
            faults.append((case, fault))

    each()


def told(case: Case, fault: str) -> str:
    """A fault and what brings it about."""
    lines = [f"{fault}: planner {' '.join(word[:200] for word in case.words)}"]
    for name, data in case.files.items():
        if len(data) < 3_000 and not name.endswith(".parquet"):
            lines.append(f"  {name}: {data[:1500]!r}")
    if case.answer is not None:
        lines.append(f"  answer: {case.answer[:400]!r}")
    return "\n".join(lines)


def _row(kind: str, tally: Tally) -> str:
    codes = ", ".join(f"{code}: {count}" for (name, code), count in sorted(tally.codes.items()) if name == kind)
    return f"{kind:12} {tally.tried[kind]:6} tried, exit codes {codes}; faults {len(tally.faults.get(kind, []))}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=sorted(KINDS), choices=sorted(KINDS))
    given_ = parser.parse_args()
    tally = fuzz(given_.cases, given_.kinds, given_.seed)
    for kind, faults in tally.faults.items():
        for what, count in Counter(fault for _, fault in faults).most_common():
            print(f"{kind}: {count} x {what}")
    print(f"\nSlowest {tally.slowest:.1f} s, largest {tally.largest / 2**20:.0f} MiB")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
