"""Requests that come together share their API server, one process a worker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner import load
from planner.backends import backend
from planner.engine.host_costs import MOST_TOGETHER, HostCosts
from planner.run.tables import Run
from planner.system.resolve import System, resolve
from planner.traffic.requests import Arrival, Load, Request

AGG = "deployment={mode: aggregated, replicas: 1}"


def sharing(share: float, *overrides: str) -> System:
    system = resolve(load("disagg", ["profile=h200-llama-3.1-8b-tp1-served", *overrides]))
    pools = []
    for pool in system.pools:
        host = replace(pool.profile.host, request_shared=share)
        pools.append(replace(pool, profile=replace(pool.profile, host=host)))
    return replace(system, pools=tuple(pools))


def request(number: int, prompt: int = 1000) -> Request:
    return Request(number, number, prompt, 2, 2, ((number + 1, prompt),), 0, -1 - number)


class Sent:
    """Requests at these times, as a load."""

    def __init__(self, times: list[float]) -> None:
        self.times, self.expected_requests = times, len(times)

    def start(self) -> list[Arrival]:
        return [Arrival(time, request(number)) for number, time in enumerate(self.times)]

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        return []


def run(system: System, sent: Load) -> Run:
    return backend("simulate").run(system, sent)


@pytest.mark.parametrize("mode", ["replicas: 1, mode: aggregated", "mode: disaggregated"])
def test_a_lone_request_takes_as_long_with_any_share(mode: str) -> None:
    ends = [run(sharing(s, f"deployment={{{mode}}}"), Sent([0.0])).requests["finish_s"].iloc[0] for s in (0, 0.1, 0.9)]
    assert ends == pytest.approx([ends[0]] * 3, abs=1e-9)


def test_what_comes_while_it_works_leaves_together_after_the_work_of_all() -> None:
    system = sharing(0.5, AGG)
    host: HostCosts = system.pools[0].profile.host
    way, work = host.request(1000), host.work(1000)
    times = [0.0, 0.9 * work, 2.1 * work]  # the third when the process has been idle again
    queued = run(system, Sent(times)).requests["queued_s"].to_numpy()
    assert queued == pytest.approx([way + work, way + work, way + 2.1 * work])
    apart = run(sharing(0.0, AGG), Sent(times)).requests["queued_s"].to_numpy()
    assert apart == pytest.approx(np.array(times) + way)


def test_no_more_than_a_few_leave_together_and_no_work_is_lost() -> None:
    system = sharing(0.5, AGG)
    host: HostCosts = system.pools[0].profile.host
    count = 2 * MOST_TOGETHER + 1
    queued = run(system, Sent([0.0] * count)).requests["queued_s"].to_numpy()
    ends = [MOST_TOGETHER] * MOST_TOGETHER + [2 * MOST_TOGETHER] * MOST_TOGETHER + [count]
    assert sorted(queued) == pytest.approx([host.request(1000) + (end - 1) * host.work(1000) for end in ends])


def test_a_router_knows_of_requests_that_are_taken_in() -> None:
    system = sharing(0.5, "deployment={mode: aggregated, replicas: 2, router: {policy: least_loaded}}")
    assert run(system, Sent([0.0, 0.0])).requests["worker"].nunique() == 2
