"""Kubernetes' own forms: Deployments, StatefulSets, LeaderWorkerSets, DisaggregatedSets and KServe's services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.interop import import_checks
from planner.interop.import_offload import capacity_gb
from planner.interop.import_pods import POD, configured, count, environment, name_role, pod_servers
from planner.interop.import_reading import Choices, ForeignKeys, Imported, Key, Note, section, unread
from planner.interop.import_servers import assemble
from planner.interop.import_vllm import Options
from planner.interop.server import Server
from planner.spec import SpecError

WORKLOADS = {"Deployment", "StatefulSet", "ReplicaSet", "Job", "Pod", "DaemonSet"}
SETS = {"LeaderWorkerSet", "DisaggregatedSet"}
KSERVE = {"LLMInferenceService", "LLMInferenceServiceConfig", "InferenceService"}


def reads(documents: Sequence[dict[str, Any]]) -> bool:
    return any(str(data.get("kind")) in WORKLOADS | SETS | KSERVE or _pods(data) for data in documents)


def _pods(data: Mapping[str, Any]) -> list[tuple[Key, ...]]:
    """Paths of the pod specs in an object of a kind that is not known."""
    found: list[tuple[Key, ...]] = []

    def walk(value: Any, path: tuple[Key, ...]) -> None:
        if isinstance(value, dict) and isinstance(value.get("containers"), list):
            found.append(path)
        elif isinstance(value, dict | list):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                walk(item, (*path, key))

    if "apiVersion" in data:
        walk(data.get("spec"), ("spec",))
    return found


def _any_kind(source: ForeignKeys) -> tuple[list[Server], list[Note]]:
    """Any other object with pods: Argo's Rollout, Knative's Service, AIBrix's StormService, ...

    Copies are the `replicas` above a pod, multiplied; its role is in the names there.
    """
    servers: list[Server] = []
    title = str(source.get("metadata", "name", default="server"))
    source.get("metadata")
    for path in _pods(source.data):
        copies, names = 1, [title]
        for end in range(1, len(path)):
            above = source.data
            for key in path[:end]:
                above = above[key]  # type: ignore[index]
            if isinstance(above, dict):
                place = ".".join(map(str, path[:end]))
                copies *= count(source.get(*path[:end], "replicas"), f"{source.where}: {title}.{place}.replicas")
                names += [str(above["name"])] if isinstance(above.get("name"), str) else []
        source.get(*path[:-1], "metadata")
        role = next((found for found in map(name_role, reversed(names)) if found), None)
        if copies:
            servers += pod_servers(source, path, ".".join(names), role=role, replicas=copies)
    text = "a kind that is not known: its pods and their replicas are read, the rest is not"
    return servers, [Note("assumed", str(source.data.get("kind")), text)] if servers else []


def _workload(source: ForeignKeys) -> list[Server]:
    data = source.data
    base: tuple[Key, ...] = ("spec",) if data.get("kind") == "Pod" else ("spec", "template", "spec")
    meta, template = source.section("metadata"), source.section("spec", "template", "metadata")
    name = str(source.get("metadata", "name", default="server"))
    copies = count(source.get("spec", "replicas"), f"{source.where}: {name}.spec.replicas")
    labels = [value for part in (meta, template) for value in section(part.get("labels"), source.where).values()]
    for part in (("metadata",), ("spec", "selector"), ("spec", "template", "metadata")):
        source.get(*part)
    if copies == 0:
        return []
    return pod_servers(source, base, name, role=name_role(name, *labels), replicas=copies)


def _leader_set(
    source: ForeignKeys, base: tuple[Key, ...], name: str, given: str | None = None, slices: int = 1
) -> list[Server]:
    """One LeaderWorkerSet: every replica is a group of `size` pods that serve together."""
    copies = count(source.get(*base, "replicas"), f"{source.where}: {name}.replicas") * slices
    group: tuple[Key, ...] = (*base, "leaderWorkerTemplate")
    size = source.integer(*group, "size")
    key = "leaderTemplate" if source.section(*group).get("leaderTemplate") else "workerTemplate"
    labels = source.section(*group, key, "metadata", "labels").values()
    source.get(*group, key, "metadata")
    if key == "leaderTemplate":
        source.get(*group, "workerTemplate")  # the other pods of the group run a part of the leader's engine
    if copies == 0:
        return []
    known = {"LWS_GROUP_SIZE": str(size), "LWS_WORKER_INDEX": "0"}
    role = name_role(given, name, *labels)
    made = pod_servers(source, (*group, key, "spec"), name, role=role, replicas=copies, known=known)
    return [replace(one, gpus=None if one.gpus is None else one.gpus * size) for one in made]


def _set(source: ForeignKeys) -> list[Server]:
    name = str(source.get("metadata", "name", default="set"))
    source.get("metadata")
    if source.data.get("kind") == "LeaderWorkerSet":
        return _leader_set(source, ("spec",), name)
    found: list[Server] = []
    slices = source.integer("spec", "slices")
    roles = source.section("spec").get("roles")
    for index, role in enumerate(roles if isinstance(roles, list) else ()):
        own = str(source.get("spec", "roles", index, "name", default=index))
        base: tuple[Key, ...] = ("spec", "roles", index)
        base = (*base, "spec") if "spec" in section(role, f"{source.where}: spec.roles.{index}") else base
        found += _leader_set(source, base, f"{name}.{own}", own, slices)
        source.get("spec", "roles", index, "rolloutStrategy")
    return found


def _kserve_pool(
    source: ForeignKeys, base: tuple[Key, ...], key: str, role: Any, model: str | None
) -> tuple[list[Server], list[Note]]:
    notes: list[Note] = []
    copies = count(source.get(*base, "replicas"), f"{source.where}: {key}.replicas")
    sizes = {
        option: source.integer(*base, "parallelism", name)
        for option, name in (
            ("tensor-parallel-size", "tensor"), ("pipeline-parallel-size", "pipeline"), ("data-parallel-size", "data"),
            ("data-parallel-size-local", "dataLocal"),
        )
        if name in source.section(*base, "parallelism")
    }  # fmt: skip
    if source.get(*base, "parallelism", "expert"):
        sizes["enable-expert-parallel"] = True
    made = pod_servers(source, (*base, "template"), key, role=role, replicas=copies, engine="vllm")
    made = made[:1] or [Server(Options(), key, role=role, replicas=copies, place="pod", named=role is not None)]
    server = made[0]
    more = environment(None)
    text = server.environment.get("VLLM_ADDITIONAL_ARGS")
    values = {**sizes, **server.values}
    if text:
        from planner.interop.import_vllm import options
        from planner.interop.shell import commands

        words = commands(f"vllm {text}", f"{source.where}: {key}.VLLM_ADDITIONAL_ARGS", more)[0].words[1:]
        values = {**values, **options(words, source.where).values}
    offload = source.section(*base, "kvCacheOffloading")
    if offload:
        size = source.get(*base, "kvCacheOffloading", "cpu", "size")
        found = capacity_gb(size) if size is not None else None
        if found is not None:
            values.setdefault("kv-offloading-size", found / 1.073741824)
        source.get(*base, "kvCacheOffloading", "cpu")
        for tier in sorted(set(offload) - {"cpu"}):
            text = "KV below the host's memory, of a size that the file does not say; none is modelled"
            notes.append(Note("loss", f"{key}.kvCacheOffloading.{tier}", text))
            source.get(*base, "kvCacheOffloading", tier)
    if "worker" in source.section(*base):
        source.get(*base, "worker")
        size = server.gpus
        server = replace(server, gpus=None)
        notes.append(
            Note("assumed", f"{key}.worker", f"further nodes of {size or 'the same'} GPUs; the parallelism counts them")
        )
    return [replace(server, options=Options(values, model or server.options.model))], notes


def _kserve(source: ForeignKeys) -> tuple[list[Server], list[Note], str | None, dict[str, Any] | None]:
    name = str(source.get("metadata", "name", default="service"))
    source.get("metadata")
    if source.data.get("kind") == "InferenceService":
        return _predictor(source, name)
    foreign = str(source.get("spec", "model", "name") or "")
    uri = str(source.get("spec", "model", "uri") or "")
    model = uri.partition("://")[2] if uri.startswith("hf://") else foreign or uri.partition("://")[2] or None
    split = "prefill" in source.section("spec")
    found, notes = _kserve_pool(source, ("spec",), "spec", "decode" if split else None, model)
    if split:
        more, remarks = _kserve_pool(source, ("spec", "prefill"), "spec.prefill", "prefill", model)
        found, notes = found + more, notes + remarks
    router = None
    if "scheduler" in source.section("spec", "router"):
        router = {"policy": "prefix_aware"}
        notes.append(Note("assumed", "deployment.router", "the scheduler scores cached prefixes and load"))
    source.get("spec", "router")
    if source.get("spec", "baseRefs"):
        notes.append(Note("loss", "spec.baseRefs", "settings of other objects, which are not here"))
    return found, notes, foreign or None, router


def _predictor(source: ForeignKeys, name: str) -> tuple[list[Server], list[Note], str | None, dict[str, Any] | None]:
    """KServe's older InferenceService with the Hugging Face runtime, or with containers."""
    from planner.interop.import_pods import hardware_of, servers_of

    base: tuple[Key, ...] = ("spec", "predictor")
    copies = count(source.get(*base, "minReplicas"), f"{source.where}: {name}.minReplicas") or 1
    most = count(source.get(*base, "maxReplicas"), f"{source.where}: {name}.maxReplicas", copies)
    notes = (
        [Note("loss", "spec.predictor.maxReplicas", f"scaled from {copies} to {most}; {copies} count")]
        if most != copies
        else []
    )
    model = source.section(*base, "model")
    if not model:
        return pod_servers(source, base, name, replicas=copies), notes, None, None
    container = {**model, "env": model.get("env")}
    source.get(*base, "model")
    predictor = source.section(*base)
    hardware = hardware_of(predictor.get("nodeSelector"), predictor.get("affinity"))
    made = servers_of(container, source.where, name, replicas=copies, engine="kserve", hardware=hardware)
    uri = str(model.get("storageUri") or "")
    found = [
        one if one.options.model else replace(one, options=Options(one.values, uri.partition("://")[2] or None))
        for one in made
    ]
    return found, notes, None, None


