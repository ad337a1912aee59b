"""What is in each worker's prefix cache, followed through vLLM's KV events (ZeroMQ PUB, msgpack).

The engine's block hashes are salted per process, so the index keeps its own: a chain over the tokens of each block.
It maps an engine's hash to the chain's, and answers how many leading tokens of a prompt a worker holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

log = logging.getLogger("planner.frontend")
ROOT = b""
AGES_KEPT = 10_000
MOST_BATCH = 2**26  # bytes; a batch holds the tokens of one step's new blocks


def chain(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a block: its tokens and everything before them."""
    return hashlib.blake2b(parent + np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16).digest()


def prefix_keys(token_ids: Sequence[int], block_size: int) -> Iterator[bytes]:
    """Keys of the full blocks of a prompt, first to last. The last token is always computed, so it never counts."""
    key = ROOT
    for end in range(block_size, len(token_ids), block_size):
        key = chain(key, token_ids[end - block_size : end])
        yield key


class PrefixIndex:
    """The blocks that one worker's prefix cache holds."""

    def __init__(self) -> None:
        self._keys: dict[Any, bytes] = {}  # engine hash -> own key
        self._held: dict[bytes, int] = {}  # own key -> engine hashes that stand for it
        self.orphans = 0  # stored blocks whose parent is unknown (its event was missed)

    def __contains__(self, key: bytes) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    def store(self, hashes: Sequence[Any], parent: Any, token_ids: Sequence[int], block_size: int) -> None:
        key = ROOT if parent is None else self._keys.get(parent)
        if key is None:
            self.orphans += len(hashes)
            return
        for index, block_hash in enumerate(hashes):
            key = chain(key, token_ids[index * block_size : (index + 1) * block_size])
            if block_hash not in self._keys:
                self._keys[block_hash] = key
                self._held[key] = self._held.get(key, 0) + 1

    def remove(self, hashes: Sequence[Any]) -> None:
        for block_hash in hashes:
            key = self._keys.pop(block_hash, None)
            if key is None:
                continue
            if self._held[key] == 1:
                del self._held[key]
            else:
                self._held[key] -= 1

    def clear(self) -> None:
        self._keys.clear()
        self._held.clear()

    def apply(self, event: Any) -> None:
        """One event, as a map or, from older vLLM, as a tagged array. Other tiers than the GPU are left out."""
        if isinstance(event, dict):
            kind, fields = event.get("type"), event
        else:
            kind, *values = event
            names = {
                "BlockStored": ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium"),
                "BlockRemoved": ("block_hashes", "medium"),
            }.get(kind, ())
            fields = dict(zip(names, values, strict=False))
        if fields.get("medium") not in (None, "GPU") or fields.get("group_idx") not in (None, 0):
            return
        if kind == "BlockStored":
            self.store(
                fields["block_hashes"], fields["parent_block_hash"], fields["token_ids"], int(fields["block_size"])
            )
        elif kind == "BlockRemoved":
            self.remove(fields["block_hashes"])
        elif kind == "AllBlocksCleared":
            self.clear()


def overlaps(token_ids: Sequence[int], block_size: int, indexes: Sequence[PrefixIndex | None]) -> list[int]:
    """Leading prompt tokens that each worker holds (0 where there is no index)."""
    held = [0] * len(indexes)
    walking = [number for number, index in enumerate(indexes) if index is not None]
    for key in prefix_keys(token_ids, block_size):
        walking = [number for number in walking if key in (indexes[number] or ())]
        if not walking:
            break
        for number in walking:
            held[number] += block_size
    return held


def subscription(endpoint: str, worker_host: str) -> tuple[str, bool]:
    """(endpoint, whether we bind it) for the string that the publisher was given.

    vLLM binds wildcard and ipc endpoints and connects to all others; the subscriber does the opposite.
    """
    if endpoint.startswith(("ipc://", "inproc://")):
        return endpoint, False
    if "*" in endpoint or "::" in endpoint:
        return f"tcp://{worker_host}:{urlsplit(endpoint.replace('*', 'any')).port}", False
    return endpoint, True


class KvEventFeed:
    """Follows one worker's events. `ages_s` are the newest ages of event batches on arrival (same-host clock)."""

    def __init__(self, worker: str, endpoint: str, worker_host: str = "127.0.0.1") -> None:
        self.worker = worker
        self.index = PrefixIndex()
        self.ages_s: deque[float] = deque(maxlen=AGES_KEPT)
        self.batches = 0
        self.gaps = 0  # batches lost on the way; the index starts anew after each
        self._endpoint, self._bind = subscription(endpoint, worker_host)
        self._next: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Subscribe. Raises ImportError without pyzmq and msgspec, zmq.ZMQError when the endpoint is taken."""
        import zmq
        import zmq.asyncio

        socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MOST_BATCH)
        if self._bind:
            socket.bind(self._endpoint)
        else:
            socket.connect(self._endpoint)
        self._task = asyncio.create_task(self._follow(socket))

    async def _follow(self, socket: Any) -> None:
        import msgspec

        try:
            while True:
                parts = await socket.recv_multipart()
                try:
                    _, sequence, payload = parts
                    batch = msgspec.msgpack.decode(payload)
                    self.receive(int.from_bytes(sequence, "big"), batch, time.time())
                except (msgspec.DecodeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
                    self.gaps += 1
                    log.warning("%s: KV events that cannot be read (%s); prefix index emptied", self.worker, error)
                    self.index.clear()
        finally:
            socket.close(linger=0)

    def receive(self, sequence: int, batch: Sequence[Any], now_s: float) -> None:
        """Apply a batch `[wall clock, events, ...]` that arrived at `now_s`."""
        if self._next is not None and sequence != self._next:
            if sequence > self._next:
                self.gaps += 1
                log.warning("%s: lost KV events %d to %d; prefix index emptied", self.worker, self._next, sequence - 1)
            self.index.clear()  # a lower number is a restarted engine, whose cache is empty
        self._next = sequence + 1
        self.batches += 1
        self.ages_s.append(now_s - float(batch[0]))
        for event in batch[1]:
            self.index.apply(event)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
