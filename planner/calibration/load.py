"""The loads of a calibration: short phases that each show one part of the step law, sent as one `Load`.

A host launches equal steps in 50 ms for a while and in 100 ms for another (planner.calibration.launches), so prompts
are spread over the whole round: twenty of them within a second tell no more of it than two do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from planner.engine.law import WIDE as MATRIX_ROWS
from planner.engine.step_time import StepTime
from planner.spec import SpecError
from planner.system.resolve import System
from planner.traffic.requests import Arrival, Request

Kind = Literal["idle", "decode", "mixed", "company"]

PAUSE_S = 0.2  # between phases, so that one does not run into the next
STEADY_STEPS = 24  # decode steps that a batch is held for
IDLE_REPEATS = 3  # prompts of each length on an idle engine
LAUNCHED = 1024  # tokens: more than the largest CUDA graph
PROMPTS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256)
CONTEXTS = (128, 1024, 4096, 16384)
STAIRS, STAIR_STEPS = 40, 8  # sequences that end one after another, so many steps apart: every batch up to 40
STAIR_CONTEXTS = (1024, 4096)
WIDE, WIDE_CONTEXTS, WIDE_ENDS = 512, (768, 256), 2  # most sequences, all together; so many end with every step
WIDE_SHARE = 0.25  # of the time, at most
HANDED_OVER_S = 0.014  # between hand-overs of short prompts that come all at once: 512 took 7 s on two H200s
CLIENT_TOKENS_S = 12_000  # that one API server and one client hand on
MIXED_BATCHES = (4, 16, 64, 128)
MIXED_PROMPTS = (32, 128, 384, 512, 1024, 2048, 8192)  # into a batch: on both sides of the largest CUDA graph
COMPANY_PROMPTS = (64, 256, 256, 1024)  # prefilled while the decode engine of the same host works
REQUEST_S = 0.02  # what a request costs besides the engine, for the estimate of time
KV_SHARE = 0.8  # of the KV cache that a phase may fill


@dataclass(frozen=True)
class Phase:
    """`together` are sent at once; `after` one by one, each when the one before has ended.

    A mixed phase's first `after` is a marker: the engine takes it once the prompts of `together` are done.
    """

    kind: Kind
    name: str
    together: tuple[Request, ...]
    after: tuple[Request, ...]
    estimate_s: float

    @property
    def requests(self) -> tuple[Request, ...]:
        return self.together + self.after


@dataclass
class PhasedLoad:
    """Phases one after another, as a `planner.traffic.requests.Load`. `kinds` tells each request's phase kind."""

    phases: tuple[Phase, ...]
    expected_requests: int = field(init=False)
    kinds: dict[int, Kind] = field(init=False)

    def __post_init__(self) -> None:
        self.expected_requests = sum(len(phase.requests) for phase in self.phases)
        self.kinds = {request.request_id: phase.kind for phase in self.phases for request in phase.requests}
        self._phase = -1
        self._open: set[int] = set()
        self._after: list[Request] = []
        self._serial = -1  # the one of `after` that is under way

    def start(self) -> list[Arrival]:
        return self._next_phase(0.0)

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        self._open.discard(request.request_id)
        if self._after and self._serial == request.request_id:
            return [self._send_after(time_s)]
        if self._open or self._after:
            return []
        return self._next_phase(time_s + PAUSE_S)

    def _next_phase(self, time_s: float) -> list[Arrival]:
        self._phase += 1
        if self._phase >= len(self.phases):
            return []
        phase = self.phases[self._phase]
        self._after = list(phase.after)
        self._open = {request.request_id for request in phase.together}
        arrivals = [Arrival(time_s, request) for request in phase.together]
        return [*arrivals, self._send_after(time_s)] if self._after else arrivals

    def _send_after(self, time_s: float) -> Arrival:
        request = self._after.pop(0)
        self._open.add(request.request_id)
        self._serial = request.request_id
        return Arrival(time_s, request)


