"""Who shares what: content ids of prompt segments, and how far prompts agree.

Ids of a trace file's blocks are its own, zero and up; all others are negative, one residue class a kind, so that ids
of different kinds never meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np

from planner.traffic.requests import Segments

SYSTEM: Final = 0  # text that every prompt begins with
DOCUMENT: Final = 1  # a retrieved chunk, by document
PROMPT: Final = 2  # what only one request brings, by request
ANSWER: Final = 3  # by request
USER: Final = 4  # what only one user's prompts hold, by user
_KINDS: Final = 8


def content_id(kind: int, index: int) -> int:
    """The id of the `index`-th content of a kind: negative and unique."""
    return -1 - kind - _KINDS * index


def segments_of(*parts: tuple[int, int]) -> Segments:
    """The parts that are not empty."""
    return tuple(part for part in parts if part[1] > 0)


def shared_runs(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt, how many leading segments at least one other prompt begins with too. Prompts are content ids.

    They are walked as a prefix tree, as far as a segment's id occurs twice at all. Equal ids of different lengths count
    as shared: an upper bound.
    """
    ids, often = np.unique(np.fromiter(chain.from_iterable(prompts), dtype=np.int64), return_counts=True)
    repeated: set[int] = set(ids[often > 1].tolist())
    children: dict[tuple[int, int], int] = {}
    visits = [0]
    paths: list[list[int]] = []
    for prompt in prompts:
        node = 0
        path: list[int] = []
        for content in prompt:
            if content not in repeated:
                break
            child = children.setdefault((node, content), len(visits))
            if child == len(visits):
                visits.append(0)
            visits[child] += 1
            path.append(child)
            node = child
        paths.append(path)
    return [sum(1 for node in path if visits[node] > 1) for path in paths]
