"""Which split, and what would change the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from planner.charts.style import COLOURS, HOLLOW, MODES, NAMES, TARGET, Chart, Say, plain, rule_at, scale_of
from planner.messages import message
from planner.report.words import number
from planner.suggestion.answer import Row, Suggestion, best_of
from planner.suggestion.words import pick

Curves = Mapping[str, tuple[Row, pd.DataFrame]]  # by candidate: planner.suggestion.curves.load_curve


def split_table(found: Suggestion, most: int = 12, say: Say = plain) -> pd.DataFrame:
    """The best candidates with their intervals; the best of each mode is always among them."""
    keep = list(found.rows[:most])
    for mode in MODES:
        best = best_of(found.rows, mode)
        if best is not None and best not in keep:
            keep.append(best)
    return pd.DataFrame(
        [
            {
                "name": say(row.name), "mode": row.mode, "rate": row.rate, "low": row.low, "high": row.high,
                "per_gpu": row.per_gpu, "idle": row.idle, "seeds": row.seeds,
                "output_tokens_s_gpu": row.output_tokens_s_gpu, "tokens_s_user": row.tokens_s_user,
            }
            for row in keep
        ]
    )  # fmt: skip


def which_split(found: Suggestion, rate: float | None = None, say: Say = plain) -> Chart:
    """Highest rate of each way to use the GPUs, its interval, the aggregated baseline and the user's rate."""
    table = split_table(found, say=say)
    table["kind"] = [say(NAMES[mode]) for mode in table["mode"]]
    order = table["name"].tolist()
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=180))
    bars = (
        alt.Chart(table)
        .mark_bar(fillOpacity=HOLLOW, strokeWidth=2)
        .encode(
            y=y,
            x=alt.X("rate:Q", title=say("Highest rate within the targets, requests/s"), axis=alt.Axis(tickCount=8)),
            color=alt.Color("kind:N", scale=scale_of(MODES, say), legend=alt.Legend(title=None, orient="top")),
            stroke=alt.Stroke("kind:N", scale=scale_of(MODES, say), legend=None),
            tooltip=[
                alt.Tooltip("name:N", title=say("Split")),
                alt.Tooltip("rate:Q", format=".3g", title=say("requests/s")),
                alt.Tooltip("low:Q", format=".3g", title=say("95 % from")),
                alt.Tooltip("high:Q", format=".3g", title=say("95 % to")),
                alt.Tooltip("seeds:Q", title=say("seeds")),
                alt.Tooltip("per_gpu:Q", format=".3g", title=say("requests/s per GPU")),
            ],
        )
    )
    spread = table[table["low"] < table["high"]]
    ranges = alt.Chart(spread).mark_rule(size=3, color="#808080").encode(y=y, x="low:Q", x2="high:Q")
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
        layers.append(rule.encode(x="x:Q", tooltip=[alt.Tooltip("what:N", title=" ")]))
    if rate is not None:
        layers.append(rule_at({"x": [rate]}, say("Your traffic"), x="x:Q"))
    return alt.layer(*layers).properties(height=alt.Step(26))


def what_would_change(found: Suggestion, say: Say = plain) -> Chart:
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
    hues = {
        "worth it": COLOURS["disaggregated"], "too close to call": "#999999", "not worth it": COLOURS["aggregated"],
        "not known yet": COLOURS["transfer"],
    }  # fmt: skip
    colour = alt.Scale(domain=[say(word) for word in hues], range=list(hues.values()))
    points = (
        alt.Chart(table)
        .mark_point(filled=False, size=90, strokeWidth=2.5)
        .encode(
            y=y,
            x=alt.X("advantage:Q", title=say("P/D against aggregated, %"), axis=alt.Axis(tickCount=8)),
            color=alt.Color("word:N", scale=colour, legend=alt.Legend(title=None, orient="top", columns=1)),
            tooltip=[
                alt.Tooltip("what:N", title=" "),
                alt.Tooltip("advantage:Q", format="+.1f", title=say("P/D against aggregated, %")),
                alt.Tooltip("word:N", title=" "),
            ],
        )
    )
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color="#808080").encode(x="x:Q")
    margin = rule_at({"x": [100 * found.verdict.margin]}, say("Margin that P/D must win by"), x="x:Q")
    return alt.layer(zero, margin, points).properties(height=alt.Step(24))


