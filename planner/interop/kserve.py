"""KServe: an LLMInferenceService (serving.kserve.io/v1alpha1).

Its preset starts `vllm serve` and adds VLLM_ADDITIONAL_ARGS to that command. With a prefill section KServe puts its
routing sidecar before the decode pods; requests go to pods by its scheduler, which scores cached prefixes and load.
"""

from __future__ import annotations

import shlex
from typing import Any

from planner.interop.workers import SIDE_PORT, dns_name, needed_hub_id, pool_options, transfer_option
from planner.spec import SpecError
from planner.system.resolve import Pool, System

API = "serving.kserve.io/v1alpha1"


def service(system: System) -> dict[str, Any]:
    """The object as data. Raises SpecError for a CPU or unpublished weights."""
    if system.pools[0].hardware.kind == "cpu":
        raise SpecError("--to kserve: its pods are meant for GPUs here; allowed for cpu: --to vllm")
    model = needed_hub_id(system.spec.model)
    pools = {pool.role: _pool(system, pool) for pool in system.pools}
    return {
        "apiVersion": API,
        "kind": "LLMInferenceService",
        "metadata": {"name": dns_name(system.spec.name)},
        "spec": {
            "model": {"uri": f"hf://{model}", "name": model},
            **(pools.get("decode") or pools["aggregated"]),
            "router": {"route": {}, "gateway": {}, "scheduler": {}},
            **({"prefill": pools["prefill"]} if "prefill" in pools else {}),
        },
    }


def _pool(system: System, pool: Pool) -> dict[str, Any]:
    arguments = [*pool_options(system, pool), *transfer_option(system, pool.role, both=True)]
    environment: list[dict[str, Any]] = [{"name": "VLLM_ADDITIONAL_ARGS", "value": shlex.join(arguments)}]
    if system.disaggregated:
        pod_ip = {"fieldRef": {"fieldPath": "status.podIP"}}
        environment += [
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": pod_ip},
            {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_PORT)},
        ]
    gpus = {"nvidia.com/gpu": str(pool.tp * pool.dp)}
    container = {"name": "main", "env": environment, "resources": {"limits": gpus, "requests": gpus}}
    return {
        "replicas": len(pool.servers),
        "parallelism": {"tensor": pool.tp, **({"data": pool.dp, "dataLocal": pool.dp} if pool.dp > 1 else {})},
        "template": {"containers": [container]},
    }
