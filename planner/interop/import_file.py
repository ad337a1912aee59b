"""Any foreign deployment file as planner's YAML: finds out what it is, converts it, and says what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.interop import import_dynamo_v03, import_kubernetes, import_vllm
from planner.interop.import_reading import Imported, Note
from planner.spec import Spec, SpecError, dump, parse
from planner.spec.strict_yaml import read_mapping, read_text

ALLOWED = "Dynamo v0.3 graph configs, DynamoGraphDeployment, llm-d model service values, and `vllm serve` command lines"


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
        lines = [f"# {self.dialect}, imported from {self.source}", *(f"# {note}" for note in self.notes)]
        return "\n".join(lines) + "\n" + dump(self.spec)


def convert(text: str, where: str, name: str) -> Imported:
    """Foreign text as the data of planner's YAML. Raises SpecError."""
    first = text.lstrip().split("\n", 1)[0]
    looks_like_yaml = ":" in first.split("#")[0] or first.startswith(("#", "---"))
    if import_vllm.is_command(text) and (first.startswith("#!") or not looks_like_yaml):
        return import_vllm.read_commands(text, where, name)
    try:
        data = read_mapping(text, where)
    except SpecError:
        if import_vllm.is_command(text):
            return import_vllm.read_commands(text, where, name)
        raise
    for fits, read in (
        (import_kubernetes.is_dynamo, import_kubernetes.read_dynamo),
        (import_dynamo_v03.is_v03, import_dynamo_v03.read),
        (import_kubernetes.is_llmd, import_kubernetes.read_llmd),
    ):
        if fits(data):
            return read(data, where, name)
    if "deployment" in data:
        raise SpecError(f"{where}: is planner's own YAML already; allowed: {ALLOWED}")
    raise SpecError(f"{where}: is none of the known forms; allowed: {ALLOWED}")


def import_text(text: str, where: str, name: str, overrides: Sequence[str] = ()) -> Conversion:
    """Foreign text as a spec, with `a.b=value` overrides applied. Raises SpecError."""
    import yaml

    found = convert(text, where, name)
    spec = parse(yaml.safe_dump(found.data, sort_keys=False), where, overrides)
    notes = list(found.notes)
    set_keys = {text.partition("=")[0] for text in overrides}
    for key, value in (("hardware", spec.hardware), ("workload", spec.workload.kind)):
        if key not in found.data and not any(name == key or name.startswith(f"{key}.") for name in set_keys):
            notes.append(Note("assumed", key, f"{value}: the file does not say; --set {key}=... chooses another"))
    return Conversion(where, found.dialect, spec, tuple(notes))


def import_file(path: Path, overrides: Sequence[str] = ()) -> Conversion:
    """A foreign file as a spec. Raises SpecError."""
    return import_text(read_text(path, "a deployment file"), str(path), path.stem, overrides)
