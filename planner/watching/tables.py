"""The lines of a watch as Parquet: a folder of parts, each of an hour of minutes, that pandas reads as one table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from planner.watching.watch import Line

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


@dataclass
class Parts:
    """Writes lines into `folder` as they come; keeps no more than one part in memory."""

    folder: Path
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0

    def add(self, line: Line) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows.append(row(line))
        path = self.folder / f"intervals-{self._number:05d}.parquet"
        part = path.with_name(f".{path.name}.part")
        pd.DataFrame(self._rows).to_parquet(part, index=False, compression="zstd")
        part.replace(path)
        if len(self._rows) == PART:
            self._rows, self._number = [], self._number + 1
