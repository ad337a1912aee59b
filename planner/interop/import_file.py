"""Any foreign deployment file as planner's YAML: finds out what it is, converts it, and says what was lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner.interop import (
    import_charts,
    import_dynamo,
    import_dynamo_v03,
    import_kubernetes,
    import_other,
    import_script,
    remainder,
)
from planner.interop.import_reading import Choices, Imported, Note
from planner.interop.import_vllm import is_command
from planner.interop.wrapped import unwrapped
from planner.spec import Aggregated, PoolSpec, Spec, SpecError, dump, parse
from planner.spec.strict_yaml import read_mapping, read_text, written

ALLOWED = (
    "`vllm serve`, SGLang and TensorRT-LLM command lines and scripts, vLLM config files, Docker Compose, Kubernetes "
    "Deployments, StatefulSets, LeaderWorkerSets and DisaggregatedSets, KServe LLMInferenceServices, "
    "DynamoGraphDeployments and requests for one, Dynamo v0.3 graph configs, values of llm-d and production-stack, "
    "Ray Serve LLM configs, SkyPilot tasks; a systemd unit, supervisor file, Dockerfile or Markdown page with one such "
    "command"
)
# Forms of one YAML document, in the order in which they are tried.
FORMS: tuple[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any], str, str, Choices], Imported]], ...] = (
    (import_dynamo.is_graph, import_dynamo.read_graph),
    (import_dynamo.is_request, import_dynamo.read_request),
    (import_dynamo_v03.is_v03, import_dynamo_v03.read),
    (import_charts.is_llmd, import_charts.read_llmd),
    (import_charts.is_production_stack, import_charts.read_production_stack),
    (import_other.is_ray, import_other.read_ray),
    (import_other.is_compose, import_other.read_compose),
    (import_other.is_skypilot, import_other.read_skypilot),
    (import_other.is_trtllm_pair, import_other.read_trtllm_pair),
    (import_other.is_vllm_config, import_other.read_vllm_config),
)


# Engines that people bring too, and nothing here reads.
OTHERS = {
    r"text-generation-(?:inference|launcher)": "Text Generation Inference", r"\blmdeploy\b": "LMDeploy",
    r"\bllama-server\b|llama\.cpp|\bllama_cpp\b": "llama.cpp", r"\bollama\b": "Ollama", r"\bmlc_llm\b": "MLC LLM",
    r"\btritonserver\b": "Triton", r"nvcr\.io/nim/": "NIM", r"\bdeepspeed\b|\bmii\b": "DeepSpeed",
    r"\bvllm\s+bench\b": "a load generator without a server", r"^from vllm import|\bLLM\(": "vLLM's offline interface",
    r"^(?:import|from) [\w.]+(?: import .*)?$": "a Python program",
}  # fmt: skip
NO_CHOICES = Choices()


@dataclass(frozen=True, slots=True)
class Conversion:
    """A foreign file as a spec. `notes` say what has no counterpart, what was assumed and what to beware of."""

    source: str
    dialect: str
    spec: Spec
    notes: tuple[Note, ...]

    @property
    def yaml(self) -> str:
        """The spec as a file, the notes as its comments."""
        head = [f"# {self.dialect}, imported from {self.source}", f"# understood: {self.understood}"]
        lines = [*head, *(f"# {note}" for note in self.notes)]
        return "\n".join(lines) + "\n" + dump(self.spec)

    @property
    def understood(self) -> str:
        """The deployment in one line: `1 prefill worker of 2 GPUs, 1 decode worker of 4 GPUs, model qwen3-32b`."""
        deployment = self.spec.deployment
        pools: list[tuple[str, Aggregated | PoolSpec]]
        if isinstance(deployment, Aggregated):
            pools = [("aggregated", deployment)]
        else:
            pools = [("prefill", deployment.prefill), ("decode", deployment.decode)]

        def counted(number: int, word: str) -> str:
            return f"{number} {word}{'s' if number > 1 else ''}"

        texts = [
            f"{counted(pool.replicas, f'{role} worker')} of {counted(pool.tp * pool.dp, 'GPU')}" for role, pool in pools
        ]
        return f"{', '.join(texts)}, model {self.spec.model}"

    @property
    def losses(self) -> tuple[Note, ...]:
        """What a strict user does not accept: losses, and mistakes of the deployment itself."""
        return tuple(note for note in self.notes if note.kind in ("loss", "mistake"))


def _documents(text: str, where: str) -> list[dict[str, Any]]:
    """The YAML documents of a file; empty ones are left out."""
    parts = [part for part in re.split(r"(?m)^---[^\n]*$", text) if re.sub(r"(?m)#.*$", "", part).strip()]
    found = [read_mapping(part, where) for part in parts] or [read_mapping(text, where)]
    lists = [one for one in found if one.get("kind") == "List" and isinstance(one.get("items"), list)]
    return [one for one in found if one not in lists] + [
        item for one in lists for item in one["items"] if isinstance(item, dict)
    ]


_APPLIED = re.compile(r"(?ms)<<-?\s*['\"]?(\w+)['\"]?[^\n]*\n(.*?)^\s*\1\s*$")


def convert(text: str, where: str, name: str, choices: Choices = NO_CHOICES) -> Imported:
    """Foreign text as the data of planner's YAML. Raises SpecError."""
    text = unwrapped(text, where)
    plain = (line.strip() for line in text.splitlines())
    first = next((line for line in plain if line and not line.startswith("#")), "")
    yaml_like = re.match(r"---|[\"'\w./-]+\s*:(\s|$)|[{\[-]", first) is not None
    script = is_command(_APPLIED.sub("", text))
    inner = [body for _, body in _APPLIED.findall(text) if re.search(r"(?m)^kind:", body)]
    if inner and not script:  # cat <<EOF | kubectl apply -f -
        return convert("\n---\n".join(inner), where, name, choices)
    if is_command(text) and (text.lstrip().startswith("#!") or not yaml_like):
        return import_script.read(text, where, name, choices)
    try:
        documents = _documents(text, where)
    except SpecError:
        if is_command(text) and not re.search(r"(?m)^(apiVersion|kind|services):", text):
            return import_script.read(text, where, name, choices)
        if re.search(r"\{\{-?\s*[.$\w]", text):
            raise SpecError(
                "{where}: a template with {{{{ }}}}; allowed: what `helm template` makes of it", where
            ) from None
        if not yaml_like:
            raise _unknown(text, where) from None
        raise
    for data in documents:
        for fits, read in FORMS:
            if fits(data):
                return read(data, where, name, choices)
    if import_kubernetes.reads(documents):
        return import_kubernetes.read(documents, where, name, choices)
    if any("deployment" in data for data in documents):
        raise SpecError("{where}: is planner's own YAML already; allowed: {allowed}", where, ALLOWED)
    raise _unknown(text, where)


