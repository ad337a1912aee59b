"""Requests and where they come from: the list that simulator and live executor share.

A prompt's content is a tuple of segments `(content_id, tokens)`. Equal ids stand for equal tokens, counted
from the segment's own start, so two prompts share a prefix for as long as their segments agree. The live
client turns the same ids into token ids; the simulator hashes them into KV blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

Segments = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the client knows it.

    `output_tokens` is the true length of the answer; no router, admission rule or batcher may read it.
    `output_content` is the segment id of the answer, so that a later turn can hold it in its prompt.
    `shared_tokens` leading prompt tokens (and, when `output_shared`, the answer) may occur in another request.
    `history` maps a segment id of this prompt to the earlier request whose answer it is (live: its real tokens).
    """

    request_id: int
    session_id: int
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    segments: Segments
    shared_tokens: int
    output_content: int
    output_shared: bool = False
    known_prefix_tokens: int | None = None  # tokens known before retrieval; None: the whole prompt
    documents: tuple[int, ...] = ()
    history: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """`request` is sent at `time_s`, in seconds after the run's start."""

    time_s: float
    request: Request


class Load(Protocol):
    """A source of arrivals: a pure state machine, the same for both backends.

    `start` gives every arrival that is known before anything has finished, in time order. `finished` is called once
    for each request that ended (successfully or not), in time order, and gives the arrivals that follow from it,
    none earlier than `time_s`.
    """

    @property
    def expected_requests(self) -> int:
        """How many there will be, or an upper bound: as many as `start` gives only if none can follow."""
        ...

    def start(self) -> list[Arrival]: ...

    def finished(self, request: Request, time_s: float) -> list[Arrival]: ...
