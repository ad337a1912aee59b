"""A load written as a trace file: Mooncake JSONL, which other tools replay."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from planner.spec import SpecError
from planner.traffic.requests import Load, Segments


def _cut(segments: Segments, block_tokens: int) -> Iterator[tuple[tuple[int, int, int], ...]]:
    """The content of each block: pieces (content id, offset in it, tokens). The last block may be short."""
    pieces: list[tuple[int, int, int]] = []
    room = block_tokens
    for content, tokens in segments:
        offset = 0
        while offset < tokens:
            taken = min(room, tokens - offset)
            pieces.append((content, offset, taken))
            offset, room = offset + taken, room - taken
            if room == 0:
                yield tuple(pieces)
                pieces, room = [], block_tokens
    if pieces:
        yield tuple(pieces)


def write_mooncake(load: Load, path: str | os.PathLike[str], block_tokens: int = 512) -> int:
    """Write an open-loop load as Mooncake JSONL (ms, whole blocks by content); returns the number of requests.

    SpecError for a load whose requests wait for others: their send times are not known beforehand.
    """
    arrivals = load.start()
    if len(arrivals) != load.expected_requests:
        raise SpecError(
            "{path}: only {count} of {all} requests have their own send time; a closed loop or sessions cannot be "
            "written as a trace",
            os.fspath(path),
            len(arrivals),
            load.expected_requests,
        )
    ids: dict[tuple[int, tuple[tuple[int, int, int], ...]], int] = {}
    with open(path, "w", encoding="utf-8") as file:
        for arrival in arrivals:
            hash_ids, parent = [], -1
            for block in _cut(arrival.request.segments, block_tokens):
                parent = ids.setdefault((parent, block), len(ids))
                hash_ids.append(parent)
            row = {
                "timestamp": round(arrival.time_s * 1e3, 3),
                "input_length": arrival.request.prompt_tokens,
                "output_length": arrival.request.output_tokens,
                "hash_ids": hash_ids,
            }
            file.write(json.dumps(row) + "\n")
    return len(arrivals)
