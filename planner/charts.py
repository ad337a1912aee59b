"""Tables to charts, for the browser and the report alike. A chart is named after the question it answers.

Colours are Okabe and Ito's, which most colour-blind people can tell apart; each stands for one thing everywhere.
Measured is filled, simulated is hollow (or a dashed line). `say` translates what a chart writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from planner.explain import waterfall
from planner.facts import STAGES
from planner.metrics import Summary
from planner.records import Run
from planner.spec import Slo
from planner.suggestion import Suggestion, best_of
from planner.validate import Comparison

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
PERCENTILES = ("p50", "p90", "p99")
DASHES = {"p50": [1, 0], "p90": [6, 3], "p99": [2, 2]}
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


def _plain(text: str) -> str:
    return text


def _scale(names: Sequence[str], say: Say, colours: dict[str, str] = COLOURS) -> alt.Scale:
    return alt.Scale(domain=[say(NAMES[name]) for name in names], range=[colours[name] for name in names])


def _rule(frame: dict[str, list[Any]], title: str, **where: Any) -> Chart:
    """A line across the chart for a target or the user's traffic."""
    data = pd.DataFrame({**frame, "what": [title]})
    return alt.Chart(data).mark_rule(color=TARGET, strokeDash=[6, 4], size=2).encode(tooltip=["what"], **where)


# --- the answer --------------------------------------------------------------------------------


def split_table(found: Suggestion, most: int = 12) -> pd.DataFrame:
    """The best candidates with their range over seeds; the best of each mode is always among them."""
    keep = list(found.rows[:most])
    for mode in MODES:
        best = best_of(found.rows, mode)
        if best is not None and best not in keep:
            keep.append(best)
    return pd.DataFrame(
        [
            {
                "name": row.name, "mode": row.mode, "rate": row.rate, "low": row.low, "high": row.high,
                "per_gpu": row.per_gpu, "idle": row.idle, "seeds": row.seeds,
                "output_tokens_s_gpu": row.output_tokens_s_gpu, "tokens_s_user": row.tokens_s_user,
            }
            for row in keep
        ]
    )  # fmt: skip


def which_split(found: Suggestion, rate: float | None = None, say: Say = _plain) -> Chart:
    """Highest rate of each way to use the GPUs, its range over seeds, the aggregated baseline and the user's rate."""
    table = split_table(found)
    table["kind"] = [say(NAMES[mode]) for mode in table["mode"]]
    order = table["name"].tolist()
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=180))
    bars = (
        alt.Chart(table)
        .mark_bar(fillOpacity=HOLLOW, strokeWidth=2)
        .encode(
            y=y,
            x=alt.X("rate:Q", title=say("Highest rate within the targets, requests/s"), axis=alt.Axis(tickCount=8)),
            color=alt.Color("kind:N", scale=_scale(MODES, say), legend=alt.Legend(title=None, orient="top")),
            stroke=alt.Stroke("kind:N", scale=_scale(MODES, say), legend=None),
            tooltip=[
                alt.Tooltip("name:N", title=say("Split")),
                alt.Tooltip("rate:Q", format=".3g", title=say("requests/s")),
                alt.Tooltip("low:Q", format=".3g", title=say("lowest seed")),
                alt.Tooltip("high:Q", format=".3g", title=say("highest seed")),
                alt.Tooltip("seeds:Q", title=say("seeds")),
                alt.Tooltip("per_gpu:Q", format=".3g", title=say("requests/s per GPU")),
            ],
        )
    )
    spread = table[table["seeds"] > 1]
    ranges = alt.Chart(spread).mark_rule(size=3).encode(y=y, x="low:Q", x2="high:Q")
    text = (
        alt.Chart(table)
        .mark_text(align="left", dx=6)
        .encode(y=y, x="high:Q", text=alt.Text("rate:Q", format=".3g"), color=alt.value("#808080"))
    )
    layers = [bars, ranges, text]
    base = best_of(found.rows, "aggregated")
    if base is not None and base.rate > 0:
        data = pd.DataFrame({"x": [base.rate], "what": [say("Best aggregated deployment")]})
        rule = alt.Chart(data).mark_rule(color=COLOURS["aggregated"], strokeDash=[2, 2], size=2)
        layers.append(rule.encode(x="x:Q", tooltip=["what"]))
    if rate is not None:
        layers.append(_rule({"x": [rate]}, say("Your traffic"), x="x:Q"))
    return alt.layer(*layers).properties(height=alt.Step(26))


