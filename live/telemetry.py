"""What servers and GPUs say about themselves while a run goes on: vLLM's /metrics, and NVML where there is a GPU."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import aiohttp

from live.bounded import MOST_METRICS, whole_text
from live.servers import ReadyServer

_LINE = re.compile(r"^(vllm:[a-zA-Z0-9_]+)(\{[^}]*\})? (\S+)$")
_SOURCE = re.compile(r'source="([a-z_]+)"')

# What a run keeps of each worker's counters, as differences over the run.
COUNTERS = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:external_prefix_cache_queries_total",
    "vllm:external_prefix_cache_hits_total",
    "vllm:prompt_tokens_by_source_total[local_compute]",
    "vllm:prompt_tokens_by_source_total[local_cache_hit]",
    "vllm:prompt_tokens_by_source_total[external_kv_transfer]",
    "vllm:nixl_bytes_transferred_sum",
    "vllm:nixl_bytes_transferred_count",
    "vllm:nixl_xfer_time_seconds_sum",
    "vllm:nixl_xfer_time_seconds_count",
    "vllm:nixl_post_time_seconds_sum",
    "vllm:nixl_num_failed_transfers_total",
    "vllm:nixl_num_kv_expired_reqs_total",
)


def parse_metrics(text: str) -> dict[str, float]:
    """vLLM's samples by name, `name[source]` where a source label tells them apart; other labels are summed over."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None or found[1].endswith(("_bucket", "_created", "_info")):
            continue
        source = _SOURCE.search(found[2] or "")
        key = f"{found[1]}[{source[1]}]" if source else found[1]
        values[key] = values.get(key, 0.0) + float(found[3])
    return values


async def read_metrics(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """The current values of one server. Raises aiohttp.ClientError or TimeoutError when it does not answer."""
    async with session.get(f"{url}/metrics") as answer:
        answer.raise_for_status()
        return parse_metrics(await whole_text(answer, MOST_METRICS))


def growth_of(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What COUNTERS grew by; those that the server does not have are left out."""
    return {name: after[name] - before.get(name, 0.0) for name in COUNTERS if name in after}


class GpuReader:
    """Utilisation, power and memory through NVML; gives nulls for workers without GPUs."""

    def __init__(self, workers: Sequence[ReadyServer]) -> None:
        self._handles: dict[str, list[Any]] = {}
        self._nvml: Any = None
        if any(worker.gpus for worker in workers):
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            for worker in workers:
                self._handles[worker.name] = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in worker.gpus]

    def read(self, name: str) -> tuple[float | None, float | None, int | None]:
        """(mean utilisation 0 to 1, watts of all its GPUs, bytes in use on them)."""
        handles = self._handles.get(name)
        if not handles:
            return None, None, None
        nvml = self._nvml
        busy = sum(nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles) / len(handles) / 100
        watts = sum(nvml.nvmlDeviceGetPowerUsage(handle) for handle in handles) / 1000
        used = sum(nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles)
        return busy, watts, int(used)

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()


class Telemetry:
    """Samples every worker each `interval_s` while the block runs, on the clock that starts at `start_s` (monotonic).

    `keep` bounds the samples kept. `counters` holds, after the block, what each worker's counters grew by; a worker
    that is gone by then has none and is named in `lost`.
    """

    def __init__(self, workers: Sequence[ReadyServer], interval_s: float, keep: int | None = None) -> None:
        self.workers = tuple(workers)
        self.interval_s = interval_s
        self.rows: deque[tuple[Any, ...]] = deque(
            maxlen=keep
        )  # (monotonic time, worker, running, waiting, kv, gpu, watts, bytes)
        self.counters: dict[str, dict[str, float]] = {}
        self.lost: set[str] = set()
        self._gpu = GpuReader(workers)
        self._before: dict[str, dict[str, float]] = {}

    async def __aenter__(self) -> Telemetry:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        for worker in self.workers:
            try:
                self._before[worker.name] = await read_metrics(self._session, worker.url)
            except (aiohttp.ClientError, TimeoutError):
                self.lost.add(worker.name)  # it may have ended between its start and the load
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for worker in self.workers:
            try:
                after = await read_metrics(self._session, worker.url)
            except (aiohttp.ClientError, TimeoutError):
                self.lost.add(worker.name)
                continue
            if worker.name in self._before:
                self.counters[worker.name] = growth_of(self._before[worker.name], after)
        await self._session.close()
        self._gpu.close()

    async def _follow(self) -> None:
        while True:
            begin = time.monotonic()
            await asyncio.gather(*(self._sample(worker) for worker in self.workers))
            await asyncio.sleep(max(0.0, self.interval_s - (time.monotonic() - begin)))

    async def _sample(self, worker: ReadyServer) -> None:
        try:
            values = await read_metrics(self._session, worker.url)
        except (aiohttp.ClientError, TimeoutError):
            self.lost.add(worker.name)
            return
        self.lost.discard(worker.name)
        self.rows.append(
            (
                time.monotonic(),
                worker.name,
                int(values.get("vllm:num_requests_running", 0)),
                int(values.get("vllm:num_requests_waiting", 0)),
                values.get("vllm:kv_cache_usage_perc"),
                *self._gpu.read(worker.name),
            )
        )

    def gpu_utilization(self) -> dict[str, float]:
        """The newest of each worker that has GPUs, 0 to 1."""
        return {row[1]: row[5] for row in list(self.rows)[-len(self.workers) :] if row[5] is not None}

    def samples(self, start_s: float) -> dict[str, list[Any]]:
        """Columns of records.SAMPLE_COLUMNS, and the bytes in use on the GPUs, with times from `start_s` on."""
        rows = sorted((row for row in self.rows if row[0] >= start_s), key=lambda row: (row[0], row[1]))
        names = ("worker", "running", "waiting", "kv_used_fraction", "gpu_utilization", "power_w", "gpu_memory_bytes")
        columns: dict[str, list[Any]] = {"time_s": [row[0] - start_s for row in rows]}
        return columns | {name: [row[index] for row in rows] for index, name in enumerate(names, 1)}
