"""Tables to charts, for the browser and the report alike. A chart is named after the question it answers.

Colours are Okabe and Ito's, which most colour-blind people can tell apart; each stands for one thing everywhere.
Measured is filled, simulated is hollow (or a dashed line). `say` translates what a chart writes.
"""

from __future__ import annotations

from planner.charts.answer import PICKED, split_table, trade_table, what_trade, what_would_change, which_split
from planner.charts.measured import done_table, how_close, how_far_off, how_many_done, name_of, valued
from planner.charts.style import COLOURS, MODES, NAMES, STAGE_COLOURS, Chart, Say
from planner.charts.timeline import followed, spans_table, what_requests_do
from planner.charts.traffic import how_it_arrives, how_it_varies, how_latency_spreads, how_long, how_well_fitted
from planner.charts.watched import how_it_held
from planner.charts.why import (
    TIMELINE,
    how_latency_grows,
    ratio_table,
    timeline_table,
    when_busy,
    where_time_goes,
    which_ratio,
)

__all__ = [
    "COLOURS",
    "MODES",
    "NAMES",
    "PICKED",
    "STAGE_COLOURS",
    "TIMELINE",
    "Chart",
    "Say",
    "done_table",
    "followed",
    "how_close",
    "how_far_off",
    "how_it_arrives",
    "how_it_held",
    "how_it_varies",
    "how_latency_grows",
    "how_latency_spreads",
    "how_long",
    "how_many_done",
    "how_well_fitted",
    "name_of",
    "ratio_table",
    "spans_table",
    "split_table",
    "timeline_table",
    "trade_table",
    "valued",
    "what_requests_do",
    "what_trade",
    "what_would_change",
    "when_busy",
    "where_time_goes",
    "which_ratio",
    "which_split",
]
