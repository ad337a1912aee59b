"""The traced scheduler, around a stand-in for vLLM's: when a prompt of several chunks is said to have ended."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from live.step_table import read_ranks
from live.trace_file import TraceFile


class Scheduler:
    """As much of vLLM's as the trace looks at: it hands out the outputs that it is given."""

    def __init__(self, outputs: list[Any], rank: int = 0) -> None:
        self.vllm_config = SimpleNamespace(parallel_config=SimpleNamespace(data_parallel_index=rank))
        self.outputs = outputs
        self.requests: dict[str, Any] = {}
        self.running, self.waiting = [1], list[int]()
        self.connector = None
        self.num_spec_tokens = 0
        self.kv_cache_manager = SimpleNamespace(block_pool=SimpleNamespace(get_num_free_blocks=lambda: 7))

    def add_request(self, request: Any) -> None:
        self.requests[request.request_id] = request

    def schedule(self) -> Any:
        return self.outputs.pop(0)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, Any]:
        return {}


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """live.step_trace, imported over stand-ins for the three modules of vLLM that it names."""
    parts = ("", ".v1", ".v1.core", ".v1.core.sched", ".v1.request", ".v1.core.sched.async_scheduler")
    for name in (f"vllm{part}" for part in (*parts, ".v1.core.sched.scheduler")):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["vllm.v1.core.sched.async_scheduler"].AsyncScheduler = Scheduler  # type: ignore[attr-defined]
    sys.modules["vllm.v1.core.sched.scheduler"].Scheduler = type("Sync", (Scheduler,), {})  # type: ignore[attr-defined]
    sys.modules["vllm.v1.request"].RequestStatus = SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setenv("PLANNER_STEP_TRACE", str(tmp_path / "trace"))
    monkeypatch.delitem(sys.modules, "live.step_trace", raising=False)
    yield importlib.import_module("live.step_trace")
    monkeypatch.delitem(sys.modules, "live.step_trace", raising=False)


def output(new: bool, tokens: int, had: int) -> Any:
    first = [SimpleNamespace(req_id="r", num_computed_tokens=had)] if new else []
    cached = SimpleNamespace(req_ids=[] if new else ["r"], num_computed_tokens=[] if new else [had])
    return SimpleNamespace(
        scheduled_new_reqs=first,
        scheduled_cached_reqs=cached,
        num_scheduled_tokens={"r": tokens},
        total_num_scheduled_tokens=tokens,
        preempted_req_ids=None,
    )


def test_a_prompt_of_two_chunks_ends_with_the_results_of_the_second(trace: Any, tmp_path: Path) -> None:
    """The first chunk's results come in after the second is scheduled, whose end must not be taken for them."""
    chunks = [output(True, 8192, 0), output(False, 808, 8192)]
    scheduler = trace.TracingAsyncScheduler(list(chunks))
    scheduler.add_request(SimpleNamespace(request_id="r", num_prompt_tokens=9000))
    scheduler.schedule()
    scheduler.schedule()
    scheduler.update_from_output(chunks[0], None)
    assert "prefilled" not in scheduler._open["r"]
    scheduler.update_from_output(chunks[1], None)
    assert scheduler._open["r"]["prefilled"] == pytest.approx(scheduler._last_result, abs=1e-6)
    scheduler._close("r", 1.0)
    scheduler._trace.flush()
    lines = [json.loads(line) for line in (tmp_path / "trace").read_text().splitlines()]
    assert [line["pf"] for line in lines if "pf" in line] == [[[8192, 0]], [[808, 8192]]]
    assert "last" not in lines[-1]


def test_ranks_write_files_of_their_own_that_are_read_as_one_server(trace: Any, tmp_path: Path) -> None:
    for rank, tokens in ((0, 5), (1, 9)):
        step = output(True, tokens, 0)
        scheduler = trace.TracingAsyncScheduler([step], rank)
        scheduler.add_request(SimpleNamespace(request_id="r", num_prompt_tokens=tokens))
        scheduler.schedule()
        scheduler.update_from_output(step, None)
        scheduler._trace.flush()
    found = read_ranks(tmp_path / "trace", ["a-rank-0", "a-rank-1"], 10, 0.0)
    assert found.steps["worker"] == ["a-rank-0", "a-rank-1"]
    assert found.steps["prefill_tokens"] == [5, 9]


def test_without_a_file_the_scheduler_is_vllms_own(trace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANNER_STEP_TRACE")
    config = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=True))
    monkeypatch.setattr(trace, "AsyncScheduler", lambda vllm_config: vllm_config)
    assert trace.tracing_scheduler(vllm_config=config) is config


def test_a_full_disk_ends_the_recording_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full, well = TraceFile(Path("/dev/full")), TraceFile(tmp_path / "steps")
    for _ in range(3):
        for file in (full, well):
            file.write({"t": 1.5})
            file.flush()
    assert full.fault and [record.message for record in caplog.records] == [f"steps are recorded no more: {full.fault}"]
    assert (tmp_path / "steps").read_text() == 3 * '{"t":1.5}\n'
