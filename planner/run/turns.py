"""Sessions as their own clock: turns are sent only once answers have come, so slow answers also slow the sending.

What a run of sessions sends is therefore no measure of what is asked of it. Two things are: how often sessions begin,
which no answer changes, times the turns of each; and when each turn would have been sent had answers kept their pace.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LATE = 1 / 4  # of the time in which sessions begin, its end: whatever settles has settled by then
REACHED = 0.75  # of the rate that is asked: from here on it was sent
HELD = 0.1  # share of the turns of that time that slow answers must have put off
MORE, SAME = 1.3, 1.05  # times as many under way, who end at no higher rate: a deployment that gives all it has
FEWEST = 5.0  # turns: fewer are put off by chance
QUICK = 5  # percentile of the answers' times for a token that is their pace where nothing holds them up


class Turns(NamedTuple):
    """A run of sessions. `asked_per_s` is turns a second, while sessions begin."""

    begun_s: Array  # when each session began, in order
    asked_per_s: float
    reached: bool  # about as many were sent at the end of the time in which sessions begin
    held_back: bool  # fewer are sent then than would be if answers had kept their pace
    settled: bool  # sessions lasted at most half of the time in which they began
    full: bool  # many more were under way in its last third than in the one before, and no more ended

    @classmethod
    def of(
        cls, session: npt.NDArray[np.int64], sent: Array, finish: Array, tokens: Array, start_share: float
    ) -> Turns | None:
        """None: sessions did not begin one after another. `start_share` of the time in which they began is cut off."""
        order = np.lexsort((sent, session))
        session, sent, finish, tokens = session[order], sent[order], finish[order], tokens[order]
        first = np.flatnonzero(np.r_[True, session[1:] != session[:-1]]) if len(session) else np.array([], int)
        begun = np.sort(sent[first])
        if len(begun) < 2 or not begun[-1] > begun[0]:
            return None
        took = np.nan_to_num(finish - sent)
        pace = np.percentile((took / np.maximum(tokens, 1))[took > 0], QUICK) if (took > 0).any() else 0.0
        saved = took - np.minimum(took, pace * np.maximum(tokens, 1))
        before = np.cumsum(saved) - saved  # of all earlier rows; less that of earlier sessions:
        sizes = np.diff(np.r_[first, len(session)])
        due = sent - (before - np.repeat(before[first], sizes))
        whole = begun[-1] - begun[0]
        asked = (len(begun) - 1) / whole * len(session) / len(begun)
        length = (1 - start_share) * whole * LATE
        late = begun[-1] - length
        real, quick = (int(((times >= late) & (times <= begun[-1])).sum()) for times in (sent, due))
        lasted = np.fmax.reduceat(np.fmax(finish, sent), first) - sent[first]
        return cls(
            begun,
            float(asked),
            bool(real / length >= REACHED * asked),
            bool(quick - real > max(HELD * quick, FEWEST)),
            bool(lasted.mean() <= whole / 2),
            _full(sent, finish, begun[-1] - 2 * whole / 3, whole / 3),
        )


def _full(sent: Array, finish: Array, start_s: float, length_s: float) -> bool:
    """Whether twice as long as `length_s` from `start_s` on many more got under way, but no more ended."""
    ended, under_way = [], []
    for low in (start_s, start_s + length_s):
        high = low + length_s
        ended.append(int(((finish > low) & (finish <= high)).sum()))
        inside = np.minimum(np.nan_to_num(finish, nan=np.inf), high) - np.maximum(sent, low)
        under_way.append(float(np.maximum(inside, 0.0).sum()))
    return ended[1] <= SAME * ended[0] and under_way[1] >= MORE * under_way[0]
