"""Importing other stacks' files: nothing vanishes, what they mean is kept, and what is wrong is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from live.dynamo import MODES
from planner import load
from planner.cli import run
from planner.interop.import_file import Conversion, import_file, import_text
from planner.interop.import_pair import asymmetries, fair_pair, gpus
from planner.spec import Aggregated, Disaggregated, SpecError, parse
from planner.system.resolve import resolve

STOCK = Path(__file__).parent / "data" / "dynamo_v0.3"


def stock(name: str) -> Conversion:
    return import_file(STOCK / f"{name}.yaml")


def split(conversion: Conversion) -> Disaggregated:
    assert isinstance(conversion.spec.deployment, Disaggregated)
    return conversion.spec.deployment


def notes(conversion: Conversion, kind: str) -> str:
    return "\n".join(str(note) for note in conversion.notes if note.kind == kind)


# --- Dynamo v0.3 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["agg", "agg_router", "disagg", "disagg_router"])
def test_every_leaf_of_a_stock_file_is_carried_or_listed(name: str) -> None:
    """Each value of the foreign file is in our YAML, or its key is in a note."""
    foreign = yaml.safe_load((STOCK / f"{name}.yaml").read_text())
    conversion = stock(name)
    carried = {
        "model", "block-size", "max-model-len", "router", "enforce-eager", "max-num-batched-tokens", "workers", "gpu",
        "enable-prefix-caching", "tensor-parallel-size", "remote-prefill", "conditional-disagg", "kv-transfer-config",
        "max-local-prefill-length", "max-prefill-queue-size", "common-configs",
    }  # fmt: skip
    listed = " ".join(f"{note.key} {note.text}" for note in conversion.notes)
    for component, section in foreign.items():
        leaves = {**section, **section.get("ServiceArgs", {}), **section.get("ServiceArgs", {}).get("resources", {})}
        for key in leaves:
            if key in ("ServiceArgs", "resources"):
                continue
            assert key in carried or f"{component}.{key}" in listed or key in listed, f"{component}.{key} vanished"


def test_the_aggregated_file_keeps_its_flags() -> None:
    spec = stock("agg").spec
    assert isinstance(spec.deployment, Aggregated)
    assert spec.model == "deepseek-r1-distill-llama-8b"
    assert (spec.engine.enforce_eager, spec.engine.max_num_batched_tokens, spec.engine.block_size) == (True, 16384, 64)
    assert (spec.engine.scheduler, spec.engine.enable_prefix_caching) == ("prefill_first", True)
    assert spec.deployment.router.policy == "round_robin"
    assert resolve(spec).gpus == 1


def test_the_disaggregated_file_keeps_its_rule_and_warns_of_it() -> None:
    conversion = stock("disagg")
    deployment = split(conversion)
    assert (deployment.local_prefill.max_tokens, deployment.local_prefill.max_queue) == (10, 2)
    assert (deployment.router.decode_choice, deployment.router.prefill_dispatch) == ("at_arrival", "shared_queue")
    assert not conversion.spec.engine.enable_chunked_prefill
    assert not conversion.spec.engine.enable_prefix_caching
    assert conversion.spec.optimizations.decode.preemption == "swap"
    warned = notes(conversion, "warning")
    assert "partly aggregated" in warned
    assert "preempts by swapping" in warned
    assert resolve(conversion.spec).gpus == 2


@pytest.mark.parametrize(("name", "policy"), [("agg_router", "prefix_aware"), ("disagg_router", "prefix_aware")])
def test_the_kv_router_is_prefix_aware(name: str, policy: str) -> None:
    conversion = stock(name)
    assert conversion.spec.deployment.router.policy == policy
    assert conversion.spec.deployment.router.overlap_weight == 2.0
    assert "v0.3's score" in notes(conversion, "assumed")


def test_without_the_conditional_rule_every_prompt_goes_to_the_prefill_worker() -> None:
    text = (STOCK / "disagg_router.yaml").read_text().replace("conditional-disagg: true", "conditional-disagg: false")
    again = parse(import_text(text, "x.yaml", "x").yaml)  # also after writing and reading
    assert isinstance(again.deployment, Disaggregated)
    assert (again.deployment.local_prefill.max_tokens, again.deployment.local_prefill.max_queue) == (0, None)


def test_what_is_written_reads_back_as_the_same_spec() -> None:
    for path in STOCK.glob("*.yaml"):
        conversion = import_file(path)
        again = parse(conversion.yaml)
        assert again == conversion.spec
        for pool, other in zip(resolve(again).pools, resolve(conversion.spec).pools, strict=True):
            assert (pool.limits, pool.router, pool.workers) == (other.limits, other.router, other.workers)


def test_a_pair_shows_its_asymmetries_and_a_fair_one_has_none() -> None:
    one, other = stock("agg").spec, stock("disagg").spec
    keys = {item.key for item in asymmetries(one, other)}
    assert keys == {
        "GPUs", "engine.enforce_eager", "engine.enable_chunked_prefill", "engine.enable_prefix_caching",
        "engine.max_num_batched_tokens", "optimizations.decode.preemption",
    }  # fmt: skip
    fair = fair_pair(one, other)
    assert asymmetries(*fair) == []
    assert [gpus(spec) for spec in fair] == [2, 2]
    assert [resolve(spec).gpus for spec in fair] == [2, 2]


# --- Kubernetes ------------------------------------------------------------------------------------

GRAPH = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: vllm-disagg}
spec:
  services:
    Frontend:
      componentType: frontend
      replicas: 1
      envs: [{name: DYN_ROUTER_MODE, value: kv}]
      extraPodSpec: {mainContainer: {image: "runtime:1"}}
    Decode:
      componentType: worker
      subComponentType: decode
      replicas: 2
      resources: {limits: {gpu: "2"}}
      extraPodSpec:
        mainContainer:
          image: runtime:1
          command: [python3, -m, dynamo.vllm]
          args: [--model, Qwen/Qwen3-32B, --tensor-parallel-size, "2", --is-decode-worker, --speculative-config, "{}"]
    Prefill:
      componentType: worker
      subComponentType: prefill
      replicas: 3
      resources: {limits: {gpu: "1"}}
      livenessProbe: {periodSeconds: 60}
      extraPodSpec:
        mainContainer: {args: ["python3 -m dynamo.vllm --model Qwen/Qwen3-32B --enforce-eager 2>&1 | tee log"]}
"""


