"""What every page has: navigation, the language, the scenario in the URL, and how errors and answers look."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import ParamSpec

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from planner.run.metrics import METRICS
from planner.spec import SpecError
from planner.traffic.formats import FORMATS
from planner.ui.scenario import LANGUAGE, Scenario, read
from planner.ui.texts import LANGUAGES, fault, say, t

P = ParamSpec("P")


def begin() -> None:
    """Language and scenario: from the URL on a first visit, else from the session; then the URL follows the session."""
    if "scenario" not in st.session_state:
        found, faults = read(st.query_params.to_dict())
        st.session_state["scenario"], st.session_state["faults"] = found, faults
        wanted = st.query_params.get(LANGUAGE, "")
        preferred = "zh" if (st.context.locale or "").startswith("zh") else "en"
        st.session_state["lang"] = wanted if wanted in LANGUAGES else preferred
    remember(scenario())


def scenario() -> Scenario:
    found: Scenario = st.session_state["scenario"]
    return found


def params(of: Scenario) -> dict[str, str]:
    lang = st.session_state["lang"]
    return {**of.params(), **({LANGUAGE: lang} if lang != "en" else {})}


def remember(now: Scenario) -> None:
    """Make `now` the session's scenario and its URL."""
    st.session_state["scenario"] = now
    wanted, there = params(now), st.query_params.to_dict()
    ours = {*(field.name for field in fields(Scenario)), LANGUAGE}
    if {name: value for name, value in there.items() if name in ours} != wanted:
        others = {name: value for name, value in there.items() if name not in ours}
        st.query_params.from_dict({**others, **wanted})


def _language() -> None:
    """The switch beside the title."""

    def switch() -> None:
        st.session_state["lang"] = st.session_state["language_switch"] or st.session_state["lang"]
        remember(scenario())

    st.session_state["language_switch"] = st.session_state["lang"]
    st.segmented_control(
        t("Language"), list(LANGUAGES), format_func=LANGUAGES.__getitem__, key="language_switch", on_change=switch,
        label_visibility="collapsed",
    )  # fmt: skip


def go(name: str) -> None:
    """Another page, with the scenario in its URL."""
    page: StreamlitPage = st.session_state["pages"][name]
    st.switch_page(page, query_params=params(scenario()))


def link(name: str, label: str, icon: str) -> None:
    """A link to another page; plain text where a page is shown by itself."""
    pages = st.session_state.get("pages")
    if pages is None:
        st.markdown(f"{icon} {label}")
    else:
        st.page_link(pages[name], label=label, icon=icon, query_params=params(scenario()))


def title(text: str, about: str) -> None:
    """The head of a page: what it is for, the switch of language, and once what of the address cannot be used."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.title(text, anchor=False, width="content")
        _language()
    st.caption(about)
    for one in st.session_state.pop("faults", []):
        st.warning(t("Of the address this cannot be used: {fault}", fault=fault(one)))


DOUBTS = ("step times are the roofline's", "times are not to be trusted", "scaled from it by the roofline")


def doubts(notes: Sequence[str]) -> list[str]:
    """Of the notes of an answer or the warnings of a run, those that say that its step times are not measured ones."""
    return [note for note in notes if any(text in note for text in DOUBTS)]


def badge(provenance: str, notes: Sequence[str] = ()) -> None:
    """Where numbers are from: measured, calibrated on ..., or simulated. `provenance` is the text in brackets.

    `notes` with doubts about the step times stand beside it, and it is amber then.
    """
    kinds = {"measured": ("green", ":material/verified:"), "calibrated": ("blue", ":material/straighten:")}
    doubtful, amber = doubts(notes), ("orange", ":material/warning:")
    colour, icon = kinds.get(provenance.strip("[]").split(":")[0].split(";")[0], amber) if not doubtful else amber
    st.badge(say(provenance).strip("[]"), color=colour, icon=icon)  # type: ignore[arg-type]
    for note in doubtful:
        st.markdown(f":orange[{say(note)}]")


def help_of(metric: str) -> str:
    """The catalogue's definition of a metric."""
    return say(METRICS[metric].help)


def read_this(text: str) -> None:
    """How to read the chart above."""
    st.caption(f":material/visibility: {text}")


def about_traces() -> None:
    """What an uploaded trace may be."""
    known = ", ".join(f"`{name}`" for name in FORMATS if name != "columns")
    st.caption(
        t("CSV or JSON lines with a time, prompt_tokens and output_tokens, or {formats}; plain or gzip.", formats=known)
    )


def failed(error: Exception) -> None:
    """A user's mistake, or a file that has gone: one line, with what is allowed."""
    st.error(fault(error), icon=":material/error:")


def guarded(part: Callable[P, None]) -> Callable[P, None]:
    """A page, or a part of it, that says in one line what its user or the disk did wrong; the log has the rest."""

    @wraps(part)
    def shown(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            part(*args, **kwargs)
        except (OSError, ValueError) as error:
            if not isinstance(error, SpecError):
                logging.getLogger(__name__).exception("%s.%s", part.__module__, part.__name__)
            failed(error)

    return shown
