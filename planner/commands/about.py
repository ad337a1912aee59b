"""`planner schema` and `planner metrics`: what may be written, and what the numbers mean."""

from __future__ import annotations

import typer

from planner.commands import Json, console, print_json


def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    from planner import spec

    print_json(spec.schema())


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
