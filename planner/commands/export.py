"""`planner export`: a deployment as the files of vLLM, Docker Compose, Dynamo, llm-d, KServe or LeaderWorkerSets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from planner.commands import Config, Set, overrides


def export(
    config: Config = None,
    to: Annotated[
        str, typer.Option("--to", metavar="STACK", help="vllm, compose, dynamo, llm-d, kserve or lws.")
    ] = "vllm",
    assignments: Set = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--out", metavar="DIR", help="Where to write. Default: exports/NAME-STACK."),
    ] = None,
) -> None:
    """Write a deployment as files of another stack.

    With the load to match, for `vllm bench serve` and AIPerf.
    """
    import planner
    from planner.interop.export import export as write

    spec = planner.load(config, overrides(assignments, None))
    folder = out or Path("exports") / f"{spec.name}-{to}"
    for path in write(spec, to, folder):
        print(path)


def register(app: typer.Typer) -> None:
    app.command()(export)
