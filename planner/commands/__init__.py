"""What the commands share: options, reading a spec, run folders, progress, printing.

Each module of this package is one command (or a few) with a `register(app)`. Imports of pandas, pydantic and the
like stay inside functions, so that `planner --help` is quick. `build` makes the application of them.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from planner.run.tables import Run

# Typer brings its own copy of click; this is click's base class of usage errors, wherever it is from.
UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

MOST_GPUS = 4096  # of one search: as many workers as a pool takes
# Where a command stands in --help; the others follow by name.
ORDER = {name: place for place, name in enumerate(["simulate", "live", "suggest", "compare", "serve", "calibrate"])}

Config = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation when the command is built
    typer.Argument(metavar="[CONFIG]", help="A YAML file, or the name of one that ships. Default: the quickstart."),
]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in --set workload.rate=12. May be repeated."),
]
Seed = Annotated[Optional[int], typer.Option("--seed", min=0, help="Random seed; overrides run.seed.")]  # noqa: UP045
Processes = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--processes", min=1, help="Default: all cores."),
]
Cluster = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--cluster", metavar="ray", help="Spread the work over an existing Ray cluster."),
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", metavar="DIR", help="Where to write the run. Default: runs/NAME-TIME."),
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON.")]
TableOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--table", metavar="DIALECT", help="Another tool's table: vllm, aiperf, guidellm, multi-round-qa."),
]
NoSave = Annotated[bool, typer.Option("--no-save", help="Write no run folder.")]

# What is wanted of a trace.
TraceFormat = Annotated[str, typer.Option("--format", metavar="FORMAT", help="A trace format; auto looks at the file.")]
TraceStart = Annotated[float, typer.Option("--from", metavar="S", help="Leave out what came before this second.")]
TraceEnd = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--to", metavar="S", help="Leave out what came after this second."),
]
TraceSample = Annotated[float, typer.Option("--sample", metavar="SHARE", help="Only this share of its sessions.")]
TraceStrict = Annotated[bool, typer.Option("--strict", help="Refuse a file with a row that does not fit.")]

StartTimeout = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--start-timeout",
        metavar="SECONDS",
        min=1.0,
        help="After how long a server that does not answer has failed. Default: on a CPU 240 (an idle one needs about "
        "40), times the jobs per core, at most 900; on GPUs 300 and 5 for each GB of weights to read.",
    ),
]


def build(named: str = "") -> typer.Typer:
    """The application with every command of planner/commands: each module there has a `register(app)`.

    Where `named` is one of the modules, only its commands: the others need not be imported.
    """
    app = typer.Typer(
        name="planner",
        help="Aggregated or disaggregated (prefill/decode) LLM serving on N GPUs? Simulate it, run it, compare.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def planner(
        version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="And exit.")] = False,
    ) -> None:
        pass

    names = [module.name for module in pkgutil.iter_modules(__path__)]
    for name in sorted([named] if named in names else names, key=lambda name: (ORDER.get(name, len(ORDER)), name)):
        importlib.import_module(f"planner.commands.{name}").register(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"planner {version('llm-capacity-planner')}")
        raise typer.Exit


def overrides(assignments: Sequence[str] | None, seed: int | None) -> list[str]:
    """The --set and --seed options as one list for `planner.spec.load`."""
    return [*(assignments or ()), *([] if seed is None else [f"run.seed={seed}"])]


def console() -> Console:
    """Standard output: 80 columns and no colour unless it is a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 80, highlight=False, emoji=False)


def run_folder(name: str, out: Path | None) -> Path:
    """The folder to write a run to: `out` itself, or a new runs/<name>-<time>.

    Raises SpecError when `out` holds something that is not a run.
    """
    from planner.spec import SpecError

    if out is None:
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder, suffix = Path("runs") / stem, 1
        while folder.exists():  # two runs in one second
            suffix += 1
            folder = Path("runs") / f"{stem}-{suffix}"
        return folder
    if out.exists() and not out.is_dir():
        raise SpecError("--out {out}: is a file; allowed: a new or empty folder, or one that holds a run", out)
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise SpecError("--out {out}: holds other files; allowed: a new or empty folder, or one that holds a run", out)
    return out


