"""`planner simulate` and `planner replay`: a YAML file, or a trace on it, through the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner import core
from planner.commands import (
    Config,
    Json,
    NoSave,
    Out,
    Seed,
    Set,
    TableOption,
    TraceEnd,
    TraceFormat,
    TraceSample,
    TraceStart,
    TraceStrict,
    check_table,
    console,
    overrides,
    print_json,
    progress,
    save,
    show,
)

if TYPE_CHECKING:
    from planner.run.tables import Run
    from planner.spec import Spec
    from planner.validation.intervals import Interval

Intervals = Annotated[
    int,
    typer.Option(
        "--intervals",
        metavar="N",
        min=0,
        help="Also simulate N times with other seeds, and step times drawn from the profile's fit: where 90 % of the "
        "answers lie.",
    ),
]
INTERRUPTED = 130
# What an interval is printed for.
UNSURE = ("ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "goodput_requests_per_s", "attainment")


def simulate(
    config: Config = None,
    assignments: Set = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
    table: TableOption = None,
    intervals: Intervals = 0,
    no_save: NoSave = False,
) -> None:
    """Simulate a deployment.

    Does it meet its targets, and what limits it?
    """
    _run(config, overrides(assignments, seed), out, as_json, table, no_save, intervals)


def replay(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="Mooncake JSONL, Azure CSV, ... plain or gzip; or a folder.")
    ],
    config: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--config", "-c", metavar="CONFIG", help="The deployment. Default: the quickstart."),
    ] = None,
    speedup: Annotated[float, typer.Option("--speedup", help="Replay this many times faster.")] = 1.0,
    requests: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--requests", min=1, help="Only the first so many requests."),
    ] = None,
    start_s: TraceStart = 0.0,
    end_s: TraceEnd = None,
    sample: TraceSample = 1.0,
    rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--rate", metavar="PER_S", help="Scale the send times to so many requests per second."),
    ] = None,
    closed_loop: Annotated[
        bool, typer.Option("--closed-loop", help="A session's next request waits for its answer and the pause.")
    ] = False,
    strict: TraceStrict = False,
    form: TraceFormat = "auto",
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
        f"workload.format={json.dumps(form)}",
        f"workload.start_s={start_s}",
        f"workload.sample={sample}",
        f"workload.closed_loop={json.dumps(closed_loop)}",
        f"workload.strict={json.dumps(strict)}",
    ]
    given = {"requests": requests, "end_s": end_s, "rate": rate}
    workload += [f"workload.{key}={value}" for key, value in given.items() if value is not None]
    _run(config, [*workload, *overrides(assignments, seed)], out, as_json, table, no_save)


def _run(
    config: str | None,
    assignments: list[str],
    out: Path | None,
    as_json: bool,
    table: str | None,
    no_save: bool,
    draws: int = 0,
) -> None:
    import planner
    from planner.spec import SpecError

    core.import_numpy()
    check_table(table)
    if draws and table is not None:
        raise SpecError("--intervals: {table} has none; allowed: without --table", table)
    spec = planner.load(config, assignments)
    run, interrupted = _interruptible(spec)
    folder = save(run, spec.name, out, no_save)
    if interrupted or not draws:
        show(run, folder, as_json, table)
        if interrupted:
            raise typer.Exit(INTERRUPTED)
        return
    from planner.validation.intervals import prediction_intervals

    found = prediction_intervals(spec, UNSURE, draws=draws)
    if as_json:
        from dataclasses import asdict

        from planner.report import printing

        intervals = {name: asdict(interval) for name, interval in found.items()}
        print_json(printing.to_dict(planner.summarise(run), folder) | {"intervals": intervals})
        return
    show(run, folder, as_json, table)
    _show_intervals(spec, found)


def _interruptible(spec: Spec) -> tuple[Run, bool]:
    """The run, and whether Ctrl-C ended it early: then it holds the requests that had ended. A second one kills."""
    import signal
    import threading
    from dataclasses import replace
    from functools import partial

    from planner.system.resolve import resolve
    from planner.traffic import workload
    from simulator.backend import SimulatorBackend

    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    report = progress()
    system, load = resolve(spec), workload.build(spec, partial(report, "read"))
    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        return SimulatorBackend().run(system, load, report), False
    before = signal.signal(signal.SIGINT, stop)
    try:
        run = SimulatorBackend(stop=lambda _: bool(asked)).run(system, load, report)
    finally:
        signal.signal(signal.SIGINT, before)
    if not run.manifest["stopped"]:
        return run, False
    ended = run.requests[run.requests["finish_reason"].notna() & run.requests["finish_s"].notna()]
    warning = f"Interrupted: {len(ended)} of {load.expected_requests} requests had ended."
    manifest = run.manifest | {"warnings": [warning, *run.manifest["warnings"]]}
    return replace(run, requests=ended.reset_index(drop=True), manifest=manifest), True


def _show_intervals(spec: Spec, found: dict[str, Interval]) -> None:
    """A line for each metric: 90 % of the simulations lie between these."""
    from planner.report import printing
    from planner.run.metrics import METRICS
    from planner.system.resolve import resolve

    screen = console()
    drawn = [pool.profile.name for pool in resolve(spec).pools if pool.profile.file and pool.profile.file.fit]
    what = (
        f"seeds, and {', '.join(dict.fromkeys(drawn))} as another server may have it"
        if drawn
        else "seeds only (no profile with a fit)"
    )
    count = max((interval.draws for interval in found.values()), default=0)
    printing.say(screen, f"90 % of {count} simulations, {what}:")
    for name, interval in found.items():
        metric = METRICS[name]
        low, high = (printing.shown(metric, value) for value in (interval.low, interval.high))
        printing.say(screen, f"  {metric.label}: {low} to {high}")


def register(app: typer.Typer) -> None:
    app.command()(simulate)
    app.command()(replay)
