"""Many streams at once: what the frontend adds to TTFT and to the gaps, beside a direct connection to the engine.

    python benchmarks/many_streams.py [--streams 500,2000] [--output 20] [--ttft 2.0] [--itl 0.5] [--within 1.0]

All streams of a round begin within one second and overlap to the end. The engine (tests/fake_engine.py), the frontend
and the client are processes of their own, as clients of a service are elsewhere. Beside them, in the same minute, a
bare relay: aiohttp passing bytes on, the least that a frontend of this kind can cost. Figures are what the client sees,
and the processor time and peak memory of both; load average is printed, as busy processes on fewer free cores wait for
one another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import aiohttp
from aiohttp import web

from fake_engine import FakeEngine, system_of
from live.address import ServerAddress
from live.client import ClientOptions, run_load
from live.frontend import BACKLOG, Frontend, quiet_collector
from planner.traffic.requests import Arrival
from test_client import Listed, request


class Engine(FakeEngine):
    """Its counters would cost more at each poll than the streams themselves: a relay polls nothing."""

    def _counted(self) -> str:
        return ""


def engine(pipe: Connection, ttft_s: float, itl_s: float) -> None:
    async def main() -> None:
        async with Engine("aggregated-0", ttft_s=ttft_s, itl_s=itl_s) as one:
            pipe.send(one.url)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


async def answer(pipe: Connection) -> None:
    """(processor seconds, peak memory in MiB) of this process, as often as asked."""
    while await asyncio.to_thread(pipe.recv):
        pipe.send((time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def frontend(pipe: Connection, url: str) -> None:
    async def main() -> None:
        address = ServerAddress("aggregated-0", "aggregated", url)
        async with Frontend(system_of({"mode": "aggregated"}), [address]) as one:
            with quiet_collector():
                pipe.send(one.base_url)
                await answer(pipe)

    asyncio.run(main())


def relay(pipe: Connection, url: str) -> None:
    """Bodies up, bytes down, and nothing else."""

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

            async def passed(request: web.Request) -> web.StreamResponse:
                body = await request.read()
                async with session.request(request.method, url + request.path, data=body) as upstream:
                    response = web.StreamResponse(headers={"content-type": upstream.headers["content-type"]})
                    await response.prepare(request)
                    async for piece in upstream.content.iter_any():
                        await response.write(piece)
                await response.write_eof()
                return response

            app = web.Application()
            app.add_routes([web.route("*", "/{path:.*}", passed)])
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG).start()
            pipe.send(f"http://127.0.0.1:{runner.addresses[0][1]}")
            await answer(pipe)
            await runner.cleanup()

    asyncio.run(main())


async def measure(target: str, streams: int, output: int, within_s: float) -> tuple[float, float, int]:
    """(TTFT p50, mean gap between tokens p50, failures), seconds."""
    made = [request(n, ((1, 32), (n + 2, 32)), output) for n in range(streams)]
    load = Listed([Arrival(n / streams * within_s, one) for n, one in enumerate(made)])
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
    parser.add_argument("--within", type=float, default=1.0, help="seconds in which all begin")
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
    ways = {"relay": start(relay, direct), "frontend": start(frontend, direct)}
    asks = dict(zip(ways, pipes[1:], strict=True))
    found = []

    def used(name: str) -> tuple[float, float]:
        asks[name].send(True)
        return asks[name].recv()  # type: ignore[no-any-return]

    for streams in map(int, arguments.streams.split(",")):
        how = (streams, arguments.output, arguments.within)
        ttft_s, gap_s, failed = asyncio.run(measure(direct, *how))
        row = {"streams": streams, "direct": {"ttft_s": ttft_s, "gap_s": gap_s, "failed": failed}}
        text = f"{streams:5} streams  direct: TTFT p50 {1e3 * ttft_s:6.0f} ms, gap {1e3 * gap_s:6.1f} ms"
        for name, target in ways.items():
            before_s = used(name)[0]
            seen = dict(zip(("ttft_s", "gap_s", "failed"), asyncio.run(measure(target, *how)), strict=True))
            after_s, memory = used(name)
            row[name] = seen | {
                "ttft_ratio": seen["ttft_s"] / ttft_s,
                "cpu_ms_per_stream": 1e3 * (after_s - before_s) / streams,
                "peak_mib": memory,
            }
            text += (
                f"  {name}: {seen['ttft_s'] / ttft_s:.2f}x, gap {1e3 * seen['gap_s']:.1f} ms, failed {seen['failed']}, "
                f"{row[name]['cpu_ms_per_stream']:.2f} ms a stream, {memory:.0f} MiB"
            )
        row["load_average"] = os.getloadavg()[0]
        found.append(row)
        if not arguments.json:
            print(f"{text}  load {row['load_average']:.1f}", flush=True)
    if arguments.json:
        print(json.dumps(found, indent=2))
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join(10)


if __name__ == "__main__":
    main()
