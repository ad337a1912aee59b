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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import aiohttp

from live.bounded import MOST_METRICS, whole_text
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
from live.server_log import SIGNALLED, explain_log, lost_port, out_of_memory_kills, why_ended
from live.server_process import HOST, ServerProcess, free_ports, port_is_free
from planner.system.resolve import Pool, Role, System

# A start takes 37 s on two idle cores and 75 s beside three other jobs; an 8B model on a GPU about 100 s.
CPU_START_S, CPU_START_MOST_S = 240.0, 900.0
GPU_START_S, LOAD_BYTES_S = 300.0, 0.2e9  # of which kernels and graphs; weights from a slow disk
BEAT_S = 1.0  # between two reports of servers that start
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class ReadyServer:
    """One running server."""

    name: str
    role: Role
    url: str
    pid: int  # of its watchdog, on its host; the watchdog's descendants are all the server's
    gpus: tuple[int, ...]  # as NVML counts; empty where this host cannot watch them
    kv_blocks: int  # usable blocks that the engine reports (its null block not counted)
    block_size: int
    log: Path
    trace: Path | None
    kv_events: str | None  # ZMQ address of its KV events
    start_s: float  # seconds until it was healthy
    clock_offset_s: float = 0.0  # add to its monotonic times to have this host's


class Running(Protocol):
    """A server that was started, wherever it is. `log` and `trace` are files here, as fresh as the last `refresh`."""

    name: str
    pool: Pool
    host: str
    ports: Ports
    pid: int
    gpus: tuple[int, ...]
    log: Path
    trace: Path | None
    clock_offset_s: float

    @property
    def returncode(self) -> int | None: ...

    def stopped(self) -> bool: ...

    async def refresh(self) -> None: ...

    async def stop(self) -> None: ...


class LocalServer:
    """A server on this host."""

    host = HOST
    clock_offset_s = 0.0

    def __init__(
        self,
        name: str,
        pool: Pool,
        ports: Ports,
        gpus: tuple[int, ...],
        process: ServerProcess,
        log: Path,
        trace: Path | None,
    ) -> None:
        self.name, self.pool, self.ports, self.gpus = name, pool, ports, gpus
        self.log, self.trace, self.pid = log, trace, process.pid
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def stopped(self) -> bool:
        """Whether a signal keeps one of its processes from running."""
        return self._process.stopped()

    async def refresh(self) -> None:
        """Nothing to fetch: its files are here."""

    async def stop(self) -> None:
        await asyncio.to_thread(self._process.stop)


def start_bound_s(system: System, runtime: Runtime, load: float | None = None) -> float:
    """Seconds after which a server that does not answer has failed.

    On the CPU as much longer as each core has jobs, the servers themselves counted; `load` is the host's (default: its
    load average of the last minute). On GPUs longer by the time to read the weights.
    """
    if runtime.kind != "gpu":
        jobs = (os.getloadavg()[0] if load is None else load) + sum(len(pool.servers) for pool in system.pools)
        return min(CPU_START_MOST_S, CPU_START_S * max(1.0, jobs / (os.cpu_count() or 1)))
    read = any(pool.engine.load_format != "dummy" for pool in system.pools)
    return GPU_START_S + (system.model.weight_bytes / LOAD_BYTES_S if read else 0.0)


