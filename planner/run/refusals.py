"""Requests that no engine could ever serve, and what a prompt takes of a KV cache."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.messages import message

if TYPE_CHECKING:
    from planner.run.facts import Facts

LIMIT = re.compile(r"exceed (max_model_len \d+|max_num_batched_tokens \d+|the KV cache of (\d+) tokens)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """So many requests were longer than `limit` (`max_model_len 8192`)."""

    requests: int
    limit: str


@dataclass(frozen=True, slots=True)
class KvRoom:
    """KV blocks of a worker, and those that the mean request wants when its last token comes."""

    role: str
    blocks: int
    wanted: float


def refusals(facts: Facts) -> tuple[Refusal, ...]:
    """What was refused for its length, the commonest limit first."""
    if not facts.oversized.any():
        return ()
    texts = facts.errors[facts.oversized]
    counts = Counter(_limit(found) for text in texts if (found := LIMIT.search(str(text))))
    return tuple(Refusal(count, limit) for limit, count in counts.most_common())


def _limit(found: re.Match[str]) -> str:
    key, tokens = found.groups()
    return key if tokens is None else message("the KV cache of {tokens} tokens", tokens)


def kv_rooms(facts: Facts) -> tuple[KvRoom, ...]:
    """One for each role whose blocks the manifest names; prefill workers hold no answers."""
    blocks, sizes = (facts.manifest.get(key) or {} for key in ("kv_blocks", "kv_block_tokens"))
    if not facts.ok.any():
        return ()
    prompts, outputs = (facts.column(name)[facts.ok] for name in ("prompt_tokens", "output_tokens"))
    return tuple(
        KvRoom(
            role,
            int(blocks[role]),
            float(np.ceil((prompts + (0 if role == "prefill" else outputs)) / sizes[role]).mean()),
        )
        for role in blocks
        if sizes.get(role)
    )
