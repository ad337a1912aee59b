"""Containers of Kubernetes and Compose as servers: command, args, environment, GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from planner.engine.catalogue import gpu_named
from planner.interop.import_reading import ForeignKeys, Key, Note, Role, digits
from planner.interop.import_servers import hinted
from planner.interop.import_vllm import Started, is_command, options, server_of, started
from planner.interop.server import Server
from planner.interop.shell import script_of
from planner.spec import SpecError

GPU_LIMITS = ("nvidia.com/gpu", "amd.com/gpu", "gpu", "habana.ai/gaudi", "gpu.intel.com/xe")
# Ends of paths that say nothing about speed -> what they are.
POD = {
    r"(liveness|readiness|startup)Probe|healthcheck": "health checks",
    r"image.*|workingDir|command|entrypoint|envFrom.*|dynamoNamespace|componentType|subComponentType|type": (
        "how the pod is started"
    ),
    r"cpu|memory|requests|ephemeral-storage|rdma/\S+|volumes|volumeMounts|mountModelVolume|sharedMemory|ports|limits|"
    r"claims|pvcs": "resources of the pod",
    r"env|envs.*|environment|labels|annotations|monitoring|authSecretName|apiVersion|kind|name|size|metadata.*|"
    r"namespace": "how the pod is started and watched",
    r"routing.*": "the gateway's sidecar; its cost is the profile's hop",
    r"selector|serviceName|strategy|securityContext|tolerations|affinity|nodeSelector|schedulerName|initContainers|"
    r"serviceAccount.*|terminationGracePeriodSeconds|hostIPC|hostNetwork|restartPolicy|runtimeClassName|stdin|tty|"
    r"lifecycle|resourceClaims|restart|ipc|network_mode|networks|depends_on|container_name|shm_size|ulimits|runtime|"
    r"privileged|dnsPolicy|rolloutStrategy|revisionHistoryLimit|podManagementPolicy|updateStrategy|startupPolicy|"
    r"networkConfig|topologySpread.*": "where and how pods run",
}


def environment(items: Any) -> dict[str, str]:
    """`env` as a list of name and value, or of NAME=VALUE, or a mapping. Values from elsewhere stay variables."""
    found: dict[str, str] = {}
    if isinstance(items, Mapping):
        return {str(name): "" if value is None else str(value) for name, value in items.items()}
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            value = item.get("value")
            found[item["name"]] = f"$({item['name']})" if value is None and "valueFrom" in item else str(value or "")
        elif isinstance(item, str):
            name, _, value = item.partition("=")
            found[name] = value
    return found


def configured(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Documents whose containers' variables from ConfigMaps of the same file are values."""
    maps = {
        str((data.get("metadata") or {}).get("name")): environment(data.get("data"))
        for data in documents
        if data.get("kind") == "ConfigMap" and isinstance(data.get("metadata"), Mapping)
    }

    def of_map(reference: Any) -> dict[str, str]:
        return maps.get(str(reference.get("name")), {}) if isinstance(reference, Mapping) else {}

    def own(item: Any) -> Any:
        source = item.get("valueFrom") if isinstance(item, Mapping) else None
        reference = source.get("configMapKeyRef") if isinstance(source, Mapping) else None
        key = str(reference.get("key")) if isinstance(reference, Mapping) else ""
        return {"name": item["name"], "value": of_map(reference)[key]} if key in of_map(reference) else item

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        made = {key: walk(item) for key, item in value.items()}
        if isinstance(made.get("env"), list):
            made["env"] = [own(item) for item in made["env"]]
        sources = made.get("envFrom")
        for source in sources if isinstance(sources, list) else ():
            given = of_map(source.get("configMapRef")) if isinstance(source, Mapping) else {}
            if given and isinstance(made.get("env", []), list):
                more = [{"name": name, "value": text} for name, text in given.items()]
                made["env"] = [*more, *made.get("env", [])]  # a container's own come later and win
        return made

    return [walk(data) for data in documents] if maps else list(documents)


def words_of(value: Any) -> list[str]:
    """`command` or `args`: a list of words, or one text."""
    if value is None:
        return []
    return [str(word) for word in value] if isinstance(value, list) else [str(value)]


def gpus_of(resources: Any) -> int | None:
    """GPUs in limits, else in requests."""
    for section in ("limits", "requests"):
        part = resources.get(section) if isinstance(resources, Mapping) else None
        for name in GPU_LIMITS:
            value = part.get(name) if isinstance(part, Mapping) else None
            if (known := digits(value)) is not None:
                return known
        custom = part.get("custom") if isinstance(part, Mapping) else None
        if isinstance(custom, Mapping) and custom:
            return gpus_of({section: custom})
    return None


