"""Values of Helm charts: llm-d's model service, and production-stack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner.interop.import_pods import POD, count, hardware_of, name_role, servers_of
from planner.interop.import_reading import Choices, ForeignKeys, Imported, Note, Role, digits, section, unread
from planner.interop.import_script import _ROUTERS as ROUTERS
from planner.interop.import_servers import assemble
from planner.interop.import_vllm import Options, options
from planner.interop.server import Server
from planner.spec import SpecError

OTHER = "chart setting that is not modelled"


def is_llmd(data: dict[str, Any]) -> bool:
    return "modelArtifacts" in data and ("decode" in data or "prefill" in data)


def is_production_stack(data: dict[str, Any]) -> bool:
    return isinstance(data.get("servingEngineSpec"), dict) or data.get("kind") == "VLLMRuntime"


def _pool(source: ForeignKeys, key: str, role: Role | None, model: str) -> Server:
    found: list[Server] = []
    section = source.section(key)
    hardware = hardware_of(section.get("nodeSelector"), section.get("acceleratorTypes"))
    for part in ("nodeSelector", "acceleratorTypes"):
        source.get(key, part)
    containers = section.get("containers")
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if not isinstance(container, Mapping) or container.get("name", "vllm") not in ("vllm", "main", "modelserver"):
            continue
        found += servers_of(container, source.where, key, engine="vllm", hardware=hardware)
        for name in ("args", "modelCommand", "env", "command"):
            source.get(key, "containers", index, name)
    given = found[0] if found else Server(Options(), key, place="pod", hardware=hardware)
    tp = source.integer(key, "parallelism", "tensor", default=given.tp)
    copies = source.integer(key, "parallelism", "data") * source.integer(key, "parallelism", "dataLocal")
    pipeline = source.integer(key, "parallelism", "pipeline")
    values = {**given.values, "tensor-parallel-size": tp}
    values |= {"data-parallel-size": copies} if copies > 1 else {}
    values |= {"pipeline-parallel-size": pipeline} if pipeline > 1 else {}
    replicas = count(source.get(key, "replicas"), f"{source.where}: {key}.replicas")
    return Server(
        Options(values, model), key, "vllm", given.environment, given.hints, role, replicas, given.gpus, "pod",
        hardware, role is not None,
    )  # fmt: skip


def read_llmd(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """Values of llm-d's model service chart. Raises SpecError."""
    source = ForeignKeys(data, where)
    foreign = str(source.get("modelArtifacts", "name") or source.get("modelArtifacts", "uri") or "")
    source.get("modelArtifacts", "uri")
    if not foreign and choices.model is None:
        raise SpecError("{where}: modelArtifacts.name: missing; allowed: the model's hub id", where)
    there = [
        key for key in ("prefill", "decode") if key in data and source.get(key, "create", default=True) is not False
        and source.section(key).get("replicas", 1) != 0
    ]  # fmt: skip
    if "decode" not in there:
        raise SpecError("{where}: decode: not created; allowed: a decode section, with or without a prefill one", where)
    servers = []
    for key in there:
        role: Role | None = None if there == ["decode"] else "prefill" if key == "prefill" else "decode"
        servers.append(_pool(source, key, role, foreign.split("://")[-1]))
    if there == ["decode"] and servers[0].moves_kv(where):
        values = {name: value for name, value in servers[0].values.items() if name != "kv-transfer-config"}
        servers = [
            Server(Options(values, servers[0].options.model), "decode", place="pod", replicas=servers[0].replicas)
        ]
    text = "llm-d's scheduler scores cached prefixes and load; its weights are in another file"
    notes = [Note("assumed", "deployment.router", text)]
    rest = unread(source, POD, OTHER)
    router = {"policy": "prefix_aware"}
    return assemble("llm-d", name, where, servers, choices, router=router, notes=[*notes, *rest])


# --- production-stack ---------------------------------------------------------------------------------

_CAMEL = {
    "tensorParallelSize": "tensor-parallel-size", "pipelineParallelSize": "pipeline-parallel-size",
    "maxModelLen": "max-model-len", "dtype": "dtype", "gpuMemoryUtilization": "gpu-memory-utilization",
    "maxNumSeqs": "max-num-seqs", "maxNumBatchedTokens": "max-num-batched-tokens", "blockSize": "block-size",
    "enablePrefixCaching": "enable-prefix-caching", "enableChunkedPrefill": "enable-chunked-prefill",
    "kvCacheDtype": "kv-cache-dtype", "quantization": "quantization", "enableLoRA": "enable-lora",
}  # fmt: skip


