"""What it takes to post the pieces of a hand-over, to move them, and to see that they are there."""

from __future__ import annotations

from planner.system.hand_over import SEEN_S, SPLIT, HandOver, move_work, post_work


class Posts:
    """Those of one link, a block of KV in `block_pieces` pieces. `cost`: posting takes any time at all."""

    __slots__ = ("_beside", "_block_pieces", "_hand_over", "_work", "cost")

    def __init__(self, hand_over: HandOver, block_pieces: int) -> None:
        self._hand_over = hand_over
        self._block_pieces = block_pieces
        self._beside = 1.0 if hand_over.push else hand_over.pull_beside
        self._work: dict[int, tuple[float, float, float, float, float]] = {}  # of transfers, by their blocks
        self.cost = hand_over.post_s > 0.0 and block_pieces > 0

    def seconds(self, blocks: int, begin_s: float, busy_until_s: float, behind: bool) -> tuple[float, float, float]:
        """What `simulator.sequence.Posting` says: with pull slower while who has the KV is busy."""
        work_s, first, later, moving, seen_s = self._of(blocks)
        if self._beside > 1.0:
            beside_s = min(max(busy_until_s - begin_s, 0.0), work_s * self._beside)
            work_s += beside_s - beside_s / self._beside
        return work_s * (later if behind else first), work_s * moving, seen_s

    def _of(self, blocks: int) -> tuple[float, float, float, float, float]:
        """Of a transfer of so many blocks: seconds for its pieces, each as one of many; how many times as long they
        take to post, the same behind others, and to move; seconds until it is seen to be over.
        """
        known = self._work.get(blocks)
        if known is None:
            pieces = max(self._block_pieces * blocks, 1)
            times = [post_work(pieces, behind, self._hand_over.alone) / pieces for behind in (False, True)]
            seen_s = SEEN_S if pieces >= SPLIT else 0.0
            known = (self._hand_over.post_s * pieces, times[0], times[1], move_work(pieces) / pieces, seen_s)
            self._work[blocks] = known
        return known