def _request(number: int, prompt: int, output: int) -> Request:
    """Content of its own, so that no prefix cache helps."""
    return Request(number, number, prompt, output, output, ((number + 1, prompt),), 0, -1 - number)


def _cheapest(phases: list[Phase], seconds: float) -> list[Phase]:
    """As many phases as fit in `seconds`, the short ones first; in their own order."""
    chosen: set[int] = set()
    for index in sorted(range(len(phases)), key=lambda i: phases[i].estimate_s):
        if seconds < phases[index].estimate_s:
            break
        seconds -= phases[index].estimate_s
        chosen.add(index)
    return [phase for index, phase in enumerate(phases) if index in chosen]


def _spread(kinds: list[list[Phase]]) -> list[Phase]:
    """Phases of all kinds in turn, each kind's own evenly over the whole."""
    places = [((index + 0.5) / len(found), phase) for found in kinds for index, phase in enumerate(found)]
    return [phase for _, phase in sorted(places, key=lambda placed: placed[0])]


@dataclass(frozen=True)
class _Room:
    """What all pools of the system can take, and how long things take by the profile at hand."""

    step: StepTime
    tokens: int  # KV cache
    length: int  # longest prompt and answer of one request
    seqs: int
    budget: int
    disaggregated: bool
    shared: bool  # the engines take their time from one host's cores

    def prefill_s(self, prompt: int, prompts: int = 1) -> float:
        chunks = math.ceil(prompt / self.budget)
        part = math.ceil(prompt / chunks)
        return prompts * sum(self.step.mixed([(part, part * done)], 0, 0) for done in range(chunks))

    def decode_s(self, batch: int, context: int, steps: int) -> float:
        base, slope = self.step.decode(batch)
        return steps * (base + slope * batch * context)


def _room(system: System) -> _Room:
    limits = [pool.limits for pool in system.pools]
    return _Room(
        step=system.pools[0].profile.step,
        tokens=min(one.kv_blocks * one.block_size for one in limits),
        length=min(one.max_model_len for one in limits),
        seqs=min(one.max_num_seqs for one in limits),
        budget=min(one.max_num_batched_tokens for one in limits),
        disaggregated=system.disaggregated,
        shared=all(pool.hardware.kind == "cpu" for pool in system.pools),
    )


def _idle(room: _Room, numbers: Iterator[int]) -> Iterator[Phase]:
    """Every length once, then again: prompts of one length meet the host at several moments.

    Those that CUDA graphs hold are each followed by one that they do not, whose launch is the long one.
    """
    lengths = [
        length for one in PROMPTS for length in ((one, LAUNCHED) if one < LAUNCHED and not room.shared else (one,))
    ]
    for _ in range(IDLE_REPEATS):
        for prompt in lengths:
            if prompt + 2 > min(room.length, int(KV_SHARE * room.tokens)):
                continue
            estimate = room.prefill_s(prompt) + room.decode_s(1, prompt, 2) + REQUEST_S + PAUSE_S
            yield Phase("idle", f"an idle prompt of {prompt}", (), (_request(next(numbers), prompt, 2),), estimate)


def _decode(room: _Room, numbers: Iterator[int]) -> Iterator[Phase]:
    for context in CONTEXTS:
        for batch in BATCHES:
            fill_s = room.prefill_s(context, batch)
            # Early ones must still decode when the last prompt is done.
            fill_steps = (
                fill_s / room.decode_s(batch, context, 1) if room.disaggregated else batch * context / room.budget
            )
            output = STEADY_STEPS + math.ceil(fill_steps)
            fits = batch * (context + output) <= KV_SHARE * room.tokens and context + output <= room.length
            if batch > room.seqs or not fits:
                continue
            together = tuple(_request(next(numbers), context, output) for _ in range(batch))
            estimate = fill_s + room.decode_s(batch, context, output) + batch * REQUEST_S / 4 + PAUSE_S
            yield Phase("decode", f"{batch} decodes at {context}", together, (), estimate)


