"""The retrieval stage as a first-come queue with several workers (M/G/c when arrivals are Poisson)."""

from __future__ import annotations

import heapq
import math
import random

from planner.spec import Retrieval


class RetrievalStation:
    """Embed, search and re-rank take one lognormal service time on the first worker that is free."""

    def __init__(self, spec: Retrieval, seed: str) -> None:
        self._free_at = [0.0] * spec.workers
        self._mean_s = (spec.embed_ms + spec.search_ms + spec.rerank_ms) / 1e3
        self._sigma = math.sqrt(math.log1p(spec.service_cv**2))
        self._rng = random.Random(seed)

    def serve(self, now: float) -> tuple[float, float]:
        """(start, end) of a request that arrives now. Calls must come in time order."""
        start = max(now, heapq.heappop(self._free_at))
        service = self._mean_s
        if self._sigma and service:
            service *= math.exp(self._rng.gauss(0.0, self._sigma) - self._sigma**2 / 2)
        heapq.heappush(self._free_at, start + service)
        return start, start + service
