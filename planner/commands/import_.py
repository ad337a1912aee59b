"""`planner import`: another stack's deployment file as planner's YAML."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from planner.commands import Json, Set, print_json

if TYPE_CHECKING:
    from planner.interop.import_file import Conversion
    from planner.interop.import_reading import Role


def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE [FILE]", help="One file, or an aggregated and a disaggregated one.")
    ],
    assignments: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option(
            "--out", metavar="DIR", help="Write NAME.yaml files here instead of printing them; or one FILE.yaml."
        ),
    ] = None,
    roles: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--roles", metavar="ROLE,ROLE", help="What each server of the file does, in their order."),
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Leave out what changes GPUs, roles, precision or parallelism.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="The files are parts of one deployment: its prefill and decode halves.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only list what would be lost and what is wrong; exit 2 when anything is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn a deployment file of another stack into a planner YAML.

    Reads scripts of vLLM, SGLang and TensorRT-LLM, Compose, Kubernetes, KServe, Dynamo, llm-d, production-stack and
    Ray Serve. With two files the differences besides the split are listed and a fair pair is written too.
    """
    from planner.interop.import_file import import_file, import_together
    from planner.interop.import_pair import asymmetries, fair_pair, order
    from planner.interop.import_reading import Choices
    from planner.spec import SpecError, dump

    choices = Choices(_roles(roles), accept=accept_loss or check)
    if together:
        found = [import_together(files, assignments or (), choices)]
    elif len(files) > 2:
        raise SpecError(
            "{count} files; allowed: one, or an aggregated and a disaggregated one, or --together", len(files)
        )
    else:
        found = [import_file(path, assignments or (), choices) for path in files]
    if check:
        _check(found, as_json)
        return
    remarks: list[str] = []
    documents = {conversion.spec.name: conversion.yaml for conversion in found}
    if len(found) == 2:
        pair = order(found[0].spec, found[1].spec)
        if len(documents) == 1:
            raise SpecError(
                "both files are named {name!r}; allowed: two names, one for each deployment", found[0].spec.name
            )
        remarks = [str(item) for item in asymmetries(*pair)]
        for spec in fair_pair(*pair):
            documents[spec.name] = f"# The fair counterpart: equal GPUs, the same engine on every worker\n{dump(spec)}"
    if as_json:
        print_json(_data(found, remarks, documents))
    elif out is None:
        _print(remarks, documents)
    else:
        _write(found, remarks, documents, out)


def _roles(text: str | None) -> tuple[Role, ...]:
    from planner.spec import SpecError

    allowed: dict[str, Role] = {"prefill": "prefill", "decode": "decode", "aggregated": "aggregated"}
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in words:
        if word not in allowed:
            raise SpecError(
                "--roles {text}: {word!r} is unknown; allowed: {allowed}, with commas", text, word, ", ".join(allowed)
            )
    return tuple(allowed[word] for word in words)


def _check(found: list[Conversion], as_json: bool) -> None:
    """What would be lost, and mistakes of the deployment. Raises typer.Exit with status 2 when there is any."""
    if as_json:
        losses = {one.source: [asdict(note) for note in one.losses] for one in found}
        print_json({"dialects": {one.source: one.dialect for one in found}, "losses": losses})
    else:
        for one in found:
            print(f"{one.source} ({one.dialect}): {one.understood}")
            for note in one.losses:
                print(f"  {note}")
            if not one.losses:
                print("  nothing is lost")
    if any(one.losses for one in found):
        raise typer.Exit(2)


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
    """NAME.yaml in a folder, or the one file that `out` names. Raises SpecError where several would be one file."""
    from planner.spec import SpecError

    named = out.suffix in (".yaml", ".yml") and not out.is_dir()
    if named and len(documents) > 1:
        raise SpecError("--out {path}: {count} deployments are written; allowed: a folder", out, len(documents))
    (out.parent if named else out).mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        path = out if named else out / f"{name}.yaml"
        path.write_text(text)
        print(path)
    for conversion in found:
        print(f"{conversion.source} ({conversion.dialect}):")
        for note in conversion.notes:
            print(f"  {note}")
    for remark in remarks:
        print(f"not the same on both sides: {remark}")


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
