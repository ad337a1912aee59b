"""NVIDIA Dynamo's Kubernetes forms: DynamoGraphDeployment (v1alpha1, v1beta1), and requests for one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from live.dynamo import AFFINITY, MODES, variable
from planner.interop.import_model import chosen
from planner.interop.import_pods import (
    GPU_LIMITS,
    POD,
    count,
    environment,
    hardware_of,
    servers_of,
    words_of,
)
from planner.interop.import_reading import (
    Choices,
    ForeignKeys,
    Imported,
    Key,
    Note,
    Role,
    digits,
    items,
    plain_name,
    section,
    unread,
)
from planner.interop.import_servers import assemble
from planner.interop.server import Server
from planner.spec import SpecError

ROLES: dict[str, Role] = {"prefill": "prefill", "decode": "decode"}
OTHER = "Kubernetes or Dynamo setting that is not modelled"
BACKENDS = {"vllm": "dynamo", "sglang": "sglang", "trtllm": "trtllm", "mocker": "dynamo"}


def is_graph(data: dict[str, Any]) -> bool:
    return data.get("kind") in ("DynamoGraphDeployment", "DynamoComponentDeployment")


def is_request(data: dict[str, Any]) -> bool:
    return data.get("kind") == "DynamoGraphDeploymentRequest"


def _containers(source: ForeignKeys, base: tuple[Key, ...]) -> list[tuple[tuple[Key, ...], Mapping[str, Any]]]:
    """Paths and containers of a service, of either version."""
    found = [(*base, "extraPodSpec", "mainContainer")] if source.section(*base, "extraPodSpec", "mainContainer") else []
    pods: tuple[Key, ...] = (*base, "podTemplate", "spec")
    several = source.section(*pods).get("containers")
    found += [(*pods, "containers", index) for index in range(len(several if isinstance(several, list) else ()))]
    return [(path, source.section(*path)) for path in found]


def _of_all(source: ForeignKeys) -> dict[str, str]:
    """The environment that a graph gives to all of its services."""
    return environment(source.get("spec", "envs"))


def _router(source: ForeignKeys, base: tuple[Key, ...], name: str) -> tuple[dict[str, Any], list[Note]]:
    """The frontend's router mode and whether sessions stay: environment variables, or arguments."""
    given = _of_all(source) | environment(source.section(*base).get("envs"))
    containers = _containers(source, base)
    said: dict[str, str | None] = {}
    for option in ("router-mode", AFFINITY):
        value = given.get(variable(option))
        for _, container in containers:
            value = environment(container.get("env")).get(variable(option), value)
            words = " ".join(words_of(container.get("command")) + words_of(container.get("args")))
            match = re.search(rf"--{option}[ =](\S+)", words)
            value = match.group(1) if match else value
        said[option] = value
    mode = said["router-mode"]
    for path, _ in containers:
        source.get(*path)
    for key in ("envs", "replicas"):
        source.get(*base, key)
    if said[AFFINITY]:
        text = (
            f"turns stay with the worker of a session's first, which {mode or 'round-robin'} chooses there, a hash here"
        )
        return {"policy": "session_affinity"}, [Note("assumed", f"{name} {AFFINITY}", text)]
    if mode == "kv":
        text = "Dynamo's cost of prompt blocks less cached ones plus active blocks, as prefix_aware"
        return {"policy": "prefix_aware"}, [Note("assumed", f"{name} router mode kv", text)]
    policy = next((ours for ours, theirs in MODES.items() if theirs == (mode or "round-robin")), None)
    if policy is None:
        raise SpecError(
            "{where}: {frontend}: router mode {mode!r} is not modelled; allowed: {modes}",
            source.where,
            name,
            mode,
            ", ".join(dict.fromkeys(MODES.values())),
        )
    return {"policy": policy}, [] if mode else [Note("assumed", f"{name} router mode", "not given: round-robin")]


def _workers(source: ForeignKeys, base: tuple[Key, ...], key: str, role: Role | None) -> list[Server]:
    found = source.section(*base)
    copies = count(source.get(*base, "replicas"), f"{source.where}: {key}.replicas")
    nodes = source.integer(*base, "multinode", "nodeCount")
    limits = section(found.get("resources"), f"{source.where}: {key}.resources")
    own = next(
        (known for part in (limits.get("limits"), limits.get("requests")) if isinstance(part, Mapping)
         for name in GPU_LIMITS if (known := digits(part.get(name))) is not None), None,
    )  # fmt: skip
    shared = _of_all(source) | environment(found.get("envs"))
    hardware = hardware_of(
        found.get("extraPodSpec"), section(found.get("podTemplate"), source.where).get("spec"), found.get("annotations")
    )
    servers: list[Server] = []
    for path, container in _containers(source, base):
        given = {
            **container,
            "env": [
                *({"name": n, "value": v} for n, v in shared.items()),
                *items(container.get("env"), f"{source.where}: {key}.env"),
            ],
        }
        made = servers_of(given, source.where, key, role=role, place="managed", gpus=own, hardware=hardware)
        for part in ("command", "args", "env"):
            source.get(*path, part)
        for part in ("limits", "requests"):
            for name in GPU_LIMITS:
                source.get(*base, "resources", part, name)
                source.get(*path, "resources", part, name)
        servers += made
    return [
        Server(
            one.options, one.key, one.engine, one.environment, one.hints, role, max(copies, 1),
            None if one.gpus is None else one.gpus * nodes, "managed", one.hardware, role is not None,
        )
        for one in servers
    ] if copies else []  # fmt: skip


