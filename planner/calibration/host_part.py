"""A measured profile on another host of the same GPUs: its steps, with the launches and host times of that host.

Profiles of one engine differ between hosts in little else (`benchmarks/host_part.py`), and half a minute shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.backends import Backend
from planner.calibration.calibrate import Calibration, graph_sizes, one_pool, rows_of, sources, whole
from planner.calibration.costs import host_of
from planner.calibration.fitting import FitError, digits
from planner.calibration.launches import LaunchFit, fit_launches, fit_levels
from planner.calibration.load import PhasedLoad, plan_host
from planner.engine.host_costs import REQUEST_SHARED
from planner.engine.profile_file import Fit, HostLaw, ProfileFile
from planner.run.tables import Progress, Run
from planner.spec import SpecError
from planner.system.resolve import Pool, System

KNOWN_TO = 0.05  # of a launch, its standard error: measured again until then


def engine_of(system: System, file: ProfileFile) -> Pool:
    """The engine whose host is measured. Raises SpecError when it is none on GPUs, or not the profile's."""
    pool = one_pool(system)
    if pool.hardware.kind != "gpu":
        raise SpecError(
            "calibration of the host alone: on {hardware} the host is the engine; allowed: a GPU, or no --host",
            pool.hardware.name,
        )
    if system.disaggregated:
        raise SpecError("calibration of the host alone: the deployment is disaggregated; allowed: aggregated")
    if file.fit is None:
        raise SpecError(
            "calibration of the host alone: profile {name} was not measured; allowed: a calibrated profile", file.name
        )
    have, want = (file.model, file.hardware, file.tp), (system.spec.model, pool.hardware.name, pool.tp)
    if have != want:
        raise SpecError(
            "calibration of the host alone: profile {name} is of {have}, the deployment is {want}; "
            "allowed: a profile of its engine",
            file.name,
            "{} on {}, tp {}".format(*have),
            "{} on {}, tp {}".format(*want),
        )
    return pool


def fit_host_part(system: System, runs: Sequence[Run], file: ProfileFile, name: str | None = None) -> ProfileFile:
    """`file` with the launches and the host's times of the runs. Raises SpecError and FitError.

    What the runs do not show (kinds of launches, what a sequence adds to one) stays as the profile has it.
    """
    sizes = graph_sizes(engine_of(system, file))
    assert file.fit is not None
    steps = [run.steps for run in runs]
    launches = fit_launches(steps, sizes, file.step.launch_per_seq_s)
    if launches is None:
        raise FitError("no launches were seen; allowed: traced steps of an engine that schedules ahead")
    notes: list[str] = []
    values = file.step.model_dump()
    rows = rows_of(runs, sizes, None, launches, None, values)
    host, host_errors = host_of(runs, rows, values, notes)
    shared = {"request_shared": REQUEST_SHARED} if host.request_s else {}
    seen = {name: value for name, value in host.model_dump().items() if value}
    return file.model_copy(
        update={
            "name": name or f"{file.name}-host",
            "step": file.step.model_copy(update={key: digits(value) for key, value in launches.values.items()}),
            "host": HostLaw(**{**file.host.model_dump(), **seen, **shared}),
            "launches": fit_levels(steps, launches) or file.launches,
            "fit": _fit(file.fit, launches, host_errors),
            "fitted_on": (*file.fitted_on, *sources(runs)),
            "notes": (*file.notes, f"launches and host times are of another host than {file.name}'s", *notes),
        }
    )


def _fit(fit: Fit, launches: LaunchFit, host_errors: dict[str, float]) -> Fit:
    """Launches have no covariance with the other terms."""
    names = (
        *fit.parameters,
        *(name for name, error in launches.errors.items() if error and name not in fit.parameters),
    )
    covariance = np.zeros((len(names), len(names)))
    covariance[: len(fit.parameters), : len(fit.parameters)] = fit.covariance
    measured = {name: digits(error) for name, error in launches.errors.items() if error}  # what was given stays
    for name, error in measured.items():
        at = names.index(name)
        covariance[at, :] = covariance[:, at] = 0.0
        covariance[at, at] = digits(error**2)
    errors = fit.standard_errors | measured
    return fit.model_copy(
        update={
            "parameters": names,
            "covariance": tuple(tuple(row) for row in covariance.tolist()),
            "standard_errors": errors,
            "host_errors": fit.host_errors | {name: digits(error) for name, error in host_errors.items()},
        }
    )


def launch_error(file: ProfileFile) -> float:
    """Of launches beyond CUDA graphs, or within them where there are no others: standard error, as a share."""
    assert file.fit is not None
    name = "launch_eager_s" if file.step.launch_eager_s else "launch_graph_s"
    seconds: float = getattr(file.step, name)
    return file.fit.standard_errors.get(name, 0.0) / seconds


def calibrate_host(
    system: System,
    backend: Backend,
    file: ProfileFile,
    *,
    name: str | None = None,
    seconds: float = 30.0,
    rounds: int = 3,
    progress: Progress | None = None,
) -> Calibration:
    """Measure the host on a live backend until its launches are known to 5 %, at most `rounds` times."""
    engine_of(system, file)
    phases = plan_host(system, seconds)
    runs: list[Run] = []
    while True:
        runs.append(whole(backend.run(system, PhasedLoad(phases), progress)))
        found = fit_host_part(system, runs, file, name)
        error = launch_error(found)
        if error <= KNOWN_TO or len(runs) == rounds:
            doubt = None if error <= KNOWN_TO else f"launches are known to +-{error:.0%} only"
            return Calibration(found, tuple(runs), error, doubt)
