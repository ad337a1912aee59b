"""Seconds that the seven splits of eight workers take on one trace.

    python benchmarks/sweep_splits.py TRACE [--processes N] [--router POLICY]

Each split serves the whole trace (10,000 requests at 40/s in the comparison of peers.md). Processor seconds are those
of all processes without their start-up; wall seconds hold everything.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from planner import load
from planner.core import no_cycles
from planner.suggestion.spread import processes
from planner.system.resolve import resolve
from planner.traffic import workload
from simulator.cluster import SimulatedCluster


@dataclass(frozen=True)
class Task:
    trace: str
    prefill: int
    router: str


@dataclass(frozen=True)
class Result:
    cpu_s: float  # reading the trace included
    ttft_mean_ms: float
    ttft_p99_ms: float
    tpot_mean_ms: float


@no_cycles()
def serve(task: Task) -> Result:
    start = time.process_time()
    spec = load(
        "disagg",
        [
            "workload.kind=trace",
            f"workload.path={task.trace}",
            f"deployment.prefill.replicas={task.prefill}",
            f"deployment.decode.replicas={8 - task.prefill}",
            f"deployment.router.policy={task.router}",
            "deployment.link={bandwidth_gb_s: 50}",
            "engine.block_size=64",
        ],
    )
    visits = SimulatedCluster(resolve(spec), workload.build(spec), record_steps=False).run()
    cpu_s = time.process_time() - start
    first = np.array([visit.first_token_s for visit in visits])
    ttft = first - np.array([visit.arrival_s for visit in visits])
    more = np.array([visit.request.output_tokens - 1 for visit in visits])
    tpot = (np.array([visit.finish_s for visit in visits]) - first)[more > 0] / more[more > 0]
    return Result(cpu_s, 1e3 * ttft.mean(), 1e3 * np.percentile(ttft, 99), 1e3 * tpot.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--router", default="prefix_aware")
    options = parser.parse_args()
    tasks = [Task(options.trace, prefill, options.router) for prefill in range(1, 8)]
    start = time.monotonic()
    with processes(options.processes) as spread:
        found: list[Result] = spread(serve, tasks, lambda *_: None)
    for task, one in zip(tasks, found, strict=True):
        print(
            f"{task.prefill}P{8 - task.prefill}D: {one.cpu_s:.2f} s of processor, TTFT {one.ttft_mean_ms:.1f} ms"
            f" (p99 {one.ttft_p99_ms:.0f}), TPOT {one.tpot_mean_ms:.2f} ms"
        )
    cpu = sum(one.cpu_s for one in found)
    print(f"all: {cpu:.1f} s of processor, {time.monotonic() - start:.1f} s in all")


if __name__ == "__main__":
    main()
