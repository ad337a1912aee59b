"""How latency grows, which ratio, where time goes and when workers are busy."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from planner.charts.style import COLOURS, NAMES, STAGE_COLOURS, Chart, Say, plain, rule_at, scale_of
from planner.report.explain import waterfall
from planner.run.facts import STAGES
from planner.run.metrics import Summary
from planner.run.tables import Run
from planner.spec import Slo

PERCENTILES = ("p50", "p90", "p99")

DASHES = {"p50": [1, 0], "p90": [6, 3], "p99": [2, 2]}


def how_latency_grows(
    curves: dict[str, tuple[str, pd.DataFrame]], metric: str, slo: Slo, rate: float | None, say: Say = plain
) -> Chart:
    """Percentiles of `ttft` or `tpot` against the rate. `curves`: name -> (mode, table of `curves`)."""
    rows = [
        {"rate": row["rate"], "value": row[f"{metric}_{point}_ms"], "point": point, "name": name, "mode": mode}
        for name, (mode, table) in curves.items()
        for row in table.to_dict("records")
        for point in PERCENTILES
    ]
    data = pd.DataFrame(rows).dropna(subset=["value"])
    names = list(curves)
    colours = [COLOURS[curves[name][0]] for name in names]
    limit = slo.ttft_ms if metric == "ttft" else slo.tpot_ms
    top = None if limit is None else max(2.2 * limit, float(data["value"].quantile(0.5)))
    scale = alt.Scale(domain=[0, top], clamp=True) if top else alt.Scale()
    x = alt.X("rate:Q", title=say("Rate, requests/s"), axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", title=f"{metric.upper()}, ms", scale=scale)
    top_legend = alt.Legend(title=None, orient="top")
    colour = alt.Color("name:N", scale=alt.Scale(domain=names, range=colours), legend=top_legend)
    dash = alt.Scale(domain=list(DASHES), range=list(DASHES.values()))
    tooltip: list[Any] = ["name", "point", alt.Tooltip("rate:Q", format=".3g"), alt.Tooltip("value:Q", format=".4g")]
    base = alt.Chart(data).encode(x=x, y=y, color=colour, tooltip=tooltip)
    lines = base.mark_line(clip=True).encode(
        strokeDash=alt.StrokeDash("point:N", scale=dash, legend=alt.Legend(title=None, orient="bottom"))
    )
    points = base.mark_point(filled=False, size=22, clip=True)
    layers = [lines, points]
    if limit is not None:
        layers.append(rule_at({"y": [limit]}, say("Target"), y="y:Q"))
    if rate is not None:
        user = pd.DataFrame({"x": [rate], "what": [say("Your traffic")]})
        layers.append(alt.Chart(user).mark_rule(color="#808080", size=2).encode(x="x:Q", tooltip=["what"]))
    return alt.layer(*layers).properties(height=360)


def which_ratio(table: pd.DataFrame, per_gpu: bool, say: Say = plain) -> Chart:
    """P x D heat map: the highest rate within the targets of every xPyD."""
    value = "per_gpu" if per_gpu else "rate"
    title = say("requests/s per GPU") if per_gpu else say("requests/s")
    x = alt.X("prefill:O", title=say("Prefill workers"), axis=alt.Axis(labelAngle=0))
    y = alt.Y("decode:O", title=say("Decode workers"), sort="descending")
    tooltip: list[Any] = [
        "name",
        alt.Tooltip("rate:Q", format=".3g", title=say("requests/s")),
        alt.Tooltip("per_gpu:Q", format=".3g", title=say("requests/s per GPU")),
    ]
    top = float(table[value].max()) or 1.0
    cells = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=x, y=y, color=alt.Color(f"{value}:Q", scale=alt.Scale(scheme="viridis"), title=title), tooltip=tooltip
        )
    )
    ink = alt.condition(alt.datum[value] > 0.6 * top, alt.value("black"), alt.value("white"))
    text = alt.Chart(table).mark_text().encode(x=x, y=y, text=alt.Text(f"{value}:Q", format=".2~s"), color=ink)
    return alt.layer(cells, text).properties(height=360)


def where_time_goes(summaries: dict[str, Summary], say: Say = plain) -> Chart:
    """TTFT waterfall: mean time in each stage, one bar a deployment (measured filled, simulated hollow)."""
    rows = []
    for name, summary in summaries.items():
        at = 0.0
        for stage, mean, share in waterfall(summary):
            rows.append(
                {
                    "deployment": name, "stage": say(NAMES[stage]), "start": at, "end": at + mean, "ms": mean,
                    "share": share, "fill": 1.0 if summary.provenance == "measured" else 0.45,
                }
            )  # fmt: skip
            at += mean
    used = [stage for stage in STAGES if say(NAMES[stage]) in {row["stage"] for row in rows}]
    scale = scale_of(used, say, STAGE_COLOURS)
    return (
        alt.Chart(pd.DataFrame(rows))
        .mark_bar(strokeWidth=2, height=34)
        .encode(
            y=alt.Y("deployment:N", sort=list(summaries), title=None),
            x=alt.X("start:Q", title=say("Mean time to first token, ms")),
            x2="end:Q",
            color=alt.Color("stage:N", scale=scale, legend=alt.Legend(title=None, orient="top", columns=4)),
            stroke=alt.Stroke("stage:N", scale=scale, legend=None),
            fillOpacity=alt.FillOpacity("fill:Q", scale=None, legend=None),
            tooltip=[
                alt.Tooltip("stage:N", title=say("Stage")),
                alt.Tooltip("ms:Q", format=".3g", title=say("ms")),
                alt.Tooltip("share:Q", format=".1%", title=say("Share")),
            ],
        )
        .properties(height=alt.Step(64))
    )


TIMELINE = {"running": "Requests in the batch", "waiting": "Requests waiting", "kv_used_fraction": "KV cache in use"}

BINS = 160


def timeline_table(run: Run) -> pd.DataFrame:
    """Time bins x workers from the steps: busy share, batch, line and KV occupancy, weighted by time."""
    steps = run.steps
    if not len(steps):
        return _sampled(run)
    end = float((steps["start_s"] + steps["duration_s"]).max())
    width = max(end / BINS, 1e-9)
    middle = steps["start_s"].to_numpy() + 0.5 * steps["duration_s"].to_numpy()
    frame = pd.DataFrame({"worker": steps["worker"].astype(str), "bin": np.minimum(middle // width, BINS - 1)})
    weight = steps["duration_s"].to_numpy(np.float64)
    names = [*TIMELINE]
    for name in names:
        frame[name] = steps[name].to_numpy(np.float64) * weight
    frame["weight"] = weight
    grouped = frame.groupby(["worker", "bin"], as_index=False).sum()
    for name in names:
        grouped[name] /= grouped["weight"]
    grouped["busy"] = np.minimum(grouped["weight"] / width, 1.0)
    grouped["time_s"] = grouped["bin"] * width
    return grouped.drop(columns=["bin", "weight"])


def _sampled(run: Run) -> pd.DataFrame:
    frame = run.samples[["worker", "time_s", *TIMELINE]].copy()
    frame[[*TIMELINE]] = frame[[*TIMELINE]].astype("float64")
    return frame.assign(worker=frame["worker"].astype(str), busy=run.samples["gpu_utilization"].astype("float64"))


def when_busy(run: Run, measure: str, say: Say = plain) -> Chart:
    """Workers over time as a heat map. `measure`: busy, running, waiting or kv_used_fraction."""
    table = timeline_table(run)
    titles = {"busy": say("Busy share"), **{name: say(text) for name, text in TIMELINE.items()}}
    step = float(np.median(np.diff(np.unique(table["time_s"])))) if table["time_s"].nunique() > 1 else 1.0
    table = table.assign(end_s=table["time_s"] + step)
    share = measure in ("busy", "kv_used_fraction")
    scale = alt.Scale(scheme="viridis", domain=[0, 1]) if measure == "busy" else alt.Scale(scheme="viridis")
    return (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("time_s:Q", title=say("Time, s")),
            x2="end_s:Q",
            y=alt.Y("worker:N", title=None, sort=_by_role(table["worker"].unique().tolist())),
            color=alt.Color(
                f"{measure}:Q",
                scale=scale,
                title=None,
                legend=alt.Legend(format="%" if share else "~s", orient="right"),
            ),
            tooltip=["worker", alt.Tooltip("time_s:Q", format=".1f"), alt.Tooltip(f"{measure}:Q", format=".3g")],
        )
        .properties(height=alt.Step(26), title=titles[measure])
    )


def _by_role(names: list[str]) -> list[str]:
    roles = {"prefill": 0, "aggregated": 0, "decode": 1}
    return sorted(names, key=lambda n: (roles.get(n.rsplit("-", 1)[0], 2), len(n), n))
