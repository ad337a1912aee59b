"""The profile and the link of a measured pair, from the recorded calibration rounds of one host.

    python benchmarks/fit_hand_over.py FOLDER --name NAME --out FILE [--servers RECORD ...]
        [--beside RECORD] [--also NAME ...] [--into PROFILE]
    python benchmarks/fit_hand_over.py FOLDER/tp2 --name NAME --out FILE     one deployment: its own rounds, no more

FOLDER holds a folder a deployment, each with its calibration rounds: pair-agg (replicas: steps and host times, with
prompts beside decodes), pair-pull (hand-overs, decode steps beside a connector, how a warm GPU slows prompts),
pair-push (how far servers are from each other). `planner calibrate` on a pair fits the same terms by the same code; a
pair alone shows no step in which prompts join decodes.
How far servers are from each other is that of the three and of RECORDs of the same engine (records with calibrations).
Prompts beside up to 32 sequences do not tell what each sequence and its context add: with --beside those two terms are
those of a record that has hundreds of such steps, at up to 256.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from planner.calibration.calibrate import fit
from planner.calibration.fitting import digits
from planner.calibration.spread import spread_of
from planner.engine.law import StepLaw, of_part
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import dump_profile, load_profile, rested
from planner.run.tables import Run
from planner.spec import parse
from planner.system.resolve import resolve


def of(folder: Path, name: str) -> ProfileFile:
    runs = [Run.load(path.parent) for path in sorted(folder.glob("calibration-*/manifest.json"))]
    return fit(resolve(parse(runs[0].manifest["spec_yaml"])), runs, name)


CONNECTED = (*of_part("decode", "context"), "decode_wave_seqs", "decode_wave_tail")
BESIDE = ("mixed_per_seq_s", "mixed_per_context_s")


def of_pair(pull: ProfileFile, step: StepLaw) -> dict[str, object]:
    """What a profile of `step` has of the pair. A pair shows how warm its GPU gets, but no prompts of few tokens."""
    connected = {name: value for name in CONNECTED if (value := getattr(pull.step, name))}
    if pull.warm_slowing is not None:
        connected |= {name: digits(value) for name, value in rested(step, pull.warm_slowing).items()}
    return {
        "connected": connected,
        "warm_slowing": pull.warm_slowing,
        "link": pull.link,
        "hand_over": pull.hand_over,
    }


def with_terms(file: ProfileFile, other: ProfileFile, names: tuple[str, ...]) -> ProfileFile:
    """With terms of another fit, and its errors of them."""
    assert file.fit is not None
    assert other.fit is not None
    step = file.step.model_copy(update={name: getattr(other.step, name) for name in names})
    errors = {name: error for name, error in other.fit.standard_errors.items() if name in names}
    covariance = np.array(file.fit.covariance)
    for index, name in enumerate(file.fit.parameters):
        if name in names:
            covariance[index, :] = covariance[:, index] = 0.0
            covariance[index, index] = errors[name] ** 2
    fit = file.fit.model_copy(
        update={
            "standard_errors": {**file.fit.standard_errors, **errors},
            "covariance": tuple(tuple(row) for row in covariance.tolist()),
        }
    )
    return file.model_copy(update={"step": step, "fit": fit})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--servers", type=Path, nargs="*", default=[])
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--also", nargs="*", help="profiles of the same engine at other TP sizes")
    parser.add_argument("--into", type=Path, help="a profile whose terms of a pair alone are fitted anew")
    given = parser.parse_args()
    if list(given.folder.glob("calibration-*")):
        alone = of(given.folder, given.name).model_copy(update={"also": given.also and tuple(given.also)})
        given.out.write_text(dump_profile(alone), encoding="utf-8")
        return
    if given.into:
        file, pull = load_profile(str(given.into)).file, of(given.folder / "pair-pull", given.name)
        assert file is not None
        assert file.hand_over is not None
        assert pull.hand_over is not None, "the rounds with pull show no transfers"
        checked = {key: getattr(file.hand_over, key) for key in ("pull_block_sizes", "push_block_sizes")}
        told = {"hand_over": pull.hand_over.model_copy(update=checked)}
        given.out.write_text(dump_profile(file.model_copy(update=of_pair(pull, file.step) | told)), encoding="utf-8")
        return
    replicas, pull, push = (of(given.folder / name, given.name) for name in ("pair-agg", "pair-pull", "pair-push"))
    for pair in (pull, push):
        assert pair.fit is not None
        print(pair.link, pair.hand_over, pair.fit.residuals, *pair.notes, sep="\n")
    assert pull.hand_over is not None, "the rounds with pull show no transfers"
    servers = [replicas, pull, push, *(of(path, given.name) for path in given.servers)]
    beside = of(given.beside, given.name) if given.beside else None
    sources, notes = (*replicas.fitted_on, *pull.fitted_on, *push.fitted_on), replicas.notes
    if beside is not None:
        replicas = with_terms(replicas, beside, BESIDE)
        sources += beside.fitted_on
        notes += ("what sequences add to a step with prompts is of a server with larger batches, on another host",)
    told = (
        "steps and host times are those of two replicas, hand-overs, and decode steps beside a connector, those of a "
        "pair with pull on the same host"
    )
    written = replicas.model_copy(
        update={
            "also": given.also and tuple(given.also),
            **of_pair(pull, replicas.step),
            "spread": spread_of(servers, "servers"),
            "fitted_on": sources,
            "notes": (*notes, told),
        }
    )
    given.out.write_text(dump_profile(written), encoding="utf-8")


if __name__ == "__main__":
    main()
