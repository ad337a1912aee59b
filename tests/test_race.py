"""How many lists of requests a race takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.suggestion.race import DOUBT, LOOK, Race, is_beyond_doubt
from planner.suggestion.suggest import suggest
from planner.suggestion.verdict import Advantage, decide


def word(found: Advantage) -> str:
    return decide(found, 0.05, 0.03)


@given(st.floats(-0.9, 2), st.floats(0, 0.3), st.floats(0, 0.3))
def test_what_is_beyond_doubt_is_no_other_verdict_anywhere_in_the_wider_interval(
    value: float, below: float, above: float
) -> None:
    found = Advantage(value, value - below, value + above)
    if is_beyond_doubt(found, word):
        for width in (0.0, 0.5, 1.0, DOUBT):
            assert word(Advantage(value, value - width * below, value + width * above)) == word(found)


@pytest.mark.parametrize(
    ("found", "sure"),
    [
        (Advantage(0.5, 0.45, 0.55), True),
        (Advantage(0.5, 0.4, 0.6), False),  # clear, but how much more it is nobody knows well
        (Advantage(0.10, 0.085, 0.12), False),  # worth it, but hardly
        (Advantage(0.10, 0.05, 0.15), False),  # too close to call, which a narrower interval need not be
        (Advantage(0.05, 0.04, 0.06), True),  # however narrow, within what the profile leaves open
        (Advantage(-0.3, -0.32, -0.28), True),
    ],
)
def test_doubt(found: Advantage, sure: bool) -> None:
    assert is_beyond_doubt(found, word) is sure


def test_a_clear_answer_takes_the_first_lists_and_says_so() -> None:
    asked = planner.load("disagg", ["workload.prompt_tokens=300", "workload.output_tokens=300", "slo.tpot_ms=12"])
    found = suggest(asked, 2, seeds=4, requests=150, processes=1)
    assert (found.seeds, found.seeds_asked) == (LOOK, 4)
    assert all(row.seeds == LOOK for row in found.rows if row.refined)
    assert found.verdict is not None
    every = suggest(asked, 2, seeds=LOOK, requests=150, processes=1)
    assert every.verdict == found.verdict
    assert (every.seeds, every.seeds_asked) == (LOOK, LOOK)


def test_where_it_is_in_doubt_every_list_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same question, but nothing is ever sure: the runs of the first lists are kept and the others join them."""
    monkeypatch.setattr("planner.suggestion.race.DOUBT", 1e9)
    asked = planner.load("disagg", ["workload.prompt_tokens=300", "workload.output_tokens=300", "slo.tpot_ms=12"])
    found = suggest(asked, 2, seeds=4, requests=150, processes=1)
    assert (found.seeds, found.seeds_asked) == (4, 4)
    assert {row.seeds for row in found.rows if row.refined} == {4}


def test_one_list_has_no_others() -> None:
    assert not Race(planner.load("disagg"), 2, [0], lambda *_: []).needs_all([])
