"""The pages of the app and the navigation between them."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from planner.ui import answer, ask, check, compute, replay, why, workbench
from planner.ui.frame import begin
from planner.ui.texts import t


def main() -> None:
    """One run of the app."""
    st.set_page_config(page_title="LLM capacity planner", page_icon=":material/call_split:", layout="wide")
    begin()
    compute.pool()  # its processes start while the first page is read
    made: dict[str, tuple[Callable[[], None], str, str]] = {
        "ask": (ask.page, t("Ask"), ":material/help:"),
        "answer": (answer.page, t("Answer"), ":material/lightbulb:"),
        "why": (why.page, t("Why"), ":material/query_stats:"),
        "check": (check.page, t("Check for real"), ":material/fact_check:"),
        "replay": (replay.page, t("Replay"), ":material/replay:"),
        "workbench": (workbench.page, t("Workbench"), ":material/build:"),
    }
    pages = {
        name: st.Page(function, title=title, icon=icon, url_path=name, default=name == "ask")
        for name, (function, title, icon) in made.items()
    }
    st.session_state["pages"] = pages
    current = st.navigation(list(pages.values()), position="top")
    current.run()
