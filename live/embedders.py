"""Texts to unit vectors: hashing (needs nothing), sentence-transformers, or an OpenAI-compatible service."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from planner.spec import SpecError

Vectors = NDArray[np.float32]
HASH_DIMENSIONS = 1024
REMOTE_BATCH = 64
SILENT_S, ANSWER_S = 60.0, 300.0  # without a byte of an answer; until its end
MOST_ANSWER = 2**26  # bytes: 64 vectors of 10,000 numbers take 20 MB

# Words that say nothing about a text's subject.
_STOP = frozenset(
    """a an and are as at be because been but by can do does for from had has have how i if in into is it its me more
    most my no not of on or our so some such than that the their them then there these they this to us was we were what
    when where which while who why will with would you your""".split()
)


class Embedder(Protocol):
    """Called from several threads at once."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(texts, dimensions), each row of length 1 (or 0 for a text without words)."""
        ...


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Rows scaled to length 1; empty rows stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


@lru_cache(maxsize=100_000)
def _slot(term: str) -> tuple[int, float]:
    """Dimension and sign of a term; crc32, because Python's own hash changes from process to process."""
    value = zlib.crc32(term.encode())
    return value % HASH_DIMENSIONS, 1.0 if value & 0x8000_0000 else -1.0


def terms(text: str) -> list[str]:
    """Words without the common ones and without plural endings, and pairs of neighbours."""
    words = [word.rstrip("s") for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _STOP]
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


class Hashing:
    """Feature hashing of words and word pairs with a damped count: keyword search as a vector, no model."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), HASH_DIMENSIONS))
        for row, text in enumerate(texts):
            counts: dict[str, int] = {}
            for term in terms(text):
                counts[term] = counts.get(term, 0) + 1
            for term, count in counts.items():
                at, sign = _slot(term)
                vectors[row, at] += sign * np.log1p(count)
        return unit(vectors)


class SentenceTransformer:
    """A model of the sentence-transformers library, by name or folder."""

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer as Model
        except ImportError:
            raise SpecError(
                "retrieval.embedder: sentence-transformers is not installed; `pip install sentence-transformers`, "
                "or use 'hashing'"
            ) from None
        self._model = Model(name)

    def embed(self, texts: Sequence[str]) -> Vectors:
        return unit(np.asarray(self._model.encode(list(texts), show_progress_bar=False)))


def _all_of(response: http.client.HTTPResponse) -> bytes:
    """Raises ValueError for an answer that is too long or does not end."""
    until_s, pieces, size = time.monotonic() + ANSWER_S, [], 0
    while piece := response.read1(2**20):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_ANSWER:
            raise ValueError(f"an answer of more than {MOST_ANSWER} bytes")
        if time.monotonic() > until_s:
            raise ValueError(f"its answer did not end within {ANSWER_S:g} s")
    return b"".join(pieces)


def call(key: str, url: str, body: object = None) -> dict[str, Any]:
    """A JSON service's answer. Raises SpecError that names the YAML key `key`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SILENT_S) as response:
            answer = json.loads(_all_of(response))
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise SpecError("{key}: {url} failed: {error}", key, url, error) from None
    if not isinstance(answer, dict):
        raise SpecError("{key}: {url} did not answer with a JSON object", key, url)
    return answer


def first_model(key: str, base: str) -> str:
    """The first model of an OpenAI-compatible service, whose `base` ends in /v1."""
    try:
        return str(call(key, f"{base}/models")["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise SpecError("{key}: {base}/models names no model; give it after #", key, base) from None


class Remote:
    """`/v1/embeddings` of an OpenAI-compatible service: `<base url>` or `<base url>#<model>`."""

    def __init__(self, where: str) -> None:
        base, _, model = where.partition("#")
        base = base.rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        self._model = model or first_model("retrieval.embedder", self._base)

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows: list[NDArray[np.float64]] = []
        for start in range(0, len(texts), REMOTE_BATCH):
            batch = list(texts[start : start + REMOTE_BATCH])
            body = {"model": self._model, "input": batch, "encoding_format": "float"}
            answer = call("retrieval.embedder", f"{self._base}/embeddings", body)
            try:
                found = np.asarray([item["embedding"] for item in answer["data"]], dtype=np.float64)
            except (KeyError, TypeError, ValueError):
                found = np.empty(0)
            if found.ndim != 2 or len(found) != len(batch) or not np.isfinite(found).all():
                raise SpecError(
                    "retrieval.embedder: {url} gave no {count} vectors of one length", self._base, len(batch)
                )
            rows.append(found)
        return unit(np.concatenate(rows))


EMBEDDERS: dict[str, Callable[[str], Embedder]] = {
    "hashing": lambda _: Hashing(),
    "sentence-transformers": SentenceTransformer,
    "openai": Remote,
}


def embedder(name: str) -> Embedder:
    """`hashing`, `sentence-transformers:<name or folder>`, `openai:<base url>[#model]`."""
    kind, _, where = name.partition(":")
    if kind not in EMBEDDERS or (kind != "hashing" and not where):
        allowed = "hashing, sentence-transformers:<name or folder>, openai:<base url>"
        raise SpecError("retrieval.embedder: {value!r} is unknown; allowed: {allowed}", name, allowed)
    return EMBEDDERS[kind](where)
