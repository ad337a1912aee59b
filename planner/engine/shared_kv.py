"""KV that several sequences of a step hold: read from memory by the first of them, by the others from the L2 cache.

Attention runs a block for each sequence and KV head. Those that read the same tokens soon after each other find them in
L2, which delivers faster than memory, as long as what is read meanwhile has room there too. In the last wave of blocks
(planner.engine.law.waves) memory is not what they wait for.

SAVED is from decode steps of 80 to 180 sequences on an H200 (Llama-3.1-8B, vLLM 0.25.1) that held 1,920 tokens in
common of 5,300 each, beside steps whose sequences share nothing. They also say where it ends: 60 to 80 sequences save
0.3 of a shared token, 25 hardly any.
"""

from __future__ import annotations

from typing import Final

SAVED: Final = 0.48  # of reading a token of KV, where another sequence has just read it


class SharedKv:
    """Of one engine: the sequences of a wave, and the tokens of a layer's KV that its L2 cache holds."""

    __slots__ = ("reach_tokens", "wave_seqs")

    def __init__(self, wave_seqs: float, reach_tokens: float) -> None:
        self.wave_seqs = wave_seqs
        self.reach_tokens = reach_tokens

    def saved(self, batch: int, again: int, common: int, used: int) -> float:
        """Tokens' worth of reading that a step of `batch` sequences is spared.

        They hold `used` different tokens; `common` of these are held by several, which makes `again` tokens more.
        """
        if not again or batch <= self.wave_seqs:
            return 0.0
        between = used / (again / common + 1.0)  # tokens that are read before a common one is read again
        return SAVED * again * (1.0 - self.wave_seqs / batch) * min(1.0, self.reach_tokens / between)
