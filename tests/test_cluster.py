"""The cluster as a whole: conservation, causality, determinism, P/D hand-off, contended links."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import simulate
from planner.report.explain import explain
from planner.run.metrics import summarise
from planner.run.tables import Run
from planner.spec import load, parse
from planner.system.resolve import resolve
from planner.traffic.loads import Chained
from planner.traffic.requests import Arrival, Request
from planner.traffic.workload import build
from simulator.backend import SimulatorBackend
from simulator.cluster import SimulatedCluster
from simulator.pool import SimulatedView
from simulator.worker import Sequence

ROOT = Path(__file__).parent.parent
ORDER = [
    "arrival_s",
    "retrieval_start_s",
    "retrieval_end_s",
    "queued_s",
    "prefill_start_s",
    "prefill_end_s",
    "transfer_start_s",
    "transfer_end_s",
    "decode_start_s",
    "finish_s",
]

DEPLOYMENTS = [
    "{mode: aggregated, replicas: 1}",
    "{mode: aggregated, replicas: 3, router: {policy: prefix_aware}}",
    "{mode: aggregated, replicas: 2, router: {policy: power_of_two, state_age_s: 0.5}}",
    "{mode: disaggregated}",
    "{mode: disaggregated, prefill: {replicas: 2}, decode: {replicas: 2}, link: {bandwidth_gb_s: 1}}",
    "{mode: disaggregated, prefill: {replicas: 2}, router: {prefill_dispatch: shared_queue}}",
    "{mode: disaggregated, local_prefill: {max_tokens: 200, max_queue: 2}, first_token: prefill}",
    "{mode: disaggregated, router: {policy: prefix_aware, decode_choice: at_arrival}, link: {sharing: fifo}}",
]
WORKLOADS = [
    "{kind: poisson, rate: 20, requests: 40, output_tokens: 20, prompt_tokens: {kind: uniform, low: 1, high: 3000}}",
    "{kind: gamma, burstiness: 0.3, rate: 30, requests: 40, prompt_tokens: 400,"
    " output_tokens: {kind: uniform, low: 1, high: 60}, shared_prefix_tokens: 333}",
    "{kind: concurrency, concurrency: 7, requests: 40, prompt_tokens: 700, output_tokens: 9}",
    "{kind: sessions, rate: 3, sessions: 12, turns: 4, think_time_s: 0.3, system_tokens: 100,"
    " prompt_tokens: 90, output_tokens: 40}",
    "{kind: multi_round_qa, num_users: 4, num_rounds: 3, qps: 4, time: 4, shared_system_prompt: 100,"
    " user_history_prompt: 300}",
    "{kind: rag, rate: 15, requests: 40}",
]
ENGINES = [
    "{}",
    "{num_gpu_blocks_override: 260, max_num_seqs: 8, max_model_len: 4096}",
    "{enable_prefix_caching: false, max_num_batched_tokens: 512, async_scheduling: false}",
    "{scheduler: prefill_first, num_gpu_blocks_override: 600, max_model_len: 4096, enforce_eager: true}",
]
deployments, workloads, engines = (st.sampled_from(kind) for kind in (DEPLOYMENTS, WORKLOADS, ENGINES))


def text(deployment: str, workload: str, engine: str = "{}", seed: int = 0) -> str:
    return f"""
