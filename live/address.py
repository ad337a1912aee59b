"""Where a worker listens."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from planner.system.resolve import Role


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One engine server. `kv_events` is the endpoint string that the engine's event publisher was given."""

    name: str  # aggregated-0, prefill-1, decode-0: the names of planner.system.resolve
    role: Role
    url: str  # http://127.0.0.1:8100
    kv_events: str | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "127.0.0.1"
