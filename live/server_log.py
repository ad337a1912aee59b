"""Why a server ended, read from what it wrote."""

from __future__ import annotations

import re
from pathlib import Path

# What vLLM writes when it cannot start -> what to tell the user. The first that matches a line wins.
_EXPLANATIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[Aa]ddress already in use|\[Errno 98\]"), "its port is in use by another program"),
    (
        re.compile(
            r"No available memory for the cache blocks|larger than the (?:maximum number of tokens|available KV cache)"
            r"|KV cache is needed|out of memory|OutOfMemory|Free memory on device|[Nn]ot enough memory"
            r"|can't allocate memory|MemoryError|exceeds the total|insufficient memory"
        ),
        "the model does not fit",
    ),
    (re.compile(r"unrecognized arguments|invalid choice|error: argument"), "vLLM refused an option"),
)
_ERROR_LINE = re.compile(r"\b(\w+(?:Error|Exception|Exit)): (.+)")
_WRAPPERS = ("Engine core initialization failed", "EngineCore failed to start", "See stack trace", "See root cause")


def explain_log(log: Path) -> str:
    """Why a server ended, in one line, from what it wrote last."""
    lines = log.read_text(errors="replace").splitlines()[-400:] if log.exists() else []
    for pattern, meaning in _EXPLANATIONS:
        for line in lines:
            if pattern.search(line):
                found = _ERROR_LINE.search(line)
                detail = found[2] if found else re.sub(r"^.*?\]\s*", "", line)
                return f"{meaning} ({_shorten(detail)})"
    errors = [found for line in lines if (found := _ERROR_LINE.search(line)) and not found[2].startswith(_WRAPPERS)]
    if errors:
        return _shorten(f"{errors[-1][1]}: {errors[-1][2]}")
    last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
    return _shorten(last)


def lost_port(log: Path) -> str | None:
    """The address that a server could not bind and yet lives: vLLM listens for handshakes in a thread of its own, whose
    end it does not notice; it waits without end, or its transfers do. None when all is well.
    """
    text = log.read_text(errors="replace") if log.exists() else ""
    found = re.search(r"Address already in use \(addr='(?:tcp://)?([^']+)'\)", text)
    return found[1] if found else None


def _shorten(text: str, limit: int = 240) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
