"""The rows of a measured run as they come, so that what has been measured outlives whatever ends the measuring.

A file of JSON lines: the manifest as far as it is known when the load begins, then one line for each request that has
ended. It goes when the run is saved; a folder that has it and no manifest holds a run that was cut off.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from planner.messages import message
from planner.run.tables import REQUEST_COLUMNS, Run, frame
from planner.spec.strict_yaml import SpecError

NAME = "unfinished.jsonl"


class Journal:
    """Writes the lines; each is with the operating system when `add` returns. A context manager.

    `fault` says why it had to stop (no room); the run itself goes on.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.fault = folder / NAME, ""
        self._file = self.path.open("w", encoding="utf-8")
        self._write({"manifest": manifest})

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as full:  # what was buffered when there was no room
            self.fault = self.fault or str(full)

    def add(self, row: dict[str, Any]) -> None:
        """A request that has ended: columns of the requests table, unknown ones left out."""
        if not self.fault:
            self._write(row)

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            self.fault = error.strerror or str(error)


def recover(folder: Path) -> Run:
    """The run that was cut off in a folder: the requests that had ended. Raises SpecError when there is none."""
    path = folder / NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        manifest = json.loads(lines[0])["manifest"]
        rows = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                rows.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    raise  # only the last one may have been cut
        if not rows:
            raise SpecError(
                "{folder}: the run was cut off before a request had ended; allowed: a run with requests", folder
            )
        columns = {name: [row.get(name) for row in rows] for name in REQUEST_COLUMNS}
        requests = frame("requests", columns)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        what = f"{type(error).__name__}: {error}"[:200]
        raise SpecError("{path}: damaged ({what}); allowed: a file as a run wrote it", path, what) from None
    cut = message(
        "cut off: {count} requests had ended; those in flight, engine steps and samples are not here", len(rows)
    )
    manifest |= {"interrupted": True, "warnings": [*manifest["warnings"], cut]}
    return Run(requests, frame("steps"), frame("samples"), frame("transfers"), manifest=manifest)
