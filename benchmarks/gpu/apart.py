"""Clients in a process of their own: beside thousands of tokens a second, a frontend has no time for them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from live.client import ClientOptions, run_load
from live.results import ClientResult
from live.stop_signal import stop_on_signals
from planner.traffic.loads import Chained

LOOK_S = 0.1


async def send_apart(
    targets: Sequence[str], load: Chained, *, seed: int, options: ClientOptions, stop: asyncio.Event, **_: Any
) -> ClientResult:
    """As live.client.run_load, but that nobody is told of journal and progress. `load` is what `begun` makes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    planned = (load.arrivals, load.followers)  # a compiled class does not travel
    process = context.Process(target=_clients, args=(there, tuple(targets), planned, seed, options))
    process.start()
    there.close()
    assert process.pid is not None
    told = False
    while process.is_alive() and not here.poll():
        if stop.is_set() and not told:
            os.kill(process.pid, signal.SIGTERM)
            told = True
        await asyncio.sleep(LOOK_S)
    found = here.recv()
    process.join()
    assert isinstance(found, ClientResult)
    return found


def _clients(
    there: Connection, targets: Sequence[str], load: tuple[Any, Any], seed: int, options: ClientOptions
) -> None:
    async def run() -> ClientResult:
        with stop_on_signals() as stop:
            return await run_load(targets, Chained(*load), seed=seed, options=options, stop=stop)

    gc.freeze()
    there.send(asyncio.run(run()))