name: case
deployment: {deployment}
workload: {workload}
engine: {engine}
retrieval: {{workers: 2, popularity: {{documents: 20}}, chunk_tokens: 100}}
run: {{seed: {seed}, sample_interval_s: 0.2}}
"""


def run(yaml: str, *, fast_forward: bool = True) -> Run:
    spec = parse(yaml, "test")
    return SimulatorBackend(fast_forward=fast_forward).run(resolve(spec), build(spec))


def check(run: Run, expected: int) -> None:
    requests = run.requests
    assert len(requests) == expected
    assert requests["request_id"].is_unique
    assert requests["finish_reason"].isin(["length", "stop", "rejected"]).all()
    ended = requests[requests["finish_reason"] != "rejected"]
    assert (ended["output_tokens"] >= 1).all()
    # causality: every time that there is comes no earlier than the one before it
    times = ended[ORDER].to_numpy()
    for row in times:
        known = row[~np.isnan(row)]
        assert (np.diff(known) >= -1e-9).all(), row
    assert (ended["first_token_s"] >= ended["prefill_end_s"] - 1e-9).all()
    assert (ended["finish_s"] >= ended["first_token_s"] - 1e-9).all()
    assert (ended["cached_tokens"] < ended["prompt_tokens"]).all()
    rejected = requests[requests["finish_reason"] == "rejected"]
    assert rejected["error"].notna().all()
    assert (run.steps["kv_used_fraction"].between(0, 1)).all()
    # one engine does one step at a time
    for _, rows in run.steps.groupby("worker"):
        start, end = rows["start_s"].to_numpy(), (rows["start_s"] + rows["duration_s"]).to_numpy()
        assert (start[1:] >= end[:-1] - 1e-9).all()
    remote = ended[ended["worker"] != ended["decode_worker"]]
    assert sorted(run.transfers["request_id"]) == sorted(remote["request_id"])


@settings(max_examples=40, deadline=None)
@given(deployments, workloads, engines, st.integers(0, 3))
def test_every_request_ends_once_and_nothing_precedes_its_cause(
    deployment: str, workload: str, engine: str, seed: int
) -> None:
    yaml = text(deployment, workload, engine, seed)
    spec = parse(yaml, "test")
    source = build(spec)
    result = SimulatorBackend().run(resolve(spec), source)
    check(result, len(result.requests))
    if not workload.startswith("{kind: multi"):
        assert len(result.requests) == source.expected_requests


@settings(max_examples=12, deadline=None)
@given(deployments, workloads, engines)
def test_fast_forward_equals_stepping(deployment: str, workload: str, engine: str) -> None:
    yaml = text(deployment, workload, engine)
    fast, slow = run(yaml), run(yaml, fast_forward=False)
    assert len(fast.requests) == len(slow.requests)
    assert fast.requests["worker"].equals(slow.requests["worker"])
    for column in [*ORDER, "first_token_s"]:
        assert np.allclose(fast.requests[column], slow.requests[column], atol=1e-9, rtol=0, equal_nan=True), column


@pytest.mark.parametrize(
    "deployment",
    ["{mode: disaggregated, decode: {replicas: 2}, router: {policy: prefix_aware}}", "{mode: aggregated, dp: 2}"],
)
def test_whoever_counts_blocks_sees_those_of_that_moment(deployment: str) -> None:
    spec, request = parse(text(deployment, WORKLOADS[0]), "test"), Request(1, 1, 100, 900, 900, ((1, 100),), 0, -1)

    def blocks(fast_forward: bool) -> int:
        pool = SimulatedCluster(resolve(spec), build(spec), fast_forward=fast_forward).decoders
        engine = pool.stations[0].engine
        engine.submit(Sequence(request), 0.0)
        while engine.next_event_s() < 1.0:
            engine.advance(engine.next_event_s())
        assert len(SimulatedView(pool, request, 1.0).seen) > 0
        pool.station(0, 1.0)
        return engine.load.active_blocks

    assert blocks(True) == blocks(False) > 10


@pytest.mark.parametrize("name", ["disagg", "multi-turn-disagg", "rag-disagg"])
def test_a_run_leaves_no_reference_cycles(name: str) -> None:
    """Python does not look for them while it runs (simulator/clock.py): they would pile up."""
    spec = load(ROOT / f"configs/{name}.yaml")
    cluster = SimulatedCluster(resolve(spec), build(spec))
    gc.collect()
    cluster.run()
    assert gc.collect() < 20
    del cluster
    assert gc.collect() < 20  # its memory was free at once
    assert gc.isenabled()


def test_a_run_that_is_stopped_while_kv_is_on_its_way_leaves_none_either() -> None:
    spec = load(ROOT / "configs/disagg.yaml", ["deployment.link.bandwidth_gb_s=1"])

    def on_their_way(one: SimulatedCluster) -> bool:
        return one.fabric is not None and one.fabric.network.in_flight > 0

    cluster = SimulatedCluster(resolve(spec), build(spec), stop=on_their_way)
    visits = cluster.run()
    assert cluster.stopped
    assert any(visit.served and visit.finish_reason is None for visit in visits)
    assert all(visit.prefill is None and visit.decode is None for visit in visits)  # nor the engines' state of requests
    del visits
    gc.collect()
    del cluster
    assert gc.collect() < 20


@pytest.mark.parametrize("deployment", [*DEPLOYMENTS[:5], "{mode: aggregated, dp: 2}"])
def test_a_run_that_ends_before_its_answers_knows_how_far_they_are(deployment: str) -> None:
    """As many tokens as stepping counts; at their pace so far most end about when they do in a whole run."""
    workload = "{kind: poisson, rate: 20, requests: 40, output_tokens: 60, prompt_tokens: 50}"
    spec = parse(text(deployment, workload, "{}"), "test")
    system = resolve(spec)
    whole = {one.request.request_id: one for one in SimulatedCluster(system, build(spec)).run()}
    off: list[float] = []
    for until_s in (0.3, 0.71, 1.1, 1.53):
        fast, slow = (SimulatedCluster(system, build(spec), until_s=until_s, fast_forward=yes) for yes in (True, False))
        visits = fast.run()
        slow.run()
        assert fast.stopped_s == until_s
        assert fast.answered.keys() == slow.answered.keys()
        for number, tokens in fast.answered.items():
            assert abs(tokens - slow.answered[number]) <= 1
            visit = whole[number]
            assert visit.finish_s > until_s
            assert 0 <= tokens <= visit.request.output_tokens
            if tokens > 5:
                pace_s = (until_s - visit.first_token_s) / (tokens - 1)
                left_s = pace_s * (visit.request.output_tokens - tokens)
                off.append(abs(until_s + left_s - visit.finish_s))
        assert all(visit.finish_s <= until_s for visit in visits if visit.request.request_id not in fast.answered
                   and visit.first_token_s <= until_s and visit.finish_reason is not None)  # fmt: skip
    assert len(off) > 5
    assert np.median(off) < 0.03


def parquet_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_seed_same_bytes_in_two_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from planner import simulate; "
        "simulate(sys.argv[1], seed=int(sys.argv[3])).save(Path(sys.argv[2]))"
    )
    folders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = tmp_path / name
        subprocess.run(
            [sys.executable, "-c", code, str(ROOT / "configs/disagg.yaml"), str(folder), str(seed)], check=True
        )
        folders.append(parquet_bytes(folder))
    assert folders[0] == folders[1]
    assert folders[0]["requests.parquet"] != folders[2]["requests.parquet"]


def busy_link(bandwidth_gb_s: float, requests: int) -> Run:
    """40 req/s of 3,005-token prompts: 15.7 GB/s of KV."""
    return simulate(
        load(
            ROOT / "configs/disagg.yaml",
            [
                "deployment.prefill.replicas=5",
                "deployment.decode.replicas=3",
                f"deployment.link={{bandwidth_gb_s: {bandwidth_gb_s}}}",
                f"workload={{kind: poisson, rate: 40, requests: {requests}, prompt_tokens: 3005, output_tokens: 140}}",
            ],
        )
    )


def mean_ttft_s(result: Run) -> float:
    return float((result.requests["first_token_s"] - result.requests["arrival_s"]).mean())


def test_an_overloaded_link_diverges_and_is_named() -> None:
    slow, longer = busy_link(0.5, 300), busy_link(0.5, 600)
    assert explain(summarise(slow)).kind == "link"
    assert mean_ttft_s(longer) > 1.8 * mean_ttft_s(slow) > 100  # grows with the length of the run


def test_a_wide_link_does_not_diverge() -> None:
    fast, longer = busy_link(50, 300), busy_link(50, 600)
    assert explain(summarise(fast)).kind != "link"
    assert mean_ttft_s(longer) < 1.2 * mean_ttft_s(fast) < 1


def test_transferred_bytes_are_whole_blocks_of_the_prompts() -> None:
    result = simulate(load(ROOT / "configs/disagg.yaml"))
    blocks = -(-result.requests["prompt_tokens"] // 16)
    assert result.transfers["bytes"].sum() == (blocks * 16 * 131_072).sum()


@pytest.mark.parametrize("policy", ["random", "round_robin", "least_loaded", "power_of_two", "session_affinity"])
def test_policies_use_every_worker(policy: str) -> None:
    spec = load(ROOT / "configs/agg.yaml", ["deployment.replicas=3", f"deployment.router.policy={policy}"])
    counts = simulate(spec).requests["worker"].value_counts()
    assert len(counts) == 3
    assert counts.min() > 0.5 * counts.max()


def test_prefix_aware_routing_finds_the_cache() -> None:
    def hit_share(policy: str) -> float:
        spec = load(ROOT / "configs/multi-turn.yaml", [f"deployment.router.policy={policy}"])
        requests = simulate(spec).requests
        return float(requests["cached_tokens"].sum() / requests["prompt_tokens"].sum())

    assert hit_share("prefix_aware") > hit_share("round_robin") + 0.04


def test_progress_goes_from_nothing_to_all() -> None:
    spec = load("agg", ["workload={kind: poisson, rate: 50, requests: 1500, prompt_tokens: 40, output_tokens: 4}"])
    shares: list[float] = []
    cluster = SimulatedCluster(resolve(spec), build(spec))
    cluster.run(lambda _, share: shares.append(share))
    assert len(shares) > 2
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.6 < shares[-1] <= 1


@pytest.mark.parametrize("length", [40, 48, 49])
def test_a_pool_says_of_its_workers_what_they_say_themselves(length: int) -> None:
    spec = load("agg", ["deployment.replicas=2", "deployment.router.policy=prefix_aware", "workload.requests=1"])
    cluster = SimulatedCluster(resolve(spec), build(spec))
    [pool] = cluster.pools
    engine = pool.stations[1].engine
    asked = Request(7, 7, length, 2, 2, ((5, length),), length, -7)
    assert pool.overlap(asked) == [0, 0]
    engine.submit(Sequence(asked), 0.0)
    while engine.next_event_s() < float("inf"):
        engine.advance(engine.next_event_s())
    size = engine.limits.block_size
    assert pool.overlap(asked) == [0, engine.cached_tokens(asked)] == [0, (length - 1) // size * size]


@given(st.sampled_from([0.7, 3.0, 4.0]), st.floats(8.0, 30.0), st.lists(st.floats(0.01, 3.0), min_size=3, max_size=8))
@settings(max_examples=25, deadline=None)
def test_a_router_reads_at_multiples_of_its_period_also_after_nobody_was_there(
    period_s: float, begin_s: float, gaps: list[float]
) -> None:
    """One request that is long gone, then some that stay: each goes where the latest reading shows the fewest."""
    router = f"deployment.router={{policy: least_loaded, state_age_s: {period_s}}}"
    spec = load("agg", ["deployment.replicas=2", router])
    times = [0.01, *(begin_s + gap for gap in np.cumsum(gaps))]
    made = [Request(n, n, 20, out, out, ((n, 20),), 0, -n) for n, out in enumerate([1] + [20_000] * len(gaps))]
    arrivals = tuple(Arrival(time_s, one) for time_s, one in zip(times, made, strict=True))
    cluster = SimulatedCluster(resolve(spec), Chained(arrivals, {}))
    places = [visit.worker.place.name for visit in cluster.run() if visit.worker]
    expected: list[str] = []
    for turn, time_s in enumerate(times):
        read_s = time_s // period_s * period_s
        there = [name for sent_s, name in zip(times[1:turn], expected[1:], strict=True) if sent_s < read_s]
        counts = [there.count("aggregated-0"), there.count("aggregated-1")]
        chosen = turn % 2 if counts[0] == counts[1] else int(counts[1] < counts[0])
        expected.append(f"aggregated-{chosen}")
    assert places == expected


@pytest.mark.parametrize(("at", "stations"), [("frontend", 1), ("prefill_worker", 2)])
def test_there_is_one_place_to_retrieve_or_one_at_each_server(at: str, stations: int) -> None:
    """Each searches for one request at a time; together they are busy all the time while requests wait."""
    retrieval = f"retrieval={{workers: 1, at: {at}, service_cv: 0, embed_ms: 100}}"
    arrivals = "workload={kind: constant, rate: 100, requests: 30, prompt_tokens: 3000, output_tokens: 2}"
    spec = load(
        "agg", ["deployment={mode: aggregated, replicas: 2, router: {policy: round_robin}}", retrieval, arrivals]
    )
    done = simulate(spec).requests
    searches = done[["retrieval_start_s", "retrieval_end_s"]].to_numpy()
    overlapping = max(int(((searches[:, 0] <= start) & (searches[:, 1] > start + 1e-9)).sum()) for start, _ in searches)
    assert overlapping == stations
    assert searches.max() == pytest.approx(searches.min() + 30 / stations * (searches[0, 1] - searches[0, 0]), rel=0.02)
