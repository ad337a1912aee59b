"""Measures the parts of a plan one after another, unattended, on this machine, and keeps a record of each run.

    python benchmarks/gpu/campaign.py [PART ...] [--plan benchmarks/gpu/plan.yaml] [--out records] [--deadline 1300]

A part starts its servers once, calibrates, sends each load as often as the plan says, and stops its servers. A run is
in OUT/<part>/<load>-<number> as soon as it has ended; OUT/summary.jsonl has a line for everything that was done, and
for everything that was not: past the deadline (seconds from the start) nothing more begins, a load that lasts too long
is ended early and says so, and a part that fails leaves its error and makes way for the next.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from apart import send_apart
from begun import begun

from live.backend import FIRST_CALIBRATION
from live.launch import detect
from live.session import LiveSession
from planner.calibration.calibrate import calibrate
from planner.calibration.host_part import calibrate_host
from planner.calibration.load import PhasedLoad, plan
from planner.engine.profiles import dump_profile
from planner.run.tables import Progress, Run
from planner.spec import Spec, load
from planner.system.resolve import System, resolve
from planner.traffic import workload
from planner.traffic.requests import Load

START_LIMIT_S = 240.0  # servers that are not up by then will not be
LOAD_LIMIT_S = 75.0
CALIBRATION_LIMIT_S = 200.0  # of one round
STOP_S = 15.0  # kept free for stopping servers and writing records
ORDER_S = 5.0  # a load with less time than this is not begun
ENDS_S = 2.0  # after the seconds of a load that has begun before: its run is ended


class Clock:
    """Seconds since the campaign began, and how many are left."""

    def __init__(self, deadline_s: float) -> None:
        self._start, self._deadline_s = time.monotonic(), deadline_s

    @property
    def now(self) -> float:
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        return self._deadline_s - self.now


class Journal:
    """A line of JSON for each thing that happened, in a file and on standard output."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def note(self, **facts: Any) -> None:
        line = json.dumps({"t": round(self._clock.now, 1), **facts}, default=str)
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Interrupt what runs inside after `seconds`: a start of servers is cancelled, a load ends early and is kept."""
    timer = threading.Timer(max(seconds, 1.0), os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Recorder:
    """Sends loads through the servers of a part and writes each run. Also a backend of `planner calibrate`."""

    def __init__(self, session: LiveSession, folder: Path, clock: Clock, journal: Journal) -> None:
        self._session, self._folder, self._clock, self._journal = session, folder, clock, journal
        self.rounds = 0
        self.naming = "calibration-{}"  # of rounds

    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        """One round of a calibration."""
        self.rounds += 1
        repeat = FIRST_CALIBRATION + self.rounds
        return self.measure(system.spec, load, self.naming.format(self.rounds), repeat, CALIBRATION_LIMIT_S)

    def measure(
        self, spec: Spec, load: Load, name: str, repeat: int, limit_s: float = LOAD_LIMIT_S, last_only: bool = False
    ) -> Run:
        """`last_only`: of an answer's tokens the last one is kept, which tells how far it came."""
        self._session.system = replace(self._session.system, spec=spec)  # for the manifest, and the seed of contents
        begin = self._clock.now
        with limit(min(limit_s, self._clock.left - STOP_S)):
            run = self._session.measure(load, repeat=repeat, progress=lambda _stage, _done: None)
        if last_only:
            run = replace(run, tokens=run.tokens.drop_duplicates("request_id", keep="last"))
        save(run, self._folder / name)
        self._journal.note(run=f"{self._folder.name}/{name}", seconds=round(self._clock.now - begin, 1), **facts(run))
        return run


def facts(run: Run) -> dict[str, Any]:
    """What shows at once that a run is worth keeping."""
    table = run.requests
    done = table[table["finish_reason"].isin(["stop", "length"])]
    ttft = 1e3 * (done["first_token_s"] - done["arrival_s"])
    tpot = 1e3 * ((done["finish_s"] - done["first_token_s"]) / (done["output_tokens"] - 1).clip(lower=1))
    long = tpot[done["output_tokens"] > 1]
    return {
        "requests": len(table),
        "finished": len(done),
        "rate": round(len(done) / float(table["finish_s"].max()), 3) if len(table) else 0.0,
        "ttft_ms": [round(float(ttft.quantile(q)), 1) for q in (0.5, 0.99)] if len(done) else None,
        "tpot_ms": [round(float(long.quantile(q)), 2) for q in (0.5, 0.99)] if len(long) else None,
        "cached": int(done["cached_tokens"].fillna(0).sum()),
        "steps": len(run.steps),
        "transfers": len(run.transfers),
        "lag_p99_ms": round(1e3 * run.manifest["schedule_lag_s"]["p99_s"], 2),
        "interrupted": run.manifest["interrupted"],
        "warnings": run.manifest["warnings"],
    }


def save(run: Run, folder: Path) -> None:
    """Written beside and renamed, so that a folder with this name is whole."""
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)
    run.save(making)
    making.rename(folder)


def pack(path: Path) -> None:
    """Server logs and raw step traces, gzipped in place."""
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb", compresslevel=6) as small:
        shutil.copyfileobj(plain, small)
    path.unlink()


