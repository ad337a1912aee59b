"""Servers that send without end or what is no answer: each read has a bound, and the fault has a name."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fake_engine import FakeEngine
from live import bounded, client, documents, embedders, fleet, openai_api, proxy
from live import frontend as frontend_module
from live.embedders import Remote
from live.endpoints import Endpoint
from live.frontend import Frontend
from live.kv_events import KvEventFeed
from live.scrape import Scraper
from live.servers import free_ports
from planner.spec import Retrieval, SpecError
from planner.traffic.requests import Arrival
from test_client import Listed, request
from test_frontend import PROMPT, chunks, post, served

ONE = {"mode": "aggregated"}
SMALL = 2**18


class Odd(FakeEngine):
    """Answers some of its paths with `said`: over and over with no end, or once."""

    def __init__(self, paths: set[str], said: bytes, *, endless: bool = True, status: int = 200) -> None:
        super().__init__()
        self.paths, self.said, self.endless, self.status = paths, said, endless, status

    async def _odd(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        await response.write(self.said)
        while self.endless:
            await response.write(self.said)
        return response

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await (self._odd(request) if "generate" in self.paths else super()._generate(request))

    async def _metrics(self, request: web.Request) -> Any:
        return await (self._odd(request) if "metrics" in self.paths else super()._metrics(request))

    async def _models(self, request: web.Request) -> Any:
        return await (self._odd(request) if "models" in self.paths else super()._models(request))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test reaches at once."""
    for module in (proxy, frontend_module, embedders):
        monkeypatch.setattr(module, "MOST_ANSWER", SMALL)
    monkeypatch.setattr(fleet, "MOST_METRICS", SMALL)
    monkeypatch.setattr(openai_api, "MOST_LINE", SMALL)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (Odd({"generate"}, b" " * 65_536), {False: f"more than {SMALL} bytes", True: "a line of more than"}),
        (Odd({"generate"}, b"x" * 65_536, status=500), {False: f"more than {SMALL} bytes", True: "answered 500: xxx"}),
        (Odd({"generate"}, b"data: [1]\n\n", endless=False), {False: "not JSON", True: "[1] in its stream"}),
        (
            Odd({"generate"}, b'data: {"choices": [{"delta": {"content": 5}}]}\n', endless=False),
            {False: "not JSON", True: "delta"},
        ),
        (Odd({"generate"}, b"[" * 100_000, endless=False), {False: "not JSON", True: "without [DONE]"}),
    ],
)
def test_an_answer_without_end_or_sense_is_the_workers_fault(engine: Odd, words: dict[bool, str], stream: bool) -> None:
    async def test(_: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, PROMPT | ({"stream": True} if stream else {}))
        text = answer if isinstance(answer, str) else answer["error"]["message"]
        assert status == 502
        assert words[stream] in text
        assert len(text) < 3000

    served(test, [engine], ONE)


def test_metrics_that_do_not_end_or_hold_no_numbers_leave_the_watching_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "POLL_S", 0.01)
    nonsense = b"vllm:num_requests_running nonsense\nvllm:num_requests_waiting 1e999\n\xff\n"
    engine = Odd({"metrics"}, nonsense)

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        (worker,) = frontend.pools[0].workers
        while worker.healthy:  # an answer without end is none
            await asyncio.sleep(0.01)
        engine.endless = False
        while not worker.healthy:
            await asyncio.sleep(0.01)
        assert worker.polled == {}
        engine.paths = set()
        while "num_requests_running" not in worker.polled:
            await asyncio.sleep(0.01)
        assert len(chunks((await post(session, PROMPT | {"stream": True}))[1])) == 6

    served(test, [engine], ONE)


@pytest.mark.parametrize("said", [b" " * 65_536, b"[" * 100_000])
def test_models_that_cannot_be_listed_are_one_line(said: bytes) -> None:
    async def never(*_: object) -> None:
        raise AssertionError

    with pytest.raises(SpecError, match="does not list its models"):
        served(never, [Odd({"models"}, said)], ONE)


