"""Which split, and what would change the verdict."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from planner.charts.style import COLOURS, HOLLOW, MODES, NAMES, TARGET, Chart, Say, plain, rule_at, scale_of
from planner.suggestion.answer import Suggestion, best_of
from planner.suggestion.words import pick


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
    words = [say(word) for word in ("worth it", "too close to call", "not worth it")]
    colour = alt.Scale(domain=words, range=[COLOURS["disaggregated"], "#999999", COLOURS["aggregated"]])
    points = (
        alt.Chart(table)
        .mark_point(filled=False, size=90, strokeWidth=2.5)
        .encode(
            y=y,
            x=alt.X("advantage:Q", title=say("P/D against aggregated, %"), axis=alt.Axis(tickCount=8)),
            color=alt.Color("word:N", scale=colour, legend=alt.Legend(title=None, orient="top", columns=2)),
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


def what_trade(found: Suggestion, say: Say = plain) -> Chart:
    """Speed for a user against output of a GPU: every passing probe, and the front that no other beats."""
    modes = {row.name: row.mode for row in found.rows}
    probes = [
        {"name": say(row.name), "kind": say(NAMES[row.mode]), "rate": one.rate, "user": one.tokens_s_user,
         "gpu": one.output_tokens_s / found.gpus}
        for row in found.rows for searched in row.searches[:1] for one in searched.probes if one.passed
    ]  # fmt: skip
    front = [
        {"name": say(p.name), "kind": say(NAMES[modes[p.name]]), "rate": p.rate, "user": p.tokens_s_user,
         "gpu": p.output_tokens_s_gpu}
        for p in found.pareto
    ]  # fmt: skip
    x = alt.X("user:Q", title=say("Speed for a user, tokens/s"), scale=alt.Scale(zero=False))
    y = alt.Y("gpu:Q", title=say("Output per GPU, tokens/s"))
    tooltip: list[Any] = [
        alt.Tooltip("name:N", title=say("Split")),
        alt.Tooltip("rate:Q", format=".3g", title=say("requests/s")),
        alt.Tooltip("user:Q", format=".3g", title=say("Speed for a user, tokens/s")),
        alt.Tooltip("gpu:Q", format=".4g", title=say("Output per GPU, tokens/s")),
    ]
    colour = alt.Color("kind:N", scale=scale_of(MODES, say), title=None)
    base = alt.Chart(pd.DataFrame(front)).encode(x=x, y=y, tooltip=tooltip)
    layers = [
        alt.Chart(pd.DataFrame(probes))
        .mark_point(filled=False, size=40, opacity=0.45)
        .encode(x=x, y=y, tooltip=tooltip, color=colour),
        base.mark_line(color="#808080", point=False).encode(order="user:Q"),
        base.mark_point(filled=False, size=110, strokeWidth=2.5).encode(color=colour),
    ]
    if found.slo.tpot_ms is not None:  # the pace that the target asks for, of a user
        layers.append(rule_at({"x": [1e3 / found.slo.tpot_ms]}, say("Target"), x="x:Q"))
    chosen = pick(found.rows, found.verdict)
    if chosen.rate > 0:
        star = {
            "name": say(chosen.name), "rate": chosen.rate, "user": chosen.tokens_s_user,
            "gpu": chosen.output_tokens_s_gpu,
        }  # fmt: skip
        data = alt.Chart(pd.DataFrame([star])).encode(x=x, y=y, tooltip=tooltip)
        layers.append(data.mark_text(text="★", fontSize=24, color=TARGET))
    return alt.layer(*layers).properties(height=340)
