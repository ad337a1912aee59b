"""Chunks, embedders, index and the retrieval stage of the frontend; the KV events' prefix index."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fake_engine import FakeEngine
from live.client import ClientOptions, run_load
from live.documents import load_chunks, split
from live.embedders import Hashing, embedder
from live.frontend import Frontend
from live.rerankers import Overlap, reranker
from live.retrieval import FaissIndex, NumpyIndex, Retriever
from planner.spec import Retrieval, SpecError
from planner.traffic.requests import Arrival
from test_client import Listed, request
from test_frontend import SPLIT, chunks, pair, post, served

RAG = {"retrieval": {"top_k": 3, "workers": 2}}
QUESTION = {"messages": [{"role": "user", "content": "How large is the KV cache of Llama 3.1 8B per token?"}]}


@given(st.text(alphabet="ab. \n", max_size=400), st.integers(5, 80))
def test_pieces_fit_and_hold_the_text(text: str, limit: int) -> None:
    pieces = split(text, limit)
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "long.txt").write_text("One paragraph.\n\n" * 40)
    (tmp_path / "short.md").write_text("Short.")
    (tmp_path / "image.png").write_bytes(b"x")
    found = load_chunks(Retrieval(corpus=str(tmp_path), chunk_tokens=50), 4.0)
    assert found[0].name == "short.md"
    assert {chunk.name for chunk in found[1:]} == {f"sub/long.txt#{n}" for n in range(1, len(found))}
    assert len(found) > 3
    with pytest.raises(SpecError, match="is not a folder"):
        load_chunks(Retrieval(corpus=str(tmp_path / "none")), 4.0)
    (tmp_path / "short.md").unlink()
    (tmp_path / "sub" / "long.txt").unlink()
    with pytest.raises(SpecError, match=r"holds no \.txt or \.md"):
        load_chunks(Retrieval(corpus=str(tmp_path)), 4.0)


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("How large is the KV cache of Llama 3.1 8B per token?", "kv-cache.md"),
        ("What does NIXL do?", "nixl.md"),
        ("What is Little's law?", "littles-law.md"),
        ("What does enforce_eager change about CUDA graphs?", "cuda-graphs.md"),
        ("Which request does vLLM evict in a preemption?", "preemption.md"),
        ("How does chunked prefill cut a long prompt?", "chunked-prefill.md"),
    ],
)
def test_the_shipped_corpus_answers(question: str, document: str) -> None:
    found = Retriever(Retrieval(top_k=3)).find(question)
    assert document in found.names[:2]
    assert 0 < found.embed_s + found.search_s <= found.end_s - found.start_s + 1e-6


def test_numpy_index_is_exact_and_ordered() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    query = rng.normal(size=(1, 16)).astype(np.float32)
    best = np.argsort(-(vectors @ query[0]))[:7].tolist()
    assert NumpyIndex(vectors).search(query, 7) == best
    assert len(NumpyIndex(vectors).search(query, 1000)) == 500


def test_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss", reason="the faiss extra is not installed")
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    ours, theirs = NumpyIndex(vectors), FaissIndex(vectors)
    for query in rng.normal(size=(20, 1, 16)).astype(np.float32):
        assert ours.search(query, 5) == theirs.search(query, 5)
    assert len(theirs.search(query, 1000)) == 500


def test_hashing_is_stable() -> None:
    vectors = Hashing().embed(["prefill and decode", "prefill and decode", "", "a queue"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0, 1])
    assert (vectors[0] == vectors[1]).all()
    assert int(np.argmax(np.abs(Hashing().embed(["prefill"])[0]))) == 522  # not Python's own hash, which is salted


def test_unknown_parts_are_named() -> None:
    for name in ("word2vec", "openai", "sentence-transformers:"):
        with pytest.raises(SpecError, match=r"retrieval.embedder: .* is unknown; allowed: hashing"):
            embedder(name)
    if _missing("faiss"):
        with pytest.raises(SpecError, match="faiss is not installed"):
            Retriever(Retrieval(index="faiss"))


def _missing(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is None


def test_remote_embeddings() -> None:
    """An OpenAI-compatible service that embeds with the hashing embedder finds what hashing finds."""
    asked: list[str] = []

    async def embed(incoming: web.Request) -> web.Response:
        body = await incoming.json()
        asked.append(body["model"])
        vectors = Hashing().embed(body["input"]).tolist()
        return web.json_response({"data": [{"embedding": vector} for vector in vectors]})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def main() -> list[str]:
        app = web.Application()
        app.add_routes([web.post("/v1/embeddings", embed), web.get("/v1/models", models)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        spec = Retrieval(embedder=f"openai:http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            retriever = await asyncio.to_thread(Retriever, spec)
            return (await retriever.search("What does NIXL do?")).names
        finally:
            await runner.cleanup()

    assert asyncio.run(main())[0] == "nixl.md"
    assert set(asked) == {"m"}
    with pytest.raises(SpecError, match=r"retrieval.embedder: .* failed"):
        Retriever(Retrieval(embedder="openai:http://127.0.0.1:1"))


def test_words_in_common_decide_among_the_candidates() -> None:
    texts = ["prefill prefill prefill", "decode of a prefill worker", "nothing", "the decode worker"]
    scores = Overlap().scores("Which decode worker?", texts)
    assert scores[2] == scores[0] == 0 < scores[1] < scores[3]  # the pair "decode worker" is in one text only
    plain = Retriever(Retrieval(top_k=2))
    again = Retriever(Retrieval(top_k=2, reranker="overlap", candidates=9))
    question = "How large is the KV cache of Llama 3.1 8B per token?"
    assert plain.find(question).rerank_s == 0
    found = again.find(question)
    assert found.names[0].startswith("kv-cache.md")
    assert len(found.chunks) == 2
    assert 0 < found.rerank_s <= found.end_s - found.start_s
    assert found.embed_s + found.search_s + found.rerank_s == pytest.approx(found.end_s - found.start_s)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, None),
        ({"rerank_ms": 5}, Overlap),
        ({"rerank_ms": 5, "reranker": "none"}, None),
        ({"reranker": "overlap"}, Overlap),
    ],
)
def test_a_planned_reranking_is_done(fields: dict[str, Any], kind: type | None) -> None:
    assert type(reranker(Retrieval(**fields))) is (kind or type(None))


def test_remote_reranking() -> None:
    """A service that likes short texts turns the order round; what it leaves out comes last; its time is counted."""
    asked: list[dict[str, Any]] = []

    async def rank(incoming: web.Request) -> web.Response:
        body = await incoming.json()
        asked.append(body)
        order = sorted(range(len(body["documents"])), key=lambda at: len(body["documents"][at]))
        await asyncio.sleep(0.05)
        results = [{"index": at, "relevance_score": -float(rank)} for rank, at in enumerate(order)]
        return web.json_response({"results": results[:3]})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def wrong(_: web.Request) -> web.Response:
        return web.json_response({"results": [{"index": 0}]})

    async def main() -> str:
        app = web.Application()
        routes = [web.post("/v1/rerank", rank), web.get("/v1/models", models), web.post("/wrong/rerank", wrong)]
        app.add_routes(routes)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            spec = Retrieval(reranker=f"rerank:{url}", top_k=2, candidates=5)
            retriever = await asyncio.to_thread(Retriever, spec)
            found = await retriever.search("What does NIXL do?")
            with pytest.raises(SpecError, match="no results with index and relevance_score"):
                await asyncio.to_thread(Retriever, Retrieval(reranker=f"rerank:{url}/wrong/rerank#m"))
            assert found.rerank_s > 0.04
            lengths = [len(text) for text in asked[-1]["documents"]]
            assert [len(chunk.text) for chunk in found.chunks] == sorted(lengths)[:2]
            return url
        finally:
            await runner.cleanup()

    url = asyncio.run(main())
    assert {(body["model"], len(body["documents"]), body["top_n"]) for body in asked} == {("m", 1, 1), ("m", 5, 5)}
    with pytest.raises(SpecError, match=r"retrieval.reranker: .* failed"):
        Retriever(Retrieval(reranker=f"rerank:{url}"))
    for name in ("bm25", "rerank", "overlap:x"):
        with pytest.raises(SpecError, match=r"retrieval.reranker: .* is unknown; allowed: overlap"):
            reranker(Retrieval(reranker=name))


def test_reranking_is_in_the_service() -> None:
    engine = FakeEngine("aggregated-0")

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, QUESTION, "/v1/chat/completions")
        assert (status, len(answer["documents"])) == (200, 3)
        async with session.get("/metrics") as response:
            text = await response.text()
        (spent,) = (line for line in text.splitlines() if line.startswith("planner_retrieval_rerank_seconds_sum"))
        assert float(spent.split()[1]) > 0

    served(test, [engine], {"mode": "aggregated"}, top={"retrieval": {"top_k": 3, "rerank_ms": 2}})


def test_workers_bound_the_searches() -> None:
    busy, most = 0, 0
    lock = threading.Lock()

    class Slow(Hashing):
        def embed(self, texts: Any) -> Any:
            nonlocal busy, most
            if len(texts) == 1:
                with lock:
                    busy += 1
                    most = max(most, busy)
                time.sleep(0.03)
                with lock:
                    busy -= 1
            return super().embed(texts)

    async def main() -> None:
        retriever = Retriever(Retrieval(workers=2), model=Slow())
        found = await asyncio.gather(*(retriever.search("decode") for _ in range(6)))
        starts = sorted(one.start_s for one in found)
        assert starts[-1] - starts[0] > 0.05  # the last pair waited for two others
        retriever.close()

    asyncio.run(main())
    assert most == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_is_answered_from_documents(stream: bool) -> None:
    engine = FakeEngine("aggregated-0")

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, QUESTION | {"stream": stream}, "/v1/chat/completions")
        assert status == 200
        first = chunks(answer)[0] if stream else answer
        assert "kv-cache.md" in {name.split("#")[0] for name in first["documents"]}
        if stream:
            assert all("documents" not in chunk for chunk in chunks(answer)[1:])
        async with session.get("/metrics") as response:
            text = await response.text()
        assert "planner_retrieval_seconds_count 1.0" in text
        assert "planner_retrieval_search_seconds_count 1.0" in text

    frontend = served(test, [engine], {"mode": "aggregated"}, top=RAG)
    messages = engine.requests[0]["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "131,072 bytes" in messages[1]["content"]
    assert messages[1]["content"].endswith("Question: How large is the KV cache of Llama 3.1 8B per token?")
    (record,) = frontend.records().values()
    assert len(record.documents) == 3
    assert record.retrieval_start_s is not None
    assert record.received_s <= record.retrieval_start_s < (record.retrieval_end_s or 0) <= (record.queued_s or 0)


def test_retrieval_can_be_left_out_and_completions_have_it_too() -> None:
    engine = FakeEngine("aggregated-0")

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        assert "documents" not in (await post(session, QUESTION | {"retrieval": False}, "/chat"))[1]
        answer = (await post(session, {"prompt": "What is goodput?", "max_tokens": 3}))[1]
        assert "goodput.md" in {name.split("#")[0] for name in answer["documents"]}

    served(test, [engine], {"mode": "aggregated"}, top=RAG)
    assert engine.requests[0]["messages"] == QUESTION["messages"]
    assert "retrieval" not in engine.requests[0]
    assert engine.requests[1]["prompt"].endswith("Question: What is goodput?\nAnswer:")


def test_prefill_workers_retrieve_after_routing() -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, QUESTION, "/chat")
        assert (status, len(answer["documents"])) == (200, 3)

    engines = pair()
    served(test, engines, SPLIT, top={"retrieval": {"top_k": 3, "at": "prefill_worker"}})
    assert engines[0].requests[0]["messages"] == engines[1].requests[0]["messages"]
    assert "Documents:" in engines[1].requests[0]["messages"][1]["content"]


def test_load_runs_keep_their_prompt_and_still_retrieve() -> None:
    engine = FakeEngine("aggregated-0")

    async def test(frontend: Frontend, _: aiohttp.ClientSession) -> None:
        segments = ((1, 30), (2, 50), (77, 20))
        load = Listed([Arrival(0.01 * n, request(n, segments, known_prefix_tokens=30)) for n in range(5)])
        result = await run_load([frontend.base_url], load, options=ClientOptions(rag=True))
        assert result.tokens().equal
        table = result.request_table(frontend.records())
        assert (table["retrieval_end_s"] > table["retrieval_start_s"]).all()
        assert (table["retrieval_start_s"] >= table["arrival_s"]).all()
        assert (table["queued_s"] >= table["retrieval_end_s"]).all()

    served(test, [engine], {"mode": "aggregated"}, top=RAG)
    assert [len(body["prompt"]) for body in engine.requests[-5:]] == [100] * 5
    assert all("retrieval" not in body for body in engine.requests)
