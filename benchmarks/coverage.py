"""How often the 90 % intervals of `--intervals` hold what was measured, over recorded loads.

    python benchmarks/coverage.py [FOLDER ...] [--profile NAME] [--draws 20] [--same-requests]

A FOLDER is a record (planner/validation/recorded.py) or holds records; benchmarks/recorded by default. Each load is
predicted by the profiles of its record, or by --profile, and the mean of its repeats is looked for in the interval.
--same-requests keeps the recorded seed in all draws: what is left is what the profile, not the traffic, leaves open.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from planner import summarise
from planner.calibration.calibrate import with_link
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import dump_profile, load_profile
from planner.run.tables import Run
from planner.validation.intervals import Interval, prediction_intervals
from planner.validation.recorded import read_record, replay_spec

METRICS = ("ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "e2e_p50_ms", "output_tokens_per_s")


def records(folder: Path) -> list[Path]:
    """The folder where it holds runs, else those in it that do."""
    if any(folder.glob("*-1/manifest.json")):
        return [folder]
    return [path for path in sorted(folder.iterdir()) if any(path.glob("*-1/manifest.json"))]


def intervals(run: Run, file: ProfileFile | None, draws: int, same: bool) -> dict[str, Interval]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "profile.yaml"
        if file is not None:
            path.write_text(dump_profile(file))
        spec = replay_spec(run, str(path), keep=file is None)
        spec = with_link(spec, file) if file is not None else spec
        return prediction_intervals(spec, METRICS, draws=draws, vary_seed=not same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("benchmarks/recorded")])
    parser.add_argument("--profile")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--same-requests", action="store_true")
    given = parser.parse_args()
    named = {given.profile: load_profile(given.profile).file} if given.profile else None
    held: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for path in (path for folder in given.folders for path in records(folder)):
        record = read_record(path, named)
        if record.reading.replay:
            print(f"{path.name}: left out, its requests are not of a workload")
            continue
        for load, runs in record.loads.items():
            measured = [summarise(run) for run in runs]
            for name, file in record.profiles.items():
                found = intervals(runs[0], file, given.draws, given.same_requests)
                line = []
                for metric in METRICS:
                    value = sum(one.number(metric) for one in measured) / len(measured)
                    low, high = found[metric].low, found[metric].high
                    inside = low <= value <= high
                    held[metric] += inside
                    seen[metric] += 1
                    line.append(
                        f"{100 * (low / value - 1):+.0f}..{100 * (high / value - 1):+.0f}{'' if inside else '*'}"
                    )
                print(f"{path.name}/{load} by {name}:", *line)
    for metric in METRICS:
        print(f"{metric}: {held[metric]} of {seen[metric]}")
    print(f"all: {held.total()} of {seen.total()}, {100 * held.total() / max(seen.total(), 1):.0f} %")


if __name__ == "__main__":
    main()
