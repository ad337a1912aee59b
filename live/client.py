"""The load client: sends a `Load` to OpenAI-compatible endpoints at the times it says and notes what comes back.

The loop is open: a request is sent when it is due, whatever the servers do; how late it was sent is part of the result.
Closed loops and sessions follow from `Load.finished`. Times are seconds since the run's start, taken from
`time.monotonic()`; arrival is the moment before the request is handed to the HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp

from live.bounded import text_of
from live.endpoints import Endpoint, PromptForm, find_endpoint
from live.openai_api import EventSplitter, Kind, Usage, chunk_tokens, parsed
from live.prompts import PromptMaker
from live.results import ClientResult, Lag, Outcome
from live.stop_signal import unless_stopped
from planner.messages import message
from planner.run.tables import STOPPED
from planner.spec.strict_yaml import shorten
from planner.traffic.requests import Arrival, Load, Request

log = logging.getLogger("planner.client")
LEAD_S = 0.05  # the clock starts this long after the call, so that the first request is not late already
PREPARE_S = 0.25  # a request's body is made at most this long before it is due
KEEPALIVE_S = 2.0  # servers close idle connections after 5 s; a request must not meet that moment
SPIN_S = 0.0015  # timers fire up to a millisecond late: the rest is waited for in turns of the event loop
MOST_MORE = 10_000  # tokens of an answer beyond those asked for
DEFAULT_VOCAB = 32_000  # ids below this exist in every model that is likely to be served
Progress = Callable[[int, int], None]  # (requests ended, requests expected)
Ended = Callable[[Outcome, float], None]  # and the run's start, time.monotonic()


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to send. `rag`: requests carry a question, so that a frontend retrieves although the prompt is complete.

    `nvext` goes with every request, to Dynamo's frontend only: what it should tell in its answers. `session_header` is
    where the server looks for a request's session.
    """

    vocab_size: int = DEFAULT_VOCAB
    kind: Kind = "completions"
    prompt: PromptForm = "token_ids"
    token: str | None = None
    timeout_s: float = 600.0
    rag: bool = False
    nvext: Mapping[str, Any] | None = None
    session_header: str = "x-session-id"


@dataclass(order=True, slots=True)
class _Due:
    time_s: float
    number: int
    request: Request = field(compare=False)


async def run_load(
    endpoints: Sequence[str],
    load: Load,
    *,
    model: str | None = None,
    seed: int = 0,
    options: ClientOptions | None = None,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    ended: Ended | None = None,
) -> ClientResult:
    """Send every request of `load`, spread over `endpoints` in turn, and wait for all answers.

    `ended` is told about each request as it ends. `stop`, once set, sends nothing more and ends what is in flight; what
    was measured is returned. Raises SpecError when an endpoint cannot be used at all, and Stopped when `stop` is set
    before that is known; later faults are rows with an error.
    """
    options, stop = options or ClientOptions(), stop or asyncio.Event()
    headers = {"authorization": f"Bearer {options.token}"} if options.token else {}
    timeout = aiohttp.ClientTimeout(total=options.timeout_s, sock_connect=30)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        ask = partial(find_endpoint, session, model=model, kind=options.kind, prompt=options.prompt, headers=headers)
        found = [await unless_stopped(stop, ask(url)) for url in endpoints]
        return await _Run(session, found, load, seed, options, progress, ended).run(stop)