def what_would_change(found: Suggestion, say: Say = _plain) -> Chart:
    """P/D's advantage when one thing is 20 % more or less, against the margin that it must win by."""
    assert found.verdict is not None
    table = pd.DataFrame(
        [
            {"what": say(change.what), "advantage": 100 * change.advantage, "word": say(change.word)}
            for change in found.verdict.changes
            if change.advantage is not None
        ]
    )
    now = {"what": say("as it is"), "advantage": 100 * found.verdict.advantage.value, "word": say(found.verdict.word)}
    table = pd.concat([pd.DataFrame([now]), table], ignore_index=True)
    y = alt.Y("what:N", sort=table["what"].tolist(), title=None, axis=alt.Axis(labelLimit=200))
    words = [say(word) for word in ("worth it", "too close to call", "not worth it")]
    colour = alt.Scale(domain=words, range=[COLOURS["disaggregated"], "#999999", COLOURS["aggregated"]])
    points = (
        alt.Chart(table)
        .mark_point(filled=False, size=90, strokeWidth=2.5)
        .encode(
            y=y,
            x=alt.X("advantage:Q", title=say("P/D against aggregated, %"), axis=alt.Axis(tickCount=8)),
            color=alt.Color("word:N", scale=colour, legend=alt.Legend(title=None, orient="top", columns=2)),
            tooltip=["what", alt.Tooltip("advantage:Q", format="+.1f"), "word"],
        )
    )
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color="#808080").encode(x="x:Q")
    margin = _rule({"x": [100 * found.verdict.margin]}, say("Margin that P/D must win by"), x="x:Q")
    return alt.layer(zero, margin, points).properties(height=alt.Step(24))


# --- why ---------------------------------------------------------------------------------------


def how_latency_grows(
    curves: dict[str, tuple[str, pd.DataFrame]], metric: str, slo: Slo, rate: float | None, say: Say = _plain
) -> Chart:
    """Percentiles of `ttft` or `tpot` against the rate. `curves`: name -> (mode, table of planner.curves)."""
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
    tooltip = ["name", "point", alt.Tooltip("rate:Q", format=".3g"), alt.Tooltip("value:Q", format=".4g")]
    base = alt.Chart(data).encode(x=x, y=y, color=colour, tooltip=tooltip)
    lines = base.mark_line(clip=True).encode(strokeDash=alt.StrokeDash("point:N", scale=dash, legend=top_legend))
    points = base.mark_point(filled=False, size=22, clip=True)
    layers = [lines, points]
    if limit is not None:
        layers.append(_rule({"y": [limit]}, say("Target"), y="y:Q"))
    if rate is not None:
        user = pd.DataFrame({"x": [rate], "what": [say("Your traffic")]})
        layers.append(alt.Chart(user).mark_rule(color="#808080", size=2).encode(x="x:Q", tooltip=["what"]))
    return alt.layer(*layers).properties(height=280)


