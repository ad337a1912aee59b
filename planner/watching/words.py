"""A line of a watch in words."""

from __future__ import annotations

import math

from planner.messages import joined, message
from planner.report.words import number, percent
from planner.watching.predict import METRICS
from planner.watching.watch import Judged, Line, State, clock, coverage

IN_MS = ("ttft", "tpot", "e2e")


def line_text(line: Line, state: State) -> str:
    """10:31:00 2.1 req/s 256+32 tok | TTFT 31 ms (27 to 36) saw 30 | ... | 96 of 100 inside."""
    one = line.observed
    lengths = f"{number(one.prompts.mean)}+{number(one.outputs.mean)} tok"
    parts = [f"{clock(one.end_s)} {number(one.rate)} req/s {lengths}"]
    parts += [_judged(judged) for judged in line.judged if judged.metric in ("ttft", "tpot")]
    share, judged = coverage(state), sum(count for _, count in state.covered.values())
    parts.append("learning" if share is None else f"{percent(share)} of {judged} inside")
    return " | ".join(parts)


def _judged(one: Judged) -> str:
    scale = 1e3 if one.metric in IN_MS else 1.0
    name = METRICS[one.metric]
    if not math.isfinite(one.measured):
        return f"{name} -"
    said = number(one.predicted * scale)
    if one.low is not None and one.high is not None:
        said += f" ({number(one.low * scale)} to {number(one.high * scale)})"
    mark = {True: "", False: "!", None: ""}[one.inside]
    return f"{name} {said}, saw {number(one.measured * scale)}{mark}{' ms' if one.metric in IN_MS else ''}"


def closing(state: State) -> str:
    """How often the intervals held what was measured, over the whole watch."""
    share = coverage(state)
    if share is None:
        return message(
            "Nothing judged yet: {count} intervals seen, 9 are needed after the first fit.", len(state.window)
        )
    each = joined(
        ", ",
        [
            message("{metric} {inside}/{count}", METRICS[name], inside, count)
            for name, (inside, count) in state.covered.items()
        ],
    )
    return message(
        "The 90 % intervals held {share} of what was measured ({each}); refitted {count} times.",
        percent(share),
        each,
        state.refits,
    )
