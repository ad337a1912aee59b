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


def calibrate(
    config: Config = None,
    source: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Instead of measuring: a run folder, steps .csv, vllm bench .json, aiconfigurator[:vllm[/VERSION]].",
        ),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", help="Name of the profile. Default: MODEL-HARDWARE-tpN."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="Length of one round of loads.")] = 120.0,
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
    from planner.engine.profiles import dump_profile
    from planner.spec import load
    from planner.system.resolve import resolve

    system = resolve(load(config, [*overrides(assignments, seed), "profile=null"]))
    if out is not None:
        output_file(out)
    if source:
        from planner.calibration.calibrate import fit

        file, runs, doubt = fit(system, [_read(path, system) for path in source], name), len(source), None
    else:
        found = _measure(system, name, seconds, rounds, start_timeout)
        file, runs, doubt = found.file, len(found.runs), found.unstable
    path = output_file(out or Path("configs") / "profiles" / f"{file.name}.yaml")
    path.write_text(dump_profile(file))
    if as_json:
        print_json({"profile": file.model_dump(mode="json", by_alias=True), "path": str(path), "unstable": doubt})
        return
    _print(file, path, runs, doubt)


def _read(source: Path, system: System) -> Run:
    from planner.calibration.aiconfigurator import PREFIX, read_aiconfigurator
    from planner.calibration.calibrate import one_pool
    from planner.calibration.sources import read_source

    if str(source).split(":")[0] == PREFIX and not source.exists():
        return read_aiconfigurator(str(source), system, one_pool(system))
    return read_source(source)


def _measure(
    system: System, name: str | None, seconds: float, rounds: int, start_timeout_s: float | None
) -> Calibration:
    """All rounds on servers that are started once; each round has contents of its own."""
    from live.needs import need

    need(servers=True)
    from live.backend import SessionBackend
    from live.session import LiveSession
    from planner.calibration.calibrate import calibrate as measure
    from planner.calibration.calibrate import one_pool
    from planner.calibration.load import plan

    one_pool(system)  # what cannot be calibrated is said before anything starts
    phases = plan(system, seconds)
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
        return measure(session.system, backend, name=name, seconds=seconds, rounds=rounds, progress=report)


def _print(file: ProfileFile, path: Path, runs: int, doubt: str | None) -> None:
    from rich import box
    from rich.table import Table

    from planner.engine.profile_file import GROUPS
    from planner.report import printing

    assert file.fit is not None
    screen = console()
    rows = sum(residual.rows for residual in file.fit.residuals.values())
    mean = sum(residual.rows * residual.mean_abs_pct for residual in file.fit.residuals.values()) / rows
    printing.say(
        screen,
        f"Profile {file.name}: {rows} steps of {runs} run{'s' if runs > 1 else ''} fitted to {mean:.1f} % on average.",
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("parameter", "value", "+-"):
        table.add_column(column, justify="left" if column == "parameter" else "right")
    for key, value in file.step.model_dump().items():
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
    for kind, residual in file.fit.residuals.items():
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
