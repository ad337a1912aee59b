"""`planner validate`: recorded live runs predicted again, and how far the predictions are off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from planner.commands import Json, console, print_json, progress

RECORDED = Path("benchmarks") / "recorded"


def validate(
    records: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Argument(metavar="[RECORD]...", help="Measured run folders, or records. Default: benchmarks/recorded/*."),
    ] = None,
    docs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--docs", metavar="FILE", help="Write the tables between the marks of this Markdown file."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Judge the roofline by public measurements instead.")
    ] = False,
    rows: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--rows", metavar="FILE", help="With --public: a CSV of such rows. Default: those that ship."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict recorded live runs and print the errors."""
    if public or rows is not None:
        _public(rows, docs, as_json)
        return
    from planner.report import printing
    from planner.spec import SpecError
    from planner.validation.recorded import judge, read_record
    from planner.validation.report import document, missed, write

    folders = records or sorted(path for path in RECORDED.glob("*") if path.is_dir())
    if not folders:
        raise SpecError(
            "{folder}: holds no records; allowed: folders of measured runs, or none in a checkout of the repository",
            RECORDED,
        )
    found = [(record, judge(record)) for record in map(read_record, folders)]
    judged = [one for _, verdicts in found for one in verdicts]
    text = document(found)
    if docs is not None:
        write(docs, text)
    if as_json:
        listed = [
            {"record": record.name, "load": one.load, "profile": one.profile, **one.comparison.to_dict()}
            for record, verdicts in found
            for one in verdicts
        ]
        print_json({"comparisons": listed, "docs": None if docs is None else str(docs)})
        return
    screen = console()
    printing.say(screen, f"{len(judged) - len(missed(judged))} of {len(judged)} comparisons meet every aim.")
    for record, verdicts in found:
        for one in verdicts:
            printing.say(screen, f"{record.name}, {one.load}, profile {one.profile}: {one.comparison.sentence()}")
    doubts = dict.fromkeys(
        f"{record.name}: {text}" for record, them in found for one in them for text in one.comparison.warnings
    )
    for warning in doubts:
        printing.say(screen, f"Warning: {warning}")
    printing.say(screen, f"Written: {docs}" if docs is not None else "Tables: with --docs docs/validation.md")


def _public(rows: Path | None, docs: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from planner.engine.provenance import ERRORS
    from planner.report import printing
    from planner.spec import config_root
    from planner.validation import public
    from planner.validation.report import write

    measured = public.read_rows(rows or public.shipped_rows())
    show, count = progress(), 0

    def done() -> None:
        nonlocal count
        count += 1
        show("public rows", count / len(measured))

    found = public.predict_all(measured, len(os.sched_getaffinity(0)), done)
    text = public.document(found)
    if docs is not None:
        write(docs, text)
        if rows is None:
            (config_root() / ERRORS).write_text(public.comparables(found))
    if as_json:
        print_json(
            {
                "groups": [
                    {"group": key, **{name: asdict(of) for name, of in public.errors(those).items()}}
                    for key, those in public.groups(found).items()
                ],
                "rows": [
                    {"id": one.row.name, "ttft_ms": one.ttft_ms, "tpot_ms": one.tpot_ms}
                    for one in public.covered(found)
                ],
                "not_covered": [{"id": one.row.name, "reason": one.reason} for one in found if one.reason is not None],
                "docs": None if docs is None else str(docs),
            }
        )
        return
    screen = console()
    printing.say(screen, text)
    printing.say(screen, f"{len(public.covered(found))} of {len(found)} rows covered.")
    printing.say(screen, f"Written: {docs}" if docs is not None else "Tables: with --docs docs/public.md")


def register(app: typer.Typer) -> None:
    app.command()(validate)
