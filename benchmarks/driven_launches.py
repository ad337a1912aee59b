"""How much of what predictions miss is the host's pace: loads simulated again with the launches that live had.

    python benchmarks/driven_launches.py RECORD [RECORD ...]

A record is a folder as `planner validate` reads it, of aggregated engines on GPUs. Each load is predicted by each of
the record's profiles twice: as it is, and with every launch of a step with prompts as long, against the law, as those
that were seen in the load's own steps about that time (planner.calibration.launches). The second is no prediction: it
says what is left when the host is known. Prints both errors in percent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["PLANNER_INTERPRETED"] = "1"  # the pace is put in from outside
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import simulator.pool
from planner.calibration.calibrate import graph_sizes
from planner.calibration.launches import COMPILED, KINDS, launch_rows
from planner.engine.profile_file import Launches, ProfileFile
from planner.run.tables import Run
from planner.system.resolve import resolve
from planner.validation.parity import compare
from planner.validation.recorded import predicted_run, read_record, replay_spec

SHOWN = (
    ("ttft", "p50"),
    ("ttft", "p99"),
    ("tpot", "p50"),
    ("tpot", "p99"),
    ("itl", "p50"),
    ("itl", "p90"),
    ("itl", "p99"),
)
LEVEL = Launches(levels=(1.0,) * 5, stays_s=1.0)


class Seen:
    """In place of `HostPace`: launches of the worker that `key` ends with, as multiples of the law at their times."""

    paces: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __init__(self, levels: Sequence[float], stays_s: float, key: str) -> None:
        self._at_s, self._ratio = self.paces[key.rpartition("/")[2]]

    def at(self, now: float) -> float:
        return float(np.interp(now, self._at_s, self._ratio))


def paces(run: Run, file: ProfileFile) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By worker: when launches of steps with prompts were seen, and how many times as long as the law's they took."""
    largest = max(graph_sizes(resolve(replay_spec(run)).pools[0]), default=0)
    rows = launch_rows(run.steps, largest)
    rows = rows[rows["kind"].isin(KINDS[1:])]
    law = rows["kind"].map(file.step.model_dump()) + file.step.launch_per_seq_s * rows["decodes"]
    rows = rows.assign(ratio=rows["seconds"] / law).sort_values("at_s")
    rows = rows[rows["ratio"] < COMPILED]
    return {str(name): (own["at_s"].to_numpy(), own["ratio"].to_numpy()) for name, own in rows.groupby("worker")}


def errors(run: Run, file: ProfileFile, replay: bool) -> list[float]:
    found = compare(predicted_run(run, file, replay), run)
    return [100 * found.error(*one).error for one in SHOWN]


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    as_drawn = simulator.pool.HostPace
    print("| load | profile | launches | " + " | ".join(f"{name.upper()} {which}" for name, which in SHOWN) + " |")
    print("|---|---|---|" + "---|" * len(SHOWN))
    table: dict[str, list[list[float]]] = {"the profile's": [], "live's": []}
    for folder in map(Path, sys.argv[1:]):
        record = read_record(folder)
        for load, runs in record.loads.items():
            for name, file in record.profiles.items():
                if file is None or file.launches is None:
                    continue  # launches that were not measured have no pace
                for number, run in enumerate(runs, 1):
                    simulator.pool.HostPace = as_drawn
                    drawn = errors(run, file, record.reading.replay)
                    Seen.paces = paces(run, file)
                    simulator.pool.HostPace = Seen
                    driven = errors(run, file.model_copy(update={"launches": LEVEL}), record.reading.replay)
                    for launches, off in (("the profile's", drawn), ("live's", driven)):
                        table[launches].append(off)
                        cells = " | ".join(f"{one:+.1f}" for one in off)
                        print(f"| {record.name}/{load}-{number} | {name} | {launches} | {cells} |", flush=True)
    for launches, rows in table.items():
        cells = " | ".join(f"{one:.1f}" for one in np.median(np.abs(rows), axis=0))
        print(f"| median of the absolute | | {launches} | {cells} |")


if __name__ == "__main__":
    main()
