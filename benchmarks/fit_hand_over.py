"""The profile and the link of a measured pair, from the recorded calibration rounds of one host.

    python benchmarks/fit_hand_over.py FOLDER --name NAME --out FILE [--servers RECORD ...]
        [--beside RECORD] [--also NAME ...] [--into PROFILE] [--wide RECORD]
    python benchmarks/fit_hand_over.py FOLDER/tp2 --name NAME --out FILE     one deployment: its own rounds, no more

FOLDER holds a folder a deployment, each with its calibration rounds: pair-agg (replicas: steps and host times, with
prompts beside decodes), pair-pull (hand-overs, decode steps beside a connector, how a warm GPU slows prompts),
pair-push (how far servers are from each other). `planner calibrate` on a pair fits the same terms by the same code; a
pair alone shows no step in which prompts join decodes.
How far servers are from each other is that of the three and of RECORDs of the same engine (records with calibrations).
Prompts beside up to 32 sequences do not tell what decodes add: with --beside (and --into) the terms of prompts and of
decodes beside them are fitted to the rounds of replicas and to those of a RECORD with hundreds of such steps, at up to
256 sequences; a pair's own prompts are those of its rounds. KV beside prompts is read as by decodes. Of a profile of
TP 2 RECORD alone is taken.
Rounds of 60 s ended at 32 decodes. With --wide (and --into) decode terms are fitted together to the rounds and to a
RECORD: folders of servers with up to 600 decodes (benchmarks/gpu/wide.py: `plain-1`, `connected-1`, `tp2-1`, ...) and
`pair-pull`, a round with up to 232. The former draw tokens at random, from GPUs hot with prompts, which rounds of pairs
do not: what they take more a sequence is fitted beside, to engines with a connector, which have both. Of replicas it is
taken out beyond a tile of rows; below, their loads show none of it. `--into` a profile of TP 2 takes FOLDER/tp2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from planner.calibration.calibrate import HALF, _fit_apart, fit, graph_sizes, one_pool, roof_of, rows_of
from planner.calibration.calibrate import sources as sources_of
from planner.calibration.fitting import SYNC, Fitted, digits, fit_step, law_of, predict, record
from planner.calibration.spread import spread_of
from planner.engine.law import StepLaw, bounds, of_part, shapes
from planner.engine.profile_file import Fit, ProfileFile, Source
from planner.engine.profiles import dump_profile, load_profile
from planner.run.tables import Run
from planner.spec import parse
from planner.system.resolve import Pool, resolve


def of(folder: Path, name: str) -> ProfileFile:
    runs = [Run.load(path.parent) for path in sorted(folder.glob("calibration-*/manifest.json"))]
    return fit(resolve(parse(runs[0].manifest["spec_yaml"])), runs, name)


CONNECTED = (*of_part("decode", "context"), "decode_wave_seqs", "decode_wave_tail")
PROMPTS = ("prefill_s", "prefill_per_token_s", "prefill_many_per_token_s", "prefill_per_pair_s")
BESIDE = ("mixed_per_seq_s",)
BESIDE_NOTE = "terms of prompts and of decodes beside them are of another server with larger batches, too"
NOTE = "decode terms are fitted to steps of up to 512 sequences of other servers, too"
MANY = 512  # sequences: the unit of what they take more, which stands where synchronous steps have their overhead


def terms_of(step: StepLaw) -> dict[str, float]:
    """Those of a decode engine beside a connector."""
    return {name: digits(value) for name in CONNECTED if (value := getattr(step, name))}


def of_pair(pull: ProfileFile) -> dict[str, object]:
    """What a profile of replicas has of the pair."""
    connected = terms_of(pull.step) | {name: getattr(pull.step, name) for name in PROMPTS}
    return {
        "connected": connected,
        "warm_slowing": pull.warm_slowing,
        "rested": True if pull.warm_slowing is not None else None,
        "link": pull.link,
        "hand_over": pull.hand_over,
    }


def with_terms(file: ProfileFile, law: StepLaw, fit: Fit, names: tuple[str, ...]) -> ProfileFile:
    """With terms of another fit, and what it knows of them."""
    assert file.fit is not None
    own = file.fit
    taken = [name for name in fit.parameters if name in names]
    everything = (*own.parameters, *(name for name in taken if name not in own.parameters))
    covariance = pd.DataFrame(0.0, everything, everything)
    covariance.loc[list(own.parameters), list(own.parameters)] = np.array(own.covariance)
    covariance.loc[taken, :] = 0.0
    covariance.loc[:, taken] = 0.0
    covariance.loc[taken, taken] = pd.DataFrame(fit.covariance, fit.parameters, fit.parameters).loc[taken, taken]
    errors = {name: error for name, error in fit.standard_errors.items() if name in names}
    known = own.model_copy(
        update={
            "parameters": everything,
            "standard_errors": own.standard_errors | errors,
            "covariance": tuple(tuple(row) for row in covariance.to_numpy().tolist()),
        }
    )
    step = file.step.model_copy(update={name: digits(getattr(law, name)) for name in names})
    return file.model_copy(update={"step": step, "fit": known})


@dataclass(frozen=True)
class Widened:
    """Decode terms of rounds and of decode steps of hundreds of sequences, up to the largest CUDA graph's."""

    law: StepLaw
    fit: Fit
    more_s: float  # that a sequence takes in steps of `wide`
    most: int


