"""The profile and the link of a measured pair, from the recorded calibration rounds of one host.

    python benchmarks/fit_hand_over.py FOLDER --name NAME --out FILE

FOLDER holds a folder a deployment, each with its calibration rounds: pair-agg (replicas: steps and host times, with
prompts beside decodes), pair-pull (hand-overs), pair-push (what a thread's posts take beside a step). `planner
calibrate` on a pair fits the same terms by the same code; a pair alone shows no step in which prompts join decodes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from planner.calibration.calibrate import fit
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import dump_profile
from planner.run.tables import Run
from planner.spec import parse
from planner.system.resolve import resolve


def of(folder: Path, name: str) -> ProfileFile:
    runs = [Run.load(path.parent) for path in sorted(folder.glob("calibration-*/manifest.json"))]
    return fit(resolve(parse(runs[0].manifest["spec_yaml"])), runs, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    replicas, pull, push = (of(given.folder / name, given.name) for name in ("pair-agg", "pair-pull", "pair-push"))
    for pair in (pull, push):
        assert pair.fit is not None
        print(pair.link, pair.hand_over, pair.fit.residuals, *pair.notes, sep="\n")
    assert pull.hand_over is not None, "the rounds with pull show no transfers"
    assert push.hand_over is not None, "the rounds with push show no transfers"
    hand_over = pull.hand_over.model_copy(update={"beside": push.hand_over.beside})
    told = "steps and host times are those of two replicas, hand-overs those of a pair with pull on the same host"
    written = replicas.model_copy(
        update={
            "link": pull.link,
            "hand_over": hand_over,
            "fitted_on": (*replicas.fitted_on, *pull.fitted_on, *push.fitted_on),
            "notes": (*replicas.notes, told, "what a thread's posts take beside a step is that of a pair with push"),
        }
    )
    given.out.write_text(dump_profile(written), encoding="utf-8")


if __name__ == "__main__":
    main()
