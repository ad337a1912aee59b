"""What the load client and the frontend add to an engine of known timing, by request rate.

    python benchmarks/frontend_overhead.py [--rates 5,20,50] [--requests 200] [--output 50]

The engine is tests/fake_engine.py in a process of its own; client and frontend share one, as in a live run.
Prints a line for each rate and path: what TTFT and TPOT exceed the engine's by, and how late requests were sent.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_engine import FakeEngine, system_of
from live.address import ServerAddress
from live.client import ClientOptions, run_load
from live.frontend import Frontend
from live.results import ClientResult
from planner.traffic.requests import Arrival
from test_client import Listed, request

TTFT_S, ITL_S = 0.050, 0.010


def serve(pipe: Connection) -> None:
    async def main() -> None:
        async with FakeEngine("aggregated-0", ttft_s=TTFT_S, itl_s=ITL_S) as engine:
            pipe.send(engine.url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


def show(path: str, rate: float, result: ClientResult) -> None:
    rows = [row for row in result.outcomes if row.error is None]
    ttft = sorted(1e3 * (row.first_token_s - row.arrival_s - TTFT_S) for row in rows)
    tpot = [1e3 * ((row.finish_s - row.first_token_s) / (row.output_tokens - 1) - ITL_S) for row in rows]
    errors = len(result.outcomes) - len(rows)
    print(
        f"{path:9} {rate:6.0f}/s  TTFT +{statistics.median(ttft):5.2f} ms (p99 +{ttft[int(0.99 * len(ttft))]:5.2f})  "
        f"TPOT +{statistics.median(tpot):6.3f} ms  lag p50 {1e3 * result.lag.p50_s:5.2f} ms "
        f"p99 {1e3 * result.lag.p99_s:5.2f} ms  errors {errors}"
    )


async def measure(url: str, rates: list[float], requests: int, output: int, prompt: int) -> None:
    system = system_of({"mode": "aggregated"})
    async with Frontend(system, [ServerAddress("aggregated-0", "aggregated", url)]) as frontend:
        for rate in rates:
            for path, target in (("client", url), ("frontend", frontend.base_url)):
                made = [request(n, ((1, prompt // 2), (n + 2, prompt - prompt // 2)), output) for n in range(requests)]
                load = Listed([Arrival(n / rate, one) for n, one in enumerate(made)])
                show(path, rate, await run_load([target], load, options=ClientOptions()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="5,20,50")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--output", type=int, default=50)
    parser.add_argument("--prompt", type=int, default=3000)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    engine = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    engine.start()
    try:
        rates = [float(rate) for rate in options.rates.split(",")]
        asyncio.run(measure(ours.recv(), rates, options.requests, options.output, options.prompt))
    finally:
        ours.send(None)
        engine.join(5)


if __name__ == "__main__":
    main()