def _possible(pool: Pool, rows: pd.DataFrame) -> pd.DataFrame:
    """Those that the GPU can be as fast as."""
    least = predict(bounds(roof_of(pool)).model_dump() | shapes(roof_of(pool)), rows)
    return rows[(rows["posting"] == 0) & (rows["seconds"] > HALF * least)]


def widened(folders: Sequence[Path], wide: Sequence[Run], more_s: float | None = None) -> Widened:
    """`more_s` where it is known; else it is fitted."""
    rows = []
    for folder in folders:
        runs = [Run.load(path.parent) for path in sorted(folder.glob("calibration-*/manifest.json"))]
        system = resolve(parse(runs[0].manifest["spec_yaml"]))
        pool = one_pool(system)
        rows.append(_possible(pool, _fit_apart(system, pool, runs).rows))
    sizes, given = graph_sizes(pool), shapes(roof_of(pool))
    for run in wide:
        some = rows_of([run], sizes, given=given)
        some = some[(some["mixed_steps"] == 0) & (some["decode_seqs"] <= max(sizes))]
        if more_s is None:
            rows.append(some.assign(sync=some["decode_seqs"] * some["decode_steps"] / MANY))
        else:
            rows.append(some.assign(known_s=more_s * some["decode_wide"]))
    fitted = fit_step(pd.concat(rows, ignore_index=True), bound=bounds(roof_of(pool)), floored=False, given=given)
    fit = record(fitted, "relative residuals, soft_l1; covariance of an M-estimator")
    found = fitted.values[SYNC] / MANY if more_s is None else more_s
    return Widened(law_of(fitted), fit, found, max(sizes))


def _source(run: Run) -> Source:
    name, when = run.manifest["spec"]["name"], run.manifest["started_at"]
    return Source(what=f"{len(run.steps)} steps, {name}, {when}", sha256=run.manifest["sources"][0])


def with_wide(file: ProfileFile, folder: Path, wide: Path) -> ProfileFile:
    """The profile with decode terms that hold for hundreds of sequences."""
    assert file.fit is not None
    assert file.validity is not None
    runs = {
        kind: [Run.load(path) for path in sorted(wide.glob(f"{kind}-*")) if (path / "steps.parquet").is_file()]
        for kind in ("plain", "connected", "tp2")
    }
    beside = widened((folder / "pair-pull", wide / "pair-pull"), runs["connected"])
    print(f"{1e6 * beside.more_s:.2f} us more a sequence", beside.fit.residuals)
    kind, part = ("tp2", "tp2") if file.tp == 2 else ("plain", "pair-agg")
    found = widened((folder / part,), runs[kind], beside.more_s)
    written = with_terms(file, found.law, found.fit, CONNECTED)
    assert written.fit is not None
    sources = [_source(run) for run in (*runs[kind], *(runs["connected"] if file.connected else ()))]
    if file.connected:
        round_of = [Run.load(path.parent) for path in sorted((wide / "pair-pull").glob("calibration-*/manifest.json"))]
        sources += [_source(run) for run in round_of]
    residuals = written.fit.residuals | {"decode": found.fit.residuals["decode"]}
    return written.model_copy(
        update={
            "connected": {**file.connected, **terms_of(beside.law)} if file.connected else None,
            "validity": file.validity.model_copy(update={"batch": (1, found.most)}),
            "fit": written.fit.model_copy(update={"residuals": residuals}),
            "fitted_on": (*file.fitted_on, *sources),
            "notes": (*file.notes, NOTE),
        }
    )


