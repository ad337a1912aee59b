"""Starts, watches and stops a Dynamo stack on this host, as live.servers does with vLLM servers alone."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp

from live import dynamo
from live.launch import MODEL_NAME, LiveError, Ports, Runtime
from live.models import ServedModel
from live.openai_api import PATHS
from live.prompts import token_range
from live.records import FrontendRecord
from live.results import ClientResult, Outcome
from live.server_process import ServerProcess, free_ports
from live.servers import LocalServer, ReadyServer, Running, Servers, read_cache_config
from planner.system.resolve import Pool, System

FRONTEND = "frontend"
_WORKER_ID = re.compile(r'^dynamo_component_\w+\{.*worker_id="([0-9a-f]+)"', re.MULTILINE)


class DynamoServers(Servers):
    """Dynamo's frontend on `bind` (port 0: a free one) and a worker for each of the system's.

    `python` is the one that has Dynamo. Workers have no address that takes requests: `url` is where they tell how they
    are. A worker that is started again would be another one to the router, so none is.
    """

    can_restart = False

    def __init__(
        self,
        system: System,
        runtime: Runtime,
        model: ServedModel,
        folder: Path,
        *,
        python: str,
        bind: tuple[str, int] = ("127.0.0.1", 0),
        start_timeout_s: float | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        super().__init__(system, runtime, model, folder, start_timeout_s=start_timeout_s, progress=progress)
        self.names: dict[int, str] = {}  # of workers by Dynamo's numbers
        self.frontend: ReadyServer | None = None
        self._python = python
        self._bind = bind[0], bind[1] or free_ports(1)[0]
        self._front: LocalServer | None = None
        self._own: Path | None = None  # discovery and step tables

    @property
    def base_url(self) -> str:
        return f"http://{self._bind[0]}:{self._bind[1]}"

    # --- starting -----------------------------------------------------------------------------------

    def _check(self) -> None:
        dynamo.check(self.system, self.runtime)

    def trace_of(self, name: str) -> Path | None:
        return None

    async def _start_all(self) -> None:
        import numpy as np

        self._check()
        self._own = Path(tempfile.mkdtemp(prefix="planner-dynamo-"))
        if self.runtime.kind == "mock":
            prompt_tokens = dynamo.typical_prompt(self.system)
            for pool in self.system.pools:
                table = dynamo.step_table(pool, prompt_tokens)
                np.savez(self._table(pool), allow_pickle=False, **table)
        await super()._start_all()
        host, port = self._bind
        side = Ports(*free_ports(3))
        command = dynamo.frontend_command(self.system, self._python, port, host)
        process = ServerProcess(command, self._environment((), side), self.folder / f"{FRONTEND}.log")
        log = self.folder / f"{FRONTEND}.log"
        self._front = LocalServer(FRONTEND, self.system.pools[0], Ports(port, 0, 0), (), process, log, None)

    def _start(self, pool: Pool, name: str, gpus: tuple[int, ...], ports: Ports) -> LocalServer:
        command = dynamo.worker_command(
            self.system, pool, self.runtime, self.model, ports, self._python, self._table(pool)
        )
        log = self.folder / f"{name}.log"
        process = ServerProcess(command, self._environment(gpus, ports), log)
        return LocalServer(name, pool, ports, gpus, process, log, None)

    def _table(self, pool: Pool) -> Path:
        assert self._own is not None
        return self._own / f"{pool.role}.npz"

    def _environment(self, gpus: tuple[int, ...], ports: Ports) -> dict[str, str]:
        assert self._own is not None
        return dynamo.environment(self.runtime, self.model, gpus, ports, self._own / "discovery")

    async def _wait_all(self) -> tuple[ReadyServer, ...]:
        workers = await super()._wait_all()
        assert self._front is not None
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            self.frontend = await self._wait(session, self._front)
        return workers

    async def _healthy(self, session: aiohttp.ClientSession, url: str) -> bool:
        async with session.get(f"{url}/health") as answer:
            told = await answer.json(content_type=None)
        if url != self.base_url:
            return bool(told.get("endpoints", {}).get("generate") == "ready")
        found = {one["instance_id"] for one in told.get("instances", ()) if one["endpoint"] == "generate"}
        return self.names.keys() <= found and await self._answers(session)

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        """Whether the frontend answers, and prefills where it should: until it has, decode workers do so alone."""
        low, _ = token_range(self.model.vocab_size or self.system.model.vocab)
        body = {"model": MODEL_NAME, "prompt": [low] * 8, "max_tokens": 1, "nvext": dynamo.NVEXT}
        async with session.post(self.base_url + PATHS["completions"], json=body) as answer:
            if answer.status != 200:
                return False
            told = await answer.json()
        workers = (told.get("nvext") or {}).get("worker_id") or {}
        return not self.system.disaggregated or "prefill_worker_id" in workers

    async def _cache_config(self, session: aiohttp.ClientSession, url: str, item: Running) -> tuple[int, int]:
        if item is self._front:
            return 1, 1
        async with session.get(f"{url}/metrics") as answer:
            number = _WORKER_ID.search(await answer.text())
        if number is None:
            raise LiveError("{name} does not tell its number in /metrics (worker_id)", item.name)
        self.names[int(number[1], 16)] = item.name
        if self.runtime.kind == "mock":  # it has what it was told
            return item.pool.limits.kv_blocks + 1, item.pool.limits.block_size
        return await read_cache_config(session, url, item.name)

    # --- watching and stopping ------------------------------------------------------------------------

    def ended(self) -> dict[str, str]:
        found = super().ended()
        if self._front is not None and (code := self._front.returncode) is not None:
            found[FRONTEND] = self._why(code, self._front)
        return found

    async def stop(self) -> None:
        front, self._front = self._front, None
        if front is not None:
            await front.stop()
        await super().stop()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    # --- what requests say ------------------------------------------------------------------------------

    def records(self, result: ClientResult) -> dict[str, FrontendRecord]:
        """What Dynamo's answers tell of their way, by x-request-id. Its clock is the host's, in milliseconds."""
        unix_s = time.time() - time.monotonic()
        size = self.system.pools[0].limits.block_size
        found = {}
        for one in result.outcomes:
            if one.nvext:
                found[one.header_id] = record_of(one, self.names, result.start_s, unix_s, size)
        return found


def record_of(
    outcome: Outcome, names: Mapping[int, str], start_s: float, unix_s: float, block_size: int
) -> FrontendRecord:
    """`unix_s` is what to add to monotonic times for those of the wall; `names` are the workers by their numbers.

    Cached tokens are the blocks that the router knew of at the prefill worker, from the KV events of the engines.
    """
    workers, timing = outcome.nvext.get("worker_id") or {}, outcome.nvext.get("timing") or {}
    decode = names.get(workers.get("decode_worker_id", -1))
    prefill = names.get(workers.get("prefill_worker_id", -1))
    record = FrontendRecord(outcome.arrival_s + start_s, worker=prefill or decode, decode_worker=decode)
    if "request_received_ms" in timing:
        record.received_s = timing["request_received_ms"] / 1e3 - unix_s
    if timing.get("prefill_wait_time_ms") is not None:
        record.queued_s = record.received_s + timing["prefill_wait_time_ms"] / 1e3
        if prefill not in (None, decode) and timing.get("prefill_time_ms") is not None:
            record.prefill_end_s = record.queued_s + timing["prefill_time_ms"] / 1e3
    if timing.get("kv_hit_rate") is not None:
        blocks = -(-outcome.prompt_tokens // block_size)
        record.cached_tokens = round(timing["kv_hit_rate"] * blocks) * block_size
    return record
