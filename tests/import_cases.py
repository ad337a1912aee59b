"""What the tests of `planner import` read, and how they look at what came of it."""

from __future__ import annotations

from typing import Any

from planner.interop.import_file import Conversion, import_text
from planner.interop.import_reading import Choices
from planner.spec import Aggregated

NIXL = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'


def read(text: str, **choices: Any) -> Conversion:
    return import_text(text, "file", "name", (), Choices(**choices))


def shape(found: Conversion) -> tuple[Any, ...]:
    """(replicas, tp) of each pool: one when aggregated, prefill and decode otherwise."""
    deployment = found.spec.deployment
    if isinstance(deployment, Aggregated):
        return ((deployment.replicas, deployment.tp),)
    return tuple((pool.replicas, pool.tp) for pool in (deployment.prefill, deployment.decode))


def said(found: Conversion, kind: str) -> str:
    return "\n".join(str(note) for note in found.notes if note.kind == kind)
