"""`planner calibrate`: measure the engine that a YAML describes, and write its latency profile."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner.commands import (
    Config,
    Json,
    Seed,
    Set,
    StartTimeout,
    console,
    output_file,
    overrides,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from planner.calibration.calibrate import Calibration
    from planner.engine.profile_file import ProfileFile
    from planner.run.tables import Run
    from planner.system.resolve import System

SECONDS, HOST_SECONDS = 120.0, 30.0  # of a round


def calibrate(
    config: Config = None,
    source: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Instead of measuring: a run folder, steps or points .csv, bench .json or aiconfigurator[:vllm[/V]].",
        ),
    ] = None,
    service: Annotated[
        bool, typer.Option("--service", help="With --from: a law of whole workers, from what results say end to end.")
    ] = False,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", help="Name of the profile. Default: MODEL-HARDWARE-tpN."),
    ] = None,
    host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--host",
            metavar="PROFILE",
            help="Measure launches and host times alone: PROFILE, of this engine, becomes this host's.",
        ),
    ] = None,
    seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--seconds", min=1.0, help="Length of one round of loads. Default: 120, with --host 30."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds at most, until the fit is stable.")] = 3,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="FILE", help="The profile. Default: configs/profiles/NAME.yaml."),
    ] = None,
    start_timeout: StartTimeout = None,
    assignments: Set = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Measure an engine's step times and write a latency profile.

    Every simulation with that profile then says what it was measured on.
    """
    from planner.calibration.service import is_points
    from planner.engine.profiles import dump_profile
    from planner.spec import load
    from planner.system.resolve import resolve

    system = resolve(load(config, [*overrides(assignments, seed), "profile=null"]))
    if out is not None:
        output_file(out)
    if source and (service or all(map(is_points, source))):
        _service(system, source, name, out, as_json)
        return
    steps = None if host is None else _steps_of(system, host)
    if source:
        file, runs, doubt = _fit(system, [_read(path, system) for path in source], steps, name), len(source), None
    else:
        found = _measure(system, steps, name, seconds, rounds, start_timeout)
        file, runs, doubt = found.file, len(found.runs), found.unstable
    path = output_file(out or Path("configs") / "profiles" / f"{file.name}.yaml")
    path.write_text(dump_profile(file))
    if as_json:
        print_json({"profile": file.model_dump(mode="json", by_alias=True), "path": str(path), "unstable": doubt})
        return
    _print(file, path, runs, doubt, steps)


def _steps_of(system: System, host: str) -> ProfileFile:
    """The profile whose host is to be another one. Raises SpecError before anything starts."""
    from planner.calibration.host_part import engine_of
    from planner.engine.profiles import load_profile

    file = load_profile(host).file
    assert file is not None
    engine_of(system, file)
    return file


def _fit(system: System, runs: list[Run], steps: ProfileFile | None, name: str | None) -> ProfileFile:
    from planner.calibration.calibrate import fit
    from planner.calibration.host_part import fit_host_part

    return fit(system, runs, name) if steps is None else fit_host_part(system, runs, steps, name)


def _service(system: System, source: list[Path], name: str | None, out: Path | None, as_json: bool) -> None:
    """The law of a stack's workers, from end-to-end points alone."""
    import yaml

    from planner.calibration.service import fit_service, read_points
    from planner.engine.service import told
    from planner.report import printing

    points = [point for path in source for point in read_points(path, system)]
    found = fit_service(points, system, name)
    data = found.model_dump(mode="json", exclude_none=True)
    path = output_file(out or Path("configs") / "profiles" / f"{found.name}.yaml")
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=120, default_flow_style=None))
    if as_json:
        print_json({"profile": data, "path": str(path), "unstable": None})
        return
    screen = console()
    printing.say(screen, f"Measured service {found.name}: {told(found)}.")
    for note in found.notes:
        printing.say(screen, f"Note: {note}")
    printing.say(screen, f"Written: {path}. Use it with `profile: {path}`.")


def _read(source: Path, system: System) -> Run:
    from planner.calibration.aiconfigurator import PREFIX, read_aiconfigurator
    from planner.calibration.calibrate import one_pool
    from planner.calibration.sources import read_source

    if str(source).split(":")[0] == PREFIX and not source.exists():
        return read_aiconfigurator(str(source), system, one_pool(system))
    return read_source(source)


