"""The scheduler of one engine: which request computes how many tokens in the next step.

`v1` is vLLM V1 (`v1/core/sched/scheduler.py`, 0.32): running requests first, in the order they were admitted, then
waiting ones, one token budget, chunked prefill, preemption of the latest by recompute. `prefill_first` is vLLM V0:
whole prompts alone as long as any fits, else one decode step.

Decodes are counters, not a list: their number, their summed context, how many start a new block at each residue of the
decode clock, and a heap of the clock at which each ends. Cost follows requests, not tokens. A step in which some
running request may not get what it wants (blocks or budget run out) goes through the requests one by one instead.

State runs ahead of the clock as in vLLM: a token counts as computed once its step is scheduled. The true output length
ends a request; it decides nothing.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from typing import Literal

from planner.requests import Request
from planner.system import EngineLimits
from simulator.kv_cache import Block, Holding, KvCache, block_keys

Mode = Literal["full", "prefill_only", "remote"]
Outcome = tuple[float, str, "Sequence"]

ADMITTED, PREFILLED, FINISHED, PREEMPTED = "ADMITTED", "PREFILLED", "FINISHED", "PREEMPTED"

# Where a sequence is: in the queue, reading remote KV, in the batch with prompt left, decoding, in the batch with all
# its tokens scheduled, out of the batch with its blocks held for the decode worker, or gone.
WAITING, LOADING, PREFILL, DECODE, ENDING, HELD, GONE = range(7)


class Sequence(Holding):
    """One request on one worker. Times are stamped by the worker, NaN until then; seconds.

    `prefill_only` leaves after one token and keeps its blocks until they are released. `remote` reads its prompt's KV
    from another worker and computes the last prompt token only. `remote_tokens` (`remote_blocks`) is what it must read:
    its prompt less the blocks cached here. `cached_tokens` are the prompt tokens hit at its first admission.
    """

    __slots__ = (
        "cached_tokens", "decode_start_s", "finished", "last_token_s", "mode", "preemptions", "prefill_end_s",
        "prefill_start_s", "queued_s", "remote_blocks", "remote_tokens", "request",
        "blocks", "computed", "index", "join", "lagged", "last", "length", "limit", "sampled", "state", "target",
        "wasted",
    )  # fmt: skip

    def __init__(self, request: Request, mode: Mode = "full") -> None:
        self.request = request
        self.mode: Mode = mode
        self.queued_s = self.prefill_start_s = self.prefill_end_s = math.nan
        self.decode_start_s = self.last_token_s = math.nan
        self.cached_tokens = self.preemptions = self.remote_tokens = self.remote_blocks = 0
        self.finished = self.wasted = False
        self.state = WAITING
        self.keys = ()
        self.shared: list[Block] = []
        self.extent = 0
        once = mode == "prefill_only"
        self.target = 1 if once else min(request.output_tokens, request.max_tokens)  # tokens it samples in all
        self.limit = 1 if once else request.max_tokens  # what the scheduler knows of that
        self.sampled = 0  # tokens sampled before the current admission
        self.length = request.prompt_tokens  # tokens to compute before the next one is sampled
        self.computed = 0  # tokens scheduled so far; while decoding see Scheduler.tokens
        self.blocks = 0  # blocks held while in prefill
        self.index = 0  # order of admission
        self.join = 0  # decode clock at which it starts to decode
        self.last = 0  # decode clock at which it leaves the decodes
        self.lagged = -1  # decode clock after a step that had no budget for it


class Plan:
    """What was decided for one step, or for `count` equal decode-only steps; the worker fills in its times."""

    __slots__ = (
        "batch", "chunks", "completed", "context", "count", "end", "ending", "first", "growth", "members", "preempted",
        "running", "settled", "start", "tokens", "used", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self.chunks: list[tuple[int, int]] = []  # (new tokens, tokens already computed)
        self.members: list[Sequence] = []  # whose chunks these are
        self.completed: list[Sequence] = []  # members whose prompt ends here
        self.ending: list[Sequence] = []  # whose last token comes with the last step, in batch order
        self.tokens = 0  # of all chunks
        self.batch = self.context = 0  # decodes, and the tokens they hold
        self.count = self.settled = 1  # steps, and how many of them the scheduler has counted
        self.start = self.end = self.first = self.growth = 0.0
        self.running = self.waiting = self.used = self.preempted = 0

    def boundary(self, steps: int) -> float:
        """When the first `steps` steps have ended."""
        return self.start + (steps * self.first + self.growth * (steps * (steps - 1) // 2))

    def steps_begun(self, now: float) -> int:
        """Steps that have begun at `now`: the fewest whose end lies after it, at least 1. May exceed `count`."""
        x = now - self.start
        if x < self.first:
            return 1
        h = self.first - 0.5 * self.growth
        steps = max(1, math.ceil(2.0 * x / (h + math.sqrt(h * h + 2.0 * self.growth * x))))
        while steps > 1 and self.boundary(steps - 1) > now:
            steps -= 1
        while self.boundary(steps) <= now:
            steps += 1
        return steps


class Scheduler:
    """Queues, batch and cache of one engine. `schedule` decides the next step, `retire` closes what was decided."""

    def __init__(self, limits: EngineLimits, fast_forward: bool, shared_content: bool) -> None:
        self.limits = limits
        self.kv = KvCache(limits.kv_blocks, limits.block_size, limits.prefix_caching)
        self.fast_forward = fast_forward
        self.shared_content = shared_content and limits.prefix_caching
        self.chunked = limits.chunked_prefill and not limits.prefill_first
        self.waiting: deque[Sequence] = deque()
        self.loading: dict[Sequence, None] = {}  # remote, blocks allocated, KV not read yet
        self.ready: list[Sequence] = []  # remote, KV read, not in the batch yet; in order of admission
        self.running: dict[Sequence, None] = {}  # in order of admission
        self.partial: list[Sequence] = []  # running, with prompt left; in order of admission
        self.admissions = 0
        self.queued_tokens = 0  # prompt tokens not scheduled yet
        self.blocked = False  # the head of the queue waits for blocks or a place, which no arrival can give
        self.clock = 0  # decode steps so far
        self.batch = 0  # decodes of the next step
        self.context = 0  # tokens they hold
        self.starts = [0] * limits.block_size  # decodes that need a new block when clock % block_size is the index
        self.ends: list[tuple[int, int, Sequence]] = []  # heap of (clock, order of admission, who)

    # --- queues ---

    def enqueue(self, seq: Sequence) -> None:
        """Behind all that wait."""
        request = seq.request
        size = self.limits.block_size
        if self.shared_content and request.shared_tokens >= size:
            seq.keys = block_keys(request.segments, request.shared_tokens, size)
        if seq.mode != "remote":
            self.queued_tokens += seq.length
        self.waiting.append(seq)

    def loaded(self, seq: Sequence) -> None:
        """Its remote KV is here: it goes ahead of the queue, among its like in order of admission."""
        del self.loading[seq]
        at = len(self.ready)
        while at and self.ready[at - 1].index > seq.index:
            at -= 1
        self.ready.insert(at, seq)
        self.blocked = False

    def queue_length(self) -> int:
        return len(self.waiting) + len(self.loading) + len(self.ready)

    # --- one step ---

    def schedule(self, now: float, outcomes: list[Outcome]) -> Plan | None:
        """Decide the next step; None when there is nothing to compute. Appends ADMITTED and PREEMPTED outcomes."""
        limits = self.limits
        plan = Plan()
        budget = limits.max_num_batched_tokens
        threshold = limits.long_prefill_token_threshold
        if threshold and len(self.running) + self.queue_length() < 2:
            threshold = 0
        waits = self.ready or self.waiting
        if limits.prefill_first:
            if waits:
                self._admit(plan, budget, 0, now, outcomes)
            if not plan.members:
                self._schedule_running(plan, budget, 0, now, outcomes)
        else:
            budget = self._schedule_running(plan, budget, threshold, now, outcomes)
            if waits and not plan.preempted:
                self._admit(plan, budget, threshold, now, outcomes)
        if not plan.batch and not plan.members:
            if plan.preempted and not self.limits.async_scheduling:
                return self.schedule(now, outcomes)  # vLLM's empty step takes no time
            return None
        plan.running, plan.waiting = len(self.running), self.queue_length()
        plan.used = self.kv.total - self.kv.free
        self.blocked = bool(self.waiting or self.ready) and not plan.members and not plan.preempted
        if self.fast_forward and not plan.members and not plan.preempted and plan.batch == self.batch:
            plan.count = self._run_length()
        return plan

    def _schedule_running(self, plan: Plan, budget: int, threshold: int, now: float, outcomes: list[Outcome]) -> int:
        """Every running request gets its tokens. Returns the budget left."""
        kv, size, batch = self.kv, self.limits.block_size, self.batch
        blocks = self.starts[self.clock % size] if batch else 0
        left = budget - batch
        chunks: list[tuple[Sequence, int, int]] = []
        for seq in self.partial:
            tokens = seq.length - seq.computed
            if threshold:
                tokens = min(tokens, threshold)
            elif tokens > left:
                tokens = left  # only the last admitted can be here, see _admit
            need = (seq.computed + tokens + size - 1) // size - seq.blocks
            chunks.append((seq, tokens, need))
            left -= tokens
            blocks += need
            if tokens <= 0:
                left = -1
        if left < 0 or blocks > kv.free:
            return self._schedule_one_by_one(plan, budget, threshold, now, outcomes)
        kv.take(blocks)
        if batch:
            plan.batch, plan.context = batch, self.context
            self.context += batch
            self.clock += 1
        for seq, tokens, need in chunks:
            seq.blocks += need
            self._chunk(plan, seq, tokens)
        if chunks:
            self.partial = [seq for seq in self.partial if seq.state == PREFILL]
        return left

    def _schedule_one_by_one(self, plan: Plan, budget: int, threshold: int, now: float, outcomes: list[Outcome]) -> int:
        """As `_schedule_running` where blocks or budget run out: the last admitted are preempted or left out."""
        kv, size, running = self.kv, self.limits.block_size, self.running
        clock = self.clock
        decodes: list[Sequence] = []
        chunks: list[tuple[Sequence, int]] = []
        late: list[Sequence] = []
        for seq in list(running):
            if seq.state != DECODE and seq.state != PREFILL:  # preempted just now, or all its tokens are scheduled
                continue
            decoding = seq.state == DECODE
            if budget <= 0:
                if decoding:
                    late.append(seq)
                continue
            if decoding:
                tokens, need = 1, int((seq.length + clock - seq.join) % size == 0)
            else:
                tokens = min(seq.length - seq.computed, budget, threshold or budget)
                need = (seq.computed + tokens + size - 1) // size - seq.blocks
            while need > kv.free and seq.state != WAITING:
                victim = running.popitem()[0]
                self._preempt(victim, now, outcomes)
                plan.preempted += 1
            if seq.state == WAITING:
                break
            kv.take(need)
            budget -= tokens
            if decoding:
                decodes.append(seq)
            else:
                seq.blocks += need
                chunks.append((seq, tokens))
        plan.batch = len(decodes)
        plan.context = sum(seq.length + clock - seq.join for seq in decodes)
        self.context += len(decodes)
        self.clock += 1
        for seq in late:
            self._delay(seq)
        for seq, tokens in chunks:
            self._chunk(plan, seq, tokens)
        self.partial = [seq for seq in self.partial if seq.state == PREFILL]
        return budget

    def _admit(self, plan: Plan, budget: int, threshold: int, now: float, outcomes: list[Outcome]) -> None:
        """Take from the queue while budget, places and blocks last; the first that does not fit stops it."""
        limits, kv, waiting, running = self.limits, self.kv, self.waiting, self.running
        size, places = limits.block_size, limits.max_num_seqs
        while budget > 0 and len(running) < places:
            reserve = limits.watermark_blocks if running else 0
            if self.ready:
                seq = self.ready[0]
                if kv.caching:
                    kv.register(seq, seq.length // size)
                if reserve > kv.free:
                    return
                del self.ready[0]
                self._enter(seq)
                self._chunk(plan, seq, 1)
                budget -= 1
                continue
            if not waiting:
                return
            seq = waiting[0]
            length = seq.length
            hits: list[Block] = kv.lookup(seq.keys, (length - 1) // size) if seq.keys else []
            own = seq.extent if len(hits) == len(seq.keys) else 0
            found = len(hits) + own
            space = kv.free - own - reserve
            for block in hits:
                if not block.users:
                    space -= 1
            whole = (length + size - 1) // size - found
            done = found * size
            if seq.mode == "remote" and not seq.preemptions:
                if whole > space - self._promised() or (limits.reserve_full_prompt and whole > space):
                    return
                waiting.popleft()
                self._allocate(seq, hits, own, whole)
                seq.remote_tokens, seq.remote_blocks = length - done, whole
                seq.cached_tokens = done
                seq.computed = length - 1
                seq.state = LOADING
                seq.index = self.admissions
                self.admissions += 1
                self.loading[seq] = None
                outcomes.append((now, ADMITTED, seq))
                continue
            tokens = length - done
            if 0 < threshold < tokens:
                tokens = threshold
            if tokens > budget:
                if not self.chunked:
                    return
                tokens = budget
            need = (done + tokens + size - 1) // size - found
            if need > space or (limits.reserve_full_prompt and whole > space):
                return
            waiting.popleft()
            self._allocate(seq, hits, own, need)
            if not seq.preemptions:
                seq.cached_tokens = done
            seq.computed = done
            self.queued_tokens -= done
            self._enter(seq)
            self._chunk(plan, seq, tokens)
            if seq.state == PREFILL:
                self.partial.append(seq)
            budget -= tokens

    def _promised(self) -> int:
        """Blocks that prompts in progress still need: a remote sequence may not take them (it cannot be preempted)."""
        size = self.limits.block_size
        return sum((seq.length + size - 1) // size - seq.blocks for seq in self.partial)

    def _allocate(self, seq: Sequence, hits: list[Block], own: int, blocks: int) -> None:
        kv = self.kv
        if hits:
            kv.hit(seq, hits)
        if own:
            kv.hit_own(seq)
        kv.take(blocks)
        seq.blocks = len(hits) + own + blocks

    def _enter(self, seq: Sequence) -> None:
        seq.state = PREFILL
        seq.index = self.admissions
        self.admissions += 1
        self.running[seq] = None

    def _chunk(self, plan: Plan, seq: Sequence, tokens: int) -> None:
        """`tokens` of the prompt are in this step; the blocks they fill can be hit at once."""
        done = seq.computed
        plan.chunks.append((tokens, done))
        plan.members.append(seq)
        plan.tokens += tokens
        seq.computed = done = done + tokens
        if seq.keys and self.kv.caching:
            self.kv.register(seq, done // self.limits.block_size)
        if seq.mode != "remote" or seq.preemptions:
            self.queued_tokens -= tokens
        if done == seq.length:
            plan.completed.append(seq)
            self._join(plan, seq)

    # --- decodes ---

    def tokens(self, seq: Sequence) -> int:
        """Tokens of a sequence in the batch that are scheduled."""
        return seq.length + self.clock - seq.join if seq.state == DECODE else seq.computed

    def _join(self, plan: Plan, seq: Sequence) -> None:
        """The step samples a token, the next one decodes; unless that token was its last."""
        clock = seq.join = self.clock
        steps = seq.target - seq.sampled - 1
        if steps <= 0:
            plan.ending.append(seq)
            if not self._unforeseen(seq):
                seq.state = ENDING
                return
            seq.wasted = True
            steps = 1
        length = seq.length
        seq.state = DECODE
        seq.last = clock + steps
        self.batch += 1
        self.context += length
        self.starts[(clock - length) % self.limits.block_size] += 1
        heappush(self.ends, (seq.last, seq.index, seq))

    def _unforeseen(self, seq: Sequence) -> bool:
        """It stops before max_tokens: with asynchronous scheduling the step after is already decided, and wasted."""
        return self.limits.async_scheduling and seq.target < seq.limit

    def _leave(self, seq: Sequence) -> None:
        """Out of the counters of decodes."""
        seq.computed = tokens = seq.length + self.clock - seq.join
        self.batch -= 1
        self.context -= tokens
        self.starts[(seq.join - seq.length) % self.limits.block_size] -= 1

    def _delay(self, seq: Sequence) -> None:
        """The step that was just decided had no budget for this decode."""
        size = self.limits.block_size
        self.starts[(seq.join - seq.length) % size] -= 1
        seq.join += 1
        seq.last += 1
        seq.lagged = self.clock
        self.starts[(seq.join - seq.length) % size] += 1
        heappush(self.ends, (seq.last, seq.index, seq))

    def _run_length(self) -> int:
        """Equal decode-only steps, the one just decided included, until one ends or blocks run out."""
        ends = self.ends
        while ends[0][2].state != DECODE or ends[0][2].last != ends[0][0]:
            heappop(ends)
        more = ends[0][0] - self.clock
        free, size, batch = self.kv.free, self.limits.block_size, self.batch
        if batch * (more // size + 1) <= free or self.blocks_of(more) <= free:
            return 1 + more
        cycles = free // batch  # every block_size steps, each decode takes one block
        more = cycles * size
        free -= cycles * batch
        for clock in range(self.clock, self.clock + size):
            free -= self.starts[clock % size]
            if free < 0:
                break
            more += 1
        return 1 + more

    def blocks_of(self, steps: int) -> int:
        """Blocks that the next `steps` decode-only steps take."""
        size, starts = self.limits.block_size, self.starts
        cycles, rest = divmod(steps, size)
        at = self.clock % size
        blocks = sum(starts[at : at + rest])
        if at + rest > size:
            blocks += sum(starts[: at + rest - size])
        return cycles * self.batch + blocks

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
        old = len(plan.ending)
        while ends and ends[0][0] <= clock:
            last, _, seq = heappop(ends)
            if seq.state != DECODE or seq.last != last:
                continue  # preempted or delayed meanwhile
            if not seq.wasted:
                plan.ending.append(seq)
                if self._unforeseen(seq):
                    seq.wasted = True
                    seq.last = last + 1
                    heappush(ends, (seq.last, seq.index, seq))
                    continue
            self._leave(seq)
            seq.state = ENDING
        if old and len(plan.ending) > old:
            plan.ending.sort(key=lambda seq: seq.index)

    # --- leaving the batch ---

    def _preempt(self, seq: Sequence, now: float, outcomes: list[Outcome]) -> None:
        """Free its blocks and put it first in the queue; all its tokens are to be computed again."""
        if seq.state == DECODE:
            self._leave(seq)
        if seq.state == PREFILL:
            self.queued_tokens += seq.computed
            self._free(seq, seq.computed)
        else:
            sampled = seq.computed - seq.length + 1
            self._free(seq, seq.computed - self._flying(seq))
            if seq.mode != "prefill_only":  # whose token is dropped, because its blocks cannot be read any more
                seq.sampled += sampled
                seq.length += sampled
            self.queued_tokens += seq.length
        seq.computed = 0
        seq.state = WAITING
        seq.preemptions += 1
        self.waiting.appendleft(seq)
        outcomes.append((now, PREEMPTED, seq))

    def _flying(self, seq: Sequence) -> int:
        """1 when the latest token was scheduled in a step that has not ended, so that its block is not cached yet."""
        return int(self.limits.async_scheduling and seq.computed > seq.length and seq.lagged != self.clock)

    def finish(self, seq: Sequence) -> bool:
        """Its last token is sampled; a `prefill_only` one keeps its blocks. False: preempted, it starts again."""
        if seq.state == WAITING:  # preempted while that token was on its way
            if seq.mode == "prefill_only":
                return False
            self.waiting.remove(seq)
            self.queued_tokens -= seq.length
            seq.state = GONE
            return True
        del self.running[seq]
        if seq.mode == "prefill_only":
            seq.state = HELD
            return True
        wasted = 0
        if seq.state == DECODE:  # the step after is already scheduled
            self._leave(seq)
            wasted = self._flying(seq)
        self._free(seq, seq.computed - wasted)
        seq.state = GONE
        return True

    def release(self, seq: Sequence) -> None:
        """Free the blocks of a finished `prefill_only` sequence."""
        self._free(seq, seq.computed)
        seq.state = GONE

    def _free(self, seq: Sequence, cached_tokens: int) -> None:
        """`seq.computed` tokens have blocks, `cached_tokens` of them are in the cache."""
        size, request = self.limits.block_size, seq.request
        cached = cached_tokens // size
        if request.output_shared and self.shared_content and request.shared_tokens == request.prompt_tokens:
            answer = cached_tokens - request.prompt_tokens
            if answer > 0:
                segments = (*request.segments, (request.output_content, answer))
                seq.keys = block_keys(segments, cached_tokens, size)
        self.kv.give_back(seq, (seq.computed + size - 1) // size, cached)
