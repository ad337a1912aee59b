"""What of a profile is its host's: loads of one server by the profile of another one, before and after `--host`.

    python benchmarks/host_part.py RECORD RECORD [RECORD ...]

Records (planner/validation/recorded.py) are of one engine on aggregated GPU servers of several hosts, each with a
calibration. Every load is predicted three ways, each with three draws of launches, of which the median counts: by the
profiles of the other servers, by these with the launches and host times of its own server's calibration (of its
prompts alone and those into decodes, as `planner calibrate --host` sends them), and by its own server's profile.
Prints mean absolute errors in percent, of all loads and by server.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

os.environ["PLANNER_INTERPRETED"] = "1"  # the seed of launches is put in from outside
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import simulator.pool
from planner.calibration.calibrate import fit
from planner.calibration.host_part import fit_host_part
from planner.engine.profile_file import ProfileFile
from planner.run.tables import Run
from planner.system.resolve import resolve
from planner.validation.parity import compare
from planner.validation.recorded import Record, predicted_run, read_record, replay_spec
from simulator.host_pace import HostPace

SHOWN = (("ttft", "p50"), ("ttft", "p99"), ("tpot", "p50"), ("tpot", "p99"), ("e2e", "p50"))
DRAWS = 3
IDLE, AFTER = 2, 1  # output tokens of a calibration's prompts to an idle engine, and of those into decodes


class Drawn(HostPace):
    draw = 0

    def __init__(self, levels: list[float], stays_s: float, key: str) -> None:
        super().__init__(levels, stays_s, f"{key}#{self.draw}")


def without_decodes(run: Run) -> Run:
    """A calibration's phases of prompts alone, which come first, and of those into decodes, which come last."""
    requests = run.requests
    last = float(requests["finish_s"][requests["output_tokens"] == IDLE].max())
    first = float(requests["arrival_s"][requests["output_tokens"] == AFTER].min()) - 1e-3
    kept = [
        table[(table[at] <= last) | (table[at] >= first)]
        for table, at in ((requests, "arrival_s"), (run.steps, "start_s"))
    ]
    return replace(run, requests=kept[0].reset_index(drop=True), steps=kept[1].reset_index(drop=True))


def errors(run: Run, file: ProfileFile, replay: bool) -> np.ndarray:
    found = []
    for Drawn.draw in range(DRAWS):
        told = compare(predicted_run(run, file, replay), run)
        found.append([100 * told.error(*one).error for one in SHOWN])
    return np.median(found, axis=0)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    simulator.pool.HostPace = Drawn
    records: dict[str, tuple[Record, ProfileFile]] = {}
    for path in map(Path, sys.argv[1:]):
        record = read_record(path)
        system = resolve(replay_spec(record.rounds[0]))
        records[str(path)] = record, fit(system, list(record.rounds))
    ways = ("another server's", "with this host", "its own")
    rows: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for path, (record, own) in records.items():
        system = resolve(replay_spec(record.rounds[0]))
        rounds = [without_decodes(run) for run in record.rounds]
        others = [file for name, (_, file) in records.items() if name != path]
        for run in (run for runs in record.loads.values() for run in runs):
            files = {ways[0]: others, ways[1]: [fit_host_part(system, rounds, file) for file in others], ways[2]: [own]}
            for way, tried in files.items():
                found = [errors(run, file, record.reading.replay) for file in tried]
                rows[path, way] += found
                rows["all", way] += found
    print("| server | profile | comparisons | " + " | ".join(f"{name.upper()} {which}" for name, which in SHOWN) + " |")
    print("|---|---|---|" + "---|" * len(SHOWN))
    for (path, way), found in rows.items():
        off, mean = np.abs(found).mean(axis=0), np.mean(found, axis=0)
        cells = " | ".join(f"{one:.1f} ({two:+.1f})" for one, two in zip(off, mean, strict=True))
        print(f"| {path} | {way} | {len(found)} | {cells} |")


if __name__ == "__main__":
    main()