def which_ratio(table: pd.DataFrame, per_gpu: bool, say: Say = _plain) -> Chart:
    """P x D heat map: the highest rate within the targets of every xPyD."""
    value = "per_gpu" if per_gpu else "rate"
    title = say("requests/s per GPU") if per_gpu else say("requests/s")
    x = alt.X("prefill:O", title=say("Prefill workers"), axis=alt.Axis(labelAngle=0))
    y = alt.Y("decode:O", title=say("Decode workers"), sort="descending")
    tooltip = [
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


def what_trade(found: Suggestion, say: Say = _plain) -> Chart:
    """Speed for a user against output of a GPU: every passing probe, and the front that no other beats."""
    modes = {row.name: row.mode for row in found.rows}
    probes = [
        {"name": row.name, "kind": say(NAMES[row.mode]), "rate": one.rate, "user": one.tokens_s_user,
         "gpu": one.output_tokens_s / found.gpus}
        for row in found.rows for searched in row.searches[:1] for one in searched.probes if one.passed
    ]  # fmt: skip
    front = [
        {"name": p.name, "kind": say(NAMES[modes[p.name]]), "rate": p.rate, "user": p.tokens_s_user,
         "gpu": p.output_tokens_s_gpu}
        for p in found.pareto
    ]  # fmt: skip
    x = alt.X("user:Q", title=say("Speed for a user, tokens/s"), scale=alt.Scale(zero=False))
    y = alt.Y("gpu:Q", title=say("Output per GPU, tokens/s"))
    tooltip = ["name", alt.Tooltip("rate:Q", format=".3g", title=say("requests/s")), "user", "gpu"]
    points = (
        alt.Chart(pd.DataFrame(probes))
        .mark_point(filled=False, size=40, opacity=0.45)
        .encode(x=x, y=y, tooltip=tooltip, color=alt.Color("kind:N", scale=_scale(MODES, say), title=None))
    )
    line = alt.Chart(pd.DataFrame(front)).mark_line(color="#808080", point=False).encode(x=x, y=y, order="user:Q")
    best = (
        alt.Chart(pd.DataFrame(front))
        .mark_point(filled=False, size=110, strokeWidth=2.5)
        .encode(x=x, y=y, tooltip=tooltip, color=alt.Color("kind:N", scale=_scale(MODES, say), title=None))
    )
    return alt.layer(points, line, best).properties(height=340)


def where_time_goes(summaries: dict[str, Summary], say: Say = _plain) -> Chart:
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
    scale = _scale(used, say, STAGE_COLOURS)
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


def when_busy(run: Run, measure: str, say: Say = _plain) -> Chart:
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


# --- simulated against measured ----------------------------------------------------------------


def how_close(simulated: Run, measured: Run, metric: str, say: Say = _plain) -> Chart:
    """Parity plot: every request's simulated value against its measured one; on the line they are equal."""
    from planner.facts import Facts

    ours, theirs = Facts(simulated), Facts(measured)
    a = pd.Series(getattr(ours, metric) * 1e3, index=ours.column("request_id"))
    b = pd.Series(getattr(theirs, metric) * 1e3, index=theirs.column("request_id"))
    data = pd.DataFrame({"simulated": a, "measured": b}).dropna().reset_index(names="request")
    top = float(max(data["simulated"].max(), data["measured"].max())) * 1.05 if len(data) else 1.0
    line = alt.Chart(pd.DataFrame({"v": [0.0, top]})).mark_line(color="#808080", strokeDash=[4, 4])
    scale = alt.Scale(domain=[0, top], nice=False)
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=36, opacity=0.6, color=COLOURS["decode" if metric == "tpot" else "prefill"])
        .encode(
            x=alt.X("measured:Q", scale=scale, title=f"{metric.upper()} {say('measured')}, ms"),
            y=alt.Y("simulated:Q", scale=scale, title=f"{metric.upper()} {say('simulated')}, ms"),
            tooltip=["request", alt.Tooltip("measured:Q", format=".4g"), alt.Tooltip("simulated:Q", format=".4g")],
        )
    )
    return alt.layer(line.encode(x="v:Q", y="v:Q"), points).properties(height=320, title=metric.upper())


