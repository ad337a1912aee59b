"""The retrieval stage for real: embed the question, search the index, rank again, put documents and question together.

Each station (the frontend, or each prefill worker) has `retrieval.workers` threads; a request waits for one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from live.documents import Chunk, load_chunks
from live.embedders import Embedder, Vectors, embedder
from live.openai_api import CHARS_PER_TOKEN, ApiRequest, message_text
from live.rerankers import reranker
from planner.spec import Retrieval, SpecError

log = logging.getLogger("planner.frontend")
SYSTEM_PROMPT = "Answer the question from the documents. If they do not contain the answer, say so."


class Index(Protocol):
    def search(self, query: Vectors, count: int) -> list[int]:
        """Rows nearest to the one query, best first."""
        ...


class NumpyIndex:
    """Every vector is compared: exact, and a matter of milliseconds up to some 100,000 chunks."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def search(self, query: Vectors, count: int) -> list[int]:
        scores = self._vectors @ query[0]
        count = min(count, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        found: list[int] = best[np.lexsort((best, -scores[best]))].tolist()
        return found


class FaissIndex:
    """The same search in FAISS (flat, inner product)."""

    def __init__(self, vectors: Vectors) -> None:
        try:
            import faiss
        except ImportError:
            raise SpecError(
                "retrieval.index: faiss is not installed; `pip install faiss-cpu`, or use 'numpy'"
            ) from None
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)
        self._size = len(vectors)

    def search(self, query: Vectors, count: int) -> list[int]:
        found: list[int] = self._index.search(query, min(count, self._size))[1][0].tolist()
        return found


INDEXES: dict[str, Callable[[Vectors], Index]] = {"numpy": NumpyIndex, "faiss": FaissIndex}


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The chunks for one question, in prompt order. Times are `time.monotonic()`."""

    chunks: tuple[Chunk, ...]
    start_s: float  # a retrieval worker took it
    embed_s: float  # how long each stage took
    search_s: float
    rerank_s: float  # 0 without a reranker
    end_s: float

    @property
    def names(self) -> list[str]:
        return [chunk.name for chunk in self.chunks]


class Retriever:
    """Corpus, embedder and index of one service. `observe` is told of every search."""

    def __init__(
        self,
        spec: Retrieval,
        *,
        chars_per_token: float = CHARS_PER_TOKEN,
        model: Embedder | None = None,
        observe: Callable[[Retrieved], None] | None = None,
    ) -> None:
        self.spec = spec
        self.chunks = load_chunks(spec, chars_per_token)
        self._embedder = model or embedder(spec.embedder)
        started = time.monotonic()
        vectors = self._embedder.embed([chunk.text for chunk in self.chunks])
        self._index = INDEXES[spec.index](vectors)
        self._reranker = reranker(spec)
        if self._reranker is not None:
            self._reranker.scores("a question", [self.chunks[0].text])  # a service that fails is known now
        log.info("retrieval: %d chunks indexed in %.2f s", len(self.chunks), time.monotonic() - started)
        self._observe = observe
        self._stations: dict[str, ThreadPoolExecutor] = {}

    def find(self, question: str) -> Retrieved:
        """Embed, search and rank again, in the calling thread."""
        start = time.monotonic()
        vector = self._embedder.embed([question])
        embedded = time.monotonic()
        wanted = self.spec.top_k
        rows = self._index.search(vector, wanted if self._reranker is None else max(wanted, self.spec.candidates))
        searched = end = time.monotonic()
        if self._reranker is not None:
            scores = self._reranker.scores(question, [self.chunks[row].text for row in rows])
            rows = [rows[at] for at in sorted(range(len(rows)), key=lambda at: -scores[at])[:wanted]]  # stable: ties
            end = time.monotonic()
        chunks = [self.chunks[row] for row in rows]
        if self.spec.order == "canonical":
            chunks.sort(key=lambda chunk: chunk.name)
        return Retrieved(tuple(chunks), start, embedded - start, searched - embedded, end - searched, end)

    async def search(self, question: str, station: str = "frontend") -> Retrieved:
        """`find` on one of the station's threads."""
        if station not in self._stations:
            self._stations[station] = ThreadPoolExecutor(self.spec.workers, f"retrieval-{station}")
        found = await asyncio.get_running_loop().run_in_executor(self._stations[station], self.find, question)
        if self._observe:
            self._observe(found)
        return found

    def query(self, request: ApiRequest) -> str | None:
        """The question of a request; None when it has no text to search with."""
        options = request.retrieval
        texts = [request.text]
        if request.kind == "chat":
            texts = [message_text(item) for item in request.body["messages"] if item.get("role") == "user"]
        if texts and isinstance(options, dict) and options.get("query"):
            return str(options["query"])
        return texts[-1] if texts and texts[-1] else None

    def assemble(self, request: ApiRequest, found: Retrieved) -> ApiRequest:
        """System prompt, documents, question. Load runs send prompts that hold their documents already."""
        options = request.retrieval
        if request.token_ids is not None or (isinstance(options, dict) and options.get("assembled")):
            return request
        if request.kind == "completions":
            prompt = f"{SYSTEM_PROMPT}\n\n{_documents(found.chunks)}\n\nQuestion: {request.text}\nAnswer:"
            return replace(request, body=request.body | {"prompt": prompt}, text=prompt)
        messages = _messages(request.body["messages"], found.chunks)
        text = "\n".join(message_text(item) for item in messages)
        return replace(request, body=request.body | {"messages": messages}, text=text)

    def close(self) -> None:
        for pool in self._stations.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _documents(chunks: Sequence[Chunk]) -> str:
    return "\n\n".join(f"[{number}] {chunk.name}\n{chunk.text}" for number, chunk in enumerate(chunks, 1))


def _messages(messages: Sequence[dict[str, Any]], chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """The conversation with the documents put before its last question, and a system prompt where it has none."""
    last = max(number for number, item in enumerate(messages) if item.get("role") == "user")
    asked = f"Documents:\n{_documents(chunks)}\n\nQuestion: {message_text(messages[last])}"
    changed = [*messages[:last], dict(messages[last]) | {"content": asked}, *messages[last + 1 :]]
    if any(item.get("role") == "system" for item in messages):
        return changed
    return [{"role": "system", "content": SYSTEM_PROMPT}, *changed]
