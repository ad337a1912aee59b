"""The one bar of a question: how far its answer is, how long yet, and Cancel."""

from __future__ import annotations

import time
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from planner.run.tables import Progress
from planner.ui import compute
from planner.ui.scenario import Scenario
from planner.ui.texts import t
from planner.ui.waiting import Bar, rounded

T = TypeVar("T")

# From where to where of the whole each part is, by the time that they take.
PARTS = {
    "gpus": {"look": (0.0, 0.25), "count": (0.25, 0.3), "sure": (0.3, 0.92), "load": (0.92, 1.0)},
    "fewest": {"count": (0.0, 0.15), "look": (0.15, 0.35), "sure": (0.35, 0.92), "load": (0.92, 1.0)},
}


class Waiting:
    """The bar of a question where a page shows it: nothing until there is something to wait for."""

    def __init__(self, asked: Scenario, now: Scenario | None = None) -> None:
        """`now`: the question with its number of GPUs, where that was counted."""
        self._asked, self._now = asked, now
        self._whole = st.empty()
        self._line: DeltaGenerator | None = None
        kept: tuple[Scenario, Bar] | None = st.session_state.get("bar")
        self._bar = kept[1] if kept is not None and kept[0] == asked else Bar(PARTS[asked.want])
        st.session_state["bar"] = (asked, self._bar)

    def part(self, part: str, text: str) -> Progress:
        """What hears how far a part of the answer is. `text` says what is done."""

        def tell(stage: str, share: float) -> None:
            if self._line is None:
                with self._whole.container(horizontal=True, vertical_alignment="center"):
                    self._line = st.empty()
                    st.button(
                        t("Cancel"), icon=":material/close:", key="cancel" if self._now is None else "cancel_now",
                        on_click=cancel, args=(self._asked, self._now or self._asked),
                    )  # fmt: skip
            now_s = time.monotonic()
            whole, left = self._bar.at(part, stage, share, now_s), self._bar.left_s(now_s)
            self._line.progress(whole, text=f"{text} · {_left(left)}")

        return tell

    def end(self) -> None:
        self._whole.empty()
        self._line = None


def _left(seconds: float | None) -> str:
    if seconds is None:
        return t("time left: not known yet")
    count, unit = rounded(seconds)
    return t("about {n} s left", n=count) if unit == "s" else t("about {n} min left", n=count)


def cancel(asked: Scenario, now: Scenario) -> None:
    """Work on a question no longer; its pages show what is known."""
    st.session_state["cancelled"] = asked
    compute.give_up(asked)
    compute.give_up(now)


def go_on() -> None:
    st.session_state["cancelled"] = st.session_state["bar"] = None


def cancelled(asked: Scenario) -> bool:
    return bool(st.session_state.get("cancelled") == asked)


def offer_to_go_on(text: str) -> None:
    """What stands in the place of the bar of a question that was cancelled."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(text, icon=":material/cancel:")
        st.button(t("Go on"), icon=":material/play_arrow:", key="go_on", on_click=go_on)


def unless_cancelled(asked: Scenario, known: T | None) -> T | None:
    """What is known of a question; nothing known of a cancelled one ends the page here."""
    if known is None and cancelled(asked):
        offer_to_go_on(t("Cancelled before anything was known."))
        st.stop()
    return known