@contextmanager
def service(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def do_GET(self) -> None:
            try:
                answer(self)
            except ConnectionError:
                pass  # the reader has had enough

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b" " * 65_536)


def said(body: bytes) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    return lambda handler: handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + body) and None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (endless, f"more than {SMALL} bytes"),
        (said(b"[" * 100_000), "failed"),
        (said(b'{"data": [{"embedding": [1, 2]}]}'), "no 2 vectors of one length"),
        (said(b'{"data": [{"embedding": [1, 2]}, {"embedding": [1]}]}'), "no 2 vectors of one length"),
        (said(b'{"data": [{"embedding": [1, NaN]}, {"embedding": [1, 2]}]}'), "no 2 vectors of one length"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n") and None, "failed"),
    ],
)
def test_an_embedding_service_can_send_what_it_likes(answer: Any, words: str) -> None:
    with service(answer) as url, pytest.raises(SpecError, match=rf"retrieval\.embedder: .*{words}"):
        Remote(f"{url}#m").embed(["a", "b"])


def test_an_embedding_service_that_drips_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "ANSWER_S", 0.0)
    with service(said(b"{}")) as url, pytest.raises(SpecError, match="did not end within 0 s"):
        Remote(f"{url}#m").embed(["a"])


def test_samples_that_are_none_are_no_answer() -> None:
    with service(said(b"vllm:a{ 1\n")) as url, Scraper([url]) as scraper:
        assert scraper.read() == [None]
        with pytest.raises(SpecError, match="does not answer"):
            scraper.check(None)


def test_kv_events_that_cannot_be_read_empty_the_index() -> None:
    """And the feed goes on: one that ended would leave an index that is wrong ever after."""
    zmq = pytest.importorskip("zmq")
    msgspec = pytest.importorskip("msgspec")
    endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"

    async def main() -> KvEventFeed:
        feed = KvEventFeed("w", endpoint)
        feed.start()
        publisher = zmq.Context.instance().socket(zmq.PUB)
        publisher.connect(endpoint)
        event = {"type": "BlockStored", "block_hashes": [b"a"], "parent_block_hash": None, "token_ids": [1, 2],
                 "block_size": 2, "medium": "GPU"}  # fmt: skip
        whole = [b"", (1).to_bytes(8, "big"), msgspec.msgpack.encode([0.0, [event], 0])]
        try:
            while not len(feed.index):  # a subscriber gets what is sent after it is known
                publisher.send_multipart(whole)
                await asyncio.sleep(0.01)
            while len(feed.index):
                publisher.send_multipart([b"", b"", b"\xc1nonsense"])
                await asyncio.sleep(0.01)
            while not len(feed.index):
                publisher.send_multipart(whole)
                await asyncio.sleep(0.01)
        finally:
            publisher.close(linger=0)
            await feed.stop()
        return feed

    assert asyncio.run(main()).gaps >= 1


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert bounded.log_end(log) == ""
    log.write_bytes(b"a" * 100 + b"\xffend")
    assert bounded.log_end(log, 5) == "a\ufffdend"
    assert len(bounded.log_end(log)) == 104


def test_a_corpus_has_a_bound(tmp_path: Path) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(documents.MOST_CORPUS_BYTES + 1)
    with pytest.raises(SpecError, match="more than 268435456 bytes of text"):
        documents.load_chunks(Retrieval(corpus=str(tmp_path)), 4.0)


def test_a_stream_that_goes_on_and_on_is_a_failed_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_MORE", 50)
    engine = Odd({"generate"}, b'data: {"choices": [{"index": 0, "text": "a"}]}\n\n')

    async def main() -> client.ClientResult:
        async with engine:
            endpoint = Endpoint(engine.url, "fake", "completions", "token_ids", frozenset(), True, ())
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(client, "find_endpoint", lambda *_, **__: asyncio.sleep(0, endpoint))
                return await client.run_load([engine.url], Listed([Arrival(0.0, request(1))]))

    (row,) = asyncio.run(main()).outcomes
    assert row.error is not None and "goes on and on" in row.error
