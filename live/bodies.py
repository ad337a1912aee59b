"""Reads request bodies: small ones at once, large ones in a process of their own.

json.loads of a few megabytes takes long enough to hold up every stream, and a thread does not help: it keeps the
interpreter's lock all the time. What the process sends back is checked already and no longer than the model's context.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from live.openai_api import ApiError, ApiRequest, Kind, check_lengths, parse_prompts

LARGE_BYTES = 256 * 1024  # takes about 2 ms


@dataclass(frozen=True, slots=True)
class Rules:
    """What requests are checked against: model names (and the spec's own), the context, whether KV is handed over."""

    models: tuple[str, ...]
    alias: str
    longest: int
    split: bool


def read(kind: Kind, raw: bytes, headers: Mapping[str, str], rules: Rules) -> list[ApiRequest]:
    """The requests of a body, one for each prompt. Raises ApiError."""
    found = parse_prompts(kind, raw, headers, rules.models, rules.alias)
    for one in found:
        check_lengths(one.body, rules.longest, split=rules.split)
    return found


class BodyReader:
    """`read`, off the event loop where that takes long. Close it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._executor: ProcessPoolExecutor | None = None

    async def read(self, kind: Kind, raw: bytes, headers: Mapping[str, str]) -> list[ApiRequest]:
        """Raises ApiError."""
        if len(raw) <= LARGE_BYTES:
            return read(kind, raw, headers, self._rules)
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent)
        plain = {name.lower(): value for name, value in headers.items()}
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, read, kind, raw, plain, self._rules)
        except BrokenProcessPool:
            self.close()
            raise ApiError(503, "the reader of large bodies ended; send it again", "server_error") from None

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _end_with_parent() -> None:
    """No Ctrl-C of its own, and no life after the process that it reads for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
