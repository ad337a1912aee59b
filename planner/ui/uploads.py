"""Uploaded files, stored under their content: the same name with other content is another file, and nobody else's.

A session lists what it uploaded itself. A link with the whole name finds the file again; names cannot be guessed.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import streamlit as st

UPLOADS = Path("runs") / "uploads"
TRACES = (".jsonl", ".json", ".csv", ".gz")
_STORED = re.compile(r"(?P<stem>[\w.-]*)~(?P<content>[0-9a-f]{20})(?P<kind>(\.\w+)+)")


def stored(name: str, data: bytes) -> str:
    """Keep `data` as again~3b5d….jsonl; returns that name. The same content is written once."""
    safe = re.sub(r"[^\w.-]", "_", Path(name).name).lstrip(".")
    if not safe.endswith(TRACES):
        safe += ".jsonl"
    stem, dot, kind = safe.partition(".")
    found = f"{stem}~{sha256(data).hexdigest()[:20]}{dot}{kind}"
    file = UPLOADS / found
    if not file.exists():
        UPLOADS.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.replace(file)
    return found


def file_of(name: str) -> Path | None:
    """A stored file by its whole name; None: there is none."""
    path = UPLOADS / name
    return path if _STORED.fullmatch(name) and path.is_file() else None


def shown(name: str) -> str:
    """again.jsonl (3b5d)"""
    found = _STORED.fullmatch(name)
    return name if found is None else f"{found['stem']}{found['kind']} ({found['content'][:4]})"


def named(text: str) -> str:
    """The text with `shown` wherever it has the path of a stored file: people know the name that they gave."""
    return re.sub(rf"{re.escape(str(UPLOADS))}/({_STORED.pattern})", lambda found: shown(found[1]), text)


def keep(name: str, data: bytes) -> str:
    """`stored`, and listed for this session."""
    found = stored(name, data)
    if found not in mine():
        st.session_state["uploads"] = [*mine(), found]
    return found


def mine() -> list[str]:
    """What this session uploaded and is still there, in order."""
    return [name for name in st.session_state.get("uploads", []) if file_of(name) is not None]
