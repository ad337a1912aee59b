"""`planner suggest`: how to use N GPUs, and whether prefill/decode disaggregation is worth it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner import core
from planner.commands import (
    MOST_GPUS,
    Cluster,
    Config,
    Json,
    Processes,
    Seed,
    Set,
    console,
    output_file,
    overrides,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from rich.table import Table

    from planner.suggestion.answer import Row, Suggestion

SWEEPS = ("router", "local_prefill")


def suggest(
    config: Config = None,
    gpus: Annotated[int, typer.Option("--gpus", "-n", min=1, max=MOST_GPUS, help="GPUs to use.")] = 8,
    rate: Annotated[
        Optional[float],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--rate", help="Also find the fewest GPUs that serve this many requests per second."),
    ] = None,
    slo: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--slo", metavar="PRESET", help="Named targets, as in mlperf-llama-3.1-8b-interactive."),
    ] = None,
    sweep: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--sweep", metavar="WHAT", help="Also try routers, local prefill: router,local_prefill."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Lists of requests, at most.")] = 5,
    requests: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--requests",
            min=10,
            help="Requests that the best candidate is sent in a run, at least; the others get as many seconds, and all "
            "get long enough for answers to end. Default: 400 a GPU, 2000 to 4000.",
        ),
    ] = None,
    verify: Annotated[int, typer.Option("--verify", min=0, help="Run the best K for real on the GPUs here.")] = 0,
    processes: Processes = None,
    cluster: Cluster = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Candidates to print.")] = 10,
    assignments: Set = None,
    seed: Seed = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="FILE", help="Write the suggested deployment's YAML here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the best use of N GPUs.

    Aggregated or split into prefill and decode, in which ratio, and is it worth it?
    """
    from dataclasses import replace

    core.import_numpy()
    import planner
    from planner.spec import SpecError
    from planner.spec.slo_presets import preset
    from planner.suggestion.fewest import smallest
    from planner.suggestion.suggest import suggest as answer
    from planner.suggestion.verify import checked, this_machine

    wanted = frozenset(part.strip() for part in (sweep or "").split(",") if part.strip())
    if wanted - set(SWEEPS):
        raise SpecError("--sweep {sweep}: allowed: {sweeps}, or both with a comma", sweep, ", ".join(SWEEPS))
    if cluster not in (None, "ray"):
        raise SpecError("--cluster {cluster}: allowed: ray", cluster)
    if rate is not None and not rate > 0:
        raise SpecError("--rate {rate:g}: must be above 0", rate)
    if verify:
        this_machine()  # without vLLM there is nothing to check with: say so before the work
    spec = planner.load(config, overrides(assignments, seed))
    targets = preset(slo) if slo else None
    if out is not None:
        output_file(out)
    found = answer(
        spec, gpus, seeds=seeds, requests=requests, sweep=wanted, slo=targets,
        processes=processes, cluster=cluster, progress=progress(),
    )  # fmt: skip
    if rate is not None:
        fewest = smallest(
            spec, rate, requests=requests, slo=targets, processes=processes, cluster=cluster, progress=progress()
        )
        found = replace(found, smallest=fewest)
    if verify:
        found = checked(found, spec, verify, progress())
    if out is not None:
        out.write_text(found.yaml)
    if as_json:
        print_json(found.to_dict())
    else:
        show_suggestion(found, rows, out)


def show_suggestion(found: Suggestion, rows: int, out: Path | None) -> None:
    """The sentence, what to run, why, the table, what to know."""
    from planner.report import printing
    from planner.suggestion.suggest import OVERLOAD
    from planner.suggestion.words import bound, check_sentences, explanation, method, smallest_sentence, to_run

    screen = console()
    reasons = explanation(found.verdict) if found.verdict is not None else []
    for text in (found.sentence, to_run(found), smallest_sentence(found), *check_sentences(found)):
        if text:
            printing.say(screen, text)
    printing.say(screen, "")
    past = f"{100 * (OVERLOAD - 1):.0f}"
    if reasons:
        printing.say(screen, f"Why, seen {past} % past the highest rates, and what would change it:")
    serves = found.best.rate > 0
    for line in (*reasons, *([method(found)] if serves else found.notes)):
        printing.say(screen, f"- {line}")
    printing.say(screen, "")
    if not serves:
        printing.say(screen, "Next: other targets (--set slo.ttft_ms=..., --slo PRESET), another GPU or model.")
        return
    printing.say(screen, f"Highest rate {bound(found.slo)} on {found.gpus} GPUs, and the output tokens that it gives:")
    screen.print(ranking(found, rows))
    if len(found.rows) > rows:
        printing.say(screen, f"{len(found.rows) - rows} more candidates: --rows {len(found.rows)}")
    printing.say(screen, "Faster for a user, or more from a GPU: what no other beats in both (Pareto front):")
    screen.print(pareto_table(found))
    for note in found.notes:
        printing.say(screen, f"Note: {note}")
    if out is not None:
        printing.say(screen, f"Deployment: {out}")
        return
    printing.say(
        screen,
        "Next: --out FILE writes this deployment's YAML, for planner simulate, live and export; --rate R finds the"
        " fewest GPUs that serve R req/s.",
    )


def ranking(found: Suggestion, rows: int) -> Table:
    from planner.report.words import number

    priced = any(row.cost_per_million_tokens is not None for row in found.rows)
    columns = ["", "req/s", "95 %", "req/s/GPU", "tok/s/GPU", "tok/s/user"]
    made = _table(*columns, *(["cost/1M tok"] * priced))
    for row in found.rows[:rows]:
        cells = [
            row.name,
            number(row.rate),
            _spread(row),
            number(row.per_gpu),
            number(row.output_tokens_s_gpu),
            number(row.tokens_s_user),
        ]
        made.add_row(*cells, *([number(row.cost_per_million_tokens)] if priced else []))
    return made


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    return made


def _spread(row: Row) -> str:
    """61.2 to 62.0; a rough rate has no interval: one search, one list of requests."""
    from planner.report.words import number

    return f"{number(row.low)} to {number(row.high)}" if row.refined else "rough"


def pareto_table(found: Suggestion) -> Table:
    from planner.report.words import number

    made = _table("", "req/s", "tok/s/user", "tok/s/GPU")
    highest = {point.name: point for point in found.pareto}  # of each candidate the last: its highest rate
    for point in highest.values():
        made.add_row(point.name, number(point.rate), number(point.tokens_s_user), number(point.output_tokens_s_gpu))
    return made


def register(app: typer.Typer) -> None:
    app.command()(suggest)