class Campaign:
    def __init__(self, parts: dict[str, dict[str, Any]], out: Path, deadline_s: float) -> None:
        self.parts, self.out = parts, out
        out.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(deadline_s)
        self.journal = Journal(out / "summary.jsonl", self.clock)
        self.failed: list[str] = []

    def run(self) -> None:
        runtime = detect()
        self.journal.note(runtime=runtime.kind, versions=runtime.versions(), gpus=len(runtime.gpus))
        for name, part in self.parts.items():
            if part["gpus"] > len(runtime.gpus):
                self.journal.note(part=name, skipped=f"needs {part['gpus']} GPUs, {len(runtime.gpus)} are here")
            elif self.clock.left < part["least_s"]:
                self.journal.note(part=name, skipped=f"{self.clock.left:.0f} s left, it needs {part['least_s']}")
            else:
                with self._guarded(name):
                    self._part(name, part)
        self.journal.note(done=True, failed=self.failed)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Whatever goes wrong inside is noted, and what comes next has its turn."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (a GPU's minutes cannot be had again)
            self.failed.append(name)
            self.journal.note(part=name, error=f"{type(error).__name__}: {error}", trace=traceback.format_exc()[-3000:])

    def _part(self, name: str, part: dict[str, Any]) -> None:
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        specs = {
            key: load(part["config"], [*part["set"], f"workload={json.dumps(one)}"])
            for key, one in part["loads"].items()
        }
        session = LiveSession(
            resolve(next(iter(specs.values()))),
            folder / "logs",
            server_options=part.get("options", ()),
            progress=self._progress(name),
        )
        begin = self.clock.now
        try:
            with limit(min(START_LIMIT_S, self.clock.left - STOP_S)):
                session.__enter__()
            try:
                blocks = [worker.kv_blocks for worker in session.workers]
                self.journal.note(part=name, up_s=round(self.clock.now - begin, 1), blocks=blocks)
                self._measure(part, specs, session, folder)
            finally:
                session.__exit__(None, None, None)
        finally:
            for log in (folder / "logs").glob("*"):
                pack(log)
        self.journal.note(part=name, seconds=round(self.clock.now - begin, 1))

    def _measure(self, part: dict[str, Any], specs: dict[str, Spec], session: LiveSession, folder: Path) -> None:
        recorder = Recorder(session, folder, self.clock, self.journal)
        if "calibrate" in part:
            with self._guarded(f"{folder.name}/calibrate"):
                self._calibrate(session, recorder, part["calibrate"], folder)
        if "host" in part:
            with self._guarded(f"{folder.name}/host"):
                self._host(session, recorder, part["host"], folder)
        contents = count(1)  # of its own for every run: with another load's, the prefix cache would be warm
        for number in range(1, part["repeats"] + 1):
            for key, spec in specs.items():
                run = f"{key}-{number}"
                if self.clock.left < STOP_S + ORDER_S:
                    self.journal.note(part=folder.name, skipped=run)
                    continue
                with self._guarded(f"{folder.name}/{run}"):
                    if (wanted := part.get("begun", {}).get(key)) is not None:
                        if part.get("apart"):
                            session.send = send_apart
                        limit_s = wanted["seconds"] + ENDS_S
                        recorder.measure(spec, begun(spec, wanted), run, next(contents), limit_s, last_only=True)
                    else:
                        recorder.measure(spec, workload.build(spec), run, next(contents))

    def _calibrate(self, session: LiveSession, recorder: Recorder, wanted: dict[str, Any], folder: Path) -> None:
        """`planner calibrate` on servers that stay up; its rounds are kept even where the fit fails."""
        begin = self.clock.now
        spec = session.system.spec.model_copy(update={"profile": None})
        system = resolve(spec)  # planned by the roofline, as for an engine that nobody has measured
        pools = zip(system.pools, session.system.pools, strict=True)
        system = replace(system, pools=tuple(replace(pool, limits=own.limits) for pool, own in pools))
        found = calibrate(system, recorder, name=spec.name, seconds=wanted["seconds"], rounds=wanted["rounds"])
        (folder / "profile.yaml").write_text(dump_profile(found.file))
        self.journal.note(
            calibrated=folder.name,
            seconds=round(self.clock.now - begin, 1),
            rounds=recorder.rounds,
            noise=round(found.noise, 4),
            unstable=found.unstable,
            step=found.file.step.model_dump(),
            host=found.file.host.model_dump(),
            link=found.file.link.model_dump() if found.file.link else None,
            notes=found.file.notes,
        )
        while recorder.rounds < wanted["rounds"]:  # more than the fit asked for, to see its spread
            recorder.run(system, PhasedLoad(plan(system, wanted["seconds"])))

    def _host(self, session: LiveSession, recorder: Recorder, wanted: dict[str, Any], folder: Path) -> None:
        """`planner calibrate --host` with the spec's profile. Its rounds are no loads: folders `host.1`, ..."""
        begin = self.clock.now
        file = session.system.pools[0].profile.file
        assert file is not None
        recorder.naming = "host.{}"
        found = calibrate_host(session.system, recorder, file, seconds=wanted["seconds"], rounds=wanted["rounds"])
        (folder / "profile-host.yaml").write_text(dump_profile(found.file))
        self.journal.note(host=folder.name, seconds=round(self.clock.now - begin, 1), unstable=found.unstable)

    def _progress(self, name: str) -> Progress:
        def update(stage: str, done: float) -> None:
            self.journal.note(part=name, stage=stage, done=round(done, 2))

        return update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="default: all of the plan")
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.yaml"))
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--deadline", type=float, default=1300.0, help="seconds from now on")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    plan: dict[str, dict[str, Any]] = yaml.safe_load(options.plan.read_text())
    known = {name: part for name, part in plan.items() if "loads" in part}  # the others hold what several share
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; allowed: {', '.join(known)}")
    campaign = Campaign({name: known[name] for name in options.parts or known}, options.out, options.deadline)
    campaign.run()
    sys.exit(1 if campaign.failed else 0)


if __name__ == "__main__":
    main()
