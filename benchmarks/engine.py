"""Requests simulated per CPU second: 10,000 of 2,048/256 on one engine, on whole clusters, and flat in output length.

    python benchmarks/engine.py [--requests 10000] [--repeats 3]

CPU time of the process, best of the repeats: other work on the machine makes wall time useless. `engine` is one Worker
fed by a heap-free loop (scheduler, KV cache, closed form); `cluster` adds simpy, routing and one record a request;
`run` adds the tables. Rates are per worker; the profile is the H200's. Every request is its own content, and blocks are
cached and evicted as in vLLM.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from planner.spec import Spec  # noqa: E402
from planner.system.resolve import System, resolve  # noqa: E402
from planner.traffic.requests import Arrival  # noqa: E402
from planner.traffic.workload import build  # noqa: E402
from simulator.backend import SimulatorBackend  # noqa: E402
from simulator.cluster import SimulatedCluster  # noqa: E402
from simulator.worker import FINISHED, Sequence, Worker  # noqa: E402


def system_of(workers: int, rate: float, output: int, requests: int) -> System:
    return resolve(
        Spec.model_validate(
            {
                "schema": 1,
                "name": "benchmark",
                "model": "llama-3.1-8b",
                "hardware": "h200",
                "profile": "h200-llama-3.1-8b-tp1",
                "deployment": {"mode": "aggregated", "replicas": workers},
                "workload": {
                    "kind": "poisson", "rate": rate * workers, "requests": requests, "prompt_tokens": 2048,
                    "output_tokens": output,
                },
            }
        )
    )  # fmt: skip


def engine(system: System, arrivals: list[Arrival]) -> int:
    """One Worker, driven as the cluster drives it. Returns how many requests finished."""
    pool = system.pools[0]
    worker = Worker("w", pool.limits, pool.profile.step)
    finished = 0
    for arrival in [*arrivals, None]:
        until = arrival.time_s if arrival else float("inf")
        while (now := worker.next_event_s()) < until:
            finished += sum(kind == FINISHED for _, kind, _ in worker.advance(now))
        if arrival:
            worker.submit(Sequence(arrival.request), arrival.time_s)
    return finished


def best(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{'':8} workers  rate  output  requests/s")
    for workers, rate, output in ((1, 8.0, 256), (1, 2.0, 256), (1, 2.0, 2048), (1, 0.5, 256), (8, 8.0, 256)):
        system = system_of(workers, rate, output, options.requests)
        arrivals = build(system.spec).start()
        rows: dict[str, Callable[[], object]] = {
            "cluster": lambda system=system: SimulatedCluster(system, build(system.spec)).run(),  # type: ignore[misc]
            "run": lambda system=system: SimulatorBackend().run(system, build(system.spec)),  # type: ignore[misc]
        }
        if workers == 1:
            assert engine(system, arrivals) == options.requests
            rows = {"engine": lambda s=system, a=arrivals: engine(s, a), **rows}  # type: ignore[misc]
        for name, action in rows.items():
            seconds = best(action, options.repeats)
            print(f"{name:8} {workers:7} {rate:5} {output:7} {options.requests / seconds:11,.0f}")


if __name__ == "__main__":
    main()
