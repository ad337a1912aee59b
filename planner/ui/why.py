"""Why: how latency grows with load, which ratio, what trade, where the time goes, and when workers are busy."""

from __future__ import annotations

import math
from collections.abc import Callable

import streamlit as st

from planner import charts
from planner.report.explain import explain
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
        spec = now.spec()
        texts = {row.name: (row, dump(apply(spec, row.split))) for row in compute.best_rows(found)}
        if not texts:
            st.info(say(sentence(found.rows, found.verdict, found.gpus)))
            return
        _views(now, found, texts)
    except (SpecError, ChildProcessError) as error:
        failed(error)
        link("ask", t("Change the question"), ":material/help:")


def _views(now: Scenario, found: Suggestion, texts: Texts) -> None:
    views: dict[str, Callable[[Scenario, Suggestion, Texts, float], None]] = {
        "Load": _load,
        "Ratio": _ratio,
        "Trade-off": _trade,
        "First token": _first_token,
        "Timeline": _timeline,
    }
    highest = max(row.rate for row, _ in texts.values())
    asked = compute.rate_of(now.spec())
    start = min(asked if asked is not None else highest, 1.25 * highest)
    left, right = st.columns([3, 2])
    with left:
        view = st.segmented_control(
            t("Chart"), list(views), default="Load", format_func=t, key="why_view", required=True,
            label_visibility="collapsed",
        )  # fmt: skip
    if view not in AT_A_RATE:
        views[view or "Load"](now, found, texts, start)
        return
    with right:
        most = 1.25 * highest
        step = 10.0 ** math.floor(math.log10(most / 100))
        most = round(math.ceil(most / step) * step, 6)
        rate = st.slider(t("Requests per second"), step, most, max(step, start), step=step, key="why_rate", format="%g")
    views[view or "Load"](now, found, texts, rate)


def _load(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    with st.spinner(t("Simulating the load curves …")):
        made = compute.curves_of(found, now.spec())
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
    if not found.pareto:
        st.info(say(sentence(found.rows, found.verdict, found.gpus)))
        return
    st.altair_chart(charts.what_trade(found, say), alt=t("Speed for a user against output of a GPU"))
    read_this(
        t(
            "Up is cheaper, right is faster for each user. On the grey line nothing beats a point in both: choose "
            "there. The star is the answer; right of the dashed line users see the target's pace."
        )
    )


def _first_token(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    summaries = {say(name): compute.summary_of(text, rate) for name, (_, text) in texts.items()}
    st.altair_chart(charts.where_time_goes(summaries, say), alt=t("Stages of the time to first token"))
    read_this(t("The longest piece is where time goes; a long queue means too few prefill workers for this rate."))
    for name, summary in summaries.items():
        st.markdown(f"**{name}** · {' '.join(say(line) for line in explain(summary).sentences)}")


def _timeline(now: Scenario, found: Suggestion, texts: Texts, rate: float) -> None:
    left, right = st.columns(2)
    with left:
        name = st.radio(t("Deployment"), list(texts), format_func=say, horizontal=True, key="why_deployment")
    run = compute.run_of(texts[name][1], rate)
    measures = {"busy": "Busy share", **charts.TIMELINE}
    with right:
        measure = st.radio(
            t("Show"), list(measures), format_func=lambda key: say(measures[key]), horizontal=True, key="why_measure"
        )
    st.altair_chart(charts.when_busy(run, measure, say), alt=t("Workers over time"))
    read_this(t("One row a worker, time to the right. Rows of one pool that differ in brightness are unevenly loaded."))
