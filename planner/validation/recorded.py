"""Recorded live runs judged again: what each calibration predicts of loads that it has not seen.

A record is a folder. `calibration-1/`, `calibration-2/`, ... are the runs that a profile is fitted on; `profile.yaml`
or `profile-NAME.yaml` are profiles as they are, judged too, like those that ship and that `record.yaml` names. Every
other `LOAD-1/`, `LOAD-2/`, ... is one load, served again and again, whose repeats give live's own spread.
`record.yaml` may hold a title, notes and how to read it. A run folder by itself is a record of one load under the
profile that its spec names.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from planner.backends import backend
from planner.calibration.calibrate import fit, with_link
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import dump_profile, load_profile
from planner.run.tables import Run, frame
from planner.spec import Node, Spec, SpecError, parse
from planner.spec.faults import validate as checked
from planner.spec.strict_yaml import read_mapping, read_text
from planner.system.resolve import resolve
from planner.traffic import workload
from planner.traffic.requests import Arrival, Load, Request
from planner.validation.parity import Comparison, compare, fingerprint

NUMBERED = re.compile(r"(.+)-(\d+)")
CALIBRATION = "calibration"
TIME_DIGITS = 5  # of shipped copies: 10 us


class Reading(Node):
    """record.yaml."""

    title: str | None = None
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    against: str | None = None  # a record that serves the same loads in another way
    wire: str | None = None  # what carried the KV: the record belongs to the table of wires
    profiles: dict[str, str | None] = {}  # judged too: name -> one that ships, null: the spec's
    replay: bool = False  # send the recorded requests at their times instead of the spec's workload
    slices: dict[str, Annotated[tuple[int, int], Field(strict=False)]] = {}  # name -> first and last request to compare


@dataclass(frozen=True)
class Record:
    name: str
    reading: Reading
    profiles: dict[str, ProfileFile | None]  # by name; None: the one that the run's spec names
    rounds: tuple[Run, ...]  # of calibration
    loads: dict[str, tuple[Run, ...]]

    @property
    def title(self) -> str:
        return self.reading.title or self.name


@dataclass(frozen=True)
class Judged:
    """One load (or a slice of it) under one profile. `simulated` is what the profile predicts."""

    load: str
    profile: str
    measured: tuple[Run, ...]
    simulated: Run
    comparison: Comparison


@dataclass(frozen=True)
class Recorded:
    """The requests of a run at their times, each with content of its own."""

    arrivals: tuple[Arrival, ...]

    @property
    def expected_requests(self) -> int:
        return len(self.arrivals)

    def start(self) -> list[Arrival]:
        return list(self.arrivals)

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        return []


def small(run: Run) -> Run:
    """A copy to ship: times to 10 us, no samples, no token times. It names its original, for what was fitted on it."""

    def rounded(name: str) -> object:
        table = getattr(run, name)
        return table.assign(**{one: table[one].round(TIME_DIGITS) for one in table if table[one].dtype == "float64"})

    tables = {name: rounded(name) for name in ("requests", "steps", "transfers")}
    sources = [fingerprint(run), *run.manifest.get("sources", ())]
    manifest = run.manifest | {"logs": None, "sources": sources}
    return Run(**tables, samples=frame("samples"), tokens=frame("tokens"), manifest=manifest)  # type: ignore[arg-type]


def read_record(folder: Path, profiles: dict[str, ProfileFile | None] | None = None) -> Record:
    """Raises SpecError when the folder holds no runs, or no calibration and no profile. `profiles` replace both."""
    if (folder / "manifest.json").is_file():
        run = Run.load(folder)
        if run.manifest.get("provenance") != "measured":
            raise SpecError(
                "{folder}: a {provenance} run; allowed: a measured one", folder, run.manifest.get("provenance")
            )
        name = str((run.manifest.get("spec") or {}).get("name", folder.name))
        if "spec_yaml" not in run.manifest:
            raise SpecError(
                "{folder}: does not say which deployment was measured; allowed: planner results FILE CONFIG", folder
            )
        reading = Reading(replay=bool(run.manifest.get("replay")))  # of another tool: its requests are sent again
        return Record(name, reading, {"its spec's": None}, (), {name: (run,)})
    runs: dict[str, dict[int, Run]] = defaultdict(dict)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = NUMBERED.fullmatch(path.name)
        if found and (path / "manifest.json").is_file():
            runs[found[1]][int(found[2])] = Run.load(path)
    ordered = {name: tuple(runs[name][number] for number in sorted(runs[name])) for name in sorted(runs)}
    rounds = ordered.pop(CALIBRATION, ())
    if not ordered:
        raise SpecError(
            "{folder}: holds no loads; allowed: a run folder, or one with folders LOAD-1, LOAD-2, ...", folder
        )
    path = folder / "record.yaml"
    reading = checked(Reading, read_mapping(read_text(path), str(path)), str(path)) if path.is_file() else Reading()
    profiles = profiles or _profiles(folder, rounds, reading)
    if not profiles:
        raise SpecError(
            "{folder}: holds no calibration-1 and no profile.yaml, and record.yaml names no profiles; allowed: one of "
            "them beside the loads",
            folder,
        )
    return Record(folder.name, reading, profiles, rounds, ordered)


def _profiles(folder: Path, rounds: tuple[Run, ...], reading: Reading) -> dict[str, ProfileFile | None]:
    """The calibration fitted again, the profiles that the folder holds, and those that its record names."""
    fitted: dict[str, ProfileFile | None] = {}
    if rounds:
        fitted["calibration"] = fit(resolve(replay_spec(rounds[0])), rounds, folder.name)
    files = {path.stem.partition("-")[2] or "profile": path for path in sorted(folder.glob("profile*.yaml"))}
    named = {name: str(path) for name, path in files.items()} | reading.profiles
    return fitted | {name: None if of is None else load_profile(of).file for name, of in named.items()}


def replay_spec(run: Run, profile: str | None = None, keep: bool = False) -> Spec:
    """The spec that a run was made with, its KV blocks as the engines reported them (with vLLM's null block)."""
    overrides = [] if keep else [f"profile={profile or 'null'}"]
    blocks = run.manifest.get("kv_blocks") or {}
    if blocks:
        overrides += [
            f"engine.num_gpu_blocks_override={min(blocks.values()) + 1}",
            "engine.kv_cache_memory_bytes=null",
        ]
    return parse(run.manifest["spec_yaml"], "spec_yaml", overrides)


def predicted_run(run: Run, file: ProfileFile | None, replay: bool) -> Run:
    """What the simulator says of the run's requests, with the profile or (None) the one that its spec names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.yaml"
        if file is not None:
            path.write_text(dump_profile(file))
        spec = replay_spec(run, str(path), keep=file is None)
        system = resolve(with_link(spec, file) if file is not None else spec)
    load: Load = recorded_load(run) if replay else workload.build(spec)
    return backend("simulate").run(system, load)


def recorded_load(run: Run) -> Recorded:
    names = ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "max_tokens")
    arrivals = []
    for number, time_s, prompt, output, most in run.requests[list(names)].itertuples(index=False):
        content = ((int(number), int(prompt)),)
        request = Request(int(number), int(number), int(prompt), int(output), int(most), content, 0, -1 - int(number))
        arrivals.append(Arrival(float(time_s), request))
    return Recorded(tuple(arrivals))


def judge(record: Record) -> tuple[Judged, ...]:
    """Every load under every profile, against its first run; the others give the spread."""
    found = []
    for load, measured in record.loads.items():
        for name, file in record.profiles.items():
            simulated = predicted_run(measured[0], file, record.reading.replay)
            slices: dict[str, tuple[int, int] | None] = {**record.reading.slices} or {load: None}
            for label, ends in slices.items():
                ours, *theirs = (_cut(run, ends) for run in (simulated, *measured))
                comparison = compare(ours, theirs[0], repeats=theirs[1:], fitted_on=_hashes(simulated, file))
                found.append(Judged(label, name, tuple(theirs), ours, comparison))
    return tuple(found)


def _hashes(simulated: Run, file: ProfileFile | None) -> frozenset[str]:
    if file is None:
        return frozenset(simulated.manifest.get("fitted_on", ()))
    return frozenset(source.sha256 for source in file.fitted_on)


def _cut(run: Run, ends: tuple[int, int] | None) -> Run:
    """Requests of the slice only; a slice is fitted on where its own hash is among the run's `slices`."""
    if ends is None:
        return run
    own = run.manifest.get("slices", {}).get(f"{ends[0]}-{ends[1]}", [])
    requests = run.requests[run.requests["request_id"].between(*ends)]
    return replace(run, requests=requests, steps=run.steps.iloc[:0], manifest=run.manifest | {"sources": own})
