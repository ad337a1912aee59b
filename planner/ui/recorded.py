"""Runs on GPUs that ship with the program, for machines that have none. They are always labelled as recorded."""

from __future__ import annotations

from pathlib import Path

from planner.run.tables import Run

FOLDER = Path(__file__).parent / "recordings"


def recorded_runs() -> dict[str, Path]:
    """Run folders by name; each has its simulation in `simulated`."""
    return {path.parent.name: path.parent for path in sorted(FOLDER.glob("*/manifest.json"))}


def about(run: Run) -> str:
    """Where, when and how a recorded run was made, as its manifest says."""
    return str(run.manifest.get("recorded", ""))
