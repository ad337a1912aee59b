"""The rows of a suggestion, from searches and runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.engine.catalogue import hardware
from planner.spec import Spec
from planner.suggestion.answer import Row
from planner.suggestion.edge import Edge, interval
from planner.suggestion.search import Found, Probe
from planner.suggestion.splits import Split
from planner.suggestion.tasks import Searched


def rough_row(spec: Spec, gpus: int, split: Split, one: Searched) -> Row:
    """A candidate that was searched once, with one list of requests."""
    best = one.found.best
    rate = one.found.rate
    return _row(spec, gpus, split, one.guess, (rate, rate, rate), (one.found,), [] if best is None else [best])


def refined_row(spec: Spec, gpus: int, row: Row, runs: Sequence[Sequence[Probe]], edge: Edge) -> Row:
    """The row of a candidate that was run with every seed: `runs`, of each seed at the same rates."""
    below, _ = edge.bracket
    rates = interval([edge], spec.run.seed) if below else (0.0, 0.0, 0.0)
    searches = []
    for of_seed in runs:
        above = min((one.rate for one in of_seed if not one.passed), default=math.inf)
        passed = max((one.rate for one in of_seed if one.passed and one.rate < above), default=0.0)
        searches.append(Found(passed, above, tuple(of_seed)))
    shown = [one for of_seed in runs for one in of_seed if one.rate == below]
    return _row(spec, gpus, row.split, row.guess, rates, tuple(searches), shown, refined=True)


def slower_row(row: Row, rate: float) -> Row:
    """The row of a candidate that fewer runs than all have shown to serve less than its rough rate: this one."""
    return replace(row_times(row, rate / row.rate), rate=rate, low=rate, high=rate, refined=False)


def row_times(row: Row, factor: float) -> Row:
    """The row at so many times its rate."""

    def cost(now: float | None) -> float | None:
        return None if now is None else now / factor

    return replace(
        row,
        rate=row.rate * factor,
        low=row.low * factor,
        high=row.high * factor,
        per_gpu=row.per_gpu * factor,
        output_tokens_s_gpu=row.output_tokens_s_gpu * factor,
        cost_per_million_tokens=cost(row.cost_per_million_tokens),
        cost_per_million_output_tokens=cost(row.cost_per_million_output_tokens),
    )


def _row(
    spec: Spec,
    gpus: int,
    split: Split,
    guess: float,
    rates: tuple[float, float, float],
    searches: tuple[Found, ...],
    shown: Sequence[Probe],
    refined: bool = False,
) -> Row:
    """`rates`: the rate and its interval; `shown`: the runs whose tokens are given, at the highest rate that passes."""
    n = max(len(shown), 1)
    output, total = sum(p.output_tokens_s for p in shown) / n, sum(p.total_tokens_s for p in shown) / n
    price = price_per_gpu_hour(spec)
    spent = None if price is None else price * gpus / 3600
    return Row(
        split=split,
        name=split.name,
        gpus=split.gpus,
        idle=gpus - split.gpus,
        guess=guess,
        rate=rates[0],
        low=rates[1],
        high=rates[2],
        per_gpu=rates[0] / gpus,
        output_tokens_s_gpu=output / gpus,
        tokens_s_user=sum(p.tokens_s_user for p in shown) / n,
        cost_per_million_tokens=spent / total * 1e6 if spent is not None and total else None,
        cost_per_million_output_tokens=spent / output * 1e6 if spent is not None and output else None,
        searches=searches,
        refined=refined,
    )


def price_per_gpu_hour(spec: Spec) -> float | None:
    given = spec.cluster.price_per_gpu_hour
    return given if given is not None else hardware(spec.hardware).price_per_gpu_hour
