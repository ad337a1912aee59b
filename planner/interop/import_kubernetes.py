"""Today's Kubernetes forms: DynamoGraphDeployment (vLLM backend) and llm-d's model service values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner.engine.catalogue import gpu_named
from planner.interop.dynamo import MODES
from planner.interop.import_reading import (
    Group,
    Imported,
    Key,
    Note,
    Role,
    Source,
    deployment,
    model_name,
    plain_name,
    unread,
)
from planner.interop.import_vllm import Options, group, is_command, options, role_of, words_of
from planner.spec import SpecError

KUBERNETES = {
    r"(liveness|readiness|startup)Probe": "health checks",
    r"image|workingDir|command|envFromSecret|dynamoNamespace|componentType|subComponentType": "how the pod is started",
    r"cpu|memory|requests|rdma/ib|volumes|volumeMounts|mountModelVolume|sharedMemory|ports": "resources of the pod",
    r"env|envs.*|labels|monitoring|authSecretName|apiVersion|kind|name|size": "how the pod is started and watched",
    r"routing.*": "the gateway's sidecar; its cost is the profile's hop",
}


def is_dynamo(data: dict[str, Any]) -> bool:
    return data.get("kind") == "DynamoGraphDeployment"


def is_llmd(data: dict[str, Any]) -> bool:
    return "modelArtifacts" in data and ("decode" in data or "prefill" in data)


def _command(command: Any, arguments: Any, where: str) -> Options:
    """The engine options of a container: a list of words, or one shell line."""
    words = [str(word) for word in [*(command or []), *(arguments or [])]]
    shell = next((word for word in words if " " in word and is_command(word)), None)
    if shell is None and len(words) == 1 and " " in words[0]:
        shell = words[0]
    if shell is not None:
        inner = words_of(shell, where)
        if not is_command(shell):  # `python3 components/main.py --model ...`
            inner = inner[next((i for i, word in enumerate(inner) if word.startswith("--")), len(inner)) :]
        return options(inner, where)
    start = next((i for i, word in enumerate(words) if word.startswith("-") and word != "-m"), len(words))
    if "serve" in words[:start]:
        start = words.index("serve") + 1
    return options(words[start:], where)


# --- DynamoGraphDeployment ------------------------------------------------------------------------


def _dynamo_router(source: Source, frontend: str, split: bool) -> tuple[dict[str, Any], list[Note]]:
    """The frontend's router mode: an environment variable, or an argument."""
    base: tuple[Key, ...] = ("spec", "services", frontend)
    mode = None
    for place in ((*base, "envs"), (*base, "extraPodSpec", "mainContainer", "env")):
        for index, item in enumerate(source.section(*place[:-1]).get(str(place[-1])) or []):
            if isinstance(item, Mapping) and item.get("name") == "DYN_ROUTER_MODE":
                mode = source.get(*place, index, "value")
                source.get(*place, index, "name")
    words = " ".join(map(str, source.section(*base, "extraPodSpec", "mainContainer").get("args") or []))
    match = re.search(r"--router-mode[ =](\S+)", words)
    if match:
        mode = match.group(1)
        source.get(*base, "extraPodSpec", "mainContainer", "args")
    choice = {"decode_choice": "after_prefill"} if split else {}
    if mode == "kv":
        text = "Dynamo's cost of prompt blocks less cached ones plus active blocks, as prefix_aware"
        return {"policy": "prefix_aware", **choice}, [Note("assumed", f"{frontend} router mode kv", text)]
    policy = next((ours for ours, theirs in MODES.items() if theirs == (mode or "round-robin")), None)
    if policy is None:
        allowed = ", ".join(MODES.values())
        raise SpecError(f"{source.where}: {frontend}: router mode {mode!r} is not modelled; allowed: {allowed}")
    notes = [] if mode else [Note("assumed", f"{frontend} router mode", "not given: round-robin")]
    return {"policy": policy, **choice}, notes


