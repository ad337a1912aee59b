"""multi_round_qa against a plain loop that ticks, joins and steps users as the original does."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import MultiRoundQa, Spec
from planner.traffic.multi_round_qa import MultiRoundQaLoad, join_gap_s, steady_rate, tick_times
from planner.traffic.requests import Arrival
from planner.traffic.workload import at_rate, build, offered_rate


def workload(**fields: Any) -> MultiRoundQa:
    return MultiRoundQa.model_validate({"kind": "multi_round_qa", **fields})


def play(given_workload: MultiRoundQa, service_s: float) -> list[Arrival]:
    load = MultiRoundQaLoad(given_workload)
    sent = load.start()
    ends = [(arrival.time_s + service_s, n) for n, arrival in enumerate(sent)]
    heapq.heapify(ends)
    while ends:
        time_s, n = heapq.heappop(ends)
        for arrival in load.finished(sent[n].request, time_s):
            assert arrival.time_s >= time_s
            heapq.heappush(ends, (arrival.time_s + service_s, len(sent)))
            sent.append(arrival)
    return sorted(sent, key=lambda arrival: (arrival.time_s, arrival.request.session_id))


# --- the loop of the original, in plain words ----------------------------------------------------


@dataclass
class PlainUser:
    number: int
    asked: int = 0
    last_launch_s: float | None = None
    busy_until_s: float = -1.0

    def launches(self, now: float, rounds: int, gap_s: float) -> bool:
        if self.asked >= rounds:
            return False
        if self.last_launch_s is None:
            return True
        return now - self.last_launch_s > gap_s + 1e-9 and now >= self.busy_until_s


def plain_loop(given: MultiRoundQa, service_s: float) -> list[tuple[float, int]]:
    """(time, user) of every launch."""
    gap_s = given.num_users / given.qps
    join_s = gap_s * (given.num_rounds - 1) / given.num_users
    users: list[PlainUser] = []
    for index in range(given.num_users):
        age_s = given.num_users * join_s - index * join_s
        passed = int(age_s / gap_s + 1e-9) + 1
        users.append(PlainUser(given.init_user_id + index + 1, passed, (passed - 1) * gap_s - age_s))
    last_join_s = -1e9  # the original holds an unset time against the epoch: the first tick always joins
    launches, now, last_summary_s, tick, pauses = [], 0.0, 0.0, 0, 0.0
    while True:
        if now - last_join_s > join_s + 1e-9:
            users.append(PlainUser(given.init_user_id + len(users) + 1))
            last_join_s = now
        for user in users:
            if user.launches(now, given.num_rounds, gap_s):
                launches.append((now, user.number))
                user.asked += 1
                user.last_launch_s, user.busy_until_s = now, now + service_s
        tick += 1
        now = tick * given.tick_s + pauses
        if now - last_summary_s > given.log_interval:
            pauses += given.summary_s
            now = last_summary_s = now + given.summary_s
        if now > given.time:
            return launches


@given(
    st.builds(
        workload,
        num_users=st.integers(1, 12),
        num_rounds=st.integers(1, 6),
        qps=st.floats(0.3, 30),
        time=st.floats(0.05, 60),
        init_user_id=st.integers(0, 5),
        tick_s=st.floats(0.1, 0.11),
        summary_s=st.sampled_from([0.0, 0.05, 0.4]),
        log_interval=st.floats(5, 40),
    ),
    st.sampled_from([0.003, 0.7, 4.04, 33.3]),
)
def test_equals_the_plain_loop(given_workload: MultiRoundQa, service_s: float) -> None:
    launches = [(arrival.time_s, arrival.request.session_id) for arrival in play(given_workload, service_s)]
    expected = plain_loop(given_workload, service_s)
    assert [user for _, user in launches] == [user for _, user in expected]
    assert [time_s for time_s, _ in launches] == pytest.approx([time_s for time_s, _ in expected])
    load = MultiRoundQaLoad(given_workload)
    assert load.expected_requests == len(play(given_workload, 0.0)) >= len(launches)


# --- facts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tick_s", "requests"), [(0.1015, 591), (0.1017, 590)])
def test_requests_in_sixty_seconds_of_single_rounds(tick_s: float, requests: int) -> None:
    load = MultiRoundQaLoad(workload(num_rounds=1, tick_s=tick_s, user_history_prompt=2000, qps=10.0))
    sent = load.start()
    assert len(sent) == load.expected_requests == requests
    assert {a.request.prompt_tokens for a in sent} == {3043}
    assert {a.request.shared_tokens for a in sent} == {1008}
    assert load.finished(sent[0].request, 1.0) == []


@pytest.mark.parametrize("fields", [{"qps": 1.0, "num_users": 3}, {"qps": 50.0, "num_users": 70}])
def test_one_round_ignores_users_and_qps(fields: dict[str, Any]) -> None:
    plain = [a.time_s for a in MultiRoundQaLoad(workload(num_rounds=1)).start()]
    assert [a.time_s for a in MultiRoundQaLoad(workload(num_rounds=1, **fields)).start()] == plain


@pytest.mark.parametrize(("rounds", "qps"), [(2, 0.5), (5, 1.0), (20, 2.0)])
def test_offers_more_than_qps(rounds: int, qps: float) -> None:
    """R rounds a join and a join each (R - 1) / q: q * R / (R - 1), up to the rounding of gaps to ticks."""
    given_workload = workload(num_rounds=rounds, qps=qps, num_users=15, time=1500.0, summary_s=0.0)
    steady = [a for a in play(given_workload, 0.01) if a.time_s > 500]
    assert len(steady) / 1000 == pytest.approx(qps * rounds / (rounds - 1), rel=0.03)
    assert len(steady) / 1000 == pytest.approx(steady_rate(given_workload), rel=0.01)


def test_a_slow_server_holds_back_rounds_but_not_joins() -> None:
    given_workload = workload(num_rounds=4, qps=2.0, time=60.0)
    quick, slow = play(given_workload, 0.01), play(given_workload, 1000.0)
    assert len(slow) < len(quick)
    assert {a.request.session_id for a in slow} == {a.request.session_id for a in quick}


def test_joins_drift_to_the_tick_grid() -> None:
    given_workload = workload(num_rounds=2, qps=1.0, tick_s=0.3, time=30.0, summary_s=0.0)
    assert join_gap_s(given_workload) == 1.0
    joined = [a for a in MultiRoundQaLoad(given_workload).start() if a.request.session_id > given_workload.num_users]
    assert [a.time_s for a in joined[:4]] == pytest.approx([0, 1.2, 2.4, 3.6])


def test_later_rounds_repeat_the_history() -> None:
    sent = play(workload(num_rounds=3, num_users=2, qps=2.0, time=20.0), 0.1)
    user = sent[-1].request.session_id - 5
    rounds = [a.request for a in sent if a.request.session_id == user]
    assert [r.prompt_tokens for r in rounds] == [2043, 2043 + 124, 2043 + 248]
    assert [r.shared_tokens for r in rounds] == [2043, 2167, 2167 + 100]
    assert [len(r.history) for r in rounds] == [0, 1, 2]


def test_long_user_numbers_take_more_tokens() -> None:
    def prompt(**fields: int) -> int:
        return MultiRoundQaLoad(workload(num_rounds=1, num_users=1, **fields)).start()[0].request.prompt_tokens

    assert prompt(init_user_id=997) == 2043
    assert prompt(init_user_id=998) == 2044
    assert prompt(init_user_id=998, digits_per_token=1) == 2046


def test_time_bounds_launching_only() -> None:
    given_workload = workload(num_rounds=3, qps=5.0, time=10.0)
    assert max(a.time_s for a in play(given_workload, 0.1)) <= 10.0
    assert max(tick_times(given_workload)) <= 10.0


def test_scaling_compresses_time() -> None:
    spec = Spec.model_validate(
        {
            "schema": 1,
            "name": "report",
            "deployment": {"mode": "aggregated"},
            "workload": {"kind": "multi_round_qa", "num_rounds": 1},
        }
    )
    slow = at_rate(spec, 2.0)
    assert offered_rate(slow) == pytest.approx(2.0)
    assert [a.request for a in build(slow).start()] == [a.request for a in build(spec).start()]
