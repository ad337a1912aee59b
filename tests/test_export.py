"""Exports: valid for the stacks they are for, read back by our own importers, and a script that really serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import planner
from live.server_process import free_ports
from planner.interop import remainder
from planner.interop.export import TARGETS, export
from planner.interop.import_file import import_file
from planner.interop.workers import engine_commands, hub_id, transfer_option
from planner.spec import Disaggregated, SpecError
from planner.system.resolve import resolve
from planner.traffic.traces import read

SPLIT = ["deployment.prefill.replicas=2", "deployment.decode.replicas=1", "deployment.decode.tp=2"]

# --- small schemas: what is used here of the published ones, no looser than they are --------------
# llm-d-modelservice's values.schema.json, which is closed at the top and below
# modelArtifacts and routing; the Go types behind nvidia.com/v1alpha1 in Dynamo's operator.
# A subset of JSON Schema: type, required, properties, additional (allowed or not), items, values, names, enum, pattern.

DNS = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
STRING, NUMBER, FLAG = {"type": str}, {"type": int}, {"type": bool}
ENV = {"type": list, "items": {"type": dict, "required": ["name"], "additional": True}}

# nvidia.com/v1alpha1 DynamoGraphDeployment: spec.services.* as in Dynamo 1.x
SERVICE = {
    "type": dict,
    "required": ["componentType", "replicas", "extraPodSpec"],
    "properties": {
        "componentType": {"enum": ["frontend", "worker", "planner", "epp"]},
        "subComponentType": {"enum": ["prefill", "decode"]},
        "replicas": NUMBER,
        "envs": ENV,
        "envFromSecret": STRING,
        "resources": {
            "type": dict,
            "properties": {"limits": {"type": dict, "properties": {"gpu": STRING}}},
        },
        "extraPodSpec": {
            "type": dict,
            "required": ["mainContainer"],
            "properties": {
                "mainContainer": {
                    "type": dict,
                    "required": ["image"],
                    "properties": {
                        "image": STRING,
                        "workingDir": STRING,
                        "command": {"type": list, "items": STRING},
                        "args": {"type": list, "items": STRING},
                    },
                }
            },
        },
    },
}
DYNAMO = {
    "type": dict,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"enum": ["nvidia.com/v1alpha1"]},
        "kind": {"enum": ["DynamoGraphDeployment"]},
        "metadata": {"type": dict, "required": ["name"], "properties": {"name": {"pattern": DNS}}},
        "spec": {"type": dict, "required": ["services"], "properties": {"services": {"type": dict, "values": SERVICE}}},
    },
}  # fmt: skip

# llm-d-modelservice v0.4 values
CONTAINER = {
    "type": dict,
    "required": ["name", "image", "modelCommand"],
    "properties": {
        "name": STRING,
        "image": STRING,
        "modelCommand": {"enum": ["vllmServe", "imageDefault", "custom"]},
        "args": {"type": list, "items": STRING},
        "env": ENV,
        "ports": {"type": list, "items": {"type": dict, "required": ["containerPort"], "additional": True}},
        "mountModelVolume": FLAG,
    },
}
PODS = {
    "type": dict,
    "required": ["create", "replicas"],
    "properties": {
        "create": FLAG,
        "replicas": NUMBER,
        "parallelism": {
            "type": dict,
            "properties": {"tensor": NUMBER, "data": NUMBER, "dataLocal": NUMBER, "workers": NUMBER},
        },
        "containers": {"type": list, "items": CONTAINER},
    },
}
LLMD = {
    "type": dict,
    "required": ["modelArtifacts", "decode", "prefill", "routing"],
    "properties": {
        "multinode": FLAG,
        "modelArtifacts": {
            "type": dict,
            "required": ["name", "uri"],
            "properties": {
                "name": STRING,
                "uri": {"pattern": r"(hf|pvc|oci)://.+"},
                "size": {"pattern": r"\d+Gi"},
                "authSecretName": STRING,
                "labels": {
                    "type": dict,
                    "properties": {"llm-d.ai/inferenceServing": STRING, "llm-d.ai/model": STRING},
                },
            },
        },
        "accelerator": {"type": dict, "properties": {"type": {"enum": ["nvidia"]}}},
        "routing": {
            "type": dict,
            "properties": {
                "servicePort": NUMBER,
                "proxy": {"type": dict, "properties": {"enabled": FLAG, "connector": STRING, "secure": FLAG}},
            },
        },
        "decode": PODS,
        "prefill": PODS,
    },
}

# The Compose Specification's own schema, as published (tests/data/schemas/README.md)
COMPOSE = json.loads((Path(__file__).parent / "data/schemas/compose_spec.json").read_text())


def check(schema: dict[str, Any], value: Any, where: str = "$") -> None:
    """Fails with the path of the first thing that the schema does not allow."""
    if "$schema" in schema:
        found = next(jsonschema.Draft7Validator(schema).iter_errors(value), None)
        assert found is None, found
        return
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"
        return
    if "pattern" in schema:
        assert isinstance(value, str), f"{where}: {value!r}"
        assert re.fullmatch(schema["pattern"], value), f"{where}: {value!r}"
        return
    assert type(value) is schema["type"], f"{where}: {value!r}"
    if schema["type"] is list:
        for index, item in enumerate(value):
            check(schema.get("items", {"type": type(item)}), item, f"{where}[{index}]")
    if schema["type"] is dict:
        for name in schema.get("required", ()):
            assert name in value, f"{where}.{name}: missing"
        for name, item in value.items():
            assert re.fullmatch(schema.get("names", ".*"), name), f"{where}.{name}: not a name"
            if "values" in schema:
                check(schema["values"], item, f"{where}.{name}")
            elif name in schema.get("properties", {}):
                check(schema["properties"][name], item, f"{where}.{name}")
            else:
                assert schema.get("additional") or "properties" not in schema, f"{where}.{name}: unknown"


SCHEMAS = {
    "compose": (COMPOSE, "compose.yaml"),
    "dynamo": (DYNAMO, "dynamo.yaml"),
    "llm-d": (LLMD, "llm-d-values.yaml"),
}


def test_the_schemas_do_refuse() -> None:
    compose = {"services": {"a": {"image": "b", "commands": []}}}
    for schema, wrong in ((DYNAMO, {"apiVersion": "nvidia.com/v1alpha1"}), (LLMD, {"unknown": 1}), (COMPOSE, compose)):
        with pytest.raises(AssertionError):
            check(schema, wrong)


@pytest.mark.parametrize("target", SCHEMAS)
@pytest.mark.parametrize("config", ["agg", "disagg", "multi-turn"])
def test_yaml_is_valid(target: str, config: str, tmp_path: Path) -> None:
    schema, name = SCHEMAS[target]
    export(planner.load(config, SPLIT if config == "disagg" else []), target, tmp_path)
    found = yaml.safe_load((tmp_path / name).read_text())
    if target == "compose":
        assert re.fullmatch("[a-z0-9][a-z0-9_-]*", found.pop("name"))  # the schema is older than this key
    check(schema, found)


@pytest.mark.parametrize(
    ("target", "name"),
    [("dynamo", "dynamo.yaml"), ("llm-d", "llm-d-values.yaml"), ("kserve", "kserve.yaml"), ("lws", "lws.yaml")],
)
@pytest.mark.parametrize("config", ["agg", "disagg"])
def test_what_is_exported_can_be_imported(target: str, name: str, config: str, tmp_path: Path) -> None:
    spec = planner.load(config, ["deployment.router.policy=round_robin", *(SPLIT if config == "disagg" else [])])
    export(spec, target, tmp_path)
    found = import_file(tmp_path / name).spec.deployment
    ours = spec.deployment
    assert found.mode == ours.mode
    if isinstance(ours, Disaggregated) and isinstance(found, Disaggregated):
        for pool, other in ((ours.prefill, found.prefill), (ours.decode, found.decode)):
            assert (pool.replicas, pool.tp) == (other.replicas, other.tp)
    else:
        assert (found.replicas, found.tp) == (ours.replicas, ours.tp)


MAIN = {
    "vllm": "launch.sh", "compose": "compose.yaml", "dynamo": "dynamo.yaml", "llm-d": "llm-d-values.yaml",
    "kserve": "kserve.yaml", "lws": "lws.yaml",
}  # fmt: skip
SHIPPED = sorted(
    str(path.relative_to(planner.spec.config_root()))
    for folder in ("", "report")
    for path in (planner.spec.config_root() / folder).glob("*.yaml")
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("config", SHIPPED)
def test_export_and_import_give_the_same_spec(target: str, config: str, tmp_path: Path) -> None:
    spec = planner.load(planner.spec.config_root() / config)
    if spec.hardware == "cpu" and target != "vllm":
        with pytest.raises(SpecError, match="allowed for cpu: --to vllm"):
            export(spec, target, tmp_path)
        return
    export(spec, target, tmp_path)
    found = import_file(tmp_path / MAIN[target])
    assert found.spec == spec
    assert not [note for note in found.losses if note.grave]


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_begins_with_what_is_for_people(target: str, tmp_path: Path) -> None:
    """What only the importer reads is the last comment of its head."""
    export(planner.load("agg"), target, tmp_path)
    lines = (tmp_path / MAIN[target]).read_text().splitlines()
    (place,) = [at for at, line in enumerate(lines) if line.startswith(remainder.MARK)]
    assert place > 0
    assert not lines[place + 1].startswith("#")


@pytest.mark.parametrize("target", TARGETS)
def test_ranks_are_said_by_the_file_itself(target: str, tmp_path: Path) -> None:
    """One server of all its ranks' GPUs; ranks that no file of one node can hold are refused."""
    changes = ["model=qwen3-30b-a3b", "profile=null", "deployment.dp=4", "engine.enable_expert_parallel=true"]
    spec = planner.load("agg", [*changes, "deployment.tp=2", "deployment.replicas=1"])
    export(spec, target, tmp_path)
    path = tmp_path / MAIN[target]
    text = "".join(line for line in path.read_text().splitlines(True) if not line.startswith(remainder.MARK))
    path.write_text(text)
    again = import_file(path).spec
    assert again.deployment.model_dump(include={"replicas", "tp", "dp"}) == {"replicas": 1, "tp": 2, "dp": 4}
    assert again.engine.enable_expert_parallel
    assert re.search({"vllm": "=0,1,2,3,4,5,6,7 ", "compose": "- '7'"}.get(target, ": '8'"), text) or target == "llm-d"
    with pytest.raises(SpecError, match="nodes"):
        export(planner.load("agg", [*changes, "deployment.tp=4", "deployment.replicas=1"]), target, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_the_deployment_is_said_by_the_file_itself(target: str, tmp_path: Path) -> None:
    """Without the comment too: modes, workers, GPUs, model and limits, so that what others edit counts."""
    spec = planner.load("disagg", [*SPLIT, "engine.kv_cache_dtype=fp8"])
    export(spec, target, tmp_path)
    path = tmp_path / MAIN[target]
    (line,) = [line for line in path.read_text().splitlines(True) if line.startswith(remainder.MARK)]
    told = {entry[0] for entry in json.loads(line.removeprefix(remainder.MARK))}
    assert not [key for key in told if re.search(r"mode$|replicas|\.tp$|^model$|kv_cache_dtype", key)]
    path.write_text(path.read_text().replace(line, ""))
    again = import_file(path).spec
    assert again.model == spec.model
    for pool, other in zip(resolve(spec).pools, resolve(again).pools, strict=True):
        assert (pool.role, pool.tp, len(pool.workers), pool.engine.kv_cache_dtype) == (
            other.role, other.tp, len(other.workers), other.engine.kv_cache_dtype,
        )  # fmt: skip
        assert (pool.limits.max_model_len, pool.limits.max_num_seqs) == (
            other.limits.max_model_len, other.limits.max_num_seqs,
        )  # fmt: skip


def test_sessions_stay_with_their_worker_in_dynamos_way(tmp_path: Path) -> None:
    export(planner.load("multi-turn", ["deployment.router.policy=session_affinity"]), "dynamo", tmp_path)
    text = (tmp_path / "dynamo.yaml").read_text()
    envs = {one["name"]: one["value"] for one in yaml.safe_load(text)["spec"]["services"]["Frontend"]["envs"]}
    assert envs == {"DYN_ROUTER_MODE": "random", "DYN_ROUTER_SESSION_AFFINITY_TTL_SECS": "600"}
    assert "X-Dynamo-Session-ID" in text.splitlines()[0]
    assert "router" not in text.splitlines()[1]  # the file says it all
    assert import_file(tmp_path / "dynamo.yaml").spec.deployment.router.policy == "session_affinity"


def test_what_is_edited_counts_and_a_broken_comment_is_said(tmp_path: Path) -> None:
    export(planner.load("disagg", ["engine.max_num_seqs=64", "workload.rate=3"]), "dynamo", tmp_path)
    path = tmp_path / "dynamo.yaml"
    path.write_text(
        path.read_text().replace("--max-num-seqs=64", "--max-num-seqs=32").replace("replicas: 1", "replicas: 2")
    )
    found = import_file(path).spec
    assert (found.engine.max_num_seqs, found.workload.rate) == (32, 3)  # type: ignore[union-attr]
    assert resolve(found).gpus == 4
    for broken in ("no json", "[1]", '[["a", 1]]', '[["name", "disagg", {"x": 1}], ["name.y", null, 1]]'):
        path.write_text(re.sub(rf"{remainder.MARK}.*", remainder.MARK + broken, path.read_text()))
        with pytest.raises(SpecError):
            import_file(path)


def test_vllm_accepts_every_option_that_is_exported(tmp_path: Path) -> None:
    """By its own parser, in a process of its own."""
    pytest.importorskip("vllm", reason="the CPU build is not installed")
    knobs = [
        "engine.enforce_eager=true", "engine.block_size=32", "engine.kv_cache_dtype=fp8", "engine.quantization=fp8",
        "engine.async_scheduling=false", "engine.long_prefill_token_threshold=512", "engine.watermark=0.02",
        "engine.scheduler_reserve_full_isl=false", "engine.num_gpu_blocks_override=20000", "engine.load_format=dummy",
        "engine.max_position_embeddings=262144", "engine.enable_prefix_caching=false",
    ]  # fmt: skip
    lines = []
    for config, more in (("agg", knobs), ("disagg", knobs), ("long-context-disagg", []), ("cpu-1p1d", [])):
        system = resolve(planner.load(config, [*more, *(["profile=null"] if more else [])]))
        for engine in engine_commands(system):
            role = transfer_option(system, engine.role)
            lines.append(["--served-model-name=x", "--host=127.0.0.1", f"--port={engine.port}", *engine.options, *role])
    program = (
        "import importlib.metadata as m, json, sys\n"
        "o = m.version\n"
        "m.version = lambda name: '0.32.0+cpu' if name == 'vllm' else o(name)\n"
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser = make_arg_parser(FlexibleArgumentParser())\n"
        "for words in json.load(sys.stdin):\n"
        "    parser.parse_args(words)\n"
        "print('accepted')\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.stdout.strip().endswith("accepted"), told.stderr[-600:]


def test_the_proxy_hands_over_under_one_id_a_request(tmp_path: Path) -> None:
    """As NixlPushConnector needs it: the decode server waits for what the prefill server has under the same id."""
    pytest.importorskip("aiohttp", reason="the live extra is not installed")
    import argparse
    import asyncio
    import runpy

    from aiohttp import ClientSession, web

    from fake_engine import FakeEngine

    export(planner.load("disagg", ["deployment.link.connector=NixlPushConnector"]), "vllm", tmp_path)
    code = runpy.run_path(str(tmp_path / "proxy.py"))

    async def ask() -> tuple[list[int], list[str], list[str]]:
        async with FakeEngine("p", "prefill") as prefill, FakeEngine("d", "decode", pushed_by=prefill) as decode:
            proxy = code["Proxy"](argparse.Namespace(prefill=[prefill.url], decode=[decode.url], aggregated=[]))
            app = web.Application()
            app.cleanup_ctx.append(proxy.run)
            app.router.add_post("/v1/completions", proxy.complete)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/completions"
            body = {"model": "fake", "prompt": [5] * 20, "max_tokens": 4, "stream": True}
            async with ClientSession() as session:
                answers = [await session.post(url, json=body) for _ in range(2)]
                for answer in answers:
                    await answer.read()
            await runner.cleanup()
            return [answer.status for answer in answers], prefill.ids, decode.ids

    statuses, first, second = asyncio.run(asyncio.wait_for(ask(), 20))
    assert statuses == [200, 200]
    assert first == second
    assert len(set(first)) == 2


def test_gpus_and_ports_are_not_shared() -> None:
    workers = engine_commands(resolve(planner.load("disagg", SPLIT)))
    assert [worker.gpus for worker in workers] == [(0,), (1,), (2, 3)]
    assert len({worker.port for worker in workers} | {worker.side_port for worker in workers}) == 6


def test_script_is_bash_and_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "a model's folder"
    folder.mkdir()
    config = planner.spec.config_root() / "models" / "llama-3.1-8b.yaml"
    (folder / "config.json").write_text(json.dumps(yaml.safe_load(config.read_text())["config"]))
    spec = planner.load("disagg", [f"model={json.dumps(str(folder))}", "profile=null"])
    for path in export(spec, "vllm", tmp_path / "out"):
        if path.suffix == ".sh":
            subprocess.run(["bash", "-n", str(path)], check=True)
    compile((tmp_path / "out" / "proxy.py").read_text(), "proxy.py", "exec")
    script = (tmp_path / "out" / "launch.sh").read_text()
    assert "a model'\"'\"'s folder" in script
    assert "0.0.0.0" not in script
    assert "CUDA_VISIBLE_DEVICES=1 " in script


def test_the_load_is_said_in_options_or_replayed(tmp_path: Path) -> None:
    export(planner.load("disagg", ["workload.shared_prefix_tokens=1000"]), "dynamo", tmp_path / "fixed")
    fixed = (tmp_path / "fixed" / "load.sh").read_text()
    for words in (
        "--random-prefix-len 1000", "--random-input-len 2000", "--random-output-len 100", "--request-rate 8",
        "--goodput ttft:500 tpot:30", "--save-detailed", "--result-filename vllm-bench.json",
        "--synthetic-input-tokens-mean 3000", "--arrival-pattern poisson",
    ):  # fmt: skip
        assert words in fixed
    spec = planner.load("long-context", ["workload.requests=20"])
    export(spec, "dynamo", tmp_path / "drawn")
    assert "--dataset-name timed_trace" in (tmp_path / "drawn" / "load.sh").read_text()
    assert len(read(tmp_path / "drawn" / "requests.jsonl").requests) == 20
    export(planner.load("multi-turn"), "dynamo", tmp_path / "chats")
    chats = (tmp_path / "chats" / "load.sh").read_text()
    assert "vllm" not in chats
    assert "planner live planner.yaml --endpoint" in chats.replace(" \\\n   ", "")


def test_what_cannot_be_exported_is_said() -> None:
    out = Path("unused")
    with pytest.raises(SpecError, match=r"--to swarm: is unknown; allowed: vllm, compose, dynamo, llm-d, kserve, lws"):
        export(planner.load("agg"), "swarm", out)
    with pytest.raises(SpecError, match="its vLLM workers need GPUs"):
        export(planner.load("cpu-agg"), "dynamo", out)
    with pytest.raises(SpecError, match=r"spans 2 nodes; allowed: one"):
        export(planner.load("agg", ["deployment.replicas=16"]), "compose", out)
    assert not out.exists()


def test_hub_ids() -> None:
    assert hub_id("llama-3.1-8b") == "meta-llama/Llama-3.1-8B"
    assert hub_id("small") is None
    assert hub_id("someone/a-model") == "someone/a-model"
    assert sorted(TARGETS) == ["compose", "dynamo", "kserve", "llm-d", "lws", "vllm"]


# --- for real ------------------------------------------------------------------------------------


@pytest.mark.live
def test_the_script_serves_on_this_machine(tmp_path: Path) -> None:
    """Two CPU servers, a real KV transfer, one request through the proxy."""
    if shutil.which("curl") is None:
        pytest.skip("the script needs curl, which is not installed")
    export(planner.load("cpu-1p1d"), "vllm", tmp_path)
    (port,) = free_ports(1)  # bound half a minute later
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(
        ["bash", str(tmp_path / "launch.sh")],
        env={**os.environ, "PATH": path, "PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        body = {"model": "small", "prompt": list(range(100, 400)), "max_tokens": 8, "ignore_eos": True}
        ask = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        while True:
            assert server.poll() is None, (tmp_path / "logs" / "prefill-0.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(1)
        with urllib.request.urlopen(ask, timeout=60) as response:
            usage = json.load(response)["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (300, 8)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
