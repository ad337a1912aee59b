"""The scheduler of one engine: which request computes how many tokens in the next step.

`v1` is vLLM V1 (`v1/core/sched/scheduler.py`, 0.32): running requests first, in the order they were admitted, then
waiting ones, one token budget, chunked prefill, preemption of the latest by recompute. `prefill_first` is vLLM V0:
whole prompts alone as long as any fits, else one decode step.

Decodes are counters, not a list (simulator/decodes.py). A step in which some running request may not get what it wants
(blocks or budget run out) goes through the requests one by one instead.

State runs ahead of the clock as in vLLM: a token counts as computed once its step is scheduled. The true output length
ends a request; it decides nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from planner.system.resolve import EngineLimits
from planner.traffic.requests import Request, Segments
from simulator.decodes import Decodes
from simulator.host_memory import HostMemory
from simulator.kv_cache import NO_KEYS, BlockRun, Keys, Walked, block_keys
from simulator.sequence import (
    ADMITTED,
    DECODE,
    GONE,
    HELD,
    LOADING,
    PREEMPTED,
    PREFILL,
    WAITING,
    Outcome,
    Plan,
    Sequence,
)

MOST_PIECES: Final = 1 << 19  # of keys, in each of the two dicts of those that are known: 40 MB where none is shared


class _Known:
    """Keys of a request with blocks of `size` tokens: of its prompt, and with so many tokens of its `answer`."""

    __slots__ = ("answer", "answered", "keys", "request", "resumed", "size")

    def __init__(self, request: Request, size: int, keys: Keys) -> None:
        self.request, self.size, self.keys = request, size, keys
        self.answer = 0  # not asked for yet
        self.resumed = False  # its answer had begun with the run
        self.answered: Keys = NO_KEYS


class KnownKeys:
    """Keys of the requests that were asked for lately, by identity: a list is sent again and again, at other rates.

    A request itself says no more about its keys than a hash of all that it is put together from, which costs more than
    to look for it. `old` ones are forgotten once as many newer ones are known.
    """

    __slots__ = ("_new", "_old", "_pieces")

    def __init__(self) -> None:
        self._new: dict[int, _Known] = {}
        self._old: dict[int, _Known] = {}
        self._pieces = 0  # of those in `new`

    def of(self, request: Request, size: int) -> _Known | None:
        number = id(request)
        found = self._new.get(number)
        if found is None:
            found = self._old.get(number)
            if found is None:
                return None
            self._keep(number, found)
        return found if found.size == size else None

    def add(self, request: Request, size: int, keys: Keys) -> None:
        self._keep(id(request), _Known(request, size, keys))

    def _keep(self, number: int, one: _Known) -> None:
        self._pieces += one.keys.pieces + 1
        if self._pieces > MOST_PIECES:
            self._old, self._new = self._new, {}
            self._pieces = 0
        self._new[number] = one


_known: Final[dict[int, KnownKeys]] = {}  # by the size of blocks


def known_keys(block_size: int) -> KnownKeys:
    """What engines with such blocks share."""
    return _known.setdefault(block_size, KnownKeys())


class Scheduler(Decodes):
    """Queues, batch and cache of one engine. `schedule` decides the next step, `retire` closes what was decided."""

    def __init__(
        self, limits: EngineLimits, fast_forward: bool, shared_content: bool, kv_consumer: bool = False
    ) -> None:
        super().__init__(limits)
        self.host = HostMemory.of(limits)
        if self.host is not None and limits.tiers:
            self.kv.on_evict = self.host.evicted
        # A decode worker's transfers are not ordered with its steps, so with asynchronous scheduling the blocks of a
        # request that is in a running step are neither freed nor preempted (vLLM's defer_block_free).
        self.defers = kv_consumer and limits.async_scheduling
        self.deferred: list[Sequence] = []  # finished, blocks freed when the running step ends
        self.flying = False  # the latest plan has not ended
        self.turn = 0  # plans so far
        self.fast_forward = fast_forward
        self.shared_content = shared_content and limits.prefix_caching
        self._known = known_keys(limits.block_size)
        self.chunked = limits.chunked_prefill and not limits.prefill_first
        self.waiting: deque[Sequence] = deque()
        self.loading: dict[Sequence, None] = {}  # remote, blocks allocated, KV not read yet
        self.ready: list[Sequence] = []  # remote, KV read, not in the batch yet; in order of admission
        self.partial: list[Sequence] = []  # running, with prompt left; in order of admission
        self.admissions = 0
        self.queued_tokens = 0  # prompt tokens not scheduled yet
        self.blocked = False  # the head of the queue waits for blocks or a place, which no arrival can give

    # --- queues ---

    def enqueue(self, seq: Sequence) -> None:
        """Behind all that wait. Its keys may be known."""
        seq.block_tokens = self.limits.block_tokens(seq.request.prompt_tokens)
        if self.shared_content and not seq.keys.length:
            seq.keys = self.prompt_keys(seq.request)
        if seq.mode != "remote":
            self.queued_tokens += seq.length
        self.waiting.append(seq)

    def prompt_keys(self, request: Request) -> Keys:
        """Keys of the prompt's leading blocks that other requests may contain."""
        size = self.limits.block_tokens(request.prompt_tokens)
        shared, segments = request.shared_tokens, request.segments
        if shared < size:
            return NO_KEYS
        known = self._known.of(request, size)
        if known is not None:
            return known.keys
        kept = segments
        if request.prompt_tokens - segments[-1][1] == shared:
            kept = segments[:-1]  # without their private tails many prompts are the same
        keys = self._keys(kept, shared, size)
        self._known.add(request, size, keys)
        return keys

    def _keys(self, segments: Segments, tokens: int, size: int) -> Keys:
        """Blocks that hold keys alone, and so twice the tokens, are no copies of others."""
        keys = block_keys(segments, tokens, size)
        return keys if size == self.limits.block_size else keys.apart(size)

    def _keys_with(self, seq: Sequence, answer: int) -> Keys:
        """Keys of its whole prompt and of so many tokens of its answer."""
        known, resumed = self._known.of(seq.request, seq.block_tokens), seq.mode == "resumed"
        if known is None:
            return self._walked_with(seq, answer)
        if known.answer != answer or known.resumed != resumed:
            known.answered = self._walked_with(seq, answer)
            known.answer, known.resumed = answer, resumed
        return known.answered

    def _walked_with(self, seq: Sequence, answer: int) -> Keys:
        request, size, prompt = seq.request, seq.block_tokens, seq.keys
        if (
            seq.mode != "resumed"
            and isinstance(prompt, Walked)
            and prompt.length * size + prompt.filled == request.prompt_tokens
        ):
            return prompt.then(request.output_content, answer, size)
        segments = (*request.segments, (request.output_content, answer))  # preempted before, or of other blocks
        if seq.mode == "resumed":  # one content, of which its prompt holds what there was when the run began
            (content, before), begun = request.segments[-1], request.segments[:-1]
            segments = (*begun, (content, before + answer)) if content == request.output_content else segments
        return self._keys(segments, request.prompt_tokens + answer, size)

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

    @property
    def has_work(self) -> bool:
        """There is something to compute, or someone to let in."""
        return bool(self.batch or self.partial or self.waiting or self.ready)

    def settle(self, plan: Plan, steps: int) -> None:
        if self.host is not None and self.blocks_of(steps - plan.settled) > self.kv.blank:
            while plan.settled < steps:  # what a step pushes down the tiers leaves when that step is decided
                self.host.now = plan.decision(plan.settled + 1, self.limits.async_scheduling)
                super().settle(plan, plan.settled + 1)
        else:
            super().settle(plan, steps)

    def restless(self, plan: Plan) -> bool:
        """What follows the plan may admit or preempt."""
        if self.waiting or self.ready:
            return True
        return plan.count > 1 and not self.fits(plan.count - plan.settled + 1)

    # --- one step ---

    def schedule(self, now: float, outcomes: list[Outcome]) -> Plan | None:
        """Decide the next step; None when there is nothing to compute. Appends ADMITTED and PREEMPTED outcomes."""
        limits, kv = self.limits, self.kv
        if self.host is not None:
            self.host.now = now
        self.turn += 1
        if not self.has_work:
            return None
        plan = Plan()
        waits = self.ready or self.waiting
        budget = limits.max_num_batched_tokens
        threshold = limits.long_prefill_token_threshold
        if threshold and len(self.running) + self.queue_length() < 2:
            threshold = 0
        if limits.prefill_first:
            if waits:
                self._admit(plan, budget, 0, now, outcomes)
            if not plan.members:
                self._schedule_running(plan, budget, 0, now, outcomes)
        else:
            budget = self._schedule_running(plan, budget, threshold, now, outcomes)
            if waits and not plan.preempted:
                self._admit(plan, budget, threshold, now, outcomes)
        plan.running = len(self.running)
        plan.waiting = self.queue_length()
        plan.used = kv.total - kv.free
        if plan.members:
            self.blocked = False
            return plan
        if not plan.batch:
            if plan.preempted and not self.flying:
                return self.schedule(now, outcomes)  # vLLM's empty step takes no time
            return None
        if plan.preempted:
            self.blocked = False
        else:
            self.blocked = bool(self.waiting or self.ready)
            if self.fast_forward and plan.batch == self.batch and not self.partial:
                plan.count = self.run_length()
        return plan

    def _schedule_running(self, plan: Plan, budget: int, threshold: int, now: float, outcomes: list[Outcome]) -> int:
        """Every running request gets its tokens. Returns the budget left."""
        kv, batch = self.kv, self.batch
        blocks = self.starts[self.clock % self.period] if batch else 0
        left = budget - batch
        chunks: list[tuple[Sequence, int, int]] = []
        for seq in self.partial:
            tokens = seq.length - seq.computed
            if threshold:
                tokens = min(tokens, threshold)
            elif tokens > left:
                tokens = left  # only the last admitted can be here, see _admit
            need = max(-(-(seq.computed + tokens) // seq.block_tokens) - seq.blocks, 0)
            chunks.append((seq, tokens, need))
            left = left - tokens if tokens > 0 else -1
            blocks += need
        if left < 0 or blocks > kv.free:
            return self._schedule_one_by_one(plan, budget, threshold, now, outcomes)
        if blocks:
            kv.take(blocks)
        if batch:
            plan.batch = batch
            plan.context = self.context
            self.context += batch
            self.clock += 1
        if chunks:
            for seq, tokens, need in chunks:
                seq.blocks += need
                self._chunk(plan, seq, tokens)
            self.partial = [seq for seq in self.partial if seq.state == PREFILL]
        return left

    def _schedule_one_by_one(self, plan: Plan, budget: int, threshold: int, now: float, outcomes: list[Outcome]) -> int:
        """As `_schedule_running` where blocks or budget run out: the last admitted are preempted or left out."""
        kv, running, clock = self.kv, self.running, self.clock
        stuck = False
        decodes: list[Sequence] = []
        chunks: list[tuple[Sequence, int]] = []
        late: list[Sequence] = []
        for seq in list(running):
            if seq.state != DECODE and seq.state != PREFILL:  # preempted just now, or all its tokens are scheduled
                continue
            size, decoding = seq.block_tokens, seq.state == DECODE
            if budget <= 0 or stuck:
                if decoding:
                    late.append(seq)
                continue
            if decoding:
                tokens, need = 1, int((seq.length + clock - seq.join) % size == 0)
            else:
                tokens = min(seq.length - seq.computed, budget, threshold or budget)
                need = max((seq.computed + tokens + size - 1) // size - seq.blocks, 0)
            while need > kv.free and seq.state != WAITING and not stuck:
                victim = next(reversed(running))
                if self.defers and self._in_flight(victim):
                    stuck = True
                    continue
                del running[victim]
                self._preempt(victim, now, outcomes)
                plan.preempted += 1
            if seq.state == WAITING:
                break
            if stuck:
                if decoding:
                    late.append(seq)
                continue
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
            self.delay(seq)
        for seq, tokens in chunks:
            self._chunk(plan, seq, tokens)
        self.partial = [seq for seq in self.partial if seq.state == PREFILL]
        return budget

    def _admit(self, plan: Plan, budget: int, threshold: int, now: float, outcomes: list[Outcome]) -> None:
        """Take from the queue while budget, places and blocks last; the first that does not fit stops it."""
        limits, kv, waiting, running = self.limits, self.kv, self.waiting, self.running
        places = limits.max_num_seqs
        while budget > 0 and len(running) < places:
            reserve = limits.watermark_blocks if running else 0
            if self.ready:
                tokens = self._resume(plan, budget, threshold, reserve)
                if not tokens:
                    return
                budget -= tokens
                continue
            if not waiting:
                return
            seq = waiting[0]
            length, size = seq.length, seq.block_tokens
            hits, runs = kv.lookup(seq.keys, (length - 1) // size) if seq.keys.length else (0, [])
            own = seq.extent if hits == seq.keys.length else 0
            found = hits + own
            space = kv.free - own - reserve
            for run in runs:
                if not run.users:
                    space -= min(run.end, hits) - run.start
            whole = (length + size - 1) // size - found
            done = found * size
            if seq.mode == "remote" and not seq.preemptions:
                if whole > space - self._promised() or (limits.reserve_full_prompt and whole > space):
                    return
                waiting.popleft()
                self._allocate(seq, hits, runs, own, whole)
                seq.remote_tokens, seq.remote_blocks = length - done, whole
                seq.cached_tokens = done
                seq.computed = length - 1
                seq.state = LOADING
                seq.index = self.admissions
                self.admissions += 1
                self.loading[seq] = None
                outcomes.append((now, ADMITTED, seq))
                continue
            if self.host is not None:
                restorable = self.host.restorable(seq, found)
                if restorable > done and not seq.swapped:
                    if whole > space - self._promised():
                        return
                    waiting.popleft()
                    self._load(seq, hits, runs, own, whole, restorable)
                    continue
                done = max(done, restorable)
            if seq.mode == "resumed" and not seq.preemptions:
                done = length - 1
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
            self._allocate(seq, hits, runs, own, need)
            if not seq.preemptions:
                seq.cached_tokens = done
            if self.host is not None:
                self.host.swap_in(seq, found)
            seq.computed = done
            self.queued_tokens -= done
            self._enter(seq)
            self._chunk(plan, seq, tokens)
            if seq.state == PREFILL:
                self.partial.append(seq)
            budget -= tokens

    def _resume(self, plan: Plan, budget: int, threshold: int, reserve: int) -> int:
        """The first whose KV has been read joins the batch; it has blocks for its whole prompt. Returns its tokens."""
        seq, kv = self.ready[0], self.kv
        tokens = seq.length - seq.computed
        if kv.caching:
            kv.register(seq, (seq.length if tokens == 1 else seq.computed) // seq.block_tokens)
        if 0 < threshold < tokens:
            tokens = threshold
        if reserve > kv.free or (tokens > budget and not self.chunked):
            return 0
        tokens = min(tokens, budget)
        del self.ready[0]
        self._enter(seq)
        self._chunk(plan, seq, tokens)
        if seq.state == PREFILL:
            self.partial.append(seq)
        return tokens

    def _promised(self) -> int:
        """Blocks that prompts in progress still need: a loading sequence may not take them (it cannot be preempted)."""
        return sum(-(-seq.length // seq.block_tokens) - seq.blocks for seq in self.partial)

    def _load(self, seq: Sequence, hits: int, runs: list[BlockRun], own: int, blocks: int, tokens: int) -> None:
        """Room for the whole prompt; its KV up to `tokens` comes from below the GPU, and others do not wait for it."""
        assert self.host is not None
        seq.index = self.admissions
        self.admissions += 1
        self.host.read(seq, hits + own)  # before blocks are taken, which may push others down the tiers
        self._allocate(seq, hits, runs, own, blocks)
        if not seq.preemptions:
            seq.cached_tokens = tokens
        self.queued_tokens -= tokens
        seq.computed = tokens
        seq.state = LOADING
        self.loading[seq] = None

    def _allocate(self, seq: Sequence, hits: int, runs: list[BlockRun], own: int, blocks: int) -> None:
        kv = self.kv
        if hits:
            kv.hit(seq, hits, runs)
        if own:
            kv.hit_own(seq)
        kv.take(blocks)
        seq.blocks = hits + own + blocks

    def _enter(self, seq: Sequence) -> None:
        seq.state = PREFILL
        seq.index = self.admissions
        self.admissions += 1
        self.running[seq] = None

    def _chunk(self, plan: Plan, seq: Sequence, tokens: int) -> None:
        """`tokens` of the prompt are in this step; the blocks they fill can be hit at once."""
        done = seq.computed
        plan.chunks += ((tokens, done),)
        plan.members += (seq,)
        plan.tokens += tokens
        seq.turn = self.turn
        seq.computed = done = done + tokens
        if seq.keys.length and self.kv.caching:
            self.kv.register(seq, done // seq.block_tokens)
        if seq.mode != "remote" or seq.preemptions:
            self.queued_tokens -= tokens
        if done == seq.length:
            plan.completed += (seq,)
            self.join(plan, seq)

    # --- leaving the batch ---

    def _preempt(self, seq: Sequence, now: float, outcomes: list[Outcome]) -> None:
        """Free its blocks and put it first in the queue; all its tokens are to be computed again."""
        if seq.state == DECODE:
            self.leave(seq)
        if self.host is not None and seq.mode != "prefill_only":
            self.host.swap_out(seq, seq.computed if seq.state == PREFILL else seq.computed - self._flying(seq))
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

    def _in_flight(self, seq: Sequence) -> bool:
        """It is in the latest plan, which runs."""
        if not self.flying:
            return False
        return seq.turn == self.turn - 1 if seq.state == PREFILL else seq.lagged != self.clock

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
            if self.host is not None:
                self.host.forget(seq)
            seq.state = GONE
            return True
        del self.running[seq]
        if seq.mode == "prefill_only":
            seq.state = HELD
            return True
        wasted = 0
        if seq.state == DECODE:  # the step after is already scheduled
            self.leave(seq)
            wasted = self._flying(seq)
        seq.state = GONE
        if wasted and self.defers:
            self.deferred.append(seq)
        else:
            self._free(seq, seq.computed - wasted)
        return True

    def ended(self) -> None:
        """A step has ended: blocks that waited for it are free."""
        for seq in self.deferred:
            self._free(seq, seq.computed - 1)
        self.deferred.clear()

    def release(self, seq: Sequence) -> None:
        """Free the blocks of a finished `prefill_only` sequence."""
        self._free(seq, seq.computed)
        seq.state = GONE

    def _free(self, seq: Sequence, cached_tokens: int) -> None:
        """`seq.computed` tokens have blocks, `cached_tokens` of them are in the cache."""
        size, request = seq.block_tokens, seq.request
        cached = cached_tokens // size
        if request.output_shared and self.shared_content and request.shared_tokens == request.prompt_tokens:
            answer = cached_tokens - request.prompt_tokens
            if answer > 0:
                seq.keys = self._keys_with(seq, answer)
        self.kv.give_back(seq, (seq.computed + size - 1) // size, cached)
