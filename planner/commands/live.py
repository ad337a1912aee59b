"""`planner live`: the same YAML on real vLLM servers, and how far the simulation of it is off."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from planner.commands import (
    Json,
    NoSave,
    Out,
    Seed,
    Set,
    StartTimeout,
    TableOption,
    check_table,
    console,
    overrides,
    print_json,
    progress,
    run_folder,
    show,
)

if TYPE_CHECKING:
    from planner.run.tables import Run
    from planner.spec import Spec
    from planner.system.resolve import System
    from planner.validation.live import Estimate
    from planner.validation.parity import Comparison

Config = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation when the command is built
    typer.Argument(metavar="[CONFIG]", help="A YAML file, or the name of one that ships. Default: one that fits here."),
]
Endpoint = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--endpoint", metavar="URL", help="An OpenAI-compatible server that runs already. May be repeated."),
]
Token = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--token", envvar="PLANNER_TOKEN", help="Bearer token: of the endpoints, or to ask of clients."),
]
Stack = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--stack", metavar="dynamo", help="On NVIDIA Dynamo instead: dynamo, or dynamo=PYTHON that has it."),
]


def live(
    config: Config = None,
    validate: Annotated[bool, typer.Option("--validate", help="Simulate the same requests; print the error.")] = False,
    endpoint: Endpoint = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Measure a profile first when --validate finds none.")
    ] = True,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs on the same servers, to see the spread.")] = 1,
    cluster: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--cluster", metavar="ray", help="On a Ray cluster that exists: ray, or ray=HOST:PORT."),
    ] = None,
    stack: Stack = None,
    token: Token = None,
    start_timeout: StartTimeout = None,
    assignments: Set = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
    table: TableOption = None,
    no_save: NoSave = False,
) -> int:
    """Run a deployment on real vLLM servers.

    They are started for it and stopped after it.
    """
    from live.needs import need

    need(servers=not endpoint and not stack)
    from live.session import LiveSession
    from planner.run.metrics import summarise
    from planner.system.resolve import resolve
    from planner.traffic import workload
    from planner.validation.live import calibrated, compare_simulated, estimate, predictor

    check_table(table)
    dynamo = dynamo_python(stack, {"--cluster": cluster, "--endpoint": endpoint, "--token": token})
    spec = spec_of(config, overrides(assignments, seed), bool(endpoint) or dynamo is not None)
    system = resolve(spec)
    folder = None if no_save else run_folder(spec.name, out)
    report = progress(0.0)
    calibrate = calibrate and dynamo is None  # nobody records its engines' steps
    calibrates = validate and calibrate and not endpoint and not calibrated(system)
    _announce(estimate(system, spec, repeat, elsewhere=bool(endpoint), calibrates=calibrates), system)
    session = LiveSession(
        system,
        folder / "logs" if folder else None,
        endpoints=endpoint or (),
        token=token,
        ray=ray_address(cluster),
        dynamo=dynamo,
        start_timeout_s=start_timeout,
        progress=report,
    )
    comparison = None
    with session:
        simulated = predictor(session, calibrate, folder, report) if validate else None
        runs: list[Run] = []
        unsaved = []
        for number in range(repeat):
            where = None if folder is None else folder if number == 0 else folder / f"repeat-{number + 1}"
            runs.append(session.measure(workload.build(spec), repeat=number, keep=where))
            if where is not None and (fault := _kept(runs[-1], where)):
                unsaved.append(fault)
            interrupted, failed = runs[-1].manifest["interrupted"], summarise(runs[-1]).is_failed
            if interrupted or failed:
                break
    if simulated is not None and not interrupted and not failed:
        prediction, comparison = compare_simulated(simulated, spec, runs)
        if folder is not None:
            prediction.save(folder / "simulated")
    _print(runs[-1] if failed else runs[0], comparison, simulated, folder, as_json, table)
    if unsaved:
        raise RuntimeError("; ".join(unsaved))
    if interrupted:
        raise KeyboardInterrupt
    return 1 if failed or not runs[-1].requests["finish_reason"].isin(["stop", "length"]).any() else 0


def ray_address(cluster: str | None) -> str | None:
    """Ray's own address for the --cluster option. Raises SpecError for another kind of cluster."""
    from planner.spec import SpecError

    if cluster is None:
        return None
    kind, _, address = cluster.partition("=")
    if kind != "ray":
        raise SpecError("--cluster: {cluster!r} is unknown; allowed: ray, ray=HOST:PORT", cluster)
    return address or "auto"


