"""Dynamo v0.3's graph configs (`dynamo serve graphs.disagg:Frontend -f configs/disagg.yaml`) as planner's YAML.

Their workers are vLLM 0.8 with the V0 scheduler (whole prompts first). With `remote-prefill` the worker forces chunked
prefill off and preemption by swapping at start-up, whatever the file says. The decode worker decides where to prefill:
remotely when the uncached prompt is longer than `max-local-prefill-length` and fewer than `max-prefill-queue-size`
requests wait in the queue that all prefill workers pull from. Source: Dynamo v0.3 `examples/llm`, its worker and
disaggregated router.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planner.interop.import_model import chosen
from planner.interop.import_reading import (
    Choices,
    ForeignKeys,
    Group,
    Imported,
    Note,
    Role,
    deployment,
    plain_name,
    unread,
)
from planner.interop.import_vllm import engine
from planner.spec import SpecError

DEFAULT_LOCAL_TOKENS, DEFAULT_QUEUE = 1000, 2  # of the worker's own arguments, where the file gives none
GPU_SHARE = 0.9  # vLLM 0.8's gpu_memory_utilization
MOST_SEQS = 256  # vLLM 0.8's max_num_seqs
REASONS = {
    r"common-configs": "read: these are the keys of Common that the component takes",
    r"Frontend.*": "the HTTP front; its costs are the profile's host terms",
    r"Planner.*|environment": "where Dynamo's autoscaler runs; the number of workers is fixed here",
    r"min-workers": "the router waits for so many workers at start-up",
    r"router-num-threads": "tokenisation threads; the profile's host terms have no thread count",
    r"kv-transfer-config": "which connector moves KV; no prefill worker in this graph moves any",
    r"resources.*": "GPUs of a component that is no engine",
}


def is_v03(data: dict[str, Any]) -> bool:
    return "VllmWorker" in data and "apiVersion" not in data


def _take(source: ForeignKeys, component: str, key: str, default: Any = None) -> Any:
    """A component's own value, else Common's where `common-configs` names the key."""
    own = source.get(component, key)
    if own is not None:
        return own
    named = _named(source, component)
    return source.get("Common", key, default=default) if key in named else default


def _named(source: ForeignKeys, component: str) -> list[str]:
    """The keys of Common that a component takes. Raises SpecError."""
    found = source.section(component).get("common-configs") or []
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise SpecError(
            "{where}: {path}: {value!r} is not a list of keys; allowed: keys of Common",
            source.where,
            f"{component}.common-configs",
            found,
        )
    return found


def _workers(source: ForeignKeys, component: str, role: Role) -> tuple[Group, list[Note]]:
    own = {key for key in source.section(component) if key not in ("ServiceArgs", "common-configs")}
    named = _named(source, component)
    structure = {
        "model", "remote-prefill", "conditional-disagg", "max-local-prefill-length", "max-prefill-queue-size", "router",
        "kv-transfer-config", "tensor-parallel-size",
    }  # fmt: skip
    values = {key: _take(source, component, key) for key in sorted((own | set(named)) - structure)}
    values = {key: value for key, value in values.items() if value is not None}
    keys, notes = engine(values, component)
    replicas = source.integer(component, "ServiceArgs", "workers")
    gpus = source.integer(component, "ServiceArgs", "resources", "gpu")
    tp = source.integer(component, "tensor-parallel-size", default=gpus)
    if tp != gpus:
        notes.append(Note("warning", f"{component}.ServiceArgs.resources.gpu", f"{gpus} GPUs for tp {tp}; tp counts"))
    keys = {
        "scheduler": "prefill_first",
        "enable_prefix_caching": False,
        "gpu_memory_utilization": GPU_SHARE,
        "max_num_seqs": MOST_SEQS,
        "async_scheduling": False,
        **keys,
    }
    if role != "aggregated":
        if keys.get("enable_chunked_prefill"):
            text = "the worker switches chunked prefill off when remote-prefill is on"
            notes.append(Note("warning", f"{component}.enable-chunked-prefill", text))
        keys["enable_chunked_prefill"] = False
    elif keys.get("enable_chunked_prefill"):
        keys["scheduler"] = "v1"  # V0's chunked scheduler runs decodes first and fills the budget with prompts
        notes.append(Note("assumed", f"{component}.enable-chunked-prefill", "V0's chunked scheduler is taken as V1's"))
    return Group(role, replicas, tp, keys), notes


def _router(source: ForeignKeys) -> tuple[dict[str, Any], list[Note]]:
    policy = source.get("Processor", "router", default=source.get("Common", "router", default="round-robin"))
    if policy == "kv":
        notes = [Note("assumed", "router", "kv: v0.3's score as the prefix_aware policy with overlap weight 2")]
        return {"policy": "prefix_aware", "overlap_weight": 2.0}, notes
    if policy not in ("round-robin", "random"):
        raise SpecError(
            "{where}: Processor.router: {policy!r} is unknown; allowed: round-robin, random, kv", source.where, policy
        )
    return {"policy": policy.replace("-", "_")}, []


def _conditional(source: ForeignKeys) -> tuple[dict[str, Any] | None, list[Note]]:
    """The `local_prefill` rule, and what it does to a comparison."""
    asked = source.get("VllmWorker", "conditional-disagg", default=False)
    tokens = source.get("VllmWorker", "max-local-prefill-length", default=DEFAULT_LOCAL_TOKENS)
    queue = source.get("VllmWorker", "max-prefill-queue-size", default=DEFAULT_QUEUE)
    if not asked:
        return None, []
    text = (
        f"once {queue} requests wait for a prefill worker, the decode workers prefill themselves: under load this "
        "deployment is partly aggregated (the share shows as requests whose two workers are the same)"
    )
    return {"max_tokens": tokens, "max_queue": queue}, [Note("warning", "VllmWorker.max-prefill-queue-size", text)]


def read(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """One graph config. Raises SpecError."""
    source = ForeignKeys(data, where)
    foreign = source.get("Common", "model", default=source.get("VllmWorker", "model"))
    if not isinstance(foreign, str):
        raise SpecError("{where}: Common.model: missing; allowed: the model's hub id", where)
    model, own, notes = chosen(choices, foreign, "Common.model", where, None)
    split = bool(source.get("VllmWorker", "remote-prefill", default=False))
    if split and "PrefillWorker" not in data:
        raise SpecError("{where}: VllmWorker.remote-prefill: true without a PrefillWorker; allowed: with one", where)
    groups = []
    roles: list[tuple[str, Role]] = [("VllmWorker", "aggregated")]
    if split:
        roles = [("VllmWorker", "decode"), ("PrefillWorker", "prefill")]
    for component, role in roles:
        made, remarks = _workers(source, component, role)
        groups.append(replace(made, engine={**own, **made.engine}))
        notes += remarks
    section, keys = deployment(groups, where)
    router, remarks = _router(source)
    notes += remarks
    if split:
        source.get("Common", "kv-transfer-config")
        router |= {"decode_choice": "at_arrival", "prefill_dispatch": "shared_queue"}
        local, remarks = _conditional(source)
        if local is not None:
            section["local_prefill"] = local
        notes += remarks
        text = "the worker switches chunked prefill off and preempts by swapping when remote-prefill is on"
        notes.append(Note("warning", "VllmWorker.remote-prefill", text))
    section["router"] = router
    notes.append(
        Note("assumed", "engine.scheduler", "vLLM 0.8's V0 engine of that release: prompts first, synchronous")
    )
    text = f"vLLM 0.8's defaults: gpu_memory_utilization {GPU_SHARE}, max_num_seqs {MOST_SEQS}, no prefix caching"
    notes.append(Note("assumed", "engine", text + " unless the file says so"))
    _mark_common(source)
    spec = {"name": plain_name(name), "model": model, "deployment": section, "engine": keys}
    if split:
        spec["optimizations"] = {"decode": {"preemption": "swap"}}
    return Imported("Dynamo v0.3", spec, (*notes, *unread(source, REASONS, "no engine or router setting")))


def _mark_common(source: ForeignKeys) -> None:
    """`common-configs` were followed; a key of Common that only the front uses is no loss."""
    for component in source.data:
        source.get(component, "common-configs")
    if source.section("Common"):
        source.get("Common", "router")
