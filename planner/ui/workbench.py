"""Workbench: the YAML with its errors, sweeps, two runs side by side, a profile's residuals, and reports."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from planner import charts
from planner.engine.catalogue import names
from planner.engine.profiles import load_profile
from planner.engine.provenance import origin
from planner.interop.import_file import import_text
from planner.messages import message
from planner.report import printing
from planner.report.explain import explain
from planner.run.metrics import METRICS, Summary, summarise
from planner.run.tables import Run
from planner.spec import SpecError, config_root, dump, load, parse
from planner.spec.strict_yaml import read_mapping
from planner.suggestion import curves
from planner.ui import compute
from planner.ui.frame import badge, failed, guarded, help_of, read_this, scenario, title
from planner.ui.texts import say, t, translator

MOST_VALUES = 12
RUNS = Path("runs")


@guarded
def page() -> None:
    title(t("Workbench"), t("Every key, every number. What is tried here changes nothing elsewhere."))
    views = {"Edit and simulate": _edit, "Sweep": _sweep, "Compare runs": _compare, "Calibration": _calibration}
    labels = {name: t(name) for name in views}
    view = st.segmented_control(
        t("Tool"), list(views), default="Edit and simulate", format_func=labels.__getitem__, key="bench_view",
        required=True, label_visibility="collapsed",
    )  # fmt: skip
    try:
        views[view or "Edit and simulate"]()
    except SpecError as error:
        failed(error)


def _shipped() -> list[str]:
    return sorted(file.stem for file in config_root().glob("*.yaml"))


QUESTION = "(the question)"


def _text() -> str:
    """The editor's text; choosing a file replaces it."""

    def replace() -> None:
        name = st.session_state["bench_file"]
        st.session_state["bench_text"] = dump(scenario().spec()) if name == QUESTION else dump(load(name))

    if "bench_text" not in st.session_state:
        st.session_state["bench_text"] = st.session_state.get("bench_kept") or dump(scenario().spec())
    asked = t("the question asked")
    st.selectbox(
        t("Start from"), [QUESTION, *_shipped()], key="bench_file", on_change=replace,
        format_func=lambda name: asked if name == QUESTION else name,
    )  # fmt: skip
    _bring()
    text = str(st.text_area(t("YAML"), key="bench_text", height=330))
    st.session_state["bench_kept"] = text
    return text


def _bring() -> None:
    """A file of the user's in the editor, or a command."""
    with st.popover(t("From a file or a command"), icon=":material/upload_file:", width="stretch"):
        st.caption(
            t(
                "YAML of this planner, or what starts your servers: scripts and commands of vLLM, SGLang, "
                "TensorRT-LLM, Docker Compose, Kubernetes, KServe, Dynamo, llm-d, production-stack, Ray Serve."
            )
        )
        upload = st.file_uploader(t("Upload a file"), key="bench_upload")
        pasted = st.text_area(
            t("Or paste it"), key="bench_pasted", height=100,
            placeholder="vllm serve Qwen/Qwen3-32B --tensor-parallel-size 2 --max-num-seqs 256",
        )  # fmt: skip
        if st.button(t("Put it into the editor"), key="bench_bring"):
            text, name = (
                (pasted, "command") if upload is None else (upload.getvalue().decode(errors="replace"), upload.name)
            )
            try:
                st.session_state["bench_text"] = brought(text, name)
            except SpecError as error:
                failed(error)


def brought(text: str, name: str) -> str:
    """YAML of this planner as it is, another stack's file as `planner import` turns it into one. Raises SpecError."""
    try:
        own = "deployment" in read_mapping(text, name)
    except SpecError:
        own = False
    return text if own else import_text(text, name, Path(name).stem).yaml


def _edit() -> None:
    left, right = st.columns([2, 3])
    with left:
        text = _text()
        try:
            spec = parse(text, "YAML")
        except SpecError as error:
            failed(error)
            return
        st.caption(t("The file is valid."))
        st.download_button(
            t("Download the YAML"), dump(spec), f"{spec.name}.yaml", "application/yaml", icon=":material/download:",
            on_click="ignore",
        )  # fmt: skip
    with right:
        summary = compute.summary_of(dump(spec))
        _summary(summary)
        st.download_button(
            t("Export a report"), partial(_report, summary, dump(spec), translator()), f"{spec.name}.html",
            mime="text/html",
            icon=":material/description:", on_click="ignore",
        )  # fmt: skip


def _summary(summary: Summary) -> None:
    found = explain(summary)
    st.markdown(f"**{say(printing.sentence(summary, found))}**")
    badge(printing.provenance(summary))
    for warning in printing.warnings(summary):
        st.warning(say(warning))
    st.markdown(" ".join(say(line) for line in found.sentences))
    st.altair_chart(
        charts.where_time_goes({summary.deployment: summary}, say), alt=t("Stages of the time to first token")
    )
    with st.expander(t("Every metric"), icon=":material/table:"):
        st.dataframe(metric_table(summary), hide_index=True, height=420)


