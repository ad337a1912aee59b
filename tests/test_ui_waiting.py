"""Waiting: a bar that never goes back, work that sessions share, and what Cancel ends."""

from __future__ import annotations

import threading

import pytest

from planner.ui import waiting
from planner.ui.bar import PARTS
from planner.ui.scenario import read
from planner.ui.waiting import Answers, Bar, GivenUp, Work, rounded
from ui_pages import SMALL, opened, small_machine  # noqa: F401 (small_machine is a fixture of every test here)

PARTS_OF_TWO = {"sure": (0.0, 0.5), "load": (0.5, 1.0)}


@pytest.mark.parametrize("parts", PARTS.values())
def test_parts_of_a_question_follow_each_other(parts: dict[str, tuple[float, float]]) -> None:
    ends = [end for _, end in parts.values()]
    assert [begin for begin, _ in parts.values()] == [0.0, *ends[:-1]]
    assert ends[-1] == 1.0


def test_the_bar_never_goes_back_and_counts_down() -> None:
    bar = Bar(PARTS_OF_TWO)
    told = [("sure", "search", 1.0), ("sure", "search", 0.2), ("sure", "link", 1.0), ("load", "", 0.5)]
    shares = [bar.at(*one, now_s=10.0 * at) for at, one in enumerate(told)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.75)
    first = shares[0]
    assert bar.left_s(30.0) == pytest.approx(0.25 * 30.0 / (0.75 - first))
    assert Bar(PARTS_OF_TWO).left_s(5.0) is None


def test_the_quick_beginning_promises_nothing() -> None:
    """Estimates of every split come in a second; the first simulation of a large one in many."""
    bar = Bar({"look": (0.0, 1.0)})
    for share, now_s in ((0.1, 0.0), (1.0, 2.0)):
        bar.at("look", "estimate", share, now_s)
    assert bar.left_s(2.0) is None
    bar.at("look", "search", 0.0, 3.0)
    bar.at("look", "search", 1.0, 23.0)
    assert bar.left_s(23.0) == pytest.approx((1 - bar.share) * 20.0 / (bar.share - 0.25))


def test_time_left_is_said_in_whole_steps() -> None:
    assert [rounded(seconds) for seconds in (0.3, 42.0, 95.0, 400.0)] == [(5, "s"), (40, "s"), (2, "min"), (7, "min")]


class Held:
    """Work that lasts until it is let go, and asks whether to go on meanwhile."""

    def __init__(self) -> None:
        self.begun, self.let_go, self.times = threading.Event(), threading.Event(), 0

    def __call__(self, work: Work[int]) -> int:
        self.times += 1
        self.begun.set()
        while not self.let_go.wait(0.01):
            work.going()
        return 7


def waiter(answers: Answers, held: Held, stop: threading.Event | None = None) -> tuple[threading.Thread, list[object]]:
    """A session that waits in a thread, and goes away at the next look when `stop` is set."""
    found: list[object] = []

    def tell(stage: str, share: float) -> None:
        if stop is not None and stop.is_set():
            raise InterruptedError

    def wait() -> None:
        try:
            found.append(answers.get("key", held, tell))
        except InterruptedError as fault:
            found.append(fault)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, found


def test_two_sessions_wait_for_one_work_and_one_may_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    answers, held, stop = Answers(), Held(), threading.Event()
    one, first = waiter(answers, held, stop)
    two, second = waiter(answers, held)
    held.begun.wait(30)
    stop.set()
    one.join(30)
    assert isinstance(first[0], InterruptedError)
    answers.drop("key")
    held.let_go.set()
    two.join(30)
    assert (second, held.times, answers.known("key")) == ([7], 1, 7)


def test_work_that_nobody_waits_for_ends_and_may_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.01)
    answers, held, stop = Answers(), Held(), threading.Event()
    stop.set()
    one, _ = waiter(answers, held, stop)
    one.join(30)
    answers.drop("key")
    held.let_go.set()
    assert answers.known("key") is None
    assert answers.get("key", held) == 7
    assert held.times == 2


def test_abandoned_work_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    work: Work[int] = Work(lambda work: 1, lambda work: None)
    work.going()
    monkeypatch.setattr(waiting, "ABANDONED_S", -1.0)
    with pytest.raises(GivenUp):
        work.going()


def test_a_cancelled_question_says_so_and_goes_on() -> None:
    app = opened("answer", gpus="1", rate="0.31")  # nothing is known of this question
    app.session_state["cancelled"], _ = read({**SMALL, "gpus": "1", "rate": "0.31"})
    app.run()
    assert not app.exception
    assert [one.value for one in app.info] == ["Cancelled before anything was known."]
    assert not app.subheader
    app.button(key="go_on").click().run()
    assert not app.exception
    assert not app.info
    assert "0.31 requests/s needs 1 GPU" in app.subheader[0].value
