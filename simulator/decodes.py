"""The decoding part of a batch as counters: cost follows requests, not tokens.

Their number, their summed context, how many start a new block at each residue of the decode clock, and a heap of the
clock at which each ends. So a run of equal decode-only steps is counted at once, and no request is touched in between.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace

from planner.system.resolve import EngineLimits
from simulator.kv_cache import KvCache
from simulator.sequence import DECODE, ENDING, Plan, Sequence


def _admission(seq: Sequence) -> int:
    return seq.index


class Decodes:
    """Who decodes in the next step. `settle` and `retire` are for the latest plan only."""

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self.kv = KvCache(limits.kv_blocks, limits.block_size, limits.prefix_caching)
        self.clock = 0  # decode steps so far
        self.batch = 0  # decodes of the next step
        self.context = 0  # tokens they hold
        # Decode steps after which all is as before: a sequence takes a block every block_tokens of them.
        self.period = limits.block_size * (1 if limits.keys_above_tokens is None else 2)
        self.starts = [0] * self.period  # decodes that need a new block when clock % period is the index
        self.per_period = 0  # their sum
        self.running: dict[Sequence, None] = {}  # in order of admission
        # Heap of (clock, order of admission, who). Who was delayed meanwhile ends later than its entry says.
        self.ends: list[tuple[int, int, Sequence]] = []

    def join(self, plan: Plan, seq: Sequence) -> None:
        """The step samples a token, the next one decodes; unless that token was its last."""
        clock = seq.join = self.clock
        steps = seq.target - seq.sampled - 1
        if steps <= 0:
            plan.ending += (seq,)
            if not self.unforeseen(seq):
                seq.state = ENDING
                return
            seq.wasted = True
            steps = 1
        length = seq.length
        seq.state = DECODE
        seq.last = clock + steps
        self.batch += 1
        self.context += length
        self._count_starts(seq, 1)
        heappush(self.ends, (seq.last, seq.index, seq))

    def _count_starts(self, seq: Sequence, change: int) -> None:
        """How its blocks come due, counted in (1) or out (-1)."""
        size = seq.block_tokens
        first = (seq.join - seq.length) % size
        self.starts[first] += change
        self.per_period += change
        if size < self.period:
            self.starts[first + size] += change
            self.per_period += change

    def unforeseen(self, seq: Sequence) -> bool:
        """It stops before max_tokens: with asynchronous scheduling the step after is already decided, and wasted."""
        return self.limits.async_scheduling and seq.target < seq.limit

    def keys_alone(self) -> tuple[int, int]:
        """(decodes, tokens they attend to) that keep keys alone, of the step just decided, which has decodes.

        Looks at every request.
        """
        size, clock = self.limits.block_size, self.clock
        contexts = [
            seq.length + clock - 1 - seq.join
            for seq in self.running
            if seq.block_tokens != size and seq.state == DECODE and seq.join < clock and seq.lagged != clock
        ]
        return len(contexts), sum(contexts)

    def leave(self, seq: Sequence) -> None:
        """Out of the counters of decodes."""
        seq.computed = tokens = seq.length + self.clock - seq.join
        self.batch -= 1
        self.context -= tokens
        self._count_starts(seq, -1)

    def delay(self, seq: Sequence) -> None:
        """The step that was just decided had no budget for this decode."""
        self._count_starts(seq, -1)
        seq.join += 1
        seq.last += 1
        seq.lagged = self.clock
        self._count_starts(seq, 1)

    def _next_end(self) -> int:
        """The clock of the first entry of `ends`, which then says when its sequence ends; there is one that decodes."""
        ends = self.ends
        while True:
            last, index, seq = ends[0]
            if seq.state != DECODE or seq.index != index:
                heappop(ends)  # preempted meanwhile
            elif seq.last != last:
                heapreplace(ends, (seq.last, index, seq))
            else:
                return last

    def run_length(self) -> int:
        """Equal decode-only steps, the one just decided included, until one ends or blocks run out."""
        more = self._next_end() - self.clock
        if self.fits(more):
            return 1 + more
        free, period = self.kv.free, self.period
        cycles = free // self.per_period
        more = cycles * period
        free -= cycles * self.per_period
        for clock in range(self.clock, self.clock + period):
            free -= self.starts[clock % period]
            if free < 0:
                break
            more += 1
        return 1 + more

    def fits(self, steps: int) -> bool:
        """Whether the blocks that the next `steps` decode-only steps take are free."""
        free = self.kv.free
        return self.batch * (steps // self.limits.block_size + 1) <= free or self.blocks_of(steps) <= free

    def blocks_of(self, steps: int) -> int:
        """Blocks that the next `steps` decode-only steps take."""
        period, starts = self.period, self.starts
        cycles = steps // period
        rest = steps - cycles * period
        if not rest:
            return cycles * self.per_period
        at = self.clock % period
        blocks = sum(starts[at : at + rest])
        if at + rest > period:
            blocks += sum(starts[: at + rest - period])
        return cycles * self.per_period + blocks

    def settle(self, plan: Plan, steps: int) -> None:
        """Count the first `steps` steps of the latest plan as scheduled."""
        more = steps - plan.settled
        if more > 0:
            blocks = self.blocks_of(more)
            if blocks:
                self.kv.take(blocks)
            self.clock += more
            self.context += more * self.batch
            plan.settled = steps

    def retire(self, plan: Plan) -> None:
        """All steps of the latest plan are scheduled: those who decode no more leave the counters."""
        ends, clock = self.ends, self.clock
        if not ends or ends[0][0] > clock:
            return
        ending = list(plan.ending)
        while ends and ends[0][0] <= clock:
            last, index, seq = heappop(ends)
            if seq.state != DECODE or seq.index != index:
                continue  # preempted meanwhile
            if seq.last != last:
                heappush(ends, (seq.last, index, seq))
                continue
            if not seq.wasted:
                ending.append(seq)
                if self.unforeseen(seq):
                    seq.wasted = True
                    seq.last = last + 1
                    heappush(ends, (seq.last, seq.index, seq))
                    continue
            self.leave(seq)
            seq.state = ENDING
        if plan.ending:
            ending.sort(key=_admission)
        plan.ending = tuple(ending)