def how_far_off(comparison: Comparison, say: Say = _plain) -> Chart:
    """Error of every statistic with its interval; zero is right."""
    table = pd.DataFrame(
        [
            {"what": f"{e.metric.upper() if e.metric != 'throughput' else say('rate')} {e.statistic}",
             "error": 100 * e.error, "low": None if e.low is None else 100 * e.low,
             "high": None if e.high is None else 100 * e.high}
            for e in comparison.errors
        ]
    )  # fmt: skip
    y = alt.Y("what:N", sort=table["what"].tolist(), title=None)
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color="#808080").encode(x="x:Q")
    known = table.dropna(subset=["low", "high"])
    ranges = alt.Chart(known).mark_rule(color=COLOURS["disaggregated"], size=3).encode(y=y, x="low:Q", x2="high:Q")
    points = (
        alt.Chart(table)
        .mark_point(filled=True, size=70, color=COLOURS["decode"])
        .encode(
            y=y, x=alt.X("error:Q", title=say("Predicted against measured, %")),
            tooltip=["what", alt.Tooltip("error:Q", format="+.1f")],
        )
    )  # fmt: skip
    return alt.layer(zero, ranges, points).properties(height=alt.Step(20))


def how_many_done(expected: pd.DataFrame, sofar: pd.DataFrame, say: Say = _plain) -> Chart:
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


# --- traces, sweeps, profiles ------------------------------------------------------------------


def how_it_arrives(times: Sequence[float], say: Say = _plain) -> Chart:
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


def how_long(lengths: Sequence[int], title: str, colour: str, say: Say = _plain) -> Chart:
    """Histogram of token counts."""
    counts, edges = np.histogram(lengths, bins=min(40, max(5, len(set(lengths)))))
    data = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "count": counts, "zero": 0})
    return (
        alt.Chart(data)
        .mark_bar(color=COLOURS[colour])
        .encode(
            x=alt.X("from:Q", title=title), x2="to:Q", y=alt.Y("count:Q", title=say("requests")), y2="zero:Q",
            tooltip=["from", "to", "count"],
        )
        .properties(height=200)
    )  # fmt: skip


def how_latency_spreads(
    runs: Mapping[str, tuple[str, Run]], metric: str, limit: float | None, say: Say = _plain
) -> Chart:
    """Share of the requests within a latency, one line a run. `runs`: name -> (mode, run)."""
    from planner.facts import Facts

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
            tooltip=["name", alt.Tooltip("ms:Q", format=".4g"), alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return alt.layer(lines, *([_rule({"x": [limit]}, say("Target"), x="x:Q")] if limit else [])).properties(height=280)


def how_it_varies(table: pd.DataFrame, metric: str, title: str) -> Chart:
    """A metric over the values of a swept key (planner.curves.sweep)."""
    order = table["value"].tolist()
    return (
        alt.Chart(table)
        .mark_line(point=alt.OverlayMarkDef(filled=False, fill="transparent", size=70), color=COLOURS["decode"])
        .encode(
            x=alt.X("value:N", sort=order, title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(f"{metric}:Q", title=title), tooltip=["value", metric],
        )
        .properties(height=240)
    )  # fmt: skip


def how_well_fitted(residuals: pd.DataFrame, say: Say = _plain) -> Chart:
    """Residuals of a profile by kind of step: mean and largest, per cent of the measured time."""
    y = alt.Y("kind:N", title=None, sort=residuals["kind"].tolist())
    title = say("Error of the fit, % of the measured step")
    bars = alt.Chart(residuals).mark_bar(color=COLOURS["decode"], height=16).encode(
        y=y, x=alt.X("mean:Q", title=title), tooltip=["kind", "rows", "mean", "max"]
    )  # fmt: skip
    ticks = alt.Chart(residuals).mark_tick(color=TARGET, thickness=3, size=22).encode(y=y, x="max:Q")
    return alt.layer(bars, ticks).properties(height=alt.Step(34))
