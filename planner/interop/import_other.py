"""Docker Compose, Ray Serve LLM's configs, and vLLM's own config files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from planner.interop import import_checks
from planner.interop.env_files import EnvFiles
from planner.interop.import_pods import POD, count, environment, hardware_of, name_role, servers_of, words_of
from planner.interop.import_reading import Choices, ForeignKeys, Imported, Note, Role, digits, items, section, unread
from planner.interop.import_script import proxy_ports, router_of
from planner.interop.import_servers import assemble
from planner.interop.import_vllm import Options, config_options, options
from planner.interop.server import Server
from planner.interop.shell import Command
from planner.spec import Engine, SpecError
from planner.spec.strict_yaml import read_mapping

# --- Docker Compose --------------------------------------------------------------------------------------


def is_compose(data: dict[str, Any]) -> bool:
    return isinstance(data.get("services"), dict) and "kind" not in data


VARIABLE = r"\$\$|\$\{(?P<braced>\w+)((?P<form>:?[-?])(?P<default>[^}]*))?\}|\$(?P<bare>[A-Za-z_]\w*)"


def _interpolated(value: Any, known: Mapping[str, str]) -> Any:
    """Variables that are `known` as their values, `${NAME:-default}` as its default and `$$` as the shell's `$`.

    A variable without any stays.
    """
    if isinstance(value, str):

        def filled(found: re.Match[str]) -> str:
            name, form = found["braced"] or found["bare"], found["form"] or ""
            if name in known and (known[name] or not form.startswith(":")):
                return known[name]
            if found[0] == "$$":
                return "$"
            return str(found["default"]) if form.endswith("-") else found[0]

        return re.sub(VARIABLE, filled, value)
    if isinstance(value, list):
        return [_interpolated(item, known) for item in value]
    if isinstance(value, dict):
        return {key: _interpolated(item, known) for key, item in value.items()}
    return value


def _devices(service: Mapping[str, Any]) -> int | None:
    reserved = service.get("deploy")
    for key in ("resources", "reservations", "devices"):
        reserved = reserved.get(key) if isinstance(reserved, Mapping) else None
    given = reserved or service.get("gpus")
    for device in given if isinstance(given, list) else ():
        if isinstance(device, Mapping):
            if isinstance(device.get("device_ids"), list):
                return len(device["device_ids"])
            if (known := digits(device.get("count"))) is not None:
                return known
    return None


def _words(value: Any) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else words_of(value)


def _extended(services: Mapping[str, Any], key: str, seen: tuple[str, ...] = ()) -> Any:
    """A service with what it takes over from another of the same file: its own keys count, variables of both."""
    service = services.get(key)
    extends = service.get("extends") if isinstance(service, dict) else None
    base = extends.get("service") if isinstance(extends, dict) else extends
    elsewhere = isinstance(extends, dict) and "file" in extends
    if not isinstance(service, dict) or elsewhere or str(base) not in services or str(base) in (key, *seen):
        return service
    taken = _extended(services, str(base), (*seen, key))
    if not isinstance(taken, dict):
        return service
    variables = environment(taken.get("environment")) | environment(service.get("environment"))
    return {**taken, **service, **({"environment": variables} if variables else {})}


def read_compose(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """A Compose file whose services run engines. Raises SpecError."""
    source = ForeignKeys(data, where)
    servers: list[Server] = []
    dormant: list[Server] = []  # of services whose profile is not on
    others: list[Command] = []
    files, remarks = EnvFiles(choices.folder), list[Note]()
    project = files.project()
    bases = {
        str(base.get("service") if isinstance(base, dict) else base)
        for one in data["services"].values()
        if isinstance(one, dict) and (base := one.get("extends"))
    }
    for key in data["services"]:
        raw = _extended(data["services"], key)
        service = _interpolated(raw, project)
        if not isinstance(service, dict):
            raise SpecError(
                "{where}: services.{key}: holds {what}; allowed: a section of keys", where, key, type(raw).__name__
            )
        extends = service.get("extends")
        if isinstance(extends, dict) and "file" in extends:
            text = "is another file: what it gives this service is not read"
            remarks.append(Note("warning", f"services.{key}.extends: {extends['file']}", text))
        source.get("services", str(key), "extends")
        if service.get("env_file"):
            place = f"services.{key}.env_file"
            more, unread_files = files.named(
                service["env_file"], place, lambda value: str(_interpolated(value, project))
            )
            remarks += unread_files
            plain, service = service, _interpolated(raw, more | project)
            if service != plain:
                remarks.append(
                    Note("assumed", place, "fills in ${...} of the file too, as `docker compose --env-file`")
                )
            source.get("services", str(key), "env_file")
        else:
            more = {}
        env = more | environment(service.get("environment"))
        try:
            entry, command = _words(service.get("entrypoint")), _words(service.get("command"))
        except ValueError as error:
            raise SpecError(
                "{where}: services.{key}.command: {error}; allowed: a command line", where, key, error
            ) from None
        deploy = section(service.get("deploy"), f"{where}: services.{key}.deploy")
        copies = count(service.get("scale", deploy.get("replicas")), f"{where}: services.{key}.deploy.replicas")
        container = {"image": service.get("image", ""), "command": entry, "args": command, "environment": env}
        own = env.get("NVIDIA_VISIBLE_DEVICES", env.get("CUDA_VISIBLE_DEVICES", ""))
        gpus = _devices(service) or (len(own.split(",")) if re.fullmatch(r"\d+(,\d+)*", own) else None)
        host = service.get("network_mode") == "host"
        proxy = re.search(r"proxy|router|nginx|gateway", f"{key} {' '.join(entry)}") and not deploy.get("resources")
        made = [] if proxy or (not command and key in bases) else servers_of(
            container, where, str(key), role=name_role(key), replicas=copies, place="host" if host else "pod",
            gpus=gpus,
            hints=(str(service.get("container_name", "")),),
        )  # fmt: skip
        for part in ("command", "environment", "deploy", "entrypoint", "scale"):
            if made:
                source.get("services", str(key), part)
        profiles = {str(one) for one in items(service.get("profiles"), f"{where}: services.{key}.profiles")}
        on = not profiles or profiles & {one.strip() for one in project.get("COMPOSE_PROFILES", "").split(",")}
        (servers if on else dormant).extend(made if copies else [])
        source.get("services", str(key), "profiles")
        if not made:
            others.append(Command((*entry, *command), env))
            source.get("services", str(key))
    if servers and dormant:
        left_out = ", ".join(dict.fromkeys(one.key for one in dormant))
        remarks.append(
            Note("assumed", f"services: {left_out}", "left out: `docker compose up` starts no other profile")
        )
    servers = servers or dormant
    if not servers:
        raise SpecError(
            "{where}: services: none runs an engine; allowed: an image of vLLM, or a command that starts it", where
        )
    ports = proxy_ports(others)
    source.get("name")
    if data.get("include"):
        remarks.append(Note("warning", "include", "names other files, whose services are not read"))
        source.get("include")
    notes = unread(
        source, {**POD, r"volumes.*|secrets|configs|version|x-.*|expose": "how containers run"}, "Compose setting"
    )
    title = str(data.get("name") or name)
    try:
        made_ = assemble("Docker Compose", title, where, servers, choices, ports=ports, notes=notes)
    except SpecError as error:
        gone = next((note for note in remarks if note.kind == "warning"), None)
        if gone is None:
            raise
        raise SpecError("{fault} ({key} {why})", str(error), gone.key, gone.text.partition(";")[0]) from None
    router, others_remarks = router_of(others, made_.data["deployment"]["mode"] == "disaggregated")
    if router is not None:
        made_.data["deployment"]["router"] = router
    return Imported(made_.dialect, made_.data, (*made_.notes, *others_remarks, *remarks))


# --- SkyPilot ------------------------------------------------------------------------------------------------


def is_skypilot(data: dict[str, Any]) -> bool:
    return isinstance(data.get("run"), str) and isinstance(data.get("resources"), dict) and "kind" not in data


def read_skypilot(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """A SkyPilot task or service: what `run` starts on each of its replicas. Raises SpecError."""
    given = data["resources"].get("accelerators")
    kinds = given if isinstance(given, list) else [given]
    kind, _, number = str(next(iter(kinds[0])) if isinstance(kinds[0], dict) else kinds[0]).partition(":")
    gpus = kinds[0].get(kind) if isinstance(kinds[0], dict) else digits(number or "1")
    if count(data.get("num_nodes"), f"{where}: num_nodes") > 1:
        raise SpecError("{where}: num_nodes: one engine over several nodes is not read; allowed: 1", where)
    service = section(data.get("service"), f"{where}: service")
    policy = section(service.get("replica_policy"), f"{where}: service.replica_policy")
    copies = count(service.get("replicas", policy.get("min_replicas")), f"{where}: service.replicas")
    known = {"SKYPILOT_NUM_GPUS_PER_NODE": str(gpus), "SKYPILOT_NODE_RANK": "0", **environment(data.get("envs"))}
    container = {"command": ["bash", "-c", data["run"]]}
    servers = servers_of(
        container,
        where,
        "run",
        replicas=copies,
        place="host",
        gpus=digits(gpus),
        hardware=hardware_of(kind),
        known=known,
    )
    most = policy.get("max_replicas", copies)
    notes = [] if most == copies else [
        Note("loss", "service.replica_policy", f"scaled from {copies} to {most}; {copies} count")
    ]  # fmt: skip
    return assemble("SkyPilot", str(data.get("name") or name), where, servers, choices, notes=notes)


# --- Ray Serve LLM -------------------------------------------------------------------------------------------


def _keys(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def is_ray(data: dict[str, Any]) -> bool:
    return _ray(data) is not None


def _ray(data: Mapping[str, Any]) -> list[Any] | None:
    """The applications of a serve config, which a RayService carries as text."""
    if data.get("kind") == "RayService":
        text = dict(_keys(data.get("spec"))).get("serveConfigV2")
        inner = read_mapping(text, "serveConfigV2") if isinstance(text, str) else text
        return _ray(inner) if isinstance(inner, dict) else None
    if "model_loading_config" in data:
        return [{"args": {"llm_configs": [dict(data)]}}]
    if "llm_configs" in data or "prefill_config" in data:
        return [{"args": dict(data)}]
    found = data.get("applications")
    names = ("llm_configs", "llm_config", "prefill_config", "decode_config")
    fits = isinstance(found, list) and any(
        isinstance(a, dict) and set(names) & set(_keys(a.get("args"))) for a in found
    )
    return found if fits else None


def _ray_server(config: Any, key: str, where: str, role: Role | None) -> tuple[Server, list[Note]]:
    if not isinstance(config, Mapping):
        raise SpecError(
            "{where}: {key}: {config!r} is another file; allowed: the model's section itself", where, key, config
        )
    loading = section(config.get("model_loading_config"), f"{where}: {key}.model_loading_config")
    source = loading.get("model_source")
    model = source if isinstance(source, str) else str(loading.get("model_id") or "") or None
    words = []
    for name, value in section(config.get("engine_kwargs"), f"{where}: {key}.engine_kwargs").items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words.append(f"--{option}={json.dumps(value) if isinstance(value, dict | list) else value}")
    values = options(words, f"{where}: {key}.engine_kwargs").values
    deployment = section(config.get("deployment_config"), f"{where}: {key}.deployment_config")
    scaling = section(deployment.get("autoscaling_config"), f"{where}: {key}.autoscaling_config")
    notes = []
    copies = deployment.get("num_replicas")
    if scaling and not isinstance(copies, int):
        low, high = count(scaling.get("min_replicas"), where), count(scaling.get("max_replicas"), where)
        copies = max(count(scaling.get("initial_replicas"), where, low), 1)
        if low != high:
            text = f"scaled from {low} to {high}; {copies} count"
            notes.append(Note("loss", f"{key}.deployment_config.autoscaling_config", text))
    if copies == "auto":
        notes.append(Note("loss", f"{key}.deployment_config.num_replicas", "auto; 1 counts"))
        copies = 1
    environ = environment(section(config.get("runtime_env"), f"{where}: {key}.runtime_env").get("env_vars"))
    server = Server(
        Options(values, model), key, "vllm", environ, (), role,
        count(copies, f"{where}: {key}.num_replicas") or 1, None, "managed",
        hardware_of(config.get("accelerator_type")), role is not None,
    )  # fmt: skip
    return server, notes


def read_ray(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """Ray Serve LLM applications of one model. Raises SpecError."""
    servers, notes = [], []
    for index, application in enumerate(_ray(data) or ()):
        arguments = section(section(application, f"{where}: applications").get("args"), f"{where}: args")
        several = items(arguments.get("llm_configs"), f"{where}: llm_configs") or (
            [arguments["llm_config"]] if "llm_config" in arguments else []
        )
        found: list[tuple[Any, str, Role | None]] = [(one, f"llm_configs.{i}", None) for i, one in enumerate(several)]
        roles: tuple[Role, ...] = ("prefill", "decode")
        found += [
            (arguments[f"{role}_config"], f"{role}_config", role) for role in roles if f"{role}_config" in arguments
        ]
        for one, key, role in found:
            made, remarks = _ray_server(one, key if not index else f"applications.{index}.{key}", where, role)
            servers.append(made)
            notes += remarks
    notes.append(Note("assumed", "deployment.router", "Ray Serve picks the less busy of two replicas"))
    router = {"policy": "power_of_two"}
    title = str(dict(_keys(data.get("metadata"))).get("name") or name)
    return assemble("Ray Serve LLM", title, where, servers, choices, router=router, notes=notes)


# --- TensorRT-LLM's pair ---------------------------------------------------------------------------------------

_SIDES: dict[str, Role] = {"context_servers": "prefill", "generation_servers": "decode"}


def is_trtllm_pair(data: dict[str, Any]) -> bool:
    return all(isinstance(data.get(side), dict) for side in _SIDES)


def read_trtllm_pair(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """What `trtllm-serve disaggregated -c` reads. Raises SpecError."""
    servers = []
    for side, role in _SIDES.items():
        given = {**data, **data[side]}  # a side's own win
        cache = section(given.get("kv_cache_config"), f"{where}: {side}.kv_cache_config")
        sizes = {
            "tp-size": given.get("tensor_parallel_size"), "pp-size": given.get("pipeline_parallel_size"),
            "ep-size": given.get("moe_expert_parallel_size"), "max-batch-size": given.get("max_batch_size"),
            "max-num-tokens": given.get("max_num_tokens"), "max-seq-len": given.get("max_seq_len"),
            "free-gpu-memory-fraction": cache.get("free_gpu_memory_fraction", given.get("free_gpu_memory_fraction")),
        }  # fmt: skip
        words = [f"--{option}={value}" for option, value in sizes.items() if value is not None]
        copies = count(given.get("num_instances"), f"{where}: {side}.num_instances")
        found = Options(options(words, f"{where}: {side}", "trtllm").values, given.get("model"))
        servers.append(Server(found, side, "trtllm", role=role, replicas=copies, place="managed", named=True))
    return assemble("TensorRT-LLM", name, where, servers, choices)


# --- vLLM's own config file ------------------------------------------------------------------------------------


def is_vllm_config(data: dict[str, Any]) -> bool:
    """`vllm serve --config FILE`: options by their names, all at the top."""
    if {"deployment", "workload", "services"} & set(data) or any(isinstance(key, int) for key in data):
        return False
    known = {name.replace("_", "-") for name in Engine.model_fields} | {"tensor-parallel-size", "kv-transfer-config"}
    plain = {str(key).replace("_", "-") for key in data}
    return bool(known & plain) and ("model" in plain or len(known & plain) > 1)


def read_vllm_config(data: dict[str, Any], where: str, name: str, choices: Choices) -> Imported:
    """A file for `vllm serve --config`. Raises SpecError."""
    return assemble("vLLM config", name, where, [Server(config_options(data, where), "")], choices)


# --- a proxy by itself -------------------------------------------------------------------------------------------


def proxy_notes(texts: Sequence[tuple[str, str]]) -> list[Note]:
    """What is wrong with proxies: (name, text) of Python files."""
    return [
        note for key, text in texts if import_checks.is_proxy(text) for note in import_checks.proxy_mistakes(text, key)
    ]
