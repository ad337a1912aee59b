"""Answer: the sentence, where it is from, the targets, the splits, why, and what would change it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from planner import charts
from planner.charts import Say
from planner.engine.catalogue import hardware
from planner.report.printing import shown
from planner.report.words import number, percent
from planner.run.metrics import METRICS, Summary, summarise
from planner.spec import SpecError, dump
from planner.suggestion.answer import Suggestion
from planner.suggestion.curves import IDLE_RATE, IDLE_REQUESTS
from planner.suggestion.words import engines, explanation, pick
from planner.ui import compute
from planner.ui.bar import Waiting, cancelled, offer_to_go_on, unless_cancelled
from planner.ui.frame import badge, failed, go, guarded, help_of, link, read_this, scenario, title
from planner.ui.lead import alternatives, lead, options, serves, warned
from planner.ui.scenario import TRACE, Scenario
from planner.ui.texts import say, t, translator
from planner.ui.uploads import shown as shown_name


@guarded
def page() -> None:
    asked = scenario()
    title(t("Answer"), in_words(asked))
    try:
        now, found = answered(asked)
        sure, rate = compute.known(now), compute.rate_of(now.spec())
        if sure is not None and rate is not None and serves(sure, rate):
            rate = _run(asked, now, sure, rate)
    except (SpecError, ChildProcessError) as error:
        failed(error)
        link("ask", t("Change the question"), ":material/help:")
        return
    if sure is None:
        st.subheader(so_far(found), anchor=False)
    else:
        lead(now, sure, rate)
    badge(found.provenance, found.notes)
    if found.verdict is not None and found.provenance.startswith("[calibrated"):  # a roofline's own words say its error
        off_by = percent(found.verdict.error)
        st.caption(t("Simulated. Rates may be off by {error}, as those that were served have been.", error=off_by))
    if sure is None and cancelled(asked):
        offer_to_go_on(t("Cancelled: this is the first look."))
    place = st.container()
    _body(now, found, rate, sure is not None)
    if sure is None and not cancelled(asked):
        with place:
            waiting = Waiting(asked, now)
        _make_sure(now, waiting)


def in_words(now: Scenario) -> str:
    """The question in a line."""
    spec = now.spec()
    gpu, model = hardware(spec.hardware).title, Path(spec.model).name
    sent = shown_name(now.trace) if now.traffic == TRACE else t("{rate} requests/s", rate=number(now.sent_rate))
    if now.load == "users" and now.traffic != TRACE:
        sent = t("{users} users ({load})", users=f"{now.users:,}", load=sent)
    if now.want == "fewest":
        return t("How few {gpu} serve {model} at {load}?", gpu=gpu, model=model, load=sent)
    return t("{gpus} x {gpu}, {model}, {load}", gpus=now.gpus, gpu=gpu, model=model, load=sent)


def answered(asked: Scenario) -> tuple[Scenario, Suggestion]:
    """The question with its number of GPUs, and the best known answer: the sure one, else the first look.

    With a bar while they are worked out. Raises SpecError and ChildProcessError.
    """
    waiting = Waiting(asked)
    now = asked
    if asked.want == "fewest":
        unless_cancelled(asked, compute.counted(asked))
        now = compute.asked(asked, waiting.part("count", t("Counting GPUs up")))
    found = compute.known(now) or unless_cancelled(asked, compute.looked(now))
    if found is None:
        found = compute.first_look(now, waiting.part("look", t("A first look at the splits")))
    waiting.end()
    return now, found


def _run(asked: Scenario, now: Scenario, found: Suggestion, rate: float) -> float | None:
    """Run the deployments that may be preferred under the user's load: that rate, or None where that was cancelled."""
    waiting = Waiting(asked, now)
    if not cancelled(asked):
        options(now, found, rate, waiting.part("load", t("Running the best ones under your load")))
        waiting.end()
        return rate
    return None


def so_far(found: Suggestion) -> str:
    """What a first look can say: the best of what it has simulated, and nothing about the rest."""
    tried = [row for row in found.rows if row.searches]
    best = max(tried, key=lambda row: row.rate)
    if best.rate > 0:
        return t(
            "First look: the best of {n} tried so far is {engines}, with {rate} requests/s within the targets.",
            n=len(tried), engines=say(engines(best)), rate=number(best.rate),
        )  # fmt: skip
    return t("First look: none of {n} tried so far meets the targets.", n=len(tried))


def _make_sure(now: Scenario, waiting: Waiting) -> None:
    """Under the first look, work out the answer from every split and several lists, then show that."""
    try:
        compute.fewest(now, waiting.part("count", t("Counting GPUs up")))
        lists = (
            t("Comparing every split over {seeds} lists", seeds=now.seeds)
            if now.seeds > 1
            else t("Comparing every split")
        )
        compute.answer(now, waiting.part("sure", lists))
    except (SpecError, ChildProcessError) as error:
        waiting.end()
        failed(error)
        return
    st.rerun()


def _body(now: Scenario, found: Suggestion, rate: float | None, sure: bool) -> None:
    chosen = pick(found.rows, found.verdict)
    if sure and rate is not None and serves(found, rate):
        alternatives(found, options(now, found, rate), rate)
    elif chosen.rate > 0:
        _cards(found, chosen.rate, rate)
    else:
        _idle(found)
        _next(now, found, able=False)
        return
    st.altair_chart(charts.which_split(found, rate, say), alt=t("Bar chart of every split"))
    read_this(
        t(
            "A longer bar serves more. Hollow bars are simulated; the thick line is the 95 % interval. "
            "The dotted line "
            "is the best aggregated deployment, the dashed line your traffic."
        )
    )
    _reasons(found)
    _next(now, found, able=True)


