"""`planner live`: the same YAML on real vLLM servers, and how far the simulation of it is off."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
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
    from live.session import LiveSession
    from planner.run.tables import Progress, Run
    from planner.spec import Spec
    from planner.system.resolve import System
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
START_S = {"cpu": 45, "gpu": 100}  # seconds until servers are up and warm, as seen with small and 8B models
STOP_S = 5
# What a calibration takes here; its phases are planned for less, because the roofline that plans them is too fast.
CALIBRATION_S = {"cpu": 90, "gpu": 200}
PLANNED_SHARE = {"cpu": 0.2, "gpu": 0.6}


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
    token: Token = None,
    start_timeout: StartTimeout = None,
    assignments: Set = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
    table: TableOption = None,
    no_save: NoSave = False,
) -> int:
    """Run a deployment on real vLLM servers, started for it and stopped after it."""
    from live.session import LiveSession
    from planner.system.resolve import resolve
    from planner.traffic import workload

    check_table(table)
    spec = spec_of(config, overrides(assignments, seed), bool(endpoint))
    system = resolve(spec)
    folder = None if no_save else run_folder(spec.name, out)
    report = progress(0.0)
    calibrates = validate and calibrate and not endpoint and not _calibrated(system)
    _estimate(system, spec, repeat, bool(endpoint), calibrates)
    session = LiveSession(
        system,
        folder / "logs" if folder else None,
        endpoints=endpoint or (),
        token=token,
        ray=ray_address(cluster),
        start_timeout_s=start_timeout,
        progress=report,
    )
    comparison = None
    with session:
        predictor = _predictor(session, calibrate, folder, report) if validate else None
        runs: list[Run] = []
        unsaved = []
        for number in range(repeat):
            where = None if folder is None else folder if number == 0 else folder / f"repeat-{number + 1}"
            runs.append(session.measure(workload.build(spec), repeat=number, keep=where))
            if where is not None and (fault := _kept(runs[-1], where)):
                unsaved.append(fault)
            if runs[-1].manifest["interrupted"] or runs[-1].manifest["died"]:
                break
    interrupted, died = runs[-1].manifest["interrupted"], runs[-1].manifest["died"]
    if predictor is not None and not interrupted and not died:
        comparison = _compare(predictor, spec, runs, folder)
    _print(runs[-1] if died else runs[0], comparison, predictor, folder, as_json, table)
    if unsaved:
        raise RuntimeError("; ".join(unsaved))
    if interrupted:
        raise KeyboardInterrupt
    return 1 if died or not runs[-1].requests["finish_reason"].isin(["stop", "length"]).any() else 0


def ray_address(cluster: str | None) -> str | None:
    """Ray's own address for the --cluster option. Raises SpecError for another kind of cluster."""
    from planner.spec import SpecError

    if cluster is None:
        return None
    kind, _, address = cluster.partition("=")
    if kind != "ray":
        raise SpecError(f"--cluster: {cluster!r} is unknown; allowed: ray, ray=HOST:PORT")
    return address or "auto"


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


def _estimate(system: System, spec: Spec, repeat: int, elsewhere: bool, calibrates: bool) -> None:
    """How long it will take, said before anything starts; the load's length is the simulator's."""
    from planner.backends import backend
    from planner.traffic import workload

    simulated = backend("simulate").run(system, workload.build(spec))
    load_s = float(simulated.requests["finish_s"].max())
    start_s = 0 if elsewhere else START_S[system.pools[0].hardware.kind] + STOP_S
    kind = system.pools[0].hardware.kind
    calibration_s = CALIBRATION_S[kind] if calibrates else 0
    more = f", {calibration_s} s to calibrate" if calibrates else ""
    total = start_s + calibration_s + repeat * load_s
    count = "" if repeat == 1 else f"{repeat} x "
    servers = "" if elsewhere else f"{start_s} s to start and stop {_servers(system)}, "
    print(
        f"About {total:.0f} s: {servers}{count}{load_s:.0f} s of load ({len(simulated.requests)} requests){more}.",
        file=sys.stderr,
        flush=True,
    )


def _save(run: Run, folder: Path) -> None:
    from planner.run.tables import TABLES

    (folder / "manifest.json").unlink(missing_ok=True)
    for table in TABLES:  # of an earlier run in the same folder
        (folder / f"{table}.parquet").unlink(missing_ok=True)
    run.save(folder)


