"""Why a server ended, read from what it wrote."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from live.bounded import log_end
from planner.messages import message

SIGNALLED = 128  # a watchdog's exit code for a server that a signal ended is above this by the signal's number
NODE_LOST = -1  # the exit code of a server whose node is gone (live.ray_cluster)

# What vLLM writes when it cannot start -> what to tell the user. The first that matches a line wins.
_EXPLANATIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[Aa]ddress already in use|\[Errno 98\]"), message("its port is in use by another program")),
    (
        re.compile(
            r"No available memory for the cache blocks|larger than the (?:maximum number of tokens|available KV cache)"
            r"|KV cache is needed|out of memory|OutOfMemory|Free memory on device|[Nn]ot enough memory"
            r"|can't allocate memory|MemoryError|exceeds the total|insufficient memory"
        ),
        message("the model does not fit"),
    ),
    (re.compile(r"unrecognized arguments|invalid choice|error: argument"), message("vLLM refused an option")),
)
_ERROR_LINE = re.compile(r"\b(\w+(?:Error|Exception|Exit)): (.+)")
_HARMLESS = re.compile(r"\b(DEBUG|INFO|WARNING) \d\d-\d\d \d\d:\d\d:\d\d\b")  # vLLM's log levels below an error
_ENGINE_GONE = re.compile(r"EngineDeadError|[Ee]ngine ?[Cc]ore.* died unexpectedly")
_WRAPPERS = ("Engine core initialization failed", "EngineCore failed to start", "See stack trace", "See root cause")


def explain_log(log: Path) -> str:
    """Why a server ended, in one line, from what it wrote last."""
    written = log_end(log).splitlines()[-400:]
    lines = [line for line in written if not _HARMLESS.search(line)]
    for pattern, meaning in _EXPLANATIONS:
        for line in lines:
            if pattern.search(line):
                found = _ERROR_LINE.search(line)
                detail = found[2] if found else re.sub(r"^.*?\]\s*", "", line)
                return message("{meaning} ({detail})", meaning, _shorten(detail))
    errors = [
        found
        for line in lines
        if (found := _ERROR_LINE.search(line)) and not found[2].startswith(_WRAPPERS) and not _ENGINE_GONE.search(line)
    ]
    if errors:
        return _shorten(f"{errors[-1][1]}: {errors[-1][2]}")
    if any(_ENGINE_GONE.search(line) for line in lines):
        return message("its engine process died and wrote no error (killed from outside?)")
    last = next((line for line in reversed(written) if line.strip()), None)
    return message("it wrote nothing") if last is None else _shorten(last)


def why_ended(code: int, log: Path, killed_for_memory: int = 0) -> str:
    """Why a server that ran has ended, in one line: a signal, else its last error.

    `code` is its watchdog's exit code: 128 and the signal's number for a server that a signal ended, negative for a
    watchdog that one ended. `killed_for_memory`: processes that the kernel ended meanwhile because memory ran out.
    """
    number = code - SIGNALLED if code > SIGNALLED else -code
    if code == NODE_LOST:
        return explain_log(log)
    if code > SIGNALLED or code < 0:
        try:
            name: str = signal.Signals(number).name
        except ValueError:
            name = message("signal {number}", number)
        why = message("killed by {signal}", name) if code > 0 else message("its watchdog was killed by {signal}", name)
    else:
        why = message("{why} (exit code {code})", explain_log(log), code)
    if killed_for_memory:
        return message(
            "{why}; the kernel ended {count} process(es) here because memory ran out", why, killed_for_memory
        )
    return why


def out_of_memory_kills() -> int:
    """Processes that the kernel has ended for want of memory in this control group so far; 0 where it does not say."""
    try:
        events = Path("/sys/fs/cgroup/memory.events").read_text().split()
    except OSError:
        return 0
    return int(events[events.index("oom_kill") + 1]) if "oom_kill" in events else 0


def lost_port(log: Path) -> str | None:
    """The address that a server could not bind and yet lives: vLLM listens for handshakes in a thread of its own, whose
    end it does not notice; it waits without end, or its transfers do. None when all is well.
    """
    found = re.search(r"Address already in use \(addr='(?:tcp://)?([^']+)'\)", log_end(log))
    return found[1] if found else None


def _shorten(text: str, limit: int = 240) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
