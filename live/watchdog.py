"""Runs one server and ends it, with everything it started, as soon as the driver is gone.

    python watchdog.py FD GRACE_S COMMAND...

FD is the reading end of a pipe whose other end only the driver holds: when the driver closes it, or dies in any way,
the read ends and the server is stopped: SIGTERM, GRACE_S seconds, then SIGKILL to its whole process group and to
whatever processes it left behind (Linux hands those to this process). Exits with the server's own exit code.
Where this process is itself killed (Ray kills the children of an actor whose node is lost), a guard that is nobody's
child kills the server's session: its engine would otherwise live on without an API server.
Standard library only, because it must start at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def stat(pid: int) -> list[str]:
    """The fields of a process's stat from its state on, past a name that may hold anything. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def members(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, its_session = stat(int(entry.name))[:4]
                if int(its_session) == session and state != "Z":
                    found.append(int(entry.name))
    return found


def _guard(lifeline: int) -> int:
    """Start the guard. Returns the end of a pipe to tell it the server's session; it acts when that end is closed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(reading)
        os.waitpid(child, 0)
        return writing
    if os.fork():
        os._exit(0)
    try:
        os.close(writing)
        os.close(lifeline)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        told = b"".join(iter(lambda: os.read(reading, 64), b""))
        deadline = time.monotonic() + 5
        while told and (left := members(int(told))) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    finally:
        os._exit(0)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(server: subprocess.Popen[bytes], grace_s: float) -> None:
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + 2
    while (left := _children()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the pipe closes."""
    pipe, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    os.set_inheritable(pipe, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # only the pipe stops it
    guard = _guard(pipe)  # before this process takes in what is left behind
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _die_with_parent()

    server = subprocess.Popen(command, start_new_session=True, preexec_fn=prepare)
    os.write(guard, str(server.pid).encode())
    while server.poll() is None:
        readable, _, _ = select.select([pipe], [], [], 0.1)
        if readable and not os.read(pipe, 1):
            break
    _end(server, grace_s)
    code = server.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
