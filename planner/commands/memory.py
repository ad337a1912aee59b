"""`planner memory`: what a model takes of a GPU's memory, and how many KV tokens are left room for."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from planner.commands import Json, Set, console, overrides, print_json


def memory(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A catalogue name, a folder, a config.json, a hub id.")],
    hardware: Annotated[str, typer.Option("--hardware", metavar="GPU", help="A catalogue name or a path.")] = "h200",
    tp: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--tp", min=1, metavar="N", help="GPUs of a worker; may be repeated. Default: 1, 2, 4 and 8."),
    ] = None,
    dp: Annotated[
        int, typer.Option("--dp", min=1, metavar="N", help="Ranks of tp GPUs that share experts. KV is of one of them.")
    ] = 1,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Print what a model takes of each GPU's memory.

    Parameters, KV bytes a token and the ledger, as vLLM counts it.

    Engine keys apply: --set engine.kv_cache_dtype=fp8. Models that simulate does not cover yet are read too.
    """
    import planner
    from planner.engine.ledger import ledger

    spec = planner.load(None, [f"model={model}", f"hardware={hardware}", *overrides(assignments, None)])
    found = ledger(spec.model, spec.hardware, spec.engine, tp or [1, 2, 4, 8], dp)
    if as_json:
        print_json(found)
        return
    _print(found)


_COLUMNS = ("weights_gib", "activation_gib", "non_torch_gib", "graphs_gib", "kv_gib")


def _print(found: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    page = console()
    state = f", {found['state_bytes'] / 1e6:.1f} MB of state a sequence" if found["state_bytes"] else ""
    page.print(f"{found['model']} on {found['hardware']}: {_fits(found['gpus'])}.", soft_wrap=True)
    active = f", {found['active_parameters'] / 1e9:.2f} active" if _sparse(found) else ""
    page.print(
        f"{found['parameters'] / 1e9:.2f} billion parameters{active}; weights {found['weight_bytes'] / 1e9:.1f} GB; "
        f"KV {found['kv_bytes_per_token']:,} bytes a token{state}"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("tp", *(name.removesuffix("_gib").replace("_", " ") for name in _COLUMNS), "KV tokens"):
        table.add_column(column, justify="right")
    for row in found["gpus"]:
        tokens = row["refused"] or f"{row['kv_tokens']:,}"
        table.add_row(str(row["tp"]), *(f"{row[name]:.2f}" for name in _COLUMNS), tokens)
    page.print(table)
    page.print("GiB on each GPU.")


def _fits(rows: list[dict[str, Any]]) -> str:
    """On how few of the GPUs asked about, and how much context then."""
    able = [row for row in rows if not row["refused"]]
    if not able:
        tried = ", ".join(str(row["tp"]) for row in rows)
        return f"does not fit with tp {tried}; an engine needs more or larger GPUs, or fewer bits a weight"
    least = min(able, key=lambda row: row["tp"])
    return f"fits with tp {least['tp']}, which leaves room for {least['kv_tokens']:,} tokens of context"


def _sparse(found: dict[str, Any]) -> bool:
    return bool(found["active_parameters"] < 0.995 * found["parameters"])


def register(app: typer.Typer) -> None:
    app.command()(memory)
