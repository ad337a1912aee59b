"""A live run against the simulation of it: how long it takes, what is simulated, and the comparison of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.backends import backend
from planner.engine.profiles import dump_profile, from_file
from planner.run.tables import Progress, Run
from planner.spec import Spec
from planner.system.resolve import System, host_warnings, resolve
from planner.traffic import workload
from planner.traffic.requests import WithLengths
from planner.validation import parity

if TYPE_CHECKING:
    from live.session import LiveSession

START_S = {"cpu": 45, "gpu": 100}  # seconds until servers are up and warm, as seen with small and 8B models
STOP_S = 5
# What a calibration takes here; its phases are planned for less, because the roofline that plans them is too fast.
CALIBRATION_S = {"cpu": 90, "gpu": 200}
PLANNED_SHARE = {"cpu": 0.2, "gpu": 0.6}


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a live run takes, in seconds."""

    servers_s: int  # start and stop; 0 for servers that run already
    calibration_s: int
    load_s: float  # of one repeat; the load's length is the simulator's
    requests: int
    repeats: int

    @property
    def total_s(self) -> float:
        return self.servers_s + self.calibration_s + self.repeats * self.load_s


def estimate(system: System, spec: Spec, repeats: int, *, elsewhere: bool, calibrates: bool) -> Estimate:
    """`elsewhere`: on servers that run already."""
    simulated = backend("simulate").run(system, workload.build(spec)).requests
    kind = system.pools[0].hardware.kind
    return Estimate(
        servers_s=0 if elsewhere else START_S[kind] + STOP_S,
        calibration_s=CALIBRATION_S[kind] if calibrates else 0,
        load_s=float(simulated["finish_s"].max()),
        requests=len(simulated),
        repeats=repeats,
    )


def calibrated(system: System) -> bool:
    """Whether the step times of all pools were measured."""
    return all(pool.profile.provenance == "calibrated" for pool in system.pools)


def predictor(session: LiveSession, calibrate: bool, folder: Path | None, progress: Progress) -> System:
    """The system to simulate: with the KV blocks that the engines report, and a profile of this machine.

    Where the spec's profile is a roofline, or of another GPU, one is measured first if `calibrate`, on other contents
    than the load's, and kept as profile.yaml in `folder`.
    """
    from live.manifest import other_hardware

    foreign = session.runtime is not None and other_hardware(session.system, session.runtime) is not None
    if not calibrate or session.endpoints or (calibrated(session.system) and not foreign):
        return session.system
    from live.backend import SessionBackend
    from live.session import with_reported_blocks
    from planner.calibration.calibrate import calibrate as measure
    from planner.calibration.calibrate import with_link

    kind = session.system.pools[0].hardware.kind
    seconds = CALIBRATION_S[kind] * PLANNED_SHARE[kind]
    found = measure(session.system, SessionBackend(session), seconds=seconds, rounds=2, progress=progress)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "profile.yaml").write_text(dump_profile(found.file))
    profile = from_file(found.file)
    spec = with_link(session.system.spec, found.file)
    system = with_reported_blocks(resolve(spec), session.workers)
    pools = []
    for pool in system.pools:
        limits = pool.limits
        fitted = profile.for_engine(pool.engine, limits.max_num_seqs, limits.max_num_batched_tokens)
        pools.append(replace(pool, profile=fitted))
    roofline = host_warnings(system.pools)
    known = [text for text in system.warnings if text not in roofline]
    warnings = (*known, *host_warnings(tuple(pools)), *found.file.notes)
    return replace(system, pools=tuple(pools), warnings=warnings)


def compare(system: System, spec: Spec, runs: Sequence[Run]) -> tuple[Run, parity.Comparison]:
    """The simulation of the requests that were measured, and how far it is off; `runs` are repeats of one load."""
    load = WithLengths(workload.build(spec), _lengths(runs[0]))
    simulated = backend("simulate").run(system, load)
    if load.changed:
        what = f"{load.changed} requests are simulated with the prompt and output tokens that the servers made of them"
        simulated.manifest["warnings"].append(what)
    hashes = frozenset(one for pool in system.pools for one in pool.profile.fitted_hashes)
    return simulated, parity.compare(simulated, runs[0], repeats=runs[1:], fitted_on=hashes)


def _lengths(run: Run) -> dict[int, tuple[int, int]]:
    """(prompt, output) tokens of the finished requests by their id, as the servers counted them."""
    done = run.requests[run.requests["finish_reason"].isin(["stop", "length"])]
    rows = zip(done["request_id"], done["prompt_tokens"], done["output_tokens"], strict=True)
    return {int(key): (int(prompt), int(output)) for key, prompt, output in rows if prompt > 0 and output > 0}
