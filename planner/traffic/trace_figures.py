"""A trace in figures, in one pass: only send times, lengths and the caches' blocks are kept."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.traffic.rows import TraceRequest

CACHES = (5_000, 10_000, 30_000)  # blocks
WIDTHS_S = (60.0, 600.0, 3600.0, 86_400.0, 604_800.0, 31_557_600.0)  # a minute to a year
MOST_BINS = 1_500  # a day in minutes


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A trace in figures. Hit shares are of blocks, None without hash ids; `lru_hit_shares` by cache size in blocks."""

    requests: int
    duration_s: float
    rate: float | None  # requests per second; None when all come at once
    prompt_tokens: dict[str, float]  # mean, p50, p90, p99, max
    output_tokens: dict[str, float]
    gap_cv: float | None  # standard deviation of the gaps over their mean: 1 is Poisson, above is burstier
    infinite_cache_hit_share: float | None
    lru_hit_shares: dict[int, float] | None
    sessions: int = 0  # named ones
    bin_s: float = 60.0  # a minute, or more for a trace of more than a day
    arrivals: tuple[int, ...] = ()  # requests in each bin
    peak_to_mean: float | None = None  # the fullest bin, over the mean rate times its width


class Lru:
    """A cache of so many blocks (None: endless), least recently used out first: blocks found of those asked for."""

    def __init__(self, blocks: int | None) -> None:
        self._blocks = blocks
        self._cache: OrderedDict[int, None] = OrderedDict()
        self.hits = self.total = 0

    def ask(self, ids: Sequence[int]) -> None:
        cache = self._cache
        self.total += len(ids)
        for block in ids:
            if block in cache:
                self.hits += 1
                cache.move_to_end(block)
            else:
                cache[block] = None
                if self._blocks is not None and len(cache) > self._blocks:
                    cache.popitem(last=False)

    @property
    def share(self) -> float:
        return self.hits / self.total


def lru_hit_share(requests: Iterable[TraceRequest], blocks: int | None) -> float:
    """Share of prompt blocks found in a cache of so many blocks (None: endless)."""
    cache = Lru(blocks)
    for request in requests:
        cache.ask(request.hash_ids)
    return cache.share


def _spread(values: array[int]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values, (50, 90, 99))
    return {"mean": float(np.mean(values)), "p50": float(p50), "p90": float(p90), "p99": float(p99), "max": max(values)}


def _bins(times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, tuple[int, ...]]:
    """Width of a bin in seconds, and the requests in each."""
    duration_s = float(times[-1] - times[0])
    width_s = next((width for width in WIDTHS_S if duration_s / width < MOST_BINS), duration_s / (MOST_BINS - 1))
    counts = np.bincount(((times - times[0]) / width_s).astype(np.int64))
    return width_s, tuple(int(count) for count in counts)


def summarise(requests: Iterable[TraceRequest], caches: Sequence[int] = CACHES) -> TraceSummary | None:
    """Figures of a trace: of `read(path).requests`, or of a `Scan`, whose rows are not kept. None without requests."""
    stamps, prompts, outputs = array("d"), array("q"), array("q")
    endless, bounded = Lru(None), {blocks: Lru(blocks) for blocks in caches}
    sessions: set[str] = set()
    for row in requests:
        if row.arrival_s is not None:
            stamps.append(row.arrival_s)
        prompts.append(row.prompt_tokens)
        outputs.append(row.output_tokens)
        if row.session is not None:
            sessions.add(row.session)
        if row.hash_ids:
            endless.ask(row.hash_ids)
            for cache in bounded.values():
                cache.ask(row.hash_ids)
    if not stamps:
        return None
    times = np.sort(np.asarray(stamps))
    gaps = np.diff(times)
    duration_s = float(times[-1] - times[0])
    bin_s, counts = _bins(times)
    return TraceSummary(
        requests=len(prompts),
        duration_s=duration_s,
        rate=(len(prompts) - 1) / duration_s if duration_s > 0 else None,
        prompt_tokens=_spread(prompts),
        output_tokens=_spread(outputs),
        gap_cv=float(np.std(gaps) / np.mean(gaps)) if duration_s > 0 else None,
        infinite_cache_hit_share=endless.share if endless.total else None,
        lru_hit_shares={blocks: cache.share for blocks, cache in bounded.items()} if endless.total else None,
        sessions=len(sessions),
        bin_s=bin_s,
        arrivals=counts,
        # The last bin begins where a short trace ends, so that all of them hold more time than the trace has.
        peak_to_mean=max(1.0, max(counts) / (len(prompts) * min(1.0, bin_s / duration_s))) if duration_s > 0 else None,
    )