def metric_table(summary: Summary) -> pd.DataFrame:
    """Every known metric with its unit and definition."""
    return pd.DataFrame(
        [
            {
                t("Metric"): say(metric.label),
                t("Value"): printing.shown(metric, summary[name]),
                t("Meaning"): help_of(name),
            }
            for name, metric in METRICS.items()
            if summary[name] is not None
        ]
    )


def _report(summary: Summary, text: str, words: charts.Say) -> str:
    from planner.report.html import run_report

    return run_report(summary, compute.run_of(text), words)


def _sweep() -> None:
    left, right = st.columns([2, 3])
    with left:
        text = _text()
        key = st.text_input(t("Key"), "workload.rate", key="bench_key")
        given = st.text_input(t("Values, with commas"), "2, 4, 8, 12, 16", key="bench_values")
        metric = st.selectbox(
            t("Metric"),
            list(curves.SWEPT),
            index=4,
            format_func=lambda name: say(METRICS[name].label),
            key="bench_metric",
        )
    values = tuple(value.strip() for value in given.split(",") if value.strip())
    if len(values) > MOST_VALUES:
        raise SpecError("sweep: {count} values; allowed: up to {most}", len(values), MOST_VALUES)
    with right:
        with st.spinner(t("Simulating …")):
            table = compute.sweep_of(dump(parse(text, "YAML")), key, values)
        st.altair_chart(charts.how_it_varies(table, key, metric, say), alt=t("A metric over a key"))
        read_this(t("Each point is one simulated run with that value; everything else stays as in the YAML."))
        rows = [
            {
                key: row["value"],
                t("meets the targets"): row["meets_targets"],
                **{say(METRICS[name].label): printing.shown(METRICS[name], row[name]) for name in curves.SWEPT},
            }
            for row in table.to_dict("records")
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True)


def _runs() -> dict[str, Path]:
    """Run folders, newest first."""
    found = sorted(RUNS.glob("**/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return {str(path.parent.relative_to(RUNS)): path.parent for path in found[:200]}


def _compare() -> None:
    found = _runs()
    if len(found) < 2:
        st.info(t("Fewer than two runs are in the folder runs. `planner simulate` and the checks write them."))
        return
    left, right = st.columns(2)
    first = left.selectbox("A", list(found), key="bench_a")
    second = right.selectbox("B", list(found), index=1, key="bench_b")
    a, b = (_read(found[name]) for name in (first, second))
    st.markdown(f"**{say(printing.compared(a, b))}**")
    rows = [
        {
            t("Metric"): say(METRICS[row.name].label), "A": printing.shown(METRICS[row.name], row.a),
            "B": printing.shown(METRICS[row.name], row.b),
            t("B against A"): "-" if row.change is None else f"{row.change * 100:+z.1f} %", t("better"): row.better,
        }
        for row in printing.compare(a, b)
    ]  # fmt: skip
    st.dataframe(pd.DataFrame(rows), hide_index=True, height=600)


def _read(folder: Path) -> Summary:
    """Raises SpecError for a folder that has gone, or that holds something else."""
    try:
        return summarise(Run.load(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        detail = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise SpecError(
            "{folder}: not a run folder that can be read ({detail}); allowed: another one", folder, detail
        ) from None


def shown(value: float | bool | None) -> str:
    """A parameter of the law, seconds down to 1e-12; a dash where there is none."""
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _calibration() -> None:
    name = st.selectbox(t("Profile"), names("profiles"), key="bench_profile")
    profile = load_profile(name)
    file = profile.file
    assert file is not None
    badge(message("[{origin}]", origin([profile])))
    if file.measured is not None:
        st.caption(f"{file.measured.gpu}, vLLM {file.measured.vllm}, {file.measured.date}. {file.measured.how}")
    if file.fit is not None and file.fit.residuals:
        rows = [
            {"kind": kind, "rows": one.rows, "mean": one.mean_abs_pct, "max": one.max_abs_pct}
            for kind, one in file.fit.residuals.items()
        ]
        st.altair_chart(charts.how_well_fitted(pd.DataFrame(rows), say), alt=t("Residuals of the fit"))
        read_this(
            t("Bars are the mean error of the fitted law, red ticks the largest. Short bars: it follows the engine.")
        )
    if file.validity is not None:
        valid = file.validity
        st.markdown(
            t(
                "Measured for batches of {batch}, contexts of {context} and steps of {prefill} prompt tokens; "
                "beyond that a prediction says that it extrapolates.",
                batch="{}–{}".format(*valid.batch),
                context="{}–{}".format(*valid.context),
                prefill="{}–{}".format(*valid.prefill_tokens),
            )
        )
    for note in file.notes:
        st.caption(note)
    errors = {} if file.fit is None else file.fit.standard_errors
    law = [
        {t("Parameter"): key, t("Value"): shown(value), "±": shown(errors.get(key))}
        for key, value in file.step.model_dump().items()
    ]
    st.dataframe(pd.DataFrame(law), hide_index=True)
