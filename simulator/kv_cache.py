"""The KV cache of one engine, without physical block numbers: counts, and the order in which cached content is evicted.

Rules of vLLM V1 (`block_pool.py`, `kv_cache_manager.py`, 0.32), each checked step by step against its scheduler:

- Free blocks without content are always reused before cached ones; so a counter holds them.
- Cached blocks that nobody uses are evicted in the order they were freed; a request's blocks are freed tail first.
- A full block can be hit from the moment its tokens are scheduled; equal blocks are not merged, the oldest copy is hit.

Content that no other request can contain is one extent of blocks in that order, cut from its tail on eviction, and only
the request it belongs to can hit it again (after a preemption). Content that may be shared is kept in runs of blocks
that are used and freed together; a run is cut where a request uses or repeats a part of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from planner.traffic.requests import Segments

LAST: Final = 1 << 30  # more pieces than any prompt has


class Keys:
    """A key for each of a prompt's leading `length` blocks; equal keys mean equal blocks after equal prefixes.

    They are numbered on inside each piece: piece i begins at block `starts[i]` with the key `bases[i]`. So keys cost
    what a prompt is put together from, however long its parts are. Of both lists the first `pieces` count: what a later
    turn adds stands behind them, so that the turns of a session share one list.
    """

    __slots__ = ("bases", "length", "pieces", "starts")

    def __init__(self, starts: list[int], bases: list[int], pieces: int, length: int) -> None:
        self.starts = starts
        self.bases = bases
        self.pieces = pieces
        self.length = length

    def at(self, block: int, piece: int = LAST) -> int:
        """The key of a block, which may well be in that piece: who asks for one near the end asks most."""
        starts = self.starts
        last = self.pieces - 1
        piece = min(piece, last)
        if starts[piece] > block or (piece < last and starts[piece + 1] <= block):
            piece, after = 0, self.pieces
            while after - piece > 1:  # it is from `piece` on, before `after`; the standard library's bisect is a call
                middle = (piece + after) >> 1
                if starts[middle] <= block:
                    piece = middle
                else:
                    after = middle
        return self.bases[piece] + (block - starts[piece])

    def piece(self, block: int, first: int) -> int:
        """The piece that a block lies in, which is `first` or soon after."""
        starts = self.starts
        last = self.pieces - 1
        while first < last and starts[first + 1] <= block:
            first += 1
        return first

    def head(self, blocks: int) -> Keys:
        """Of the first `blocks` blocks, or all."""
        return Keys(self.starts, self.bases, self.pieces, blocks) if blocks < self.length else self

    def apart(self, size: int) -> Keys:
        """Other keys, of blocks of `size` tokens that are no copies of these."""
        bases = [_key((base, size)) for base in self.bases[: self.pieces]]
        return Keys(self.starts[: self.pieces], bases, self.pieces, self.length)


def _key(content: tuple[int, ...]) -> int:
    """Two bits less than the hash, so that compiled code computes with it as a machine word."""
    return hash(content) >> 2


class Walked(Keys):
    """Keys of whole segments, which more segments may follow.

    `last` key, tokens `filled` in the block that is not full yet, and a key of the `part` that these are.
    """

    __slots__ = ("filled", "last", "part")

    def __init__(
        self, starts: list[int], bases: list[int], pieces: int, length: int, last: int, filled: int, part: int
    ) -> None:
        super().__init__(starts, bases, pieces, length)
        self.last = last
        self.filled = filled
        self.part = part

    def then(self, content: int, tokens: int, block_size: int) -> Walked:
        """One segment further, or a part of it."""
        end, key, filled = self.length, self.last, self.filled
        more = Walked(self.starts, self.bases, self.pieces, end, key, filled, 0)
        offset = 0
        if filled:
            offset = min(block_size - filled, tokens)
            part = _key((self.part, content, offset))
            if filled + offset < block_size:
                more.filled, more.part = filled + offset, part
                return more
            key = _key((key, part))
            more.begin(end, key)
            end += 1
        whole = (tokens - offset) // block_size
        if whole:
            base = _key((key, content, offset))
            more.begin(end, base)
            end += whole
            key = base + whole - 1
            offset += whole * block_size
        more.length, more.last, more.filled = end, key, tokens - offset
        if more.filled:
            more.part = _key((content, offset, more.filled))
        return more

    def begin(self, start: int, base: int) -> None:
        """One piece more: it is in the lists already, or fits behind all that they have; else in lists of its own."""
        at = self.pieces
        if at < len(self.starts) and (self.starts[at] != start or self.bases[at] != base):
            self.starts, self.bases = self.starts[:at], self.bases[:at]
        if at == len(self.starts):
            self.starts.append(start)
            self.bases.append(base)
        self.pieces = at + 1


NO_KEYS: Final = Walked([], [], 0, 0, 0, 0, 0)
MOST_WALKED: Final = 4096
_walked: OrderedDict[tuple[Segments, int], Walked] = OrderedDict()  # the latest ones


@lru_cache(maxsize=4096)
def block_keys(segments: Segments, tokens: int, block_size: int) -> Walked:
    """Keys of the full blocks of the first `tokens` tokens.

    Blocks inside one segment are numbered on from a hash of all that comes before, a block over several segments is a
    hash of its pieces. Hashes of integers are the same in every process. A turn of a session goes on where the turn
    before it ended, one or two segments earlier, so that a session costs what it adds.
    """
    whole, rest = _whole(segments, tokens)
    at = 0
    walked = Walked([], [], 0, 0, 0, 0, 0)
    for back in range(min(3, whole + 1)):
        found = _walked.get((segments[: whole - back], block_size))
        if found is not None:
            at, walked = whole - back, found
            break
    for index in range(at, whole):
        content, size = segments[index]
        walked = walked.then(content, size, block_size)
        if index >= whole - 2:
            _remember(segments[: index + 1], block_size, walked)
    if rest:
        walked = walked.then(segments[whole][0], rest, block_size)
    return walked


def _whole(segments: Segments, tokens: int) -> tuple[int, int]:
    """How many segments lie within the first `tokens` tokens, and how many of these are left for the next one."""
    for index, (_, size) in enumerate(segments):
        if size > tokens:
            return index, tokens
        tokens -= size
    return len(segments), 0


def _remember(segments: Segments, block_size: int, walked: Walked) -> None:
    if len(_walked) >= MOST_WALKED:
        _walked.popitem(last=False)
    _walked[segments, block_size] = walked


class Entry:
    """A place in the order of eviction, between two others while nobody uses its blocks."""

    __slots__ = ("earlier", "later")

    earlier: Entry
    later: Entry


NOWHERE: Final = Entry()  # the neighbour of what is not in an order


class BlockRun(Entry):
    """Cached blocks `start` to `end` of prompts that begin as `keys` do, and how many requests use them.

    Two runs that have a block in common have the same blocks: they are copies. A run that was cut while in use lives on
    in its `parts`, which its users find through it.
    """

    __slots__ = ("end", "first", "keys", "parts", "start", "users")

    def __init__(self, keys: Keys, start: int, end: int, users: int, first: int) -> None:
        self.keys = keys
        self.start = start
        self.end = end
        self.first = first  # key of its first block
        self.users = users
        self.parts: tuple[BlockRun, BlockRun] | None = None


class Holding(Entry):
    """What one request has in the cache.

    `keys` of its leading blocks that may be shared; `covered`: how many of them are cached, in the runs `shared`;
    `extent`: its own cached blocks behind them while nobody uses them (0 while the request runs).
    """

    __slots__ = ("covered", "extent", "keys", "shared")

    keys: Keys
    shared: list[BlockRun]
    covered: int
    extent: int


class KvCache:
    """Counts of blocks. `free` includes cached blocks that nobody uses; `blank` are the free ones without content.

    `common` blocks are used by several requests, which would use `again` blocks more if none were shared.
    """

    __slots__ = (
        "again", "blank", "block_size", "caching", "common", "evicted", "free", "on_evict", "root", "table", "total",
    )  # fmt: skip

    def __init__(self, total: int, block_size: int, caching: bool) -> None:
        self.total = self.free = self.blank = total
        self.block_size = block_size
        self.caching = caching
        # By the key of their first block; a list: copies, oldest first.
        self.table: dict[object, BlockRun | list[BlockRun]] = {}
        self.root = Entry()  # between the last one to be evicted and the next victim (its `later`)
        self.root.earlier = self.root.later = self.root
        self.on_evict: Callable[[int], None] | None = None  # told the key of a block that no copy is left of
        self.evicted = 0  # blocks, since the start
        self.again = self.common = 0

    # --- the order of eviction ---

    def order(self) -> Iterator[Entry]:
        """Unused cached content, next victim first."""
        entry = self.root.later
        while entry is not self.root:
            yield entry
            entry = entry.later

    def _append(self, entry: Entry) -> None:
        root = self.root
        last = root.earlier
        entry.earlier, entry.later = last, root
        last.later = root.earlier = entry

    def _remove(self, entry: Entry) -> None:
        earlier, later = entry.earlier, entry.later
        earlier.later, later.earlier = later, earlier
        entry.earlier = entry.later = NOWHERE

    def let_go(self) -> None:
        """Nobody uses this cache any more: undo the order, in which everything refers to its neighbours."""
        entry = self.root.later
        while entry is not self.root:
            later = entry.later
            entry.earlier = entry.later = NOWHERE
            entry = later
        self.root.earlier = self.root.later = NOWHERE

    # --- blocks for new content ---

    def take(self, blocks: int) -> None:
        """Use `blocks` free blocks (there must be as many) for new content."""
        self.free -= blocks
        self.blank -= blocks
        if self.blank < 0:
            self._evict(-self.blank)
            self.blank = 0

    def _evict(self, blocks: int) -> None:
        self.evicted += blocks
        while blocks > 0:
            victim = self.root.later
            if isinstance(victim, BlockRun):
                blocks -= self._evict_tail(victim, blocks)
                continue
            assert isinstance(victim, Holding)
            if victim.extent > blocks:
                victim.extent -= blocks
                return
            blocks -= victim.extent
            victim.extent = 0
            self._remove(victim)

    def _evict_tail(self, run: BlockRun, blocks: int) -> int:
        """Forget at most so many blocks of an unused run. Returns how many."""
        end, size = run.end, run.end - run.start
        if size > blocks:
            if self.table[run.first] is not run:  # the tail becomes a run, in all copies: next time it goes as a whole
                self._cut(run, end - blocks)
                return 0
            size = blocks
            run.end = end - blocks
        else:
            self._remove(run)
            copies = self.table.pop(run.first)
            if copies is not run:
                assert isinstance(copies, list)
                copies.remove(run)
                if copies:
                    self.table[run.first] = copies
                return size
        if self.on_evict is not None:
            for block in range(end - 1, end - 1 - size, -1):
                self.on_evict(run.keys.at(block))
        return size

    # --- content that may be shared ---

    def lookup(self, keys: Keys, limit: int) -> tuple[int, list[BlockRun]]:
        """The longest cached run of leading blocks, at most `limit`: how many, and where they are. Changes nothing.

        The last run may hold more blocks than are found.
        """
        runs: list[BlockRun] = []
        return self.found(keys, limit, runs), runs

    def found(self, keys: Keys, limit: int, runs: list[BlockRun] | None = None) -> int:
        """How many blocks `lookup` finds; their runs are added to `runs`."""
        table, found, last, piece = self.table, 0, min(limit, keys.length), 0
        run: BlockRun | None = None
        while found < last:
            piece = keys.piece(found, piece)
            copies = table.get(keys.at(found, piece))
            if copies is None:
                break
            run = copies if isinstance(copies, BlockRun) else copies[0]
            if runs is not None:
                runs.append(run)
            found = min(run.end, last)
        if run is not None and run.keys is not keys:  # may part from the last run only: its key tells all before it
            piece = keys.piece(found - 1, piece)
            if run.keys.at(found - 1, piece) != keys.at(found - 1, piece):
                return self._common(run, keys, found)
        return found

    def _common(self, run: BlockRun, keys: Keys, end: int) -> int:
        """Where `keys` part from a run with which they begin, at the latest before `end`: a key tells all before it."""
        mine = run.keys
        low, high = run.start + 1, end - 1  # equal before `low`, different at `high`
        while low < high:
            middle = (low + high) // 2
            if mine.at(middle) == keys.at(middle):
                low = middle + 1
            else:
                high = middle
        return low

    def hit(self, holding: Holding, blocks: int, runs: list[BlockRun]) -> None:
        """Use what `lookup` has found."""
        last = runs[-1]
        if last.end > blocks:
            runs[-1] = self._cut(last, blocks)
        for run in runs:
            size = run.end - run.start
            if not run.users:
                self._remove(run)
                self.free -= size
            else:
                self.again += size
                if run.users == 1:
                    self.common += size
            run.users += 1
        holding.shared = runs
        holding.covered = blocks

    def hit_own(self, holding: Holding) -> None:
        """Use what is left of the request's own blocks."""
        self._remove(holding)
        self.free -= holding.extent
        holding.extent = 0

    def _cut(self, run: BlockRun, at: int) -> BlockRun:
        """Part a run and its copies before block `at`. Returns the run's new head."""
        first, second = run.first, run.keys.at(at)
        copies = self.table[first]
        if isinstance(copies, BlockRun):
            head, self.table[second] = self._part(run, at, second)
            self.table[first] = head
            return head
        pairs = [self._part(copy, at, second) for copy in copies]
        self.table[first] = [head for head, _ in pairs]
        self.table[second] = [tail for _, tail in pairs]
        return pairs[copies.index(run)][0]

    def _part(self, run: BlockRun, at: int, key: int) -> tuple[BlockRun, BlockRun]:
        """Before block `at`, with that key. Unused, its tail stays where it is in the order and its head comes next."""
        head = BlockRun(run.keys, run.start, at, run.users, run.first)
        if run.users:
            run.parts = head, BlockRun(run.keys, at, run.end, run.users, key)
            return run.parts
        run.start, run.first = at, key
        later = run.later
        head.earlier, head.later = run, later
        run.later = later.earlier = head
        return head, run

    def register(self, holding: Holding, blocks: int) -> None:
        """The first `blocks` blocks are full: let those that may be shared be hit."""
        keys, at, table = holding.keys, holding.covered, self.table
        end = min(blocks, keys.length)
        while at < end:
            key = keys.at(at)
            copies = table.get(key)
            if copies is None:  # nor is any later block cached: the tails of prompts are evicted first
                run = BlockRun(keys, at, end, 1, key)
                table[key] = run
            else:
                first = copies if isinstance(copies, BlockRun) else copies[0]
                stop = min(first.end, end)
                if first.keys.at(stop - 1) != keys.at(stop - 1):
                    stop = self._common(first, keys, stop)
                if stop < first.end:
                    self._cut(first, stop)
                    copies = table[key]
                run = BlockRun(keys, at, stop, 1, key)
                if isinstance(copies, list):
                    copies.append(run)
                else:
                    table[key] = [copies, run]
            holding.shared.append(run)
            holding.covered = at = run.end

    def recall(self, keys: Keys) -> None:
        """Cache blocks that were computed before anybody looked; not if requests have no room left for them."""
        if not self.caching:
            return
        holding = Holding()
        holding.keys, holding.shared, holding.covered, holding.extent = keys, [], 0, 0
        blocks, runs = self.lookup(keys, keys.length)
        if blocks:
            self.hit(holding, blocks, runs)
        if keys.length - blocks <= self.free:
            self.take(keys.length - blocks)
            blocks = keys.length
        self.give_back(holding, blocks, blocks)

    # --- the end of a request ---

    def give_back(self, holding: Holding, blocks: int, cached: int) -> None:
        """Free all `blocks` blocks of a request, tail first; the first `cached` of them are full and cached."""
        if not self.caching:
            self.free += blocks
            self.blank += blocks
            return
        if holding.keys.length:
            self.register(holding, cached)
        covered = holding.covered
        own = cached - covered
        self.blank += blocks - cached
        self.free += blocks - covered
        if own:
            holding.extent = own
            self._append(holding)
        if covered:
            for run in reversed(holding.shared):
                self._leave(run)
            holding.shared = []
            holding.covered = 0

    def _leave(self, run: BlockRun) -> None:
        if run.parts is not None:
            head, tail = run.parts
            self._leave(tail)
            self._leave(head)
            return
        run.users -= 1
        size = run.end - run.start
        if not run.users:
            self._append(run)
            self.free += size
            return
        self.again -= size
        if run.users == 1:
            self.common -= size
