"""From a worker's event stream to the client's: counts tokens and usage, leaves out what was not asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from live.fleet import LiveWorker, Ticket, UpstreamError
from live.openai_api import DONE, ApiError, ApiRequest, Usage, chunk_tokens, event, parsed
from live.pd import FirstToken
from live.records import FrontendRecord


@dataclass(slots=True)
class Call:
    """One client request on its way."""

    request_id: str
    request: ApiRequest
    record: FrontendRecord
    excluded: set[str] = field(default_factory=set)
    last_error: UpstreamError | None = None
    streamed: bool = False
    retrieved: bool = False
    token_ids: Sequence[int] | None = None  # of the prompt as it stands, for routing

    @property
    def session_id(self) -> int:
        return self.request.session_id

    @property
    def prompt_tokens(self) -> int:
        return len(self.token_ids) if self.token_ids is not None else self.request.prompt_tokens

    @property
    def known_tokens(self) -> int | None:
        """Leading prompt tokens that are known before retrieval; None: all."""
        options = self.request.retrieval
        return None if self.retrieved or not isinstance(options, dict) else options.get("known_prefix_tokens")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the answer is made, and with which body."""

    worker: LiveWorker
    body: dict[str, Any]
    ticket: Ticket
    first: FirstToken | None = None


class Relay:
    """Upstream events to client events: counts tokens and usage, leaves out what the client did not ask for."""

    def __init__(self, call: Call, place: Placement) -> None:
        self.done = False
        self._call, self._place = call, place
        self._cut = place.first
        self._names = list(call.record.documents)
        self._with_ids = bool(call.request.body.get("return_token_ids"))

    def first(self) -> list[bytes]:
        """The prefill worker's token, where the client gets it from there."""
        first = self._place.first
        if first is None or not (first.text or (first.ids and self._with_ids)):
            self._cut = None
            return []
        self._call.record.first_token_s = time.monotonic()
        # The KV holds the prompt only, so this token adds nothing to the decode worker's count yet.
        return [self._encode(first.chunk({}, self._call.request.kind, with_ids=self._with_ids))]

    def _encode(self, chunk: dict[str, Any]) -> bytes:
        if self._names:
            chunk["documents"] = self._names
            self._names = []
        return event(chunk)

    def event(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            self.done = True
            return DONE
        try:
            chunk = parsed(data)
            choices = chunk.get("choices")
            counts = [chunk_tokens(choice)[0] for choice in choices or ()]
        except (ValueError, RecursionError, TypeError, AttributeError):
            shown = data[:100].decode("utf-8", "replace")
            raise UpstreamError(self._place.worker.name, f"{shown} in its stream; must be chunks as OpenAI's") from None
        if choices is None and "error" in chunk:
            raise UpstreamError(self._place.worker.name, str(chunk["error"])[:500])
        usage = Usage.of(chunk)
        if usage is not None:
            note_usage(self._call.record, usage)
            if not choices and not self._call.request.include_usage:
                return b""
        changed = chunk.pop("kv_transfer_params", None) is not None or bool(self._names)
        for count in counts:
            if count:
                if self._call.record.first_token_s is None:
                    self._call.record.first_token_s = time.monotonic()
                self._place.ticket.tokens(count)
        if self._cut is not None and choices:
            try:
                if not self._cut.cut(choices[0]):
                    return b""
            except ValueError as error:
                raise UpstreamError(self._place.worker.name, str(error)) from None
            changed = True
        return self._encode(chunk) if changed else b"data: " + data + b"\n\n"


def note_usage(record: FrontendRecord, usage: Usage | None) -> None:
    if usage is None:
        return
    record.prompt_tokens, record.output_tokens = usage.prompt, usage.output
    if record.prefill_end_s is None:  # later counts are the decode worker's, where all of the prompt is "cached"
        record.cached_tokens = usage.cached


def check(status: int, text: str, worker: str) -> None:
    if status >= 500:
        raise UpstreamError(worker, f"answered {status}: {ApiError.upstream(status, text)}")
    if status != 200:
        raise ApiError.upstream(status, text)


def mark(worker: LiveWorker, error: UpstreamError) -> None:
    """A refused or reset connection takes the worker out of routing until it answers a poll again."""
    if isinstance(error.__cause__, (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, ConnectionError)):
        worker.healthy = False
        worker.look()


def reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
