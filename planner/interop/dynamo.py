"""NVIDIA Dynamo: a DynamoGraphDeployment whose workers run vLLM.

API nvidia.com/v1alpha1 and the worker options as in Dynamo 1.6's vLLM backend: `--disaggregation-mode` names the role
and every vLLM option may follow. Images follow Dynamo's own releases: set VERSION.
"""

from __future__ import annotations

from typing import Any

from live.dynamo import router_options, variable
from planner.interop.workers import dns_name, needed_hub_id, pool_options, transfer_option
from planner.spec import SpecError
from planner.system.resolve import Pool, System

API = "nvidia.com/v1alpha1"
IMAGE = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
SERVICES = {"aggregated": "VllmWorker", "prefill": "VllmPrefillWorker", "decode": "VllmDecodeWorker"}


def graph(system: System) -> dict[str, Any]:
    """The custom resource as data. Raises SpecError for a CPU or a policy that Dynamo does not have."""
    if system.pools[0].hardware.kind == "cpu":
        raise SpecError("--to dynamo: its vLLM workers need GPUs; allowed for cpu: --to vllm")
    routing = router_options(system.pools[0].router.policy)
    services: dict[str, Any] = {
        "Frontend": {
            "componentType": "frontend",
            "replicas": 1,
            "envs": [{"name": variable(option), "value": value} for option, value in routing.items()],
            "extraPodSpec": {"mainContainer": {"image": IMAGE}},
        }
    }
    for pool in system.pools:
        services[SERVICES[pool.role]] = _service(system, pool)
    return {
        "apiVersion": API,
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": dns_name(system.spec.name)},
        "spec": {"services": services},
    }


def _service(system: System, pool: Pool) -> dict[str, Any]:
    split = system.disaggregated
    arguments = ["--model", needed_hub_id(system.spec.model)]
    if split:
        arguments += ["--disaggregation-mode", pool.role, *transfer_option(system, pool.role, both=True)]
    arguments += pool_options(system, pool)
    return {
        "envFromSecret": "hf-token-secret",
        "componentType": "worker",
        **({"subComponentType": pool.role} if split else {}),
        "replicas": len(pool.servers),
        "resources": {"limits": {"gpu": str(pool.tp * pool.dp)}},
        "extraPodSpec": {
            "mainContainer": {
                "image": IMAGE,
                "workingDir": "/workspace/examples/backends/vllm",
                "command": ["python3", "-m", "dynamo.vllm"],
                "args": arguments,
            }
        },
    }
