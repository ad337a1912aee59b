"""Replay: the shape of a trace, and what one or two deployments make of it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from planner import charts
from planner.report import printing
from planner.report.words import number, percent
from planner.run.metrics import METRICS
from planner.run.tables import Run
from planner.spec import Spec, SpecError, config_root, dump, load, parse
from planner.traffic import traces
from planner.ui import compute, uploads
from planner.ui import scenario as scenarios
from planner.ui.frame import about_traces, badge, failed, guarded, help_of, read_this, scenario, title
from planner.ui.texts import say, t

SHOWN = (
    "attainment", "requests_per_s", "goodput_requests_per_s_per_gpu", "ttft_p50_ms", "ttft_p99_ms", "tpot_p99_ms",
    "cache_hit_rate",
)  # fmt: skip


@guarded
def page() -> None:
    title(t("Replay"), t("Recorded traffic, sent again to simulated deployments at the times it really came."))
    left, right = st.columns(2)
    with right:
        uploaded = st.file_uploader(t("Upload a trace"), type=["jsonl", "json", "csv", "gz"], key="replay_upload")
        if uploaded is not None:
            kept = uploads.keep(uploaded.name, uploaded.getvalue())
            if st.session_state.get("replay_uploaded") != kept:  # chosen once; the list stays free to choose from
                st.session_state["replay_uploaded"] = st.session_state["replay_trace"] = kept
    with left:
        known = [*scenarios.traces(), *uploads.mine()]
        # Another page forgets the widget, and a link may name an upload.
        asked = st.session_state.get("replay_trace") or st.session_state.get("replay_kept") or scenario().trace
        if asked not in known and uploads.file_of(asked) is not None:
            known.append(asked)
        st.session_state["replay_trace"] = asked if asked in known else known[0]
        name = st.selectbox(t("Trace"), known, format_func=uploads.shown, key="replay_trace")
        st.session_state["replay_kept"] = name
        about_traces()
    try:
        _shape(compute.trace_of(name or ""))
        _replay(str(scenarios.trace_path(name or "")))
    except SpecError as error:
        failed(error)


def _shape(trace: traces.TraceFile) -> None:
    found = traces.summarise(trace.requests)
    assert found is not None  # a trace that was read has requests
    st.subheader(t("Its shape"), anchor=False)
    lengths = f"{number(found.prompt_tokens['mean'])} / {number(found.output_tokens['mean'])}"
    reuse = "-" if found.infinite_cache_hit_share is None else percent(found.infinite_cache_hit_share)
    figures = (
        (t("Requests"), f"{found.requests:,}", t("Format: {form}", form=trace.format)),
        (t("Requests per second"), number(found.rate), t("Requests over the time they span.")),
        (
            t("Burstiness"),
            number(found.gap_cv),
            t("Standard deviation of the gaps over their mean: 1 is Poisson, above is burstier."),
        ),
        (t("Prompt / answer tokens"), lengths, t("Means.")),
        (t("Reuse"), reuse, t("Share of prompt blocks that came before; a dash: the trace does not say.")),
    )
    with st.container(horizontal=True, gap="large"):
        for label, value, meaning in figures:
            st.metric(label, value, help=meaning, width="content")
    left, middle, right = st.columns(3)
    times = [row.arrival_s for row in trace.requests if row.arrival_s is not None]
    with left:
        st.altair_chart(charts.how_it_arrives(times, say), alt=t("Requests per second over time"))
    with middle:
        prompts = [row.prompt_tokens for row in trace.requests]
        st.altair_chart(charts.how_long(prompts, t("Prompt tokens"), "prefill", say), alt=t("Prompt tokens"))
    with right:
        outputs = [row.output_tokens for row in trace.requests]
        st.altair_chart(charts.how_long(outputs, t("Answer tokens"), "decode", say), alt=t("Answer tokens"))
    read_this(t("Peaks on the left need room; long prompts load prefill, long answers load decode."))


def _replay(path: str) -> None:
    st.subheader(t("Two deployments"), anchor=False)
    shipped = sorted(file.stem for file in config_root().glob("*.yaml") if not file.stem.startswith("cpu"))
    columns = st.columns([2, 2, 1])
    first = columns[0].selectbox("A", shipped, index=shipped.index("agg"), key="replay_a")
    second = columns[1].selectbox("B", shipped, index=shipped.index("disagg"), key="replay_b")
    speedup = columns[2].number_input(
        t("Speed-up"), 0.05, 100.0, 1.0, key="replay_speedup", help=t("Sends the trace this many times faster.")
    )
    specs = {"A": _spec(first, path, speedup), "B": _spec(second, path, speedup)}
    with st.spinner(t("Replaying …")):
        runs: dict[str, Run] = {key: compute.run_of(dump(spec)) for key, spec in specs.items()}
        summaries = {key: compute.summary_of(dump(spec)) for key, spec in specs.items()}
    st.markdown(f"**{say(printing.compared(summaries['A'], summaries['B']))}**")
    badge(printing.provenance(summaries["A"]))
    for warning in dict.fromkeys(text for found in summaries.values() for text in printing.warnings(found)):
        st.warning(say(warning))
    rows = [
        {
            t("Metric"): say(METRICS[name].label),
            **{key: printing.shown(METRICS[name], found[name]) for key, found in summaries.items()},
        }
        for name in SHOWN
    ]
    left, right = st.columns(2)
    slo = specs["A"].slo
    with left:
        named = {f"{key}: {specs[key].name}": (specs[key].deployment.mode, run) for key, run in runs.items()}
        st.altair_chart(charts.how_latency_spreads(named, "ttft", slo.ttft_ms, say), alt=t("TTFT of both"))
        read_this(t("The line further left and higher is faster; where it meets the target is the share within it."))
    with right:
        st.dataframe(pd.DataFrame(rows), hide_index=True)
        with st.expander(t("What these mean"), icon=":material/help:"):
            for name in SHOWN:
                st.markdown(f"**{say(METRICS[name].label)}**: {help_of(name)}")
    shown = {f"{key}: {specs[key].name}": summary for key, summary in summaries.items()}
    st.altair_chart(charts.where_time_goes(shown, say), alt=t("Stages of the time to first token"))


def _spec(name: str, path: str, speedup: float) -> Spec:
    return parse(
        dump(load(name)), name, ["workload.kind=trace", f"workload.path={path}", f"workload.speedup={speedup}"]
    )
