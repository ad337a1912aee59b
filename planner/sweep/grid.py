"""A grid of questions: one deployment file, and keys of it that take several values each.

    base: disagg                          # a file beside the grid, or as for `planner simulate`; else the quickstart
    set:
      workload.rate: [8, 12, 16]
      deployment.prefill.replicas: [1, 2]
    seeds: [0, 1, 2]                      # default: the base's own
    gpus: [4, 8]                          # left out: a question is a simulation; given: what `planner suggest` answers

Every combination is a question. The last axis changes fastest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from planner.messages import said
from planner.spec import Node, NonNegativeInt, PositiveInt, Spec, SpecError, find_config, parse, spec_hash
from planner.spec.faults import validate
from planner.spec.strict_yaml import read_mapping, read_text

MOST_QUESTIONS = 1000
MOST_GPUS = 1024

Gpus = Annotated[PositiveInt, Field(le=MOST_GPUS)]


class Grid(Node):
    base: str = "quickstart"
    set: Annotated[dict[str, Any], Field(description="a list of values for each key")] = {}
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(strict=False)] | None = None
    gpus: Annotated[tuple[Gpus, ...], Field(strict=False)] | None = None
    requests: PositiveInt | None = None  # with gpus: sent to the best candidate in a run


@dataclass(frozen=True, slots=True)
class Question:
    """One point of a grid. `axes` are the values that it has there, by the names of columns."""

    axes: Mapping[str, Any]
    spec: Spec
    gpus: int | None = None  # None: a simulation
    requests: int | None = None

    @property
    def key(self) -> str:
        """The same for the same question, in whatever grid and at whatever place."""
        text = json.dumps([spec_hash(self.spec), self.gpus, self.requests])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_grid(path: Path) -> list[Question]:
    """Every question of a grid file, each with its spec read. Raises SpecError."""
    where = str(path)
    grid = validate(Grid, read_mapping(read_text(path, "a YAML file with a grid"), where), where)
    axes: dict[str, list[Any]] = {key: _different(values, f"{where}: set.{key}") for key, values in grid.set.items()}
    if clash := sorted(axes.keys() & {"run.seed", "gpus"}):
        raise SpecError("{where}: set.{key}: is an axis of its own; allowed: the keys seeds and gpus", where, clash[0])
    if grid.gpus is not None:
        axes["gpus"] = _different(grid.gpus, f"{where}: gpus")
    if grid.seeds is not None:
        axes["run.seed"] = _different(grid.seeds, f"{where}: seeds")
    if (count := math.prod(map(len, axes.values()))) > MOST_QUESTIONS:
        raise SpecError("{where}: {count} questions; allowed: up to {most}", where, f"{count:,}", f"{MOST_QUESTIONS:,}")
    beside = path.parent / grid.base
    try:
        file = beside if beside.is_file() else find_config(grid.base)
    except SpecError as error:
        raise SpecError("{where}: base: {fault}", where, said(error)) from None
    text, questions = read_text(file), []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        keys = [f"{key}={json.dumps(value)}" for key, value in point.items() if key != "gpus"]
        questions.append(Question(point, _spec(text, path, file, keys), point.get("gpus"), grid.requests))
    return questions


def _spec(text: str, grid: Path, base: Path, keys: list[str]) -> Spec:
    """A point of the grid. A value of its own that does not fit is the grid's fault, as any other key is the base's."""
    try:
        return parse(text, str(base), keys)
    except SpecError as error:
        raise SpecError("{where}: {fault}", str(grid), said(error)) from None


def _different(values: Any, where: str) -> list[Any]:
    if not isinstance(values, (list, tuple)) or not values:
        raise SpecError("{where}: {value} is not a list of values; allowed: one or more", where, json.dumps(values))
    for at, value in enumerate(values):
        if value in values[:at]:
            raise SpecError("{where}: {value} twice; allowed: different values", where, json.dumps(value))
    return list(values)
