"""The same run in the words of other tools: their definitions, their table, their JSON keys.

| quantity | vllm bench serve | AIPerf | guidellm | multi-round-qa |
|---|---|---|---|---|
| (E2E - TTFT) / (n - 1) of a request | TPOT | ITL | ITL | - |
| E2E / n of a request | - | - | TPOT | - |
| gaps between tokens, pooled | ITL | inter chunk latency | - | - |
| n / (E2E - TTFT), mean over requests | - | - | - | generation throughput |
| goodput counts failed requests as | not sent | misses | - | - |

A key that a run cannot fill (token times of a simulated request, generated text) is left out, never invented.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planner.interop.dialects import aiperf, guidellm, multi_round_qa, vllm
from planner.run.facts import Facts
from planner.run.tables import Run
from planner.spec import SpecError


@dataclass(frozen=True, slots=True)
class Dialect:
    """One tool: what it prints and what it exports."""

    name: str
    table: Callable[[Facts, bool], str]  # (run, colour)
    export: Callable[[Facts], dict[str, Any]]


def dialect_named(name: str) -> Dialect:
    """Raises SpecError for a tool that is not known."""
    if name not in DIALECTS:
        near = difflib.get_close_matches(name, DIALECTS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SpecError("--table {name}: is unknown; allowed: {dialects}{hint}", name, ", ".join(DIALECTS), hint)
    return DIALECTS[name]


def table(run: Run, name: str, colour: bool = False) -> str:
    """The run as the tool `name` would print it. Raises SpecError."""
    return dialect_named(name).table(Facts(run), colour)


def export_json(run: Run, name: str) -> dict[str, Any]:
    """The run under the JSON keys of the tool `name`. Raises SpecError."""
    return dialect_named(name).export(Facts(run))


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("vllm", vllm.table, vllm.export),
        Dialect("aiperf", aiperf.table, aiperf.export),
        Dialect("guidellm", guidellm.table, guidellm.export),
        Dialect("multi-round-qa", multi_round_qa.table, multi_round_qa.export),
    )
}