def trade_table(found: Suggestion, say: Say = plain, curves: Curves | None = None) -> pd.DataFrame:
    """Every run within the targets: the speed of a user against the output of a GPU, both in tokens/s.

    Those of the answer, and of the load `curves` of some candidates. `front`: no run of the same mode beats it in both.
    `told`: the point in words.
    """
    runs = [
        (row, one.rate, one.tokens_s_user, one.output_tokens_s)
        for row in found.rows for searched in row.searches[:1] for one in searched.probes if one.passed
    ]  # fmt: skip
    for row, table in (curves or {}).values():
        kept = table[(table["attainment"] >= found.slo.attainment) & ~table["saturated"]].dropna()
        runs += [
            (row, float(run["rate"]), float(run["tokens_s_user"]), float(run["output_tokens_s"]))
            for run in kept.to_dict("records")
        ]
    points = []
    for row, rate, user, output in runs:
        told = message(
            "{name}: at {rate} requests/s a user reads {user} tokens/s, and a GPU writes {gpu} tokens/s",
            row.name, number(rate), number(user), number(output / found.gpus),
        )  # fmt: skip
        points.append(
            {
                "candidate": str(row.name), "name": say(row.name), "mode": row.mode, "kind": say(NAMES[row.mode]),
                "rate": rate, "user": user, "gpu": output / found.gpus, "told": say(told),
            }
        )  # fmt: skip
    table = pd.DataFrame(points, columns=["candidate", "name", "mode", "kind", "rate", "user", "gpu", "told"])
    table = table.sort_values(["user", "gpu"], ascending=False, ignore_index=True)
    best_so_far = table.groupby("mode")["gpu"].cummax()
    return table.assign(front=(table["gpu"] == best_so_far) & ~table.duplicated(["mode", "user", "gpu"]))


PICKED = "picked"  # the selection of a point, by its candidate


def what_trade(found: Suggestion, say: Say = plain, curves: Curves | None = None, pick_points: bool = False) -> Chart:
    """Speed for a user against output of a GPU: runs within the targets, a frontier of each mode, the target's pace,
    and the answer as a star. `pick_points`: a click selects a candidate, as PICKED.
    """
    table = trade_table(found, say, curves)
    x = alt.X("user:Q", title=say("Speed for a user, tokens/s"), scale=alt.Scale(zero=False))
    y = alt.Y("gpu:Q", title=say("Output per GPU, tokens/s"))
    tooltip: list[Any] = [alt.Tooltip("told:N", title=" ")]
    legend = alt.Legend(title=None, orient="top")
    colour = alt.Color("kind:N", scale=scale_of(MODES, say), legend=legend)
    points = alt.Chart(table).mark_point(filled=False, strokeWidth=2).encode(
        x=x, y=y, tooltip=tooltip, color=colour,
        size=alt.condition("datum.front", alt.value(110), alt.value(45)),
        opacity=alt.condition("datum.front", alt.value(1.0), alt.value(0.45)),
    )  # fmt: skip
    if pick_points:
        picked = alt.selection_point(name=PICKED, fields=["candidate"], on="click", empty=False)
        points = points.add_params(picked)
    front = alt.Chart(table[table["front"]]).mark_line(strokeDash=[6, 4]).encode(x=x, y=y, color=colour, order="user:Q")
    layers = [front, points]
    if found.slo.tpot_ms is not None:  # the pace that the target asks for, of a user
        layers.append(rule_at({"x": [1e3 / found.slo.tpot_ms]}, say("Target"), x="x:Q"))
    chosen = pick(found.rows, found.verdict)
    if chosen.rate > 0:
        told = message("The answer: {name}", chosen.name)
        star = {
            "user": chosen.tokens_s_user, "gpu": chosen.output_tokens_s_gpu, "told": say(told),
            "candidate": str(chosen.name),  # it lies on the candidate's own point, and takes its clicks
        }  # fmt: skip
        data = alt.Chart(pd.DataFrame([star])).encode(x=x, y=y, tooltip=tooltip)
        layers.append(data.mark_text(text="★", fontSize=24, color=TARGET))
    return alt.layer(*layers).properties(height=380)