def read_dynamo(data: dict[str, Any], where: str, name: str) -> Imported:
    """A DynamoGraphDeployment whose workers run `dynamo.vllm`. Raises SpecError."""
    source = Source(data, where)
    notes: list[Note] = []
    groups: list[Group] = []
    models: list[str] = []
    frontend = None
    for service in source.section("spec", "services"):
        base: tuple[Key, ...] = ("spec", "services", service)
        found = source.section(*base)
        container = source.section(*base, "extraPodSpec", "mainContainer")
        sub = found.get("subComponentType") or found.get("componentType")
        if sub in ("frontend", "main") or service == "Frontend":
            frontend = service
            continue
        if sub == "planner" or service == "Planner":
            notes.append(Note("no counterpart", service, "Dynamo's autoscaler; the number of workers is fixed here"))
            source.get(*base)
            continue
        given = _command(container.get("command"), container.get("args"), where)
        source.get(*base, "extraPodSpec", "mainContainer", "args")
        if given.model is None:
            raise SpecError(f"{where}: spec.services.{service}: no --model; allowed: workers that run dynamo.vllm")
        models.append(given.model)
        role = role_of(given.values, where)
        if sub in ("prefill", "decode") and role == "aggregated":
            role = "prefill" if sub == "prefill" else "decode"
        made, remarks = group(given, role, service, source.integer(*base, "replicas"))
        gpus = source.integer(*base, "resources", "limits", "gpu", default=made.tp)
        if gpus != made.tp:
            notes.append(Note("warning", f"{service}.resources.limits.gpu", f"{gpus} GPUs for tp {made.tp}; tp counts"))
        groups.append(made)
        notes += remarks
    if not models:
        raise SpecError(f"{where}: spec.services: no vLLM worker; allowed: workers that run dynamo.vllm")
    if len(set(models)) > 1:
        raise SpecError(f"{where}: several models: {', '.join(sorted(set(models)))}; allowed: one")
    groups = _as_decode(groups)
    section, keys = deployment(groups, where)
    if frontend is not None:
        section["router"], remarks = _dynamo_router(source, frontend, section["mode"] == "disaggregated")
        notes += remarks
        source.get("spec", "services", frontend, "replicas")
    model, remarks = model_name(models[0], "--model")
    title = source.get("metadata", "name", default=name)
    spec: dict[str, Any] = {"name": plain_name(str(title)), "model": model, "deployment": section}
    if keys:
        spec["engine"] = keys
    rest = unread(source, KUBERNETES, "Kubernetes or Dynamo setting that is not modelled")
    return Imported("DynamoGraphDeployment", spec, (*remarks, *notes, *rest))


def _as_decode(groups: list[Group]) -> list[Group]:
    """Beside a prefill worker, one without a role is the decode worker: older graphs mark only the prefill one."""
    if not any(made.role == "prefill" for made in groups):
        return [Group("aggregated", made.replicas, made.tp, made.engine) for made in groups]
    return [
        Group("decode", made.replicas, made.tp, made.engine) if made.role == "aggregated" else made for made in groups
    ]


# --- llm-d -------------------------------------------------------------------------------------------


def _gpu(source: Source, role: str) -> str | None:
    """The hardware that a node selector names."""
    for key, value in source.section(role, "nodeSelector").items():
        match = gpu_named(str(value))
        if match:
            source.get(role, "nodeSelector", key)
            return match
    return None


def _llmd_pool(source: Source, role: Role, key: str) -> tuple[Group, list[Note]]:
    notes: list[Note] = []
    found = Options()
    for index, container in enumerate(source.section(key).get("containers") or []):
        if not isinstance(container, Mapping) or container.get("name", "vllm") != "vllm":
            continue
        found = _command(container.get("command"), container.get("args"), source.where)
        source.get(key, "containers", index, "args")
        source.get(key, "containers", index, "modelCommand")
    tp = source.integer(key, "parallelism", "tensor", default=int(found.values.get("tensor-parallel-size", 1)))
    copies = source.integer(key, "parallelism", "data") * source.integer(key, "parallelism", "dataLocal")
    if copies > 1:
        notes.append(Note("assumed", f"{key}.parallelism.data", f"{copies} data-parallel ranks are {copies} workers"))
    made, remarks = group(found, role, key)
    replicas = source.integer(key, "replicas") * copies
    return Group(role, replicas, tp, made.engine), [*notes, *remarks]


def read_llmd(data: dict[str, Any], where: str, name: str) -> Imported:
    """Values of llm-d's model service chart. Raises SpecError."""
    source = Source(data, where)
    foreign = str(source.get("modelArtifacts", "name") or source.get("modelArtifacts", "uri") or "")
    source.get("modelArtifacts", "uri")
    if not foreign:
        raise SpecError(f"{where}: modelArtifacts.name: missing; allowed: the model's hub id")
    model, notes = model_name(foreign.split("://")[-1], "modelArtifacts.name")
    there = [
        key for key in ("prefill", "decode") if key in data and source.get(key, "create", default=True) is not False
        and source.section(key).get("replicas", 1) != 0
    ]  # fmt: skip
    if "decode" not in there:
        raise SpecError(f"{where}: decode: not created; allowed: a decode section, with or without a prefill one")
    groups = []
    for key in there:
        role: Role = "aggregated" if there == ["decode"] else "prefill" if key == "prefill" else "decode"
        made, remarks = _llmd_pool(source, role, key)
        groups.append(made)
        notes += remarks
    section, keys = deployment(groups, where)
    section["router"] = {"policy": "prefix_aware"}
    text = "llm-d's scheduler scores cached prefixes and load; its weights are in another file"
    notes.append(Note("assumed", "deployment.router", text))
    spec: dict[str, Any] = {"name": plain_name(name), "model": model}
    gpu = _gpu(source, there[-1])
    if gpu is not None:
        spec["hardware"] = gpu
    spec["deployment"] = section
    if keys:
        spec["engine"] = keys
    for key in there:  # the selector is the same for both
        _gpu(source, key)
    rest = unread(source, KUBERNETES, "chart setting that is not modelled")
    return Imported("llm-d", spec, (*notes, *rest))