def test_a_graph_deployment() -> None:
    conversion = import_text(GRAPH, "graph.yaml", "graph")
    deployment = split(conversion)
    assert (conversion.spec.name, conversion.spec.model) == ("vllm-disagg", "qwen3-32b")
    assert (deployment.decode.replicas, deployment.decode.tp) == (2, 2)
    assert (deployment.prefill.replicas, deployment.prefill.tp) == (3, 1)
    assert deployment.prefill.engine is not None and deployment.prefill.engine.enforce_eager
    assert deployment.router.policy == "prefix_aware"
    assert "speculative decoding changes speed" in notes(conversion, "loss")
    assert "livenessProbe" in notes(conversion, "no counterpart")


@pytest.mark.parametrize("policy", sorted(MODES))
def test_an_exported_graph_keeps_its_router_when_it_is_imported(policy: str) -> None:
    from planner.interop.dynamo import graph

    spec = load("disagg", [f"deployment.router.policy={policy}"])
    again = import_text(yaml.safe_dump(graph(resolve(spec))), "x", "x")
    assert split(again).router.policy == policy


def test_an_aggregated_graph_and_a_role_that_only_the_prefill_worker_carries() -> None:
    data = yaml.safe_load(GRAPH)
    services = data["spec"]["services"]
    del services["Decode"]["subComponentType"]
    services["Decode"]["extraPodSpec"]["mainContainer"]["args"].remove("--is-decode-worker")
    assert split(import_text(yaml.safe_dump(data), "x", "x")).decode.replicas == 2
    del services["Prefill"]
    whole = import_text(yaml.safe_dump(data), "x", "x").spec.deployment
    assert isinstance(whole, Aggregated)
    assert (whole.replicas, whole.tp) == (2, 2)


VALUES = """
modelArtifacts: {uri: "hf://meta-llama/Llama-3.1-70B-Instruct", name: meta-llama/Llama-3.1-70B-Instruct, size: 150Gi}
routing: {servicePort: 8000, proxy: {connector: nixlv2}}
decode:
  parallelism: {tensor: 4}
  replicas: 1
  nodeSelector: {gpu.nvidia.com/model: H200}
  containers:
    - name: vllm
      modelCommand: vllmServe
      args: [--block-size, "128", --max-model-len, "32k", --kv-transfer-config, '{"kv_role": "kv_both"}']
prefill:
  parallelism: {tensor: 2}
  replicas: 3
  nodeSelector: {gpu.nvidia.com/model: H200}
  containers: [{name: vllm, modelCommand: vllmServe, args: [--block-size=128, --gpu-memory-utilization=0.95]}]
"""


def test_llm_d_values() -> None:
    conversion = import_text(VALUES, "values.yaml", "values")
    deployment = split(conversion)
    assert (conversion.spec.model, conversion.spec.hardware) == ("llama-3.1-70b", "h200")
    assert (deployment.decode.tp, deployment.prefill.tp, deployment.prefill.replicas) == (4, 2, 3)
    assert conversion.spec.engine.block_size == 128
    assert deployment.decode.engine is not None and deployment.decode.engine.max_model_len == 32000
    assert deployment.prefill.engine is not None and deployment.prefill.engine.gpu_memory_utilization == 0.95
    assert "the gateway's sidecar" in notes(conversion, "no counterpart")


