"""Ranks of one server that take every step together, because their tokens share the experts of a mixture.

Each rank schedules its own requests. A step of the group begins when the one before it has ended for all; ranks without
work take part with dummy tokens while any other has some, and the step ends for all when the slowest is done
(`AffineStep.together`). A request that comes to a rank without work waits for the group's running step to end, and for
the step after it where that goes on: engines that schedule ahead have launched its dummies by then, as a busy rank has
its next step. Ranks take every step by itself; what the host takes to launch one bounds the step (vLLM 0.32:
DPEngineCoreProc, which goes on with up to 16 dummy steps when no rank has work any more: here a request that comes
meanwhile does not wait).
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from planner.engine.step_time import AffineStep, Share
from simulator.clock import NEVER
from simulator.worker import Outcome, Worker


class Lockstep:
    """The clock of a group of ranks; the cluster wakes it instead of each of them."""

    __slots__ = ("_put_off", "_ranks", "_step", "end_s", "wake_s")

    def __init__(self, ranks: Items[Worker], step: AffineStep) -> None:
        self._ranks = ranks
        self._step = step
        self.end_s = -NEVER  # of the running step, or of the latest
        self.wake_s = NEVER  # when the cluster wakes it
        self._put_off: list[Worker] = []  # ranks whose requests wait for the running step, whose dummies were launched

    def next_event_s(self) -> float:
        return min(rank.next_event_s() for rank in self._ranks)

    def advance(self, now: float) -> list[list[Outcome]]:
        """What every rank has to tell of steps that end by `now`; the next step of all of them begins."""
        ranks = self._ranks
        idle = [rank for rank in ranks if not rank.in_step]
        outcomes = [rank.advance(now) if rank.in_step else [] for rank in ranks]
        put_off: list[Worker] = []
        if idle and now == self.end_s and any(rank.awaits_others for rank in ranks):
            due = [rank for rank in idle if rank.launches_ahead and rank.next_event_s() <= now]
            put_off = [rank for rank in due if rank not in self._put_off]
        for index, rank in enumerate(ranks):
            if rank in idle and rank not in put_off:
                outcomes[index] = rank.advance(now)
        if any(rank.awaits_others for rank in ranks):
            self._put_off = put_off
            self._begin(now)
        return outcomes

    def _begin(self, now: float) -> None:
        ranks = self._ranks
        shares = [rank.share() for rank in ranks]
        seconds = self._step.together([Share(*share) for share in shares], idle=now > self.end_s)
        pace = max(rank.pace for rank in ranks)
        self.end_s = now + pace * seconds + max(rank.beside_s for rank in ranks)
        for rank in ranks:
            rank.end_with_others(self.end_s)
