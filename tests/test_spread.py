"""ProcessPool that stay: order, one killed, a parent killed, a short call beside a long one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from planner.suggestion.spread import ProcessPool, here

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPool]:
    made = ProcessPool(2)
    yield made
    made.stop()


def square(number: int) -> int:
    return number * number


def die(_: int) -> None:
    os._exit(1)


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def refuse(number: int) -> int:
    raise ValueError(f"{number} is refused")


def nothing(*_: object) -> None:
    return None


def test_results_come_in_the_order_of_inputs(workers: ProcessPool) -> None:
    ended: list[int] = []
    numbers = list(range(20))
    assert workers(square, numbers, lambda *_: ended.append(1)) == here(square, numbers, nothing)
    assert len(ended) == 20
    assert workers(square, [], nothing) == []


def test_a_fault_reaches_the_caller_and_the_workers_stay(workers: ProcessPool) -> None:
    with pytest.raises(ValueError, match="is refused"):
        workers(refuse, [1, 2, 3], nothing)
    assert workers(square, [3], nothing) == [9]


def test_a_caller_that_gives_up_leaves_nothing_behind(workers: ProcessPool) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers(pause, [0.01] * 50, stop)
    begun = time.monotonic()
    assert workers(square, [2], nothing) == [4]
    assert time.monotonic() - begun < 5


def test_a_killed_worker_is_one_line_and_then_replaced(workers: ProcessPool) -> None:
    with pytest.raises(ChildProcessError, match="was killed"):
        workers(die, [1], nothing)
    assert workers(square, [5], nothing) == [25]


def test_a_short_call_does_not_wait_for_a_long_one(workers: ProcessPool) -> None:
    workers(square, [1, 2], nothing)  # both are up

    def wait_long() -> None:
        with contextlib.suppress(RuntimeError, CancelledError):  # stopped below, before its end
            workers(pause, [0.2] * 100, nothing)

    long = threading.Thread(target=wait_long, daemon=True)
    long.start()
    time.sleep(0.3)
    begun = time.monotonic()
    assert workers(square, [7], nothing) == [49]
    assert time.monotonic() - begun < 5  # the long one takes ten seconds
    workers.stop()
    long.join(20)


def test_what_goes_first_waits_only_for_what_is_at_work() -> None:
    made, ended = ProcessPool(2), []
    long = threading.Thread(target=lambda: made(pause, [0.1] * 12, lambda *_: ended.append("long")), daemon=True)
    try:
        made(square, [1, 2], nothing)  # both are up
        long.start()
        while not ended:
            time.sleep(0.01)
        begun = len(ended)
        made(pause, [0.01] * 6, lambda *_: ended.append("first"), first=True)
        assert ended[begun:].count("long") <= 4  # two at work when it came, and those that ended until it was seen
        long.join(60)
        assert ended.count("long") == 12
    finally:
        made.stop()


def test_a_caller_is_asked_whether_to_go_on_while_its_inputs_are_at_work(workers: ProcessPool) -> None:
    asked: list[int] = []

    def going() -> None:
        asked.append(1)
        if len(asked) > 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        workers(pause, [3.0], nothing, going=going)
    assert workers(square, [2], nothing) == [4]


def test_workers_end_when_their_parent_is_killed() -> None:
    code = (
        "import os, signal, sys\n"
        "sys.path.insert(0, 'tests')\n"
        "from planner.suggestion.spread import ProcessPool\n"
        "import test_spread\n"
        "if __name__ == '__main__':\n"
        "    pids = ProcessPool(2)(test_spread.own_pid, [0.2, 0.2], lambda *_: None)\n"
        "    print(*pids, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/stat").exists() and _alive(pid) for pid in pids):
        assert time.monotonic() < until, "a worker outlives its parent"
        time.sleep(0.05)


def own_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