def with_prompts(file: ProfileFile, folder: Path, beside: Path) -> ProfileFile:
    """The profile with terms of prompts, and of decodes beside them, that hold for hundreds of sequences.

    Of a pair the prompts are those of its own rounds and of both records of replicas, which count alike: servers differ
    by 4 %, and lonely prompts of a calibration are quicker than those of a load.
    """
    assert file.fit is not None
    pair = file.connected is not None
    rows, sources = list[pd.DataFrame](), list[Source]()
    for path in (folder / "pair-agg", beside) if pair else (beside,):
        runs, pool, found = _rows(path)
        rows.append(found)
        sources += sources_of(runs)
    fitted = _fitted(pool, rows)
    fit = record(fitted, file.fit.method)
    law = law_of(fitted).model_copy(update={"mixed_per_context_s": file.step.decode_per_context_s})
    written = with_terms(file, law, fit, (*PROMPTS, *BESIDE, "mixed_per_context_s"))
    assert written.fit is not None
    kinds = {kind: fit.residuals[kind] for kind in ("mixed", "prefill")}
    known = written.fit.model_copy(
        update={
            "residuals": written.fit.residuals | kinds,
            "ties": {"mixed_per_context_s": "decode_per_context_s"},
        }
    )
    known_of: dict[str, object] = {"warm_slowing": pool.hardware.warm_slowing}
    notes = file.notes
    if file.connected is not None:
        own = [one[one["mixed_steps"] > 0] for one in (_rows(folder / "pair-pull")[2], *rows)]
        least = min(map(len, own))
        decodes = [one[one["mixed_steps"] == 0] for one in rows]
        alike = _fitted(pool, [*decodes, *(_thinned(one, least) for one in own)]).values
        connected = file.connected | {name: digits(alike[name]) for name in PROMPTS}
        known_of |= {"rested": True, "connected": connected}
        notes = (*(note for note in notes if "add to a step with prompts" not in note), BESIDE_NOTE)
    here = {source.sha256 for source in file.fitted_on}
    return written.model_copy(
        update={
            "fit": known,
            **known_of,
            "fitted_on": (*file.fitted_on, *(source for source in sources if source.sha256 not in here)),
            "notes": tuple(dict.fromkeys(notes)),
        }
    )


def _rows(path: Path) -> tuple[list[Run], Pool, pd.DataFrame]:
    """The rounds of a server, its pool, and the rows that its law is fitted to."""
    runs = [Run.load(round_of.parent) for round_of in sorted(path.glob("calibration-*/manifest.json"))]
    system = resolve(parse(runs[0].manifest["spec_yaml"]))
    pool = one_pool(system)
    return runs, pool, _possible(pool, _fit_apart(system, pool, runs).rows)


def _fitted(pool: Pool, rows: Sequence[pd.DataFrame]) -> Fitted:
    given, bound = shapes(roof_of(pool)), bounds(roof_of(pool))
    return fit_step(pd.concat(rows, ignore_index=True), bound=bound, floored=False, given=given)


def _thinned(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many of them, evenly over their prompt tokens."""
    ordered = rows.sort_values("prefill_tokens", kind="stable")
    return ordered.iloc[np.linspace(0, len(ordered) - 1, count).round().astype(int)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--servers", type=Path, nargs="*", default=[])
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--also", nargs="*", help="profiles of the same engine at other TP sizes")
    parser.add_argument("--into", type=Path, help="a profile whose terms of a pair alone are fitted anew")
    parser.add_argument("--wide", type=Path, help="... or its decode terms, to this record as well")
    given = parser.parse_args()
    if list(given.folder.glob("calibration-*")):
        alone = of(given.folder, given.name).model_copy(update={"also": given.also and tuple(given.also)})
        given.out.write_text(dump_profile(alone), encoding="utf-8")
        return
    for more, record_of in ((with_wide, given.wide), (with_prompts, given.beside)):
        if record_of is None:
            continue
        if not given.into:
            parser.error("--wide and --beside need --into")
        narrow = load_profile(str(given.into)).file
        assert narrow is not None
        given.out.write_text(dump_profile(more(narrow, given.folder, record_of)), encoding="utf-8")
        return
    if given.into:
        file, pull = load_profile(str(given.into)).file, of(given.folder / "pair-pull", given.name)
        assert file is not None
        assert file.hand_over is not None
        assert pull.hand_over is not None, "the rounds with pull show no transfers"
        checked = {key: getattr(file.hand_over, key) for key in ("pull_block_sizes", "push_block_sizes")}
        told = {"hand_over": pull.hand_over.model_copy(update=checked)}
        given.out.write_text(dump_profile(file.model_copy(update=of_pair(pull) | told)), encoding="utf-8")
        return
    replicas, pull, push = (of(given.folder / name, given.name) for name in ("pair-agg", "pair-pull", "pair-push"))
    for pair in (pull, push):
        assert pair.fit is not None
        print(pair.link, pair.hand_over, pair.fit.residuals, *pair.notes, sep="\n")
    assert pull.hand_over is not None, "the rounds with pull show no transfers"
    servers = [replicas, pull, push, *(of(path, given.name) for path in given.servers)]
    sources, notes = (*replicas.fitted_on, *pull.fitted_on, *push.fitted_on), replicas.notes
    told = (
        "steps and host times are those of two replicas, hand-overs, and decode steps beside a connector, those of a "
        "pair with pull on the same host"
    )
    written = replicas.model_copy(
        update={
            "also": given.also and tuple(given.also),
            **of_pair(pull),
            "spread": spread_of(servers, "servers"),
            "fitted_on": sources,
            "notes": (*notes, told),
        }
    )
    given.out.write_text(dump_profile(written), encoding="utf-8")


if __name__ == "__main__":
    main()
