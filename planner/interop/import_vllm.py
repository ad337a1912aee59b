"""`vllm serve` command lines: their options as planner's engine keys, and a file of one or several of them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from planner.interop.import_reading import Group, Imported, Note, Role, deployment, model_name, plain_name
from planner.spec import Engine, SpecError
from planner.spec.strict_yaml import read_value

# Options that take no value. Any other one takes the word that follows, unless that is an option too.
FLAGS = {
    "enforce-eager", "enable-prefix-caching", "enable-chunked-prefill", "async-scheduling", "trust-remote-code",
    "scheduler-reserve-full-isl", "disable-log-requests", "disable-uvicorn-access-log", "enable-auto-tool-choice",
    "enable-expert-parallel", "is-prefill-worker", "is-decode-worker", "remote-prefill", "conditional-disagg",
    "disable-log-stats", "enable-prompt-tokens-details", "return-tokens-as-token-ids",
}  # fmt: skip
SHORT = {"tp": "tensor-parallel-size", "pp": "pipeline-parallel-size", "dp": "data-parallel-size", "q": "quantization"}
# Read by the importers themselves, not engine keys.
COUNTS = {"tensor-parallel-size", "data-parallel-size"}
STRUCTURE = {"model", "kv-transfer-config"} | COUNTS
SILENT = "says nothing about speed"
REASONS = {
    "pipeline-parallel-size": "pipeline parallelism is not modelled",
    "speculative-config": "speculative decoding changes speed and is not modelled",
    "kv-events-config": "routers here know every worker's cache already",
    "cpu-offload-gb": "weights on the host are not modelled; for KV on the host see optimizations.decode",
    "enable-lora": "adapters are not modelled",
    **dict.fromkeys(
        ("host", "port", "served-model-name", "api-key", "chat-template", "download-dir", "seed", "tokenizer",
         "revision", "trust-remote-code", "disable-log-requests", "disable-log-stats", "disable-uvicorn-access-log",
         "enable-auto-tool-choice", "tool-call-parser", "reasoning-parser", "uvicorn-log-level",
         "enable-prompt-tokens-details", "return-tokens-as-token-ids"),
        SILENT,
    ),
}  # fmt: skip
ALLOWED = {"kv_cache_dtype": {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bfloat16": "bf16", "float16": "fp16"}}
ALLOWED["dtype"] = {"half": "float16", "float": "float32"}
_CHOICES = {"quantization": ("fp8", "int8", "int4"), "load_format": ("auto", "dummy")}


@dataclass
class Options:
    """The options of one engine: `values` by their names with dashes; `model` where it was given."""

    values: dict[str, Any] = field(default_factory=dict)
    model: str | None = None


def options(words: Iterable[str], where: str) -> Options:
    """Words after `vllm serve` (or an engine module) as options. Raises SpecError."""
    found = Options()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if found.model is not None:
                raise SpecError(f"{where}: {word!r} after the model; allowed: one model, then --options")
            found.model = word
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = SHORT.get(name, name).replace("_", "-")
        if equals:
            found.values[name] = _scalar(value, f"{where}: --{name}")
        elif name in FLAGS or name.startswith("no-") or not rest or rest[0].startswith("--"):
            off = name.startswith("no-")
            found.values[name.removeprefix("no-")] = not off
        else:
            found.values[name] = _scalar(rest.pop(0), f"{where}: --{name}")
    if "model" in found.values:
        found.model = str(found.values.pop("model"))
    for name in COUNTS & found.values.keys():
        value = found.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"{where}: --{name}: {value!r} is not a count; allowed: whole numbers from 1")
    return found


def _scalar(text: str, where: str) -> Any:
    """Numbers as numbers; JSON as it stands; 16k is 16,000 and 16K is 16,384 as in vLLM."""
    if re.fullmatch(r"\d+(\.\d+)?[kKmMgG]", text):
        base = 1000 if text[-1].islower() else 1024
        return int(float(text[:-1]) * base ** ("kmg".index(text[-1].lower()) + 1))
    return text if text.startswith(("{", "[")) else read_value(text, where)


def engine(values: dict[str, Any], key: str) -> tuple[dict[str, Any], list[Note]]:
    """Planner's engine keys for vLLM's options; the others become notes under `key`."""
    found: dict[str, Any] = {}
    notes: list[Note] = []
    for name, value in values.items():
        field_name = name.replace("-", "_")
        place = f"{key}.{name}" if key else f"--{name}"
        if name in STRUCTURE:
            continue
        if field_name not in Engine.model_fields or field_name == "scheduler":
            notes.append(
                Note("no counterpart", place, f"{value} ({REASONS.get(name, 'not an option that is modelled')})")
            )
            continue
        value = ALLOWED.get(field_name, {}).get(str(value), value)
        if value == "auto" and field_name not in ("dtype", "kv_cache_dtype", "load_format"):
            continue
        if field_name in _CHOICES and value not in _CHOICES[field_name]:
            notes.append(Note("no counterpart", place, f"{value} (modelled are {', '.join(_CHOICES[field_name])})"))
            continue
        found[field_name] = value
    return found, notes


def role_of(values: dict[str, Any], where: str) -> Role:
    """Prefill, decode or aggregated, from `kv_role` or Dynamo's flags. `kv_both` alone says neither."""
    if values.get("is-prefill-worker"):
        return "prefill"
    if values.get("is-decode-worker"):
        return "decode"
    mode = values.get("disaggregation-mode")
    if mode in ("prefill", "decode"):
        return "prefill" if mode == "prefill" else "decode"
    text = values.get("kv-transfer-config")
    if text is None:
        return "aggregated"
    try:
        config = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise SpecError(f"{where}: kv-transfer-config: not JSON ({error.msg}); allowed: a JSON object") from None
    role = config.get("kv_role") if isinstance(config, dict) else None
    return {"kv_producer": "prefill", "kv_consumer": "decode"}.get(str(role), "aggregated")  # type: ignore[return-value]