def _stairs(room: _Room, numbers: Iterator[int]) -> Iterator[Phase]:
    """Decode batches that shrink one by one: what sizes between the powers of two take."""
    for context in STAIR_CONTEXTS:
        seqs = min(STAIRS, room.seqs, int(KV_SHARE * room.tokens) // (context + STAIR_STEPS * STAIRS + STEADY_STEPS))
        fill_s = room.prefill_s(context, seqs)
        first = STEADY_STEPS + (
            math.ceil(fill_s / room.decode_s(seqs, context, 1))
            if room.disaggregated
            else math.ceil(seqs * context / room.budget)
        )
        outputs = [first + STAIR_STEPS * step for step in range(seqs)]
        if seqs < 3 or context + outputs[-1] > room.length or seqs * (context + outputs[-1]) > KV_SHARE * room.tokens:
            continue
        together = tuple(_request(next(numbers), context, output) for output in outputs)
        decode_s = room.decode_s(seqs, context, first)
        decode_s += sum(room.decode_s(batch, context, STAIR_STEPS) for batch in range(1, seqs))
        estimate = fill_s + decode_s + seqs * REQUEST_S / 4 + PAUSE_S
        yield Phase("decode", f"{seqs} decodes at {context} that end one by one", together, (), estimate)


def _wide(room: _Room, numbers: Iterator[int], seconds: float) -> list[Phase]:
    """As many decodes as a CUDA graph covers, which end one after another: beyond a tile of rows each takes longer.

    Those that come first go on until the last has come. At the longest of the contexts that `seconds` and the KV cache
    allow: at short ones the host may be slower than the GPU. The KV cache may leave few sequences to a long one.
    """
    for context in () if room.shared else WIDE_CONTEXTS:
        seqs = min(WIDE, room.seqs, int(KV_SHARE * room.tokens) // (2 * context))
        fill_s, fill_steps = room.prefill_s(context, seqs), seqs * context / room.budget
        if room.disaggregated:
            fill_s = max(fill_s, seqs * HANDED_OVER_S)
            fill_steps = fill_s / room.decode_s(max(seqs // 2, 1), context, 1)
        waits = [math.ceil(fill_steps * (1 - index / max(seqs, 1))) for index in range(seqs)]
        outputs = [STEADY_STEPS + wait + index // WIDE_ENDS for index, wait in enumerate(waits)]
        longest = context + max(outputs, default=0)
        fits = longest <= room.length and seqs * longest <= KV_SHARE * room.tokens
        engine_s = fill_s + room.decode_s(seqs, context, STEADY_STEPS)
        engine_s += sum(room.decode_s(batch, longest, 1) for batch in range(1, seqs, WIDE_ENDS))
        estimate = max(engine_s, sum(outputs) / CLIENT_TOKENS_S) + seqs * REQUEST_S / 4 + PAUSE_S
        least = MATRIX_ROWS if context == WIDE_CONTEXTS[-1] else 2 * MATRIX_ROWS
        if seqs > least and fits and estimate <= seconds:
            together = tuple(_request(next(numbers), context, output) for output in outputs)
            return [Phase("decode", f"{seqs} decodes at {context} that end one by one", together, (), estimate)]
    return []


def _mixed(room: _Room, numbers: Iterator[int], contexts: tuple[int, ...] = CONTEXTS[:3]) -> Iterator[Phase]:
    """Prompts that join decodes; on a decode pool of their own nothing ever joins them."""
    if room.disaggregated:
        return
    for context in contexts:
        for batch in MIXED_BATCHES:
            prompts = [prompt for prompt in MIXED_PROMPTS if prompt + 2 <= room.length]
            joined_s = sum(room.prefill_s(prompt) + REQUEST_S for prompt in prompts)
            fill_steps = batch * context / room.budget
            output = STEADY_STEPS + math.ceil(fill_steps + joined_s / room.decode_s(batch, context, 1))
            used = batch * (context + output) + max(prompts)
            if batch >= room.seqs or used > KV_SHARE * room.tokens or context + output > room.length:
                continue
            together = tuple(_request(next(numbers), context, output) for _ in range(batch))
            after = tuple(_request(next(numbers), prompt, 1) for prompt in (16, *prompts))
            estimate = room.prefill_s(context, batch) + joined_s + room.decode_s(batch, context, output) + PAUSE_S
            yield Phase("mixed", f"prompts into {batch} decodes at {context}", together, after, estimate)


def _company(room: _Room, numbers: Iterator[int]) -> Iterator[Phase]:
    """Prompts for the prefill engine while the decode engine of the same host works: how they slow each other."""
    if not (room.disaggregated and room.shared):
        return
    for context in CONTEXTS[:2]:
        prompts = [prompt for prompt in COMPANY_PROMPTS if prompt + 2 <= room.length]
        joined_s = sum(room.prefill_s(prompt) + REQUEST_S for prompt in prompts)
        output = STEADY_STEPS + math.ceil(2 * joined_s / room.decode_s(2, context, 1))
        output = min(output, room.length - context, int(KV_SHARE * room.tokens) // 2 - context)
        if output < STEADY_STEPS:
            continue
        together = tuple(_request(next(numbers), context, output) for _ in range(2))
        after = tuple(_request(next(numbers), prompt, 1) for prompt in prompts)
        estimate = room.prefill_s(context, 2) + max(room.decode_s(2, context, output), joined_s) + PAUSE_S
        yield Phase("company", f"prompts beside 2 decodes at {context}", together, after, estimate)


def plan(system: System, seconds: float = 120.0) -> tuple[Phase, ...]:
    """Phases that take about `seconds` by the profile at hand (usually a roofline): idle prompts, decodes,
    mixed steps or engines side by side, and hundreds of decodes at last.

    In a disaggregated system the idle prompts are the sweep of KV transfer sizes too. Raises SpecError when the engine
    is too small for any of them.
    """
    room, numbers = _room(system), count()
    beside = [*_mixed(room, numbers), *_company(room, numbers)]
    decodes = [*_decode(room, numbers), *_stairs(room, numbers)]
    wide = _wide(room, numbers, WIDE_SHARE * seconds)
    kinds = [list(_idle(room, numbers)), decodes, beside]
    shares = (0.3, 0.4, 0.3)
    seconds -= sum(phase.estimate_s for phase in wide)
    return (*_chosen(kinds, shares, seconds, {"idle", "decode"}, room), *wide)


def plan_host(system: System, seconds: float = 20.0) -> tuple[Phase, ...]:
    """Phases of about `seconds` that show the host of an aggregated GPU engine: launches at many moments, and how long
    requests and tokens take outside of the engine. Raises SpecError as `plan` does.
    """
    room, numbers = _room(system), count()
    beside = list(_mixed(room, numbers, CONTEXTS[:1]))
    return _chosen([list(_idle(room, numbers)), beside], (0.5, 0.5), seconds, {"idle", "mixed"}, room)


def _chosen(
    kinds: list[list[Phase]], shares: tuple[float, ...], seconds: float, needed: set[str], room: _Room
) -> tuple[Phase, ...]:
    chosen = _spread([_cheapest(found, share * seconds) for found, share in zip(kinds, shares, strict=True)])
    missing = needed - {phase.kind for phase in chosen}
    if missing:
        raise SpecError(
            "calibration: no {missing} phase fits in {seconds:.0f} s, {tokens} KV tokens and a model length of "
            "{length}; allowed: more seconds, a larger KV cache or max_model_len",
            " or ".join(sorted(missing)),
            seconds,
            room.tokens,
            room.length,
        )
    return tuple(chosen)