def test_llm_d_without_prefill_is_aggregated() -> None:
    data = yaml.safe_load(VALUES)
    data["prefill"]["create"] = False
    whole = import_text(yaml.safe_dump(data), "x", "x").spec.deployment
    assert isinstance(whole, Aggregated)
    assert whole.tp == 4


# --- command lines ---------------------------------------------------------------------------------


def test_a_command_line() -> None:
    conversion = import_text(
        "vllm serve meta-llama/Llama-3.1-8B-Instruct -tp 2 --max-num-batched-tokens=8192 \\\n"
        "  --no-enable-prefix-caching --enforce-eager --kv-cache-dtype fp8_e4m3 --api-key x --swap-space 4\n",
        "run.sh",
        "run",
    )
    engine = conversion.spec.engine
    assert isinstance(conversion.spec.deployment, Aggregated)
    assert conversion.spec.deployment.tp == 2
    assert (engine.max_num_batched_tokens, engine.enable_prefix_caching, engine.enforce_eager) == (8192, False, True)
    assert engine.kv_cache_dtype == "fp8"
    assert "--api-key: x (says nothing about speed)" in notes(conversion, "no counterpart")
    assert "--swap-space" in notes(conversion, "loss")


def test_two_command_lines_with_kv_roles_are_a_pair_of_pools() -> None:
    line = "vllm serve Qwen/Qwen2.5-7B --max-num-seqs {} --kv-transfer-config '{}'\n"
    config = {"kv_connector": "NixlConnector"}
    text = "#!/bin/sh\n# one of each\n" + "".join(
        line.format(seqs, json.dumps({**config, "kv_role": role}))
        for seqs, role in ((64, "kv_producer"), (128, "kv_consumer"), (128, "kv_consumer"))
    )
    deployment = split(import_text(text, "pair.sh", "pair"))
    assert (deployment.prefill.replicas, deployment.decode.replicas) == (1, 2)
    assert deployment.decode.engine is not None and deployment.decode.engine.max_num_seqs == 128


# --- errors, and the command ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\n", "none of the known forms"),
        ("name: x\ndeployment: {mode: aggregated}\n", "planner's own YAML already"),
        ("VllmWorker: {enforce-eager: true}\n", "Common.model: missing"),
        ("Common: {model: a/b}\nVllmWorker: {remote-prefill: true}\n", "without a PrefillWorker"),
        ("vllm serve --port 1\n", "without a model"),
        ("vllm serve a b\n", "after the model"),
        ("vllm serve 'a\n", "not a command line"),
        ("vllm serve a --tensor-parallel-size two\n", "--tensor-parallel-size: 'two' is not a count"),
        (GRAPH.replace("value: kv", "value: direct"), "router mode 'direct' is not modelled"),
        ("kind: DynamoGraphDeployment\nspec: {services: {Frontend: {}}}\n", "no vLLM worker"),
        ("modelArtifacts: {}\ndecode: {}\n", "modelArtifacts.name: missing"),
        ("modelArtifacts: {name: a/b}\ndecode: {replicas: many}\n", "is not a count"),
        ("Common: {model: a/b}\nVllmWorker: {max-num-seqs: -1}\n", "max_num_seqs"),
    ],
)
def test_faults_are_one_line(text: str, part: str) -> None:
    with pytest.raises(SpecError) as caught:
        import_text(text, "file", "name")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "allowed:" in str(caught.value)


def test_the_command_prints_yaml_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", str(STOCK / "disagg.yaml"), "--set", "hardware=l40s"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert load(path).hardware == "l40s"
    assert "# no counterpart: Frontend" in path.read_text()


def test_the_command_writes_a_pair_and_its_fair_counterpart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(STOCK / "disagg.yaml"), str(STOCK / "agg.yaml")]
    assert run(["import", *files, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "agg-fair.yaml", "agg.yaml", "disagg-fair.yaml", "disagg.yaml",
    ]  # fmt: skip
    assert "not the same on both sides: GPUs: 1 against 2" in said
    assert run(["import", *files, "--out", str(tmp_path / "one.yaml")]) == 2
    assert run(["import", files[1], "--out", str(tmp_path / "one.yaml")]) == 0
    assert load(tmp_path / "one.yaml").name == "agg"
    capsys.readouterr()
    assert run(["import", *files, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["yaml"]) == {"agg", "disagg", "agg-fair", "disagg-fair"}
    same = tmp_path / "other" / "agg.yaml"
    same.parent.mkdir()
    same.write_text((STOCK / "disagg.yaml").read_text())
    assert run(["import", files[1], str(same)]) == 2
    assert "both files are named 'agg'" in capsys.readouterr().err
    assert run(["import", files[0], files[0]]) == 2
    assert "both files are disaggregated" in capsys.readouterr().err
