"""`planner day`: a day's traffic on N GPUs, hour by hour and policy by policy."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from planner.commands import (
    MOST_GPUS,
    Json,
    Seed,
    Set,
    TraceEnd,
    TraceFormat,
    TraceSample,
    TraceStart,
    console,
    overrides,
    print_json,
    progress,
    read_run,
)


def day(
    traffic: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE_OR_PROFILE", help="A trace, or a CSV: hour,rate,prompt_tokens,output_tokens[,reused]."
        ),
    ],
    config: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Argument(metavar="[CONFIG]", help="Model, GPU, targets, link. Default: disagg."),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", "-n", min=2, max=MOST_GPUS, help="GPUs to use.")] = 8,
    hour_s: Annotated[float, typer.Option("--hour", metavar="S", min=60.0, help="Seconds of an hour.")] = 3600.0,
    scale: Annotated[float, typer.Option("--scale", metavar="FACTOR", help="Times as many requests.")] = 1.0,
    only_pd: Annotated[bool, typer.Option("--pd", help="Only splits into two pools, not aggregated engines.")] = False,
    start_up: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--start-up",
            metavar="S|RUN",
            help="Until a new worker serves, or a run of planner live that says it.",
        ),
    ] = None,
    drain: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--drain", metavar="S", min=0.0, help="Until one has emptied. Default: what a request may take."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Lists of requests that judge.")] = 3,
    requests: Annotated[int, typer.Option("--requests", min=50, help="Requests simulated of an hour.")] = 300,
    start_s: TraceStart = 0.0,
    end_s: TraceEnd = None,
    sample: TraceSample = 1.0,
    form: TraceFormat = "auto",
    assignments: Set = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Say when over a day to move the ratio of prefill to decode.

    And what moving workers buys, policy by policy.
    """
    from rich.table import Table

    from planner.day.answer import HEADINGS, play_day, rows
    from planner.day.hours import is_profile, of_profile, of_trace
    from planner.day.policies import Switching
    from planner.engine.catalogue import hardware
    from planner.report import printing
    from planner.report.words import number
    from planner.spec import SpecError, load
    from planner.suggestion.probe import turnaround_s
    from planner.suggestion.spread import cores, spread
    from planner.traffic.trace_scan import Selection
    from planner.validation.live import START_S

    if not (scale > 0 and math.isfinite(scale)):
        raise SpecError(f"--scale {scale:g}: allowed: a number above 0")
    spec = load(config or "disagg", overrides(assignments, seed))
    if is_profile(traffic):
        hours = of_profile(traffic, hour_s, scale)
    else:
        wanted = Selection(start_s, math.inf if end_s is None else end_s, sample)
        hours = of_trace(traffic, form, hour_s, scale, wanted, partial(progress(), "read"))
    busiest = max(hours, key=lambda one: one.rate)
    if not busiest.rate:
        raise SpecError(f"{traffic}: no hour has requests enough; allowed: at least 5 in one")
    start = float(START_S[hardware(spec.hardware).kind]) if start_up is None else start_s_of(start_up)
    switching = Switching(start, turnaround_s(busiest.traffic(spec), spec.run.seed) if drain is None else drain)
    with spread(None, cores()) as pool:
        found = play_day(
            spec,
            hours,
            gpus,
            switching,
            seeds=seeds,
            requests=requests,
            only_pd=only_pd,
            spread=pool,
            progress=progress(),
        )
    if as_json:
        print_json(found.to_dict())
        return
    screen = console()
    printing.say(screen, found.sentence)
    hourly = Table(box=None, pad_edge=False)
    for name in ("hour", "req/s", "prompt", "output", "best"):
        hourly.add_column(name, justify="left" if name == "best" else "right")
    for at, (one, split) in enumerate(zip(found.hours, found.best, strict=True)):
        hourly.add_row(str(at), number(one.rate), number(one.prompt_mean), number(one.output_mean), split.name)
    screen.print(hourly)
    policies = Table(box=None, pad_edge=False, collapse_padding=True)
    for at, name in enumerate(HEADINGS):
        policies.add_column(name, justify="left" if at == 0 else "right")
    for row in rows(found):
        policies.add_row(*row)
    screen.print(policies)
    printing.say(
        screen,
        f"A new worker takes {number(switching.start_s)} s to start, an old one {number(switching.drain_s)} s to empty;"
        " while a change goes on only the workers of both splits serve. Intervals (95 %) are over"
        f" {seeds} lists of requests. In time: within the targets. Lost KV: million prompt"
        " tokens computed once more.",
    )


def start_s_of(given: str) -> float:
    """Seconds, or of a measured run the longest start of a server. Raises SpecError."""
    from planner.spec import SpecError

    try:
        found = float(given)
    except ValueError:
        started = read_run(Path(given)).manifest.get("server_start_s") or {}
        if not started:
            raise SpecError(
                f"--start-up {given}: started no servers; allowed: seconds, or a run of planner live"
            ) from None
        found = max(float(one) for one in started.values())
    if not 0 <= found < math.inf:
        raise SpecError(f"--start-up {given}: allowed: seconds, zero or more, or a run of planner live")
    return found


def register(app: typer.Typer) -> None:
    app.command()(day)
