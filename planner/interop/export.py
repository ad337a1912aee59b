"""A deployment as the files of another stack, and the load to go with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from planner.interop import compose, dynamo, kserve, llmd, load_commands, lws, remainder, vllm_script
from planner.interop.import_file import import_text
from planner.interop.workers import VLLM, hub_id
from planner.spec import Spec, SpecError, dump
from planner.system.resolve import System, resolve
from planner.traffic import workload
from planner.traffic.traces import write_mooncake


class _Plain(yaml.SafeDumper):
    """No anchors, and texts of several lines as they are: files that people read and edit."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Plain, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def _dump(note: str, *data: dict[str, Any]) -> str:
    return f"# {note}\n" + yaml.dump_all(data, Dumper=_Plain, sort_keys=False, width=110)


def _proxy() -> str:
    return (Path(__file__).parent / "proxy.txt").read_text()


def _vllm(system: System, out: Path) -> dict[str, str]:
    made = _made_model(system, out)
    return {
        "launch.sh": vllm_script.script(system, made),
        "proxy.py": _proxy(),
        "load.sh": load_commands.script(system, made),
    }


def _compose(system: System, out: Path) -> dict[str, str]:
    note = f"{system.spec.name}: docker compose up; vLLM {VLLM}; the service is on 127.0.0.1:8000"
    return {"compose.yaml": _dump(note, compose.compose(system)), "proxy.py": _proxy()}


def _dynamo(system: System, out: Path) -> dict[str, str]:
    note = f"{system.spec.name}: kubectl apply -f dynamo.yaml; {dynamo.API}, checked against Dynamo 1.6"
    if system.pools[0].router.policy == "session_affinity":
        note += "; clients name their session in the header X-Dynamo-Session-ID"
    return {"dynamo.yaml": _dump(note, dynamo.graph(system))}


def _llmd(system: System, out: Path) -> dict[str, str]:
    note = f"{system.spec.name}: values for {llmd.CHART}"
    return {"llm-d-values.yaml": _dump(note, llmd.values(system))}


def _kserve(system: System, out: Path) -> dict[str, str]:
    note = f"{system.spec.name}: kubectl apply -f kserve.yaml; {kserve.API}; options are those of vLLM {VLLM}"
    return {"kserve.yaml": _dump(note, kserve.service(system))}


def _lws(system: System, out: Path) -> dict[str, str]:
    note = f"{system.spec.name}: kubectl apply -f lws.yaml; {lws.API}; options are those of vLLM {VLLM}"
    return {"lws.yaml": _dump(note, *lws.objects(system, _proxy()))}


TARGETS: dict[str, Callable[[System, Path], dict[str, str]]] = {
    "vllm": _vllm,
    "compose": _compose,
    "dynamo": _dynamo,
    "llm-d": _llmd,
    "kserve": _kserve,
    "lws": _lws,
}


def _made_model(system: System, out: Path) -> str | None:
    """The name of a folder with config and tokenizer, written for a model without published weights."""
    if hub_id(system.spec.model) is not None:
        return None
    from live.models import served_model
    from planner.engine.model_config import model_config

    out.mkdir(parents=True, exist_ok=True)
    made = served_model(system.spec.model, model_config(system.spec.model).config, "dummy", root=out)
    return Path(made.path).name


def _with_rest(text: str, name: str, spec: Spec) -> str:
    """The file with what it cannot say in a comment: it is imported, and compared with the spec."""
    said = import_text(text, "export", name).spec
    comment = remainder.line(remainder.entries(yaml.safe_load(dump(spec)), yaml.safe_load(dump(said))))
    lines = text.splitlines(keepends=True)
    head = next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join((*lines[: max(head, 1)], comment, *lines[max(head, 1) :]))  # below what is for people


def export(spec: Spec, target: str, out: Path) -> list[Path]:
    """Write the files for `target` and the load commands to `out`; returns their paths. Raises SpecError."""
    if target not in TARGETS:
        raise SpecError("--to {target}: is unknown; allowed: {targets}", target, ", ".join(TARGETS))
    system = resolve(spec)
    files = TARGETS[target](system, out)
    main = next(iter(files))
    files[main] = _with_rest(files[main], Path(main).stem, spec)
    files.setdefault("load.sh", load_commands.script(system))
    files[load_commands.SPEC] = dump(spec)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in files.items():
        path = out / name
        path.write_text(text)
        if name.endswith(".sh"):
            path.chmod(0o755)
        written.append(path)
    if load_commands.replayable(spec):
        write_mooncake(workload.build(spec), out / load_commands.TRACE, load_commands.BLOCK_TOKENS)
        written.append(out / load_commands.TRACE)
    return written
