"""What engines said of themselves at one moment, and files that keep it.

A recording is JSON Lines (.gz: compressed): a head, then a line for each engine and moment with what has changed since
its line before. It can be read while it is written, and what a killed watch wrote is whole up to its last line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from planner.run.buckets import check_bounds
from planner.spec import SpecError

Role = Literal["aggregated", "prefill", "decode"]
ROLES: tuple[Role, ...] = ("aggregated", "prefill", "decode")
Values = Mapping[str, float]
SCHEMA = 1
LONGEST_S = 1e7  # of an interval: months
MOST_LINE = 2**22  # characters; an engine has some 20,000
RECORDINGS = Path(__file__).parent / "recordings"  # that ship, by name


@dataclass(frozen=True, slots=True)
class Scrape:
    """One engine at `time_s` (Unix time). `values`: samples by name, `name[label]` where one label tells them apart."""

    time_s: float
    engine: str
    role: Role
    values: Values


@dataclass(frozen=True, slots=True)
class Round:
    """All engines that answered at about one time."""

    time_s: float
    engines: tuple[Scrape, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """From `time_s` on the engines are meant to be as `config`, a YAML, says."""

    time_s: float
    config: str


@dataclass(frozen=True, slots=True)
class Head:
    """What a recording is of. `config`: the YAML of the deployment that was watched."""

    config: str
    interval_s: float
    source: str = ""


class Recorder:
    """Writes rounds as they come. A context manager."""

    def __init__(self, path: Path, head: Head) -> None:
        self._file: IO[str] = _open(path, "wt")
        self._last: dict[str, Values] = {}
        self._write({"schema": SCHEMA, "config": head.config, "interval_s": head.interval_s, "source": head.source})

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, found: Round | Plan) -> None:
        if isinstance(found, Plan):
            self._write({"round": found.time_s, "config": found.config})
            return
        for one in found.engines:
            before = self._last.get(one.engine, {})
            changed = {name: value for name, value in one.values.items() if before.get(name) != value}
            gone = [name for name in before if name not in one.values]
            line: dict[str, Any] = {"round": found.time_s, "t": one.time_s, "engine": one.engine, "role": one.role}
            self._write(line | {"v": changed} | ({"gone": gone} if gone else {}))
            self._last[one.engine] = dict(one.values)
        self._file.flush()

    def _write(self, data: dict[str, Any]) -> None:
        self._file.write(json.dumps(data, separators=(",", ":")) + "\n")


def read_recording(path: Path) -> tuple[Head, Iterator[Round | Plan]]:
    """The head and, as they are asked for, the rounds of a file, or of a recording that ships, and changes of plan.

    Raises SpecError for a file that is no recording.
    """
    if not path.is_file() and (shipped := RECORDINGS / f"{path}.jsonl.gz").is_file():
        path = shipped
    if not path.is_file():
        there = ", ".join(sorted(one.name.partition(".")[0] for one in RECORDINGS.glob("*.jsonl.gz")))
        raise SpecError("{path}: no such file; allowed: what planner watch --record wrote, or {there}", path, there)
    lines = _lines(path)
    first = next(lines, None)
    every_s = first[1].get("interval_s", 60.0) if first is not None else None
    if (
        first is None
        or first[1].get("schema") != SCHEMA
        or not isinstance(first[1].get("config"), str)
        or isinstance(every_s, bool)
        or not isinstance(every_s, int | float)
        or not 0 < every_s <= LONGEST_S
    ):
        raise SpecError("{path}: is no recording; allowed: a file that planner watch --record wrote", path)
    head = Head(first[1]["config"], float(every_s), str(first[1].get("source", "")))
    return head, _rounds(path, lines)


def _rounds(path: Path, lines: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Round | Plan]:
    known: dict[str, dict[str, float]] = {}
    time_s: float | None = None
    engines: list[Scrape] = []
    for number, data in lines:
        try:
            if "config" in data:
                if time_s is not None:
                    yield Round(time_s, tuple(engines))
                time_s, engines = None, []
                yield Plan(float(data["round"]), str(data["config"]))
                continue
            name, at, role = str(data["engine"]), float(data["round"]), data["role"]
            values = {key: float(value) for key, value in data["v"].items()}
            check_bounds(values)
            gone = set(data.get("gone", ()))
            now = {key: value for key, value in (known.get(name, {}) | values).items() if key not in gone}
            one = Scrape(float(data["t"]), name, role, now)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise SpecError(
                "{path}:{number}: is no line of a recording; allowed: lines as they were written", path, number
            ) from None
        if role not in ROLES:
            raise SpecError("{path}:{number}: role {role!r}; allowed: {roles}", path, number, role, ", ".join(ROLES))
        known[name] = dict(one.values)
        if time_s is not None and at != time_s:
            yield Round(time_s, tuple(engines))
            engines = []
        time_s = at
        engines.append(one)
    if time_s is not None:
        yield Round(time_s, tuple(engines))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered lines; a last one that was cut off is left out."""
    fault: int | None = None
    try:
        with _open(path, "rt") as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), ""), start=1):
                if fault is not None:
                    raise SpecError("{path}:{fault}: is not JSON; allowed: lines as they were written", path, fault)
                try:
                    data = json.loads(line)
                except (ValueError, RecursionError):
                    fault = number
                    continue
                if not isinstance(data, dict):
                    raise SpecError(
                        "{path}:{number}: is no line of a recording; allowed: lines as they were written", path, number
                    )
                yield number, data
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SpecError(
            "{path}: cannot be read ({error}); allowed: a file that planner watch wrote", path, error
        ) from None


def _open(path: Path, mode: str) -> IO[Any]:
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8")  # type: ignore[return-value]  # a text mode, which gives IO[str]
    return path.open(mode, encoding="utf-8")