def hardware_of(*places: Any) -> str | None:
    """The GPU that a node selector, an affinity or an accelerator type names."""
    return gpu_named(str(places))


def _expanded(words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Kubernetes' `$(NAME)`."""
    return [re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), word) for word in words]


def _program_of_its_own(words: Sequence[str]) -> bool:
    """A Python file that is given no model: a proxy, say, that only borrows the image's Python."""
    python = bool(words) and re.fullmatch(r"(.*/)?python[\d.]*", words[0]) is not None
    return python and any(word.endswith(".py") for word in words[1:2]) and not any("--model" in word for word in words)


def servers_of(
    container: Mapping[str, Any],
    where: str,
    key: str,
    *,
    role: Role | None = None,
    replicas: int = 1,
    place: Literal["host", "pod", "managed"] = "pod",
    gpus: int | None = None,
    hardware: str | None = None,
    hints: Sequence[str] = (),
    engine: str | None = None,
    known: Mapping[str, str] | None = None,
) -> list[Server]:
    """The servers that a container runs: none, one, or those of its script.

    `engine`: of an image that only has arguments. `known`: variables that the orchestrator sets.
    """
    env = {**(known or {}), **environment(container.get("env", container.get("environment")))}
    words = words_of(container.get("command")) + words_of(container.get("args"))
    found: list[Started] = []
    script = script_of(words)
    if script is None:
        script = next(((word, []) for word in words if " " in word and is_command(word)), None)
    if script is not None:
        text, *arguments = _expanded([script[0], *script[1]], env)
        made, _ = started(text, where, env, arguments)
        found = [replace(one, environment={**env, **one.environment}) for one in made]
    else:
        words = _expanded(words, env)
        image = str(container.get("image", ""))
        of_image = (
            "sglang" if "sglang" in image else "vllm" if re.search(r"vllm", image) and "router" not in image else None
        )
        server = server_of(words)
        if server is None and not _program_of_its_own(words) and (engine or (of_image and (words or image))):
            start = next((i for i, word in enumerate(words) if word.startswith("-") and word != "-m"), len(words))
            flat = [
                part
                for word in words
                for part in (word.split() if " " in word and not word.startswith(("{", "-")) else [word])
            ]
            model_first = words[:1] and not words[0].startswith("-") and start == 1
            rest = (
                flat
                if model_first
                else flat[next((i for i, w in enumerate(flat) if w.startswith("-") and w != "-m"), len(flat)) :]
            )
            server = (engine or str(of_image), rest)
        if server is not None:
            found = [Started(server[0], options(server[1], where, server[0]), env)]
    limit = gpus_of(container.get("resources")) if gpus is None else gpus
    return [
        Server(
            one.options, key if len(found) == 1 else f"{key} command {index + 1}", one.engine, one.environment,
            (*one.hints, *hints), role, replicas, limit if len(found) == 1 else None, place, hardware,
            named=role is not None, doubts=one.doubts,
        )
        for index, one in enumerate(found)
    ]  # fmt: skip


def name_role(*texts: Any) -> Role | None:
    """The role in the names and labels of a section."""
    return hinted([str(text) for text in texts if text])


def count(value: Any, where: str, default: int = 1) -> int:
    """A number of replicas; 0 is a section that is switched off. Raises SpecError."""
    if value is None:
        return default
    if isinstance(value, str):
        value = digits(value) if digits(value) is not None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SpecError("{where}: {value!r} is not a count; allowed: whole numbers from 0", where, value)
    return value


def pod_servers(source: ForeignKeys, base: tuple[Key, ...], key: str, **given: Any) -> list[Server]:
    """The servers of a pod's containers. `base`: the path of its spec."""
    spec = source.section(*base)
    found: list[Server] = []
    hardware = given.pop("hardware", None) or hardware_of(spec.get("nodeSelector"), spec.get("affinity"))
    containers = spec.get("containers")
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if isinstance(container, Mapping):
            made = servers_of(container, source.where, key, hardware=hardware, **given)
            source.get(*base, "containers", index)  # read as a whole: its parts are a server or beside one
            found += made
    return found


def replicas_note(key: str) -> Note:
    return Note("loss", key, "scaled by something else; 1 is taken")
