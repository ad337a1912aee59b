"""Engines on one host's CPU: each is slower exactly for the time that another works too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.backends import backend
from planner.engine.law import StepLaw
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import from_file
from planner.run.tables import Run
from planner.spec import load
from planner.system.resolve import System, resolve
from planner.traffic.requests import Arrival, Request

LAW = StepLaw(
    decode_s=0.010, decode_per_seq_s=0.0, decode_per_context_s=0.0, prefill_floor_s=0.0, prefill_s=0.0,
    prefill_per_token_s=0.001, prefill_per_pair_s=0.0, mixed_per_seq_s=0.0, mixed_per_context_s=0.0,
)  # fmt: skip


class Sent:
    """Requests (time, prompt, output) of their own content; sessions 0, 1, ... so that two workers take turns."""

    def __init__(self, *rows: tuple[float, int, int]) -> None:
        self.expected_requests = len(rows)
        self._arrivals = [
            Arrival(time_s, Request(number, number, prompt, output, output, ((number, prompt),), 0, -1 - number))
            for number, (time_s, prompt, output) in enumerate(rows)
        ]

    def start(self) -> list[Arrival]:
        return self._arrivals

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        return []


def two_workers(interference: float | None, *overrides: str) -> System:
    """Two engines whose prompts take 1 ms a token and decode steps 10 ms."""
    system = resolve(
        load("cpu-agg", ["deployment.replicas=2", "deployment.router.policy=round_robin", "profile=null", *overrides])
    )
    file = ProfileFile(
        name="even", provenance="calibrated", model="small", hardware="cpu", cuda_graphs=False, step=LAW,
        interference=interference,
    )  # fmt: skip
    return replace(system, pools=tuple(replace(pool, profile=from_file(file)) for pool in system.pools))


def served(system: System, *rows: tuple[float, int, int]) -> Run:
    return backend("simulate").run(system, Sent(*rows))


def test_a_step_is_slower_only_while_the_other_engine_works() -> None:
    """100 ms of prompt from 0, 100 ms from 50 ms: 50 ms alone, then both at half speed. The first ends after 100 ms of
    that, the second has 50 ms left and has the host to itself."""
    table = served(two_workers(2.0), (0.0, 100, 1), (0.05, 100, 1)).requests
    assert table["prefill_end_s"].tolist() == pytest.approx([0.150, 0.200])


def test_alone_nothing_is_slower() -> None:
    """One after the other: as without a term, and equal to a run that takes decode steps in closed form."""
    rows = ((0.0, 100, 20), (1.0, 100, 20))
    with_term, without = (served(two_workers(term), *rows).requests for term in (1.7, None))
    assert with_term["finish_s"].tolist() == pytest.approx(without["finish_s"].tolist())


@pytest.mark.parametrize("term", [1.25, 2.0])
def test_work_is_conserved(term: float) -> None:
    """Both decode all the time: each step takes `term` times 10 ms, whatever its place."""
    table = served(two_workers(term), (0.0, 10, 40), (0.0, 10, 40)).requests
    assert table["finish_s"].tolist() == pytest.approx([term * (0.010 + 39 * 0.010)] * 2)


def test_other_hosts_are_not_slowed() -> None:
    nodes = 'cluster={"nodes": [{"name": "a", "gpus": 1}, {"name": "b", "gpus": 1}]}'
    table = served(two_workers(2.0, nodes), (0.0, 100, 1), (0.0, 100, 1)).requests
    assert table["prefill_end_s"].tolist() == pytest.approx([0.1, 0.1])


def test_unknown_slowing_is_said(tmp_path: object) -> None:
    """Several CPU workers on one host, and no profile that says how they slow each other."""
    several = resolve(load("cpu-agg", ["deployment.replicas=2"]))
    assert any("share one host's CPU" in warning for warning in several.warnings)
    assert not any("share one host's CPU" in warning for warning in resolve(load("cpu-agg")).warnings)


def test_gpus_are_no_cores_that_are_shared() -> None:
    """The figure is of a host's CPU: engines on GPUs of one node keep their pace."""
    system = two_workers(2.0)
    setups = [replace(pool.setup, hardware=pool.hardware.model_copy(update={"kind": "gpu"})) for pool in system.pools]
    pools = tuple(replace(pool, setup=setup) for pool, setup in zip(system.pools, setups, strict=True))
    table = served(replace(system, pools=pools), (0.0, 100, 1), (0.05, 100, 1)).requests
    assert table["prefill_end_s"].tolist() == pytest.approx([0.1, 0.15])
