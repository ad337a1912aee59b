"""Why: how latency grows with load, which ratio, what trade, where the time goes, and when workers are busy."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import streamlit as st

from planner import charts
from planner.report.explain import explain
from planner.report.words import number
from planner.spec import SpecError, dump
from planner.suggestion.answer import Row, Suggestion
from planner.suggestion.splits import apply
from planner.suggestion.words import sentence
from planner.ui import compute
from planner.ui.answer import answered
from planner.ui.frame import failed, guarded, link, read_this, scenario, title
from planner.ui.scenario import Scenario
from planner.ui.texts import say, t

Texts = dict[str, tuple[Row, str]]  # name -> (candidate, YAML)
AT_A_RATE = ("Load", "First token", "Timeline")  # views that the slider moves


@guarded
def page() -> None:
    title(t("Why"), t("What stands behind the answer, chart by chart. Simulated is hollow or dashed."))
    try:
        now, found = answered(scenario())
        if not compute.best_rows(found):
            st.info(say(sentence(found.rows, found.verdict, found.gpus, found.slo)))
            return
        _views(now, found)
    except (SpecError, ChildProcessError) as error:
        failed(error)
        link("ask", t("Change the question"), ":material/help:")


def _views(now: Scenario, found: Suggestion) -> None:
    views: dict[str, Callable[[Scenario, Suggestion, Texts, float], None]] = {
        "Load": _load,
        "Ratio": _ratio,
        "Trade-off": _trade,
        "First token": _first_token,
        "Timeline": _timeline,
    }
    view = st.segmented_control(
        t("Chart"), list(views), default="Load", format_func=t, key="why_view", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    spec, chart = now.spec(), st.container()  # the trade's chart, above what is compared
    rows = [] if view == "Ratio" else _compared(found)
    if view == "Trade-off":
        with chart:
            _trade_chart(now, found, rows)
    texts = {row.name: (row, dump(apply(spec, row.split))) for row in rows}
    highest = max(row.rate for row in rows or compute.best_rows(found))
    asked = compute.rate_of(spec)
    rate = min(asked if asked is not None else highest, 1.25 * highest)
    if view in AT_A_RATE:
        most = 1.25 * highest
        digits = -math.floor(math.log10(most / 100))  # of the number that stands above the handle
        step = 10.0**-digits
        most = round(math.ceil(most / step) * step, digits)
        first = round(max(step, rate), digits)
        rate = st.slider(t("Requests per second"), step, most, first, step=step, key="why_rate", format="%g")
    views[view or "Load"](now, found, texts, rate)


# --- two candidates to compare -------------------------------------------------------------------


def _compared(found: Suggestion) -> list[Row]:
    """The candidates that the user has chosen to compare, at first the best of each mode."""
    able = {str(row.name): row for row in found.rows if row.rate > 0}
    first = [str(row.name) for row in compute.best_rows(found)]
    kept = [name for name in st.session_state.get("why_kept", first) if name in able] or first
    st.session_state["why_pins"] = kept  # other pages forget the widget
    chosen = st.multiselect(
        t("Compared, two at most"), list(able), format_func=lambda name: say(able[name].name), key="why_pins",
        max_selections=COMPARED,
    )  # fmt: skip
    st.session_state["why_kept"] = chosen or first
    return sorted((able[name] for name in chosen or first), key=lambda row: charts.MODES.index(row.mode))


COMPARED = 2


def _pin() -> None:
    """The candidate of the point that was clicked, beside the one that was compared before it."""
    points = st.session_state["why_trade"]["selection"].get(charts.PICKED) or []
    clicked = [str(point["candidate"]) for point in points if "candidate" in point]
    kept = st.session_state.get("why_kept", [])
    if clicked:
        st.session_state["why_kept"] = [clicked[0], *(name for name in kept if name != clicked[0])][:COMPARED]


def _trade_chart(now: Scenario, found: Suggestion, rows: list[Row]) -> None:
    if not found.pareto:
        st.info(say(sentence(found.rows, found.verdict, found.gpus, found.slo)))
        return
    with st.spinner(t("Simulating the load curves …")):
        curves = compute.curves_of(found, now.spec(), rows)
    st.altair_chart(
        charts.what_trade(found, say, curves, pick_points=True), alt=t("Speed for a user against output of a GPU"),
        key="why_trade", on_select=_pin, selection_mode=charts.PICKED,
    )  # fmt: skip
    read_this(
        t(
            "Up is cheaper, right is faster for each user. On a dashed frontier nothing of its kind beats a point in "
            "both: choose there. The star is the answer; right of the vertical line users see the target's pace. "
            "Click a point to compare its deployment below."
        )
    )


def _load(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    with st.spinner(t("Simulating the load curves …")):
        made = compute.curves_of(found, now.spec(), [row for row, _ in texts.values()])
    curves = {say(name): (row.mode, table) for name, (row, table) in made.items()}
    columns = st.columns(2)
    for column, metric in zip(columns, ("ttft", "tpot"), strict=True):
        with column:
            chart = charts.how_latency_grows(curves, metric, found.slo, rate, say)
            st.altair_chart(chart, alt=f"{metric} / rate")
    read_this(
        t(
            "Follow a line to the right until it crosses the dashed target: that is how much load a deployment takes. "
            "The grey line is the chosen rate. The points are the runs that the answer is judged by, with its first "
            "list of requests."
        )
    )


def _ratio(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    if charts.ratio_table(found).empty:
        st.info(t("One GPU cannot be split.") if now.gpus < 2 else t("No split was compared."))
        return
    st.altair_chart(charts.which_ratio(found, say), alt=t("Rate of every split against how many GPUs prefill"))
    read_this(
        t(
            "Each point is a split of the answer: left, few GPUs prefill; right, few decode. At the peak the two pools "
            "are in balance. The dotted line is the best aggregated deployment."
        )
    )


def _trade(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    """The figures, curves and files of the two that are compared."""
    rows = [
        {
            t("Deployment"): say(row.name),
            t(
                "Highest rate within the targets, requests/s"
            ): f"{number(row.rate)} ({number(row.low)} – {number(row.high)})",
            t("Speed for a user, tokens/s"): number(row.tokens_s_user),
            t("Output per GPU, tokens/s"): number(row.output_tokens_s_gpu),
            t("US dollars per million tokens"): (
                "–" if row.cost_per_million_tokens is None else number(row.cost_per_million_tokens)
            ),
        }
        for row, _ in texts.values()
    ]
    st.table(pd.DataFrame(rows).set_index(t("Deployment")))
    _load(now, found, texts, rate)
    for column, (row, text) in zip(st.columns(COMPARED), texts.values(), strict=False):
        with column, st.expander(f"YAML: {say(row.name)}", icon=":material/data_object:"):
            st.code(text, language="yaml")


def _first_token(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    summaries = {say(name): compute.summary_of(text, rate) for name, (_, text) in texts.items()}
    st.altair_chart(charts.where_time_goes(summaries, say), alt=t("Stages of the time to first token"))
    read_this(t("The longest piece is where time goes; a long queue means too few prefill workers for this rate."))
    for name, summary in summaries.items():
        st.markdown(f"**{name}** · {' '.join(say(line) for line in explain(summary).sentences)}")


def _timeline(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    runs = {name: compute.run_of(text, rate) for name, (_, text) in texts.items()}
    measures = {"requests": "Requests", "busy": "Busy share", **charts.TIMELINE}
    measure = st.radio(
        t("Show"), list(measures), format_func=lambda key: say(measures[key]), horizontal=True, key="why_measure"
    )
    if measure == "requests":
        ids = charts.followed(next(iter(runs.values())))
        until = max(float(charts.spans_table(run, ids)["end_s"].max()) for run in runs.values())
    for name, run in runs.items():
        st.markdown(f"**{say(name)}**")
        if measure == "requests":
            chart = charts.what_requests_do(run, ids, until, say)
            st.altair_chart(chart, alt=t("Stages of the same requests on each worker"))
        else:
            st.altair_chart(charts.when_busy(run, measure, say), alt=t("Workers over time"))
    if measure == "requests":
        told = t(
            "The same {n} requests in each deployment, sent one after the other at {rate} requests/s. Each bar is a "
            "stage of one of them, on the worker that does it; others that these workers serve are left out.",
            n=len(ids), rate=number(rate),
        )  # fmt: skip
        read_this(told)
    else:
        read_this(
            t("One row a worker, time to the right. Rows of one pool that differ in brightness are unevenly loaded.")
        )