# Where files name the kind of GPU that they want: node labels, Ray, SkyPilot, production-stack, Slurm.
_ACCELERATOR = (
    r"(?:gpu\.product|gke-accelerator|instance-gpu-name|gpu-name|accelerator_type|requestGPUType|^\s*accelerators"
    r"|#SBATCH.*--(?:gpus(?:-per-\w+)?|gres=gpu))[\"']?\s*[:=]\s*[\[{]*[\"']?((?!null|nvidia\.com|nvidia\b[^-])[A-Za-z][\w.-]*)"
)


def _unknown(text: str, where: str) -> SpecError:
    other = next((name for pattern, name in OTHERS.items() if re.search(pattern, text, re.M)), None)
    if not text.strip():
        return SpecError("{where}: is empty; allowed: {allowed}", where, ALLOWED)
    if other is None:
        return SpecError("{where}: is none of the known forms; allowed: {allowed}", where, ALLOWED)
    return SpecError("{where}: is {engine}, which is not read; allowed: {allowed}", where, other, ALLOWED)


def import_text(
    text: str, where: str, name: str, overrides: Sequence[str] = (), choices: Choices = NO_CHOICES
) -> Conversion:
    """Foreign text as a spec, with `a.b=value` overrides applied. Raises SpecError, also for a grave loss."""
    given = next((text.partition("=")[2] for text in overrides if text.startswith("model=")), None)
    found = convert(text, where, name, choices if given is None else replace(choices, model=given))
    grave = next((note for note in found.notes if note.grave), None)
    if grave is not None and not choices.accept:
        raise SpecError(
            "{where}: {key}: {text}; allowed: without it, or --accept-loss to leave it out",
            where,
            grave.key,
            grave.text,
        )
    data: dict[str, Any] = found.data
    if remainder.MARK in text:
        data = remainder.restored(read_mapping(dump(parse(written(data), where)), where), text, where)
    spec = parse(written(data), where, overrides)
    notes = list(found.notes)
    set_keys = {text.partition("=")[0] for text in overrides}
    for key, value in (("hardware", spec.hardware), ("workload", spec.workload.kind)):
        if key not in data and not any(name == key or name.startswith(f"{key}.") for name in set_keys):
            other = re.search(_ACCELERATOR, text, re.M) if key == "hardware" else None
            if other is not None:
                named = (
                    f"{other.group(1)}: is not in the catalogue, {value} is taken; --set hardware=... chooses another"
                )
                notes.append(Note("warning", key, named))
                continue
            notes.append(Note("assumed", key, f"{value}: the file does not say; --set {key}=... chooses another"))
    return Conversion(where, found.dialect, spec, tuple(notes))


def import_file(path: Path, overrides: Sequence[str] = (), choices: Choices = NO_CHOICES) -> Conversion:
    """A foreign file as a spec. Raises SpecError."""
    choices = replace(choices, folder=path.parent)
    return import_text(read_text(path, "a deployment file"), str(path), path.stem, overrides, choices)


def import_together(paths: Sequence[Path], overrides: Sequence[str] = (), choices: Choices = NO_CHOICES) -> Conversion:
    """Files that are parts of one deployment (a prefill and a decode one), as one. Raises SpecError."""
    texts = [read_text(path, "a deployment file") for path in paths]
    choices = replace(choices, folder=paths[0].parent)
    joint = "\n---\n" if paths[0].suffix in (".yaml", ".yml", ".json") else "\n"
    return import_text(joint.join(texts), " + ".join(map(str, paths)), paths[0].stem, overrides, choices)
