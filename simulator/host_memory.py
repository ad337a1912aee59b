"""KV below the GPU: preempted sequences swapped to the host, and tiers that keep evicted blocks of shared prompts.

Swaps are part of a step: it starts computing when they are done, as vLLM V0's do. Tiers work beside the steps, one
block after the other over each tier's link: only the request whose blocks are read waits, as with vLLM's offloading
connector; evicted blocks leave, and can be read once they are written. A tier that is an eighth of its room behind with
writing takes no more. What falls out of a tier goes to the next one.
Sources: vLLM 0.8 `CacheEngine.swap_in/swap_out` and `swap_space`; vLLM's KV offloading connector; Dynamo's KVBM tiers.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappush

from planner.system.resolve import EngineLimits
from simulator.sequence import Sequence


class HostTier:
    """Blocks by key, the least recently used first. Times are seconds; `ready` is when a block has been written."""

    def __init__(self, blocks: int, read_s: float, write_s: float, below: HostTier | None) -> None:
        self.blocks = blocks
        self.read_s = read_s
        self.below = below
        self._write_s = write_s
        self._free_at = 0.0  # of the link down, and of the one up
        self._read_at = 0.0
        self._ready: OrderedDict[int, float] = OrderedDict()

    def put(self, key: int, now: float) -> None:
        if key in self._ready:
            self._ready.move_to_end(key)
            return
        start = max(now, self._free_at)
        if start - now > self.blocks * self._write_s / 8 or not self.blocks:
            return
        self._free_at = self._ready[key] = start + self._write_s
        if len(self._ready) > self.blocks:
            lost, _ = self._ready.popitem(last=False)
            if self.below is not None:
                self.below.put(lost, now)

    def holder(self, key: int, now: float) -> HostTier | None:
        """The tier to read the block from: this one or one below; None when none has it."""
        ready = self._ready.get(key)
        if ready is not None and ready <= now:
            return self
        return self.below.holder(key, now) if self.below is not None else None

    def read(self, key: int, now: float) -> float:
        """Send a block that is here up, behind those that are on their way. Returns when it has arrived."""
        self._ready.move_to_end(key)
        self._read_at = max(now, self._read_at) + self.read_s
        return self._read_at


class HostMemory:
    """What one worker keeps off its GPU.

    `copies_s` are seconds of swapping that the next step waits for; `reads` is a heap of (when its blocks are here,
    order of admission, sequence) of those that read from tiers.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._swap_free = limits.swap_blocks
        self._swap_s = limits.swap_s_per_block
        self._tier: HostTier | None = None
        for blocks, read_s, write_s in reversed(limits.tiers):
            self._tier = HostTier(blocks, read_s, write_s, self._tier)
        self.now = 0.0  # of the decision that is being taken
        self.copies_s = 0.0
        self.reads: list[tuple[float, int, Sequence]] = []

    @staticmethod
    def of(limits: EngineLimits) -> HostMemory | None:
        return HostMemory(limits) if limits.swap_blocks or limits.tiers else None

    def claim(self) -> float:
        """The copies' time, once."""
        copies, self.copies_s = self.copies_s, 0.0
        return copies

    # --- preemption by swapping ---

    def swap_out(self, seq: Sequence, tokens: int) -> None:
        """Copy `tokens` of a preempted sequence to the host; without room it is computed again."""
        blocks = -(-tokens // seq.block_tokens)
        if seq.swapped or not 0 < blocks <= self._swap_free:
            return
        self._swap_free -= blocks
        seq.swapped = tokens
        self.copies_s += blocks * self._swap_s

    def forget(self, seq: Sequence) -> None:
        """It will not come back: its room on the host is free."""
        self._swap_free += -(-seq.swapped // seq.block_tokens)
        seq.swapped = 0

    def swap_in(self, seq: Sequence, found: int) -> None:
        """Copy a swapped sequence back, less the `found` blocks that are still on the GPU; its blocks are allocated."""
        if seq.swapped:
            blocks = -(-seq.swapped // seq.block_tokens)
            self.copies_s += max(blocks - found, 0) * self._swap_s
            self.forget(seq)

    # --- both ---

    def restorable(self, seq: Sequence, found: int) -> int:
        """Tokens whose KV need not be computed: `found` blocks are on the GPU, what else is here? Not the last one."""
        if seq.swapped:
            return min(seq.swapped, seq.length - 1)
        return (found + len(self._tail(seq, found))) * seq.block_tokens

    # --- tiers ---

    def read(self, seq: Sequence, found: int) -> None:
        """Read what `restorable` promised from the tiers."""
        arrivals = [tier.read(key, self.now) for key, tier in self._tail(seq, found)]
        heappush(self.reads, (max(arrivals), seq.index, seq))

    def _tail(self, seq: Sequence, found: int) -> list[tuple[int, HostTier]]:
        """The blocks after the found ones that some tier holds."""
        tail: list[tuple[int, HostTier]] = []
        if self._tier is not None:
            keys = seq.keys
            for block in range(found, min((seq.length - 1) // seq.block_tokens, keys.length)):
                key = keys.at(block)
                holder = self._tier.holder(key, self.now)
                if holder is None:
                    break
                tail.append((key, holder))
        return tail

    def evicted(self, key: int) -> None:
        """The GPU's cache has dropped its last copy of a block."""
        if self._tier is not None:
            self._tier.put(key, self.now)