def dynamo_python(stack: str | None, others: Mapping[str, object]) -> str | None:
    """The Python that has Dynamo, for the --stack option; None: our own stack. `others` are options it excludes.

    Raises SpecError.
    """
    from planner.spec import SpecError

    if stack is None:
        return None
    kind, _, python = stack.partition("=")
    if kind != "dynamo":
        raise SpecError("--stack: {stack!r} is unknown; allowed: dynamo, dynamo=PYTHON", stack)
    if given := next((name for name, value in others.items() if value), None):
        raise SpecError("--stack dynamo: not with {option}; allowed: on this host, without a token", given)
    return python or sys.executable


def spec_of(config: str | None, assignments: list[str], elsewhere: bool) -> Spec:
    """The file, or a shipped one that this machine can serve."""
    from live.launch import detect
    from planner.spec import load

    if config is not None:
        return load(config, assignments)
    if elsewhere:
        return load(None, assignments)
    runtime = detect()
    if runtime.kind == "cpu":
        return load("cpu-agg", assignments)
    from planner.engine.catalogue import gpu_named

    hardware = gpu_named(runtime.gpus[0].name)
    fitting = [] if hardware in (None, "h200") else [f"hardware={hardware}", "profile=null"]
    return load(None, [*fitting, "engine.load_format=dummy", *assignments])


def _announce(expected: Estimate, system: System) -> None:
    """How long it will take, said before anything starts."""
    more = f", {expected.calibration_s} s to calibrate" if expected.calibration_s else ""
    count = "" if expected.repeats == 1 else f"{expected.repeats} x "
    workers = sum(len(pool.servers) for pool in system.pools)
    started = f"{workers} server{'s' if workers > 1 else ''}"
    servers = f"{expected.servers_s} s to start and stop {started}, " if expected.servers_s else ""
    load = f"{count}{expected.load_s:.0f} s of load ({expected.requests} requests)"
    print(f"About {expected.total_s:.0f} s: {servers}{load}{more}.", file=sys.stderr, flush=True)


def _kept(run: Run, folder: Path) -> str:
    """Save a run whose requests were written as they came. Returns why that failed; they stay where they are then."""
    from planner.run import journal

    try:
        run.save(folder)
    except OSError as error:
        left = f"; the requests are in {folder / journal.NAME}" if (folder / journal.NAME).is_file() else ""
        return f"{folder}: the run cannot be saved ({error.strerror or error}){left}; make room, or give another --out"
    (folder / journal.NAME).unlink(missing_ok=True)
    return ""


def _print(
    run: Run,
    comparison: Comparison | None,
    simulated: System | None,
    folder: Path | None,
    as_json: bool,
    table: str | None,
) -> None:
    where = None if folder is None else str(folder)
    if comparison is None or simulated is None:
        show(run, where, as_json, table)
        return
    if as_json:
        print_json(_finite(comparison.to_dict() | {"profile": _profiles(simulated), "run": where}))
        return
    from planner.report import printing

    screen = console()
    printing.say(screen, f"{comparison.sentence()} [{_profiles(simulated)}]")
    screen.print(_error_table(comparison))
    printing.say(screen, comparison.tokens.sentence())
    for warning in dict.fromkeys([*run.manifest["warnings"], *comparison.warnings]):
        printing.say(screen, f"Warning: {warning}")
    if where is not None:
        printing.say(screen, f"Run: {where} (simulated: {where}/simulated)")


def _profiles(system: System) -> str:
    from planner.engine.provenance import origin

    return origin([pool.profile for pool in system.pools])


def _percent(share: float) -> str:
    return f"{100 * share:+z.1f} %" if abs(share) < 1 else f"{100 * share:+.0f} %"


def _error_table(comparison: Comparison) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    repeated = comparison.repeats > 1
    for column in ("metric", "", "simulated", "measured", "error", "95 % interval", *(["spread"] if repeated else [])):
        table.add_column(column, justify="left" if column in ("metric", "") else "right", no_wrap=True)
    for row in comparison.errors:
        interval = "" if row.low is None or row.high is None else f"{100 * row.low:+.0f} to {100 * row.high:+.0f} %"
        spread = [] if not repeated else ["" if row.spread is None else f"{100 * row.spread:.1f} %"]
        name = "rate, 1/s" if row.metric == "throughput" else f"{row.metric.upper()}, ms"
        values = f"{row.predicted:.4g}", f"{row.measured:.4g}", _percent(row.error)
        table.add_row(name, row.statistic, *values, interval, *spread)
    return table


def _finite(data: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and data != data else data


def register(app: typer.Typer) -> None:
    app.command()(live)
