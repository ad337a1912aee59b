"""Commands inside Markdown, systemd units, supervisor files, Dockerfiles and PowerShell, as a script; others stay."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable

from planner.interop.import_vllm import is_command
from planner.spec import SpecError

_FENCED = re.compile(r"(?ms)^[ \t]*(```+|~~~+)[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$")
_SHELLS = {"", "bash", "sh", "shell", "console", "zsh", "text", "powershell"}
_INSTRUCTION = re.compile(r"(?m)^[ \t]*(FROM|ENV|ARG|ENTRYPOINT|CMD)[ \t]+(.*)$")


def _markdown(text: str, where: str) -> str:
    """The one block that deploys something. Raises SpecError for several: a page's blocks are alternatives."""
    blocks = [(kind.lower(), body) for _, kind, body in _FENCED.findall(text)]
    found = [body for kind, body in blocks if kind in _SHELLS and is_command(body)]
    found = found or [body for kind, body in blocks if kind in ("yaml", "yml", "json") and re.search(r"\w:", body)]
    if len(found) > 1:
        raise SpecError(
            "{where}: {count} blocks that start servers, which may be alternatives; allowed: one of them in a file",
            where,
            len(found),
        )
    return found[0] if found else text


def _unit(text: str, where: str) -> str:
    """A systemd unit: its Environment= lines and ExecStart=."""
    joined = re.sub(r"\\\r?\n", " ", text)
    given = re.findall(r"(?m)^\s*Environment=(.*)$", joined)
    variables = [word for line in given for word in shlex.split(line) if "=" in word]
    starts = [line.strip().lstrip("@-:+!") for line in re.findall(r"(?m)^\s*ExecStart=(.*)$", joined)]
    exports = [f"{word.partition('=')[0]}={shlex.quote(word.partition('=')[2])}" for word in variables]
    return "\n".join([*exports, *starts]) + "\n"


def _programs(text: str, where: str) -> str:
    """A file of supervisor: each program's command= with its environment=, its name as a comment before it."""
    lines = []
    for name, body in re.findall(r"(?ms)^\[program:([^\]\n]+)\](.*?)(?=^\[|\Z)", text):
        keys = dict(
            re.findall(r"(?m)^(\w+)[ \t]*=[ \t]*(.*(?:\n[ \t]+\S.*)*)", re.sub(r"(?m)[ \t]+;.*$|^;.*$", "", body))
        )
        words = shlex.shlex(keys.get("environment", ""), posix=True, punctuation_chars=",")
        words.whitespace_split = True
        variables = [word for word in words if "=" in word]
        given = " ".join(f"{word.partition('=')[0]}={shlex.quote(word.partition('=')[2])}" for word in variables)
        command = " ".join(keys.get("command", "").split("\n"))
        copies = int(keys["numprocs"]) if keys.get("numprocs", "").isdigit() else 1
        lines += [f"# {name}", *[f"{given} {command} &".strip()] * copies]
    return "\n".join(lines) + "\n"


def _dockerfile(text: str, where: str) -> str:
    """A Dockerfile: its variables, and ENTRYPOINT with CMD as words of the last image."""
    image, entry, command = "", "", ""
    variables: list[str] = []
    for kind, value in _INSTRUCTION.findall(re.sub(r"\\\r?\n", " ", text)):
        if kind == "FROM":
            image, entry, command = re.sub(r"--\S+\s+", "", value).split()[0], "", ""
        elif kind in ("ENV", "ARG"):
            first, _, rest = value.partition(" ")
            words = shlex.split(value) if "=" in first else [f"{first}={rest.strip()}"]
            variables += [f"{word.partition('=')[0]}={shlex.quote(word.partition('=')[2])}" for word in words]
        elif kind == "ENTRYPOINT":
            entry = _words(value)
        else:
            command = _words(value)
    line = f"{entry} {command}".strip()
    return "\n".join([*variables, line if entry or is_command(line) else f"docker run {image} {line}"]) + "\n"


def _words(value: str) -> str:
    """`["vllm", "serve"]` as a command line; the shell's form as it is."""
    try:
        words = json.loads(value) if value.lstrip().startswith("[") else None
    except ValueError:
        words = None
    return shlex.join(map(str, words)) if isinstance(words, list) else value


WRAPPERS: tuple[tuple[str, Callable[[str, str], str]], ...] = (
    (r"(?ms)\A(?=.*^\[Service\]).*^\s*ExecStart=", _unit),
    (r"(?ms)^\[program:[^\]\n]+\].*^command[ \t]*=", _programs),
    (r"(?m)\A(?:\s*(?:#.*|ARG\s.*)?\n)*\s*FROM\s+(?:--\S+\s+)?\S+(?:\s+(?i:as)\s+\S+)?\s*$", _dockerfile),
    (r"(?m)^[ \t]*(?:```|~~~)", _markdown),
)


def unwrapped(text: str, where: str) -> str:
    """The script or YAML that a text wraps. Raises SpecError."""
    plain = text.removeprefix("\ufeff")
    for begins, read in WRAPPERS:
        if re.search(begins, plain):
            try:
                plain = read(plain, where)
            except ValueError as error:
                if isinstance(error, SpecError):
                    raise
                raise SpecError("{where}: {error}; allowed: quotes in pairs", where, error) from None
            break
    return re.sub(r"[ \t]`[ \t]*\r?\n", " \\\\\n", plain)  # PowerShell's line ends
