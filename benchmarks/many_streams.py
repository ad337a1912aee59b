"""Many streams at once: what the frontend adds to TTFT and to the gaps, beside a direct connection to the engine.

    python benchmarks/many_streams.py [--streams 500,2000] [--output 20] [--ttft 2.0] [--itl 0.5]

All streams of a round begin within one second and overlap to the end. The engine (tests/fake_engine.py), the frontend
and the client are three processes, as clients of a service are elsewhere. Figures are what the client sees, and the
frontend's processor time a stream; load average is printed, as three busy processes on fewer free cores wait for one
another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_engine import FakeEngine, system_of
from live.address import ServerAddress
from live.client import ClientOptions, run_load
from live.frontend import Frontend
from planner.traffic.requests import Arrival
from test_client import Listed, request


def engine(pipe: Connection, ttft_s: float, itl_s: float) -> None:
    async def main() -> None:
        async with FakeEngine("aggregated-0", ttft_s=ttft_s, itl_s=itl_s) as one:
            pipe.send(one.url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


def frontend(pipe: Connection, url: str) -> None:
    async def main() -> None:
        address = ServerAddress("aggregated-0", "aggregated", url)
        async with Frontend(system_of({"mode": "aggregated"}), [address]) as one:
            pipe.send(one.base_url)
            while await asyncio.to_thread(pipe.recv):
                pipe.send(time.process_time())

    asyncio.run(main())


async def measure(target: str, streams: int, output: int) -> tuple[float, float, int]:
    """(TTFT p50, mean gap between tokens p50, failures), seconds."""
    made = [request(n, ((1, 32), (n + 2, 32)), output) for n in range(streams)]
    load = Listed([Arrival(n / streams, one) for n, one in enumerate(made)])
    result = await run_load([target], load, options=ClientOptions())
    rows = [row for row in result.outcomes if row.error is None]
    gaps = [(row.finish_s - row.first_token_s) / (row.output_tokens - 1) for row in rows]
    ttft_s = statistics.median(row.first_token_s - row.arrival_s for row in rows)
    return ttft_s, statistics.median(gaps), len(result.outcomes) - len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="500,2000")
    parser.add_argument("--output", type=int, default=20)
    parser.add_argument("--ttft", type=float, default=2.0)
    parser.add_argument("--itl", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    context, processes, pipes = multiprocessing.get_context("spawn"), [], []

    def start(function: object, *more: object) -> str:
        here, there = context.Pipe()
        process = context.Process(target=function, args=(there, *more), daemon=True)  # type: ignore[arg-type]
        process.start()
        processes.append(process)
        pipes.append(here)
        return str(here.recv())

    direct = start(engine, arguments.ttft, arguments.itl)
    through = start(frontend, direct)
    found = []

    def used_s() -> float:
        pipes[1].send(True)
        return float(pipes[1].recv())

    for streams in map(int, arguments.streams.split(",")):
        one = asyncio.run(measure(direct, streams, arguments.output))
        before_s = used_s()
        two = asyncio.run(measure(through, streams, arguments.output))
        cost_s, load = (used_s() - before_s) / streams, os.getloadavg()[0]
        found.append({"streams": streams, "direct": one, "frontend": two, "ttft_ratio": two[0] / one[0],
                      "frontend_cpu_s_per_stream": cost_s, "load_average": load})  # fmt: skip
        if not arguments.json:
            print(
                f"{streams:5} streams  TTFT p50 {1e3 * one[0]:7.0f} ms direct, {1e3 * two[0]:7.0f} ms through the "
                f"frontend ({two[0] / one[0]:.2f}x)  gap {1e3 * one[1]:6.1f} and {1e3 * two[1]:6.1f} ms  "
                f"failed {one[2]} and {two[2]}  frontend {1e3 * cost_s:.2f} ms a stream  load {load:.1f}",
                flush=True,
            )
    if arguments.json:
        print(json.dumps(found, indent=2))
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join(10)


if __name__ == "__main__":
    main()
