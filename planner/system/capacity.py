"""The highest rate that each pool carries, in closed form: no queue, mean lengths. Searches begin there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.spec import Slo
from planner.system.hand_over import post_work
from planner.system.resolve import Pool, System
from planner.traffic.requests import Request

CLOSE = 1e-3  # of a time: near enough
TRIES = 100  # of a pace that agrees with the batch that it leads to
LEAST_LEFT = 0.1  # of a worker's time for decodes, whatever prompts take
UNHURRIED_S = 1.0  # seconds a token where no TPOT target says less


@dataclass(frozen=True, slots=True)
class MeanLengths:
    """Mean tokens of a request: of its prompt, of that what must be computed, and of its answer.

    `moved`: what of its prompt a decode worker lacks; None: all. `held`: what a request that decodes has of prompt and
    answer at any time; long answers are the likelier to be met. None: with half its answer.
    """

    prompt: float
    computed: float
    output: float
    moved: float | None = None
    held: float | None = None

    @property
    def handed_over(self) -> float:
        return self.prompt if self.moved is None else self.moved

    @property
    def context(self) -> float:
        return self.prompt + self.output / 2 if self.held is None else self.held


def mean_lengths(requests: Sequence[Request]) -> MeanLengths:
    """Of a list, none of it cached."""
    prompt = sum(request.prompt_tokens for request in requests) / len(requests)
    output = sum(request.output_tokens for request in requests) / len(requests)
    held = sum((one.prompt_tokens + one.output_tokens / 2) * one.output_tokens for one in requests) / len(requests)
    return MeanLengths(prompt, prompt, output, held=held / output)


def guessed_rate(system: System, lengths: MeanLengths, slo: Slo) -> float:
    """Requests per second at which the first of prefill, decode, KV memory or link is full (above 0)."""
    rates = list(pool_rates(system, lengths, slo).values())
    if system.wires is not None:
        wire = system.wires.intra_node
        ports = min(len(pool.workers) * pool.tp for pool in system.pools)
        rates.append(ports * wire.bandwidth / (system.kv_bytes_per_token * lengths.handed_over))
    return min(rates)


def pool_rates(system: System, lengths: MeanLengths, slo: Slo) -> dict[str, float]:
    """{role: requests per second that all of its workers carry within the TPOT target, each other pool at ease}."""
    slowest_s = slo.tpot_ms / 1e3 if slo.tpot_ms is not None else UNHURRIED_S
    if not system.disaggregated:
        pool = system.pools[0]
        return {pool.role: len(pool.workers) * _shared(pool, lengths, slowest_s, _prefill_s(pool, lengths.computed))}
    prefill, decode = system.pools
    post_s = _post_s(system, lengths.handed_over)
    pushed = system.wires is not None and system.wires.hand_over.push
    prompt_s = _prefill_s(prefill, lengths.computed) + (post_s if pushed else 0.0)
    decoding = _shared(decode, lengths, slowest_s, 0.0 if pushed else post_s)
    return {"prefill": len(prefill.workers) / prompt_s, "decode": len(decode.workers) * decoding}


def token_s(system: System, rate: float, lengths: MeanLengths, slo: Slo) -> float:
    """Seconds a token at this rate, all workers alike, at most the target's: as many decode as come in that time."""
    pool = system.pools[-1]
    slowest_s = slo.tpot_ms / 1e3 if slo.tpot_ms is not None else UNHURRIED_S
    each = rate / len(pool.workers)
    chunk = (max(1, round(lengths.computed)), round(lengths.prompt - lengths.computed))
    law, warm = pool.profile.step, pool.profile.warm_slowing
    found = 0.0
    for _ in range(TRIES):
        batch = max(1, min(round(each * lengths.output * found), pool.limits.max_num_seqs))
        base, per_context = law.decode(batch)
        context = round(batch * lengths.context)
        step_s, first_s = base + per_context * context, 0.0
        if system.disaggregated:
            more_s = _post_s(system, lengths.handed_over)
        else:  # a step with any prompt costs `first_s` more, and each of its prompts `more_s`
            one_s, two_s = (warm * law.mixed([chunk] * prompts, batch, context) for prompts in (1, 2))
            more_s = two_s - one_s
            first_s = max(one_s - step_s - more_s, 0.0)
        before, some = found, 1 - math.exp(-each * found)  # share of steps that some prompt comes in
        found = min((step_s + some * first_s) / max(1 - each * more_s, LEAST_LEFT), slowest_s)
        if abs(found - before) <= CLOSE * found:
            break
    return found


def _post_s(system: System, prompt: float) -> float:
    """Seconds that posting the hand-over of a prompt takes."""
    if system.wires is None:
        return 0.0
    blocks = prompt / system.pools[1].limits.block_size
    hand = system.wires.hand_over
    return hand.post_s * post_work(system.block_descriptors * blocks, alone=hand.alone)


def _prefill_s(pool: Pool, prompt: float) -> float:
    """Seconds of prefill that one prompt costs on a GPU that does not rest, in chunks of the token budget."""
    left, done, total = max(1, round(prompt)), 0, 0.0
    while left > 0:
        tokens = min(left, pool.limits.max_num_batched_tokens)
        total += pool.profile.step.mixed([(tokens, done)], 0, 0)
        done += tokens
        left -= tokens
    return pool.profile.warm_slowing * total


def _decoding(pool: Pool, lengths: MeanLengths, slowest_s: float, busy: float) -> float:
    """Requests per second that one worker decodes when `busy` of its time goes elsewhere: the best batch size."""
    room = pool.limits.kv_blocks * pool.limits.block_size / (lengths.context + lengths.output / 2)
    most = max(1, min(pool.limits.max_num_seqs, int(room)))
    best, batch = 0.0, 1
    while batch <= most:
        base, per_context = pool.profile.step.decode(batch)
        token_s = (base + per_context * batch * lengths.context) / (1 - busy)
        if token_s > slowest_s:
            break
        best = batch / (token_s * lengths.output)
        batch = batch + 1 if batch < 32 else int(batch * 1.1)
    return best or 1 / (slowest_s * lengths.output)


def _shared(pool: Pool, lengths: MeanLengths, slowest_s: float, aside_s: float) -> float:
    """Requests per second of one worker that spends `aside_s` of each on something that slows its decodes down."""
    if not aside_s:
        return _decoding(pool, lengths, slowest_s, 0.0)
    low, high = 0.0, 1 / aside_s
    for _ in range(30):
        rate = (low + high) / 2
        if _decoding(pool, lengths, slowest_s, rate * aside_s) >= rate:
            low = rate
        else:
            high = rate
    return max(low, 1e-3 / aside_s)
