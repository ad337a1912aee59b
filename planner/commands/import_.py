"""`planner import`: another stack's deployment file as planner's YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from planner.commands import Json, Set, print_json

if TYPE_CHECKING:
    from planner.interop.import_file import Conversion


def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE [FILE]", help="One file, or an aggregated and a disaggregated one.")
    ],
    assignments: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--out", metavar="DIR", help="Write NAME.yaml files here instead of printing them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn a deployment file of another stack into a planner YAML.

    Reads Dynamo v0.3 configs, DynamoGraphDeployment, llm-d values and `vllm serve` lines. With two files the
    differences besides the split are listed and a fair pair is written too.
    """
    from planner.interop.import_file import import_file
    from planner.interop.import_pair import asymmetries, fair_pair, order
    from planner.spec import SpecError, dump

    if len(files) > 2:
        raise SpecError(f"{len(files)} files; allowed: one, or an aggregated and a disaggregated one")
    found = [import_file(path, assignments or ()) for path in files]
    remarks: list[str] = []
    documents = {conversion.spec.name: conversion.yaml for conversion in found}
    if len(found) == 2:
        pair = order(found[0].spec, found[1].spec)
        if len(documents) == 1:
            raise SpecError(f"both files are named {found[0].spec.name!r}; allowed: two names, one for each deployment")
        remarks = [str(item) for item in asymmetries(*pair)]
        for spec in fair_pair(*pair):
            documents[spec.name] = f"# The fair counterpart: equal GPUs, the same engine on every worker\n{dump(spec)}"
    if as_json:
        print_json(_data(found, remarks, documents))
    elif out is None:
        _print(remarks, documents)
    else:
        _write(found, remarks, documents, out)


def _data(found: list[Conversion], remarks: list[str], documents: dict[str, str]) -> dict[str, Any]:
    notes = {
        conversion.source: [{"kind": note.kind, "key": note.key, "text": note.text} for note in conversion.notes]
        for conversion in found
    }
    return {
        "dialects": {conversion.source: conversion.dialect for conversion in found},
        "notes": notes,
        "asymmetries": remarks,
        "yaml": documents,
    }


def _print(remarks: list[str], documents: dict[str, str]) -> None:
    """One YAML document a deployment, everything that is to be known as comments, so that `> FILE` is usable."""
    for remark in remarks:
        print(f"# not the same on both sides: {remark}")
    print("---\n".join(documents.values()), end="")


def _write(found: list[Conversion], remarks: list[str], documents: dict[str, str], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        (out / f"{name}.yaml").write_text(text)
        print(f"{out / name}.yaml")
    for conversion in found:
        print(f"{conversion.source} ({conversion.dialect}):")
        for note in conversion.notes:
            print(f"  {note}")
    for remark in remarks:
        print(f"not the same on both sides: {remark}")


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
