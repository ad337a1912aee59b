"""1P1D on a Ray cluster of two nodes (both on this machine), with real vLLM servers on the CPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")
pytest.importorskip("ray", reason="the ray extra is not installed")

import ray

from live.launch import LiveError, detect
from live.session import LiveSession
from planner.spec import Spec, parse
from planner.system.resolve import resolve
from planner.traffic import workload


def has_cpu_vllm() -> bool:
    try:
        found = detect()
    except (ImportError, LiveError):
        return False
    return found.kind == "cpu" and found.nixl is not None


pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not has_cpu_vllm(), reason="no CPU build of vLLM with NIXL: python -m live.install_cpu"),
]

SPEC = """
name: two-nodes
model: tiny
hardware: cpu
cluster: {nodes: [{name: first, gpus: 1}, {name: second, gpus: 1}]}
deployment:
  mode: disaggregated
  gpus_per_node: 1
  link: {preset: cpu_shm, inter_node: {preset: cpu_tcp}}
engine: {dtype: float32, max_model_len: 2048, kv_cache_memory_bytes: 134217728}
workload: {kind: poisson, rate: 4, requests: 20, output_tokens: 12,
           prompt_tokens: {kind: empirical, values: [16, 129, 300, 700]}}
run: {sample_interval_s: 0.5}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def spec() -> Spec:
    return parse(SPEC, "test")


@pytest.fixture(scope="module")
def session(cluster: Any, spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSession]:
    folder = tmp_path_factory.mktemp("ray")
    with LiveSession(resolve(spec), folder, weights_seed=0, ray=cluster.address) as running:
        yield running


def test_no_cluster_is_one_line(tmp_path: Path, spec: Spec) -> None:
    assert not ray.is_initialized(), "this test comes first"
    with (
        pytest.raises(LiveError, match="no Ray cluster") as error,
        LiveSession(resolve(spec), tmp_path, ray="127.0.0.1:1"),
    ):
        pass
    assert "\n" not in str(error.value)


def test_tokens_are_those_of_one_engine(session: LiveSession, spec: Spec) -> None:
    """The prefill server computes the same prompts alone: no KV moves, so its tokens are the reference."""
    import aiohttp

    from live.launch import MODEL_NAME
    from live.prompts import PromptMaker

    run = session.measure(workload.build(spec))
    assert set(run.requests["finish_reason"]) == {"length"}
    assert len(run.transfers) == 20
    assert run.manifest["counters"]["decode-0"]["vllm:prompt_tokens_by_source_total[local_compute]"] == 0
    steps = run.steps[run.steps["worker"] == "decode-0"]
    assert (steps["prefill_tokens"] <= len(run.requests)).all()
    assert set(run.steps["worker"]) == {"prefill-0", "decode-0"}, "traces came home from both nodes"
    prompts = PromptMaker(spec.run.seed, 32_000)
    prefill = session.workers[0]

    async def alone() -> dict[int, list[int]]:
        found = {}
        async with aiohttp.ClientSession() as http:
            for outcome in session.results[-1].outcomes:
                body = {
                    "model": MODEL_NAME,
                    "prompt": prompts.token_ids(outcome.request, {}),
                    "max_tokens": outcome.request.output_tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                    "return_token_ids": True,
                }
                async with http.post(f"{prefill.url}/v1/completions", json=body) as answer:
                    found[outcome.request.request_id] = (await answer.json())["choices"][0]["token_ids"]
        return found

    assert session.results[-1].answers() == asyncio.run(alone())


def test_a_lost_node_loses_no_request(session: LiveSession, spec: Spec, cluster: Any) -> None:
    victims = [node for node in cluster.list_all_nodes() if node is not cluster.head_node]

    def lose(stage: str, done: float) -> None:
        if stage == "load" and done >= 0.25 and victims:
            cluster.remove_node(victims.pop(), allow_graceful=False)

    run = session.measure(workload.build(spec), repeat=1, progress=lose)
    assert not victims
    assert len(run.requests) == 20
    assert run.requests["finish_reason"].isin(["length", "error", "rejected"]).all()
    failed = run.requests[run.requests["finish_reason"] != "length"]
    assert len(failed) > 0
    assert failed["error"].notna().all()
    assert any("ended during the run" in warning for warning in run.manifest["warnings"])
