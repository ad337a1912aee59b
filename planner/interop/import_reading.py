"""What the importers share: a foreign mapping that remembers what was read of it, notes, and the spec they build.

Nothing of a foreign file may vanish: whatever an importer does not read is listed as having no counterpart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from planner.spec import SpecError
from planner.spec.strict_yaml import join

NoteKind = Literal["no counterpart", "assumed", "warning", "loss", "mistake"]
Key = str | int
Role = Literal["aggregated", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Note:
    """Something about a foreign key that the imported YAML does not say by itself.

    `no counterpart` changes no time; a `loss` does, and a `grave` one (GPUs, roles, precision, parallelism) stops the
    import unless it is accepted. A `mistake` is one of the deployment itself.
    """

    kind: NoteKind
    key: str
    text: str
    grave: bool = False

    def __str__(self) -> str:
        return " ".join(f"{self.kind}: {self.key}: {self.text}".split())  # a line of a comment


def digits(value: object) -> int | None:
    """A number that is given as such or by its digits, at most 18 of them; None for everything else."""
    text = str(value)
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,18}", text) else None


@dataclass(frozen=True, slots=True)
class Group:
    """Equal workers of a foreign deployment; `engine` holds planner's engine keys."""

    role: Role
    replicas: int = 1
    tp: int = 1
    engine: dict[str, Any] = field(default_factory=dict)
    dp: int = 1

    @property
    def size(self) -> dict[str, int]:
        """Of a worker, as a pool's keys."""
        return {"tp": self.tp} | ({"dp": self.dp} if self.dp > 1 else {})


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user says beside the file: roles of its servers in their order, a model, that losses are accepted.

    `folder` is where the file lies; None: nowhere that other files could be read from.
    """

    roles: tuple[Role, ...] = ()
    model: str | None = None
    accept: bool = False
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """A foreign file as the data of planner's YAML."""

    dialect: str
    data: dict[str, Any]
    notes: tuple[Note, ...]


class ForeignKeys:
    """A foreign mapping. `get` marks what it reads; `left` lists the rest, whole sections where nothing was read."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data = data
        self.where = where
        self._read: set[tuple[Key, ...]] = set()

    def get(self, *path: Key, default: Any = None) -> Any:
        """The value at `path`, or `default` where there is none."""
        here: Any = self.data
        for key in path:
            if isinstance(here, list):
                here = dict(enumerate(here))
            if not isinstance(here, Mapping) or key not in here:
                return default
            here = here[key]
        self._read.add(path)
        return here

    def section(self, *path: Key) -> Mapping[str, Any]:
        """The mapping at `path` without marking its values as read; empty when absent. Raises SpecError."""
        here: Any = self.data
        for key in path:
            if isinstance(here, list) and isinstance(key, int):
                here = here[key]
            else:
                here = here.get(key) if isinstance(here, Mapping) else None
            if here is None:
                return {}
        if not isinstance(here, Mapping):
            raise SpecError(
                "{where}: {path}: holds {what}; allowed: a section of keys",
                self.where,
                join(*path),
                type(here).__name__,
            )
        return here

    def integer(self, *path: Key, default: int = 1) -> int:
        """A count of at least 1. Raises SpecError."""
        value = self.get(*path, default=default)
        value = digits(value) or value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(
                "{where}: {path}: {value!r} is not a count; allowed: whole numbers from 1",
                self.where,
                join(*path),
                value,
            )
        return value

    def left(self) -> Iterator[tuple[str, Any]]:
        """(path, value) of all that was not read."""
        return self._left((), self.data)

    def _left(self, path: tuple[Key, ...], value: Any) -> Iterator[tuple[str, Any]]:
        if any(path[: len(read)] == read for read in self._read):
            return
        if not any(read[: len(path)] == path for read in self._read):
            yield join(*path), value
            return
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from self._left((*path, key), inner)


def section(value: Any, where: str) -> Mapping[str, Any]:
    """A foreign value that must be a section; an absent one is empty. Raises SpecError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError("{where}: holds {what}; allowed: a section of keys", where, type(value).__name__)
    return value


def items(value: Any, where: str) -> list[Any]:
    """A foreign value that must be a list; an absent one is empty. Raises SpecError."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError("{where}: holds {what}; allowed: a list", where, type(value).__name__)
    return value


def short(value: Any, most: int = 60) -> str:
    """A value for a note, on one line."""
    if isinstance(value, Mapping):
        text = f"section with {', '.join(map(str, value))}"
    elif isinstance(value, list):
        text = f"list of {len(value)}"
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def unread(source: ForeignKeys, reasons: Mapping[str, str], other: str) -> list[Note]:
    """Notes on all that was not read: the reason whose pattern matches the end of its path, else `other`."""
    notes = []
    for key, value in source.left():
        reason = next((text for pattern, text in reasons.items() if re.search(f"(?:{pattern})$", key)), other)
        notes.append(Note("no counterpart", key, f"{short(value)} ({reason})"))
    return notes


def deployment(groups: list[Group], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(deployment, engine) sections: engine keys that both pools share go to the top. Raises SpecError."""
    by_role: dict[Role, Group] = {}
    for group in groups:
        same = by_role.get(group.role)
        if same is not None and (same.size, same.engine) != (group.size, group.engine):
            raise SpecError(
                "{where}: {role} workers differ from each other; allowed: equal workers in a pool", where, group.role
            )
        replicas = group.replicas + (same.replicas if same else 0)
        by_role[group.role] = replace(group, replicas=replicas)
    if set(by_role) == {"aggregated"}:
        only = by_role["aggregated"]
        return {"mode": "aggregated", "replicas": only.replicas, **only.size}, dict(only.engine)
    if set(by_role) != {"prefill", "decode"}:
        there = ", ".join(sorted(by_role)) or "none"
        raise SpecError(
            "{where}: found workers: {there}; allowed: aggregated ones, or prefill and decode ones", where, there
        )
    prefill, decode = by_role["prefill"], by_role["decode"]
    shared = {key: value for key, value in prefill.engine.items() if decode.engine.get(key) == value}
    section: dict[str, Any] = {"mode": "disaggregated"}
    for group in (prefill, decode):
        pool: dict[str, Any] = {"replicas": group.replicas, **group.size}
        own = {key: value for key, value in group.engine.items() if key not in shared}
        if own:
            pool["engine"] = own
        section[group.role] = pool
    return section, shared


def plain_name(text: str) -> str:
    """A spec's name made of `text`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return name or "imported"
