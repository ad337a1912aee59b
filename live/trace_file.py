"""JSON lines that an engine writes beside its work."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger("vllm.planner")  # goes to the server's log


def of_rank(path: Path, rank: int) -> Path:
    """The file of one of a server's ranks, which are processes of their own; the first has the server's."""
    return path if rank == 0 else path.with_name(f"{path.name}.{rank}")


class TraceFile:
    """Lines in memory until `flush`. A disk that is full ends the recording, never the engine that it is about."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self.fault = ""  # why nothing more is written

    def write(self, record: dict[str, Any]) -> None:
        if not self.fault:
            self._lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> None:
        """Hand over what is there. Of a line that does not fit a part may be written, which readers know."""
        data = memoryview(b"".join(self._lines))
        self._lines.clear()
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self.fault = error.strerror or str(error)
            log.warning("steps are recorded no more: %s", self.fault)
