"""Seconds and memory of a simulation as requests grow in number: 64 aggregated workers, 8 requests/s each, 2048/256.

    python benchmarks/scale.py [--requests 1000,10000,100000,1000000] [--workers 64] [--steps]

Each row is a process of its own: the requests are drawn, served, put into tables and summed up as metrics, without the
table of steps unless `--steps`. Processor seconds and the highest resident memory are the process's own, start-up in.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

from planner import core, load, simulate, summarise


def overrides(requests: int, workers: int, steps: bool) -> list[str]:
    return [
        f"deployment.replicas={workers}", f"workload.rate={8 * workers}", f"workload.requests={requests}",
        "workload.prompt_tokens=2048", "workload.output_tokens=256", f"run.step_records={str(steps).lower()}",
        "deployment.router.policy=round_robin",
    ]  # fmt: skip


def one(requests: int, workers: int, steps: bool) -> None:
    """A row of the table on standard output."""
    begun = time.monotonic()
    run = simulate(load("agg", overrides(requests, workers, steps)))
    found = summarise(run)
    wall = time.monotonic() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu, rows = used.ru_utime + used.ru_stime, len(run.columns("steps"))
    kept, peak = found.number("completed"), used.ru_maxrss / 2**20
    figures = [f"{requests:,}", f"{cpu:.1f}", f"{wall:.1f}", f"{peak:.2f}", f"{rows:,}", f"{kept:,.0f}"]
    print("|", " | ".join(figures), "|", f"{found.number('ttft_p99_ms'):.1f} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--requests", default="1000,10000,100000,300000,1000000")
    options.add_argument("--workers", type=int, default=64)
    options.add_argument("--steps", action="store_true")
    options.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one is not None:
        one(given.one, given.workers, given.steps)
        return
    how = "compiled" if core.core().compiled else "interpreted"
    print(f"{given.workers} workers, {how} core, load average {os.getloadavg()[0]:.1f}\n")
    print("| requests | processor s | wall s | peak GiB | step rows | completed | TTFT p99 ms |")
    print("|---|---|---|---|---|---|---|", flush=True)
    more = ["--workers", str(given.workers), *(["--steps"] if given.steps else [])]
    for count in given.requests.split(","):
        subprocess.run([sys.executable, __file__, "--one", count, *more], check=True)


if __name__ == "__main__":
    main()
