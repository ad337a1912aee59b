"""Check for real: pre-flight, the plan, start, progress, stop, and how close the simulation was."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import streamlit as st

from live.needs import INSTALL_CPU
from planner import charts
from planner.commands import doctor
from planner.messages import message
from planner.report import printing
from planner.report.words import number
from planner.run.metrics import summarise
from planner.run.tables import Run
from planner.spec import Spec, SpecError, dump, load, parse
from planner.ui import compute, jobs
from planner.ui.answer import answered
from planner.ui.frame import badge, failed, guarded, link, read_this, scenario, title
from planner.ui.recorded import about, recorded_runs
from planner.ui.texts import fault, say, t
from planner.validation import parity

START_S = {"gpu": 300, "ray": 300, "cpu": 45}  # seconds: servers and warm-up; on GPUs a calibration too
CALIBRATION_S = 90  # on the CPU
CPU_CONFIGS = {"1P1D": "cpu-1p1d", "aggregated": "cpu-agg"}


@st.cache_data(ttl=60, show_spinner=False)
def machine() -> doctor.Machine:
    return doctor.this_host()


@guarded
def page() -> None:
    title(
        t("Check for real"),
        t("The same file on real vLLM servers, the same requests, and the error of the simulation."),
    )
    job = jobs.latest()
    if job is not None and jobs.running(job):
        _watch(job)
        return
    if job is not None:
        _ended(job)
    _preflight()
    _plan()
    _show_recorded()


# --- before ------------------------------------------------------------------------------------


def _preflight() -> None:
    st.subheader(t("What can run here"), anchor=False)
    here = machine()
    rows = [
        {
            t("Check"): say(check.what),
            t("Works"): "✔" if check.works else "✘",
            t("What was found"): say(check.detail),
            t("To make it work"): say(check.fix),
        }
        for check in doctor.checks(here)
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True)
    memory = "" if here.memory_gb is None else f"{here.memory_gb:.0f} GB"
    st.caption(
        t("{cores} CPU cores, {memory} memory, {count} GPUs", cores=here.cores, memory=memory, count=len(here.gpus))
        + "".join(f" · {gpu}" for gpu in here.gpus)
    )


@dataclass(frozen=True, slots=True)
class LivePlan:
    """What a press of Start runs. `endpoints`: servers that run already; `ray`: the address of a cluster."""

    spec: Spec
    endpoints: tuple[str, ...] = ()
    ray: str | None = None
    calibrate: bool = True
    before_s: float = 0.0  # until the load begins


def _plan() -> None:
    st.subheader(t("The plan"), anchor=False)
    here = machine()
    ways: dict[str, tuple[str, Callable[[], LivePlan | None]]] = {}
    if here.vllm is not None and here.gpus:
        ways["gpu"] = (t("On the GPUs here"), _on_gpus)
    if here.vllm is not None and "cpu" in here.vllm:
        ways["cpu"] = (t("On the CPU, with a small model"), _on_cpu)
    ways["endpoints"] = (t("On servers that run already"), _on_endpoints)
    ways["ray"] = (t("On a Ray cluster"), _on_ray)
    if "gpu" not in ways and "cpu" not in ways:
        st.info(
            t("Servers cannot be started here yet; this installs vLLM for the CPU, with real P/D on a small model:")
        )
        st.code(INSTALL_CPU, language="bash")
    way = st.radio(t("Where"), list(ways), format_func=lambda key: ways[key][0], horizontal=True, key="check_way")
    try:
        plan = ways[way][1]()
        if plan is not None:
            _estimate(plan)
        _start(plan)
    except (SpecError, ChildProcessError) as error:
        failed(error)


def _estimate(plan: LivePlan) -> None:
    """How long it takes, the command and the file."""
    run = compute.run_of(dump(plan.spec))
    load_s = float(run.requests["finish_s"].max())
    st.markdown(
        t(
            "{requests} requests in {load} s; with starting and stopping about {minutes} minutes.",
            requests=len(run.requests),
            load=number(load_s),
            minutes=number(max(1, round((load_s + plan.before_s) / 60))),
        )
    )
    shown = jobs.command(Path("config.yaml"), Path("runs/check"), plan.endpoints, plan.ray, plan.calibrate)[3:]
    st.code("planner " + shlex.join(part for part in shown if part != "--json"), language="bash")
    with st.expander(t("The file"), icon=":material/data_object:"):
        st.code(dump(plan.spec), language="yaml")


def _on_gpus() -> LivePlan:
    """The suggested deployment where it fits; else the largest part of it at its share of the rate."""
    from planner.suggestion.splits import apply
    from planner.suggestion.verify import largest_part
    from planner.suggestion.words import pick
    from planner.traffic.workload import at_rate

    now, found = answered(scenario())
    chosen = pick(found.rows, found.verdict)
    part = largest_part(chosen.split, chosen.rate, len(machine().gpus))
    if part is None:
        raise SpecError(
            "{name}: needs {gpus} GPUs, {found} are here; allowed: fewer", chosen.name, chosen.gpus, len(machine().gpus)
        )
    for line in (*part.tested, *part.untested):
        st.caption(line)
    return LivePlan(at_rate(apply(now.spec(), part.split), part.rate), before_s=START_S["gpu"])


def _on_cpu() -> LivePlan:
    chosen = st.radio(t("Deployment"), list(CPU_CONFIGS), format_func=say, horizontal=True, key="check_cpu")
    st.caption(t("A small model on the CPU checks the method with real servers and a real KV transfer, not your GPUs."))
    calibrate = st.checkbox(
        t("Measure this machine's step times first"), value=True, key="check_calibrate",
        help=t("Takes about {seconds} s. Without it the prediction is a guess from the datasheet, far off on a CPU.",
               seconds=CALIBRATION_S),
    )  # fmt: skip
    before_s = START_S["cpu"] + (CALIBRATION_S if calibrate else 0)
    return LivePlan(load(CPU_CONFIGS[chosen]), calibrate=calibrate, before_s=before_s)


def _on_ray() -> LivePlan:
    """The suggested deployment, whole, on the nodes of a cluster."""
    address = st.text_input(t("Address of a Ray cluster"), key="check_ray", placeholder="127.0.0.1:6379").strip()
    st.caption(t("Left empty: the cluster that this machine belongs to. vLLM must be installed on its nodes."))
    _, found = answered(scenario())
    return LivePlan(parse(found.yaml, "suggested"), ray=address, before_s=START_S["ray"])


def _on_endpoints() -> LivePlan | None:
    text = st.text_area(
        t("Addresses, one a line"), key="check_urls", height=80, placeholder="http://127.0.0.1:8000"
    )  # fmt: skip
    st.caption(
        t("A token is read from the environment variable {name} and never stored.", name=jobs.TOKEN)
        + (t(" ") + t("It is set.") if os.environ.get(jobs.TOKEN) else "")
    )
    urls = [line.strip() for line in text.splitlines() if line.strip()]
    for url in urls:
        if not _is_address(url):
            raise SpecError("{url}: not an address; allowed: http://HOST:PORT or https://...", url)
    left, right = st.columns(2)
    rate = left.number_input(t("Requests per second"), 0.1, 10_000.0, 2.0, key="check_rate")
    count = right.number_input(t("Requests"), 10, 5000, 60, key="check_requests")
    now = scenario()
    spec = now.spec()
    lines = [
        f"workload.rate={rate}", f"workload.requests={count}", "deployment.mode=aggregated",
        f"deployment.replicas={max(1, len(urls))}",
    ]  # fmt: skip
    if not hasattr(spec.workload, "requests") or not hasattr(spec.workload, "rate"):
        lines[0:2] = ["workload.kind=poisson", *lines[0:2]]
    return LivePlan(parse(dump(spec), "check", lines), tuple(urls)) if urls else None


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError beyond 65535
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(map(str.isspace, url))


def _start(plan: LivePlan | None) -> None:
    free = jobs.allowed(str(st.get_option("server.address") or ""))
    if not free:
        st.info(
            t("This page is served beyond this machine, so it starts nothing. {name}=1 allows it.", name=jobs.ALLOW)
        )
    pressed = st.button(
        t("Start the check"), type="primary", icon=":material/play_arrow:", disabled=not free,
        key="check_start",
    )  # fmt: skip
    if pressed and plan is None:
        st.error(t("Type the address of a server first."), icon=":material/error:")
    elif pressed and plan is not None:
        try:
            jobs.start(dump(plan.spec), plan.endpoints, plan.ray, plan.calibrate)
        except jobs.Busy as error:
            failed(error)
        else:
            st.rerun()


# --- during ------------------------------------------------------------------------------------


def _watch(job: jobs.Job) -> None:
    if jobs.stopping(job):
        text = t("Stopping: what was measured is kept. Servers take up to a minute to end; after it, Stop kills them.")
        st.warning(text, icon=":material/stop:")
    else:
        text = t("A check is running. You may close or reload this page: it goes on.")
        st.info(text, icon=":material/hourglass_top:")
    free = jobs.allowed(str(st.get_option("server.address") or ""))
    st.button(
        t("Stop"), icon=":material/stop:", key="check_stop", disabled=not free, on_click=jobs.stop, args=(job,),
        help=t("Sends nothing more, ends the servers, and keeps what was measured."),
    )  # fmt: skip
    _progress(job)


@st.fragment(run_every=1.5)
@guarded
def _progress(job: jobs.Job) -> None:
    if not jobs.running(job):
        st.rerun()
    steps = jobs.steps(job)
    if steps:
        last = steps[-1]
        st.progress(last.share, text=f"{say(last.stage)}: {last.share:.0%}, {last.seconds:.0f} s")
    else:
        st.progress(0.0, text=t("Starting …"))
    loading = jobs.latest_load(steps)
    if loading:
        begun = loading[0].seconds
        sofar = pd.DataFrame([{"time_s": step.seconds - begun, "share": step.share} for step in loading])
        expected = charts.done_table(compute.run_of((job.path / "config.yaml").read_text()))
        st.altair_chart(charts.how_many_done(expected, sofar, say), alt=t("Requests finished over time"))
        read_this(t("The dashed line is the simulation. Points below it: the servers are slower than predicted."))
    with st.expander(t("Log")):
        st.code(jobs.log(job)[-4000:] or " ", language=None)


# --- after -------------------------------------------------------------------------------------


def _ended(job: jobs.Job) -> None:
    state = jobs.state(job)
    if state == "stopped":
        st.warning(t("The last check was stopped."), icon=":material/stop:")
        return
    if state == "failed":
        st.error(t("The last check failed: {fault}", fault=fault(jobs.fault(job))))
        with st.expander(t("Log")):
            st.code(jobs.log(job)[-6000:], language=None)
        return
    st.subheader(say(_sentence(job.run_folder)), anchor=False)
    badge(message("[{origin}]", message("measured")))
    _compared(job.run_folder / "simulated", job.run_folder)


def _sentence(folder: Path) -> str:
    """The answer of a check: how far off the prediction was, or what was served where there is none."""
    measured = Run.load(folder)
    if (folder / "simulated" / "manifest.json").exists():
        return parity.compare(Run.load(folder / "simulated"), measured).sentence()
    return printing.sentence(summarise(measured))


@guarded
def _compared(simulated: Path, measured: Path) -> None:
    """Parity plots, the error table and the waterfall of both."""
    if not (simulated / "manifest.json").exists():
        st.info(t("This run has no simulation beside it."))
        return
    ours, theirs = Run.load(simulated), Run.load(measured)
    comparison = parity.compare(ours, theirs)
    columns = st.columns(2)
    for column, metric in zip(columns, ("ttft", "tpot"), strict=True):
        with column:
            st.altair_chart(charts.how_close(ours, theirs, metric, say), alt=t("Simulated against measured"))
    read_this(t("Each point is a request. On the dashed line simulation and measurement agree."))
    left, right = st.columns(2)
    with left:
        st.altair_chart(charts.how_far_off(comparison, say), alt=t("Errors with their intervals"))
    with right:
        rows = [
            {
                t("Metric"): charts.name_of(e, say),
                t("simulated"): charts.valued(e, e.predicted),
                t("measured"): charts.valued(e, e.measured),
                t("error"): _signed(e.error),
            }
            for e in comparison.errors
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, height="content")
    st.caption(say(comparison.tokens.sentence()))
    for warning in dict.fromkeys([*map(str, theirs.manifest.get("warnings") or ()), *comparison.warnings]):
        st.warning(say(warning))


def _signed(share: float) -> str:
    text = f"{100 * share:+z.1f}"
    return f"{'0.0' if text in ('-0.0', '+0.0') else text} %"


def _show_recorded() -> None:
    found = recorded_runs()
    if not found or machine().gpus:
        return
    st.divider()
    st.subheader(t("A recorded run"), anchor=False)
    name = next(iter(found)) if len(found) == 1 else st.selectbox(t("Recorded run"), list(found), key="check_recorded")
    folder = found[name]
    st.badge(t("recorded earlier on a GPU, not on this machine"), color="violet", icon=":material/history:")
    measured = Run.load(folder)
    comparison = parity.compare(Run.load(folder / "simulated"), measured)
    st.markdown(f"**{say(comparison.sentence())}**")
    st.caption(say(about(measured)))
    _compared(folder / "simulated", folder)
    link("why", t("See the curves"), ":material/query_stats:")