def _measure(
    system: System,
    steps: ProfileFile | None,
    name: str | None,
    seconds: float | None,
    rounds: int,
    start_timeout_s: float | None,
) -> Calibration:
    """All rounds on servers that are started once; each round has contents of its own. `steps`: the host alone."""
    from live.needs import need

    need(servers=True)
    from live.backend import SessionBackend
    from live.session import LiveSession
    from planner.calibration.calibrate import calibrate as measure
    from planner.calibration.calibrate import one_pool
    from planner.calibration.host_part import calibrate_host
    from planner.calibration.load import plan, plan_host

    one_pool(system)  # what cannot be calibrated is said before anything starts
    seconds = seconds or (SECONDS if steps is None else HOST_SECONDS)
    phases = plan(system, seconds) if steps is None else plan_host(system, seconds)
    estimate = sum(phase.estimate_s for phase in phases)
    requests = sum(len(phase.requests) for phase in phases)
    print(
        f"{len(phases)} phases, {requests} requests; about {estimate:.0f} s a round (at most {rounds}) "
        "and one start of the servers.",
        file=sys.stderr,
        flush=True,
    )
    report = progress(0.0)
    with LiveSession(system, start_timeout_s=start_timeout_s, progress=report) as session:
        backend = SessionBackend(session)
        if steps is None:
            return measure(session.system, backend, name=name, seconds=seconds, rounds=rounds, progress=report)
        return calibrate_host(
            session.system, backend, steps, name=name, seconds=seconds, rounds=rounds, progress=report
        )


def _print(file: ProfileFile, path: Path, runs: int, doubt: str | None, steps: ProfileFile | None) -> None:
    from rich import box
    from rich.table import Table

    from planner.engine.profile_file import GROUPS
    from planner.report import printing

    assert file.fit is not None
    screen = console()
    rows = sum(residual.rows for residual in file.fit.residuals.values())
    mean = sum(residual.rows * residual.mean_abs_pct for residual in file.fit.residuals.values()) / rows
    of_runs = f"of {runs} run{'s' if runs > 1 else ''}"
    printing.say(
        screen,
        f"Profile {file.name}: {rows} steps {of_runs} fitted to {mean:.1f} % on average."
        if steps is None
        else f"Profile {file.name}: launches and host times {of_runs}, the steps of {steps.name}.",
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("parameter", "value", "+-"):
        table.add_column(column, justify="left" if column == "parameter" else "right")
    for key, value in file.step.model_dump().items():
        if steps is not None and not key.startswith("launch_"):
            continue
        error = file.fit.standard_errors.get(key)
        scale, unit = (1e6, " us") if key.endswith("_s") else (1.0, "")
        note = "at the roofline" if key in file.fit.raised else "" if error is None else f"{scale * error:.2g}{unit}"
        table.add_row(key, f"{scale * value:.4g}{unit}", note)
    for key, value in file.host.model_dump().items():
        table.add_row(f"host {key}", f"{1e6 * value:.4g} us", "")
    if file.link is not None:
        table.add_row("link bandwidth", f"{file.link.bandwidth_gb_s:.3g} GB/s", "")
        table.add_row("link setup_s", f"{1e6 * file.link.setup_s:.4g} us", "")
    if file.hand_over is not None:
        for key, value in file.hand_over.model_dump(exclude={"connector", "errors"}).items():
            error = file.hand_over.errors.get(key)
            scale, unit = (1e6, " us") if key.endswith("_s") else (1.0, "")
            table.add_row(f"hand-over {key}", f"{scale * value:.4g}{unit}",
                          "" if error is None else f"{scale * error:.2g}{unit}")  # fmt: skip
    screen.print(table)
    for kind, residual in file.fit.residuals.items() if steps is None else ():
        mean, worst = residual.mean_abs_pct, residual.max_abs_pct
        printing.say(screen, f"{kind}: {residual.rows} steps, off by {mean:.1f} % (at most {worst:.0f} %)")
    if file.launches is not None:
        low, high = (
            1e3 * level * file.step.launch_eager_s for level in (file.launches.levels[0], file.launches.levels[-1])
        )
        printing.say(
            screen,
            f"Launches of steps beyond CUDA graphs: {low:.1f} to {high:.1f} ms, from one stretch of "
            f"{file.launches.stays_s:.2g} s to the next.",
        )
    if file.spread is not None:
        told = ", ".join(f"{name} {100 * getattr(file.spread, name):.1f} %" for name in GROUPS)
        printing.say(screen, f"Between {file.spread.calibrations} {file.spread.of}: {told}.")
    for note in file.notes:
        printing.say(screen, f"Note: {note}")
    if doubt is not None:
        printing.say(screen, f"Warning: {doubt}")
    printing.say(screen, f"Written: {path}. Use it with `profile: {path}`.")


def register(app: typer.Typer) -> None:
    app.command()(calibrate)
