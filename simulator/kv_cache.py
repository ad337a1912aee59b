"""The KV cache of one engine, without physical block numbers: counts, and the order in which cached content is evicted.

Rules of vLLM V1 (`block_pool.py`, `kv_cache_manager.py`, 0.32), each checked step by step against its scheduler:

- Free blocks without content are always reused before cached ones; so a counter holds them.
- Cached blocks that nobody uses are evicted in the order they were freed; a request's blocks are freed tail first.
- A full block can be hit from the moment its tokens are scheduled; equal blocks are not merged, the oldest copy is hit.

Content that no other request can contain is one extent of blocks in that order, cut from its tail on eviction, and only
the request it belongs to can hit it again (after a preemption). Content that may be shared is kept block by block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from planner.requests import Segments


@lru_cache(maxsize=256)
def block_keys(segments: Segments, tokens: int, block_size: int) -> tuple[int, ...]:
    """One key for each full block of the first `tokens` tokens; equal keys mean equal blocks after equal prefixes.

    Blocks inside one segment are numbered on from a hash of all that comes before, a block over several segments is a
    hash of its pieces. Hashes of integers are the same in every process.
    """
    keys: list[int] = []
    key = filled = 0
    pieces: list[int] = []  # of the block that is not full yet: content, offset, length, ...
    for content, size in segments:
        length = min(size, tokens)
        tokens -= length
        offset = 0
        if filled:
            offset = min(block_size - filled, length)
            pieces += (content, 0, offset)
            filled += offset
            if filled < block_size:
                continue
            key = hash((key, *pieces))
            keys.append(key)
        whole = (length - offset) // block_size
        if whole:
            base = hash((key, content, offset))
            keys.extend(range(base, base + whole))
            key = base + whole - 1
            offset += whole * block_size
        filled = length - offset
        pieces = [content, offset, filled]
        if not tokens:
            break
    return tuple(keys)


class Block:
    """One cached block that other requests may hit, and how many requests use it."""

    __slots__ = ("key", "users")

    def __init__(self, key: int) -> None:
        self.key = key
        self.users = 1


class Holding:
    """What one request has in the cache.

    `keys` of its leading blocks that may be shared; `shared`: those of them that are cached, in order; `extent`: its
    own cached blocks behind them while nobody uses them (0 while the request runs).
    """

    __slots__ = ("extent", "keys", "shared")

    keys: tuple[int, ...]
    shared: list[Block]
    extent: int


class KvCache:
    """Counts of blocks. `free` includes cached blocks that nobody uses; `blank` are the free ones without content."""

    __slots__ = ("blank", "block_size", "caching", "evicted", "free", "on_evict", "order", "table", "total")

    def __init__(self, total: int, block_size: int, caching: bool) -> None:
        self.total = self.free = self.blank = total
        self.block_size = block_size
        self.caching = caching
        self.table: dict[int, Block | list[Block]] = {}  # a list: copies, oldest first
        self.order: OrderedDict[Block | Holding, None] = OrderedDict()  # unused cached content, next victim first
        self.on_evict: Callable[[int], None] | None = None  # told the key of a block that no copy is left of
        self.evicted = 0  # blocks, since the start

    def take(self, blocks: int) -> None:
        """Use `blocks` free blocks (there must be as many) for new content."""
        self.free -= blocks
        self.blank -= blocks
        if self.blank < 0:
            self._evict(-self.blank)
            self.blank = 0

    def _evict(self, blocks: int) -> None:
        order = self.order
        self.evicted += blocks
        while blocks > 0:
            victim = next(iter(order))
            if isinstance(victim, Block):
                blocks -= 1
                self._forget(victim)
            elif victim.extent > blocks:
                victim.extent -= blocks
                return
            else:
                blocks -= victim.extent
                victim.extent = 0
            del order[victim]

    def _forget(self, block: Block) -> None:
        copies = self.table[block.key]
        if copies is block:
            del self.table[block.key]
            if self.on_evict is not None:
                self.on_evict(block.key)
        else:
            assert isinstance(copies, list)
            copies.remove(block)
            if not copies:
                del self.table[block.key]

    def lookup(self, keys: tuple[int, ...], limit: int) -> list[Block]:
        """The longest cached run of leading blocks, at most `limit`. Changes nothing."""
        hits: list[Block] = []
        get = self.table.get
        for key in keys[:limit]:
            block = get(key)
            if block is None:
                break
            hits.append(block[0] if isinstance(block, list) else block)
        return hits

    def hit(self, holding: Holding, hits: list[Block]) -> None:
        """Use the blocks found by `lookup`."""
        for block in hits:
            if not block.users:
                del self.order[block]
                self.free -= 1
            block.users += 1
        holding.shared = hits

    def hit_own(self, holding: Holding) -> None:
        """Use what is left of the request's own blocks."""
        del self.order[holding]
        self.free -= holding.extent
        holding.extent = 0

    def register(self, holding: Holding, blocks: int) -> None:
        """The first `blocks` blocks are full: let those that may be shared be hit."""
        keys, shared, table = holding.keys, holding.shared, self.table
        for key in keys[len(shared) : blocks]:
            block = Block(key)
            shared.append(block)
            copies = table.get(key)
            if copies is None:
                table[key] = block
            elif isinstance(copies, list):
                copies.append(block)
            else:
                table[key] = [copies, block]

    def give_back(self, holding: Holding, blocks: int, cached: int) -> None:
        """Free all `blocks` blocks of a request, tail first; the first `cached` of them are full and cached."""
        if not self.caching:
            self.free += blocks
            self.blank += blocks
            return
        self.register(holding, cached)
        shared, order = holding.shared, self.order
        own = cached - len(shared)
        self.blank += blocks - cached
        self.free += blocks - len(shared)
        if own:
            holding.extent = own
            order[holding] = None
        if shared:
            for block in reversed(shared):
                block.users -= 1
                if not block.users:
                    order[block] = None
                    self.free += 1
            holding.shared = []
