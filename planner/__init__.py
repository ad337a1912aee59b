"""Capacity planning for LLM serving: simulate a deployment, run the same file on real vLLM, compare.

    from planner import load, simulate
    run = simulate(load("configs/disagg.yaml", ["workload.rate=12"]))
    run.requests  # a pandas DataFrame, one row a request

Recipes are in docs/api.md. Importing this package is cheap; each function imports what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from planner import core

if TYPE_CHECKING:
    from planner.interop.import_file import Conversion
    from planner.run.metrics import Summary
    from planner.run.tables import Progress, Run
    from planner.spec import Slo, Spec
    from planner.suggestion.answer import Suggestion

__all__ = ["import_file", "live", "load", "read_results", "simulate", "suggest", "summarise"]

core.install()


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Spec:
    """Read a YAML file (None: the quickstart that ships). `overrides` are `a.b=value`. Raises SpecError."""
    from planner import spec

    return spec.load(path, overrides)


def simulate(spec: Spec | str | Path | None = None, seed: int | None = None, progress: Progress | None = None) -> Run:
    """Simulate a spec or a YAML file. The same spec and seed give the same run. Raises SpecError."""
    return _run("simulate", spec, seed, progress)


def live(spec: Spec | str | Path | None = None, seed: int | None = None, progress: Progress | None = None) -> Run:
    """Run a spec or a YAML file on real vLLM servers. Raises SpecError, or ImportError without the live extra."""
    return _run("live", spec, seed, progress)


def summarise(run: Run) -> Summary:
    """Every metric of a run."""
    from planner.run import metrics

    return metrics.summarise(run)


def suggest(
    spec: Spec | str | Path | None = None,
    gpus: int = 8,
    *,
    seeds: int = 5,
    requests: int | None = None,
    slo: Slo | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Suggestion:
    """The ranked ways to use so many GPUs, and whether P/D is worth it. The same arguments give the same answer.

    `requests` are those sent to the best candidate in each of `seeds` runs; `slo` replaces the spec's targets. Raises
    SpecError.
    """
    from planner.spec import Spec
    from planner.suggestion.suggest import suggest as answer

    found = spec if isinstance(spec, Spec) else load(spec)
    return answer(found, gpus, seeds=seeds, requests=requests, slo=slo, processes=processes, progress=progress)


def import_file(path: str | Path, overrides: Sequence[str] = ()) -> Conversion:
    """Another stack's deployment file as a spec, with notes on what it lost. Raises SpecError."""
    from planner.interop.import_file import import_file as convert

    return convert(Path(path), overrides)


def read_results(path: str | Path, spec: Spec | str | Path | None = None) -> Run:
    """Another tool's result file as a run; `spec`: the deployment that it measured. Raises SpecError."""
    from planner.run.results import read_results as read
    from planner.run.results import with_spec
    from planner.spec import Spec
    from planner.system.resolve import resolve

    run = read(Path(path))
    if spec is None:
        return run
    found = spec if isinstance(spec, Spec) else load(spec)
    return with_spec(run, found, resolve(found).gpus)


def _run(
    mode: Literal["simulate", "live"], spec: Spec | str | Path | None, seed: int | None, progress: Progress | None
) -> Run:
    from planner.backends import backend
    from planner.spec import Spec
    from planner.system.resolve import resolve
    from planner.traffic import workload

    found = spec if isinstance(spec, Spec) else load(spec)
    if seed is not None:
        found = found.model_copy(update={"run": found.run.model_copy(update={"seed": seed})})
    system = resolve(found)
    return backend(mode).run(system, workload.build(found), progress)
