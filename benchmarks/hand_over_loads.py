"""Recorded open loads of one host, each predicted with a shipped profile or its own calibration rounds.

    python benchmarks/hand_over_loads.py FOLDER [--profile NAME] [--link NAME]

FOLDER holds a folder a deployment (pair-pull, pair-push, pair-agg, tp2), each with calibration rounds and loads, whose
runs NAME-open-1 and NAME-open-2 are the same requests. `--profile own`: that of the deployment's own rounds. Errors in
percent of the repeats' mean; * is past the aim, or past what the repeats differ by where that is more (and no more than
25 %). Then whether 1P1D with pull or two replicas is better by each figure: measured, beyond what the repeats differ
by, and predicted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from planner import simulate, summarise
from planner.calibration.calibrate import fit
from planner.engine.profiles import dump_profile
from planner.run.metrics import Summary
from planner.run.tables import Run
from planner.spec import parse
from planner.system.resolve import resolve
from planner.validation.report import NOISY, ON_GPU

AIMS = {
    "output_tokens_per_s" if metric == "throughput" else f"{metric}_{statistic}_ms": round(100 * aim)
    for (metric, statistic), aim in ON_GPU.items()
}
PULL, REPLICAS = "pair-pull", "pair-agg"


def own_profile(folder: Path, where: Path) -> str:
    """The path of the profile that a deployment's calibration rounds give."""
    runs = [Run.load(path.parent) for path in sorted(folder.glob("calibration-*/manifest.json"))]
    path = where / f"{folder.name}.yaml"
    path.write_text(dump_profile(fit(resolve(parse(runs[0].manifest["spec_yaml"])), runs, folder.name)))
    return str(path)


def predicted(run: Run, profile: str, link: str | None) -> Summary:
    """`link`: the preset of pairs; None: as the profile has it."""
    data: dict[str, Any] = yaml.safe_load(run.manifest["spec_yaml"])
    data["profile"] = profile
    if data["deployment"]["mode"] == "disaggregated":
        data["deployment"]["link"].pop("preset", None)
        data["deployment"]["link"] |= {"preset": link} if link else {}
    return summarise(simulate(parse(yaml.safe_dump(data))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", default="h200x2-llama-3.1-8b-tp1")
    parser.add_argument("--link", default="nvlink_nixl")
    given = parser.parse_args()
    live: dict[tuple[str, str], list[Summary]] = {}
    found: dict[tuple[str, str], Summary] = {}
    met = 0
    with TemporaryDirectory() as temporary:
        for folder in sorted(path for path in given.folder.iterdir() if path.is_dir()):
            own = given.profile == "own"
            profile = own_profile(folder, Path(temporary)) if own else given.profile
            for name in sorted({path.name.rsplit("-", 1)[0] for path in folder.glob("*-open-*")}):
                runs = [Run.load(path) for path in sorted(folder.glob(f"{name}-*"))]
                measured, prediction = (
                    [summarise(run) for run in runs],
                    predicted(runs[0], profile, None if own else given.link),
                )
                live[folder.name, name], found[folder.name, name] = measured, prediction
                line, good = [], True
                for metric, aim in AIMS.items():
                    values = [one.number(metric) for one in measured]
                    mean = sum(values) / len(values)
                    error, differ = (
                        100 * (prediction.number(metric) / mean - 1),
                        100 * (max(values) - min(values)) / mean,
                    )
                    missed = abs(error) > (aim if differ > 100 * NOISY else max(aim, differ))
                    good &= not missed
                    line.append(f"{error:+.1f}{'*' if missed else ''}")
                met += good
                print(f"{folder.name}/{name}", *line, "met" if good else "missed")
    print(f"{met} of {len(found)} loads within every aim: {', '.join(f'{name} {aim} %' for name, aim in AIMS.items())}")
    right = clear = same = pairs = 0
    for name in (name for folder, name in found if folder == PULL and (REPLICAS, name) in found):
        for metric in AIMS:
            one, two = ([run.number(metric) for run in live[folder, name]] for folder in (PULL, REPLICAS))
            told = found[PULL, name].number(metric) > found[REPLICAS, name].number(metric)
            pairs += 1
            same += told == (sum(one) / len(one) > sum(two) / len(two))
            if min(one) > max(two) or min(two) > max(one):
                clear += 1
                right += told == (min(one) > max(two))
    print(f"1P1D against two replicas: {same} of {pairs} figures the same way round, {right} of {clear} clear ones")


if __name__ == "__main__":
    main()
