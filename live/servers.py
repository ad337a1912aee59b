"""Starts, watches and stops the vLLM servers of a system.

    async with Servers(system, runtime, model, folder) as servers:
        servers.workers  # name, role, address, KV blocks of each

Leaving the block, in whatever way, stops every server. Each runs below a watchdog (live/watchdog.py) that also stops
it when this process dies without leaving the block. Logs and step traces stay in `folder`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import aiohttp

from live.launch import (
    LiveError,
    Ports,
    Runtime,
    check,
    kv_cache_bytes,
    server_command,
    server_environment,
    step_tracing,
)
from live.models import ServedModel
from planner.system import Pool, Role, System

START_TIMEOUT_S = {"cpu": 600.0, "gpu": 900.0}
STOP_GRACE_S = 10.0
POLL_S = 0.25
HOST = "127.0.0.1"

# What vLLM writes when it cannot start -> what to tell the user. The first that matches a line wins.
_EXPLANATIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[Aa]ddress already in use|\[Errno 98\]"), "its port is in use by another program"),
    (
        re.compile(
            r"No available memory for the cache blocks|larger than the (?:maximum number of tokens|available KV cache)"
            r"|KV cache is needed|out of memory|OutOfMemory|Free memory on device|[Nn]ot enough memory"
            r"|can't allocate memory|MemoryError|exceeds the total|insufficient memory"
        ),
        "the model does not fit",
    ),
    (re.compile(r"unrecognized arguments|invalid choice|error: argument"), "vLLM refused an option"),
)
_ERROR_LINE = re.compile(r"\b(\w+(?:Error|Exception|Exit)): (.+)")
_WRAPPERS = ("Engine core initialization failed", "EngineCore failed to start", "See stack trace", "See root cause")


@dataclass(frozen=True, slots=True)
class Worker:
    """One running server."""

    name: str
    role: Role
    url: str
    pid: int  # of its watchdog, whose process group and descendants are all the server's
    gpus: tuple[int, ...]  # as NVML counts
    kv_blocks: int  # usable blocks that the engine reports (its null block not counted)
    block_size: int
    log: Path
    trace: Path | None
    kv_events: str | None  # ZMQ address of its KV events
    start_s: float  # seconds until it was healthy


@dataclass(slots=True)
class _Process:
    name: str
    pool: Pool
    process: asyncio.subprocess.Process
    lifeline: int  # writing end of the watchdog's pipe
    ports: Ports
    gpus: tuple[int, ...]
    log: Path
    trace: Path | None
    started: float = field(default_factory=time.monotonic)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind((HOST, 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def explain_log(log: Path) -> str:
    """Why a server ended, in one line, from what it wrote last."""
    lines = log.read_text(errors="replace").splitlines()[-400:] if log.exists() else []
    for pattern, meaning in _EXPLANATIONS:
        for line in lines:
            if pattern.search(line):
                found = _ERROR_LINE.search(line)
                detail = found[2] if found else re.sub(r"^.*?\]\s*", "", line)
                return f"{meaning} ({_shorten(detail)})"
    errors = [found for line in lines if (found := _ERROR_LINE.search(line)) and not found[2].startswith(_WRAPPERS)]
    if errors:
        return _shorten(f"{errors[-1][1]}: {errors[-1][2]}")
    last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
    return _shorten(last)


def _shorten(text: str, limit: int = 240) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Servers:
    """The servers of one system on this host, as an async context manager.

    `ports` fixes the HTTP ports instead of choosing free ones; `extra` are further vLLM options for every server,
    `worker_extra` for single ones by name. `progress(message, fraction)` is told about the start.
    """

    def __init__(
        self,
        system: System,
        runtime: Runtime,
        model: ServedModel,
        folder: Path,
        *,
        ports: Sequence[int] | None = None,
        start_timeout_s: float | None = None,
        kv_events: bool = False,
        extra: tuple[str, ...] = (),
        worker_extra: dict[str, tuple[str, ...]] | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self.system, self.runtime, self.model, self.folder = system, runtime, model, folder
        self.workers: tuple[Worker, ...] = ()
        self.start_timeout_s = start_timeout_s or START_TIMEOUT_S[runtime.kind]
        self._fixed_ports = ports
        self._kv_events = kv_events
        self._extra = extra
        self._worker_extra = worker_extra or {}
        self._progress = progress or (lambda _message, _fraction: None)
        self._processes: list[_Process] = []

    async def __aenter__(self) -> Servers:
        check(self.system, self.runtime)
        self._check_memory()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._start_all()
            self.workers = await self._wait_all()
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    def _check_memory(self) -> None:
        """On the CPU every server claims its KV cache from the host's memory at once."""
        if self.runtime.kind != "cpu":
            return
        needed = sum(len(pool.workers) * kv_cache_bytes(self.system, pool) for pool in self.system.pools)
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        if needed > available:
            raise LiveError(
                f"the model does not fit: the KV caches ask for {needed / 2**30:.1f} GiB of memory, "
                f"{available / 2**30:.1f} GiB are available; set engine.kv_cache_memory_bytes lower"
            )

    async def _start_all(self) -> None:
        count = sum(len(pool.workers) for pool in self.system.pools)
        free = free_ports(3 * count)
        http = list(self._fixed_ports or free[:count])
        if len(http) != count:
            raise LiveError(f"{count} ports are needed for {count} servers; {len(http)} given")
        first_gpu = index = 0
        for pool in self.system.pools:
            for place in pool.workers:
                # `gpus` of a place count within its node; all nodes of a run without a cluster are this host.
                gpus = tuple(gpu.index for gpu in self.runtime.gpus[first_gpu : first_gpu + pool.tp])
                ports = Ports(http[index], free[count + index], free[2 * count + index])
                if not port_is_free(ports.http):
                    raise LiveError(f"{place.name}: port {ports.http} is in use by another program; choose another")
                self._processes.append(await self._start(pool, place.name, gpus, ports))
                first_gpu, index = first_gpu + pool.tp, index + 1

    async def _start(self, pool: Pool, name: str, gpus: tuple[int, ...], ports: Ports) -> _Process:
        traced = self.system.spec.run.step_records and step_tracing(self.runtime) is None
        trace = self.folder / f"{name}.steps.jsonl" if traced else None
        log = self.folder / f"{name}.log"
        command = server_command(
            self.system,
            pool,
            self.runtime,
            self.model,
            ports,
            kv_events=self._kv_events,
            extra=self._extra + self._worker_extra.get(name, ()),
        )
        wire = self.system.wires.intra_node.name if self.system.wires else None
        traced_to = trace.resolve() if trace else None
        environment = server_environment(self.runtime, self.model, gpus, ports, traced_to, wire=wire)
        reading, writing = os.pipe()
        script = str(Path(__file__).with_name("watchdog.py"))
        watchdog = [sys.executable, "-I", "-S", script, str(reading), str(STOP_GRACE_S)]
        try:
            with log.open("wb") as output:
                output.write(f"# {' '.join(command)}\n".encode())
                output.flush()
                process = await asyncio.create_subprocess_exec(
                    *watchdog,
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    pass_fds=(reading,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        return _Process(name, pool, process, writing, ports, gpus, log, trace)

    async def _wait_all(self) -> tuple[Worker, ...]:
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            tasks = [asyncio.create_task(self._wait(session, item)) for item in self._processes]
            try:
                for done, finished in enumerate(asyncio.as_completed(tasks)):
                    worker = await finished
                    self._progress(f"{worker.name} is up after {worker.start_s:.0f} s", (done + 1) / len(tasks))
                return tuple([await task for task in tasks])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, session: aiohttp.ClientSession, item: _Process) -> Worker:
        url = f"http://{HOST}:{item.ports.http}"
        while True:
            if item.process.returncode is not None:
                raise LiveError(f"{item.name} did not start: {explain_log(item.log)}; log: {item.log}")
            elapsed = time.monotonic() - item.started
            if elapsed > self.start_timeout_s:
                raise LiveError(
                    f"{item.name} was not healthy within {self.start_timeout_s:.0f} s; it wrote last: "
                    f"{explain_log(item.log)}; log: {item.log}"
                )
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        break
            await asyncio.sleep(POLL_S)
        elapsed = time.monotonic() - item.started
        blocks, block_size = await read_cache_config(session, url, item.name)
        return Worker(
            name=item.name,
            role=item.pool.role,
            url=url,
            pid=item.process.pid,
            gpus=item.gpus,
            kv_blocks=blocks - 1,
            block_size=block_size,
            log=item.log,
            trace=item.trace,
            kv_events=f"tcp://{HOST}:{item.ports.kv_events}" if self._kv_events else None,
            start_s=elapsed,
        )

    def ended(self) -> dict[str, str]:
        """Servers that have ended by themselves: name -> why."""
        return {item.name: explain_log(item.log) for item in self._processes if item.process.returncode is not None}

    async def stop(self) -> None:
        """Stop everything that was started; safe to call twice."""
        processes, self._processes = self._processes, []
        for item in processes:
            with contextlib.suppress(OSError):
                os.close(item.lifeline)
        await asyncio.gather(*(self._reap(item) for item in processes))

    async def _reap(self, item: _Process) -> None:
        try:
            await asyncio.wait_for(item.process.wait(), STOP_GRACE_S + 5)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(item.process.pid, signal.SIGKILL)
            await item.process.wait()


async def read_cache_config(session: aiohttp.ClientSession, url: str, name: str) -> tuple[int, int]:
    """(KV blocks with the null block, tokens a block) as the engine itself reports them in /metrics."""
    async with session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    line = next((line for line in text.splitlines() if line.startswith("vllm:cache_config_info{")), "")
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    try:
        return int(labels["num_gpu_blocks"]), int(labels["block_size"])
    except (KeyError, ValueError):
        raise LiveError(f"{name} does not report its KV blocks in /metrics (vllm:cache_config_info)") from None
