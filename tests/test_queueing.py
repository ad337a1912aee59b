"""The cluster against queueing theory, where theory has an answer: one service at a time, no batching."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from planner import simulate
from planner.spec import load, parse
from planner.system.resolve import System, resolve
from planner.traffic.requests import Arrival, Request
from simulator.cluster import SimulatedCluster
from simulator.visits import Visit

REQUESTS = 200_000


class PromptTime:
    """A step takes `token_s` for each prompt token and nothing else."""

    def __init__(self, token_s: float) -> None:
        self.token_s = token_s

    def decode(self, batch: int) -> tuple[float, float]:
        return 0.0, 0.0

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: float) -> float:
        return self.token_s * sum(new for new, _ in chunks)

    def launch(self, tokens: int, batch: int) -> float:
        return 0.0


class OpenLoop:
    """Requests of one output token at given times."""

    def __init__(self, times: np.ndarray, prompts: np.ndarray) -> None:
        self.expected_requests = len(times)
        self._arrivals = [
            Arrival(time, Request(i, i, tokens, 1, 1, ((-1 - 2 * i, tokens),), 0, -2 - 2 * i))
            for i, (time, tokens) in enumerate(zip(times.tolist(), prompts.tolist(), strict=True))
        ]

    def start(self) -> list[Arrival]:
        return self._arrivals

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        return []


def with_step(system: System, token_s: tuple[float, ...], **limits: object) -> System:
    """The same system with step times and engine limits of our own, and no host costs."""
    pools = []
    for pool, seconds in zip(system.pools, token_s, strict=True):
        host = dataclasses.replace(pool.profile.host, request_s=0.0, request_per_token_s=0.0, response_s=0.0, hop_s=0.0)
        profile = dataclasses.replace(pool.profile, step=PromptTime(seconds), host=host, file=None)
        pools.append(dataclasses.replace(pool, profile=profile, limits=dataclasses.replace(pool.limits, **limits)))
    return dataclasses.replace(system, pools=tuple(pools))


def waits(visits: list[Visit]) -> np.ndarray:
    return np.array([visit.prefill_start_s - visit.arrival_s for visit in visits if visit.served])


def test_md1_wait() -> None:
    utilisation, service = 0.7, 1.0
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(service / utilisation, REQUESTS))
    system = resolve(parse("name: md1\ndeployment: {mode: aggregated}\n", "test"))
    system = with_step(system, (service / 100,), max_num_seqs=1, async_scheduling=False, prefix_caching=False)
    visits = SimulatedCluster(system, OpenLoop(times, np.full(REQUESTS, 100)), record_steps=False).run()
    expected = service * utilisation / (2 * (1 - utilisation))
    assert waits(visits).mean() == pytest.approx(expected, rel=0.02)


def test_littles_law_holds_between_two_tables() -> None:
    """Requests in the engine, as polled from its steps, against arrival rate times time in the engine, per request."""
    settings = ["workload.rate=6", "workload.requests=1500", "run.sample_interval_s=0.05"]
    result = simulate(load("quickstart", settings))
    horizon = float(result.samples["time_s"].max())
    polled = float((result.samples["running"] + result.samples["waiting"]).sum()) * 0.05 / horizon
    inside = result.requests["finish_s"] - result.requests["queued_s"]
    # a step row says what is in the batch while it runs, so polls see starts and ends up to a step late
    assert polled == pytest.approx(len(inside) / horizon * float(inside.mean()), rel=0.04)


def erlang_c_wait(servers: int, load: float, service: float) -> float:
    """Mean wait of M/M/c at utilisation `load`."""
    offered = servers * load
    tail = offered**servers / math.factorial(servers) / (1 - load)
    waiting = tail / (sum(offered**k / math.factorial(k) for k in range(servers)) + tail)
    return waiting * service / (servers * (1 - load))


@pytest.mark.parametrize("servers", [1, 3])
def test_mmc_wait(servers: int) -> None:
    """Prefill workers that pull from one queue, prompts of exponential length: M/M/c."""
    load, service, mean_tokens = 0.7, 1.0, 20_000
    rng = np.random.default_rng(2)
    times = np.cumsum(rng.exponential(service / servers / load, REQUESTS))
    prompts = np.maximum(np.rint(rng.exponential(mean_tokens, REQUESTS)), 1).astype(int)
    spec = parse(
        f"""
        name: mmc
        deployment:
          mode: disaggregated
          prefill: {{replicas: {servers}}}
          router: {{prefill_dispatch: shared_queue}}
          link: {{bandwidth_gb_s: 1.0e+12, latency_us: 0, setup_us: 0}}
        """,
        "test",
    )
    system = with_step(
        resolve(spec),
        (service / mean_tokens, 0.0),
        max_num_batched_tokens=10**9,
        max_model_len=10**9,
        kv_blocks=10**8,
        async_scheduling=False,
        prefix_caching=False,
    )
    visits = SimulatedCluster(system, OpenLoop(times, prompts), record_steps=False).run()
    assert len(visits) == REQUESTS
    assert waits(visits).mean() == pytest.approx(erlang_c_wait(servers, load, service), rel=0.02)
