"""Requests and where they come from: the list that simulator and live executor share.

A prompt's content is a tuple of segments `(content_id, tokens)`. Equal ids stand for equal tokens, counted
from the segment's own start, so two prompts share a prefix for as long as their segments agree. The live
client turns the same ids into token ids; the simulator hashes them into KV blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple, Protocol

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

    def __reduce__(self) -> tuple[type[Request], tuple[object, ...]]:
        return Request, tuple(getattr(self, field.name) for field in fields(self))  # compiled: has no other way


class Arrival(NamedTuple):
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


class Memory(NamedTuple):
    """What workers have cached when a run begins: the earlier turns of `request`; and its own prompt, by `own`: not
    that, those who compute prompts alone, or whoever had it.
    """

    request: Request
    own: Literal["none", "prefill", "all"]


def warnings_of(load: Load) -> tuple[str, ...]:
    """What a reader of a load's results must know: its `warnings`; most have none."""
    found: tuple[str, ...] = getattr(load, "warnings", ())
    return found


class WithLengths:
    """A load whose requests have the lengths that a server made of them: {request id: (prompt, output) tokens}.

    Servers that add a template or refuse to go on past an end token change lengths; a simulation that is to be compared
    with them takes those. A changed prompt grows or shrinks at its end.
    """

    def __init__(self, load: Load, lengths: Mapping[int, tuple[int, int]]) -> None:
        self._load = load
        self._lengths = lengths
        self._planned: dict[int, Request] = {}  # of the requests that are not as planned

    @property
    def changed(self) -> int:
        """Requests so far that are not as planned."""
        return len(self._planned)

    @property
    def expected_requests(self) -> int:
        return self._load.expected_requests

    def start(self) -> list[Arrival]:
        return [self._happened(arrival) for arrival in self._load.start()]

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        planned = self._planned.get(request.request_id, request)
        return [self._happened(arrival) for arrival in self._load.finished(planned, time_s)]

    def _happened(self, arrival: Arrival) -> Arrival:
        request = arrival.request
        planned = (request.prompt_tokens, request.output_tokens)
        prompt, output = self._lengths.get(request.request_id, planned)
        if (prompt, output) == planned:
            return arrival
        self._planned[request.request_id] = request
        changed = replace(
            request,
            prompt_tokens=prompt,
            output_tokens=output,
            max_tokens=max(request.max_tokens, output),
            segments=_resized(request.segments, prompt - request.prompt_tokens),
            shared_tokens=min(request.shared_tokens, prompt),
        )
        return Arrival(arrival.time_s, changed)


def _resized(segments: Segments, more: int) -> Segments:
    """The same content with so many tokens more (or, below zero, fewer) at its end."""
    rest = list(segments)
    while rest and more < 0 and rest[-1][1] <= -more:
        more += rest.pop()[1]
    if rest and more:
        content, size = rest[-1]
        rest[-1] = (content, size + more)
    return tuple(rest)
