"""`planner trace`: what is in a trace file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner.commands import (
    Json,
    TraceEnd,
    TraceFormat,
    TraceSample,
    TraceStart,
    TraceStrict,
    console,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from planner.traffic.rows import TraceRequest
    from planner.traffic.trace_figures import TraceSummary
    from planner.traffic.trace_scan import Scan

BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 72  # bars in a line
REGULAR = 0.01  # variation of the gaps below which arrivals are a clock's


def trace(
    file: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace, plain or gzip, or a folder.")],
    caches: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option(
            "--cache", metavar="BLOCKS", min=1, max=10**9, help="Reuse under a cache of so many blocks; repeat."
        ),
    ] = None,
    requests: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--requests", min=1, help="Only the first so many requests."),
    ] = None,
    start_s: TraceStart = 0.0,
    end_s: TraceEnd = None,
    sample: TraceSample = 1.0,
    block_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--block-tokens", min=1, max=10**6, help="Tokens a hash id stands for. Default: the format's own."
        ),
    ] = None,
    strict: TraceStrict = False,
    form: TraceFormat = "auto",
    as_json: Json = False,
) -> None:
    """Describe a trace.

    How many requests, how they arrive, how long they are, and what a prefix cache would find. Ctrl-C shows what was
    read so far.
    """
    from planner.spec import SpecError
    from planner.traffic.trace_figures import CACHES, summarise
    from planner.traffic.trace_scan import Scan, Selection

    end = math.inf if end_s is None else end_s
    if not (0 <= start_s < end) or math.isnan(end):
        raise SpecError(
            "--from {start:g} --to {end:g}: no time between them; allowed: seconds, the first below the last",
            start_s,
            end,
        )
    if not 0 < sample <= 1:
        raise SpecError("--sample {sample:g}: no share; allowed: above 0, up to 1", sample)
    told = partial(progress(), "read")
    scan = Scan(file, form, block_tokens, Selection(start_s, end, sample, requests, strict), told)
    interrupted: list[bool] = []
    found = summarise(_until_interrupted(scan, interrupted), tuple(dict.fromkeys(caches or CACHES)))
    if found is None:
        if interrupted:
            raise typer.Exit(130)
        raise SpecError("{file}: the trace is empty; it must hold at least one request", file)
    if as_json:
        print_json(_data(scan, found, bool(interrupted)))
    else:
        _write(scan, found, bool(interrupted))
    if interrupted:
        raise typer.Exit(130)


def _until_interrupted(scan: Scan, interrupted: list[bool]) -> Iterator[TraceRequest]:
    try:
        yield from scan
    except KeyboardInterrupt:
        interrupted.append(True)


def _data(scan: Scan, found: TraceSummary, interrupted: bool) -> dict[str, object]:
    return {
        "path": scan.path,
        "format": scan.format,
        "block_tokens": scan.block_tokens,
        **asdict(found),
        "rows_left_out": scan.bad,
        "failed_when_recorded": scan.failed,
        "complete": not interrupted,
        "warnings": scan.warnings,
    }


def _write(scan: Scan, found: TraceSummary, interrupted: bool) -> None:
    from planner.report import printing
    from planner.report.words import number, percent

    screen = console()
    sessions = f", {found.sessions:,} sessions" if found.sessions else ""
    over = f" over {_time(found.duration_s)}" if found.duration_s else ""
    requests = "1 request" if found.requests == 1 else f"{found.requests:,} requests"
    printing.say(screen, f"{scan.path}: {scan.format}, {requests}{sessions}{over}.")
    if interrupted:
        printing.say(screen, "Interrupted: these are the figures of what was read so far.")
    if found.rate is not None and found.gap_cv is not None and found.peak_to_mean is not None:
        per = _time(found.bin_s).removeprefix("1 ")
        said = [f"{number(found.rate)} a second on average"]
        if len(found.arrivals) > 1:
            said.append(f"in the busiest {per} {_times(found.peak_to_mean)} the mean")
        gaps = f"gaps vary {number(found.gap_cv)} times as much as they are long (1: Poisson, above: bursts)"
        said.append(gaps if found.gap_cv >= REGULAR else "evenly spaced")
        printing.say(screen, f"Arrivals: {'; '.join(said)}.")
        if len(found.arrivals) > 1:
            print(f"Requests by {per}, at most {max(found.arrivals):,}:")
            for line in _bars(found.arrivals):
                print(f"  {line}")
    elif scan.starts == "recorded" and found.requests > 1:
        printing.say(screen, "Arrivals: all at one moment.")
    elif scan.starts == "unknown":
        printing.say(screen, "Arrivals: not recorded; planner replay needs --set workload.rate=R.")
    for label, spread in (("Prompt tokens", found.prompt_tokens), ("Answer tokens", found.output_tokens)):
        values = ", ".join(f"{name} {number(value)}" for name, value in spread.items())
        printing.say(screen, f"{label}: {values}.")
    if found.lru_hit_shares is not None and found.infinite_cache_hit_share is not None:
        shares = ", ".join(f"{percent(share)} with {blocks:,}" for blocks, share in found.lru_hit_shares.items())
        printing.say(
            screen,
            f"Reuse, of blocks of {scan.block_tokens} tokens: {percent(found.infinite_cache_hit_share)} with an endless"
            f" cache; least recently used out first: {shares} blocks.",
        )
    for warning in scan.warnings:
        printing.say(screen, f"Warning: {warning}")


def _times(factor: float) -> str:
    from planner.report.words import number

    return "as many as" if number(factor) == "1" else f"{number(factor)} times"


def _time(seconds: float) -> str:
    from planner.report.words import number

    units = (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    unit, length = next(((unit, length) for unit, length in units if seconds >= length), units[-1])
    count = number(seconds / length)
    return f"{count} {unit[:-1] if count == '1' else unit}"


def _bars(counts: tuple[int, ...]) -> list[str]:
    most = max(counts)
    bars = "".join(BARS[-(-count * (len(BARS) - 1) // most)] for count in counts)
    return [bars[start : start + WIDTH] for start in range(0, len(bars), WIDTH)]


def register(app: typer.Typer) -> None:
    app.command()(trace)