def read(documents: Sequence[dict[str, Any]], where: str, name: str, choices: Choices) -> Imported:
    """All the objects of a file together. Raises SpecError."""
    servers: list[Server] = []
    notes: list[Note] = []
    served, router, title = None, None, None
    kinds = []
    for data in configured(documents):
        kind = str(data.get("kind"))
        source = ForeignKeys(data, where)
        before = len(servers)
        if kind in WORKLOADS:
            servers += _workload(source)
        elif kind in SETS:
            servers += _set(source)
        elif kind in KSERVE:
            made, remarks, served, router = _kserve(source)
            servers, notes = servers + made, notes + remarks
        elif _pods(data):
            made, remarks = _any_kind(source)
            servers, notes = servers + made, notes + remarks
        else:
            if kind == "ConfigMap":
                for key, text in section(data.get("data"), f"{where}: ConfigMap.data").items():
                    if isinstance(text, str) and import_checks.is_proxy(text):
                        notes += import_checks.proxy_mistakes(text, str(key))
            continue
        if len(servers) > before:
            kinds.append(str(kind))
            title = title or str(source.section("metadata").get("name") or name)
            notes += unread(source, POD, "Kubernetes setting that is not modelled")
    if not servers:
        there = ", ".join(sorted({str(data.get("kind")) for data in documents}))
        raise SpecError(
            "{where}: no server in {there}; allowed: containers that run vLLM, SGLang or TensorRT-LLM", where, there
        )
    label = kinds[0] if len(set(kinds)) == 1 else "Kubernetes"
    return assemble(
        label,
        title if title is not None and (len(servers) == 1 or label in KSERVE | SETS) else name,
        where,
        servers,
        choices,
        notes=notes,
        served=served,
        router=router,
    )
