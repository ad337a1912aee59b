"""A closed-form guess of the highest rate a deployment sustains: no queue, mean lengths. Searches begin there."""

from __future__ import annotations

from collections.abc import Sequence

from planner.spec import Slo
from planner.system.resolve import Pool, System
from planner.traffic.requests import Request


def guess(system: System, requests: Sequence[Request], slo: Slo) -> float:
    """Requests per second at which the first of prefill, decode, KV memory or link is full (above 0)."""
    prompt = sum(request.prompt_tokens for request in requests) / len(requests)
    output = sum(request.output_tokens for request in requests) / len(requests)
    slowest_s = slo.tpot_ms / 1e3 if slo.tpot_ms is not None else 1.0
    if not system.disaggregated:
        pool = system.pools[0]
        return len(pool.workers) * _shared(pool, prompt, output, slowest_s)
    prefill, decode = system.pools
    rates = [
        len(prefill.workers) / _prefill_s(prefill, prompt),
        len(decode.workers) * _decoding(decode, prompt, output, slowest_s, 0.0),
    ]
    if system.wires is not None:
        wire = system.wires.intra_node
        ports = min(len(prefill.workers) * prefill.tp, len(decode.workers) * decode.tp)
        rates.append(ports * wire.bandwidth / (system.kv_bytes_per_token * prompt))
    return min(rates)


def _prefill_s(pool: Pool, prompt: float) -> float:
    """Seconds of prefill that one prompt costs, in chunks of the token budget."""
    left, done, total = round(prompt), 0, 0.0
    while left > 0:
        tokens = min(left, pool.limits.max_num_batched_tokens)
        total += pool.profile.step.mixed([(tokens, done)], 0, 0)
        done += tokens
        left -= tokens
    return total


def _decoding(pool: Pool, prompt: float, output: float, slowest_s: float, busy: float) -> float:
    """Requests per second that one worker decodes when `busy` of its time goes to prompts: the best batch size."""
    room = pool.limits.kv_blocks * pool.limits.block_size / (prompt + output)
    most = max(1, min(pool.limits.max_num_seqs, int(room)))
    best, batch = 0.0, 1
    while batch <= most:
        base, per_context = pool.profile.step.decode(batch)
        token_s = (base + per_context * batch * (prompt + output / 2)) / (1 - busy)
        if token_s > slowest_s:
            break
        best = batch / (token_s * output)
        batch = batch + 1 if batch < 32 else int(batch * 1.1)
    return best or 1 / (slowest_s * output)


def _shared(pool: Pool, prompt: float, output: float, slowest_s: float) -> float:
    """Requests per second of one worker that does both: prompts slow down the decodes beside them."""
    prefill_s = _prefill_s(pool, prompt)
    low, high = 0.0, 1 / prefill_s
    for _ in range(30):
        rate = (low + high) / 2
        if _decoding(pool, prompt, output, slowest_s, rate * prefill_s) >= rate:
            low = rate
        else:
            high = rate
    return max(low, 1e-3 / prefill_s)
