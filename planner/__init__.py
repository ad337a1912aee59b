"""Capacity planning for LLM serving: simulate a deployment, run the same file on real vLLM, compare.

    from planner import load, simulate
    run = simulate(load("configs/disagg.yaml", ["workload.rate=12"]))
    run.requests  # a pandas DataFrame, one row a request

Importing this package is cheap; each function imports what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from planner import core

if TYPE_CHECKING:
    from planner.run.metrics import Summary
    from planner.run.tables import Progress, Run
    from planner.spec import Spec

__all__ = ["live", "load", "simulate", "summarise"]

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
