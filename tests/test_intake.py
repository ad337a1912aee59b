"""Requests that come together share their API server: simulated, and found again in a calibration round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner import load
from planner.backends import backend
from planner.calibration.intake import fit_shared, together
from planner.calibration.load import Phase, PhasedLoad, plan
from planner.engine.profile_file import HostLaw
from planner.engine.profiles import TOGETHER_S
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


def test_what_comes_within_a_moment_leaves_together_after_the_work_of_all() -> None:
    system = sharing(0.5, AGG)
    way = system.pools[0].profile.host.request(1000)
    near, far = 0.5 * TOGETHER_S, 1.5 * TOGETHER_S
    queued = run(system, Sent([0.0, near, far])).requests["queued_s"].to_numpy()
    assert queued[:2] == pytest.approx([1.5 * way] * 2)
    assert queued[2] == pytest.approx(2.0 * way)  # begun when the process was done with those two
    apart = run(sharing(0.0, AGG), Sent([0.0, near, far])).requests["queued_s"].to_numpy()
    assert apart == pytest.approx(np.array([0.0, near, far]) + way)


def test_a_router_knows_of_requests_that_are_taken_in() -> None:
    system = sharing(0.5, "deployment={mode: aggregated, replicas: 2, router: {policy: least_loaded}}")
    assert run(system, Sent([0.0, 0.0])).requests["worker"].nunique() == 2


@pytest.mark.parametrize("overrides", [(AGG,), ()])
def test_the_share_is_found_again(overrides: tuple[str, ...]) -> None:
    system = sharing(0.4, *overrides)
    host = system.pools[0].profile.host
    law = HostLaw(request_s=host.request_s, request_per_token_s=host.request_per_token_s)
    round_ = run(system, PhasedLoad(plan(system, 30.0)))
    found = fit_shared([round_], law)
    assert found is not None
    assert found[0] == pytest.approx(0.4, abs=0.02)
    unshared = run(sharing(0.0, *overrides), PhasedLoad(plan(system, 30.0)))
    assert fit_shared([unshared], law) is None


def test_only_idle_engines_say_so() -> None:
    """The second group waits for the first one's step."""
    phase = Phase("decode", "two", (request(0), request(1)), (), 0.0)
    system = sharing(0.5, AGG)
    assert len(list(together(run(system, PhasedLoad((phase,)))))) == 1
    assert len(list(together(run(system, Sent([0.0, 0.0, 0.04, 0.04]))))) == 1
    assert fit_shared([run(system, PhasedLoad((phase,)))], HostLaw()) is None
