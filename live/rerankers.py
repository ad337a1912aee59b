"""A second look at what the index found: the best of the candidates, by words in common or by a service's model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from live.embedders import call, first_model, terms
from planner.spec import Retrieval, SpecError

KEY = "retrieval.reranker"


class Reranker(Protocol):
    """Called from several threads at once."""

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers, more is better."""
        ...


class Overlap:
    """The question's words and word pairs that a text has, each worth more the fewer of the texts have it."""

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        asked = set(terms(question))
        shared = [asked.intersection(terms(text)) for text in texts]
        having = {term: sum(term in one for one in shared) for term in asked}
        return [sum(math.log1p(len(texts) / having[term]) for term in sorted(one)) for one in shared]


class RemoteReranker:
    """A service with Cohere's and Jina's `/rerank` (vLLM has it too): `<base url>` or `<.../rerank>`, `#<model>`.

    Without a path it is asked at /v1/rerank; without a model for the first of its /v1/models.
    """

    def __init__(self, where: str) -> None:
        url, _, model = where.partition("#")
        url = url.rstrip("/")
        base = url.removesuffix("/rerank").removesuffix("/v2").removesuffix("/v1")
        self._url = url if url.endswith("/rerank") else f"{base}/v1/rerank"
        self._model = model or first_model(KEY, f"{base}/v1")

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        body = {"model": self._model, "query": question, "documents": list(texts), "top_n": len(texts)}
        answer = call(KEY, self._url, body)
        found = [-math.inf] * len(texts)  # a service may leave the worst ones out
        try:
            for item in answer["results"]:
                found[int(item["index"])] = float(item["relevance_score"])
        except (KeyError, IndexError, TypeError, ValueError):
            raise SpecError("{key}: {url} gave no results with index and relevance_score", KEY, self._url) from None
        return found


RERANKERS: dict[str, Callable[[str], Reranker]] = {"overlap": lambda _: Overlap(), "rerank": RemoteReranker}


def reranker(spec: Retrieval) -> Reranker | None:
    """`overlap`, `rerank:<url>[#model]`, or None for `none` and for a spec that plans no time for it."""
    name = spec.reranker or ("overlap" if spec.rerank_ms > 0 else "none")
    if name == "none":
        return None
    kind, _, where = name.partition(":")
    if kind not in RERANKERS or (kind == "rerank") != bool(where):
        raise SpecError("{key}: {value!r} is unknown; allowed: overlap, none, rerank:<url>[#model]", KEY, name)
    return RERANKERS[kind](where)
