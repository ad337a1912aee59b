"""Records of campaign.py -> fitted profiles and the table of errors, each load judged by a profile that never saw it.

    python benchmarks/gpu/evaluate.py RECORDS                        print the report
    python benchmarks/gpu/evaluate.py RECORDS --docs docs/validation.md    write it between that file's marks
    python benchmarks/gpu/evaluate.py RECORDS --profiles configs/profiles  keep the fitted profiles
    python benchmarks/gpu/evaluate.py RECORDS --ship benchmarks/data/h200-served   keep small copies of the runs

Nothing but a part's own calibration runs is fitted. A load is compared with the mean of its repeats; what they differ
by is live's own spread, which no prediction can be asked to beat. `--profile NAME` judges a profile that exists instead
of fitting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from planner.calibration.calibrate import fit
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import dump_profile, load_profile
from planner.run.tables import Run
from planner.system.resolve import resolve
from planner.validation.parity import Comparison, MetricError, rank_agreement
from planner.validation.recorded import Judged, judge, read_record, replay_spec, small
from planner.validation.report import ON_GPU, SHOWN, highest, label, within

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
PAIRED = ("pair-agg", "pair-pull")  # parts that serve the same loads in two ways


@dataclass(frozen=True)
class Part:
    name: str
    profile: ProfileFile
    rounds: int
    loads: tuple[Judged, ...]


def judged(folder: Path, profiles: Path, named: str | None) -> Part:
    """Fit a part's calibration, predict its loads. Raises SpecError when the calibration does not show the law."""
    if named is not None:
        record = read_record(folder, {named: load_profile(named).file})
        (file,) = record.profiles.values()
    else:
        rounds = tuple(Run.load(path) for path in sorted(folder.glob("calibration-*")))
        file = fit(resolve(replay_spec(rounds[0])), rounds, str(rounds[0].manifest["spec"]["name"]))
        profiles.mkdir(parents=True, exist_ok=True)
        (profiles / f"{file.name}.yaml").write_text(dump_profile(file))
        record = read_record(folder, {file.name: file})
    assert file is not None
    return Part(folder.name, file, len(record.rounds), judge(record))


# --- the report -------------------------------------------------------------------------------------------------------


def report(parts: Sequence[Part]) -> str:
    lines: list[str] = []
    for part in parts:
        lines += [*_heading(part), "", *_errors(part), ""]
    return "\n".join([*lines, *_winners({part.name: part for part in parts})]).rstrip() + "\n"


def _heading(part: Part) -> list[str]:
    measured, fitted = part.profile.measured, part.profile.fit
    assert measured is not None
    assert fitted is not None
    rows = "; ".join(
        f"{kind}: {one.rows} rows, off by {one.mean_abs_pct:.1f} % (at most {one.max_abs_pct:.0f} %)"
        for kind, one in fitted.residuals.items()
    )
    terms = {name: value for name, value in part.profile.step.model_dump().items() if value}
    law = ", ".join(
        f"{name} {1e6 * value:.4g} us" if name.endswith("_s") else f"{name} {value:.3g}"
        for name, value in terms.items()
    )
    lines = [
        f"### {part.profile.name}",
        "",
        f"{measured.gpu}, driver {measured.driver}, {measured.vllm}, torch {measured.torch}, {measured.date}. "
        f"{part.rounds} calibration rounds. Fit by kind of step: {rows}.",
        "",
        f"Law: {law}.",
    ]
    if part.profile.link is not None:
        link = part.profile.link
        lines += ["", f"Link ({link.connector}): {link.bandwidth_gb_s:.3g} GB/s, set-up {1e3 * link.setup_s:.2f} ms."]
    return lines + [line for note in part.profile.notes for line in ("", f"Note: {note}.")]


