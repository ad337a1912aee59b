"""Writes what each engine step did, from inside vLLM, through its `--scheduler-cls` option.

Loaded by the server process only (`live.step_trace.tracing_scheduler`): a subclass of the scheduler that the server
would have used, synchronous or asynchronous, whose results are passed on unchanged. It appends JSON lines to the file
named by PLANNER_STEP_TRACE (ranks in data parallel each in its own, `live.trace_file.of_rank`):

    a step     {"t", "d", "l", "pf": [[new tokens, tokens before], ...], "dec", "ctx", "run", "wait", "free", "pre"}
    a request  {"r": vLLM's id, "queued", "start", "prefilled", "cached", "kv0", "kv1", "kv_blocks", "pre", "end"}

Times are CLOCK_MONOTONIC seconds, the clock of every process on the host. "t" is where the step was scheduled. "d" is
its duration: with synchronous scheduling until its results were taken in; with asynchronous scheduling, where steps
overlap, the time between the results of two steps that follow each other without a pause. "l" is the time until the
scheduler was called next: with asynchronous scheduling, which comes back once a step is launched, that of the launch;
a step whose results came first has none. "kv0" to "kv1" is the wait
for KV from another worker, "kv_blocks" the blocks read.

vLLM does not promise this interface: `live.launch.step_tracing` says for which versions it is known to hold.
"""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from live.trace_file import TraceFile, of_rank

TRACE_VARIABLE = "PLANNER_STEP_TRACE"
FLUSH_S = 0.5


