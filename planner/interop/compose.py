"""Docker Compose: the same engines and proxy as containers on one machine.

Containers share the host's network, so that everything still listens on 127.0.0.1 only and NIXL's side channels need no
addresses of their own.
"""

from __future__ import annotations

from typing import Any

from planner.interop.vllm_script import served_name
from planner.interop.workers import VLLM, EngineCommand, engine_commands, needed_hub_id, one_node, transfer_option
from planner.spec import SpecError
from planner.system.resolve import System

IMAGE = f"vllm/vllm-openai:v{VLLM}.0"


def compose(system: System) -> dict[str, Any]:
    """The Compose file as data. Raises SpecError for several nodes, a CPU or unpublished weights."""
    one_node(system, "compose")
    if system.pools[0].hardware.kind == "cpu":
        raise SpecError("--to compose: the image of vLLM is for GPUs; allowed for cpu: --to vllm")
    model = needed_hub_id(system.spec.model)
    workers = engine_commands(system)
    services = {engine.name: _service(system, engine, model) for engine in workers}
    urls = [f"--{engine.role}=http://127.0.0.1:{engine.port}" for engine in workers]
    services["proxy"] = {
        "image": IMAGE,
        "network_mode": "host",
        "entrypoint": ["python3", "/proxy.py", "--port=8000", *urls],
        "volumes": ["./proxy.py:/proxy.py:ro"],
        "depends_on": {engine.name: {"condition": "service_healthy"} for engine in workers},
        "restart": "unless-stopped",
    }
    return {"name": system.spec.name.lower().replace(".", "-"), "services": services}


def _service(system: System, engine: EngineCommand, model: str) -> dict[str, Any]:
    gpus = {"driver": "nvidia", "device_ids": [str(gpu) for gpu in engine.gpus], "capabilities": ["gpu"]}
    return {
        "image": IMAGE,
        "network_mode": "host",
        "ipc": "host",
        "environment": {
            "HF_TOKEN": "${HF_TOKEN:-}",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(engine.side_port),
        },
        "volumes": ["${HF_HOME:-~/.cache/huggingface}:/root/.cache/huggingface"],
        "command": [
            "--model",
            model,
            f"--served-model-name={served_name(system)}",
            "--host=127.0.0.1",
            f"--port={engine.port}",
            *engine.options,
            *transfer_option(system, engine.role),
        ],
        "healthcheck": {
            "test": ["CMD", "curl", "-sf", f"http://127.0.0.1:{engine.port}/health"],
            "interval": "5s",
            "timeout": "5s",
            "retries": 120,
            "start_period": "30s",
        },
        "deploy": {"resources": {"reservations": {"devices": [gpus]}}},
        "restart": "unless-stopped",
    }
