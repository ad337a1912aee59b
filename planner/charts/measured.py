"""Simulated against measured, and how far a live run has come."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from planner.charts.style import COLOURS, Chart, Say, plain
from planner.report.words import number, percent
from planner.run.facts import Facts
from planner.run.metrics import METRICS
from planner.run.tables import Run
from planner.validation.parity import Comparison, MetricError


def how_close(simulated: Run, measured: Run, metric: str, say: Say = plain) -> Chart:
    """Parity plot: every request's simulated value against its measured one; on the line they are equal."""
    ours, theirs = Facts(simulated), Facts(measured)
    a = pd.Series(getattr(ours, metric) * 1e3, index=ours.column("request_id"))
    b = pd.Series(getattr(theirs, metric) * 1e3, index=theirs.column("request_id"))
    data = pd.DataFrame({"simulated": a, "measured": b}).dropna().reset_index(names="request")
    top = float(max(data["simulated"].max(), data["measured"].max())) * 1.05 if len(data) else 1.0
    line = alt.Chart(pd.DataFrame({"v": [0.0, top]})).mark_line(color="#808080", strokeDash=[4, 4])
    scale = alt.Scale(domain=[0, top], nice=False)
    titles = {name: f"{metric.upper()} {say(name)}, ms" for name in ("measured", "simulated")}
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=36, opacity=0.6, color=COLOURS["decode" if metric == "tpot" else "prefill"])
        .encode(
            x=alt.X("measured:Q", scale=scale, title=titles["measured"]),
            y=alt.Y("simulated:Q", scale=scale, title=titles["simulated"]),
            tooltip=[
                alt.Tooltip("request:N", title=say("Request")),
                *(alt.Tooltip(f"{name}:Q", format=".4g", title=title) for name, title in titles.items()),
            ],
        )
    )
    return alt.layer(line.encode(x="v:Q", y="v:Q"), points).properties(height=320, title=metric.upper())


def name_of(error: MetricError, say: Say = plain) -> str:
    """TTFT p50; of throughput what is counted, and of attainment the share."""
    if error.metric == "attainment":
        return say(METRICS["attainment"].label)
    if error.metric != "throughput":
        return say(f"{error.metric.upper()} {error.statistic}")
    return say("requests/s") if error.statistic == "requests" else say("output tokens/s")


def valued(error: MetricError, value: float) -> str:
    """A predicted or measured value of it with its unit, which `name_of` has of throughput."""
    if error.metric == "attainment":
        return percent(value)
    return number(value) if error.metric == "throughput" else f"{number(value)} ms"


def how_far_off(comparison: Comparison, say: Say = plain) -> Chart:
    """Error of every statistic with its interval; zero is right."""
    table = pd.DataFrame(
        [
            {"what": name_of(e, say),
             "error": 100 * e.error, "low": None if e.low is None else 100 * e.low,
             "high": None if e.high is None else 100 * e.high}
            for e in comparison.errors
        ]
    )  # fmt: skip
    y = alt.Y("what:N", sort=table["what"].tolist(), title=None, axis=alt.Axis(labelBound=False, labelOverlap=False))
    title = say("Predicted against measured, %")
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color="#808080").encode(x="x:Q")
    known = table.dropna(subset=["low", "high"])
    ranges = alt.Chart(known).mark_rule(color=COLOURS["disaggregated"], size=3).encode(y=y, x="low:Q", x2="high:Q")
    points = (
        alt.Chart(table)
        .mark_point(filled=True, size=70, color=COLOURS["decode"])
        .encode(
            y=y, x=alt.X("error:Q", title=title),
            tooltip=[alt.Tooltip("what:N", title=" "), alt.Tooltip("error:Q", format="+.1f", title=title)],
        )
    )  # fmt: skip
    return alt.layer(zero, ranges, points).properties(height=alt.Step(20))


def how_many_done(expected: pd.DataFrame, sofar: pd.DataFrame, say: Say = plain) -> Chart:
    """Requests finished over time: simulated as a dashed line, measured as filled points. Columns time_s, share."""
    x = alt.X("time_s:Q", title=say("Time since the first request, s"))
    y = alt.Y("share:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]), title=say("Requests finished"))
    line = alt.Chart(expected).mark_line(strokeDash=[6, 4], color="#808080").encode(x=x, y=y)
    points = alt.Chart(sofar).mark_line(point=alt.OverlayMarkDef(filled=True, size=60), color=COLOURS["decode"])
    return alt.layer(line, points.encode(x=x, y=y)).properties(height=240)


def done_table(run: Run) -> pd.DataFrame:
    """Share of the requests finished by a time, at most 100 rows."""
    times = np.sort(run.requests["finish_s"].to_numpy(np.float64)) - float(run.requests["arrival_s"].min())
    times = times[~np.isnan(times)]
    if not len(times):
        return pd.DataFrame({"time_s": [0.0], "share": [0.0]})
    at = np.unique(np.linspace(0, len(times) - 1, 100).astype(int))
    return pd.DataFrame({"time_s": times[at], "share": (at + 1) / len(run.requests)})
