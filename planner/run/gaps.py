"""Inter-token gaps, pooled over requests (ITL): exact statistics without a list of every token.

A row of steps stands for `count` gaps lengths first + i * growth (growth >= 0), each seen by `weight` sequences,
so 2.5 million gaps are a few ten thousand rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_EXPAND = 20_000  # progressions are written out once no more than this many of their values are left in the bracket


def _dot(a: Array, b: Array) -> float:
    """Without BLAS, whose threads cost more than they save on arrays of this size when the cores are busy."""
    return float((a * b).sum())


@dataclass(frozen=True)
class Gaps:
    """Arithmetic progressions of gap lengths in seconds; the four arrays have equal length."""

    first: Array
    growth: Array
    count: Array
    weight: Array

    @cached_property
    def total(self) -> float:
        return _dot(self.count, self.weight)

    def mean(self) -> float:
        """Mean gap in seconds. nan when there is none."""
        c, f, g = self.count, self.first, self.growth
        return _dot(self.weight, c * f + g * c * (c - 1) / 2) / self.total if self.total else float("nan")

    def std(self) -> float:
        """Population standard deviation in seconds; deviations from the mean are summed in closed form."""
        if not self.total:
            return float("nan")
        c, g = self.count, self.growth
        f = self.first - self.mean()
        squares = c * f * f + f * g * c * (c - 1) + g * g * (c - 1) * c * (2 * c - 1) / 6
        return float(np.sqrt(_dot(self.weight, squares) / self.total))

    def maximum(self) -> float:
        return float(np.max(self.first + (self.count - 1) * self.growth)) if self.total else float("nan")

    def percentiles(self, percents: Sequence[float]) -> list[float]:
        """numpy's linear percentiles of the list in which every gap stands `weight` times."""
        if not self.total:
            return [float("nan")] * len(percents)
        found = []
        for percent in percents:
            position = percent / 100 * (self.total - 1)
            low = int(np.floor(position))
            lower, upper = self._order_statistics(low)
            found.append(lower + (position - low) * (upper - lower))
        return found

    def _order_statistics(self, rank: int) -> tuple[float, float]:
        """The values at `rank` and `rank` + 1 (from 0) of the sorted list; the last one twice at its end.

        Halves the bracket that holds both, dropping the progressions outside it, until the rest can be sorted.
        """
        rows = self
        below = 0.0  # gaps that were dropped because they are shorter than the bracket
        following = min(rank + 1, int(self.total) - 1)
        while rows.count.sum() > _EXPAND:
            middle = float(np.median(rows.first + (rows.count - 1) * rows.growth / 2))
            less, less_or_equal = rows._steps_below(middle)
            shorter = below + _dot(less, rows.weight)
            not_longer = below + _dot(less_or_equal, rows.weight)
            if following < shorter:
                rows = rows._part(np.zeros_like(less), less)
            elif rank >= not_longer:
                rows, below = rows._part(less_or_equal, rows.count), not_longer
            else:  # the middle is one of the two values, or lies between them
                short, long = rows._part(np.zeros_like(less), less), rows._part(less_or_equal, rows.count)
                lower = middle if rank >= shorter else short.maximum()
                upper = middle if following < not_longer else float(np.min(long.first))
                return lower, upper
        repeats = rows.count.astype(np.int64)
        row = np.repeat(np.arange(len(repeats)), repeats)
        step = np.arange(len(row)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        values = rows.first[row] + step * rows.growth[row]
        order = np.argsort(values, kind="stable")
        reached = below + np.cumsum(rows.weight[row][order])
        lower, upper = values[order][np.searchsorted(reached, [rank, following], side="right")]
        return float(lower), float(upper)

    def _steps_below(self, value: float) -> tuple[Array, Array]:
        """How many steps of each progression are shorter than `value`, and how many are no longer than it."""
        grows = self.growth > 0
        place = (value - self.first) / np.where(grows, self.growth, 1.0)
        less = np.where(grows, np.ceil(place), np.where(self.first < value, self.count, 0))
        less_or_equal = np.where(grows, np.floor(place) + 1, np.where(self.first <= value, self.count, 0))
        return np.clip(less, 0, self.count), np.clip(less_or_equal, 0, self.count)

    def _part(self, start: Array, stop: Array) -> Gaps:
        """Steps start to stop (not included) of each progression."""
        keep = stop > start
        first = self.first + start * self.growth
        return Gaps(first[keep], self.growth[keep], (stop - start)[keep], self.weight[keep])


def of_steps(duration: Array, growth: Array, count: Array, decode_seqs: Array) -> Gaps:
    """Gaps of engine steps: every decoding sequence waits one step for its next token."""
    return _of_rows(duration, growth, count, decode_seqs, (decode_seqs > 0) & (count > 0))


def of_answers(
    duration: Array, growth: Array, count: Array, decode_seqs: Array, step: npt.NDArray[np.int64], more: Array
) -> Gaps:
    """The same as a client sees them: before the tokens of `step` it waits `more` seconds.

    Steps are numbered through all rows; each stands once, in order.
    """
    rows = (decode_seqs > 0) & (count > 0)
    whole = _of_rows(duration, growth, np.maximum(count, 1), decode_seqs, np.ones_like(rows))
    begin = np.cumsum(count) - count
    row = np.searchsorted(begin, step, side="right") - 1
    alone = np.maximum(whole.first[row] + (step - begin[row]) * whole.growth[row] + more, 0.0)
    start, stop = (np.sort(np.concatenate(ends)) for ends in ((begin, step + 1.0), (begin + count, step)))
    start, stop = start[stop > start], stop[stop > start]
    of = np.searchsorted(begin, start, side="right") - 1
    first = whole.first[of] + (start - begin[of]) * whole.growth[of]
    parts = Gaps(first, whole.growth[of], stop - start, whole.weight[of]), _single(alone, whole.weight[row])
    seen = rows[of], rows[row]
    return Gaps(
        *(
            np.concatenate([getattr(part, name.name)[kept] for part, kept in zip(parts, seen, strict=True)])
            for name in fields(Gaps)
        )
    )


def _of_rows(duration: Array, growth: Array, count: Array, decode_seqs: Array, rows: npt.NDArray[np.bool_]) -> Gaps:
    c, g = count[rows], growth[rows]
    return Gaps(first=duration[rows] / c - g * (c - 1) / 2, growth=g, count=c, weight=decode_seqs[rows])


def _single(lengths: Array, weight: Array) -> Gaps:
    return Gaps(lengths, np.zeros(len(lengths)), np.ones(len(lengths)), weight)


def of_tokens(request_ids: npt.NDArray[np.int64], index: npt.NDArray[np.int64], time_s: Array) -> Gaps:
    """Gaps between the streamed tokens of each request, as the client saw them."""
    order = np.lexsort((index, request_ids))
    ids, times = request_ids[order], time_s[order]
    gaps = np.diff(times)[ids[1:] == ids[:-1]]
    ones = np.ones(len(gaps))
    return Gaps(first=gaps, growth=np.zeros(len(gaps)), count=ones, weight=ones)
