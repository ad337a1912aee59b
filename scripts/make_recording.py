"""Writes the recorded GPU runs that the browser shows where there is no GPU: measured requests and their prediction.

    python scripts/make_recording.py

Requests 80 to 159 of the served run in benchmarks/data, which the shipped profile has not seen; and two loads of
benchmarks/recorded/h200-llama-3.1-8b-served, one that its profile predicts well and one that it does not.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

from planner.backends import backend
from planner.engine.profiles import load_profile
from planner.messages import joined, message
from planner.run.tables import Run
from planner.system.resolve import resolve
from planner.traffic import workload
from planner.validation.recorded import spec_of

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "planner" / "ui" / "recordings"
FOLDER = RECORDINGS / "h200-llama-3.1-8b-aggregated"
SERVED = "h200-llama-3.1-8b-tp1-served"
LOADS = {
    "chat": message("{rate} req/s, {prompt} prompt and {output} output tokens on average (lognormal)", 10, 1155, 211),
    "short-high": message("{rate} req/s, {prompt} prompt and {output} output tokens", 24, 512, 256),
}
DAY = "2026-11-23"


def about(load: str, how: str) -> str:
    """What the browser says of a recording."""
    where = message(
        "One H200, Llama-3.1-8B shape with dummy weights, vLLM {version}, bf16, {load}, {day}.", "0.25.1", load, DAY
    )
    return joined(" ", [where, how])


ABOUT = about(
    message("{rate} req/s, {prompt} prompt and {output} output tokens", 4, 3000, 100),
    message("The profile was fitted on other requests (0 to 79) of the same run; these are 80 to 159."),
)
UNSEEN = message("The profile was fitted on the calibration of the same server; no load was fitted.")


def served(load: str) -> None:
    """A load as it was recorded, and what the profile of that server's calibration predicts."""
    measured = Run.load(ROOT / "benchmarks" / "recorded" / "h200-llama-3.1-8b-served" / f"{load}-1")
    spec = spec_of(measured, SERVED)
    folder = RECORDINGS / f"h200-llama-3.1-8b-{load}"
    replace(measured, manifest=measured.manifest | {"recorded": about(LOADS[load], UNSEEN)}).save(folder)
    simulated = backend("simulate").run(resolve(spec), workload.build(spec))
    replace(simulated, samples=simulated.samples.iloc[:0]).save(folder / "simulated")
    print(folder)


def main() -> None:
    for load in LOADS:
        served(load)
    found = importlib.util.spec_from_file_location("fit_h200", ROOT / "benchmarks" / "fit_h200.py")
    assert found is not None
    assert found.loader is not None
    study = importlib.util.module_from_spec(found)
    sys.modules["fit_h200"] = study  # dataclasses look their module up
    found.loader.exec_module(study)
    measured: Run = study.served_run(study.FITTED, 160)
    simulated: Run = study.part(study.simulated(load_profile(study.NAME).file), study.FITTED, 160)
    ids = set(measured.requests["request_id"])
    transfers = simulated.transfers[simulated.transfers["request_id"].isin(ids)]
    replace(measured, manifest=measured.manifest | {"recorded": ABOUT}).save(FOLDER)
    replace(simulated, samples=simulated.samples.iloc[:0], transfers=transfers).save(FOLDER / "simulated")
    print(FOLDER)


if __name__ == "__main__":
    main()
