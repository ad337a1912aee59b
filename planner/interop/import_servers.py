"""Servers that any form names, as a deployment: their roles, GPUs, copies, KV tiers, and what is lost on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.engine.hub_ids import known
from planner.engine.model_config import load_model
from planner.interop import import_checks
from planner.interop.env_files import text_beside
from planner.interop.import_model import chosen, positions
from planner.interop.import_offload import tiers
from planner.interop.import_reading import Choices, Group, Imported, Note, Role, deployment, plain_name
from planner.interop.import_vllm import Options, config_options, engine, whole
from planner.interop.server import CONNECTORS, Server, connectors
from planner.interop.vllm_options import meant
from planner.spec import SpecError
from planner.spec.strict_yaml import read_mapping

ROLE_OF = {"kv_producer": "prefill", "kv_consumer": "decode"}
_ROLE_WORDS: dict[Role, str] = {
    "prefill": r"prefill|producer|\bsender\b",
    "decode": r"decod|consumer|\brecv?er\b|receiver",
}
OTHER_FILES = {"extra-llm-api-options", "extra-engine-args"}  # TensorRT-LLM's
OTHER_ENGINES = {"sglang": "SGLang", "trtllm": "TensorRT-LLM"}


def _told(server: Server, where: str) -> Role | None:
    """The role that options or the section say for certain."""
    values = server.values
    mode = values.get("disaggregation-mode")
    if values.get("is-prefill-worker") or mode == "prefill":
        return "prefill"
    if values.get("is-decode-worker") or mode == "decode":
        return "decode"
    role = ROLE_OF.get(str(server.transfer(where).get("kv_role")))
    return role or (server.role if server.named else None)  # type: ignore[return-value]


def hinted(hints: Sequence[str]) -> Role | None:
    """The role that the nearest text names; one that names both says nothing."""
    for hint in hints:
        if hint.startswith(("-", "{")):
            continue
        fits: list[Role] = [role for role, words in _ROLE_WORDS.items() if re.search(words, hint, re.I)]
        if len(fits) == 1:
            return fits[0]
    return None


def roles(servers: Sequence[Server], ports: Mapping[str, Role], choices: Choices, where: str) -> list[Role]:
    """The role of each server. Raises SpecError when two hand KV over and nothing says which way."""
    if choices.roles:
        if len(choices.roles) != len(servers):
            keys = ", ".join(server.key or "the server" for server in servers)
            raise SpecError(
                "{where}: --roles names {roles}; allowed: one for each of {servers}: {keys}",
                where,
                len(choices.roles),
                len(servers),
                keys,
            )
        return list(choices.roles)
    told = [_told(server, where) for server in servers]
    moving = [server.moves_kv(where) for server in servers]
    by_port = [ports.get(str(server.values.get("port", ""))) for server in servers]
    near = [port or hinted((*server.hints, server.key)) for server, port in zip(servers, by_port, strict=True)]
    both = {"prefill", "decode"} <= set(near) and all(near)
    found = [
        one or (hint if moves or both or any(told) else None)
        for one, hint, moves in zip(told, near, moving, strict=True)
    ]
    open_ones = [server for server, role, moves in zip(servers, found, moving, strict=True) if role is None and moves]
    if len(open_ones) > 1:
        keys = ", ".join(server.key for server in open_ones)
        raise SpecError(
            "{where}: {keys}: kv_both, and nothing names the one that prefills; allowed: --roles prefill,decode in "
            "their order, kv_producer and kv_consumer, or names that say it",
            where,
            keys,
        )
    if not any(found):
        return ["aggregated"] * len(found)
    for server, role in zip(servers, found, strict=True):
        if role is None and server.place != "managed":
            raise SpecError(
                "{where}: {key}: neither prefill nor decode, beside servers that are; allowed: --roles "
                "prefill,decode,aggregated in their order, or a file without it",
                where,
                server.key,
            )
    if "prefill" in found:  # older graphs of Dynamo mark only the prefill worker
        return [role or "decode" for role in found]
    return [role or "aggregated" for role in found]


def _parallel(server: Server, where: str) -> tuple[int, list[Note]]:
    """GPUs of one worker, and the notes on parallelism that is not modelled."""
    notes: list[Note] = []
    size = server.tp
    for name, word in (("pipeline-parallel-size", "pipeline"), ("prefill-context-parallel-size", "context")):
        stages = int(server.values.get(name, 1))
        if stages > 1:
            gpus = stages * size
            text = f"{stages}: {word} parallelism is not modelled; its {gpus} GPUs would be one worker of tp {gpus}"
            notes.append(Note("loss", server.note_key(name), text, grave=True))
            size *= stages
    if int(server.values.get("decode-context-parallel-size", 1)) > 1:
        text = "KV sharded over a TP group is not modelled; it would be kept whole"
        notes.append(Note("loss", server.note_key("decode-context-parallel-size"), text, grave=True))
    expert = server.values.get("enable-expert-parallel") or int(server.values.get("expert-parallel-size", 1)) > 1
    if expert:
        wide = int(server.values.get("data-parallel-size", 1)) > 1
        text = "experts spread over ranks with addresses of their own are not modelled; each would hold all of them"
        if wide and not server.balances_ranks:
            notes.append(Note("loss", server.note_key("enable-expert-parallel"), text, grave=True))
    used = size * (server.copies if server.values.get("data-parallel-rank") is None else 1)
    for name in OTHER_FILES & server.values.keys():
        unsure = server.gpus != used if server.gpus is not None else "tensor-parallel-size" not in server.values
        text = f"{server.values[name]}: options in another file, which is not read; sizes there count"
        notes.append(Note("loss", server.note_key(name), text, grave=unsure))
    if server.gpus is not None and server.gpus != used:
        per = f"tp {size}" if server.copies == 1 else f"{server.copies} copies of tp {size}"
        text = f"{server.gpus} GPU{'s' * (server.gpus != 1)} for an engine that uses {used} ({per}); {used} count"
        notes.append(Note("loss", server.note_key("gpus"), text))
    return size, notes


def _other_engine(server: Server) -> list[Note]:
    name = OTHER_ENGINES.get(server.engine)
    if name is None:
        return []
    text = f"{name} serves it; model, GPUs, roles and limits are read, and times are those of vLLM"
    return [Note("loss", server.key or "engine", text)]


def _misspelt(server: Server) -> list[Note]:
    """Options that vLLM does not have but for a slip: it would not start, and their values are lost."""
    found = [(name, meant(name)) for name in server.values] if server.engine == "vllm" else []
    return [
        Note("mistake", server.note_key(name), f"vLLM has no such option (perhaps --{close})", grave=True)
        for name, close in found
        if close is not None
    ]


def _without_ranks(servers: Sequence[Server], where: str) -> tuple[list[Server], list[Note]]:
    """Without the servers that are the other nodes of one engine: headless ones, and node ranks above 0."""
    own = [one for one in servers if not one.values.get("headless") and whole(one.values.get("node-rank"), 0) == 0]
    if servers and not own:
        raise SpecError(
            "{where}: only headless servers, parts of an engine elsewhere; allowed: the one with the API", where
        )
    gone = [one.key for one in servers if one not in own]
    text = "the engine's other nodes; its sizes count all of them"
    return own, [Note("assumed", key or "headless", text) for key in gone]


def _mixture(model: str) -> bool:
    """Whether a model is known to have experts, which tie the ranks of a server together."""
    return known(model) and load_model(model).experts > 0


def _groups(servers: Sequence[Server], found: Sequence[Role], model: str, where: str) -> tuple[list[Group], list[Note]]:
    groups, notes = [], []
    for server, role in zip(servers, found, strict=True):
        keys, remarks = engine(server.values, server.key)
        longer, more = positions(server.values, server.environment, model, server.key)
        size, parallel = _parallel(server, where)
        experts = server.values.get("enable-expert-parallel") or whole(server.values.get("expert-parallel-size"), 1) > 1
        own = {"enable_expert_parallel": True} if experts else {}
        ranks = server.copies
        tied = bool(experts) or _mixture(model)
        if server.engine == "sglang":  # without it its ranks are engines of their own
            tied = server.values.get("enable-dp-attention") is True
        lockstep = ranks > 1 and server.balances_ranks and tied
        workers, dp = (1, ranks) if lockstep else (ranks, 1)
        groups.append(Group(role, server.replicas * workers, size, {**keys, **longer, **own}, dp))
        notes += [*remarks, *more, *parallel, *_other_engine(server), *_misspelt(server)]
        if str(server.values.get("runner", server.values.get("task", "generate"))) not in ("generate", "auto"):
            given = "runner" if "runner" in server.values else "task"
            raise SpecError(
                "{where}: {runner}: answers are no tokens; allowed: generate", where, server.note_key(given)
            )
        if server.options.unknown:
            text = "set nowhere; whatever options it stands for are left out"
            notes.append(Note("loss", f"{server.key} {' '.join(server.options.unknown)}".strip(), text))
        if server.environment.get("VLLM_USE_V1") == "0":
            notes.append(Note("loss", f"{server.key} VLLM_USE_V1", "vLLM's V0 scheduler; V1 is taken", grave=False))
        if server.values.get("data-parallel-size") is not None and ranks > 1 and not lockstep:
            notes.append(
                Note(
                    "assumed",
                    server.note_key("data-parallel-size"),
                    f"{ranks} ranks are {ranks} workers",
                )
            )
    return groups, notes


def _link(servers: Sequence[Server], where: str) -> tuple[dict[str, Any], list[Note]]:
    names = {name for server in servers for name in connectors(server.transfer(where)) if name in CONNECTORS}
    if "NixlPushConnector" in names:
        return {"connector": "NixlPushConnector"}, []
    other = sorted(names - {"NixlConnector", "NixlPullConnector"})
    if not other:
        return {}, []
    push = all(CONNECTORS[name] for name in other)
    text = f"{', '.join(other)} is modelled as {'NixlPushConnector' if push else 'NixlConnector'}"
    return ({"connector": "NixlPushConnector"} if push else {}), [Note("loss", "kv-transfer-config", text)]


def _alone(servers: Sequence[Server], found: list[Role], where: str) -> tuple[list[Role], list[Note]]:
    """One half of a pair in a file of its own, as the engines that it is."""
    if len(set(found)) != 1 or found[0] == "aggregated":
        if len(servers) == 1 and servers[0].moves_kv(where):
            text = "hands KV over, but nothing here says to whom; taken as an aggregated engine"
            return found, [Note("loss", servers[0].note_key("kv-transfer-config"), text)]
        return found, []
    role, other = found[0], "decode" if found[0] == "prefill" else "prefill"
    text = (
        f"only the {role} half of a pair, taken as aggregated engines; "
        f"give the file of the {other} half too, with --together"
    )
    files = all(server.place == "pod" for server in servers)  # a file for each Deployment is how people keep them
    return ["aggregated"] * len(found), [Note("loss", servers[0].key or "kv_role", text, grave=not files)]


def _with_config(server: Server, folder: Path | None, where: str) -> Server:
    """The server with the options of its `--config` file, where that lies beside; its own options win, as in vLLM."""
    name = server.values.get("config")
    if server.engine != "vllm" or not isinstance(name, str):
        return server
    text, _ = text_beside(folder, name)
    if text is None:
        return server
    given = config_options(read_mapping(text, name), name)
    own = {key: value for key, value in server.values.items() if key != "config"}
    made = Options({**given.values, **own}, server.options.model or given.model, server.options.unknown)
    return replace(server, options=made)


def assemble(
    dialect: str,
    name: str,
    where: str,
    servers: Sequence[Server],
    choices: Choices,
    *,
    router: Mapping[str, Any] | None = None,
    ports: Mapping[str, Role] | None = None,
    notes: Sequence[Note] = (),
    served: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Imported:
    """The servers of one file as the data of planner's YAML. Raises SpecError."""
    doubts = dict.fromkeys(doubt for server in servers for doubt in server.doubts)
    taken = "the script does not say whether it holds; what it guards is taken"
    remarks = [*notes, *(Note("warning", doubt, taken) for doubt in doubts)]
    servers, more = _without_ranks(servers, where)
    remarks += more
    if not servers:
        raise SpecError(
            "{where}: no server that is known; allowed: vLLM, Dynamo's vLLM workers, SGLang, TensorRT-LLM", where
        )
    servers = [_with_config(server, choices.folder, where) for server in servers]
    for server in servers:
        if server.values.get("config") is not None:
            file = server.values["config"]
            text = f"{file}: options in another file, which is not read; import that file for them"
            remarks.append(Note("loss", server.note_key("config"), text, grave=True))
            if not server.options.model and choices.model is None:
                raise SpecError(
                    "{where}: {config}: {text}; allowed: the options themselves, or that file",
                    where,
                    server.note_key("config"),
                    text,
                )
    models = list(dict.fromkeys(server.options.model or "" for server in servers))
    if choices.model is None and "" in models:
        key = next(server.key for server in servers if not server.options.model) or "`vllm serve`"
        raise SpecError(
            "{where}: {key}: without a model; allowed: `vllm serve MODEL --option value`, or --set model=NAME",
            where,
            key,
        )
    if choices.model is None and len(models) > 1:
        raise SpecError("{where}: several models: {models}; allowed: one", where, ", ".join(sorted(models)))
    served = served or next(
        (str(one.values["served-model-name"]) for one in servers if "served-model-name" in one.values), None
    )
    model, keys, more = chosen(choices, models[0], "model", where, served)
    found = roles(servers, ports or {}, choices, where)
    wrong = import_checks.mistakes(servers, found, where)
    remarks += [*more, *wrong]
    if facing := next((note for note in wrong if note.key == "kv_role"), None):
        raise SpecError("{where}: {text}; allowed: kv_producer for prefill, kv_consumer for decode", where, facing.text)
    found, more = _alone(servers, found, where)
    groups, others = _groups(servers, found, model, where)
    remarks += [*more, *others]
    groups = [replace(group, engine={**keys, **group.engine}) for group in groups]
    section, shared = deployment(groups, where)
    split = section["mode"] == "disaggregated"
    if split:
        link, more = _link(servers, where)
        section |= {"link": link} if link else {}
        remarks += more
    if router:
        choice = {"decode_choice": "after_prefill"} if split and "policy" in router else {}
        section["router"] = {**router, **choice} if dialect.startswith("Dynamo") else dict(router)
    spec: dict[str, Any] = {"name": plain_name(name), "model": model}
    hardware = next((server.hardware for server in servers if server.hardware), None)
    if hardware is not None:
        spec["hardware"] = hardware
    spec["deployment"] = section
    if shared:
        spec["engine"] = shared
    offload, more = tiers(servers, where)
    remarks += more
    if offload:
        spec["optimizations"] = {"decode": {"offload": offload}}
    return Imported(dialect, {**spec, **(extra or {})}, tuple(dict.fromkeys(remarks)))
