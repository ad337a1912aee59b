"""What the scheduler handles: one request on one worker, and what was decided for a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

from planner.system.hand_over import AFTER_S
from planner.traffic.requests import Request
from simulator.clock import NOT_YET
from simulator.kv_cache import NO_KEYS, Holding

Mode = Literal["full", "prefill_only", "remote", "resumed"]
WHOLE: Final = ("full", "resumed")  # modes in which one worker ends the prompt and decodes
Outcome = tuple[float, str, "Sequence"]
# Seconds that posting takes its worker from a time on, that the transfer's pieces take one after another, and until
# they are seen to be there. Asked with whether pieces of others are still being moved then.
Posting = Callable[["Sequence", float, bool], tuple[float, float, float]]

ADMITTED: Final = "ADMITTED"
PREFILLED: Final = "PREFILLED"
FINISHED: Final = "FINISHED"
PREEMPTED: Final = "PREEMPTED"
PROMPT_ENDING: Final = "PROMPT_ENDING"
POSTED: Final = "POSTED"
ASKED: Final = "ASKED"

# Where a sequence is.
WAITING: Final = 0  # in the queue
LOADING: Final = 1  # reading remote KV
PREFILL: Final = 2  # in the batch with prompt left
DECODE: Final = 3
ENDING: Final = 4  # in the batch with all its tokens scheduled
HELD: Final = 5  # out of the batch with its blocks held for the decode worker
GONE: Final = 6


class Sequence(Holding):
    """One request on one worker. Times are stamped by the worker, NaN until then; seconds.

    `prefill_only` leaves after one token and keeps its blocks until they are released. `remote` reads its prompt's KV
    from another worker and computes the last prompt token only; a `resumed` one had it here when the run began.
    `remote_tokens` (`remote_blocks`) is what must be read: the prompt less the blocks cached here. `cached_tokens` are
    the prompt tokens hit at its first admission.
    """

    __slots__ = (
        "cached_tokens", "decode_start_s", "due_s", "finished", "last_token_s", "mode", "preemptions", "prefill_end_s",
        "prefill_start_s", "queued_s", "answer_s", "remote_blocks", "remote_tokens", "request",
        "block_tokens", "blocks", "computed", "index", "join", "lagged", "last", "length", "limit", "sampled", "state",
        "swapped", "target", "turn", "wasted",
    )  # fmt: skip

    def __init__(self, request: Request, mode: Mode = "full") -> None:
        self.request = request
        self.mode: Mode = mode
        self.queued_s = self.prefill_start_s = self.prefill_end_s = NOT_YET
        self.decode_start_s = self.last_token_s = NOT_YET
        self.cached_tokens = self.preemptions = self.remote_tokens = self.remote_blocks = 0
        self.finished = self.wasted = False
        self.state = WAITING
        self.keys = NO_KEYS
        self.shared = []
        self.covered = self.extent = 0
        once = mode == "prefill_only"
        self.target = 1 if once else min(request.output_tokens, request.max_tokens)  # tokens it samples in all
        self.limit = 1 if once else request.max_tokens  # what the scheduler knows of that
        self.sampled = 0  # tokens sampled before the current admission
        self.length = request.prompt_tokens  # tokens to compute before the next one is sampled
        self.computed = 0  # tokens scheduled so far; while decoding see Scheduler.tokens
        self.block_tokens = 0  # tokens in one of its blocks, set when it is queued
        self.blocks = 0  # blocks held while in prefill
        self.swapped = 0  # tokens whose KV is on the host since the latest preemption
        self.answer_s = 0.0  # from its latest token in the engine until the API server has handed it out
        self.due_s = NOT_YET  # when the step that ends its prompt ends
        self.index = 0  # order of admission
        self.join = 0  # decode clock at which it starts to decode
        self.last = 0  # decode clock at which it leaves the decodes
        self.turn = -1  # the latest plan with a chunk of its prompt
        self.lagged = -1  # decode clock after a step that had no budget for it


class Plan:
    """What was decided for one step, or for `count` equal decode-only steps; the worker fills in its times.

    Class attributes are the values of a plan without prompts: most plans set few of them.
    """

    chunks: tuple[tuple[int, int], ...] = ()  # (new tokens, tokens already computed)
    members: tuple[Sequence, ...] = ()  # whose chunks these are
    completed: tuple[Sequence, ...] = ()  # members whose prompt ends here
    ending: tuple[Sequence, ...] = ()  # whose last token comes with the last step, in batch order
    read: tuple[Sequence, ...] | list[Sequence] = ()  # of whose KV the scheduler hears with the step's results
    tokens: int = 0  # of all chunks
    batch: int = 0  # decodes
    context: int = 0  # the tokens they hold
    saved: float = 0.0  # so many of them are as good as not read
    count: int = 1  # steps
    settled: int = 1  # how many of them the scheduler has counted
    start: float = 0.0
    end: float = 0.0
    first: float = 0.0
    growth: float = 0.0
    launch: float = 0.0  # the host's time for it
    decided: float = 0.0  # since when
    ready: float = 0.0  # when it can decide what follows
    beside: float = 0.0  # in lockstep: what it takes besides the law
    post: float = 0.0  # part of the launch: descriptors of KV transfers that are posted before its kernels
    running: int = 0
    waiting: int = 0
    used: int = 0
    preempted: int = 0

    @property
    def asked(self) -> float:
        """When its launch is over but for what follows the model: the connector is asked then."""
        return self.decided + max(self.launch - AFTER_S, 0.0)

    def boundary(self, steps: int) -> float:
        """When the first `steps` steps have ended."""
        return self.start + (steps * self.first + self.growth * (steps * (steps - 1) // 2))

    def decision(self, step: int, early: bool) -> float:
        """When step number `step` is decided (from 2 on): as it begins, or `early` as the one before does."""
        return self.boundary(step - 1 - early)

    def steps_ended(self, now: float) -> int:
        """Steps whose tokens are there at `now`."""
        if now >= self.end:
            return self.count
        return min(self.steps_begun(now), self.count) - 1 if self.count > 1 else 0

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
