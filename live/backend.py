"""The live executor as a backend: servers are started for one run and stopped after it."""

from __future__ import annotations

from pathlib import Path

from live.session import LiveSession
from planner.run.tables import Progress, Run
from planner.system.resolve import System
from planner.traffic.requests import Load

FIRST_CALIBRATION = 1000  # repeat numbers from here on are calibrations


class LiveBackend:
    """Real servers as a backend: started for the run and stopped after it."""

    def __init__(self, folder: Path | None = None, *, weights_seed: int | None = None) -> None:
        self._folder, self._weights_seed = folder, weights_seed

    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        """Serve a load on servers started here. Raises LiveError, SpecError, or ImportError without vLLM."""
        with LiveSession(system, self._folder, weights_seed=self._weights_seed, progress=progress) as session:
            return session.measure(load)


class SessionBackend:
    """Servers that are up already, as a backend: each run has contents of its own, unlike those of any repeat."""

    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self._runs = 0

    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        """Serve a load on the session's servers. Raises KeyboardInterrupt when it was stopped."""
        self._runs += 1
        run = self._session.measure(load, repeat=FIRST_CALIBRATION + self._runs, progress=progress)
        if run.manifest["interrupted"]:
            raise KeyboardInterrupt
        return run
