"""One server process on this host, below its watchdog, and the ports it may use."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from live.watchdog import members, stat

HOST = "127.0.0.1"
STOP_GRACE_S = 10.0
LOWEST_PORT = 12_000  # below are the well-known ones of databases and the like


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Ports of this host's address that nobody listens on now, all different.

    A server binds some of its ports half a minute after it was told them. Ports that the kernel gives to outgoing
    connections could be taken meanwhile, so others are chosen, at random because starts may be at the same time.
    """
    with contextlib.suppress(OSError, ValueError):
        first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        below = range(LOWEST_PORT, first_ephemeral)
        found = [port for port in random.sample(below, min(len(below), 20 * count)) if _binds(host, port)]
        if len(found) >= count:
            return found[:count]
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind((host, 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _binds(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class ServerProcess:
    """A running command. It ends when `stop` is called or when this process dies in any way (live/watchdog.py)."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        reading, self._lifeline = os.pipe()
        script = str(Path(__file__).with_name("watchdog.py"))
        watchdog = [sys.executable, "-I", "-S", script, str(reading), str(STOP_GRACE_S)]
        try:
            with log.open("wb") as output:
                output.write(f"# {' '.join(command)}\n".encode())
                output.flush()
                self._process = subprocess.Popen(
                    [*watchdog, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(environment),
                    pass_fds=(reading,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(reading)
        self.pid = self._process.pid  # of the watchdog; its descendants are all the server's
        self._session: int | None = None  # that the watchdog started the server in

    @property
    def returncode(self) -> int | None:
        code = self._process.poll()
        if code is None and self._session is None:
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
                # between fork and setsid the child is still in the watchdog's session
                self._session = next((int(c) for c in children if int(stat(int(c))[3]) == int(c)), None)
        return code

    def stopped(self) -> bool:
        """Whether one of the server's processes is stopped by a signal (state T)."""
        if self.returncode is not None or self._session is None:
            return False
        for pid in members(self._session):
            with contextlib.suppress(OSError):
                if stat(pid)[0] == "T":
                    return True
        return False

    def stop(self) -> None:
        """End it and wait until it has; safe to call twice."""
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        self._lifeline = -1
        try:
            self._process.wait(STOP_GRACE_S + 5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._session is not None:  # a watchdog that was itself killed leaves the server's own children
            for pid in members(self._session):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
