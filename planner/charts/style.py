"""Colours, names and the lines that several charts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import pandas as pd

Say = Callable[[str], str]

Chart = Any  # Altair's classes are many, and all of them are placed alike

COLOURS = {
    "prefill": "#E69F00",
    "decode": "#1F7FC4",
    "transfer": "#CC79A7",
    "aggregated": "#009E73",
    "disaggregated": "#56B4E9",
}

STAGE_COLOURS = {
    "host": "#999999",
    "retrieval": "#8C6D31",
    "queue": "#BBBBBB",
    "prefill": COLOURS["prefill"],
    "transfer": COLOURS["transfer"],
    "decode_wait": "#88B7D5",
    "first_decode": COLOURS["decode"],
    "unobserved": "#DDDDDD",
}

TARGET = "#D55E00"

HOLLOW = 0.15

MODES = ("aggregated", "disaggregated")

NAMES = {
    "aggregated": "Aggregated",
    "disaggregated": "P/D",
    "prefill": "Prefill",
    "decode": "Decode",
    "transfer": "Transfer",
    "host": "Host",
    "retrieval": "Retrieval",
    "queue": "Queue",
    "decode_wait": "Wait for decode",
    "first_decode": "First decode",
    "unobserved": "Not told apart",
}


def plain(text: str) -> str:
    return text


def scale_of(names: Sequence[str], say: Say, colours: dict[str, str] = COLOURS) -> alt.Scale:
    return alt.Scale(domain=[say(NAMES[name]) for name in names], range=[colours[name] for name in names])


def rule_at(frame: dict[str, list[Any]], title: str, **where: Any) -> Chart:
    """A line across the chart for a target or the user's traffic."""
    data = pd.DataFrame({**frame, "what": [title]})
    return (
        alt.Chart(data)
        .mark_rule(color=TARGET, strokeDash=[6, 4], size=2)
        .encode(tooltip=[alt.Tooltip("what:N", title=" ")], **where)
    )
