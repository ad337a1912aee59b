"""Processor time to summarise a run of 10,000 requests (aim: 60 ms). Run: python benchmarks/summarise.py"""

from __future__ import annotations

import time

from planner import load, simulate
from planner.run.metrics import summarise

WORKLOAD = ["workload.requests=10000", "workload.prompt_tokens=2048", "workload.output_tokens=256"]


def main() -> None:
    for name, extra in (
        ("1 worker", ["deployment.replicas=1", "workload.rate=4"]),
        ("8 workers", ["deployment.replicas=8", "workload.rate=32"]),
    ):
        run = simulate(load("quickstart", [*WORKLOAD, *extra]))
        times = []
        for _ in range(5):
            start = time.process_time()
            summarise(run)
            times.append(time.process_time() - start)
        rows = len(run.steps)
        print(f"{name}: 10,000 requests, {rows:,} rows of steps: best of 5 {min(times) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
