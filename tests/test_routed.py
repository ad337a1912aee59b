"""Who is routed where in a comparison of sessions."""

from __future__ import annotations

import pytest

import planner
from planner.spec import Spec, dump, parse
from planner.suggestion.probe import Period
from planner.suggestion.splits import PoolSize, Split, apply
from planner.suggestion.suggest import suggest
from planner.suggestion.tasks import SearchTask, search
from planner.suggestion.tune import BeginTask, begin
from planner.suggestion.tuning import ROUTINGS, STICKY, is_routed, kept, knobs

CHATS = (
    "workload={kind: sessions, rate: 1, sessions: 60, turns: 6, think_time_s: 1, system_tokens: 2000, "
    "prompt_tokens: 600, output_tokens: 100}"
)


def chats(*more: str) -> Spec:
    return planner.load("disagg", [CHATS, "slo={ttft_ms: 1000, tpot_ms: 30}", *more])


def begun(spec: Spec, split: Split) -> str | None:
    return begin(BeginTask(spec, split, 0)).tuning.router


def test_sessions_begin_where_their_histories_are() -> None:
    several, pools = Split(PoolSize(4, 1)), Split(PoolSize(2, 1), PoolSize(2, 1))
    assert begun(chats(), several) == begun(chats(), pools) == STICKY
    assert begun(chats(), Split(PoolSize(1, 4))) is None  # one worker: nothing to choose
    assert begun(planner.load("disagg"), several) is None  # no history: nothing to find


@pytest.mark.parametrize(
    "given",
    ["deployment.router.policy=least_loaded", "deployment.router.preset=report", "deployment.prefill.router={}"],
)
def test_a_router_that_the_file_names_is_kept(given: str) -> None:
    split = Split(PoolSize(2, 1), PoolSize(2, 1))
    assert begun(chats(given), split) is None
    assert not any("router" in value for values in knobs(apply(chats(given), split), True) for value in values)
    assert "deployment.router.policy" in kept(apply(chats(given), split))


def test_every_routing_is_a_knob_and_is_written_out() -> None:
    split = Split(PoolSize(4, 1))
    values = [value for values in knobs(apply(chats(), split), False) for value in values]
    assert [value["router"] for value in values if "router" in value] == [*ROUTINGS]
    assert apply(chats(), begin(BeginTask(chats(), split, 0))).deployment.router.policy == STICKY


def test_engines_that_keep_sessions_serve_more() -> None:
    """Turns that go wherever there is least to do find their history there one time in four."""

    def rate(policy: str) -> float:
        one = apply(chats(f"deployment.router.policy={policy}"), Split(PoolSize(4, 1)))
        return search(SearchTask(one, 0, None, 0.05, 1.25, Period(15.0, 4.0, 3.0))).found.rate

    assert rate(STICKY) > 1.2 * rate("least_loaded")


def test_the_answer_says_which_router_it_needs() -> None:
    found = suggest(chats(), 2, seeds=1, requests=150, processes=1, quick=True)
    several = next(row for row in found.rows if row.name == "2 agg")
    assert several.split.tuning.router == STICKY
    assert "policy: session_affinity" in dump(apply(chats(), several.split))


def test_a_router_that_is_named_is_named_still_once_written() -> None:
    """Also the one that a file without a router has: pages pass questions on as text."""
    for given in (["deployment.router.policy=least_loaded"], ["deployment.router.policy=prefix_aware"]):
        assert is_routed(parse(dump(chats(*given))))
    assert not is_routed(parse(dump(chats())))