def _words(config: Mapping[str, Any]) -> list[str]:
    words = []
    for key, option in _CAMEL.items():
        value = config.get(key)
        if value is None or value == "":
            continue
        words.append(
            (f"--{option}" if value else f"--no-{option}") if isinstance(value, bool) else f"--{option}={value}"
        )
    extra = config.get("extraArgs")
    return words + [str(word) for word in (extra if isinstance(extra, list) else ())]


def _lmcache(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(kv-transfer-config, environment) of a section `lmcacheConfig`."""
    if not config.get("enabled"):
        return {}, {}
    role = str(
        config.get("kvRole")
        or {"sender": "kv_producer", "receiver": "kv_consumer"}.get(str(config.get("nixlRole")), "kv_both")
    )
    size = config.get("cpuOffloadingBufferSize") or config.get("maxLocalCpuSize")
    local = config.get("localCpu", True) is not False and role == "kv_both"
    environment = {"LMCACHE_LOCAL_CPU": str(local), **({"LMCACHE_MAX_LOCAL_CPU_SIZE": str(size)} if size else {})}
    return {"kv_connector": "LMCacheConnectorV1", "kv_role": role}, environment


def read_production_stack(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """Values of the chart `vllm-stack`. Raises SpecError."""
    source = ForeignKeys(data, where)
    models = source.get("servingEngineSpec", "modelSpec")
    if not isinstance(models, list) or not all(isinstance(one, dict) for one in models) or not models:
        raise SpecError("{where}: servingEngineSpec.modelSpec: no models; allowed: a list of at least one", where)
    notes: list[Note] = []
    servers = []
    for index, one in enumerate(models):
        key = str(one.get("name") or f"modelSpec.{index}")
        words = _words(section(one.get("vllmConfig"), f"{where}: {key}.vllmConfig"))
        given = options(words, f"{where}: {key}.vllmConfig")
        config, environment = _lmcache(section(one.get("lmcacheConfig"), f"{where}: {key}.lmcacheConfig"))
        if config:
            given.values.setdefault("kv-transfer-config", config)
        gpus = one.get("requestGPU")
        labels = section(one.get("labels"), f"{where}: {key}.labels").values()
        role = name_role(key, *labels) if config.get("kv_role") != "kv_both" else None
        ray = one.get("raySpec")
        if isinstance(ray, Mapping) and (ray.get("enabled") or ray.get("headNode")):
            gpus = None
        servers.append(
            Server(
                Options(given.values, str(one.get("modelURL") or "") or None), key, "vllm", environment, (), role,
                count(one.get("replicaCount"), f"{where}: {key}.replicaCount"),
                digits(gpus) or None, "pod",
                hardware_of(one.get("nodeSelectorTerms"), one.get("nodeName"), one.get("requestGPUType")),
                role is not None,
            )
        )  # fmt: skip
        lost = {"pvcStorage", "hf_token", "name", "repository", "tag", "env", "labels"}
        notes += [
            Note("loss", f"{key}.{section}", "changes what runs and is not modelled")
            for section in ("loraAdapters", "kedaConfig") if one.get(section) and section not in lost
        ]  # fmt: skip
    servers = [server for server in servers if server.replicas > 0]
    logic = str(source.get("routerSpec", "routingLogic") or "roundrobin")
    split = any(server.role for server in servers)
    policy = ROUTERS.get(logic)
    if policy is not None:
        notes.append(Note("assumed", "routerSpec.routingLogic", f"{logic} as {policy}"))
    elif not split or not re.match("disagg", logic):
        raise SpecError(
            "{where}: routerSpec.routingLogic: {logic!r} is not modelled; allowed: {routers}",
            where,
            logic,
            ", ".join(sorted(ROUTERS)),
        )
    router = {"policy": policy} if policy else {"preset": "vllm_proxy"}
    rest = unread(source, {**POD, r"routerSpec.*|servingEngineSpec.*|.*Spec": "how the chart runs it"}, OTHER)
    return assemble("production-stack", name, where, servers, choices, router=router, notes=[*notes, *rest])
