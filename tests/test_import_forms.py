"""The forms that people bring: what each becomes, and what is refused rather than changed."""

# ruff: noqa: E501 - command lines and YAML as people write them

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from import_cases import NIXL, read, said, shape
from planner.cli import run
from planner.interop.import_file import import_file, import_text
from planner.spec import SpecError

CASES = Path(__file__).parents[2] / "shared" / "cases"

# --- Kubernetes ----------------------------------------------------------------------------------------


def workload(name: str, gpus: int, arguments: list[str], kind: str = "Deployment", replicas: int = 1) -> str:

    pod_ip = {"fieldRef": {"fieldPath": "status.podIP"}}
    container = {
        "name": "modelserver", "image": "vllm/vllm-openai:v0.11.0", "command": ["vllm", "serve"], "args": arguments,
        "env": [{"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": pod_ip}],
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }  # fmt: skip
    selector = {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    pod = {"spec": {"containers": [container], "nodeSelector": selector}}
    data = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "template": pod},
    }
    return yaml.safe_dump(data)


def test_deployments_and_stateful_sets() -> None:
    arguments = ["Qwen/Qwen3-32B", "--tensor-parallel-size=4", f"--kv-transfer-config={NIXL}"]
    texts = (
        workload("chat-prefill", 4, arguments, replicas=3)
        + "---\n"
        + workload("chat-decode", 4, arguments, "StatefulSet")
    )
    found = read(texts + "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n")
    assert (shape(found), found.spec.hardware, found.losses) == (((3, 4), (1, 4)), "h100", ())
    half = read(workload("decode", 4, arguments, replicas=2))
    assert shape(half) == ((2, 4),)
    assert "only the decode half of a pair" in said(half, "loss")
    idle = read(workload("chat", 4, ["Qwen/Qwen3-32B"]))
    assert "4 GPUs for an engine that uses 1" in said(idle, "loss")


def test_variables_of_config_maps_and_unknown_kinds() -> None:
    pods = """
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {MODEL: Qwen/Qwen3-32B, TP: "4"}
---
apiVersion: example.com/v1
kind: Fleet
metadata: {name: f}
spec:
  replicas: 2
  roles:
  - name: prefill
    template: {spec: {containers: [{image: vllm/vllm-openai, envFrom: [{configMapRef: {name: c}}], args: [ARGS]}]}}
  - name: decode
    replicas: 3
    template: {spec: {containers: [{image: vllm/vllm-openai, command: [sh, -c, "vllm serve $(MODEL) -tp 1 KV"],
      env: [{name: MODEL, valueFrom: {configMapKeyRef: {name: c, key: MODEL}}}]}]}}
"""
    config = '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'
    arguments = f"--model, $(MODEL), -tp, $(TP), --kv-transfer-config, '{config}'"
    found = read(pods.replace("ARGS", arguments).replace("KV", f"--kv-transfer-config '{config}'".replace('"', '\\"')))
    assert shape(found) == ((2, 4), (6, 1))
    assert found.spec.model == "qwen3-32b" and "Fleet" in said(found, "assumed")


def test_two_halves_in_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["Qwen/Qwen3-32B", "--tensor-parallel-size=4", f"--kv-transfer-config={NIXL}"]
    files = [tmp_path / "prefill.yaml", tmp_path / "decode.yaml"]
    for path in files:
        path.write_text(workload(path.stem, 4, arguments))
    assert run(["import", *map(str, files), "--together"]) == 0
    assert "understood: 1 prefill worker of 4 GPUs, 1 decode worker of 4 GPUs" in capsys.readouterr().out


LWS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: wide}
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        containers:
          - name: vllm
            image: vllm/vllm-openai:v0.11.0
            command: [/bin/bash, -c]
            args: ["vllm serve Qwen/Qwen3-32B --tensor-parallel-size 8 --data-parallel-size $LWS_GROUP_SIZE"]
            resources: {limits: {nvidia.com/gpu: "8"}}
