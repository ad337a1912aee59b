"""What an engine's scheduler obeys, as a value. Where the numbers are from: planner/engine/limits.py."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What vLLM's scheduler obeys. `kv_blocks` is the number of usable blocks (vLLM's null block not counted)."""

    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int
    kv_blocks: int
    max_model_len: int
    prefix_caching: bool = True
    chunked_prefill: bool = True
    prefill_first: bool = False  # vLLM V0: waiting prompts before running decodes, never in one step
    async_scheduling: bool = False  # the next step is scheduled while one runs: arrivals join one step later
    long_prefill_token_threshold: int = 0
    reserve_full_prompt: bool = True
    watermark_blocks: int = 0
    swap_blocks: int = 0  # host room for preempted KV; 0: it is computed again
    swap_s_per_block: float = 0.0  # a copy, one way
    tiers: tuple[tuple[int, float, float], ...] = ()  # evicted KV: (blocks, seconds a block read, and written)
    keys_above_tokens: int | None = None  # longer prompts keep keys alone: a block holds twice as many tokens
    keys_decode_s: float = 0.0  # what they add to a decode step for each token attended to; may be negative
    keys_chunk_s: float = 0.0  # and to a step with a part of their prompt, for each token computed before

    def block_tokens(self, prompt_tokens: int) -> int:
        """Tokens in one block of a sequence with such a prompt."""
        keys = self.keys_above_tokens is not None and prompt_tokens > self.keys_above_tokens
        return 2 * self.block_size if keys else self.block_size

    def __reduce__(self) -> tuple[type[EngineLimits], tuple[object, ...]]:
        return EngineLimits, tuple(getattr(self, field.name) for field in fields(self))  # compiled: has no other way
