"""What an exported file cannot say, as one comment in it, so that importing it again gives the same spec.

Each entry is [path, what the file says there, what the spec says]. The importer puts the spec's value back only where
the file still says what it said: whatever was edited since counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from planner.spec import SpecError

MARK = "# planner import reads: "
Entry = tuple[str, Any, Any]


def _leaves(data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        place = f"{path}.{key}" if path else str(key)
        found |= _leaves(value, place) if isinstance(value, Mapping) and value else {place: value}
    return found


def entries(spec: Mapping[str, Any], said: Mapping[str, Any]) -> list[Entry]:
    """Where a spec and what its file says differ; None where there is nothing."""
    mine, theirs = _leaves(spec), _leaves(said)
    return [
        (path, theirs.get(path), mine.get(path))
        for path in dict.fromkeys([*mine, *theirs])
        if mine.get(path) != theirs.get(path)
    ]


def line(found: list[Entry]) -> str:
    """The comment."""
    return f"{MARK}{json.dumps(found)}\n"


def restored(data: Mapping[str, Any], text: str, where: str) -> dict[str, Any]:
    """Imported data with the entries of the file's comment put back. Raises SpecError for a comment that is none."""
    match = re.search(rf"(?m)^{re.escape(MARK)}(.*)$", text)
    leaves = _leaves(data)
    if match is None:
        return dict(data)
    try:
        found = [(str(path), was, now) for path, was, now in json.loads(match[1])]
    except (ValueError, TypeError, RecursionError):
        raise SpecError(
            f"{where}: {MARK.strip('# :')}: not what an export wrote; allowed: as it was, or no such line"
        ) from None
    for path, was, now in found:
        if leaves.get(path) == was:
            leaves.pop(path, None)
            if now is not None:
                leaves[path] = now
    made: dict[str, Any] = {}
    for path, value in leaves.items():
        *sections, last = path.split(".")
        here = made
        for key in sections:
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                raise SpecError(
                    f"{where}: {MARK.strip('# :')}: {path} is below a value; allowed: as an export wrote it"
                )
        here[last] = value
    return made
