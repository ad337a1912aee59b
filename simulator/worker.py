"""One vLLM engine: scheduler, KV cache and clock, advanced lazily between outside events.

Contract used by simulator/cluster.py (the cluster owns time; a worker never runs past what it was told):

- `submit(sequence, now)`: the sequence enters the waiting queue at `now`. As with all that carries a time, every event
  before `now` must have been advanced (not those at `now`).
- `next_event_s()`: when to call `advance` next if nothing else happens: the next outcome is not earlier, and `advance`
  may return none; inf when idle. Ask again after each `advance`, `submit`, `kv_arrived` and `release`.
- `advance(now)`: run all steps that end at or before `now`; returns the outcomes in time order. A step that begins at
  `now` is decided then: what is submitted at `now` afterwards joins a later one. Only an idle worker waits for the next
  `advance`, so that requests of one instant share a step.
- `kv_arrived(sequence, now)`: the scheduler is told that the remote KV of a `remote` sequence has been read.
- `kv_read(sequence, now)`: it has been read, and nobody has looked. A running engine asks its connector when it has
  launched a step, and its scheduler hears of it with that step's results (vLLM: get_finished, update_from_output).
  `forwarded` (push): asking wakes a thread that fetches the message, and the answer has it when asked again.
- `ask(sequence, now)`: KV that a `prefill_only` sequence left here has been written elsewhere: when is that known?
- `release(sequence, now)`: frees the blocks of a `prefill_only` sequence that were held for the decode worker.
- `cached_tokens(request)`: prompt tokens (whole blocks, at most prompt - 1) that a prefix lookup would hit now.
- `refusal(request, mode)`: why the request can never run here, or None. Ask before `submit`.
- `observe(now)`: take the decisions that are due by `now` and count the steps of a run that have begun. Call it before
  `load.active_blocks` or `cached_tokens` are used; nothing else needs it.
- `set_pace(pace, now)`: others take their share of the host's cores (simulator/sharing.py), or of the GPU's memory
  while KV is read from it. Then ask for `next_event_s` again.
- `load`: a `planner.routing.WorkerLoad`, kept current (`active_blocks`: as of the latest `observe`, or outcome).

Outcomes are `(time_s, kind, sequence)`: ADMITTED (remote only: blocks are allocated, the read may start), POSTED
(descriptors of a transfer are posted, from then on its bytes flow; the time may lie ahead),
PREFILLED (the step that ends the prompt, and samples the first token), FINISHED (last token sampled), PREEMPTED, and
with `announce` PROMPT_ENDING (that step begins; it ends at `sequence.due_s`), and after `ask` ASKED (the time may lie
ahead).
A `prefill_only` sequence is FINISHED with its first token. A `remote` one always has something to read, because the
last token of a prompt never hits; `remote_blocks` is how much.

With `limits.async_scheduling` step k+1 is decided when step k begins: what happens during step k joins step k+2, and
blocks and places that step k frees serve step k+2. A request that stops before its max_tokens runs one wasted step.
Where the law knows how long the host takes to launch a step, the host does one thing after another: it takes in the
results of step k, decides and launches step k+2 while the GPU runs step k+1, then waits for the results of step k+1.
These are seen late by what the launch takes longer than the step: `Plan.end` is when they are seen, and the step after,
on the GPU since the one before ended, is that much ahead.

An engine asks its connector once a step, when it has launched it, and an engine with nothing to launch at once
(vLLM: get_finished). A transfer that it writes (push) is over for the one that reads only then: `ask`.
"""

from __future__ import annotations

from heapq import heappop

import numpy as np
from numpy.typing import NDArray

from planner.engine.shared_kv import SharedKv
from planner.engine.step_time import StepTime
from planner.engine.warmth import Warmth
from planner.routing import WorkerLoad
from planner.system.hand_over import AFTER_S, GRAPH_S
from planner.system.resolve import EngineLimits
from planner.traffic.requests import Request
from simulator.batching import Scheduler
from simulator.clock import NEVER
from simulator.host_pace import HostPace
from simulator.kv_cache import NO_KEYS, Keys
from simulator.sequence import (
    ADMITTED,
    ASKED,
    DECODE,
    ENDING,
    FINISHED,
    POSTED,
    PREEMPTED,
    PREFILLED,
    PROMPT_ENDING,
    WHOLE,
    Mode,
    Outcome,
    Plan,
    Posting,
    Sequence,
)
from simulator.step_rows import StepRows
from simulator.step_seconds import StepSeconds