"""


def test_leader_worker_and_disaggregated_sets() -> None:
    found = read(LWS)
    assert (found.dialect, shape(found), found.losses) == ("LeaderWorkerSet", ((4, 8),), ())

    role = yaml.safe_load(LWS)["spec"]
    container = role["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]
    container["args"] = [f"vllm serve Qwen/Qwen3-32B -tp 8 -dp 2 --kv-transfer-config '{NIXL}'"]
    container["env"] = [
        {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    ]
    for nested in (True, False):
        roles = [{"name": name, **({"spec": role} if nested else role)} for name in ("prefill", "decode")]
        data = {"kind": "DisaggregatedSet", "metadata": {"name": "d"}, "spec": {"roles": roles, "slices": 2}}
        both = read(yaml.safe_dump(data))
        assert (both.dialect, shape(both), both.losses) == ("DisaggregatedSet", ((8, 8), (8, 8)), ())


KSERVE = """
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: chat}
spec:
  model: {uri: "hf://Qwen/Qwen3-32B", name: qwen}
  replicas: 1
  parallelism: {tensor: 2}
  router: {route: {}, gateway: {}, scheduler: {}}
  kvCacheOffloading: {cpu: {size: 10Gi}}
  template: &pod
    containers:
      - name: main
        env:
          - {name: VLLM_NIXL_SIDE_CHANNEL_HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
          - {name: VLLM_ADDITIONAL_ARGS, value: "--max-num-seqs 64 --kv_transfer_config '%s'"}
        resources: {limits: {nvidia.com/gpu: "2"}}
  prefill: {replicas: 2, parallelism: {tensor: 2}, template: *pod, kvCacheOffloading: {cpu: {size: 10Gi}}}
""".replace("%s", NIXL.replace('"', '\\"'))


def test_kserve() -> None:
    found = read(KSERVE)
    assert (found.dialect, found.spec.model, shape(found)) == ("LLMInferenceService", "qwen3-32b", ((2, 2), (1, 2)))
    assert found.spec.deployment.router.policy == "prefix_aware"
    assert found.spec.engine.max_num_seqs == 64
    assert found.spec.optimizations.decode.offload[0].capacity_gb == pytest.approx(10.73741824)
    assert found.losses == ()
    predictor = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: old}\nspec: {predictor: {model: {modelFormat: {name: huggingface}, args: [--model_id=Qwen/Qwen3-32B, --tensor-parallel-size=2], resources: {limits: {nvidia.com/gpu: '2'}}}}}\n"
    assert shape(read(predictor)) == ((1, 2),)


# --- charts, Compose, Ray, Dynamo ------------------------------------------------------------------------

STACK = """
servingEngineSpec:
  modelSpec:
    - name: qwen-prefill
      modelURL: Qwen/Qwen3-32B
      replicaCount: 2
      requestGPU: 2
      vllmConfig: {tensorParallelSize: 2, enablePrefixCaching: true, maxModelLen: 8192, extraArgs: [--disable-log-requests]}
      lmcacheConfig: {enabled: true, kvRole: kv_producer}
    - name: qwen-decode
      modelURL: Qwen/Qwen3-32B
      replicaCount: 1
      requestGPU: 2
      vllmConfig: {tensorParallelSize: 2, enablePrefixCaching: true, maxModelLen: 8192}
      lmcacheConfig: {enabled: true, kvRole: kv_consumer}
routerSpec: {routingLogic: disaggregated_prefill}
"""


def test_production_stack() -> None:
    found = read(STACK)
    assert (found.dialect, shape(found), found.spec.engine.max_model_len) == (
        "production-stack",
        ((2, 2), (1, 2)),
        8192,
    )
    whole = read(
        "servingEngineSpec: {modelSpec: [{name: a, modelURL: Qwen/Qwen3-32B, requestGPU: 1, replicaCount: 3, lmcacheConfig: {enabled: true, cpuOffloadingBufferSize: '30'}}]}\nrouterSpec: {routingLogic: session}\n"
    )
    assert (shape(whole), whole.spec.deployment.router.policy) == (((3, 1),), "session_affinity")
    assert whole.spec.optimizations.decode.offload[0].capacity_gb == 30
    with pytest.raises(SpecError, match="several models"):
        read(STACK.replace("Qwen/Qwen3-32B", "Qwen/Qwen3-1.7B", 1))


COMPOSE = f"""
services:
  prefill:
    image: vllm/vllm-openai:v0.11.0
    network_mode: host
    environment: [VLLM_NIXL_SIDE_CHANNEL_PORT=5600]
    command: --model ${{MODEL:-Qwen/Qwen3-32B}} --tensor-parallel-size 2 --port 8100 --kv-transfer-config '{NIXL}'
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, device_ids: ["0", "1"], capabilities: [gpu]}}]}}}}}}
  decode:
    image: vllm/vllm-openai:v0.11.0
    network_mode: host
    environment: {{VLLM_NIXL_SIDE_CHANNEL_PORT: "5601"}}
    command: [--model, Qwen/Qwen3-32B, --tensor-parallel-size, "2", --port, "8200", --kv-transfer-config, '{NIXL}']
    deploy: {{resources: {{reservations: {{devices: [{{driver: nvidia, count: 2, capabilities: [gpu]}}]}}}}}}
  proxy: {{image: python, command: python proxy.py --prefill http://localhost:8100 --decode http://localhost:8200}}
"""


def test_compose_leaves_dollars_to_the_shell() -> None:
    text = """services:
  llm:
    image: vllm/vllm-openai
    entrypoint: [bash, -c]
    command: ['if [ "$${Q:-none}" != none ]; then E="--quantization $$Q"; fi; vllm serve Qwen/Qwen3-8B -tp ${TP:-2} $$E']
"""
    found = read(text)
    assert shape(found) == ((1, 2),)
    assert found.spec.engine.quantization is None


SERVED = """services:
  llm:
    image: vllm/vllm-openai
    env_file: [base.env, {path: ./own.env, required: false}]
    environment: {TP: "4"}
    entrypoint: [bash, -c]
    command: ["vllm serve $$MODEL -tp $$TP --max-num-seqs $$SEQS --max-model-len ${LONGEST}"]
"""


def test_compose_reads_files_of_variables_beside_it(tmp_path: Path) -> None:
    """Later files over earlier ones, the service's own over both; `.env` goes into the file itself."""
    (tmp_path / "base.env").write_text("# ours\nexport MODEL='Qwen/Qwen3-8B'\nTP=2\nSEQS=32 # few\n\nHF_TOKEN\n")
    (tmp_path / "own.env").write_text('SEQS="${FEW:-64}"\n')
    (tmp_path / ".env").write_text("\ufeffLONGEST=4096\n")
    path = tmp_path / "compose.yaml"
    path.write_text(SERVED)
    found = import_file(path)
    assert (found.spec.model, shape(found)) == ("qwen3-8b", ((1, 4),))
    assert (found.spec.engine.max_num_seqs, found.spec.engine.max_model_len) == (64, 4096)
    assert "env_file" not in found.yaml
    path.write_text(SERVED.replace("$$MODEL", "${MODEL}"))
    assert "assumed: services.llm.env_file: fills in ${...} of the file too" in import_file(path).yaml


def test_compose_warns_of_files_of_variables_that_it_does_not_read(tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (tmp_path / "secret.env").write_text("MODEL=Qwen/Qwen3-32B\n")
    (away / "linked.env").symlink_to(tmp_path / "secret.env")
    (away / "large.env").write_text("#" * 2_000_000)
    (away / "bytes.env").write_bytes(b"\xff")
    path = away / "compose.yaml"
    names = ["../secret.env", "/etc/passwd", "linked.env", "large.env", "bytes.env", "gone.env", "."]
    path.write_text(
        f"services: {{llm: {{image: vllm/vllm-openai, env_file: {names}, command: --model Qwen/Qwen3-8B}}}}"
    )
    found = import_file(path)
    assert found.spec.model == "qwen3-8b"
    warned = [note.key for note in found.notes if note.kind == "warning"]
    assert [key for key in warned if "env_file" in key] == [f"services.llm.env_file: {name}" for name in names]
    lost = path.read_text().replace("Qwen/Qwen3-8B", "$MODEL")
    with pytest.raises(
        SpecError, match=r"'\$MODEL' is no model.*\(services.llm.env_file: ../secret.env is another file"
    ):
        import_text(lost, str(path), "name")  # says why it may be unknown
    assert "which is not at hand" in said(read(path.read_text()), "warning")  # a text without a folder


def test_compose_services_take_over_from_others() -> None:
    text = """include: [gpu.yaml]
services:
  base: {image: vllm/vllm-openai, environment: [TP=2, SEQS=8], entrypoint: [bash, -c]}
  llm:
    extends: {service: base}
    environment: {SEQS: "16"}
    command: ["vllm serve Qwen/Qwen3-8B -tp $$TP --max-num-seqs $$SEQS"]
  other: {extends: {service: far, file: far.yaml}, image: vllm/vllm-openai, command: --model Qwen/Qwen3-8B -tp 2 --max-num-seqs 16}
  self: {extends: self}
"""
    found = read(text)
    assert (shape(found), found.spec.engine.max_num_seqs) == (((2, 2),), 16)
    warned = said(found, "warning")
    assert "services.other.extends: far.yaml: is another file" in warned
    assert "include: names other files" in warned


def test_compose_starts_what_has_no_profile(tmp_path: Path) -> None:
    text = """services:
  llm: {image: vllm/vllm-openai, command: --model Qwen/Qwen3-8B -tp 2}
  embed: {image: vllm/vllm-openai, profiles: [extra], command: --model BAAI/bge-m3}
"""
    found = read(text)
    assert (found.spec.model, shape(found)) == ("qwen3-8b", ((1, 2),))
    assert "services: embed: left out" in said(found, "assumed")
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=extra, more\n")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SpecError, match="several models"):
        import_file(tmp_path / "c.yaml")
    alone = read("\n".join(line for line in text.splitlines() if "llm:" not in line).replace("bge-m3", "bge-m3 -tp 4"))
    assert alone.spec.deployment.tp == 4  # nothing else could be meant


def test_compose() -> None:
    found = read(COMPOSE)
    assert (found.dialect, found.spec.model, shape(found), found.losses) == (
        "Docker Compose",
        "qwen3-32b",
        ((1, 2), (1, 2)),
        (),
    )


RAY = """
applications:
  - name: pd
    import_path: ray.serve.llm:build_pd_openai_app
    args:
      prefill_config: &config
        model_loading_config: {model_id: qwen, model_source: Qwen/Qwen3-32B}
        accelerator_type: H100
        engine_kwargs: {tensor_parallel_size: 2, max_num_seqs: 64, kv_transfer_config: {kv_connector: NixlConnector, kv_role: kv_both}}
        deployment_config: {num_replicas: 2}
      decode_config:
        <<: *config
        deployment_config: {autoscaling_config: {min_replicas: 1, max_replicas: 4}}
"""


def test_ray_serve() -> None:
    text = RAY.replace("        <<: *config\n", "")
    plain = text.replace(
        "      decode_config:\n",
        "      decode_config:\n        model_loading_config: {model_id: Qwen/Qwen3-32B, model_source: Qwen/Qwen3-32B}\n        engine_kwargs: {tensor_parallel_size: 2, max_num_seqs: 64, kv_transfer_config: {kv_connector: NixlConnector, kv_role: kv_both}}\n",
    )
    found = read(plain)
    assert (found.dialect, shape(found), found.spec.hardware) == ("Ray Serve LLM", ((2, 2), (1, 2)), "h100")
    assert "scaled from 1 to 4; 1 count" in said(found, "loss")
    one = "applications: [{args: {llm_configs: [{model_loading_config: {model_id: Qwen/Qwen3-32B}, engine_kwargs: {tensor_parallel_size: 4}, deployment_config: {num_replicas: 2}}]}}]\n"
    assert shape(read(one)) == ((2, 4),)

    service = {"kind": "RayService", "metadata": {"name": "svc"}, "spec": {"serveConfigV2": one}}
    assert shape(read(yaml.safe_dump(service))) == ((2, 4),)


REQUEST = """
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeploymentRequest
metadata: {name: wanted}
spec:
  model: Qwen/Qwen3-32B
  backend: vllm
  hardware: {gpuSku: h100_sxm, totalGpus: 8}
  workload: {isl: 3000, osl: 300}
  sla: {ttft: 500, itl: 30ms}
  autoApply: true
"""


def test_a_request_for_a_deployment_is_its_model_load_and_targets() -> None:
    found = read(REQUEST)
    spec = found.spec
    assert (spec.model, spec.hardware, shape(found)) == ("qwen3-32b", "h100", ((8, 1),))
    assert (spec.workload.prompt_tokens, spec.workload.output_tokens) == (3000, 300)  # type: ignore[union-attr]
    assert (spec.slo.ttft_ms, spec.slo.tpot_ms) == (500, 30)
    assert "planner suggest FILE --gpus 8" in said(found, "assumed")


def test_vllm_config_files() -> None:
    found = read(
        "model: Qwen/Qwen3-32B\ntensor-parallel-size: 2\nno-enable-prefix-caching: true\nkv-cache-dtype: fp8\n"
    )
    assert (found.dialect, shape(found), found.spec.engine.kv_cache_dtype) == ("vLLM config", ((1, 2),), "fp8")
    assert not found.spec.engine.enable_prefix_caching


def test_what_is_unknown_names_the_known_forms() -> None:
    with pytest.raises(SpecError, match="none of the known forms; allowed: .*Compose.*KServe.*Ray Serve") as caught:
        read("kind: Unknown\nspec: {}\n")
    assert "\n" not in str(caught.value)


def test_servers_that_nobody_can_count_are_refused() -> None:
    with pytest.raises(SpecError, match="how many servers it starts is not known"):
        read("#!/bin/sh\ni=0\nwhile [ $i -lt 4 ]; do vllm serve a/b --port 80$i & i=$((i+1)); done\n")
    with pytest.raises(SpecError, match="its servers are in config.yaml"):
        read("trtllm-serve disaggregated -c config.yaml\n")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


@pytest.mark.parametrize("form", ["LWS", "KSERVE", "STACK", "COMPOSE", "REQUEST"])
def test_damaged_files_are_one_line(form: str) -> None:
    """Any value of a right file replaced by one of another kind: converted, or a SpecError, never a traceback."""
    import contextlib
    import copy

    whole = yaml.safe_load(globals()[form])
    for index, place in enumerate(_places(whole)[1:]):
        damaged = copy.deepcopy(whole)
        here = damaged
        for key in place[:-1]:
            here = here[key]
        here[place[-1]] = [3, "x", [1], {"a": 1}, None][index % 5]
        with contextlib.suppress(SpecError):
            read(yaml.safe_dump(damaged), accept=True)


@pytest.mark.parametrize("name", ["04", "07", "09", "12", "14", "15", "17", "19"])
def test_the_reported_files_convert(name: str) -> None:
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not here")
    (path,) = [path for path in CASES.glob(f"{name}-*") if path.suffix in (".sh", ".yaml")]
    found = import_text(path.read_text(), path.name, path.stem)
    gpus = {"04": 1, "07": 2, "09": 2, "12": 8, "14": 2, "15": 8, "17": 2, "19": 1}
    assert sum(replicas * tp for replicas, tp in shape(found)) == gpus[name]
    assert "$" not in found.spec.model
