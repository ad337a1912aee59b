"""llm-d: values of its model service chart (llm-d-modelservice v0.4).

The chart writes `vllm serve MODEL --port ...` and the TP size itself (modelCommand: vllmServe, parallelism.tensor).
With both pools the decode pods get its routing sidecar, which asks the prefill pods. Routing between pods is the job of
the gateway's inference scheduler, which has charts of its own.
"""

from __future__ import annotations

from typing import Any

from planner.interop.workers import SIDE_PORT, VLLM, dns_name, needed_hub_id, pool_options, transfer_option
from planner.spec import SpecError
from planner.system.resolve import Pool, System

CHART = "llm-d-modelservice v0.4.1"
IMAGE = f"vllm/vllm-openai:v{VLLM}.0"


def values(system: System) -> dict[str, Any]:
    """The chart's values as data. Raises SpecError for a CPU or unpublished weights."""
    if system.pools[0].hardware.kind == "cpu":
        raise SpecError("--to llm-d: its pods are meant for GPUs here; allowed for cpu: --to vllm")
    model = needed_hub_id(system.spec.model)
    gigabytes = system.model.parameters.total * system.model.dtype_bytes / 1e9
    pods = {pool.role: _pods(system, pool) for pool in system.pools}
    return {
        "multinode": False,
        "modelArtifacts": {
            "name": model,
            "uri": f"hf://{model}",
            "size": f"{int(gigabytes * 1.3) + 5}Gi",
            "authSecretName": "hf-token-secret",
            "labels": {"llm-d.ai/inferenceServing": "true", "llm-d.ai/model": dns_name(system.spec.model)},
        },
        "accelerator": {"type": "nvidia"},
        "routing": {
            "servicePort": 8000,
            "proxy": {"enabled": system.disaggregated, "connector": "nixlv2", "secure": False},
        },
        "decode": pods.get("decode") or pods["aggregated"],
        "prefill": pods.get("prefill") or {"create": False, "replicas": 0},
    }


def _pods(system: System, pool: Pool) -> dict[str, Any]:
    arguments = [option for option in pool_options(system, pool) if not option.startswith("--tensor-parallel-size")]
    environment: list[dict[str, Any]] = []
    ports: list[dict[str, Any]] = []
    if system.disaggregated:
        arguments += transfer_option(system, pool.role, both=True)
        pod_ip = {"fieldRef": {"fieldPath": "status.podIP"}}
        environment = [
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": pod_ip},
            {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_PORT)},
        ]
        ports = [{"containerPort": SIDE_PORT, "protocol": "TCP"}]
    container = {
        "name": "vllm",
        "image": IMAGE,
        "modelCommand": "vllmServe",
        "args": arguments,
        "mountModelVolume": True,
        **({"env": environment, "ports": ports} if environment else {}),
    }
    return {
        "create": True,
        "replicas": len(pool.servers),
        "parallelism": {"tensor": pool.tp, "data": pool.dp},
        "containers": [container],
    }