__all__ = [
    "ADMITTED",
    "ASKED",
    "FINISHED",
    "POSTED",
    "PREEMPTED",
    "PREFILLED",
    "PROMPT_ENDING",
    "Mode",
    "Outcome",
    "Sequence",
    "Worker",
]

# (chunks as (new, computed)), decodes, their context, running, waiting, free blocks, preempted in this step
Decision = tuple[tuple[tuple[int, int], ...], int, int, int, int, int, int]


class Worker:
    """See the module's docstring. `fast_forward=False` takes every step by itself: same outcomes, times within 1e-9 s.

    `trace` collects the decision of every step (of every run of equal steps when fast-forwarding).
    `kv_consumer` says that this is a decode worker, whose blocks are freed a step later with asynchronous scheduling.
    `shared_content=False` says that no two requests share content, so that nothing is looked up.
    `answer_s` is what the API server takes to hand out a sequence's token, and for each token of a prompt that ended;
    it takes one after another. `posting` says what it takes to post what a sequence must read, in the step that admits
    it (simulator.sequence.Posting); None: nothing.
    `pace` is how fast the host launches steps with prompts from moment to moment; None: as the law says.
    `in_lockstep`: its steps end when those of other ranks do (simulator/lockstep.py), who is told what it has of each.
    `shared_kv`: what KV that several sequences hold saves its steps; None: each reads it from memory.
    `warm_slowing`: times as long as the law says that steps with prompts take on a GPU that has not rested.
    """

    def __init__(
        self,
        name: str,
        limits: EngineLimits,
        step: StepTime,
        *,
        fast_forward: bool = True,
        record_steps: bool = True,
        announce: bool = False,
        trace: list[Decision] | None = None,
        shared_content: bool = True,
        kv_consumer: bool = False,
        answer_s: tuple[float, float] = (0.0, 0.0),
        posting: Posting | None = None,
        pace: HostPace | None = None,
        in_lockstep: bool = False,
        warm_slowing: float = 1.0,
        shared_kv: SharedKv | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self._rows = StepRows(limits.kv_blocks)
        self._step = StepSeconds(step)
        self._record = record_steps
        self._announce = announce
        self._written: list[Sequence] = []  # KV that was sent, which the connector has not been asked about since
        self._trace = trace
        self._early = limits.async_scheduling
        self._in_lockstep = in_lockstep
        self._scheduler = Scheduler(limits, fast_forward and not in_lockstep, shared_content, kv_consumer)
        host = self._scheduler.host
        self._reads: list[tuple[float, int, Sequence]] = host.reads if host is not None else []
        self.kv = self._scheduler.kv
        self.load = WorkerLoad(name, total_blocks=limits.kv_blocks)
        whole = limits.prefill_first or not limits.chunked_prefill
        self._fits = min(  # tokens that a request may have for sure
            limits.max_model_len,
            limits.kv_blocks * limits.block_size + 1,
            limits.max_num_batched_tokens if whole else limits.max_model_len,
        )
        self._wake = NEVER  # when an idle worker looks at its queue
        self._plan: Plan | None = None  # running
        self._next: Plan | None = None  # asynchronous: decided, begins when the plan ends
        self._decided = False  # asynchronous: what follows the plan, if anything, is decided
        self._pace = 1.0
        self._shared_kv = shared_kv
        self._warmth = Warmth(warm_slowing) if warm_slowing > 1.0 and not in_lockstep else None
        self._launches = max(step.launch(1, 0), step.launch(1 << 20, 0)) > 0.0 and not in_lockstep
        self._host_pace = pace
        self._free_s = -NEVER  # when the GPU is done with all that has ended
        self._posting = posting
        self._moved_s = -NEVER  # when the pieces of all transfers that it has posted have been moved
        self._coming = 0  # requests that its API server is taking in
        self._busy_s = -NEVER  # until when posting keeps an engine with nothing to compute
        self._unasked: list[Sequence] = []  # their KV has been read since the last launch
        self._unheard: list[Sequence] = []  # it has been written, which a thread is asked for at the next launch
        self._answer_s = answer_s
        self._answers = answer_s[0] != 0.0 or answer_s[1] != 0.0
        self._answered_s = -NEVER  # when the API server has handed out all tokens so far
        self._late: list[Outcome] = []  # preemptions of decisions that were taken outside `advance`
        self._changed = False  # something happened since then that the step after the next must see

    def let_go(self) -> None:
        """The run is over: nothing leads back to who runs it."""
        self._posting = None
        self.kv.let_go()

    # --- what the cluster asks ---

    @property
    def steps(self) -> NDArray[np.float64]:
        """What was recorded: a row for each step, or run of equal steps. Ask after the run."""
        return self._rows.table

    def observe(self, now: float) -> None:
        plan = self._plan
        if self._catch_up(now):
            self._show()
        elif plan is not None and plan.settled < plan.count and not self._decided:
            self._scheduler.settle(plan, min(plan.count, plan.steps_begun(now) + self._early))
        self.load.active_blocks = self.kv.total - self.kv.free

    def _show(self) -> None:
        load, scheduler = self.load, self._scheduler
        load.running = len(scheduler.running)
        load.waiting = scheduler.queue_length() + self._coming
        load.queued_tokens = scheduler.queued_tokens
        load.active_blocks = self.kv.total - self.kv.free

    def refusal(self, request: Request, mode: Mode = "full") -> str | None:
        """One line: why the request can never run here. None: it can."""
        limits = self.limits
        tokens = request.prompt_tokens + (1 if mode == "prefill_only" else request.max_tokens)
        if tokens <= self._fits:
            return None
        if tokens > limits.max_model_len:
            return f"{tokens} tokens (prompt + max_tokens) exceed max_model_len {limits.max_model_len}"
        room = limits.kv_blocks * limits.block_tokens(request.prompt_tokens)
        if tokens - 1 > room:
            return f"{tokens} tokens (prompt + max_tokens) exceed the KV cache of {room} tokens"
        if (limits.prefill_first or not limits.chunked_prefill) and tokens > limits.max_num_batched_tokens:
            return (
                f"{tokens} tokens (prompt + max_tokens) exceed max_num_batched_tokens {limits.max_num_batched_tokens}, "
                "and prompts are not chunked"
            )
        return None

    def prompt_keys(self, request: Request) -> Keys:
        """What `kv` is asked for; the same for all engines of a pool."""
        return self._scheduler.prompt_keys(request) if self._scheduler.shared_content else NO_KEYS

    def cached_tokens(self, request: Request) -> int:
        size = self.limits.block_tokens(request.prompt_tokens)
        return self.kv.found(self.prompt_keys(request), (request.prompt_tokens - 1) // size) * size

    def next_event_s(self) -> float:
        plan = self._plan
        if plan is None:
            when = self._wake
        elif self._early and not self._decided and (self._scheduler.restless(plan) or self._written):
            when = self._decision(plan)  # some may be admitted or preempted there, or the connector asked
        else:
            when = plan.end
        return min(when, self._reads[0][0]) if self._reads else when

    @property
    def in_step(self) -> bool:
        return self._plan is not None

    @property
    def launches_ahead(self) -> bool:
        return self._early

    @property
    def busy_until_s(self) -> float:
        """When it will have nothing to compute, as far as it is known: -inf idle, inf while something waits."""
        if self._plan is None:
            return -NEVER
        return NEVER if self._scheduler.waiting or self._next is not None else self._plan.end

    def answered(self, sequence: Sequence, now: float) -> int:
        """Tokens that it has sampled by `now`, to within one."""
        self._catch_up(now)
        if sequence.state != DECODE:
            return sequence.target - 1 if sequence.state == ENDING else sequence.sampled
        plan, follower, ended = self._plan, self._next, self._scheduler.clock
        if follower is not None and follower.batch:
            ended -= follower.settled
        if plan is not None and plan.batch:
            ended -= plan.settled - plan.steps_ended(now)
        return sequence.sampled + 1 + max(ended - sequence.join, 0)

    # --- what happens to it ---

    def expect(self, more: int) -> None:
        """So many more requests than before are on their way through its API server."""
        self._coming += more
        self.load.waiting += more

    def submit(self, sequence: Sequence, now: float) -> None:
        self._catch_up(now)
        scheduler, load = self._scheduler, self.load
        sequence.queued_s = now
        scheduler.enqueue(sequence)
        load.waiting += 1
        load.queued_tokens = scheduler.queued_tokens
        if self._plan is None or not scheduler.blocked:
            self._notice(now)

    def kv_arrived(self, sequence: Sequence, now: float) -> None:
        self._catch_up(now)
        self._scheduler.loaded(sequence)
        self._notice(now)

    def kv_read(self, sequence: Sequence, now: float, forwarded: bool = False) -> None:
        if self._plan is None:
            self.kv_arrived(sequence, now)
            return
        self._catch_up(now)
        self._notice(now)
        asking = self._being_launched(now)
        if asking is None:
            (self._unheard if forwarded else self._unasked).append(sequence)
        elif forwarded:
            self._unasked.append(sequence)
        else:
            asking.read = [*asking.read, sequence]

    def ask(self, sequence: Sequence, now: float) -> float | None:
        """When the connector is asked next, from `now` on; None: an outcome says so."""
        self._catch_up(now)
        if self._plan is None:
            return max(now, self._busy_s)
        launching = self._being_launched(now)
        if launching is not None:
            return launching.asked
        self._written.append(sequence)
        self._notice(now)
        return None

    def _being_launched(self, now: float) -> Plan | None:
        """The plan whose last step the host is launching; the connector is asked at the end of that."""
        plan, follower = self._plan, self._next
        if follower is not None:
            follower.count = 1
            return follower if now <= follower.asked else None
        if plan is None or plan.count == 1 or self._decided:
            return None
        begun = plan.boundary(plan.count - 2) if plan.count > 2 else plan.start
        return plan if now <= begun + max(self._step.decodes(plan.batch).launch_s - AFTER_S, 0.0) else None

    def release(self, sequence: Sequence, now: float) -> None:
        self._catch_up(now)
        plan, scheduler = self._plan, self._scheduler
        if plan is not None or scheduler.has_work:
            self._notice(now)
        if plan is not None and not self._decided:
            scheduler.settle(plan, plan.count)
        scheduler.release(sequence)
        scheduler.blocked = False
        self.load.active_blocks = self.kv.total - self.kv.free

    @property
    def awaits_others(self) -> bool:
        """Whether a step has begun of which only the group knows when it ends."""
        return self._plan is not None and self._plan.end == NEVER

    def share(self) -> tuple[list[tuple[int, int]], int, float]:
        """What it has of the group's step: chunks of several tokens, decodes, the tokens that these read."""
        plan = self._plan
        if plan is None:
            return [], 0, 0
        ones = [done for tokens, done in plan.chunks if tokens == 1]
        wide = [chunk for chunk in plan.chunks if chunk[0] > 1]
        return wide, plan.batch + len(ones), plan.context - plan.saved + sum(ones)

    @property
    def beside_s(self) -> float:
        """What it adds to the group's step: copies, posts, values computed from keys."""
        return self._plan.beside if self._plan is not None else 0.0

    @property
    def pace(self) -> float:
        return self._pace if self._plan is not None else 1.0

    def end_with_others(self, end: float) -> None:
        """The group's step that has begun ends at `end`; a rank without work takes nothing up before."""
        plan = self._plan
        if plan is None:
            self._busy_s = max(self._busy_s, end)
            self._wake = max(self._wake, end)
        else:
            plan.first, plan.growth, plan.end = end - plan.start, 0.0, end

    def set_pace(self, pace: float, now: float) -> None:
        """Steps take `pace` times as long from `now` on; the running one, the rest of it. Not in a run of steps.

        In lockstep, from the next one on.
        """
        plan = self._plan
        if plan is not None and now < plan.end and not self._in_lockstep:
            plan.first = now - plan.start + (plan.end - now) * pace / self._pace
            plan.end = plan.boundary(plan.count)
        self._pace = pace

    def _notice(self, now: float) -> None:
        """Something happened at `now` that the next decision must see: cut a run of equal steps short."""
        plan = self._plan
        if plan is None:
            self._wake = min(self._wake, max(now, self._busy_s))
        elif self._decided:
            self._changed = True
        elif plan.count > 1:
            count = plan.steps_begun(now) + self._early
            if count < plan.count:
                plan.count = count
                plan.end = plan.boundary(count)

    # --- time ---

    def advance(self, now: float) -> list[Outcome]:
        outcomes, self._late = self._late, []
        until = now
        early, scheduler, reads = self._early, self._scheduler, self._reads
        while True:
            now = min(until, reads[0][0]) if reads else until
            plan = self._plan
            if plan is None:
                if self._wake > now:
                    if reads and self._read(until, outcomes):
                        continue
                    break
                start, self._wake = self._wake, NEVER
                scheduler.flying = False
                plan = self._decide(start, outcomes)
                self._ask(plan, start, outcomes)
                self._begin(plan, start, outcomes)
                continue
            if early and not self._decided and not self._decide_early(plan, now, outcomes):
                if reads and self._read(until, outcomes):
                    continue
                break
            end = plan.end
            if end > now:
                if reads and self._read(until, outcomes):
                    continue
                break
            if not early:
                scheduler.settle(plan, plan.count)
                scheduler.retire(plan)
            self._complete(plan, outcomes)
            follower = self._next
            if follower is None:
                scheduler.flying = False
                follower = self._decide(end, outcomes)
                self._ask(follower, end, outcomes)
            elif self._changed or (plan.ending and scheduler.blocked):
                follower.count = 1
            self._next = None
            self._begin(follower, end, outcomes)
        self._show()
        return outcomes

    def _read(self, now: float, outcomes: list[Outcome]) -> bool:
        """The first of those that read KV from below the GPU, if its blocks are here by `now`, may go on."""
        if self._reads[0][0] > now:
            return False
        arrived_s, _, sequence = heappop(self._reads)
        self.kv_arrived(sequence, arrived_s)
        outcomes += self._late
        self._late = []
        return True

    def _decide_early(self, plan: Plan, now: float, outcomes: list[Outcome]) -> bool:
        """Asynchronous: what follows the plan is decided when its last step begins. False: that is after `now`."""
        decision = self._decision(plan)
        if decision > now:
            return False
        if plan.settled < plan.count:
            self._scheduler.settle(plan, plan.count)
        self._scheduler.retire(plan)
        self._next = follower = self._decide(decision, outcomes)
        self._decided, self._changed = True, False
        if follower is not None:
            self._ask(follower, decision, outcomes)
        if follower is not None and (follower.chunks or plan.chunks or follower.post):
            plan.end = max(plan.end, decision + follower.launch)
        return True

    def _ask(self, plan: Plan | None, now: float, outcomes: list[Outcome]) -> None:
        if self._written:
            asked_s = plan.asked if plan is not None else now
            outcomes += [(asked_s, ASKED, sequence) for sequence in self._written]
            self._written = []

    @staticmethod
    def _decision(plan: Plan) -> float:
        """When what follows the plan is decided: its last step begins, and the host has launched it."""
        begin = plan.boundary(plan.count - 1) if plan.count > 1 else plan.start
        return begin if begin > plan.ready else plan.ready

    def _catch_up(self, now: float) -> bool:
        """A decision that was due by `now` is taken before it can see what happens at `now`. False: none was."""
        if not self._early or self._plan is None or self._decided:
            return False
        return self._decide_early(self._plan, now, self._late)

    def _decide(self, now: float, outcomes: list[Outcome]) -> Plan | None:
        before = len(outcomes)
        plan = self._scheduler.schedule(now, outcomes)
        if self._unasked or self._unheard:
            asked, self._unasked, self._unheard = self._unasked, self._unheard, []
            if plan is None:  # nothing is launched: the answer comes at once
                for sequence in asked + self._unasked:
                    self._scheduler.loaded(sequence)
                self._unasked = []
                plan = self._scheduler.schedule(now, outcomes)
            else:
                plan.read, plan.count = asked, 1
        post_s = 0.0
        if self._posting is not None and len(outcomes) > before:
            inputs_s = (
                max(self._step.decodes(plan.batch).launch_s - AFTER_S - GRAPH_S, 0.0) if plan is not None else 0.0
            )
            post_s = self._posted(now + inputs_s, outcomes, before)
        if plan is None:
            if post_s:  # what comes meanwhile waits
                self._busy_s = now + post_s
            return None
        self._scheduler.flying = True
        kv = self._scheduler.kv
        if kv.again and self._shared_kv is not None:
            size = kv.block_size
            held = (size * kv.again, size * kv.common, size * (kv.total - kv.free))
            plan.saved = min(self._shared_kv.saved(plan.batch, held[0], held[1], held[2]), float(plan.context))
        chunks = plan.chunks
        decodes = all(tokens == 1 for tokens, _ in chunks)
        if chunks:
            plan.first = self._step.chunks(chunks, plan.batch, plan.context - plan.saved)
            if self._launches:
                ones = sum(tokens == 1 for tokens, _ in chunks)
                plan.launch = self._step.launch(plan.tokens - ones, plan.batch + ones)
                if self._host_pace is not None and not decodes:  # decode steps hide theirs at any pace
                    plan.launch *= self._host_pace.at(now)
        else:
            law = self._step.decodes(plan.batch)
            plan.first = law.base_s + law.slope_s * (plan.context - plan.saved)
            plan.growth = law.slope_s * plan.batch
            if self._launches:
                plan.launch = law.launch_s
        law_s = plan.first
        if post_s:
            plan.post = post_s
            plan.launch += post_s
            plan.count = 1
        plan.decided = now
        if self.limits.keys_above_tokens is not None:
            self._compute_values(plan)
        host = self._scheduler.host
        if host is not None and host.copies_s:
            plan.first += host.claim()
            plan.count = 1
        if self._in_lockstep:
            plan.beside = plan.first - law_s + plan.post
        if self._trace is not None:
            free = self._scheduler.kv.free
            self._trace.append((chunks, plan.batch, plan.context, plan.running, plan.waiting, free, plan.preempted))
        return plan

    def _posted(self, now: float, outcomes: list[Outcome], before: int) -> float:
        """Seconds that the step decided at `now` posts for, one transfer after another."""
        admitted = [sequence for _, kind, sequence in outcomes[before:] if kind == ADMITTED]
        total = 0.0
        posting = self._posting
        assert posting is not None
        for sequence in admitted:
            begin = now + total
            posted_s, moved_s, seen_s = posting(sequence, begin, begin < self._moved_s)
            total += posted_s
            self._moved_s = max(max(self._moved_s, begin) + moved_s, now + total)
            outcomes.append((self._moved_s + seen_s, POSTED, sequence))
        return total

    def _compute_values(self, plan: Plan) -> None:
        """The step takes longer, or less long, by what it attends to of sequences that keep keys alone."""
        limits = self.limits
        if plan.batch:
            decodes, context = self._scheduler.keys_alone()
            plan.first += limits.keys_decode_s * context
            plan.growth += limits.keys_decode_s * decodes
        for sequence, (tokens, done) in zip(plan.members, plan.chunks, strict=True):
            if sequence.block_tokens != limits.block_size:
                plan.first += (limits.keys_chunk_s if tokens > 1 else limits.keys_decode_s) * done

    def _begin(self, plan: Plan | None, now: float, outcomes: list[Outcome]) -> None:
        self._plan = plan
        self._decided = False
        if plan is None:
            return
        plan.start = now
        if self._in_lockstep:
            plan.end = NEVER
        else:
            if self._launches or plan.post:
                self._time_launch(plan, now)
            else:
                self._warm(plan, now)
            if self._pace != 1.0:
                plan.first *= self._pace
            plan.end = plan.boundary(plan.count)
        for sequence in plan.members:
            if sequence.prefill_start_s != sequence.prefill_start_s:
                sequence.prefill_start_s = now
                if sequence.mode == "remote":
                    sequence.decode_start_s = now
        if self._announce:
            for sequence in plan.completed:
                sequence.due_s = plan.end
                outcomes.append((now, PROMPT_ENDING, sequence))

    def _time_launch(self, plan: Plan, now: float) -> None:
        """The step's time as seen from `now`: the GPU may have begun it before, and cannot end it before its launch."""
        if not self._early:
            self._warm(plan, now + plan.post)
            plan.first = max(plan.first + plan.post, plan.launch) if plan.chunks else plan.first + plan.post
            return
        head_s = self._step.decodes(plan.batch).launch_s  # inputs are made ready; then the first kernels run
        if plan.decided == now:  # nothing ran: what follows is decided once this is launched
            plan.ready = now + max(plan.launch, head_s + plan.post)
        if plan.post:  # that long ago, where the GPU waits for the posts
            head_s = plan.post + (max(head_s - AFTER_S, 0.0) if plan.decided < now else head_s)
        begin = max(self._free_s, plan.decided + head_s)
        if plan.decided < now:
            begin = min(begin, now)
        if begin == now and not plan.chunks and not plan.post:
            return
        plan.count = 1  # the steps of a run that follow take other times
        self._warm(plan, begin)
        plan.first += begin - now
        if plan.chunks:
            plan.first = max(plan.first, plan.decided + plan.launch - now)

    def _warm(self, plan: Plan, begin: float) -> None:
        """A step with prompts that the GPU begins at `begin` takes longer, the warmer the GPU is."""
        if self._warmth is not None and plan.tokens > len(plan.chunks):
            prompts = [chunk for chunk in plan.chunks if chunk[0] > 1]
            alone = not plan.batch and len(prompts) == len(plan.chunks)
            decodes_s = 0.0 if alone else plan.first - self._step.chunks(prompts, 0, 0)
            tokens = plan.tokens - (len(plan.chunks) - len(prompts))
            plan.first = self._warmth.seconds(plan.first, begin, tokens, decodes_s)

    def _hand_out(self, plan: Plan) -> float:
        """Seconds from the plan's end until the API server has handed out its tokens.

        Steps may be shorter than that. Tokens of a sequence that have not gone out yet then leave together, so that
        none waits for more than the round before its own.
        """
        per_seq_s, per_token_s = self._answer_s
        each = per_seq_s * (plan.batch + len(plan.completed))
        if plan.completed:
            begun = [one.request.prompt_tokens for one in plan.completed if one.mode != "resumed"]
            each += per_token_s * sum(begun)
        latest_s = max(self._answered_s + plan.count * each, plan.end + each)
        self._answered_s = min(latest_s, plan.end + 2.0 * each)
        return self._answered_s - plan.end

    def _complete(self, plan: Plan, outcomes: list[Outcome]) -> None:
        """The last step of the plan has ended: its tokens are there."""
        end = plan.end
        self._free_s = plan.boundary(plan.count)
        answer_s = self._hand_out(plan) if self._answers else 0.0
        if self._record:
            self._rows.add(plan, self._free_s)
        for sequence in plan.read:
            self._scheduler.loaded(sequence)
            self._changed = True
        if self._scheduler.deferred:
            self._scheduler.ended()
            self._changed = True
        for sequence in plan.completed:
            if sequence.prefill_end_s != sequence.prefill_end_s:
                if sequence.mode == "prefill_only" and sequence.preemptions and sequence not in self._scheduler.running:
                    continue  # preempted while its only token was on its way: it starts again
                sequence.prefill_end_s = end
                sequence.answer_s = answer_s
                if sequence.mode in WHOLE and sequence.target > 1:
                    sequence.decode_start_s = end
                outcomes.append((end, PREFILLED, sequence))
        for sequence in plan.ending:
            if self._scheduler.finish(sequence):
                sequence.last_token_s = end
                sequence.answer_s = answer_s
                sequence.finished = True
                outcomes.append((end, FINISHED, sequence))