def _errors(part: Part) -> list[str]:
    head = "| load | requests | statistic | predicted | measured | error | live's spread | within the aim |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for load in part.loads:
        tokens = load.comparison.tokens
        title = load.load + ("" if load.comparison.label == "predicted" else " (fitted)")
        title += "" if tokens.agrees else " (tokens differ)"
        known = {(one.metric, one.statistic): one for one in load.comparison.errors}
        for key in (key for key in SHOWN if key in known):
            lines.append(f"| {title} | {tokens.requests} | {_cells(known[key], ON_GPU.get(key))} |")
            title = ""
    for load in part.loads:
        if not load.comparison.tokens.agrees:
            lines += ["", f"{load.load}: {load.comparison.tokens.sentence()}."]
        doubts = dict.fromkeys(warning for run in load.measured for warning in run.manifest["warnings"])
        lines += [line for doubt in doubts for line in ("", f"{load.load}: {doubt}.")]
    missed = [load.load for load in part.loads if any(not within(one, aim) for one, aim in _aimed(load.comparison))]
    lines += [
        *highest(part.loads),
        "",
        f"Every aim is met in {len(part.loads) - len(missed)} of {len(part.loads)} loads.",
    ]
    return lines


def _aimed(comparison: Comparison) -> list[tuple[MetricError, float]]:
    return [(one, ON_GPU[key]) for one in comparison.errors if (key := (one.metric, one.statistic)) in ON_GPU]


def _cells(error: MetricError, aim: float | None) -> str:
    spread = "not repeated" if error.spread is None else f"{100 * error.spread:.1f} %"
    verdict = "" if aim is None else "yes" if within(error, aim) else f"no ({100 * aim:.0f} %)"
    values = f"{error.predicted:.4g} | {error.measured:.4g} | {100 * error.error:+.1f} %"
    return f"{label(error)} | {values} | {spread} | {verdict}"


def _winners(parts: dict[str, Part]) -> list[str]:
    """1P1D against two replicas on the same requests, as predicted and as measured."""
    if not all(name in parts for name in PAIRED):
        return []
    lines = ["### 1P1D against two replicas", "", "| load | statistic | predicted winner | measured winner |"]
    lines.append("|---|---|---|---|")
    first, second = ({load.load: load for load in parts[name].loads} for name in PAIRED)
    for name in (load for load in first if load in second):
        for key in (("ttft", "p50"), ("tpot", "p50"), ("e2e", "p50")):
            pair = [side[name].comparison.error(*key) for side in (first, second)]
            noise = max(one.spread or 0.0 for one in pair)
            predicted, measured = [one.predicted for one in pair], [one.measured for one in pair]
            agree = rank_agreement(predicted, measured, higher=False).same_winner
            close = abs(measured[0] / measured[1] - 1) <= noise
            lines.append(
                f"| {name} | {key[0].upper()} {key[1]} | {_winner(predicted)} "
                f"| {_winner(measured)}{'' if agree else ' (wrong)'}{' (within the spread)' if close else ''} |"
            )
    return lines


def _winner(pair: Sequence[float]) -> str:
    return f"{'aggregated' if pair[0] <= pair[1] else '1P1D'} ({pair[0]:.4g} against {pair[1]:.4g} ms)"


# --- files ------------------------------------------------------------------------------------------------------------


def write_docs(path: Path, text: str) -> None:
    """Between the marks; a file without them gets them at its end."""
    section = f"{BEGIN}\n{text}{END}\n"
    old = path.read_text() if path.exists() else "# Validation\n"
    if BEGIN in old and END in old:
        head, rest = old.split(BEGIN, 1)
        path.write_text(head + section + rest.split(END, 1)[1].lstrip("\n"))
    else:
        path.write_text(f"{old.rstrip()}\n\n## On the GPU\n\n{section}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--profiles", type=Path, help="default: RECORDS/profiles")
    parser.add_argument("--profile", help="judge this one instead of fitting")
    parser.add_argument("--ship", type=Path, help="a folder for small copies of the first run of each load")
    options = parser.parse_args()
    folders = [path for path in sorted(options.records.iterdir()) if any(path.glob("*-1/manifest.json"))]
    for path in folders:
        if not options.profile and not (path / "calibration-1").is_dir():
            print(
                f"{path.name}: left out, it has no calibration; --profile judges it with one that exists",
                file=sys.stderr,
            )
    folders = [path for path in folders if options.profile or (path / "calibration-1").is_dir()]
    if not folders:
        parser.error(f"{options.records} holds no part that can be judged")
    profiles = options.profiles or options.records / "profiles"
    parts = [judged(folder, profiles, options.profile) for folder in folders]
    text = report(parts)
    print(text)
    if options.docs:
        write_docs(options.docs, text)
    if options.ship:
        for part in parts:
            for load in part.loads:
                small(load.measured[0]).save(options.ship / part.name / load.load)


if __name__ == "__main__":
    main()
