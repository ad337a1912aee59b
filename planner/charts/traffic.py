"""Traces, spreads of latencies, sweeps and the residuals of a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from planner.charts.style import COLOURS, TARGET, Chart, Say, plain, rule_at
from planner.run.facts import Facts
from planner.run.metrics import METRICS
from planner.run.tables import Run


def how_it_arrives(times: Sequence[float], say: Say = plain) -> Chart:
    """Requests per second of a trace over its time."""
    span = max(times) - min(times) if len(times) else 0.0
    width = max(span / 60, 1e-3)
    counts = np.bincount(((np.asarray(times) - min(times)) // width).astype(int)) / width
    data = pd.DataFrame({"time_s": np.arange(len(counts)) * width, "rate": counts})
    return (
        alt.Chart(data)
        .mark_area(interpolate="step-after", opacity=0.5, line=True, color=COLOURS["disaggregated"])
        .encode(x=alt.X("time_s:Q", title=say("Time, s")), y=alt.Y("rate:Q", title=say("requests/s")))
        .properties(height=200)
    )


def how_long(lengths: Sequence[int], title: str, colour: str, say: Say = plain) -> Chart:
    """Histogram of token counts."""
    counts, edges = np.histogram(lengths, bins=min(40, max(5, len(set(lengths)))))
    data = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "count": counts, "zero": 0})
    return (
        alt.Chart(data)
        .mark_bar(color=COLOURS[colour])
        .encode(
            x=alt.X("from:Q", title=title), x2="to:Q", y=alt.Y("count:Q", title=say("requests")), y2="zero:Q",
            tooltip=[
                alt.Tooltip("from:Q", format=",.0f", title=say("from")),
                alt.Tooltip("to:Q", format=",.0f", title=say("to")),
                alt.Tooltip("count:Q", title=say("requests")),
            ],
        )
        .properties(height=200)
    )  # fmt: skip


def how_latency_spreads(
    runs: Mapping[str, tuple[str, Run]], metric: str, limit: float | None, say: Say = plain
) -> Chart:
    """Share of the requests within a latency, one line a run. `runs`: name -> (mode, run)."""
    rows = []
    for name, (_, run) in runs.items():
        values = np.sort(getattr(Facts(run), metric) * 1e3)
        values = values[~np.isnan(values)]
        at = np.unique(np.linspace(0, len(values) - 1, 120).astype(int)) if len(values) else ()
        rows += [{"name": name, "ms": float(values[i]), "share": (i + 1) / len(values)} for i in at]
    data = pd.DataFrame(rows, columns=["name", "ms", "share"])
    names = list(runs)
    scale = alt.Scale(domain=names, range=[COLOURS[runs[name][0]] for name in names])
    lines = (
        alt.Chart(data)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=alt.X("ms:Q", title=f"{metric.upper()}, ms"),
            y=alt.Y("share:Q", axis=alt.Axis(format="%"), title=say("Share of the requests")),
            color=alt.Color("name:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
            strokeDash=alt.StrokeDash("name:N", sort=names, legend=None),
            tooltip=[
                alt.Tooltip("name:N", title=" "),
                alt.Tooltip("ms:Q", format=".4g", title=f"{metric.upper()}, ms"),
                alt.Tooltip("share:Q", format=".1%", title=say("Share of the requests")),
            ],
        )
    )
    return alt.layer(lines, *([rule_at({"x": [limit]}, say("Target"), x="x:Q")] if limit else [])).properties(
        height=280
    )


def how_it_varies(table: pd.DataFrame, key: str, metric: str, say: Say = plain) -> Chart:
    """A metric over the values of a swept key (planner.suggestion.curves.sweep)."""
    order, shown = table["value"].tolist(), METRICS[metric]
    title, share = say(shown.label), shown.unit == "share"
    if shown.unit not in ("", "share", "price"):
        title = f"{title}, {shown.unit}"
    return (
        alt.Chart(table)
        .mark_line(point=alt.OverlayMarkDef(filled=False, fill="transparent", size=70), color=COLOURS["decode"])
        .encode(
            x=alt.X("value:N", sort=order, title=key, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(f"{metric}:Q", title=title, axis=alt.Axis(format="%") if share else alt.Axis()),
            tooltip=[
                alt.Tooltip("value:N", title=key),
                alt.Tooltip(f"{metric}:Q", title=title, format=".1%" if share else ".4g"),
            ],
        )
        .properties(height=240)
    )  # fmt: skip


def how_well_fitted(residuals: pd.DataFrame, say: Say = plain) -> Chart:
    """Residuals of a profile by kind of step: mean and largest, per cent of the measured time."""
    y = alt.Y("kind:N", title=None, sort=residuals["kind"].tolist())
    title = say("Error of the fit, % of the measured step")
    bars = alt.Chart(residuals).mark_bar(color=COLOURS["decode"], height=16).encode(
        y=y, x=alt.X("mean:Q", title=title),
        tooltip=[
            alt.Tooltip("kind:N", title=" "),
            alt.Tooltip("rows:Q", title=say("Measured steps")),
            alt.Tooltip("mean:Q", format=".3g", title=say("Mean error, %")),
            alt.Tooltip("max:Q", format=".3g", title=say("Largest error, %")),
        ],
    )  # fmt: skip
    ticks = alt.Chart(residuals).mark_tick(color=TARGET, thickness=3, size=22).encode(y=y, x="max:Q")
    return alt.layer(bars, ticks).properties(height=alt.Step(34))
