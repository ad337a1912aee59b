"""Starts servers again that end while a service runs."""

from __future__ import annotations

import asyncio
import logging
import time

from live.launch import LiveError
from live.servers import Servers

log = logging.getLogger("planner.frontend")
RESTARTS, WITHIN_S = 3, 3600.0  # of one server; more often it would only take memory and time from the others


class Restarts:
    """Watches the servers of a service. The frontend finds a worker that is back by its polls."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._tries: dict[str, list[float]] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}

    def look(self) -> dict[str, str]:
        """Start what has ended. Returns the servers that stay ended, and why."""
        for name in [name for name, task in self._starting.items() if task.done()]:
            del self._starting[name]
        gone = {}
        for name, why in self._servers.ended().items():
            if name in self._starting:
                continue
            now = time.monotonic()
            tries = self._tries[name] = [one for one in self._tries.get(name, []) if now - one < WITHIN_S]
            if not self._servers.can_restart or len(tries) >= RESTARTS:
                gone[name] = why
                continue
            tries.append(now)
            log.warning("%s ended: %s; starting it again (%d of %d)", name, why, len(tries), RESTARTS)
            self._starting[name] = asyncio.create_task(self._restart(name))
        return gone

    async def _restart(self, name: str) -> None:
        try:
            await self._servers.restart(name)
        except LiveError as error:
            log.warning("%s", error)  # it has ended again, or is ended: `look` sees it

    async def stop(self) -> None:
        """Wait for nothing any more."""
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
