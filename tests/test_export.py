"""Exports: valid for the stacks they are for, read back by our own importers, and a script that really serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

import planner
from planner.interop.export import TARGETS, export
from planner.interop.import_file import import_file
from planner.interop.workers import engines, hub_id
from planner.spec import Disaggregated, SpecError
from planner.system.resolve import resolve
from planner.traffic.traces import read

SPLIT = ["deployment.prefill.replicas=2", "deployment.decode.replicas=1", "deployment.decode.tp=2"]

# --- small schemas: what is used here of the published ones, no looser than they are --------------
# compose-spec/schema/compose-spec.json; llm-d-modelservice's values.schema.json, which is closed at the top and below
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

# Compose Specification: the keys of a service that are used here
NAME = r"[a-zA-Z0-9._-]+"
COMPOSE_SERVICE = {
    "type": dict,
    "required": ["image"],
    "properties": {
        "image": STRING,
        "network_mode": {"enum": ["host"]},
        "ipc": {"enum": ["host"]},
        "environment": {"type": dict, "values": STRING},
        "volumes": {"type": list, "items": STRING},
        "command": {"type": list, "items": STRING},
        "entrypoint": {"type": list, "items": STRING},
        "healthcheck": {
            "type": dict,
            "properties": {
                "test": {"type": list, "items": STRING},
                "interval": {"pattern": r"\d+s"},
                "timeout": {"pattern": r"\d+s"},
                "retries": NUMBER,
                "start_period": {"pattern": r"\d+s"},
            },
        },
        "depends_on": {"type": dict, "names": NAME, "values": {
            "type": dict,
            "required": ["condition"],
            "properties": {
                "condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
            },
        }},
        "deploy": {"type": dict, "properties": {"resources": {"type": dict, "properties": {"reservations": {
            "type": dict,
            "properties": {"devices": {"type": list, "items": {
                "type": dict,
                "required": ["capabilities"],
                "properties": {
                    "capabilities": {"type": list, "items": STRING},
                    "device_ids": {"type": list, "items": STRING},
                    "driver": STRING,
                },
            }}},
        }}}}},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
    },
}  # fmt: skip
COMPOSE = {
    "type": dict,
    "required": ["services"],
    "properties": {
        "name": {"pattern": r"[a-z0-9][a-z0-9_-]*"},
        "services": {"type": dict, "names": NAME, "values": COMPOSE_SERVICE},
    },
}


def check(schema: dict[str, Any], value: Any, where: str = "$") -> None:
    """Fails with the path of the first thing that the schema does not allow."""
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
    for schema, wrong in ((DYNAMO, {"apiVersion": "nvidia.com/v1alpha1"}), (LLMD, {"unknown": 1}), (COMPOSE, [])):
        with pytest.raises(AssertionError):
            check(schema, wrong)


@pytest.mark.parametrize("target", SCHEMAS)
@pytest.mark.parametrize("config", ["agg", "disagg", "multi-turn"])
def test_yaml_is_valid(target: str, config: str, tmp_path: Path) -> None:
    schema, name = SCHEMAS[target]
    export(planner.load(config, SPLIT if config == "disagg" else []), target, tmp_path)
    check(schema, yaml.safe_load((tmp_path / name).read_text()))


@pytest.mark.parametrize(("target", "name"), [("dynamo", "dynamo.yaml"), ("llm-d", "llm-d-values.yaml")])
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
    workers = engines(resolve(planner.load("disagg", SPLIT)))
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
        "--goodput ttft:500 tpot:30", "--synthetic-input-tokens-mean 3000", "--arrival-pattern poisson",
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
    with pytest.raises(SpecError, match=r"--to swarm: is unknown; allowed: vllm, compose, dynamo, llm-d"):
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
    assert sorted(TARGETS) == ["compose", "dynamo", "llm-d", "vllm"]


# --- for real ------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.live
def test_the_script_serves_on_this_machine(tmp_path: Path) -> None:
    """Two CPU servers, a real KV transfer, one request through the proxy."""
    if shutil.which("curl") is None:
        pytest.skip("the script needs curl, which is not installed")
    export(planner.load("cpu-1p1d"), "vllm", tmp_path)
    port = _free_port()
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
