"""`planner compare` and `planner show`: runs that were written before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.commands import Json, TableOption, check_table, console, print_json, read_run, show

if TYPE_CHECKING:
    from planner.run.metrics import Summary
    from planner.run.tables import Run


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder: A.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another: B.")],
    as_json: Json = False,
) -> None:
    """Put two runs side by side."""
    from planner.report import printing
    from planner.run.metrics import METRICS, summarise

    runs = read_run(first), read_run(second)
    a, b = (summarise(run) for run in runs)
    warnings = doubted(runs, (a, b))
    if as_json:
        rows = [{**asdict(row), "unit": METRICS[row.name].unit} for row in printing.compare(a, b)]
        answer = {"answer": printing.compared(a, b), "a": a.to_dict(), "b": b.to_dict(), "differences": rows}
        print_json(answer | {"warnings": warnings})
        return
    screen = console()
    printing.say(screen, printing.compared(a, b))
    screen.print(printing.compare_table(a, b))
    for warning in warnings:
        printing.say(screen, f"Warning: {warning}")
    printing.say(screen, f"A: {first}\nB: {second}")


def show_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a CSV that multi-round-qa wrote.")],
    as_json: Json = False,
    table: TableOption = None,
) -> None:
    """Print the report of an earlier run."""
    check_table(table)
    if run.suffix == ".csv" and run.is_file():
        from planner.interop.dialects.multi_round_qa import summary_of_csv

        print(summary_of_csv(run))
        return
    show(read_run(run), str(run), as_json, table)


def doubted(runs: tuple[Run, Run], summaries: tuple[Summary, Summary]) -> list[str]:
    """What a reader must know of A, of B, and of one as a prediction of the other."""
    from planner.report import printing
    from planner.validation.parity import doubts

    found = [f"{name}: {text}" for name, one in zip("AB", summaries, strict=True) for text in printing.warnings(one)]
    said = {text.partition(": ")[2] for text in found}
    for predicted, measured in (runs, runs[::-1]):
        kinds = [run.manifest.get("provenance") for run in (predicted, measured)]
        if kinds[0] != "measured" and kinds[1] == "measured":
            found += [text for text in doubts(predicted, measured) if text not in said]
    return found


def register(app: typer.Typer) -> None:
    app.command()(compare)
    app.command("show")(show_run)