def group(found: Options, role: Role, key: str, replicas: int = 1) -> tuple[Group, list[Note]]:
    """The workers that these options start."""
    keys, notes = engine(found.values, key)
    notes = [note for note in notes if not note.key.endswith(("is-prefill-worker", "is-decode-worker", "mode"))]
    tp = int(found.values.get("tensor-parallel-size", 1))
    copies = int(found.values.get("data-parallel-size", 1))
    return Group(role, replicas * copies, tp, keys), notes


_COMMAND = re.compile(r"\bvllm\s+serve\b|\bvllm\.entrypoints\.\S*api_server\b|\bdynamo\.vllm\b")


def is_command(text: str) -> bool:
    return _COMMAND.search(text) is not None


def words_of(command: str, where: str) -> list[str]:
    """The words after `vllm serve`, `vllm.entrypoints...api_server` or `dynamo.vllm`, up to a pipe or redirect."""
    match = _COMMAND.search(command)
    try:
        words = shlex.split(command[match.end() :] if match else command, comments=True)
    except ValueError as error:
        raise SpecError(f"{where}: not a command line ({error}); allowed: `vllm serve MODEL --option value`") from None
    for index, word in enumerate(words):
        if word in ("|", "&", "&&", ";", "||") or re.match(r"\d*[<>]", word):
            return words[:index]
    return words


def read_commands(text: str, where: str, name: str) -> Imported:
    """A script of `vllm serve` lines: one kind of worker, or prefill and decode workers by their `kv_role`."""
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if is_command(line.split("#")[0])]
    groups: list[Group] = []
    notes: list[Note] = []
    models: list[str] = []
    for number, line in enumerate(lines):
        found = options(words_of(line, where), where)
        key = "" if len(lines) == 1 else f"command {number + 1}"
        if found.model is None:
            raise SpecError(f"{where}: `vllm serve` without a model; allowed: `vllm serve MODEL --option value`")
        models.append(found.model)
        role = role_of(found.values, where)
        made, remarks = group(found, role, key)
        if role == "aggregated" and "kv-transfer-config" in found.values:
            text_ = "kv_both says neither prefill nor decode; taken as an aggregated engine"
            remarks.append(Note("assumed", f"{key}.kv-transfer-config" if key else "--kv-transfer-config", text_))
        groups.append(made)
        notes += remarks
    if len(set(models)) > 1:
        raise SpecError(f"{where}: several models: {', '.join(sorted(set(models)))}; allowed: one")
    model, remarks = model_name(models[0], "model")
    section, engine_keys = deployment(groups, where)
    if section["mode"] == "disaggregated":
        section["router"] = {"preset": "vllm_proxy"}
        notes.append(Note("assumed", "deployment.router", "vLLM's example proxy: each pool in turn"))
    data: dict[str, Any] = {"name": plain_name(name), "model": model, "deployment": section}
    if engine_keys:
        data["engine"] = engine_keys
    return Imported("vllm serve", data, (*remarks, *dict.fromkeys(notes)))