def _cards(found: Suggestion, highest: float, rate: float | None) -> None:
    """The suggested deployment under the user's own traffic, or at its highest rate where that is less."""
    offered = highest if rate is None else rate
    summary = compute.under_load([found.yaml], rate)[found.yaml]
    chosen = pick(found.rows, found.verdict)
    name = say(engines(chosen))
    text = t("To run: **{name}**. Under your traffic of {rate} requests/s:", name=name, rate=number(offered))
    st.markdown(text)
    columns = st.columns(3)
    for column, (metric, limit) in zip(columns, _limits(found), strict=False):
        with column:
            _latency(summary, metric, limit)
    with columns[2]:
        used = offered / highest
        st.metric(
            t("Room"), percent(max(0.0, 1 - used)), border=True,
            delta=t("at most {rate} requests/s", rate=number(highest)), delta_arrow="off",
            delta_color="normal" if used <= 1 else "inverse", help=t("What is left of the highest rate."),
        )  # fmt: skip
    warned([summary])


def _idle(found: Suggestion) -> None:
    """Where no rate is within the targets: what an idle deployment takes, which is the least to allow."""
    summary = summarise(compute.run_of(found.yaml, IDLE_RATE, IDLE_REQUESTS))
    name = say(engines(pick(found.rows, found.verdict)))
    st.markdown(t("Even nearly idle, at {rate} requests/s, **{name}** has:", rate=number(IDLE_RATE), name=name))
    for column, (metric, limit) in zip(st.columns(3), _limits(found), strict=False):
        with column:
            _latency(summary, metric, limit)
    st.caption(t("A target below these needs a faster GPU, a smaller model or shorter prompts."))


def _limits(found: Suggestion) -> tuple[tuple[str, float | None], ...]:
    return ("ttft_p99_ms", found.slo.ttft_ms), ("tpot_p99_ms", found.slo.tpot_ms)


def _latency(summary: Summary, metric: str, limit: float | None) -> None:
    value = summary[metric]
    kept = limit is None or (value is not None and value <= limit)
    against = (
        None
        if limit is None
        else t("target {limit} ms: {verdict}", limit=f"{limit:g}", verdict=t("met") if kept else t("missed"))
    )
    st.metric(
        METRICS[metric].label, shown(METRICS[metric], value), delta=against, border=True, help=help_of(metric),
        delta_color="normal" if kept else "inverse", delta_arrow="off",
    )  # fmt: skip


def _reasons(found: Suggestion) -> None:
    if found.verdict is None:
        for note in found.notes:
            st.caption(say(note))
        return
    if not found.verdict.why:
        link("why", t("See the curves"), ":material/query_stats:")
        return
    left, right = st.columns(2)
    with left:
        st.subheader(t("Why"), anchor=False)
        for line in explanation(found.verdict):
            if line != found.verdict.change:
                st.markdown(f"- {say(line)}")
        link("why", t("See the curves"), ":material/query_stats:")
    with right:
        st.subheader(t("What would change it"), anchor=False)
        st.markdown(say(found.verdict.change))
        st.altair_chart(charts.what_would_change(found, say), alt=t("P/D's advantage under changes of 20 %"))
        read_this(
            t(
                "Worth it is right of the dashed line by more than its interval "
                "and the profile's error; nearer is too close to call."
            )
        )
    for note in found.notes:
        st.caption(say(note))


def _next(now: Scenario, found: Suggestion, able: bool) -> None:
    """`able`: there is something to deploy."""
    st.subheader(t("Next"), anchor=False)
    with st.container(horizontal=True):
        if not able and st.button(t("Change the question"), type="primary", icon=":material/help:", key="answer_ask"):
            go("ask")
        if able and st.button(t("Check it for real"), type="primary", icon=":material/fact_check:", key="answer_check"):
            go("check")
        if able and st.button(t("Deploy it"), icon=":material/rocket_launch:", key="answer_deploy"):
            go("deploy")
        st.download_button(
            t("Download the YAML"), found.yaml, f"{now.traffic}-{now.gpus}.yaml", "application/yaml",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            t("Export a report"), partial(_report, now, found, translator()), f"{now.traffic}-{now.gpus}.html",
            mime="text/html", icon=":material/description:", on_click="ignore",
        )  # fmt: skip
    with st.expander(t("Copy the command"), icon=":material/terminal:"):
        st.code(command(now), language="bash")
        st.markdown(t("with this file as question.yaml:"))
        st.code(dump(now.spec()), language="yaml")


def command(now: Scenario) -> str:
    """The command line that gives the same sentence for the same file."""
    parts = ["planner suggest question.yaml", f"--gpus {now.gpus}"]
    rate = compute.rate_of(now.spec())
    if rate is not None:
        parts.append(f"--rate {rate:.6g}")
    if now.seeds != Scenario().seeds:
        parts.append(f"--seeds {now.seeds}")
    if now.requests:
        parts.append(f"--requests {now.requests}")
    return " ".join(parts)


def _report(now: Scenario, found: Suggestion, words: Say) -> str:
    from planner.report.html import suggestion_report

    spec = now.spec()
    rate = compute.rate_of(spec)
    return suggestion_report(
        found, compute.under_load([found.yaml], rate)[found.yaml], rate, words, compute.curves_of(found, spec),
    )  # fmt: skip
