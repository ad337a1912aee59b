"""`planner sweep`: a grid of questions, answered over all cores or a Ray cluster, kept row by row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from planner.commands import (
    Cluster,
    Json,
    Processes,
    console,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from planner.sweep.answers import Table

INTERRUPTED = 130
GAP = 2  # characters between columns
# Of all figures, those that are printed, and what is above them.
SHOWN = {
    "deployment": "",
    "meets_targets": "meets",
    "attainment": "within",
    "goodput_requests_per_s_per_gpu": "good/s/GPU",
    "ttft_p99_ms": "TTFT p99, ms",
    "tpot_p99_ms": "TPOT p99, ms",
    "bottleneck": "short of",
    "best": "best",
    "rate": "req/s",
    "rate_per_gpu": "req/s/GPU",
    "worth_it": "P/D",
    "advantage": "by",
}


def sweep(
    grid: Annotated[
        Path, typer.Argument(metavar="GRID", help="A YAML file: base, set, seeds, gpus (docs/suggest.md).")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--out", metavar="DIR", help="Rows and tables. Default: sweeps/GRID. One that was begun goes on."),
    ] = None,
    processes: Processes = None,
    cluster: Cluster = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows to print.")] = 20,
    as_json: Json = False,
) -> None:
    """Answer a grid of up to 1,000 questions.

    Each a simulation, or with gpus what suggest answers; a stopped sweep goes on.
    """
    from planner.report import printing
    from planner.spec import SpecError
    from planner.suggestion.spread import cores, spread
    from planner.sweep.answers import CSV, PARQUET
    from planner.sweep.answers import sweep as answered
    from planner.sweep.grid import read_grid

    if cluster not in (None, "ray"):
        raise SpecError("--cluster {cluster}: allowed: ray", cluster)
    questions = read_grid(grid)
    folder = Path("sweeps") / grid.stem if out is None else out
    try:
        with spread(cluster, min(processes or cores(), len(questions))) as workers:
            found = answered(questions, folder, workers, progress())
    except KeyboardInterrupt:
        typer.echo(f"planner: stopped; the same command goes on with the rows of {folder}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json([dict(zip(found.columns, row, strict=True)) for row in found.rows])
        return
    screen = console()
    answers = [meets for meets in found.column("meets_targets") if meets is not None] if _simulated(found) else []
    if answers:
        printing.say(screen, f"{sum(map(bool, answers))} of {len(answers)} deployments within their targets.")
    words = Counter(found.column("worth_it")) if "worth_it" in found.columns else Counter()
    if words:
        told = "; ".join(f"{word or 'no answer'}: {count}" for word, count in words.most_common())
        printing.say(screen, f"Is P/D worth it? {told}.")
    screen.print(_shown(found, list(questions[0].axes), rows, screen.width))
    if len(found.rows) > rows:
        printing.say(screen, f"{len(found.rows) - rows} more rows: --rows {len(found.rows)}")
    failed = [row for row in found.rows if row[found.columns.index("fault")] is not None]
    asked = "1 question" if len(found.rows) == 1 else f"{len(found.rows)} questions"
    printing.say(screen, asked + (f", {len(failed)} of them cannot be answered." if failed else "."))
    for row in failed[:rows]:
        by_name = dict(zip(found.columns, row, strict=True))
        which = ", ".join(f"{axis}={by_name[axis]}" for axis in questions[0].axes) or "the base"
        printing.say(screen, f"{which}: {by_name['fault']}")
    printing.say(screen, f"Tables: {folder / CSV}, {folder / PARQUET}")


def _simulated(found: Table) -> bool:
    return "meets_targets" in found.columns


def _shown(found: Table, axes: list[str], most: int, width: int) -> Any:
    from rich import box
    from rich.table import Table as Lines

    last = [axis.rpartition(".")[2] for axis in axes]
    titles = {axis: end if last.count(end) == 1 else axis for axis, end in zip(axes, last, strict=True)}
    titles = {axis: title for axis, title in titles.items() if len(set(map(str, found.column(axis)))) > 1}
    titles |= {name: title for name, title in SHOWN.items() if name in found.columns and any(found.column(name))}
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows[:most]]
    cells = [[_cell(name, row[name]) for name in titles] for row in rows]
    made = Lines(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    widths = _widths([*map(list, zip(titles.values(), *cells, strict=True))], width)
    for title, one in zip(titles.values(), widths, strict=True):
        made.add_column(title, overflow="fold", width=one)
    for row_cells in cells:
        made.add_row(*row_cells)
    return made


def _widths(columns: list[list[str]], width: int) -> list[int | None]:
    """Of columns whose words stay whole, within `width` in all; None for each where they cannot."""
    least = [max(map(len, " ".join(texts).split(" "))) for texts in columns]
    spare = width - sum(least) - GAP * (len(columns) + 1)
    if spare < 0:
        return [None] * len(columns)
    found: list[int | None] = []
    for texts, word in zip(columns, least, strict=True):
        more = min(spare, max(map(len, texts)) - word)
        spare -= more
        found.append(word + more)
    return found


def _cell(name: str, value: Any) -> str:
    from planner.report.words import number, percent

    if value is None:
        return "-"
    if name == "attainment":
        return percent(float(value))
    if name == "advantage":
        return f"{100 * float(value):+.0f} %"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(float(value)) if isinstance(value, (int, float)) else str(value)


def register(app: typer.Typer) -> None:
    app.command()(sweep)
