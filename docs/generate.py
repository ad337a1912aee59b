"""Writes what documents repeat from the program: docs/metrics.md, yaml.md, law.md, suggest.schema.json, README.md.

With --check it changes nothing and says whether they are current; of an output only its first line, the answer, counts.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from planner.engine.law import TERMS, Term
from planner.run.metrics import METRICS, Metric
from planner.spec import Spec
from planner.spec.faults import allowed, kind_of, sections
from planner.suggestion.schema import schema

ROOT = Path(__file__).resolve().parent.parent
METRICS_PAGE = ROOT / "docs" / "metrics.md"
ANSWER_SCHEMA = ROOT / "docs" / "suggest.schema.json"
README = ROOT / "README.md"
HEAD = """# Metrics

Written by `python docs/generate.py` from the catalogue that the program itself uses; do not edit. The names are those
of `--json` and of the comparison tables; a metric that a run cannot show is null there. Words are explained in
[glossary.md](glossary.md).

| name | what it is | unit | better |
|---|---|---|---|
"""
YAML_PAGE = ROOT / "docs" / "yaml.md"
YAML_HEAD = """# Every key of the YAML

Written by `python docs/generate.py` from the types that read the file; do not edit. Only `name` and `deployment` must
be there. A key that is unknown, given twice, or holds what it cannot is refused in one line. Words are explained in
[glossary.md](glossary.md), knobs in [knobs.md](knobs.md); `planner schema` prints it as a JSON Schema for editors.
"""
LAW_PAGE = ROOT / "docs" / "law.md"
LAW_HEAD = """# The law of a step

Written by `python docs/generate.py` from the table in `planner/engine/law.py`; do not edit. The names are the keys of
`step` in a profile, in seconds, and those of a fit's errors.

    decode only    decode terms + context terms
    with prompts   max(floor term, line terms) + prompt terms
    launch         launch terms, which an engine that schedules ahead hides behind the step before

A shape is no time: features of terms need it.

| name | part | what | times | at another TP | from |
|---|---|---|---|---|---|
"""
COMMENT = re.compile(r"^    (\w+): .*  # (.+)$", flags=re.MULTILINE)
# <!-- output: planner simulate X --> and the block behind it
SHOWN = re.compile(r"(<!-- output: (planner [^\n]*) -->\n)(?:\n```text\n(.*?)```\n)?", flags=re.DOTALL)


def row(metric: Metric) -> str:
    better = "" if metric.better == "none" else metric.better
    return f"| `{metric.name}` | {metric.help.replace('|', chr(92) + '|')} | {metric.unit} | {better} |\n"


def answer_schema() -> str:
    """What `planner schema suggest` prints."""
    return json.dumps(schema(), indent=2) + "\n"


def metrics_page() -> str:
    return HEAD + "".join(row(metric) for metric in METRICS.values())


def law_page() -> str:
    def line(name: str, term: Term) -> str:
        times = "" if term.feature is None else term.feature.what
        return f"| `{name}` | {term.part} | {term.what} | {times} | {term.scaling} | {term.measured} |\n"

    return LAW_HEAD + "".join(line(name, term) for name, term in TERMS.items())


def comments(model: type[BaseModel]) -> dict[str, str]:
    """What stands behind the fields in the source of a type and of those that it extends."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind.__module__.startswith("planner."):
            found |= {name: text for name, text in COMMENT.findall(inspect.getsource(kind)) if "noqa" not in text}
    return found


def places(model: type[BaseModel], path: str, found: dict[type[BaseModel], list[str]]) -> None:
    """Where each type of section may stand, from the top."""
    for name, field in model.model_fields.items():
        key = f"{path}.{field.alias or name}".lstrip(".")
        for inner in sections(field.annotation):
            if key not in found.setdefault(inner, []):
                found[inner].append(key)
                places(inner, key, found)


def takes(field: FieldInfo) -> str:
    text = field.description or allowed(field.annotation, field.metadata)
    text = re.sub(r"a section with (keys|kind|mode) .*", r"a section with `\1`", text).replace("with `keys`", "of keys")
    text = text.replace("a list of a section of keys", "a list of sections")
    return text.replace("|", chr(92) + "|")


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    words = {True: "true", False: "false"}
    return "" if value is None or value == () else f"`{words[value] if isinstance(value, bool) else value}`"


def section(model: type[BaseModel], title: str) -> str:
    said = comments(model)
    about = " ".join((vars(model).get("__doc__") or "").split())  # its own, not an inherited one
    lines = ["", f"## {title}", "", *([about, ""] if about else []), "| key | takes | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = said.get(name, "").replace("|", chr(92) + "|")
        lines.append(f"| `{field.alias or name}` | {takes(field)} | {default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def yaml_page() -> str:
    found: dict[type[BaseModel], list[str]] = {}
    places(Spec, "", found)
    text = YAML_HEAD + section(Spec, "The file")
    for model, where in found.items():
        kind = kind_of(model)
        title = ", ".join(f"`{key}`" for key in where) + ("" if kind is None else f" with `{kind[0]}: {kind[1]}`")
        text += section(model, title)
    return text


def printed(command: str) -> str:
    """What a planner command prints on a terminal of 100 columns, without the line that names the run folder."""
    arguments = command.split()[1:]
    with tempfile.TemporaryDirectory() as folder:
        code = "import sys; from planner.cli import main; main(sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--out", f"{folder}/run"],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    lines = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("Run: ")]
    return "\n".join(lines).strip() + "\n"


def stale() -> list[str]:
    """What --check finds."""
    found = []
    if not METRICS_PAGE.is_file() or METRICS_PAGE.read_text() != metrics_page():
        found.append("docs/metrics.md is not what the catalogue says")
    if not ANSWER_SCHEMA.is_file() or ANSWER_SCHEMA.read_text() != answer_schema():
        found.append("docs/suggest.schema.json is not what the types say")
    if not YAML_PAGE.is_file() or YAML_PAGE.read_text() != yaml_page():
        found.append("docs/yaml.md is not what the types say")
    if not LAW_PAGE.is_file() or LAW_PAGE.read_text() != law_page():
        found.append("docs/law.md is not what the table says")
    for _, command, output in SHOWN.findall(README.read_text()):
        if output != printed(command):
            found.append(f"README.md shows something else than `{command}` prints")
    return found


def write() -> None:
    METRICS_PAGE.write_text(metrics_page())
    ANSWER_SCHEMA.write_text(answer_schema())
    YAML_PAGE.write_text(yaml_page())
    LAW_PAGE.write_text(law_page())
    README.write_text(SHOWN.sub(lambda match: f"{match[1]}\n```text\n{printed(match[2])}```\n", README.read_text()))


if __name__ == "__main__":
    if "--check" not in sys.argv:
        write()
    elif faults := stale():
        sys.exit("\n".join([*faults, "run: python docs/generate.py"]))
