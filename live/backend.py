"""Live runs: servers, frontend and client on one spec, and the tables that come of it.

with LiveSession(system, folder) as session:   # servers start
    run = session.measure(load)                # as often as wanted
                                               # servers stop
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from live.address import WorkerAddress
from live.client import ClientOptions, run_load
from live.frontend import Frontend
from live.launch import Runtime, check, detect, engine_of, step_tracing
from live.models import ServedModel, served_model
from live.results import ClientResult
from live.run_tables import requests_table, steps_table, transfers_table
from live.servers import Servers, Worker
from live.step_table import EngineTrace, read_trace
from live.telemetry import Telemetry
from live.warmup import warm_up
from planner.records import Progress, Run, frame
from planner.requests import Load
from planner.routing import NEEDS_OVERLAP
from planner.spec import Disaggregated, Rag
from planner.system import System

T = TypeVar("T")
CONTENT_SEEDS = 1_000_003  # repeats of a run on the same servers send other contents, so that no cache is warm


def _silent(_stage: str, _fraction: float) -> None:
    pass


def needs_kv_events(system: System) -> bool:
    """Whether routing looks into the prefix caches: prefix-aware policies, and prefill on the decode worker."""
    deployment = system.spec.deployment
    if isinstance(deployment, Disaggregated) and deployment.local_prefill.max_tokens:
        return True
    return any(
        pool.router.policy in NEEDS_OVERLAP and pool.limits.prefix_caching and len(pool.workers) > 1
        for pool in system.pools
    )


def model_of(system: System, weights_seed: int | None = None) -> ServedModel:
    """The model that servers of this system load; a catalogue name becomes a folder made here."""
    from planner.model_config import model_config

    spec = system.spec
    load_format = engine_of(system, system.pools[0]).load_format
    found = None if Path(spec.model).expanduser().exists() else model_config(spec.model)
    return served_model(spec.model, found.config if found else None, load_format, weights_seed=weights_seed)


class LiveSession:
    """The servers of one system, up for as many runs as wanted. A context manager.

    `endpoints` are servers that run already: nothing is started, and what only engines see stays null.
    `weights_seed` serves random weights that depend on it, for comparisons of tokens.
    """

    def __init__(
        self,
        system: System,
        folder: Path | None = None,
        *,
        endpoints: Sequence[str] = (),
        weights_seed: int | None = None,
        token: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.system = system
        self.folder = folder or Path(tempfile.mkdtemp(prefix="planner-live-"))
        self.endpoints = tuple(endpoints)
        self.runtime: Runtime | None = None
        self.model: ServedModel | None = None
        self.workers: tuple[Worker, ...] = ()
        self.results: list[ClientResult] = []
        self._weights_seed, self._token = weights_seed, token
        self._progress = progress or _silent
        self._stack = contextlib.AsyncExitStack()
        self._runner = asyncio.Runner()
        self._servers: Servers | None = None
        self._frontend: Frontend | None = None
        self._telemetry: Telemetry | None = None

    def __enter__(self) -> LiveSession:
        if not self.endpoints:
            self.runtime = detect()
            check(self.system, self.runtime)
            self.model = model_of(self.system, self._weights_seed)
        try:
            self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._progress("stop servers", 0.0)
            self._runner.run(self._stack.aclose())
            self._progress("stop servers", 1.0)
        finally:
            self._runner.close()

    async def _start(self) -> None:
        if self.endpoints:
            return
        assert self.runtime is not None
        assert self.model is not None
        try:
            self._progress("start servers", 0.0)
            servers = Servers(
                self.system,
                self.runtime,
                self.model,
                self.folder,
                kv_events=needs_kv_events(self.system),
                progress=lambda _message, fraction: self._progress("start servers", fraction),
            )
            self._servers = await self._stack.enter_async_context(servers)
            self.workers = self._servers.workers
            self.system = with_reported_blocks(self.system, self.workers)
            addresses = [WorkerAddress(one.name, one.role, one.url, one.kv_events) for one in self.workers]
            frontend = Frontend(self.system, addresses, gpu_utilization=self._gpu_utilization)
            self._frontend = await self._stack.enter_async_context(frontend)
            self._progress("warm up", 0.0)
            vocab = self.model.vocab_size or self.system.model.vocab
            await warm_up(self.workers, self.system, vocab, lambda done: self._progress("warm up", done))
        except BaseException:
            await self._stack.aclose()
            raise

    def _gpu_utilization(self) -> dict[str, float]:
        return self._telemetry.gpu_utilization() if self._telemetry else {}

    def measure(self, load: Load, *, repeat: int = 0, progress: Progress | None = None) -> Run:
        """Send a load and return its tables. Ctrl-C or SIGTERM ends it early and keeps what was measured.

        The manifest says so (`interrupted`). `repeat` numbers the runs of a session: each has its own contents.
        """
        return self._runner.run(self._measure(load, repeat, progress or self._progress))

    async def _measure(self, load: Load, repeat: int, progress: Progress) -> Run:
        seed = self.system.spec.run.seed + CONTENT_SEEDS * repeat
        vocab = (self.model.vocab_size if self.model else None) or self.system.model.vocab
        options = ClientOptions(
            vocab_size=vocab, token=self._token, rag=isinstance(self.system.spec.workload, Rag) and not self.endpoints
        )
        targets = self.endpoints or (self._base_url(),)
        host = {"load_average": list(os.getloadavg()), "cpus": os.cpu_count()}
        progress("load", 0.0)
        with _stop_on_signals() as stop:
            async with Telemetry(self.workers, self.system.spec.run.sample_interval_s) as telemetry:
                self._telemetry = telemetry
                result = await run_load(
                    targets,
                    load,
                    seed=seed,
                    options=options,
                    progress=lambda done, expected: progress("load", min(1.0, done / expected)),
                    stop=stop,
                )
        self._telemetry = None
        self.results.append(result)
        return self._tables(result, telemetry, host)

    def _base_url(self) -> str:
        assert self._frontend is not None
        return self._frontend.base_url

    # --- tables -----------------------------------------------------------------------------------

    def _tables(self, result: ClientResult, telemetry: Telemetry, host: dict[str, Any]) -> Run:
        traces: dict[str, EngineTrace] = {}
        for worker in self.workers:
            if worker.trace is not None:
                traces[worker.name] = read_trace(worker.trace, worker.name, worker.kv_blocks, result.start_s)
        records = self._frontend.records() if self._frontend else {}
        headers = [one.header_id for one in result.outcomes]
        columns = result.request_columns(records)
        requests = requests_table(columns, headers, records, traces, result.start_s)
        numbers = [one.request.request_id for one in result.outcomes]
        samples = telemetry.samples(result.start_s)
        memory = samples.pop("gpu_memory_bytes")
        sampled = frame("samples", samples)
        if any(value is not None for value in memory):
            sampled = sampled.assign(gpu_memory_bytes=memory)
        return Run(
            requests=requests.sort_values("request_id", ignore_index=True),
            steps=steps_table(traces),
            samples=sampled,
            transfers=transfers_table(self.system, numbers, headers, records, traces, result.start_s),
            tokens=result.token_table() if any(one.token_times_s for one in result.outcomes) else frame("tokens"),
            manifest=self._manifest(result, telemetry, traces, host),
        )

    def _manifest(
        self, result: ClientResult, telemetry: Telemetry, traces: dict[str, EngineTrace], host: dict[str, Any]
    ) -> dict[str, Any]:
        from planner.spec import dump, spec_hash

        system = self.system
        wires, runtime = system.wires, self.runtime
        named = {place.name: pool.role for pool in system.pools for place in pool.workers}
        return {
            "schema": 1,
            "backend": "live",
            "provenance": "measured",
            "spec": system.spec.model_dump(mode="json", by_alias=True),
            "spec_yaml": dump(system.spec),
            "spec_hash": spec_hash(system.spec),
            "seed": system.spec.run.seed,
            "profile": {},
            "gpus": system.gpus,
            "gpus_by_role": {pool.role: len(pool.workers) * pool.tp for pool in system.pools},
            "workers": dict.fromkeys(self.endpoints, "aggregated") if self.endpoints else named,
            "kv_blocks": {worker.role: worker.kv_blocks for worker in self.workers},
            "kv_blocks_by_worker": {worker.name: worker.kv_blocks for worker in self.workers},
            "links": {w.name: w.bandwidth for w in (wires.intra_node, wires.inter_node, wires.inter_rack)}
            if wires
            else {},
            "warnings": self._warnings(result, telemetry, traces),
            "stopped": False,
            "interrupted": result.stopped,
            "versions": runtime.versions() if runtime else {"python": platform.python_version()},
            "runtime": runtime.kind if runtime else "endpoint",
            "host": host,
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "server_start_s": {worker.name: round(worker.start_s, 1) for worker in self.workers},
            "schedule_lag_s": asdict(result.lag),
            "tokens": asdict(result.tokens()),
            "counters": telemetry.counters,
            "frontend": self._frontend.observations() if self._frontend else None,
            "logs": str(self.folder) if self.workers else None,
        }

    def _warnings(self, result: ClientResult, telemetry: Telemetry, traces: dict[str, EngineTrace]) -> list[str]:
        found = [*self.system.warnings, *result.notes]
        if self.model is not None and self.model.note:
            found.append(self.model.note)
        if self.runtime is not None and (reason := step_tracing(self.runtime)):
            found.append(reason)
        if result.late:
            found.append(f"the client was late: p99 of its schedule lag is {result.lag.p99_s:.2f} s")
        if not result.tokens().equal:
            found.append("prompt or output lengths differ from the plan (see tokens in the manifest)")
        ended = self._servers.ended() if self._servers else {}
        found += [f"{name} ended during the run: {why}" for name, why in ended.items()]
        found += [f"{name} did not answer at the end: its counters are missing" for name in sorted(telemetry.lost)]
        broken = {name: trace.broken_lines for name, trace in traces.items() if trace.broken_lines}
        found += [f"{name}: {lines} lines of its step trace are broken" for name, lines in broken.items()]
        if self.endpoints:
            found.append("endpoints of others: engine steps, queues and transfers are not visible and stay null")
        return found


def with_reported_blocks(system: System, workers: Sequence[Worker]) -> System:
    """The system with the KV blocks and block size that its engines report (the fewest of a pool's workers)."""
    pools = []
    for pool in system.pools:
        blocks = min(worker.kv_blocks for worker in workers if worker.role == pool.role)
        size = next(worker.block_size for worker in workers if worker.role == pool.role)
        pools.append(replace(pool, limits=replace(pool.limits, kv_blocks=blocks, block_size=size)))
    return replace(system, pools=tuple(pools))


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set (in the main thread; elsewhere nobody sets it)."""
    stop = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


class LiveBackend:
    """Real servers as a backend: started for the run and stopped after it."""

    def __init__(self, folder: Path | None = None, *, weights_seed: int | None = None) -> None:
        self._folder, self._weights_seed = folder, weights_seed

    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        """Serve a load on servers started here. Raises LiveError, SpecError, or ImportError without vLLM."""
        with LiveSession(system, self._folder, weights_seed=self._weights_seed, progress=progress) as session:
            return session.measure(load)
