"""`planner compare`: two run folders side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.commands import Json, console, print_json

if TYPE_CHECKING:
    from planner.metrics import Summary


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: A.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another: B.")],
    as_json: Json = False,
) -> None:
    """Put two runs side by side."""
    from planner import report
    from planner.metrics import METRICS

    a, b = _summary(first), _summary(second)
    if as_json:
        rows = [{**asdict(row), "unit": METRICS[row.name].unit} for row in report.compare(a, b)]
        print_json({"answer": report.compared(a, b), "a": a.to_dict(), "b": b.to_dict(), "differences": rows})
        return
    screen = console()
    report.say(screen, report.compared(a, b))
    screen.print(report.compare_table(a, b))
    report.say(screen, f"A: {first}\nB: {second}")


def _summary(folder: Path) -> Summary:
    from planner.metrics import summarise
    from planner.records import Run
    from planner.spec import SpecError

    if not (folder / "manifest.json").is_file():
        raise SpecError(f"{folder}: not a run folder (it has no manifest.json); allowed: a folder that a run wrote")
    return summarise(Run.load(folder))


def register(app: typer.Typer) -> None:
    app.command()(compare)
