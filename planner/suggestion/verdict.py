"""Is disaggregation worth it? The best split against the best aggregated deployment, with an interval and a margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.engine.provenance import comparable
from planner.engine.tp_scaling import SCALED, is_scaled
from planner.messages import message
from planner.report.words import percent
from planner.suggestion.edge import Edge, interval
from planner.system.resolve import System

Word = Literal["worth it", "not worth it", "too close to call", "not known yet"]
WORDS: dict[str, str] = {
    "worth it": message("worth it"),
    "not worth it": message("not worth it"),
    "too close to call": message("too close to call"),
    "not known yet": message("not known yet"),
}

UNCALIBRATED = 0.10  # least error taken for a roofline's ratio of two deployments; more where public rows show it
# What ratios of highest rates were off by where both modes were served (docs/validation.md): chat 6 %, agents up to 5,
# long writing 5 or more, sessions that share 4,000 tokens some 5. How sure step times are says less.
SERVED = 0.05
UNMEASURED = 0.25  # more error where hand-overs were not measured: the least that predictions without them were off by


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much more P/D does than aggregated, as a share (0.12: 12 % more), with its interval."""

    value: float
    low: float
    high: float

    def text(self) -> str:
        """12 % (9 to 15 %) more"""
        value, low, high = _short(abs(self.value)), _short(self.low), _short(self.high)
        if self.value >= 0:
            return message("{value} % ({low} to {high} %) more", value, low, high)
        low, high = _short(-self.high), _short(-self.low)
        return message("{value} % ({low} to {high} %) less", value, low, high)


def _short(share: float) -> str:
    value = share * 100
    text = f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"
    return "0" if text == "-0.0" else text.removesuffix(".0")


def advantage(ours: Edge, theirs: Edge, seed: int = 0) -> Advantage:
    """The ratio of two highest rates less 1, with its interval. Raises ValueError for unequal runs."""
    value, low, high = interval([ours, theirs], seed)
    return Advantage(value - 1, low - 1, high - 1)


def profile_error(systems: Sequence[System]) -> float:
    """How far the step times may be off, as a share: the fit's own residuals, more where a profile was stretched."""
    worst = 0.0
    for system in systems:
        for pool in system.pools:
            file = pool.profile.file
            if file is None or pool.profile.provenance != "calibrated" or file.fit is None:
                found = comparable(pool.profile)
                error = max(UNCALIBRATED, found.tpot.mean) if found else UNCALIBRATED
            else:
                error = UNCALIBRATED if file.fit_error is None else file.fit_error
                if is_scaled(file):
                    error = float(np.hypot(error, SCALED))
            worst = max(worst, error)
    return worst


def rate_error(systems: Sequence[System]) -> float:
    """How far the ratio of two highest rates may be off, as a share: step times, and all else that was seen."""
    return float(np.hypot(profile_error(systems), SERVED))


def unmeasured(system: System) -> str | None:
    """What about the hand-overs of a deployment nobody has measured; None: nothing, or there are none.

    On a CPU the engines copy KV themselves, which a calibrated pair's link holds.
    """
    if system.wires is None or system.pools[0].hardware.kind == "cpu":
        return None
    hand, wire = system.wires.hand_over, system.wires.intra_node
    if not hand.post_s:
        return message("what a hand-over over {link} costs the workers", wire.name)
    if hand.cross_layer_blocks:
        return message("hand-overs of cross-layer blocks")
    tps = sorted({pool.setup.tp for pool in system.pools})
    if hand.measured_tp is not None and tps != [hand.measured_tp]:
        return message("hand-overs at TP {sizes} (measured: {measured})", ", ".join(map(str, tps)), hand.measured_tp)
    sizes = sorted({pool.limits.block_size for pool in system.pools})
    if hand.measured_block_sizes and (len(sizes) > 1 or sizes[0] not in hand.measured_block_sizes):
        asked, known = (", ".join(map(str, one)) for one in (sizes, hand.measured_block_sizes))
        return message("hand-overs of block_size {sizes} (measured: {measured})", asked, known)
    return None


def decide(found: Advantage, margin: float, error: float, unknown: bool = False) -> Word:
    """The whole interval must lie beyond the margin and what rates may be off by.

    `unknown`: hand-overs were not measured. They can only cost more than is assumed, so it is "worth it" that needs
    UNMEASURED more, and is not known yet without.
    """
    if found.low > margin + error:
        return "not known yet" if unknown and found.low <= margin + error + UNMEASURED else "worth it"
    if found.high < margin - error:
        return "not worth it"
    return "too close to call"


def margin_text(margin: float, error: float) -> str:
    """What the whole interval is held against."""
    above, below = percent(margin + error), percent(margin - error)
    return message(
        "Worth it: the whole interval is above {above}; not worth it: below {below}. That is a margin of {margin} "
        "(run.margin), give or take the {error} that rates may be off by.",
        above,
        below,
        percent(margin),
        percent(error),
    )
