"""The core: the modules that take nearly all of a simulation's time. It runs compiled or interpreted, from one source.

`python -m simulator.compile` puts compiled modules into `planner/_compiled/PLATFORM`, with the checksums of the files
that they were made from. They are imported (`install`) only while each of those files is still the same; else all of
them run interpreted, and a warning says so. PLANNER_INTERPRETED=1 leaves compiled modules alone.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parent.parent  # where the packages lie
PLATFORM = EXTENSION_SUFFIXES[0].split(".")[1]  # and the interpreter
FOLDER = Path(__file__).parent / "_compiled" / PLATFORM
CHECKSUMS = "sources.sha256"  # as sha256sum writes them


@dataclass(frozen=True, slots=True)
class Core:
    """What this process runs, and why."""

    compiled: bool
    why: str
    stale: bool = False  # it is compiled, but from other sources


def checksums(names: Iterable[str]) -> str:
    """The lines of CHECKSUMS for files by their path below ROOT."""
    return "".join(f"{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}  {name}\n" for name in names)


def look(folder: Path) -> Core:
    """Whether the compiled modules of a folder may be used."""
    stamp = folder / CHECKSUMS
    if not stamp.is_file():
        return Core(False, f"not compiled for {PLATFORM}")
    for line in stamp.read_text().splitlines(keepends=True):
        name = line.split()[1]
        if not (ROOT / name).is_file() or checksums([name]) != line:
            return Core(False, f"{name} has changed since it was compiled", stale=True)
    return Core(True, PLATFORM)


@lru_cache(maxsize=1)
def core() -> Core:
    """The choice, made once a process."""
    if os.environ.get("PLANNER_INTERPRETED"):
        return Core(False, "PLANNER_INTERPRETED is set")
    found = look(FOLDER)
    if found.stale and "--multiprocessing-fork" not in sys.orig_argv:  # else the first of the processes has said it
        warnings.warn(f"{found.why}, and runs interpreted; python -m simulator.compile compiles it again", stacklevel=2)
    return found


class Finder:
    """Finds compiled modules, by their names, before Python finds their sources."""

    def __init__(self, folder: Path) -> None:
        ending = EXTENSION_SUFFIXES[0]
        files = {str(path.relative_to(folder)).removesuffix(ending): path for path in folder.rglob(f"*{ending}")}
        self._files = {name.replace(os.sep, "."): path for name, path in files.items()}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = self._files.get(name)
        return None if file is None else spec_from_file_location(name, file)


@lru_cache(maxsize=16)
def installed(package: str) -> str:
    """The version of a package that is installed here. Raises PackageNotFoundError.

    importlib.metadata's own `version` parses all that is said of the package, which takes milliseconds.
    """
    from importlib import metadata

    said = metadata.distribution(package).read_text("METADATA") or ""
    found = next((line for line in said.splitlines() if line.startswith("Version: ")), None)
    return metadata.version(package) if found is None else found.removeprefix("Version: ").strip()


# Threads of OpenBLAS spin for 45 ms when numpy is imported; pydantic looks for plugins in every installed package.
_QUICKLY = {"OPENBLAS_THREAD_TIMEOUT": "4", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
_PUT = "PLANNER_PUT"  # names those of them that the user had not set


def start_quickly() -> None:
    """Import numpy and pydantic without what they do for others, in this process and those that it makes.

    Imports make objects that stay: looking for cycles among them every 700 took a tenth of a start-up.
    """
    gc.set_threshold(200_000)
    put = [name for name in _QUICKLY if name not in os.environ]
    os.environ.update({name: _QUICKLY[name] for name in put})
    os.environ.setdefault(_PUT, " ".join(put))


def import_numpy() -> None:
    """Import it from few calls deep, before what imports it on the way.

    Python 3.11 holds frames in blocks of 16 KiB and gives one back when it is empty: from 60 calls deep numpy's import
    crosses the edge of a block 3,600 times, which took a fourteenth of a start-up.
    """
    import numpy  # noqa: F401


def environment() -> dict[str, str]:
    """The user's environment, without what `start_quickly` put into it: for programs that are not ours."""
    put = os.environ.get(_PUT, "").split()
    return {name: value for name, value in os.environ.items() if name not in (*put, _PUT)}


@contextmanager
def no_cycles() -> Iterator[None]:
    """What runs here leaves no reference cycles (a test counts), so Python need not spend time on looking for them.

    Where the results of a run are made inside too, they are gone before Python looks again.
    """
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()


def install() -> None:
    """Import compiled modules from now on, where they may be used."""
    if core().compiled:
        sys.meta_path.insert(0, Finder(FOLDER))
