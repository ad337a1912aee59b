"""Live runs: servers, frontend and client on one spec, and the tables that come of it.

with LiveSession(system, folder) as session:   # servers start
    run = session.measure(load)                # as often as wanted
                                               # servers stop
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from live import dynamo
from live.address import ServerAddress
from live.client import ClientOptions, run_load
from live.dynamo_servers import FRONTEND, DynamoServers
from live.frontend import Frontend, check_address, quiet_collector
from live.launch import LiveError, Runtime, check, detect
from live.manifest import Circumstances, beginning, manifest
from live.models import ServedModel, served_model
from live.restarts import Restarts
from live.results import ClientResult, Outcome, row_of
from live.run_tables import requests_table, steps_table, transfers_table
from live.servers import ReadyServer, Servers
from live.step_table import EngineTrace, read_ranks
from live.stop_signal import Stopped, stop_on_signals
from live.telemetry import Telemetry
from live.warmup import NoAnswer, warm_up
from planner.routing import NEEDS_OVERLAP
from planner.run.journal import Journal
from planner.run.tables import Progress, Run, frame
from planner.spec import Disaggregated, Rag
from planner.system.resolve import System
from planner.traffic.requests import Load

T = TypeVar("T")
SETTLE_S = 15.0
CONTENT_SEEDS = 1_000_003  # repeats of a run on the same servers send other contents, so that no cache is warm


def _silent(_stage: str, _fraction: float) -> None:
    pass


def needs_kv_events(system: System) -> bool:
    """Whether routing looks into the prefix caches: prefix-aware policies, and prefill on the decode worker."""
    deployment = system.spec.deployment
    if isinstance(deployment, Disaggregated) and deployment.local_prefill.max_tokens:
        return True
    return any(
        pool.router.policy in NEEDS_OVERLAP and pool.limits.prefix_caching and len(pool.servers) > 1
        for pool in system.pools
    )


def model_of(system: System, weights_seed: int | None = None) -> ServedModel:
    """The model that servers of this system load; a catalogue name becomes a folder made here."""
    from planner.engine.model_config import model_config

    spec = system.spec
    load_format = system.pools[0].engine.load_format
    found = None if Path(spec.model).expanduser().exists() else model_config(spec.model)
    return served_model(spec.model, found.config if found else None, load_format, weights_seed=weights_seed)


class LiveSession:
    """The servers of one system, up for as many runs as wanted. A context manager.

    `send` plays the clients, in this process unless it is replaced.
    `endpoints` are servers that run already: nothing is started, and what only engines see stays null.
    `dynamo` is the Python whose NVIDIA Dynamo serves, frontend and workers, instead of our frontend and vLLM servers.
    `weights_seed` serves random weights that depend on it, for comparisons of tokens. The frontend listens on `bind`
    (port 0: a free one); beyond loopback it needs a `token`. `ray` is the address of a Ray cluster to run on.
    A server may take `start_timeout_s` to start, by default what live.servers.start_bound_s gives; `server_options` are
    further options of every vLLM server on this host.
    """

    def __init__(
        self,
        system: System,
        folder: Path | None = None,
        *,
        endpoints: Sequence[str] = (),
        weights_seed: int | None = None,
        bind: tuple[str, int] = ("127.0.0.1", 0),
        token: str | None = None,
        ray: str | None = None,
        dynamo: str | None = None,
        start_timeout_s: float | None = None,
        server_options: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        self.system = system
        self.folder = folder or Path(tempfile.mkdtemp(prefix="planner-live-"))
        self.endpoints = tuple(endpoints)
        self.runtime: Runtime | None = None
        self.model: ServedModel | None = None
        self.workers: tuple[ReadyServer, ...] = ()
        self.results: list[ClientResult] = []
        self._weights_seed, self._bind, self._token = weights_seed, bind, token
        self._ray, self._dynamo, self._start_timeout_s = ray, dynamo, start_timeout_s
        self._worker_token = token if ray is not None else None  # on this host nobody else reaches the servers
        self._server_options = tuple(server_options)
        self._progress = progress or _silent
        self.send: Callable[..., Awaitable[ClientResult]] = run_load
        self._stack = contextlib.AsyncExitStack()
        self._runner = asyncio.Runner()
        self._servers: Servers | None = None
        self._frontend: Frontend | None = None
        self._telemetry: Telemetry | None = None

    def __enter__(self) -> LiveSession:
        try:
            if not self._runner.run(self._start_unless_stopped()):
                raise KeyboardInterrupt
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._progress("stop servers", 0.0)
            self._runner.run(self._stop())
            self._progress("stop servers", 1.0)
        finally:
            self._runner.close()

    async def _stop(self) -> None:
        """Stop the servers. A signal ends nothing then: it takes seconds, and what was measured is told after it."""
        with stop_on_signals():
            await self._stack.aclose()

    async def _start_unless_stopped(self) -> bool:
        """Start; on SIGINT or SIGTERM stop what has started instead, and return False."""
        with stop_on_signals() as stop:
            starting, stopping = asyncio.create_task(self._start()), asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                starting.cancel()
                stopping.cancel()
                await asyncio.gather(starting, stopping, return_exceptions=True)
            if not stop.is_set():
                starting.result()
                return True
            await self._stack.aclose()
            return False

    async def _start(self) -> None:
        if self.endpoints:
            return
        check_address(*self._bind, self._token)  # servers take minutes to start
        try:
            self._progress("start servers", 0.0)
            self._servers = await self._stack.enter_async_context(self._make_servers())
            self.runtime, self.model = self._servers.runtime, self._servers.model
            self.workers = self._servers.workers
            self.system = with_reported_blocks(self.system, self.workers)
            vocab = self.model.vocab_size or self.system.model.vocab
            report = partial(self._progress, "warm up")
            if isinstance(self._servers, DynamoServers):
                assert self._servers.frontend is not None
                await warm_up([self._servers.frontend] * len(self.workers), self.system, vocab, report)
                return
            addresses = [ServerAddress(one.name, one.role, one.url, one.kv_events) for one in self.workers]
            host, port = self._bind
            frontend = Frontend(
                self.system,
                addresses,
                host=host,
                port=port,
                token=self._token,
                worker_token=self._worker_token,
                gpu_utilization=self._gpu_utilization,
                stopped=self._servers.stopped,
            )
            self._frontend = await self._stack.enter_async_context(frontend)
            self._stack.enter_context(quiet_collector())
            self._progress("warm up", 0.0)
            await self._warm_up(self._servers, vocab, report)
        except BaseException:
            await self._stack.aclose()
            raise

    async def _warm_up(self, servers: Servers, vocab: int, report: Callable[[float], None]) -> None:
        """Raises LiveError, which names a server that died meanwhile rather than the request that it failed."""
        try:
            await warm_up(self.workers, self.system, vocab, report, token=self._worker_token)
        except NoAnswer:
            deadline = time.monotonic() + SETTLE_S
            await servers.refresh()
            while not servers.ended() and not servers.stopped() and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                await servers.refresh()
            for name, why in servers.ended().items():
                log = self.folder / f"{name}.log"
                raise LiveError("{name} died while it warmed up: {why}; log: {log}", name, why, log) from None
            for name in servers.stopped():
                raise LiveError("{name} was stopped by a signal while it warmed up", name) from None
            raise

    def _make_servers(self) -> Servers:
        def report(_message: str, fraction: float) -> None:
            self._progress("start servers", fraction)

        make_model = partial(model_of, self.system, self._weights_seed)
        events = needs_kv_events(self.system)
        if self._ray is not None:
            from live.ray_cluster import RayServers

            return RayServers(
                self.system,
                self.folder,
                make_model,
                address=self._ray,
                kv_events=events,
                token=self._worker_token,
                start_timeout_s=self._start_timeout_s,
                progress=report,
            )
        if self._dynamo is not None:
            runtime = dynamo.detect(self._dynamo)
            dynamo.check(self.system, runtime)
            model = make_model()
            return DynamoServers(
                self.system,
                runtime,
                dynamo.mock_model(self.system, model) if runtime.kind == "mock" else model,
                self.folder,
                python=self._dynamo,
                bind=self._bind,
                start_timeout_s=self._start_timeout_s,
                progress=report,
            )
        runtime = detect()
        check(self.system, runtime)
        return Servers(
            self.system,
            runtime,
            make_model(),
            self.folder,
            start_timeout_s=self._start_timeout_s,
            kv_events=events,
            extra=self._server_options,
            progress=report,
        )

    def _gpu_utilization(self) -> dict[str, float]:
        return self._telemetry.gpu_utilization() if self._telemetry else {}

    def measure(
        self, load: Load, *, repeat: int = 0, progress: Progress | None = None, keep: Path | None = None
    ) -> Run:
        """Send a load and return its tables. Ctrl-C, SIGTERM or SIGHUP ends it early and keeps what was measured.

        The manifest says so (`interrupted`). `repeat` numbers the runs of a session: each has its own contents.
        In the folder `keep` each request is written as it ends (planner.run.journal). Raises KeyboardInterrupt when it
        is ended before the first request.
        """
        try:
            return self._runner.run(self._measure(load, repeat, progress or self._progress, keep))
        except Stopped:
            raise KeyboardInterrupt from None

    async def _measure(self, load: Load, repeat: int, progress: Progress, keep: Path | None = None) -> Run:
        seed = self.system.spec.run.seed + CONTENT_SEEDS * repeat
        vocab = (self.model.vocab_size if self.model else None) or self.system.model.vocab
        options = ClientOptions(
            vocab_size=vocab,
            token=self._token,
            rag=isinstance(self.system.spec.workload, Rag) and not self.endpoints and self._dynamo is None,
            nvext=dynamo.NVEXT if self._dynamo is not None else None,
        )
        targets = self.endpoints or (self.base_url,)
        host = {"load_average": list(os.getloadavg()), "cpus": os.cpu_count()}
        progress("load", 0.0)
        journal = Journal(keep, beginning(self.system, self.runtime, self.workers, self.endpoints)) if keep else None
        with stop_on_signals() as stop, journal or contextlib.nullcontext():
            async with Telemetry(self.workers, self.system.spec.run.sample_interval_s) as telemetry:
                self._telemetry = telemetry
                result = await self.send(
                    targets,
                    load,
                    seed=seed,
                    options=options,
                    progress=lambda done, expected: progress("load", min(1.0, done / expected)),
                    stop=stop,
                    ended=partial(self._note, journal) if journal else None,
                )
        self._telemetry = None
        self.results.append(result)
        if self._servers is not None:
            ending = telemetry.lost | self._failed_last(result) | await self._servers.unwell()
            await self._settle(self._servers, ending)
        return self._tables(result, telemetry, host)

    def _note(self, journal: Journal, outcome: Outcome, start_s: float) -> None:
        seen = self._frontend.record(outcome.header_id) if self._frontend else None
        row = row_of(outcome, seen, start_s)
        journal.add({name: value for name, value in row.items() if value is not None and value == value})  # no NaN

    def _failed_last(self, result: ClientResult) -> set[str]:
        """The servers of requests that failed just now: an engine's death ends them before its server has ended."""
        since_s = time.monotonic() - result.start_s - SETTLE_S
        failed = [one for one in result.outcomes if one.finish_reason == "error" and one.finish_s > since_s]
        if result.stopped or self._frontend is None:
            return set()
        seen = [self._frontend.record(one.header_id) for one in failed]
        return {name for one in seen if one is not None for name in (one.worker, one.decode_worker) if name}

    async def _settle(self, servers: Servers, silent: set[str]) -> None:
        """Bring files home. A server that fell silent may still be on its way out: its end is waited for a little."""
        deadline = time.monotonic() + SETTLE_S
        await servers.refresh()
        while not silent <= servers.ended().keys() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            await servers.refresh()

    @property
    def base_url(self) -> str:
        """Where the frontend listens."""
        if isinstance(self._servers, DynamoServers):
            return self._servers.base_url
        assert self._frontend is not None
        return self._frontend.base_url

    def wait(self) -> None:
        """Serve until SIGINT or SIGTERM. A server that ends is started again a few times; then its pool does without.

        Raises LiveError when a pool has no server left.
        """
        self._runner.run(self._wait())

    async def _wait(self) -> None:
        assert self._servers is not None
        interval_s, restarts = self.system.spec.run.sample_interval_s, Restarts(self._servers)
        with stop_on_signals() as stop:
            try:
                async with Telemetry(self.workers, interval_s, keep=len(self.workers)) as self._telemetry:
                    while not stop.is_set():
                        await self._servers.refresh()
                        self._check_pools(restarts.look())
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(stop.wait(), 1.0)
            finally:
                await restarts.stop()

    def _check_pools(self, ended: dict[str, str]) -> None:
        if FRONTEND in ended:
            raise LiveError("{name} ended: {why}", FRONTEND, ended[FRONTEND])
        for pool in self.system.pools:
            names = [place.name for place in pool.servers]
            if all(name in ended for name in names):
                raise LiveError("no {role} server is left: {name} ended: {why}", pool.role, names[0], ended[names[0]])

    # --- tables -----------------------------------------------------------------------------------

    def _tables(self, result: ClientResult, telemetry: Telemetry, host: dict[str, Any]) -> Run:
        traces: dict[str, EngineTrace] = {}
        for worker in self.workers:
            if worker.trace is not None:
                places = [place for pool in self.system.pools for place in pool.workers]
                ranks = [place.name for place in places if worker.name in (place.name, place.server)]
                traces[worker.name] = read_ranks(
                    worker.trace, ranks, worker.kv_blocks, result.start_s, worker.clock_offset_s
                )
        records = self._frontend.records() if self._frontend else {}
        if isinstance(self._servers, DynamoServers):
            records = self._servers.records(result)
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
            manifest=manifest(
                Circumstances(
                    system=self.system,
                    runtime=self.runtime,
                    model=self.model,
                    workers=self.workers,
                    endpoints=self.endpoints,
                    result=result,
                    telemetry=telemetry,
                    traces=traces,
                    host=host,
                    frontend=self._frontend.observations() if self._frontend else None,
                    ended=self._servers.ended() if self._servers else {},
                    folder=self.folder,
                )
            ),
        )


def with_reported_blocks(system: System, workers: Sequence[ReadyServer]) -> System:
    """The system with the KV blocks and block size that its engines report (the fewest of a pool's workers)."""
    pools = []
    for pool in system.pools:
        blocks = min(worker.kv_blocks for worker in workers if worker.role == pool.role)
        size = next(worker.block_size for worker in workers if worker.role == pool.role)
        pools.append(replace(pool, limits=replace(pool.limits, kv_blocks=blocks, block_size=size)))
    return replace(system, pools=tuple(pools))
