"""Files beside the one that is imported: `.env` and `env_file` of Compose, and what `--config` names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.interop.import_reading import Note

LARGEST = 1_000_000  # bytes: such files hold some dozens of lines


@dataclass(frozen=True, slots=True)
class EnvFiles:
    """What is read is beside the Compose file (`folder`; None: there is none, as of an upload) and no other place."""

    folder: Path | None

    def named(self, given: Any, key: str, filled: Callable[[str], str]) -> tuple[dict[str, str], list[Note]]:
        """The variables of a service's `env_file`, later files over earlier ones; a warning for each that is not read.

        `filled` puts in the variables that a value names.
        """
        found: dict[str, str] = {}
        notes: list[Note] = []
        for entry in given if isinstance(given, list) else [given]:
            name = str(entry.get("path", "")) if isinstance(entry, dict) else str(entry)
            text = self._text(name)
            if isinstance(text, Note):
                notes.append(Note("warning", f"{key}: {name}", text.text))
            else:
                found |= variables(text, filled)
        return found, notes

    def project(self) -> dict[str, str]:
        """The variables of `.env`, which Compose puts into the file itself."""
        text = self._text(".env")
        return {} if isinstance(text, Note) else variables(text, str)

    def _text(self, name: str) -> str | Note:
        """The text of a file, or why it is not read."""
        text, fault = text_beside(self.folder, name)
        if text is not None:
            return text
        return Note("warning", name, f"{fault}; variables of it that the command names stay unknown")


def text_beside(folder: Path | None, name: str) -> tuple[str | None, str]:
    """(text, "") of a file in the folder itself, or (None, why it is not read)."""
    if folder is None:
        return None, "is another file, which is not at hand"
    try:
        path = (folder / name).resolve()
        if path.parent != folder.resolve():
            return None, "is not beside this file, and only such files are read"
        if not path.is_file():
            return None, "is not there"
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            return None, f"is larger than {LARGEST // 1000} kB"
        return data.decode("utf-8-sig"), ""
    except (OSError, ValueError) as error:  # no permission, a name with a null byte, not UTF-8
        return None, f"cannot be read ({error})"


_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*=\s*(.*)")


def variables(text: str, filled: Callable[[str], str]) -> dict[str, str]:
    """NAME=VALUE of each line, as Compose reads them: quotes go, and what follows ` #` outside of them.

    Variables that a value names are `filled` in, but within single quotes.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:  # empty, a comment, or a name alone: the shell's own variable
            continue
        value = match[2].strip()
        quoted = re.match(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", value)
        if quoted is None:
            found[match[1]] = filled(re.sub(r"(^|\s+)#.*", "", value))
        else:
            found[match[1]] = filled(quoted[2]) if quoted[1] is None else quoted[1]
    return found
