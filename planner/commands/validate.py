"""`planner validate`: recorded live runs predicted again, and how far the predictions are off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from planner.commands import Json, console, print_json

RECORDED = Path("benchmarks") / "recorded"


def validate(
    records: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Argument(metavar="[RECORD]...", help="Measured run folders, or records. Default: benchmarks/recorded/*."),
    ] = None,
    docs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--docs", metavar="FILE", help="Write the tables between the marks of this Markdown file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict recorded live runs and print the errors."""
    from planner.report import printing
    from planner.spec import SpecError
    from planner.validation.recorded import judge, read_record
    from planner.validation.report import document, missed, write

    folders = records or sorted(path for path in RECORDED.glob("*") if path.is_dir())
    if not folders:
        raise SpecError("{folder}: holds no records; allowed: folders of measured runs", RECORDED)
    found = [(record, judge(record)) for record in map(read_record, folders)]
    judged = [one for _, verdicts in found for one in verdicts]
    text = document(found)
    if docs is not None:
        write(docs, text)
    if as_json:
        rows = [
            {"record": record.name, "load": one.load, "profile": one.profile, **one.comparison.to_dict()}
            for record, verdicts in found
            for one in verdicts
        ]
        print_json({"comparisons": rows, "docs": None if docs is None else str(docs)})
        return
    screen = console()
    printing.say(screen, f"{len(judged) - len(missed(judged))} of {len(judged)} comparisons meet every aim.")
    for record, verdicts in found:
        for one in verdicts:
            printing.say(screen, f"{record.name}, {one.load}, profile {one.profile}: {one.comparison.sentence()}")
    doubts = dict.fromkeys(
        f"{record.name}: {text}" for record, them in found for one in them for text in one.comparison.warnings
    )
    for warning in doubts:
        printing.say(screen, f"Warning: {warning}")
    printing.say(screen, f"Written: {docs}" if docs is not None else "Tables: with --docs docs/validation.md")


def register(app: typer.Typer) -> None:
    app.command()(validate)