def output_file(path: Path) -> Path:
    """A file that will be written later; its folder is made now, so that a fault shows before the work.

    Raises SpecError.
    """
    from planner.spec import SpecError

    if path.is_dir():
        raise SpecError("--out {path}: is a folder; allowed: the path of a file", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save(run: Run, name: str, out: Path | None, no_save: bool) -> str | None:
    """Write the run, unless it is not wanted; returns the folder."""
    return None if no_save else str(run.save(run_folder(name, out)))


def read_run(folder: Path) -> Run:
    """A run that was written before, what is left of one that was cut off, or another tool's result file.

    Raises SpecError when the folder holds none, or a damaged one.
    """
    from pyarrow.lib import ArrowException

    from planner.run import journal
    from planner.run.results import is_result, read_results
    from planner.run.tables import Run
    from planner.spec import SpecError
    from planner.spec.strict_yaml import shorten

    if is_result(folder):
        return read_results(folder)
    if (folder / journal.NAME).is_file():  # it goes when a run is saved: what else is here is older
        return journal.recover(folder)
    for name in ("manifest.json", "requests.parquet"):
        if not (folder / name).is_file():
            raise SpecError(
                "{folder}: not a run folder (it has no {name}); allowed: a folder that a run wrote", folder, name
            )
    try:
        return Run.load(folder)
    except SpecError:
        raise
    except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:  # what pyarrow says of broken files
        fault = shorten(" ".join(str(error).split()))
        raise SpecError("{folder}: damaged ({fault}); allowed: a folder as a run wrote it", folder, fault) from error


def show(run: Run, folder: str | None, as_json: bool, table: str | None) -> None:
    """Print a run: the report, another tool's table, or JSON."""
    from planner.report import printing
    from planner.run.metrics import summarise

    if table is None:
        summary = summarise(run)
        if as_json:
            print_json(printing.to_dict(summary, folder))
        else:
            printing.write(console() if sys.stdout.isatty() else printing.Pipe(), summary, folder)
        return
    from planner.interop import dialects

    if as_json:
        print_json(dialects.export_json(run, table))
        return
    summary, screen = summarise(run), console()
    text = dialects.table(run, table, colour=screen.is_terminal)
    printing.say(screen, printing.answer(summary))
    print(text)
    for warning in printing.warnings(summary):
        printing.say(screen, f"Warning: {warning}")
    if folder is not None:
        printing.say(screen, f"Run: {folder}")


def print_json(data: Any) -> None:
    """JSON on standard output; a number that is not finite would not be JSON, so it is an error."""
    print(json.dumps(data, indent=2, allow_nan=False))


STILL_S = 10.0  # between two lines that say the same, where there is no terminal


def progress(quiet_s: float = 2.0) -> Callable[[str, float], None]:
    """A progress callback that says nothing for two seconds, then keeps one line of stderr up to date.

    Without a terminal it prints a line when a stage begins, and then every ten per cent, or every ten seconds where
    nothing moves: a server takes a minute to start.
    """
    started = last = time.monotonic()
    said: tuple[str, int] = ("", -1)
    terminal = sys.stderr.isatty()

    def update(stage: str, done: float) -> None:
        nonlocal said, last
        here = time.monotonic()
        if here - started < quiet_s:
            return
        per_cent = int(done * 100)
        now = (stage, per_cent if terminal else per_cent // 10)
        if now != said or (done < 1 and here - last >= (1.0 if terminal else STILL_S)):
            said, last = now, here
            end = "\r" if terminal and done < 1 else "\n"
            print(f"{stage}: {per_cent:3d} %, {here - started:.0f} s", end=end, file=sys.stderr, flush=True)

    return update


def check_table(name: str | None) -> None:
    """Raises SpecError for an unknown dialect, before any work is done."""
    if name is not None:
        from planner.interop import dialects

        dialects.dialect_named(name)
