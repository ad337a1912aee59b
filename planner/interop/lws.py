"""Plain Kubernetes: a LeaderWorkerSet for each pool, and the proxy before them.

A group of the set is one engine (size 1: an engine's GPUs are in one node here). Its pod has the name that the set's
own headless service gives it, NAME-INDEX.NAME, by which the proxy knows it.
"""

from __future__ import annotations

from typing import Any

from planner.interop.vllm_script import served_name
from planner.interop.workers import SIDE_PORT, VLLM, dns_name, needed_hub_id, pool_options, transfer_option
from planner.spec import SpecError
from planner.system.resolve import Pool, System

API = "leaderworkerset.x-k8s.io/v1"
IMAGE = f"vllm/vllm-openai:v{VLLM}.0"
PORT = 8000
CODE = "proxy.py"


def objects(system: System, proxy: str) -> list[dict[str, Any]]:
    """The objects as data; `proxy` is the text of the proxy. Raises SpecError for a CPU or unpublished weights."""
    if system.pools[0].hardware.kind == "cpu":
        raise SpecError("--to lws: its pods are meant for GPUs here; allowed for cpu: --to vllm")
    model = needed_hub_id(system.spec.model)
    name = dns_name(system.spec.name)
    return [*(_set(system, pool, name, model) for pool in system.pools), *_frontend(system, name, proxy)]


def _set(system: System, pool: Pool, name: str, model: str) -> dict[str, Any]:
    labels = {"app": name, "role": pool.role}
    return {
        "apiVersion": API,
        "kind": "LeaderWorkerSet",
        "metadata": {"name": f"{name}-{pool.role}", "labels": labels},
        "spec": {
            "replicas": len(pool.workers),
            "leaderWorkerTemplate": {
                "size": 1,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": {"metadata": {"labels": labels}, "spec": _pod(system, pool, model)},
            },
        },
    }


def _pod(system: System, pool: Pool, model: str) -> dict[str, Any]:
    secret = {"name": "hf-token-secret", "key": "HF_TOKEN", "optional": True}
    environment: list[dict[str, Any]] = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}}]
    ports = [{"containerPort": PORT}]
    if system.disaggregated:
        environment += [
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(SIDE_PORT)},
        ]
        ports.append({"containerPort": SIDE_PORT})
    command = ["vllm", "serve", model, f"--served-model-name={served_name(system)}", f"--port={PORT}"]
    gpus = {"nvidia.com/gpu": str(pool.tp)}
    container = {
        "name": "vllm",
        "image": IMAGE,
        "command": [*command, *pool_options(system, pool), *transfer_option(system, pool.role)],
        "env": environment,
        "ports": ports,
        "resources": {"limits": gpus, "requests": gpus},
        "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 5, "failureThreshold": 120},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # ranks of a TP engine talk through it
    }
    return {"containers": [container], "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}


def _frontend(system: System, name: str, proxy: str) -> list[dict[str, Any]]:
    front = f"{name}-frontend"
    labels = {"app": front}
    urls = [
        f"--{pool.role}=http://{one}-{index}.{one}:{PORT}"
        for pool in system.pools
        for one in [f"{name}-{pool.role}"]
        for index in range(len(pool.workers))
    ]
    container = {
        "name": "proxy",
        "image": IMAGE,  # for its Python with aiohttp
        "command": ["python3", f"/proxy/{CODE}", "--host=0.0.0.0", f"--port={PORT}", *urls],
        "ports": [{"containerPort": PORT}],
        "volumeMounts": [{"name": "code", "mountPath": "/proxy"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "code", "configMap": {"name": front}}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": front}, "data": {CODE: proxy}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": front},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": front},
            "spec": {"selector": labels, "ports": [{"port": PORT, "targetPort": PORT}]},
        },
    ]
