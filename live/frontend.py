"""The OpenAI-compatible service in front of the workers.

    async with Frontend(system, workers) as frontend:
        ...  # POST {frontend.base_url}/v1/chat/completions

Extensions to OpenAI's API: `/chat` is `/v1/chat/completions`; answers name the retrieved `documents`; the request
field `retrieval: false` switches retrieval off; the headers x-request-id (kept if it is new and ASCII, else made) and
x-session-id.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import ipaddress
import json
import logging
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from live.address import ServerAddress
from live.bodies import BodyReader, Rules
from live.bounded import MOST_ANSWER, text_of, whole_text
from live.documents import load_chunks
from live.fleet import OK, LivePool
from live.frontend_metrics import FrontendMetrics, log_line
from live.many_prompts import merged, merged_streams
from live.openai_api import (
    CHARS_PER_TOKEN,
    DONE,
    PATHS,
    ApiError,
    Kind,
    body_limit,
    error_type,
    event,
)
from live.proxy import Proxy
from live.records import FrontendRecord, RecordLog
from live.relay import Call
from live.retrieval import Retriever
from planner.messages import system
from planner.spec import Retrieval, SpecError
from planner.system.resolve import System

log = logging.getLogger("planner.frontend")
CLIENT_GONE = 499
HEADER_S, BODY_S, IDLE_S = 15.0, 60.0, 75.0  # for the head of a request, its body, and until the next one comes
UNREAD_S = 60.0  # a client that reads nothing of its answer, whose stream holds a place in an engine
STOPPED_S = 1.0  # how often processes are looked at
ASK = aiohttp.ClientTimeout(total=30)  # what is asked of the workers before clients are let in
BACKLOG = 4096  # connections not taken yet; beyond them a client's kernel tries again a second later
KEEPALIVE_S = 2.0  # engines close idle connections after 5 s; a request must not meet that moment
GpuUtilization = Callable[[], Mapping[str, float]]  # worker -> 0..1
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str | None) -> None:
    """Raises SpecError where others would be let in without a token."""
    if not is_loopback(host) and not token:
        raise SpecError("frontend: listening on {host} lets others in; give a token, or listen on 127.0.0.1", host)


def check_address(host: str, port: int, token: str | None) -> None:
    """Whether a frontend could listen there now. Raises SpecError."""
    check_token(host, token)
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError) -> SpecError:
    return SpecError("frontend: cannot listen on {host}:{port}: {fault}", host, port, system(error))


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """While requests are served Python looks for cycles among what is made now, not among all that was there before:
    modules and tables, a hundred times more, whose walks hold up every stream.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Frontend:
    """Serves a system's workers. Use as an async context manager; `port` 0 takes a free one.

    `stopped` names the workers that a signal has stopped, where that can be seen.
    Raises SpecError when the arguments cannot work together: a host beyond loopback without a token, a role without
    a worker, a routing policy without what it needs.
    """

    def __init__(
        self,
        system: System,
        workers: Sequence[ServerAddress],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        retrieval: Retrieval | None = None,
        token: str | None = None,
        worker_token: str | None = None,
        gpu_utilization: GpuUtilization | None = None,
        stopped: Callable[[], Collection[str]] | None = None,
        log_interval_s: float = 5.0,
    ) -> None:
        check_token(host, token)
        self._system, self._host, self._port, self._token = system, host, port, token
        self._retrieval = retrieval or system.spec.retrieval
        self._gpu_utilization: GpuUtilization = gpu_utilization or dict
        self._stopped = stopped
        self._log_interval_s = log_interval_s
        self._log = RecordLog()
        self._serving: set[Any] = set()  # connections with a request whose head is complete
        self._served: set[Any] = set()  # and those that have had one
        self._in_flight = 0
        self._worker_headers = {"authorization": f"Bearer {worker_token}"} if worker_token else {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self.pools = [LivePool(pool, workers) for pool in system.pools]
        self._longest = min(pool.limits.max_model_len for pool in system.pools)
        self.metrics = FrontendMetrics()
        self.models: list[str] = []
        self.retriever: Retriever | None = None
        self.proxy: Proxy

    # --- what callers read ----------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def records(self) -> dict[str, FrontendRecord]:
        """What is known of each request, by its x-request-id."""
        return self._log.all()

    def record(self, request_id: str) -> FrontendRecord | None:
        return self._log.get(request_id)

    def observations(self) -> dict[str, Any]:
        """Figures for a run's manifest, and what routing had to do without."""
        ages = [age for pool in self.pools for age in pool.event_ages_s()]
        age = None
        if ages:
            p50, p99 = (round(float(value), 6) for value in np.percentile(ages, (50, 99)))
            age = {"batches": len(ages), "p50": p50, "p99": p99}
        return {
            "kv_event_age_s": age,
            "kv_event_gaps": sum(worker.feed.gaps for pool in self.pools for worker in pool.workers if worker.feed),
            "retrieval_chunks": len(self.retriever.chunks) if self.retriever else None,
            "notes": self.proxy.notes,
            "paused": {one.name: text for pool in self.pools for one in pool.workers if (text := one.paused())},
        }

    # --- life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Frontend:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector, headers=self._worker_headers, cookie_jar=aiohttp.DummyCookieJar()
            )
        )
        self._stack.push_async_callback(self._stop_tasks)
        for pool in self.pools:
            for worker in pool.workers:
                if worker.feed:
                    worker.feed.start()
                    self._stack.push_async_callback(worker.feed.stop)
        self.models = await self._read_models(session)
        if self._retrieval is not None:
            ratio = await self._chars_per_token(session)
            self.retriever = Retriever(self._retrieval, chars_per_token=ratio, observe=self.metrics.retrieved)
            self._stack.callback(self.retriever.close)
        split, alias = self._system.disaggregated, self._system.spec.model
        self._bodies = BodyReader(Rules(tuple(self.models), alias, self._longest, split))
        self._stack.callback(self._bodies.close)
        self.proxy = Proxy(self._system, self.pools, session, self.retriever)
        for pool in self.pools:
            self._tasks += [asyncio.create_task(pool.watch(worker, session)) for worker in pool.workers]
            self._tasks.append(asyncio.create_task(pool.age()))
        if self._stopped is not None:
            self._tasks.append(asyncio.create_task(self._watch_stopped(self._stopped)))
        self._tasks.append(asyncio.create_task(self._report()))
        app = web.Application(client_max_size=body_limit(self._longest), middlewares=[self._guard])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.post("/chat", self._chat),
                web.post("/v1/completions", self._completions),
                web.get("/v1/models", self._list_models),
                web.get("/v1/models/{name:.+}", self._show_model),
                web.get("/health", self._health),
                web.get("/metrics", self._show_metrics),
            ]
        )
        # Cancellation of the handler is how an abandoned request stops at its worker.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=2.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        self._tasks.append(asyncio.create_task(self._close_idle(runner.server)))
        site = web.TCPSite(runner, self._host, self._port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            raise _cannot_listen(self._host, self._port, error) from None
        self._port = runner.addresses[0][1]

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._log_interval_s)
            log.info(log_line(self.pools, self._in_flight, self._gpu_utilization()))

    async def _close_idle(self, server: web.Server) -> None:
        """End connections that have stood still for too long: idle, a head that never ends, an answer nobody reads."""
        since: dict[Any, tuple[int, float]] = {}  # unread bytes, and since when nothing has moved
        while True:
            await asyncio.sleep(HEADER_S / 10)
            now, before, since = time.monotonic(), since, {}
            self._served.intersection_update(server.connections)
            for one in server.connections:
                transport = one.transport
                unread = transport.get_write_buffer_size() if transport is not None else 0
                if transport is None or (one in self._serving and not unread):
                    continue
                held = before.get(one)
                since[one] = held if held is not None and held[0] == unread else (unread, now)
                if now - since[one][1] > (UNREAD_S if unread else IDLE_S if one in self._served else HEADER_S):
                    one.force_close()
                    if unread:  # or it stays open until they are read
                        transport.abort()

    async def _watch_stopped(self, stopped: Callable[[], Collection[str]]) -> None:
        while True:
            names = await asyncio.to_thread(stopped)
            for pool in self.pools:
                for worker in pool.workers:
                    worker.stopped = worker.name in names
                    worker.look()
            await asyncio.sleep(STOPPED_S)

    async def _read_models(self, session: aiohttp.ClientSession) -> list[str]:
        """The names that the workers answer to; the spec's own name stands for the first."""
        worker = self.pools[0].workers[0]
        try:
            async with session.get(f"{worker.url}/v1/models", timeout=ASK) as response:
                body = json.loads(await text_of(response))
            return [str(item["id"]) for item in body["data"]]
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise SpecError(
                "frontend: {worker} at {url} does not list its models: {error}", worker.name, worker.url, error
            ) from None

    async def _chars_per_token(self, session: aiohttp.ClientSession) -> float:
        """Characters that a token of the served model stands for, measured on the corpus, so that chunks fit."""
        assert self._retrieval is not None
        sample = load_chunks(self._retrieval, CHARS_PER_TOKEN)[0].text
        worker = self.pools[0].workers[0]
        body = {"model": self.models[0], "prompt": sample}
        try:
            async with session.post(f"{worker.url}/tokenize", json=body, timeout=ASK) as response:
                count = int(json.loads(await whole_text(response, MOST_ANSWER))["count"])
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError, KeyError, TypeError) as error:
            log.warning("%s does not tokenise (%s): chunks are cut by an estimate", worker.name, error)
            return CHARS_PER_TOKEN
        return len(sample) / max(1, count)

    # --- requests -----------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The token, and OpenAI's error shape for everything that goes wrong before an answer starts."""
        self._serving.add(request.protocol)
        try:
            given = request.headers.get("authorization", "")
            if self._token and request.path != "/health" and not _same(given, f"Bearer {self._token}"):
                raise ApiError(401, "wrong or missing token", "authentication_error", code="invalid_api_key")
            return await handler(request)
        except ApiError as error:
            return web.json_response(error.body, status=error.status)
        except web.HTTPException as error:
            what = f"{request.method} {request.path}: {error.reason}"
            refused = ApiError(error.status, what, error_type(error.status))
            return web.json_response(refused.body, status=error.status)
        except ConnectionError:  # the client's, noticed while it was written to: nobody is there to be told
            request.protocol.force_close()
            return web.Response(status=CLIENT_GONE)
        finally:
            self._serving.discard(request.protocol)
            self._served.add(request.protocol)

    def _cards(self) -> dict[str, dict[str, Any]]:
        names = dict.fromkeys([*self.models, self._system.spec.model])
        return {name: {"id": name, "object": "model", "created": 0, "owned_by": "planner"} for name in names}

    async def _list_models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self._cards().values())})

    async def _show_model(self, request: web.Request) -> web.Response:
        cards, name = self._cards(), request.match_info["name"]
        if name not in cards:
            raise ApiError(404, f"the model {name[:200]!r} does not exist; served: {', '.join(cards)}",
                           "not_found_error", param="model", code="model_not_found")  # fmt: skip
        return web.json_response(cards[name])

    async def _health(self, _: web.Request) -> web.Response:
        """200 while every pool has a worker that answers and makes progress; `why`: what is wrong with the others."""
        workers = [worker for pool in self.pools for worker in pool.workers]
        serving = all(any(worker.state == OK for worker in pool.workers) for pool in self.pools)
        body = {
            "status": "ok" if serving else "unavailable",
            "workers": {worker.name: worker.state == OK for worker in workers},
            "why": {worker.name: worker.state for worker in workers if worker.state != OK},
        }
        return web.json_response(body, status=200 if serving else 503)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        self.metrics.in_flight.set(self._in_flight)
        text = self.metrics.render(self.pools, self._gpu_utilization())
        return web.Response(body=text, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve("chat", request)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._serve("completions", request)

    async def _serve(self, kind: Kind, request: web.Request) -> web.StreamResponse:
        request_id = request.headers.get("x-request-id", "")
        # Engines find each other by it (live/pd.py): never one twice, and none that a header cannot carry on.
        plain = request_id.isascii() and request_id.isprintable()
        if not request_id or not plain or request_id in self._log:
            request_id = uuid.uuid4().hex
        record = self._log.open(request_id, time.monotonic())
        calls: list[Call] = []
        self._in_flight += 1
        try:
            parsed = await self._bodies.read(kind, await _whole_body(request), request.headers)
            calls.append(Call(request_id, parsed[0], record))
            for number, one in enumerate(parsed[1:], start=1):  # an engine's id is never used twice
                own = f"{request_id}-{number}-{uuid.uuid4().hex[:8]}"
                calls.append(Call(own, one, self._log.open(own, record.received_s)))
            if parsed[0].stream:
                return await self._stream(request, calls)
            answer = await self._complete(calls)
            record.status = 200
            return web.json_response(answer, headers={"x-request-id": request_id})
        except (ApiError, web.HTTPException) as error:  # aiohttp's own: a body that is too large
            record.status, record.error = error.status, str(error)
            raise
        except (asyncio.CancelledError, ConnectionError):
            if record.status != 200:  # else it has its answer
                record.status, record.error = CLIENT_GONE, "the client closed the connection"
            raise
        except Exception as error:
            record.status, record.error = 500, f"{type(error).__name__}: {error}"
            log.exception("request %s", request_id)
            raise ApiError(500, record.error, "server_error") from error
        finally:
            record.finish_s = time.monotonic()
            for call in calls[1:]:  # the other prompts share the answer
                call.record.finish_s, call.record.status, call.record.error = (
                    record.finish_s,
                    record.status,
                    record.error,
                )
            self._in_flight -= 1
            self.metrics.answered(PATHS[kind], record)

    async def _complete(self, calls: Sequence[Call]) -> dict[str, Any]:
        if len(calls) == 1:
            return await self.proxy.complete(calls[0])
        tasks = [asyncio.create_task(self.proxy.complete(call)) for call in calls]
        try:
            return merged(await asyncio.gather(*tasks), calls[0].request.body.get("n") or 1)
        finally:
            for task in tasks:  # one that failed ends the others
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, request: web.Request, calls: Sequence[Call]) -> web.StreamResponse:
        call, streams = calls[0], [self.proxy.stream(one) for one in calls]
        stream = streams[0] if len(calls) == 1 else merged_streams(streams, call.request.body.get("n") or 1)
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        response = web.StreamResponse(headers=headers | {"x-request-id": call.request_id})
        async with contextlib.aclosing(stream) as events:
            try:
                async for piece in events:
                    if not response.prepared:
                        await response.prepare(request)
                    if piece.endswith(DONE):  # the client has all; the engine's connection is still being freed
                        await response.write_eof(piece)
                        call.record.status = 200
                    else:
                        await response.write(piece)
            except ApiError as error:
                if not response.prepared:
                    raise
                call.record.status, call.record.error = error.status, str(error)
                await response.write_eof(event(error.body) + DONE)
        return response


async def _whole_body(request: web.Request) -> bytes:
    """Raises ApiError 408 for a client that takes too long to send it."""
    if request.content.is_eof():  # all of it has come with its head
        return await request.read()
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_S:g} s", code="timeout") from None


def _same(given: str, wanted: str) -> bool:
    # aiohttp decodes bytes that are no UTF-8 to surrogates, which a plain encode() does not take.
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())
