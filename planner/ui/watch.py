"""Watch: a running stack against its plan, live from the folder that `planner watch` writes, or from a recording."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import streamlit as st

from planner import charts
from planner.report.words import number, percent
from planner.ui import uploads
from planner.ui.frame import guarded, read_this, title
from planner.ui.texts import say, t
from planner.watching.scrape import RECORDINGS
from planner.watching.tables import SAID, Said, read_watch, replayed
from planner.watching.watch import clock

RUNS = Path("runs")
REFRESH_S = 10.0
LATEST = 8  # of what was noticed, in sight at once
LIVE_S = 300.0  # a folder that was written within so long goes on
FIRST = "pair"
METRICS = ("ttft", "tpot", "e2e")
# What the recordings that ship are of, for the list to choose from.
ABOUT = {
    "pair": "a true pair whose load changed and whose decode engine was held up",
    "engine": "one engine for 20 minutes: a load that changes, and a throttle",
    "no-connector": "a pair whose connector is off",
    "local-prefill": "a pair whose decode engine prefills",
    "slow-link": "a pair whose link is overloaded",
    "small-budget": "one engine, started again with a small token budget",
}

COMMAND = """planner watch CONFIG --endpoint http://HOST:8000
planner watch CONFIG --metrics prefill=http://HOST:8100 --metrics decode=http://HOST:8200
planner watch --replay {name}"""


@guarded
def page() -> None:
    title(t("Watch"), t("A running stack held against its plan, interval by interval, from its counters alone."))
    left, right = st.columns(2)
    with right:
        given = st.file_uploader(t("Upload a recording"), type=["jsonl", "gz"], key="watch_upload")
        if given is not None:
            kept = uploads.keep(given.name, given.getvalue())
            if st.session_state.get("watch_uploaded") != kept:  # chosen once; the list stays free to choose from
                st.session_state["watch_uploaded"] = st.session_state["watch_of"] = kept
    recorded, here = recordings(), folders()
    known = [*recorded, *here, *uploads.mine()]
    asked = st.session_state.get("watch_of")
    st.session_state["watch_of"] = asked if asked in known else FIRST
    with left:
        name = st.selectbox(t("What was watched"), known, format_func=_label, key="watch_of")
        read_this(t("Watches of this machine come from the folder runs, and are brought up to date while they go on."))
    if name in here:
        _live(here[name])
        return
    path = recorded.get(name) or uploads.file_of(name)
    assert path is not None  # both lists hold files that are there
    with st.spinner(t("Replaying …")):
        table, said, source = _replayed(str(path), path.stat().st_mtime_ns)
    st.badge(t("recorded, replayed now"), color="green", icon=":material/verified:")
    _shown(table, said)
    if source:
        st.caption(source)
    st.markdown(t("The same in a terminal, and for a stack of yours:"))
    st.code(COMMAND.format(name=name if name in recorded else "FILE"), language="bash")


def recordings() -> dict[str, Path]:
    """Recordings that ship, by name; the first one first."""
    found = {path.name.partition(".")[0]: path for path in sorted(RECORDINGS.glob("*.jsonl.gz"))}
    return {FIRST: found[FIRST]} | found


def folders() -> dict[str, Path]:
    """Watches in the folder runs, the newest first."""
    found = sorted(RUNS.glob(f"*/{SAID}"), key=lambda path: -path.stat().st_mtime)
    return {f"runs/{path.parent.name}": path.parent for path in found}


def _label(name: str) -> str:
    about = ABOUT.get(name)
    return f"{name}: {t(about)}" if about else uploads.shown(name)


@st.cache_data(max_entries=8, show_spinner=False)
def _replayed(path: str, changed_ns: int) -> tuple[pd.DataFrame, Said, str]:
    return replayed(Path(path))


@st.fragment(run_every=REFRESH_S)
def _live(folder: Path) -> None:
    table, said = read_watch(folder)
    if time.time() - (folder / SAID).stat().st_mtime < LIVE_S:
        st.badge(t("live"), color="green", icon=":material/sensors:")
    else:
        st.badge(t("ended"), color="gray", icon=":material/stop_circle:")
    _shown(table, said)


def _shown(table: pd.DataFrame, said: Said) -> None:
    for text in (said.sentence, said.closing):
        if text:
            st.markdown(f"**{say(text)}**")
    last = table.iloc[-1]
    seen = table["end_unix_s"].iloc[-1] - table["start_unix_s"].iloc[0]
    figures = (
        (t("Intervals"), f"{len(table):,}", t("Over {minutes} minutes.", minutes=number(seen / 60))),
        (t("Inside the 90 % intervals"), percent(held(table)), t("Of all that was judged so far.")),
        (
            t("Prompts take"),
            f"x{last['level_prompts']:.2f}",
            t("Times as long as the profile says, as fitted last."),
        ),
        (t("Decodes take"), f"x{last['level_decodes']:.2f}", t("Times as long as the profile says, as fitted last.")),
    )
    with st.container(horizontal=True, gap="large"):
        for label, value, meaning in figures:
            st.metric(label, value, help=meaning, width="content")
    told = [(at, say(text)) for at, text in said.events]
    metric = st.segmented_control(
        t("Metric"), METRICS, format_func=str.upper, default="ttft", key="watch_metric", label_visibility="collapsed"
    )
    chart = charts.how_it_held(table, metric or "ttft", told, say)
    st.altair_chart(chart, alt=t("Predicted and measured over time"))
    read_this(
        t("The band should hold nine points in ten. The dashed line is the prediction, grey lines are what is below.")
    )
    left, right = st.columns(2)
    with left:
        st.subheader(t("What it noticed"), anchor=False)
        lines = [f"**{clock(at)}** {text}" for at, text in reversed(told)]
        for line in lines[:LATEST] or [t("No change of the traffic or the engines so far.")]:
            st.markdown(line)
        if lines[LATEST:]:  # not a box that scrolls: a keyboard does not reach into it
            with st.expander(t("{n} earlier", n=len(lines) - LATEST)):
                for line in lines[LATEST:]:
                    st.markdown(line)
    with right:
        if said.evidence:
            st.subheader(t("Is it P/D?"), anchor=False)
            for text in said.evidence:
                st.markdown(f"- {say(text)}")


def held(table: pd.DataFrame) -> float | None:
    """The share of all judged figures that their intervals held; None before the first."""
    inside = judged = 0
    for name in (column.removesuffix("_low") for column in table.columns if column.endswith("_low")):
        known = table.dropna(subset=[f"{name}_{what}" for what in ("low", "high", "measured")])
        judged += len(known)
        inside += int(known[f"{name}_measured"].between(known[f"{name}_low"], known[f"{name}_high"]).sum())
    return inside / judged if judged else None
