"""How a GPU slows down while it computes prompts, and recovers when it rests.

Prompts draw all the power that a GPU may take. One that has rested clocks high until the average has caught up, so that
a prompt behind another one takes longer than the same prompt on an idle GPU. (Clocks of an H200, every 20 ms beside
prompts: 1,980 MHz, 1,870 in their first 20 ms, 1,580 after 120, for the power cap; 1,940 after a rest of 50 ms.)
Warmth goes from 0, rested, to 1 while steps with prompts run, and back when there are none; such a step takes
1 + (warm_slowing - 1) * warmth times as long, but for what decodes beside its prompts take.

Both times are, and an H200's slowing was, from 499 steps of prompts of one prefill worker under three loads (six runs);
seven other servers' steps (KV blocks of 16, 64 and 128, pull and push, a model four times as large) agree with them.
Until then it was taken for what KV that is read from the GPU costs, which comes at the same moment: it is there without
any transfer, and gone 50 ms after a prompt however long a transfer lasts.
Steps of few tokens do not fill the GPU and draw less: see `heat`.
"""

from __future__ import annotations

from math import exp
from typing import Final

RISES_S: Final = 0.07
FALLS_S: Final = 0.03
COOL, HOT = 512, 1024  # prompt tokens of a step that draws less power than a GPU may take, and of one that wants more


def heat(tokens: float) -> float:
    """How far a step of so many prompt tokens warms the GPU: 0 to 1.

    On an H200 chunks of 512 tokens one behind another took what a rested one takes, chunks of 1,024 a tenth longer.
    """
    return min(max((tokens - COOL) / (HOT - COOL), 0.0), 1.0)


def mean(warmth: float, seconds: float) -> float:
    """Of the `seconds` that a step with prompts takes which finds it at `warmth`."""
    return 1.0 - (1.0 - warmth) * (1.0 - exp(-seconds / RISES_S)) * RISES_S / seconds if seconds > 0.0 else warmth


def risen(warmth: float, seconds: float) -> float:
    """After such a step."""
    return 1.0 - (1.0 - warmth) * exp(-seconds / RISES_S)


def fallen(warmth: float, seconds: float) -> float:
    """After so long without prompts."""
    return warmth * exp(-seconds / FALLS_S)


def after(warmth: float, seconds: float, heat: float) -> float:
    """After a step of that `heat`."""
    return heat * risen(warmth, seconds) + (1.0 - heat) * fallen(warmth, seconds)


class Warmth:
    """Of one GPU. Steps are told in the order in which they begin."""

    __slots__ = ("_more", "_value", "_when")

    def __init__(self, slowing: float) -> None:
        self._more = slowing - 1.0
        self._value = 0.0
        self._when = 0.0  # the end of the latest step with prompts

    def seconds(self, rested_s: float, begin: float, tokens: float, decodes_s: float = 0.0) -> float:
        """How long a step of `tokens` of prompts takes that begins at `begin`, and takes `rested_s` on a rested GPU.

        `decodes_s` of these are its decodes', which wait for memory: clocks change nothing there.
        """
        share = heat(tokens)
        warmth = fallen(self._value, max(0.0, begin - self._when))
        slower_s = self._more * share * (rested_s - decodes_s)
        about_s = rested_s + slower_s * mean(warmth, rested_s)
        taken_s = rested_s + slower_s * mean(warmth, about_s)
        self._value, self._when = after(warmth, taken_s, share), begin + taken_s
        return taken_s
