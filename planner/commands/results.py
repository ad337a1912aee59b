"""`planner results`: what another tool measured, as a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.commands import Config, Json, Out, Set, TableOption, check_table, overrides, save, show


def results(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A result file; FILE#1 is the second benchmark in it.")],
    config: Config = None,
    assignments: Set = None,
    out: Out = None,
    as_json: Json = False,
    table: TableOption = None,
) -> None:
    """Turn another tool's results into a run.

    Reads vllm bench serve (with --save-detailed), AIPerf, GuideLLM, inference-perf and multi-round-qa (LMBench).
    CONFIG is the deployment that was measured; with it the run can be compared, validated and calibrated from.
    """
    import planner
    from planner.run.results import read_results, with_spec
    from planner.system.resolve import resolve

    check_table(table)
    run = read_results(file)
    if config is not None or assignments:
        spec = planner.load(config, overrides(assignments, None))
        run = with_spec(run, spec, resolve(spec).gpus)
    folder = save(run, str(run.manifest["spec"]["name"]), out, no_save=False)
    show(run, folder, as_json, table)


def register(app: typer.Typer) -> None:
    app.command()(results)
