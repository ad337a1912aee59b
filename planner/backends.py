"""The one protocol of both backends, chosen lazily so that neither is imported before it is needed."""

from __future__ import annotations

from typing import Literal, Protocol

from planner.run.tables import Progress, Run
from planner.system.resolve import System
from planner.traffic.requests import Load


class Backend(Protocol):
    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        """Serve every request of `load` on `system`; each ends exactly once."""
        ...


def backend(mode: Literal["simulate", "live"]) -> Backend:
    """The simulator or the live executor. Raises ImportError naming the install command when it is missing."""
    if mode == "simulate":
        from simulator.backend import SimulatorBackend

        return SimulatorBackend()
    from live.needs import need

    need(servers=True)
    from live.backend import LiveBackend

    return LiveBackend()
