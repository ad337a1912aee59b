"""Command lines of engines: their options as planner's engine keys, and the servers that a script starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from planner.engine.limits import KERNEL_BLOCK
from planner.interop import shell
from planner.interop.import_reading import Note
from planner.interop.vllm_options import (
    COUNTS,
    DIALECTS,
    QUANTISED,
    SHORT,
    STRUCTURE,
    abbreviated,
    slows,
    takes_no_value,
    takes_several,
)
from planner.spec import Engine, SpecError
from planner.spec.strict_yaml import read_value

KV_TYPES = {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp8_inc": "fp8", "bfloat16": "bf16", "float16": "fp16"}
DTYPES = {"half": "float16", "float": "float32"}
PLACEHOLDER = re.compile(r".*<[^<>]*>.*|\.\.\.|\{\{.*\}\}|your[-_ ].*|MODEL(?:_NAME|_ID|_PATH)?", re.I | re.S)


@dataclass
class Options:
    """The options of one engine: `values` by vLLM's names with dashes; `model` where it was given."""

    values: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    unknown: tuple[str, ...] = ()  # words that are variables nobody sets


def options(words: Iterable[str], where: str, engine: str = "vllm") -> Options:
    """Words after `vllm serve` (or another engine's launcher) as options. Raises SpecError."""
    found = Options()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--?[A-Za-z]", word):
            if word.strip() in ("...", "\\", ""):
                continue
            if word.startswith("$") and found.model is not None:
                found.unknown += (word,)
                continue
            if found.model is not None:
                raise SpecError("{where}: {word!r} after the model; allowed: one model, then --options", where, word)
            found.model = word
            continue
        head, equals, value = word.lstrip("-").partition("=")
        head, _, inner = head.partition(".")
        name = _name(head, engine)
        if equals:
            given: Any = _scalar(value, f"{where}: --{name}")
        elif takes_no_value(name) or re.fullmatch(r"O\d", name) or not rest or _option(rest[0]):
            given = not name.startswith("no-")
            name = name.removeprefix("no-")
        elif takes_several(name) and not inner:
            given = []
            while rest and not _option(rest[0]):
                given.append(rest.pop(0))
            given = given[0] if len(given) == 1 else given
        else:
            given = _scalar(rest.pop(0), f"{where}: --{name}")
        if inner:
            _dotted(found.values, name, inner, given, where)
        else:
            found.values[name] = given
    if "model" in found.values:
        found.model = str(found.values.pop("model"))
    for name in COUNTS & found.values.keys():
        value = found.values[name]
        least = 0 if name == "data-parallel-size-local" else 1  # a head node may serve no rank itself
        if isinstance(value, str) and value.startswith("$"):
            raise SpecError(
                "{where}: --{key}: {value} is set nowhere in the file; allowed: a line that sets it, or the number",
                where,
                name,
                value,
            )
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SpecError(
                "{where}: --{key}: {value!r} is not a count; allowed: whole numbers from 1", where, name, value
            )
    if engine == "sglang":
        if found.values.get("enable-dp-attention"):
            _ranks_within(found.values, where)
        if found.values.get("moe-a2a-backend", "none") != "none":  # it makes --ep-size that of tp
            found.values["enable-expert-parallel"] = True
        pages = found.values.get("block-size")
        if isinstance(pages, int) and pages % KERNEL_BLOCK:  # no block of vLLM's: its default, and a note
            found.values["page-size"] = found.values.pop("block-size")
    return found


_SWITCHES = {"yes": True, "on": True, "no": False, "off": False}  # vLLM reads YAML 1.1


def config_options(data: Mapping[str, Any], where: str) -> Options:
    """The content of a file for `vllm serve --config`. Raises SpecError."""
    words: list[str] = []
    for key, value in data.items():
        value = _SWITCHES.get(value.lower(), value) if isinstance(value, str) else value
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        elif value is not None:
            words.append(f"--{key}={json.dumps(value) if isinstance(value, dict | list) else value}")
    return options(words, where)


