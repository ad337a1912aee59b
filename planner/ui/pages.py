"""The pages of the app and the navigation between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from planner.ui import answer, ask, check, compute, deploy, replay, watch, why, workbench
from planner.ui.frame import begin
from planner.ui.texts import t

ICON = Path(__file__).parent / "favicon.png"  # a name of an icon would be fetched from its font's host
# The bar of the answer stays in sight; on a telephone the cards of traffic stand in two columns, and a cell of a table
# has room for a Chinese word. Small print, comments in code, and what is chosen have at least 4.5:1 of contrast, which
# Streamlit's own colours do not.
STYLE = """<style>
[data-testid="stCaptionContainer"] {opacity: .8}
[data-testid="stCaptionContainer"] a {color: light-dark(#00558A, #8CCBF0)}
code .token {color: light-dark(#14507F, #A4CFEF) !important}
code .token.string {color: light-dark(#2B6431, #A3D9A9) !important}
code .token.comment, code .token.shebang {color: light-dark(#55606B, #A9B4BF) !important}
button[aria-checked="true"] p, [data-testid="stSliderThumbValue"] p {color: light-dark(#005A8C, #8CCBF0)}
.stMarkdownBadge {white-space: normal !important}
[data-testid="stMainBlockContainer"] {padding-top: 4.5rem}
[data-testid="stTopNavLink"]:focus-visible {outline: 2px solid light-dark(#005A8C, #8CCBF0)}
.st-key-traffic_cards > * {flex: 1 1 9.5rem !important; width: 9.5rem !important}
[data-testid="stHeading"] h1 {font-size: 2.25rem; padding: .5rem 0}
:has(> .st-key-answer_bar) {position: sticky; bottom: 0; z-index: 90}
.st-key-answer_bar {padding: .6rem 0; border-top: 1px solid #8886; background: Canvas}
.st-key-answer_bar button {white-space: nowrap}
@media (max-width: 640px) {
  .st-key-traffic_cards > * {flex: 1 1 40% !important; width: 40% !important; min-width: 0 !important}
  .st-key-answer_bar {flex-wrap: nowrap}
  [data-testid="stTable"] :is(th, td) {min-width: 4.5rem}
}
</style>"""


def main() -> None:
    """One run of the app."""
    begin()
    st.set_page_config(page_title=t("LLM capacity planner"), page_icon=str(ICON), layout="wide")
    st.html(STYLE)
    # Streamlit has no setting for the language of the page, which screen readers pronounce it by.
    code = {"en": "en", "zh": "zh-Hans"}[st.session_state["lang"]]
    st.html(f"<script>document.documentElement.lang = '{code}'</script>", unsafe_allow_javascript=True)
    compute.pool()  # its processes start while the first page is read
    made: dict[str, tuple[Callable[[], None], str, str]] = {
        "ask": (ask.page, t("Ask"), ":material/help:"),
        "answer": (answer.page, t("Answer"), ":material/lightbulb:"),
        "why": (why.page, t("Why"), ":material/query_stats:"),
        "deploy": (deploy.page, t("Deploy"), ":material/rocket_launch:"),
        "check": (check.page, t("Check for real"), ":material/fact_check:"),
        "replay": (replay.page, t("Replay"), ":material/replay:"),
        "watch": (watch.page, t("Watch"), ":material/monitor_heart:"),
        "workbench": (workbench.page, t("Workbench"), ":material/build:"),
    }
    pages = {
        name: st.Page(function, title=title, icon=icon, url_path=name, default=name == "ask")
        for name, (function, title, icon) in made.items()
    }
    st.session_state["pages"] = pages
    current = st.navigation(list(pages.values()), position="top")
    current.run()
