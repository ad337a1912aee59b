"""The steps of an engine as rows of a run's table."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.sequence import Plan

# start_s, duration_s, prefill_tokens, decode_seqs, context_tokens, count, growth_s, running, waiting, kv_used_fraction
STEP_ROW: Final = 10


class StepRows:
    """A row for each step, or run of equal steps; columns as at STEP_ROW."""

    __slots__ = ("_kv_blocks", "_numbers")

    def __init__(self, kv_blocks: int) -> None:
        self._kv_blocks = kv_blocks
        self._numbers = array("d")

    @property
    def table(self) -> NDArray[np.float64]:
        """Asked for once no more are added: it holds on to them."""
        return np.asarray(self._numbers).reshape(-1, STEP_ROW)

    def add(self, plan: Plan, free_s: float) -> None:
        """A row for the plan; the last step of a run by itself where its end is seen late, as behind a launch.

        `free_s` is when the GPU was done with it.
        """
        start, count, context = plan.start, plan.count, plan.context
        used = plan.used / self._kv_blocks
        if count > 1 and plan.end > free_s:
            last = plan.boundary(count - 1)
            self._numbers.extend(
                (start, last - start, plan.tokens, plan.batch, context, count - 1,
                 plan.growth, plan.running, plan.waiting, used)
            )  # fmt: skip
            start, count, context = last, 1, context + plan.batch * (count - 1)
        self._numbers.extend(
            (start, plan.end - start, plan.tokens, plan.batch, context, count,
             plan.growth, plan.running, plan.waiting, used)
        )  # fmt: skip
