"""The way of one request through the workers: retrieve, route, hand off, relay, and try again elsewhere.

A request is tried on another worker only while nothing of the answer has gone to the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import aiohttp

from live.bounded import MOST_ANSWER, text_of, whole_text
from live.fleet import LivePool, LiveWorker, Ticket, UpstreamError
from live.openai_api import PATHS, ApiError, EventSplitter, SplitError, Usage, encoded
from live.pd import FirstToken, decode_body, prefill_body
from live.relay import Call, Placement, Relay, check, mark, note_usage, reason
from live.retrieval import Retriever
from planner.dispatch import Dispatch, NoWorker
from planner.messages import message
from planner.routing import WorkerLoad
from planner.spec import Disaggregated
from planner.system.resolve import System

log = logging.getLogger("planner.frontend")
ATTEMPTS = 3
JSON = {"content-type": "application/json"}
END_S = 1.0  # for an engine to end a stream after its [DONE]
CONNECT_S = 15.0  # longer than this process takes to begin a few thousand connections at once


class LiveView:
    """A pool as one request finds it (planner.dispatch.View)."""

    def __init__(self, pool: LivePool, call: Call) -> None:
        self.workers = pool.usable(call.excluded)
        self._pool, self._call = pool, call

    @property
    def loads(self) -> Sequence[WorkerLoad]:
        return [worker.load for worker in self.workers]

    @property
    def seen(self) -> Sequence[WorkerLoad]:
        return [self._pool.seen(worker) for worker in self.workers]

    @property
    def queued(self) -> int:
        return self._pool.queued

    def overlap(self) -> Sequence[int]:
        ids, known = self._call.token_ids, self._call.known_tokens
        return self._pool.overlaps(self.workers, ids if ids is None or known is None else ids[: known + 1])

    def cached(self, index: int) -> int:
        return self._pool.cached(self.workers[index], self._call.token_ids)

    def distances_s(self) -> Sequence[float]:
        return ()  # nobody has measured the ways between the servers


class Proxy:
    """Serves calls on the pools of a system."""

    def __init__(
        self,
        system: System,
        pools: Sequence[LivePool],
        session: aiohttp.ClientSession,
        retriever: Retriever | None,
        *,
        read_timeout_s: float = 600.0,
    ) -> None:
        deployment = system.spec.deployment
        self._split = deployment if isinstance(deployment, Disaggregated) else None
        self._retriever = retriever
        self._at_worker = retriever is not None and retriever.spec.at == "prefill_worker"
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=read_timeout_s)
        self.entry, self.decoders = pools[0], pools[-1]
        self._dispatch = Dispatch(system)
        rule = self._split.local_prefill if self._split else None
        self._needs_ids = any(pool.needs_overlap for pool in pools) or (rule is not None and rule.max_tokens > 0)
        self.notes: list[str] = []  # what routing had to do without

    # --- the two ways to answer -----------------------------------------------------------------------

    async def complete(self, call: Call) -> dict[str, Any]:
        """The whole answer at once. Raises ApiError."""
        await self._prepare(call)
        while True:
            try:
                async with self._placed(call) as place:
                    answer = await self._answer(place.worker, call, place.body | {"stream": False})
            except UpstreamError as error:
                self._failed(call, error)
                continue
            answer.pop("kv_transfer_params", None)
            note_usage(call.record, Usage.of(answer))
            if call.record.documents:
                answer["documents"] = call.record.documents
            return answer

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The answer's server-sent events. Raises ApiError; after the first event the client must be told in-stream."""
        await self._prepare(call)
        while True:
            try:
                async with contextlib.aclosing(self._stream_once(call)) as events:
                    async for piece in events:
                        yield piece
                        call.streamed = True
                return
            except UpstreamError as error:
                self._failed(call, error)

    def _failed(self, call: Call, error: UpstreamError) -> None:
        """Go on to the next attempt, or raise ApiError."""
        log.warning("request %s, attempt %d: %s", call.request_id, call.record.attempts, error)
        call.excluded.add(error.worker)
        call.last_error = error
        if call.streamed or call.record.attempts >= ATTEMPTS:
            raise ApiError(502, str(error), "server_error", code="worker_failed") from error

    # --- before routing -------------------------------------------------------------------------------

    async def _prepare(self, call: Call) -> None:
        self._shed(call)
        if not self._at_worker:
            await self._retrieve(call, "frontend")
        await self._tokenize(call)

    async def _retrieve(self, call: Call, station: str) -> None:
        if self._retriever is None or call.retrieved or call.request.retrieval is False:
            return
        query = self._retriever.query(call.request)
        if query is None:
            return
        found = await self._retriever.search(query, station)
        call.record.retrieval_start_s, call.record.retrieval_end_s = found.start_s, found.end_s
        call.record.documents = found.names
        call.request = self._retriever.assemble(call.request, found)
        call.retrieved = True

    async def _tokenize(self, call: Call) -> None:
        """Token ids of the prompt, where the routing rules need them; text is tokenised by a worker."""
        call.token_ids = call.request.token_ids
        if call.token_ids is not None or not self._needs_ids:
            return
        body = {"model": call.request.body.get("model")}
        if call.request.kind == "chat":
            body |= {"messages": call.request.body["messages"], "add_generation_prompt": True}
        else:
            body["prompt"] = call.request.text
        worker = next(iter(self.entry.usable()), self.entry.workers[0])
        try:
            answer = await self._post_json(f"{worker.url}/tokenize", body, worker.name)
            call.token_ids = answer["tokens"]
        except (ApiError, UpstreamError, KeyError) as error:
            if not any(note.startswith(worker.name) for note in self.notes):  # once: a client may send nonsense
                self.notes.append(
                    message(
                        "{name} does not tokenise ({error}): texts are routed by an estimate of their length",
                        worker.name,
                        error,
                    )
                )
                log.warning(self.notes[-1])

    # --- routing --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _placed(self, call: Call) -> AsyncIterator[Placement]:
        """Choose the workers, prefill remotely where that is due, and hold the answering worker's ticket."""
        call.record.attempts += 1
        if call.record.attempts == 1:
            self._shed(call)  # again: many may have come while this one was retrieving
        try:
            entry, decoders = LiveView(self.entry, call), LiveView(self.decoders, call)
            place = self._dispatch.place(call, entry, decoders)
            if self._split is None or place.local:
                view, index = (decoders, place.decode) if place.local else (entry, place.prefill)
                assert index is not None
                worker = view.workers[index]
                if self._at_worker:
                    await self._retrieve(call, worker.name)
                call.record.worker = call.record.decode_worker = worker.name
                call.record.local_prefill = place.local
                call.record.queued_s = time.monotonic()
                uncached = call.prompt_tokens - view.cached(index)
                with Ticket(worker, call.prompt_tokens, uncached) as ticket:
                    yield Placement(worker, call.request.body, ticket)
                return
            answer = await self._prefill(call, None if place.prefill is None else entry.workers[place.prefill])
            if place.decode is not None:
                decoder = decoders.workers[place.decode]
            else:
                decoders = LiveView(self.decoders, call)
                decoder = decoders.workers[self._dispatch.decoder(call, decoders)]
            call.record.decode_worker = decoder.name
            first = FirstToken(answer) if self._streams_first(call) else None
            with Ticket(decoder, call.prompt_tokens, 0) as ticket:
                yield Placement(decoder, decode_body(call.request.body, answer), ticket, first)
        except NoWorker as error:
            if call.last_error is not None:  # nobody is left: say why it failed
                raise ApiError(502, str(call.last_error), "server_error", code="worker_failed") from error
            raise ApiError(
                503, f"no {error.role} worker can take the request", "server_error", code="no_worker"
            ) from None

    def _shed(self, call: Call) -> None:
        """Raises ApiError 429 when every worker has as many waiting as the router allows."""
        if self._dispatch.sheds(LiveView(self.entry, call)):
            much = f"{self._dispatch.most_waiting} or more requests waiting"
            what = f"overloaded: every {self.entry.role} worker has {much}"
            raise ApiError(429, what, "rate_limit_error", code="overloaded")

    def _streams_first(self, call: Call) -> bool:
        assert self._split is not None
        return self._split.first_token == "prefill" and call.request.stream and call.request.greedy

    async def _prefill(self, call: Call, chosen: LiveWorker | None) -> dict[str, Any]:
        """The prefill worker's answer, which says where the KV lies. None: the one whose turn it is."""
        worker = chosen or await self.entry.pull(call.excluded)
        try:
            if self._at_worker:
                await self._retrieve(call, worker.name)
            call.record.worker = worker.name
            call.record.queued_s = time.monotonic()
            uncached = call.prompt_tokens - self.entry.cached(worker, call.token_ids)
            body = prefill_body(call.request.body, return_token_ids=self._streams_first(call))
            with Ticket(worker, call.prompt_tokens, uncached):
                answer = await self._answer(worker, call, body)
        finally:
            if chosen is None:
                self.entry.release(worker)
        note_usage(call.record, Usage.of(answer))
        call.record.prefill_end_s = time.monotonic()
        try:
            decode_body({}, answer)
        except ValueError as error:
            raise UpstreamError(worker.name, str(error)) from None
        return answer

    # --- talking to workers ----------------------------------------------------------------------------

    async def _post_json(
        self, url: str, body: dict[str, Any], worker: str, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Raises UpstreamError on 5xx and broken connections, ApiError on 4xx."""
        try:
            async with self._session.post(
                url, data=encoded(body), headers=JSON | (headers or {}), timeout=self._timeout
            ) as response:
                text = await whole_text(response, MOST_ANSWER)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise UpstreamError(worker, reason(error)) from error
        check(response.status, text, worker)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise UpstreamError(worker, "its answer is not JSON") from None
        if not isinstance(answer, dict):
            raise UpstreamError(worker, "its answer is not a JSON object")
        return answer

    async def _answer(self, worker: LiveWorker, call: Call, body: dict[str, Any]) -> dict[str, Any]:
        try:
            headers = {"x-request-id": call.request_id}
            return await self._post_json(worker.url + PATHS[call.request.kind], body, worker.name, headers)
        except UpstreamError as error:
            mark(worker, error)
            raise

    async def _stream_once(self, call: Call) -> AsyncGenerator[bytes, None]:
        async with self._placed(call) as place:
            options = (place.body.get("stream_options") or {}) | {"include_usage": True}
            body = place.body | {"stream": True, "stream_options": options}
            relay = Relay(call, place)
            for piece in relay.first():
                yield piece
            splitter, url = EventSplitter(), place.worker.url + PATHS[call.request.kind]
            headers = JSON | {"x-request-id": call.request_id}
            try:
                async with self._session.post(
                    url, data=encoded(body), headers=headers, timeout=self._timeout
                ) as response:
                    if response.status != 200:
                        check(response.status, await text_of(response), place.worker.name)
                    async for piece in response.content.iter_any():
                        out = b"".join(relay.event(data) for data in splitter.feed(piece))
                        if out:
                            yield out
                        if relay.done:
                            await _end_of(response)
                            return
            except SplitError as error:
                raise UpstreamError(place.worker.name, str(error)) from None
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                broken = UpstreamError(place.worker.name, reason(error))
                broken.__cause__ = error
                mark(place.worker, broken)
                raise broken from error
            raise UpstreamError(place.worker.name, "its stream ended without [DONE]")


async def _end_of(response: aiohttp.ClientResponse) -> None:
    """Read what follows [DONE], the stream's own end: only then can the next request have the connection."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
        async with asyncio.timeout(END_S):
            while not response.content.at_eof():
                await response.content.readany()
