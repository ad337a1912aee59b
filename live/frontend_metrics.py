"""The frontend's own Prometheus metrics: one registry a frontend, so that two in one process do not collide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from live.fleet import OK

if TYPE_CHECKING:
    from live.fleet import LivePool, LiveWorker
    from live.records import FrontendRecord
    from live.retrieval import Found

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)


class FrontendMetrics:
    """What /metrics shows."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("planner_requests", "Requests answered", ["path", "status"], registry=registry)
        self.in_flight = Gauge("planner_requests_in_flight", "Requests being served", registry=registry)
        self.queue = Gauge("planner_queue", "Requests waiting at the workers of a pool", ["role"], registry=registry)
        self.retries = Counter("planner_retries", "Attempts beyond the first", registry=registry)
        self.local = Counter("planner_local_prefills", "P/D: prompts prefilled by a decode worker", registry=registry)
        times = {
            "ttft": ("planner_time_to_first_token_seconds", "Request received to first token forwarded (streaming)"),
            "e2e": ("planner_request_seconds", "Request received to answer complete"),
            "prefill": ("planner_remote_prefill_seconds", "P/D: sent to the prefill worker to its answer"),
            "retrieval": ("planner_retrieval_seconds", "Retrieval, without the wait for a retrieval worker"),
            "embed": ("planner_retrieval_embed_seconds", "Embedding of the question"),
            "search": ("planner_retrieval_search_seconds", "Index search"),
            "rerank": ("planner_retrieval_rerank_seconds", "Ranking again; 0 without a reranker"),
        }
        self.times = {
            key: Histogram(name, text, buckets=_SECONDS, registry=registry) for key, (name, text) in times.items()
        }
        per_worker = {
            "running": "Requests in the batch (engine's own count where it has one)",
            "waiting": "Requests in the engine's queue (engine's own count where it has one)",
            "in_flight": "Requests this frontend has sent and not got back",
            "kv_used_fraction": "KV cache in use",
            "healthy": "1 while the worker answers and makes progress",
            "gpu_utilization": "Mean over the worker's GPUs, 0 to 1",
            "cached_blocks": "Blocks of its prefix cache, as its KV events tell",
            "kv_event_age_seconds": "Age of the newest KV event batch when it came in",
            "kv_event_gaps": "KV event batches lost so far",
        }
        self.workers = {
            key: Gauge(f"planner_worker_{key}", text, ["worker"], registry=registry) for key, text in per_worker.items()
        }

    def retrieved(self, found: Found) -> None:
        self.times["retrieval"].observe(found.end_s - found.start_s)
        self.times["embed"].observe(found.embed_s)
        self.times["search"].observe(found.search_s)
        self.times["rerank"].observe(found.rerank_s)

    def answered(self, path: str, record: FrontendRecord) -> None:
        """Count a finished request; every column that it has becomes an observation."""
        self.requests.labels(path, str(record.status)).inc()
        if record.attempts > 1:
            self.retries.inc(record.attempts - 1)
        if record.local_prefill:
            self.local.inc()
        if record.first_token_s is not None:
            self.times["ttft"].observe(record.first_token_s - record.received_s)
        if record.finish_s is not None and record.status == 200:
            self.times["e2e"].observe(record.finish_s - record.received_s)
        if record.prefill_end_s is not None and record.queued_s is not None:
            self.times["prefill"].observe(record.prefill_end_s - record.queued_s)

    def render(self, pools: Sequence[LivePool], gpu_utilization: Mapping[str, float]) -> bytes:
        """Prometheus text, with the gauges as they are now."""
        for pool in pools:
            self.queue.labels(pool.role).set(pool.waiting)
            for worker in pool.workers:
                for key, value in worker_state(worker, gpu_utilization.get(worker.name)).items():
                    if value is not None:
                        self.workers[key].labels(worker.name).set(value)
        return generate_latest(self.registry)


def worker_state(worker: LiveWorker, gpu_utilization: float | None) -> dict[str, float | None]:
    """One worker in figures; None: not known."""
    polled, feed = worker.polled, worker.feed
    return {
        "running": polled.get("num_requests_running", worker.load.running),
        "waiting": polled.get("num_requests_waiting", worker.load.waiting),
        "in_flight": len(worker.tickets),
        "kv_used_fraction": polled.get("kv_cache_usage_perc", worker.load.kv_used_fraction),
        "healthy": float(worker.state == OK),
        "gpu_utilization": gpu_utilization,
        "cached_blocks": None if feed is None else len(feed.index),
        "kv_event_age_seconds": feed.ages_s[-1] if feed and feed.ages_s else None,
        "kv_event_gaps": None if feed is None else feed.gaps,
    }


def log_line(pools: Sequence[LivePool], in_flight: int, gpu_utilization: Mapping[str, float]) -> str:
    """The periodic line: what each worker is doing, one short clause each."""
    parts = [f"in flight {in_flight}"]
    for pool in pools:
        for worker in pool.workers:
            state = worker_state(worker, gpu_utilization.get(worker.name))
            if worker.state != OK:
                parts.append(f"{worker.name} {worker.state}")
                continue
            gpu = state["gpu_utilization"]
            parts.append(
                f"{worker.name} running {state['running']:.0f} waiting {state['waiting']:.0f} "
                f"KV {100 * (state['kv_used_fraction'] or 0):.0f} % GPU {'-' if gpu is None else f'{100 * gpu:.0f} %'}"
            )
    return " | ".join(parts)