def _services(source: ForeignKeys) -> list[tuple[tuple[Key, ...], str]]:
    spec = source.section("spec")
    components = spec.get("components")
    if isinstance(components, list):
        return [
            (("spec", "components", index), str(one.get("name", index)) if isinstance(one, Mapping) else str(index))
            for index, one in enumerate(components)
        ]
    if source.data.get("kind") == "DynamoComponentDeployment":
        return [(("spec",), str(source.section("metadata").get("name", "worker")))]
    return [(("spec", "services", name), f"spec.services.{name}") for name in source.section("spec", "services")]


def read_graph(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """A graph whose workers run `dynamo.vllm` (or another engine's). Raises SpecError."""
    source = ForeignKeys(data, where)
    notes: list[Note] = []
    servers: list[Server] = []
    router = None
    for base, key in _services(source):
        found = source.section(*base)
        kind = str(found.get("subComponentType") or found.get("componentType") or found.get("type") or "")
        short = key.rsplit(".", 1)[-1]
        for part in ("name", "type"):
            source.get(*base, part)
        if kind in ("frontend", "main", "router", "epp") or short == "Frontend":
            mode, remarks = _router(source, base, short)
            if router is None or short == "Frontend":  # others of this type serve models' files
                router, notes = mode, [*notes, *remarks]
            continue
        if kind == "planner" or short == "Planner":
            text = "Dynamo's autoscaler; the number of workers is fixed here"
            notes.append(Note("loss", short, text))
            source.get(*base)
            continue
        role = ROLES.get(kind)
        made = _workers(source, base, key, role)
        for one in made:
            if not one.options.model and choices.model is None:
                raise SpecError("{where}: {key}: no --model; allowed: workers that run dynamo.vllm", where, key)
        servers += made
    if not servers:
        raise SpecError("{where}: spec.services: no vLLM worker; allowed: workers that run dynamo.vllm", where)
    title = str(source.get("metadata", "name", default=name))
    rest = unread(source, POD, OTHER)
    return assemble("DynamoGraphDeployment", title, where, servers, choices, router=router, notes=[*notes, *rest])


def read_request(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """A DynamoGraphDeploymentRequest: a model, a load and targets, for which the deployment is still to be found."""
    source = ForeignKeys(data, where)
    spec = source.section("spec")
    foreign = str(source.get("spec", "model", default=source.get("spec", "modelName")) or "")
    if not foreign and choices.model is None:
        raise SpecError("{where}: spec.model: missing; allowed: the model's hub id", where)
    model, keys, notes = chosen(choices, foreign, "spec.model", where, None)
    old: tuple[Key, ...] = ("spec", "profilingConfig", "config", "sla")

    def figure(*paths: tuple[Key, ...]) -> float | None:
        for path in paths:
            value = source.get(*path)
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)?\s*", str(value)) if value is not None else None
            if value is not None and match is None:
                raise SpecError(
                    "{where}: {path}: {value!r} is no number; allowed: a number", where, ".".join(map(str, path)), value
                )
            if match:
                return float(match[1]) * (1000 if match[2] == "s" else 1)
        return None

    prompt = figure(("spec", "workload", "isl"), ("spec", "sla", "isl"), (*old, "isl"))
    answer = figure(("spec", "workload", "osl"), ("spec", "sla", "osl"), (*old, "osl"))
    rate = figure(("spec", "workload", "requestRate"))
    clients = figure(("spec", "workload", "concurrency"))
    gpus = figure(
        ("spec", "hardware", "totalGpus"), ("spec", "features", "planner", "max_gpu_budget"),
    )  # fmt: skip
    slo = {
        "ttft_ms": figure(("spec", "sla", "ttft"), (*old, "ttft")),
        "tpot_ms": figure(("spec", "sla", "itl"), (*old, "itl")),
        "e2e_ms": figure(("spec", "sla", "e2eLatency")),
    }
    count_ = int(gpus or 1)
    text = f"a request for one: {count_} aggregated workers to begin with; planner suggest FILE --gpus {count_}"
    notes.append(Note("assumed", "deployment", text))
    made: dict[str, Any] = {"name": plain_name(str(source.get("metadata", "name", default=name))), "model": model}
    hardware = hardware_of(
        source.get("spec", "hardware", "gpuSku"), section(spec.get("hardware"), f"{where}: spec.hardware").get("gpuSku")
    )
    if hardware:
        made["hardware"] = hardware
    made["deployment"] = {"mode": "aggregated", "replicas": count_}
    if keys:
        made["engine"] = keys
    load: dict[str, Any] = {"kind": "concurrency", "concurrency": int(clients)} if clients else {"kind": "poisson"}
    load |= {"rate": rate} if rate and not clients else {}
    load |= {"prompt_tokens": int(prompt)} if prompt else {}
    load |= {"output_tokens": int(answer)} if answer else {}
    if len(load) > 1:
        made["workload"] = load
    targets = {key: value for key, value in slo.items() if value is not None}
    if targets:
        made["slo"] = targets
    search = r"backend.*|autoApply|searchStrategy|profilingConfig.*|features.*|modelCache.*|deploymentOverrides.*"
    reasons = {**POD, search: "how Dynamo would look for it"}
    return Imported("DynamoGraphDeploymentRequest", made, (*notes, *unread(source, reasons, OTHER)))
