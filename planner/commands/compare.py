"""`planner compare` and `planner show`: runs that were written before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.commands import Json, TableOption, check_table, console, print_json, read_run, show

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


def show_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a CSV that multi-round-qa wrote.")],
    as_json: Json = False,
    table: TableOption = None,
) -> None:
    """Print the report of an earlier run."""
    check_table(table)
    if run.suffix == ".csv" and run.is_file():
        from planner.dialects.multi_round_qa import summary_of_csv

        print(summary_of_csv(run))
        return
    show(read_run(run), str(run), as_json, table)


def _summary(folder: Path) -> Summary:
    from planner.metrics import summarise

    return summarise(read_run(folder))


def register(app: typer.Typer) -> None:
    app.command()(compare)
    app.command("show")(show_run)