class _Run:
    """One run: a heap of what is due, a task for each request in flight."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoints: Sequence[Endpoint],
        load: Load,
        seed: int,
        options: ClientOptions,
        progress: Progress | None,
        ended: Ended | None,
    ) -> None:
        self._session, self._endpoints, self._load, self._options = session, endpoints, load, options
        self._progress, self._tell = progress, ended
        self._prompts = PromptMaker(seed, options.vocab_size)
        self._run_id = uuid.uuid4().hex[:12]
        self._due: list[_Due] = []
        self._numbers = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._outcomes: list[Outcome] = []
        self._answers: dict[int, list[int]] = {}
        self._lags: list[float] = []
        self._ended_count = 0
        self._fault: BaseException | None = None  # of the load or of this client, not of a server
        self._start = 0.0

    async def run(self, stop: asyncio.Event) -> ClientResult:
        self._start = time.monotonic() + LEAD_S
        self._plan(self._load.start())
        sender = asyncio.create_task(self._send_all())
        stopper = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({sender, stopper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped = not sender.done()
            for task in (sender, stopper, *(self._tasks if stopped else ())):
                task.cancel()
            await asyncio.gather(sender, stopper, *self._tasks, return_exceptions=True)
        if not sender.cancelled():
            sender.result()
        if self._fault is not None:
            raise self._fault
        return self._result(stopped)

    # --- sending ------------------------------------------------------------------------------------

    def _plan(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            self._numbers += 1
            heapq.heappush(self._due, _Due(arrival.time_s, self._numbers, arrival.request))
        if arrivals:
            self._changed.set()

    async def _send_all(self) -> None:
        while self._due or self._tasks:
            if self._fault is not None:
                raise self._fault
            self._changed.clear()
            if not self._due:
                await self._changed.wait()
                continue
            wait = self._due[0].time_s - self._now()
            if wait > PREPARE_S:
                await self._sleep(wait - PREPARE_S)
                continue
            due = self._due[0]  # it stays there until it is sent: what is left there is what was not
            endpoint = self._endpoints[(due.number - 1) % len(self._endpoints)]
            body = self._body(endpoint, due.request)  # made ahead of time: 10,000 ids take a millisecond
            if not await self._sleep_until(due):
                continue
            heapq.heappop(self._due)
            outcome = Outcome(due.request, endpoint.url, f"{self._run_id}-{due.request.request_id}", self._now())
            self._outcomes.append(outcome)
            task = asyncio.create_task(self._send(endpoint, outcome, body, due.time_s))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            await asyncio.sleep(0)  # lets the request go out before the next body is made

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fault = task.exception()
        self._changed.set()

    def _now(self) -> float:
        return time.monotonic() - self._start

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until the plan changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for would swallow a stop that comes as a request ends (3.11)
                await self._changed.wait()

    async def _sleep_until(self, due: _Due) -> bool:
        """Wait for a request's time. False: another one has come up that is due before it."""
        while (wait := due.time_s - self._now()) > 0 and self._due[0] is due:
            self._changed.clear()
            if wait > SPIN_S:
                await self._sleep(wait - SPIN_S)
            else:
                await asyncio.sleep(0)
        return self._due[0] is due

    def _body(self, endpoint: Endpoint, request: Request) -> bytes:
        if endpoint.prompt == "token_ids":
            prompt: list[int] | str = self._prompts.token_ids(request, self._answers)
        else:
            prompt = self._prompts.text(request, endpoint.tokens_per_word, endpoint.overhead_tokens)
        body = endpoint.body(prompt, request.output_tokens)
        if self._options.rag:
            body["retrieval"] = {
                "query": self._prompts.question(request),
                "assembled": True,
                "known_prefix_tokens": request.known_prefix_tokens,
            }
        if self._options.nvext is not None:
            body["nvext"] = self._options.nvext
        return json.dumps(body, separators=(",", ":")).encode()

    # --- one request ----------------------------------------------------------------------------------

    async def _send(self, endpoint: Endpoint, outcome: Outcome, body: bytes, due_s: float) -> None:
        request = outcome.request
        headers = {
            "content-type": "application/json",
            "x-request-id": outcome.header_id,
            self._options.session_header: str(request.session_id),
        }
        try:
            outcome.arrival_s = self._now()
            self._lags.append(outcome.arrival_s - due_s)
            async with self._session.post(endpoint.path, data=body, headers=headers) as response:
                if response.status != 200:
                    outcome.refuse(response.status, await text_of(response))
                else:
                    await self._read(response, outcome)
        except asyncio.CancelledError:
            outcome.fail(STOPPED)
            raise
        except (aiohttp.ClientError, ConnectionError, TimeoutError, ValueError) as error:
            outcome.fail(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        finally:
            outcome.close(self._now())
            if self._tell is not None:
                self._tell(outcome, self._start)
        self._answers[request.request_id] = outcome.token_ids
        self._ended_count += 1
        self._plan(self._load.finished(request, self._now()))
        if self._progress:
            self._progress(self._ended_count, max(self._load.expected_requests, self._ended_count))

    async def _read(self, response: aiohttp.ClientResponse, outcome: Outcome) -> None:
        splitter = EventSplitter()
        async for piece in response.content.iter_any():
            now = self._now()
            for data in splitter.feed(piece):
                if data == b"[DONE]":
                    outcome.complete = True
                    continue
                try:
                    self._take(parsed(data), outcome, now)
                except (AttributeError, KeyError, TypeError, OverflowError, RecursionError):
                    shown = data[:100].decode("utf-8", "replace")
                    raise ValueError(f"{shown} in a stream; must be chunks as OpenAI's") from None
        if not outcome.complete and outcome.error is None:
            outcome.fail("the stream ended without [DONE]")

    def _take(self, chunk: Any, outcome: Outcome, now: float) -> None:
        """One chunk of an answer. A chunk that is no chunk raises TypeError, AttributeError and the like."""
        choices = chunk.get("choices") or ()
        if not choices and "error" in chunk:
            said = chunk["error"]
            outcome.fail(shorten(str(said.get("message", said) if isinstance(said, dict) else said)))
            return
        outcome.usage = Usage.of(chunk) or outcome.usage
        if self._options.nvext is not None:
            outcome.nvext.update(chunk.get("nvext") or {})
        for choice in choices:
            count, ids, _ = chunk_tokens(choice)
            outcome.token_times_s += [now] * count
            outcome.token_ids += ids
            if len(outcome.token_times_s) > outcome.request.output_tokens + MOST_MORE:
                raise ValueError(f"an answer of more than {outcome.request.output_tokens} tokens goes on and on")
            reason = choice.get("finish_reason")
            if not isinstance(reason, str | None):
                raise TypeError("finish_reason is no text")
            outcome.finish_reason = reason or outcome.finish_reason

    # --- result ---------------------------------------------------------------------------------------

    def _result(self, stopped: bool) -> ClientResult:
        notes = [note for endpoint in self._endpoints for note in endpoint.notes]
        if self._prompts.replaced_tokens:
            notes.append(
                message(
                    "{count} history tokens are made up: earlier answers were shorter than planned, or came without "
                    "token ids",
                    self._prompts.replaced_tokens,
                )
            )
        if stopped:
            unsent = len(self._due)
            notes.append(
                message("stopped early: {count} known requests were not sent, those in flight are errors", unsent)
            )
        outcomes = sorted(self._outcomes, key=lambda one: one.arrival_s)
        lags = sorted(self._lags) or [math.nan]
        lag = Lag(lags[len(lags) // 2], lags[min(len(lags) - 1, math.ceil(0.99 * len(lags)) - 1)], lags[-1])
        return ClientResult(tuple(outcomes), self._start, lag, tuple(notes), stopped)
