"""`planner simulate` and `planner replay`: a YAML file, or a trace on it, through the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from planner.commands import (
    Config,
    Json,
    NoSave,
    Out,
    Seed,
    Set,
    TableOption,
    check_table,
    overrides,
    progress,
    save,
    show,
)


def simulate(
    config: Config = None,
    assignments: Set = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
    table: TableOption = None,
    no_save: NoSave = False,
) -> None:
    """Simulate a deployment.

    Does it meet its targets, and what limits it?
    """
    _run(config, overrides(assignments, seed), out, as_json, table, no_save)


def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="Mooncake JSONL, Azure CSV, ... plain or gzip.")],
    config: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--config", "-c", metavar="CONFIG", help="The deployment. Default: the quickstart."),
    ] = None,
    speedup: Annotated[float, typer.Option("--speedup", help="Replay this many times faster.")] = 1.0,
    requests: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--requests", min=1, help="Only the first so many requests."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="Trace format; auto looks at the file.")] = "auto",
    assignments: Set = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
    table: TableOption = None,
    no_save: NoSave = False,
) -> None:
    """Simulate a trace file on a deployment."""
    workload = [
        "workload.kind=trace",
        f"workload.path={json.dumps(str(trace))}",
        f"workload.speedup={speedup}",
        f"workload.format={form}",
    ]
    if requests is not None:
        workload.append(f"workload.requests={requests}")
    _run(config, [*workload, *overrides(assignments, seed)], out, as_json, table, no_save)


def _run(
    config: str | None, assignments: list[str], out: Path | None, as_json: bool, table: str | None, no_save: bool
) -> None:
    import planner

    check_table(table)
    spec = planner.load(config, assignments)
    run = planner.simulate(spec, progress=progress())
    show(run, save(run, spec.name, out, no_save), as_json, table)


def register(app: typer.Typer) -> None:
    app.command()(simulate)
    app.command()(replay)
