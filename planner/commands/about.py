"""`planner schema` and `planner metrics`: what may be written, and what the numbers mean."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.commands import Json, console, print_json


def schema(
    of: Annotated[
        str, typer.Argument(metavar="[OF]", help="yaml, or suggest: what `planner suggest --json` prints.")
    ] = "yaml",
) -> None:
    """Print the JSON Schema of the YAML, or of an answer.

    The one is for editors, the other for programs.
    """
    from planner import spec
    from planner.suggestion.schema import schema as answer

    schemas = {"yaml": spec.schema, "suggest": answer}
    if of not in schemas:
        raise spec.SpecError("schema {name}: is unknown; allowed: {schemas}", of, ", ".join(schemas))
    print_json(schemas[of]())


def metrics(as_json: Json = False) -> None:
    """List every metric and what it means."""
    from planner.run.metrics import METRICS

    if as_json:
        print_json(
            [
                {"name": m.name, "label": m.label, "unit": m.unit, "better": m.better, "help": m.help}
                for m in METRICS.values()
            ]
        )
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "unit", "better", "meaning"):
        table.add_column(column, overflow="fold", min_width=30 if column == "name" else None)
    for metric in METRICS.values():
        table.add_row(metric.name, metric.unit, "" if metric.better == "none" else metric.better, metric.help)
    console().print(table)


def register(app: typer.Typer) -> None:
    app.command()(schema)
    app.command()(metrics)