def _ranks_within(values: dict[str, Any], where: str) -> None:
    """SGLang's attention in data parallel: its ranks share the GPUs of --tp-size; vLLM's have that many each."""
    size, ranks = (int(values.get(name, 1)) for name in ("tensor-parallel-size", "data-parallel-size"))
    if size % ranks:
        raise SpecError(
            "{where}: --dp-size {ranks} does not divide --tp-size {size}; allowed with dp attention: a divisor",
            where,
            ranks,
            size,
        )
    values["tensor-parallel-size"] = size // ranks
    for limit in ("max-num-batched-tokens", "max-num-seqs"):  # of all ranks there, of one in vLLM
        if isinstance(values.get(limit), int):
            values[limit] = max(1, values[limit] // ranks)


def _option(word: str) -> bool:
    return re.match(r"--[A-Za-z]|-[A-Za-z]", word) is not None


def _name(name: str, engine: str) -> str:
    plain = name.replace("_", "-")
    name = DIALECTS.get(engine, {}).get(plain) or SHORT.get(plain, plain)
    return abbreviated(name) if engine == "vllm" else name


def _dotted(values: dict[str, Any], name: str, inner: str, given: Any, where: str) -> None:
    """`--kv-transfer-config.kv_role kv_both`: a key of the option's JSON."""
    section = as_json(values.get(name) or {}, f"{where}: --{name}")
    here = section
    *path, last = inner.rstrip("+").replace("-", "_").split(".") if name != "hf-overrides" else inner.split(".")
    for key in path:
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            raise SpecError("{where}: --{key}.{inner}: {value} is no section; allowed: one", where, name, inner, key)
    here[last] = [*here.get(last, []), given] if inner.endswith("+") else given
    values[name] = section


def as_json(value: Any, where: str) -> dict[str, Any]:
    """An option's JSON object. Raises SpecError."""
    if isinstance(value, str):
        if "$" in value:
            raise SpecError("{where}: holds a variable that is set nowhere; allowed: a JSON object", where)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            fault = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise SpecError("{where}: not JSON ({error}); allowed: a JSON object", where, fault) from None
    if not isinstance(value, dict):
        raise SpecError("{where}: {value!r} is no section; allowed: a JSON object", where, value)
    return dict(value)


def _scalar(text: str, where: str) -> Any:
    """Numbers as numbers; JSON as it stands; 16k is 16,000 and 16K is 16,384 as in vLLM."""
    if re.fullmatch(r"\d+(\.\d+)?[kKmMgG]", text):
        base = 1000 if text[-1].islower() else 1024
        return int(float(text[:-1]) * base ** ("kmg".index(text[-1].lower()) + 1))
    if not re.fullmatch(r"[\w.+-]*", text):
        return text  # JSON, addresses, lists: whoever needs them reads them
    return read_value(text, where)


def engine(values: Mapping[str, Any], key: str) -> tuple[dict[str, Any], list[Note]]:
    """Planner's engine keys for vLLM's options; the others become notes under `key`."""
    found: dict[str, Any] = {}
    notes: list[Note] = []
    for name, value in values.items():
        field_name = name.replace("-", "_")
        place = f"{key}.{name}" if key else f"--{name}"
        if name in STRUCTURE:
            continue
        if field_name not in Engine.model_fields or field_name in ("scheduler", "max_position_embeddings"):
            if value is False:
                continue
            text = slows(name)
            shown = value if isinstance(value, str | int | float) else "set"
            kind: Any = "no counterpart" if text is None else "loss"
            notes.append(Note(kind, place, f"{shown} ({text or 'says nothing about speed'})"))
            continue
        if name == "dtype":
            value = DTYPES.get(str(value), value)
        if value == "auto" and name != "dtype":
            continue
        if isinstance(value, str) and value.startswith("$"):
            raise SpecError("{place}: {value} is set nowhere in the file; allowed: a value", place, value)
        if name == "max-model-len" and value == -1:
            continue  # as much as fits
        found[field_name] = value
    if str(values.get("load-format", "auto")) == "dummy":
        found["load_format"] = "dummy"
    for part in (_kv_type(values, key), _quantization(values, key)):
        found |= part[0]
        notes += part[1]
    return found, notes


def _kv_type(values: Mapping[str, Any], key: str) -> tuple[dict[str, Any], list[Note]]:
    given = values.get("kv-cache-dtype")
    place = f"{key}.kv-cache-dtype" if key else "--kv-cache-dtype"
    if given in (None, "auto"):
        return {}, []
    kind = KV_TYPES.get(str(given), str(given))
    if kind in ("fp8", "bf16", "fp16"):
        return {"kv_cache_dtype": kind}, []
    return {}, [Note("loss", place, f"{given} is not modelled; modelled are fp8, bf16, fp16", grave=True)]


def _quantization(values: Mapping[str, Any], key: str) -> tuple[dict[str, Any], list[Note]]:
    """`--quantization`: methods whose bits it names; those that only the checkpoint knows are left to it."""
    given = values.get("quantization")
    place = f"{key}.quantization" if key else "--quantization"
    if given is None:
        return {}, []
    if str(given) not in QUANTISED:
        return {}, [Note("loss", place, f"{given} is not modelled", grave=True)]
    bits = QUANTISED[str(given)]
    if bits is None:
        return {}, [Note("warning", place, f"{given}: what the weights are stored in is the checkpoint's to say")]
    notes = [] if bits == given else [Note("assumed", place, f"{given} is taken as {bits} weights")]
    return {"quantization": bits}, notes


# --- which command is a server ----------------------------------------------------------------------

_COMMAND = re.compile(
    r"\bvllm[ \t\\\n]+serve\b|\bvllm\.entrypoints\.\S*api_server\b|\bdynamo\.(?:vllm|sglang|trtllm|mocker)\b"
    r"|\bsglang(?:(?:_router)?\.launch_server|[ \t]+serve)\b|\btrtllm-serve\b|\bvllm/vllm-\S+"
    r"|\b(?:docker|podman|nerdctl)\s+run\b.*?/(?:[\w.]+[-_])?vllm\b",
    re.S,
)
_NO_SERVER = {
    "echo", "printf", "pkill", "pgrep", "kill", "grep", "ps", "man", "pip", "pip3", "which", "kubectl", "helm", "cat",
    "curl", "git", "apt", "apt-get", "cd", "until", "python-proxy",
}  # fmt: skip
_MODULES = {
    "dynamo.vllm": "dynamo", "dynamo.mocker": "dynamo", "dynamo.sglang": "sglang", "dynamo.trtllm": "trtllm",
    "sglang.launch_server": "sglang", "sglang_router.launch_server": "sglang",
}  # fmt: skip
_RUNNERS = {"docker", "podman", "nerdctl"}
_IMAGE = re.compile(r"(?:[\w.:-]+/)*(?:[\w.]+[-_])*vllm(?:[-_][\w.-]+)?(?:[:@]\S+)?")
_LONE = {
    "--rm",
    "-d",
    "-i",
    "-t",
    "-it",
    "-ti",
    "-itd",
    "-dit",
    "--detach",
    "--init",
    "--privileged",
    "-P",
    "--interactive",
    "--tty",
}


def is_command(text: str) -> bool:
    return _COMMAND.search(text) is not None


def server_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """(engine, the words after its launcher) when a command starts one; None for any other command."""
    if not words or words[0].rsplit("/", 1)[-1] in _NO_SERVER:
        return None
    for index, word in enumerate(words):
        after = list(words[index + 1 :])
        base = word.rsplit("/", 1)[-1]
        if base in ("vllm", "sglang") and after[:1] == ["serve"]:
            return base, after[1:]
        if word in _MODULES:
            return _MODULES[word], after
        if re.fullmatch(r"vllm\.entrypoints\.\S*api_server", word) or word.endswith("/api_server.py"):
            return "vllm", after
        if base == "trtllm-serve" and after[:1] == ["disaggregated"]:
            return None  # its servers are in the file that it reads
        if base == "trtllm-serve":
            return "trtllm", after[1:] if after[:1] == ["serve"] else after
        if base in ("huggingfaceserver",):
            return "kserve", after
    plain = list(words[1:] if words[0] == "sudo" else words)
    if plain and plain[0].rsplit("/", 1)[-1] in _RUNNERS and "run" in plain[1:3]:
        for index, word in enumerate(plain[2:], 2):
            before = plain[index - 1]
            if _IMAGE.fullmatch(word) and (not before.startswith("-") or before in _LONE or "=" in before):
                return "vllm", plain[index + 1 :]
    return None


@dataclass(frozen=True, slots=True)
class Started:
    """A server that a script starts. `hints`: texts near it, the nearest first; `doubts`: conditions it depends on."""

    engine: str
    options: Options
    environment: Mapping[str, str]
    hints: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    machine: str = ""


def whole(value: Any, default: int) -> int:
    """An option's number, or `default` where it is something else (an address, a variable)."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def started(
    text: str, where: str, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> tuple[list[Started], list[shell.Command]]:
    """The servers of a script, and its other commands. Raises SpecError."""
    servers, others = [], []
    branches: dict[str, str] = {}
    for command in shell.commands(text, where, environment, arguments):
        found = server_of(command.words)
        if found is None:
            inner = next((word for word in command.words if " " in word and is_command(word)), None)
            if inner is not None and command.words[0] not in _NO_SERVER and server_of(inner.split()):
                more, rest = started(inner, where, command.environment)
                servers += [
                    Started(
                        one.engine,
                        one.options,
                        one.environment,
                        (*one.hints, *command.hints),
                        (*one.doubts, *command.doubts),
                        one.machine or command.machine,
                    )
                    for one in more
                ]
                others += rest
                continue
            others.append(command)
            continue
        name, words = found
        if command.unbounded is not None:
            raise SpecError(
                "{where}: {command}: how many servers it starts is not known; allowed: the values",
                where,
                command.unbounded,
            )
        if command.branch is not None:
            what, _, body = command.branch.rpartition(" ")
            if branches.setdefault(what, body) != body:
                raise SpecError(
                    "{where}: servers in several branches of `{split}`: which one runs is not known; allowed: the "
                    "commands that run",
                    where,
                    what.split()[0],
                )
        if any(word in ("--help", "-h", "--version") or word.startswith("--help=") for word in words):
            continue
        made = options(words, where, name)
        servers.append(Started(name, made, command.environment, command.hints, command.doubts, command.machine))
    return servers, others


def placeholder(model: str) -> bool:
    """Whether a model's name is one of documentation's `<MODEL>`, or a variable that nobody set."""
    return model.startswith("$") or PLACEHOLDER.fullmatch(model) is not None
