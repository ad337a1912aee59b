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
from planner.suggestion.answer import Suggestion, best_of

PERCENTILES = ("p50", "p90", "p99")

DASHES = {"p50": [1, 0], "p90": [6, 3], "p99": [2, 2]}


SECOND = {"aggregated": "prefill", "disaggregated": "transfer"}  # whose colour a second one of a mode has


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
    modes = [mode for mode, _ in curves.values()]
    colours = [COLOURS[mode] if mode not in modes[:at] else COLOURS[SECOND[mode]] for at, mode in enumerate(modes)]
    limit = slo.ttft_ms if metric == "ttft" else slo.tpot_ms
    top = None if limit is None else max(2.2 * limit, float(data["value"].quantile(0.5)))
    scale = alt.Scale(domain=[0, top], clamp=True) if top else alt.Scale()
    rates, values = say("Rate, requests/s"), f"{metric.upper()}, ms"
    x = alt.X("rate:Q", title=rates, axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", title=values, scale=scale)
    top_legend = alt.Legend(title=None, orient="top")
    colour = alt.Color("name:N", scale=alt.Scale(domain=names, range=colours), legend=top_legend)
    dash = alt.Scale(domain=list(DASHES), range=list(DASHES.values()))
    tooltip: list[Any] = [
        alt.Tooltip("name:N", title=" "),
        alt.Tooltip("point:N", title=" "),
        alt.Tooltip("rate:Q", format=".3g", title=rates),
        alt.Tooltip("value:Q", format=".4g", title=values),
    ]
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
        layers.append(
            alt.Chart(user)
            .mark_rule(color="#808080", size=2)
            .encode(x="x:Q", tooltip=[alt.Tooltip("what:N", title=" ")])
        )
    return alt.layer(*layers).properties(height=360)


def ratio_table(found: Suggestion, say: Say = plain) -> pd.DataFrame:
    """The splits of an answer: GPUs that prefill, rate, interval and the sizes of their engines."""
    rows = [
        {
            "name": say(row.name), "prefill": row.split.first.gpus, "rate": row.rate, "low": row.low, "high": row.high,
            "per_gpu": row.per_gpu,
            "sizes": " + ".join(one.size or "TP1" for one in (row.split.first, row.split.second)),
        }
        for row in found.rows if row.split.second is not None
    ]  # fmt: skip
    return pd.DataFrame(rows)


def which_ratio(found: Suggestion, say: Say = plain) -> Chart:
    """Highest rate within the targets of every split that the answer compared, against how many GPUs prefill."""
    table = ratio_table(found, say)
    x = alt.X("prefill:Q", title=say("GPUs that prefill"), axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("rate:Q", title=say("Highest rate within the targets, requests/s"))
    # Nine sizes in a row are wider than a telephone.
    legend = alt.Legend(title=say("GPUs of a prefill + a decode worker"), orient="top", titleLimit=400, columns=3)
    colour = alt.Color("sizes:N", scale=alt.Scale(scheme="tableau10"), legend=legend)
    base = alt.Chart(table).encode(x=x, color=colour)
    lines = base.mark_line(strokeDash=[6, 4], opacity=0.6).encode(y=y)
    ranges = alt.Chart(table[table["low"] < table["high"]]).mark_rule(size=3, color="#808080")
    points = base.mark_point(filled=False, size=70, strokeWidth=2).encode(
        y=y,
        tooltip=[
            alt.Tooltip("name:N", title=say("Split")),
            alt.Tooltip("rate:Q", format=".3g", title=say("requests/s")),
            alt.Tooltip("low:Q", format=".3g", title=say("95 % from")),
            alt.Tooltip("high:Q", format=".3g", title=say("95 % to")),
            alt.Tooltip("per_gpu:Q", format=".3g", title=say("requests/s per GPU")),
        ],
    )
    layers = [lines, ranges.encode(x=x, y="low:Q", y2="high:Q"), points]
    together = best_of(found.rows, "aggregated")
    if together is not None:
        data = pd.DataFrame({"y": [together.rate], "what": [say("Best aggregated deployment")]})
        rule = alt.Chart(data).mark_rule(color=COLOURS["aggregated"], strokeDash=[2, 2], size=2)
        layers.append(rule.encode(y="y:Q", tooltip=[alt.Tooltip("what:N", title=" ")]))
    return alt.layer(*layers).properties(height=360)


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
            color=alt.Color("stage:N", scale=scale, legend=alt.Legend(title=None, orient="top", columns=2)),
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
            tooltip=[
                alt.Tooltip("worker:N", title=" "),
                alt.Tooltip("time_s:Q", format=".1f", title=say("Time, s")),
                alt.Tooltip(f"{measure}:Q", format=".3g", title=titles[measure]),
            ],
        )
        .properties(height=alt.Step(26), title=titles[measure])
    )


def _by_role(names: list[str]) -> list[str]:
    roles = {"prefill": 0, "aggregated": 0, "decode": 1}
    return sorted(names, key=lambda n: (roles.get(n.rsplit("-", 1)[0], 2), len(n), n))