class Servers:
    """The servers of one system on this host, as an async context manager.

    `ports` fixes the HTTP ports instead of choosing free ones; `extra` are further vLLM options for every server.
    `progress(message, fraction)` is told about the start.
    """

    can_restart = True

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
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self.system, self.runtime, self.model, self.folder = system, runtime, model, folder
        self.workers: tuple[ReadyServer, ...] = ()
        self.start_timeout_s = start_timeout_s or start_bound_s(system, runtime)
        self._ports = ports
        self._kv_events = kv_events
        self._extra = extra
        self._progress = progress or (lambda _message, _fraction: None)
        self._running: list[Running] = []
        self._killed_before = out_of_memory_kills()

    async def __aenter__(self) -> Servers:
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

    # --- starting -----------------------------------------------------------------------------------

    def trace_of(self, name: str) -> Path | None:
        """Where a worker's steps are kept; None when they are not recorded."""
        traced = self.system.spec.run.step_records and step_tracing(self.runtime) is None
        return self.folder / f"{name}.steps.jsonl" if traced else None

    def _check(self) -> None:
        """Refuse in one line what cannot be served here."""
        check(self.system, self.runtime)
        check_memory(self.system, self.runtime)

    async def _start_all(self) -> None:
        self._check()
        count = sum(len(pool.servers) for pool in self.system.pools)
        free = free_ports(3 * count)
        http = list(self._ports or free[:count])
        if len(http) != count:
            raise LiveError("{count} ports are needed for {count} servers; {given} given", count, len(http))
        first_gpu = index = 0
        for pool in self.system.pools:
            for place in pool.servers:
                # All nodes of a spec are this host: its GPUs are given out in order.
                wanted = pool.tp * pool.dp
                gpus = tuple(gpu.index for gpu in self.runtime.gpus[first_gpu : first_gpu + wanted])
                ports = Ports(http[index], free[count + index], free[2 * count + index])
                if not port_is_free(ports.http):
                    raise LiveError(
                        "{name}: port {port} is in use by another program; choose another", place.name, ports.http
                    )
                self._running.append(self._start(pool, place.name, gpus, ports))
                first_gpu, index = first_gpu + wanted, index + 1

    def _start(self, pool: Pool, name: str, gpus: tuple[int, ...], ports: Ports) -> LocalServer:
        system, runtime = self.system, self.runtime
        trace = self.trace_of(name)
        log = self.folder / f"{name}.log"
        command = server_command(system, pool, runtime, self.model, ports, kv_events=self._kv_events, extra=self._extra)
        wire = system.wires.intra_node.name if system.wires else None
        environment = server_environment(
            runtime, self.model, gpus, ports, trace.resolve() if trace else None, wire=wire
        )
        return LocalServer(name, pool, ports, gpus, ServerProcess(command, environment, log), log, trace)

    async def _wait_all(self) -> tuple[ReadyServer, ...]:
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            tasks = [asyncio.create_task(self._wait(session, item)) for item in self._running]
            try:
                waiting = set(tasks)
                while waiting:
                    finished, waiting = await asyncio.wait(waiting, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
                    up = [f"{(await task).name} is up after {(await task).start_s:.0f} s" for task in finished]
                    self._progress("; ".join(up), 1 - len(waiting) / len(tasks))
                return tuple([await task for task in tasks])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, session: aiohttp.ClientSession, item: Running) -> ReadyServer:
        url = f"http://{item.host}:{item.ports.http}"
        started = time.monotonic()
        while True:
            await item.refresh()
            code = item.returncode
            if code is not None:
                why = explain_log(item.log) if 0 <= code <= SIGNALLED else self._why(code, item)
                raise LiveError("{name} did not start: {why}; log: {log}", item.name, why, item.log)
            if (address := lost_port(item.log)) is not None:
                raise LiveError(
                    "{name}: {address} was taken by another program while it started; start again", item.name, address
                )
            elapsed = time.monotonic() - started
            if elapsed > self.start_timeout_s:
                raise LiveError(
                    "{name} was not healthy within {timeout:.0f} s (--start-timeout); it wrote last: {why}; log: {log}",
                    item.name,
                    self.start_timeout_s,
                    explain_log(item.log),
                    item.log,
                )
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if await self._healthy(session, url):
                    break
            await asyncio.sleep(POLL_S)
        elapsed = time.monotonic() - started
        blocks, block_size = await self._cache_config(session, url, item)
        return ReadyServer(
            name=item.name,
            role=item.pool.role,
            url=url,
            pid=item.pid,
            gpus=item.gpus,
            kv_blocks=blocks - 1,
            block_size=block_size,
            log=item.log,
            trace=item.trace,
            kv_events=f"tcp://{item.host}:{item.ports.kv_events}" if self._kv_events else None,
            start_s=elapsed,
            clock_offset_s=item.clock_offset_s,
        )

    async def _healthy(self, session: aiohttp.ClientSession, url: str) -> bool:
        """Raises aiohttp.ClientError or TimeoutError while nobody answers."""
        async with session.get(f"{url}/health") as answer:
            return answer.status == 200

    async def _cache_config(self, session: aiohttp.ClientSession, url: str, item: Running) -> tuple[int, int]:
        """(KV blocks with the null block, tokens a block)."""
        return await read_cache_config(session, url, item.name)

    async def restart(self, name: str) -> None:
        """Start a server that has ended again, on its own ports and GPUs; its log so far becomes NAME.before.log.

        Raises LiveError when it does not come up.
        """
        index = next(index for index, item in enumerate(self._running) if item.name == name)
        before = self._running[index]
        await before.stop()  # whatever it left behind
        before.log.replace(before.log.with_suffix(".before.log"))
        item = self._running[index] = self._start(before.pool, name, before.gpus, before.ports)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            worker = await self._wait(session, item)
        self.workers = tuple(worker if one.name == name else one for one in self.workers)

    # --- watching and stopping ------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Bring logs, traces and exit codes up to date."""
        await asyncio.gather(*(item.refresh() for item in self._running))

    async def unwell(self) -> set[str]:
        """Servers that refuse connections or say that their engine is dead: their ends are to come."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

            async def is_well(item: Running) -> bool:
                try:
                    return await self._healthy(session, f"http://{item.host}:{item.ports.http}")
                except TimeoutError:
                    return True  # busy, or stopped: no end
                except (aiohttp.ClientError, ValueError):
                    return False

            well = await asyncio.gather(*map(is_well, self._running))
        return {item.name for item, fine in zip(self._running, well, strict=True) if not fine}

    def stopped(self) -> set[str]:
        """Servers that do not run because of a signal (SIGSTOP), as far as that can be seen from here."""
        return {item.name for item in self._running if item.stopped()}

    def ended(self) -> dict[str, str]:
        """Servers that have ended by themselves: name -> why."""
        codes = {item: item.returncode for item in self._running}
        return {item.name: self._why(code, item) for item, code in codes.items() if code is not None}

    def _why(self, code: int, item: Running) -> str:
        return why_ended(code, item.log, out_of_memory_kills() - self._killed_before)

    async def stop(self) -> None:
        """Stop everything that was started; safe to call twice."""
        running, self._running = self._running, []
        await asyncio.gather(*(item.stop() for item in running))


def check_memory(system: System, runtime: Runtime) -> None:
    """On the CPU every server claims its KV cache from the host's memory at once. Raises LiveError."""
    if runtime.kind != "cpu":
        return
    needed = sum(len(pool.servers) * kv_cache_bytes(system, pool) for pool in system.pools)
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if needed > available:
        raise LiveError(
            "the model does not fit: the KV caches ask for {needed:.1f} GiB of memory, {available:.1f} GiB are "
            "available; set engine.kv_cache_memory_bytes lower",
            needed / 2**30,
            available / 2**30,
        )


async def read_cache_config(session: aiohttp.ClientSession, url: str, name: str) -> tuple[int, int]:
    """(KV blocks with the null block, tokens a block) as the engine itself reports them in /metrics."""
    async with session.get(f"{url}/metrics") as answer:
        text = await whole_text(answer, MOST_METRICS)
    line = next((line for line in text.splitlines() if line.startswith("vllm:cache_config_info{")), "")
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    try:
        return int(labels["num_gpu_blocks"]), int(labels["block_size"])
    except (KeyError, ValueError):
        raise LiveError("{name} does not report its KV blocks in /metrics (vllm:cache_config_info)", name) from None
