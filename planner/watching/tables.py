"""A watch in a folder: its lines as Parquet, parts of an hour that pandas reads as one table, and what is said.

`_watch.json` beside the parts is written anew with each line, so that a page can show a watch that goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from planner.messages import packed, unpacked
from planner.run.tables import read_parquet
from planner.spec import SpecError, parse
from planner.system.resolve import resolve
from planner.watching.effect import effect_text
from planner.watching.pd import evidence, judge
from planner.watching.predict import levelled
from planner.watching.scrape import read_recording
from planner.watching.steps import Step, steps
from planner.watching.watch import Line, clock
from planner.watching.words import closing

SAID = "_watch.json"  # readers of a folder of Parquet files pass over names that begin so
EVENTS = 200  # the newest are kept
PART = 60  # lines of a part; the newest part is written anew with each line


def row(line: Line) -> dict[str, Any]:
    """One interval as columns; units are in the names. Unknown numbers are NaN."""
    one = line.observed
    found: dict[str, Any] = {
        "start_unix_s": one.start_s,
        "end_unix_s": one.end_s,
        "arrivals": one.arrivals,
        "prompt_tokens_mean": one.prompts.mean,
        "output_tokens_mean": one.outputs.mean,
        "cached_share": one.cached_share,
        "running": one.running,
        "waiting": one.waiting,
        "kv_used_fraction": one.kv_used,
        "level_prompts": line.levels.prompts,
        "level_decodes": line.levels.decodes,
    }
    for judged in line.judged:
        name = judged.metric if judged.metric.endswith("_s") else f"{judged.metric}_s"
        found |= {
            f"{name}_predicted": judged.predicted,
            f"{name}_low": math.nan if judged.low is None else judged.low,
            f"{name}_high": math.nan if judged.high is None else judged.high,
            f"{name}_measured": judged.measured,
        }
    return found | {"events": " ".join(line.events)}


def line_data(line: Line) -> dict[str, Any]:
    """For JSON; unknown numbers are null."""
    return {name: _finite(value) for name, value in row(line).items()} | {"events": list(line.events)}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Said:
    """What a watch has said so far, as messages. `events`: at which Unix time, what."""

    name: str
    closing: str = ""
    sentence: str = ""  # is it P/D?
    evidence: tuple[str, ...] = ()
    events: tuple[tuple[float, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "closing": packed(self.closing),
            "sentence": packed(self.sentence),
            "evidence": [packed(one) for one in self.evidence],
            "events": [[at, packed(text)] for at, text in self.events],
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Said:
        """What `to_dict` gave. Raises ValueError, KeyError or TypeError for data of another form."""
        return cls(
            str(data["name"]),
            unpacked(data["closing"]),
            unpacked(data["sentence"]),
            tuple(unpacked(one) for one in data["evidence"]),
            tuple((float(at), unpacked(text)) for at, text in data["events"]),
        )


def said_of(step: Step, events: Sequence[tuple[float, str]]) -> Said:
    """What is known after a step."""
    verdict = (
        judge(evidence(step.seen, levelled(step.system, step.state.levels))) if step.system.disaggregated else None
    )
    return Said(
        step.spec.name,
        closing(step.state),
        "" if verdict is None else verdict.sentence,
        () if verdict is None else verdict.evidence,
        tuple(events),
    )


@dataclass
class Parts:
    """Writes lines into `folder` as they come; keeps no more than one part in memory."""

    folder: Path
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _events: list[tuple[float, str]] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """Keep a step that has a line."""
        assert step.line is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows.append(row(step.line))
        self._events = [*self._events, *((step.line.observed.end_s, text) for text in step.line.events)][-EVENTS:]
        path = self.folder / f"intervals-{self._number:05d}.parquet"
        part = path.with_name(f".{path.name}.part")
        pd.DataFrame(self._rows).to_parquet(part, index=False, compression="zstd")
        part.replace(path)
        said = self.folder / f".{SAID}.part"
        said.write_text(json.dumps(said_of(step, self._events).to_dict()))
        said.replace(self.folder / SAID)
        if len(self._rows) == PART:
            self._rows, self._number = [], self._number + 1


def read_watch(folder: Path) -> tuple[pd.DataFrame, Said]:
    """The intervals and what was said, of a folder that `Parts` writes. Raises ValueError where it is none."""
    try:
        said = Said.of(json.loads((folder / SAID).read_text()))
        parts = [read_parquet(path) for path in sorted(folder.glob("intervals-*.parquet"))]
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpecError("{path}: is no watch ({error}); allowed: a folder of planner watch", folder, error) from None
    return pd.concat(parts, ignore_index=True), said


def replayed(path: Path) -> tuple[pd.DataFrame, Said, str]:
    """The same of a recording, and where that is from. Raises SpecError."""
    head, rounds = read_recording(path)
    spec = parse(head.config, str(path))
    rows, events, step = [], [], Step(spec, resolve(spec))
    for step in steps(rounds, spec):
        if step.line is not None:
            rows.append(row(step.line))
            events += [(step.line.observed.end_s, text) for text in step.line.events]
    if not rows:
        raise SpecError("{path}: has no interval; allowed: a recording of at least two rounds", path)
    if step.changed is not None:
        events.append((rows[-1]["end_unix_s"], effect_text(step.changed, clock(step.changed.at_s))))
    return pd.DataFrame(rows), said_of(step, events), head.source