def _kept(run: Run, folder: Path) -> str:
    """Save a run whose requests were written as they came. Returns why that failed; they stay where they are then."""
    from planner.run import journal

    try:
        _save(run, folder)
    except OSError as error:
        left = f"; the requests are in {folder / journal.NAME}" if (folder / journal.NAME).is_file() else ""
        return f"{folder}: the run cannot be saved ({error.strerror or error}){left}; make room, or give another --out"
    (folder / journal.NAME).unlink(missing_ok=True)
    return ""


def _servers(system: System) -> str:
    count = sum(len(pool.workers) for pool in system.pools)
    return f"{count} server{'s' if count > 1 else ''}"


# --- simulated against measured ---------------------------------------------------------------------


def _calibrated(system: System) -> bool:
    return all(pool.profile.provenance == "calibrated" for pool in system.pools)


def _predictor(session: LiveSession, calibrate: bool, folder: Path | None, report: Progress) -> System:
    """The system to simulate: with the KV blocks that the engines report, and a profile of this machine.

    Where the spec's profile is a roofline, or of another GPU, one is measured first, on other contents than the load's.
    """
    from live.manifest import other_hardware

    foreign = session.runtime is not None and other_hardware(session.system, session.runtime) is not None
    if not calibrate or session.endpoints or (_calibrated(session.system) and not foreign):
        return session.system
    from live.backend import SessionBackend
    from live.session import with_reported_blocks
    from planner.calibration.calibrate import calibrate as measure
    from planner.calibration.calibrate import with_link
    from planner.engine.profiles import dump_profile, from_file
    from planner.system.resolve import host_warnings, resolve

    kind = session.system.pools[0].hardware.kind
    seconds = CALIBRATION_S[kind] * PLANNED_SHARE[kind]
    found = measure(session.system, SessionBackend(session), seconds=seconds, rounds=2, progress=report)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "profile.yaml").write_text(dump_profile(found.file))
    profile = from_file(found.file)
    spec = with_link(session.system.spec, found.file)
    system = with_reported_blocks(resolve(spec), session.workers)
    pools = []
    for pool in system.pools:
        limits = pool.limits
        fitted = profile.for_engine(pool.engine, limits.max_num_seqs, limits.max_num_batched_tokens)
        pools.append(replace(pool, profile=fitted))
    roofline = host_warnings(system.pools)
    known = [text for text in system.warnings if text not in roofline]
    warnings = (*known, *host_warnings(tuple(pools)), *found.file.notes)
    return replace(system, pools=tuple(pools), warnings=warnings)


def _lengths(run: Run) -> dict[int, tuple[int, int]]:
    """(prompt, output) tokens of the finished requests by their id, as the servers counted them."""
    done = run.requests[run.requests["finish_reason"].isin(["stop", "length"])]
    rows = zip(done["request_id"], done["prompt_tokens"], done["output_tokens"], strict=True)
    return {int(key): (int(prompt), int(output)) for key, prompt, output in rows if prompt > 0 and output > 0}


def _compare(predictor: System, spec: Spec, runs: Sequence[Run], folder: Path | None) -> Comparison:
    from planner.backends import backend
    from planner.traffic import workload
    from planner.traffic.requests import WithLengths
    from planner.validation import parity

    load = WithLengths(workload.build(spec), _lengths(runs[0]))
    simulated = backend("simulate").run(predictor, load)
    if load.changed:
        what = f"{load.changed} requests are simulated with the prompt and output tokens that the servers made of them"
        simulated.manifest["warnings"].append(what)
    if folder is not None:
        _save(simulated, folder / "simulated")
    hashes = frozenset(one for pool in predictor.pools for one in pool.profile.fitted_hashes)
    return parity.compare(simulated, runs[0], repeats=runs[1:], fitted_on=hashes)


def _print(
    run: Run,
    comparison: Comparison | None,
    predictor: System | None,
    folder: Path | None,
    as_json: bool,
    table: str | None,
) -> None:
    where = None if folder is None else str(folder)
    if comparison is None or predictor is None:
        show(run, where, as_json, table)
        return
    if as_json:
        print_json(_finite(comparison.to_dict() | {"profile": _profiles(predictor), "run": where}))
        return
    from planner.report import printing

    screen = console()
    printing.say(screen, f"{comparison.sentence()} [{_profiles(predictor)}]")
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