class _Tracing:
    """Mixin before a vLLM scheduler class. A request that vLLM aborts is written with what was known of it."""

    overlapping = False  # asynchronous: a step is scheduled while the one before it runs

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The index stays where vLLM makes independent servers of a dense model's ranks; their rank is then 0.
        rank = self.vllm_config.parallel_config.data_parallel_index  # type: ignore[attr-defined]
        self._trace = TraceFile(of_rank(Path(os.environ[TRACE_VARIABLE]), rank))
        self._steps: dict[int, tuple[float, dict[str, Any] | None]] = {}  # by id() of the scheduler's output
        self._open: dict[str, dict[str, Any]] = {}
        self._last_result = 0.0
        self._latest: dict[str, Any] | None = None  # the latest step, until the scheduler is called again
        self._flushed = time.monotonic()
        atexit.register(self._trace.flush)

    def add_request(self, request: Any) -> None:
        self._open.setdefault(request.request_id, {"r": request.request_id, "queued": round(time.monotonic(), 6)})
        super().add_request(request)  # type: ignore[misc]

    def finish_requests(self, request_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """vLLM calls this for aborts."""
        result = super().finish_requests(request_ids, *args, **kwargs)  # type: ignore[misc]
        names = [request_ids] if isinstance(request_ids, str) else list(request_ids or ())
        for name in names:
            self._close(name, time.monotonic())
        return result

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        if self._latest is not None:
            self._latest["l"] = round(start - self._latest["t"], 6)
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        if self.connector is not None:  # type: ignore[attr-defined]
            self._note_waits(start)
        record = self._composition(output, start) if output.total_num_scheduled_tokens else None
        self._latest = record
        self._steps[id(output)] = (start, record)
        return output

    def _note_waits(self, now: float) -> None:
        """Requests that began to wait for KV from another worker in this call."""
        for name, request in self.requests.items():  # type: ignore[attr-defined]
            entry = self._open.get(name)
            if entry and "kv0" not in entry and request.status == RequestStatus.WAITING_FOR_REMOTE_KVS:
                groups = self.kv_cache_manager.get_blocks(name).blocks  # type: ignore[attr-defined]
                entry["kv0"] = round(now, 6)
                # Blocks found in its own prefix cache are hashed already and are not read.
                entry["kv_blocks"] = sum(block.block_hash is None for group in groups for block in group)

    def _composition(self, output: Any, start: float) -> dict[str, Any]:
        new = {request.req_id: request.num_computed_tokens for request in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        done = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        chunks: list[list[int]] = []
        decodes = context = 0
        for name, tokens in output.num_scheduled_tokens.items():
            had = new[name] if name in new else done[name]
            request = self.requests[name]  # type: ignore[attr-defined]
            # A request that is new, that is recomputed after preemption, or whose prompt is not done is prefilling.
            if name in new or tokens > 1 + self.num_spec_tokens or had < request.num_prompt_tokens:  # type: ignore[attr-defined]
                chunks.append([tokens, had])
                self._note_prefill(name, request, had, had + tokens, start, id(output))
            else:
                decodes, context = decodes + 1, context + had
        return {
            "t": round(start, 6),
            "pf": chunks,
            "dec": decodes,
            "ctx": context,
            "run": len(self.running),  # type: ignore[attr-defined]
            "wait": len(self.waiting) + len(getattr(self, "skipped_waiting", ())),  # type: ignore[attr-defined]
            "free": self.kv_cache_manager.block_pool.get_num_free_blocks(),  # type: ignore[attr-defined]
            "pre": len(output.preempted_req_ids or ()),
        }

    def _note_prefill(self, name: str, request: Any, had: int, reached: int, now: float, step: int) -> None:
        entry = self._open.get(name)
        if entry is None:
            return
        if "start" not in entry:
            entry["start"], entry["cached"] = round(now, 6), had
        if reached >= request.num_prompt_tokens and "last" not in entry:
            entry["last"] = step  # its prompt ends with this step, whose results give the time

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any, *args: Any, **kwargs: Any) -> Any:
        arrivals = getattr(model_runner_output, "kv_connector_output", None)
        for name in getattr(arrivals, "finished_recving", None) or ():
            if entry := self._open.get(name):
                entry["kv1"] = round(time.monotonic(), 6)
        result = super().update_from_output(scheduler_output, model_runner_output, *args, **kwargs)  # type: ignore[misc]
        now = time.monotonic()
        start, record = self._steps.pop(id(scheduler_output), (now, None))
        if record is not None:
            begin = max(start, self._last_result) if self.overlapping else start
            self._last_result = now
            record["d"] = round(now - begin, 6)
            self._trace.write(record)
            self._close_finished(scheduler_output, result, now)
        if now - self._flushed > FLUSH_S or not self.running:  # type: ignore[attr-defined]
            self._trace.flush()
            self._flushed = now
        return result

    def _close_finished(self, scheduler_output: Any, result: Any, now: float) -> None:
        for name in scheduler_output.num_scheduled_tokens:
            entry = self._open.get(name)
            if entry and entry.get("last") == id(scheduler_output) and "prefilled" not in entry:
                entry["prefilled"] = round(now, 6)
        for preempted in scheduler_output.preempted_req_ids or ():
            if entry := self._open.get(preempted):
                entry["pre"] = entry.get("pre", 0) + 1
        for outputs in result.values():
            for item in outputs.outputs:
                if item.finish_reason is not None:
                    self._close(item.request_id, now)

    def _close(self, name: str, now: float) -> None:
        entry = self._open.pop(name, None)
        if entry is not None:
            entry.pop("last", None)
            entry["end"] = round(now, 6)
            self._trace.write(entry)


class TracingScheduler(_Tracing, Scheduler):
    """vLLM's synchronous scheduler, traced."""


class TracingAsyncScheduler(_Tracing, AsyncScheduler):
    """vLLM's asynchronous scheduler, traced."""

    overlapping = True


def tracing_scheduler(*args: Any, **kwargs: Any) -> Any:
    """The traced form of the scheduler that vLLM itself would take for this configuration; untraced without a file."""
    config = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
    asynchronous = bool(config.scheduler_config.async_scheduling)
    if TRACE_VARIABLE not in os.environ:
        return (AsyncScheduler if asynchronous else Scheduler)(*args, **kwargs)
    return (TracingAsyncScheduler if asynchronous else TracingScheduler)(*args, **kwargs)
