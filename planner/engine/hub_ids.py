"""Names of published models: hub ids whose figures ship, and what an id says of a model whose figures do not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.engine.catalogue import find, names, read_entry

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # ORGANISATION/NAME
PUBLISHED = re.compile(r"(?:model card|config\.json) of ([\w.-]+/[\w.-]*\w)")  # of an entry's source


def entry_of(name: str) -> tuple[Path, dict[str, Any]]:
    """A catalogue's model: its file and what that holds. Raises SpecError."""
    path = find("models", name)
    return path, read_entry(path)


def published_as(name: str) -> str | None:
    """The hub id whose figures a catalogue entry holds; None for a model without published weights."""
    match = PUBLISHED.search(str(entry_of(name)[1].get("source", "")))
    return match.group(1) if match else None


@dataclass(frozen=True)
class Shipped:
    """A hub model whose figures ship: the catalogue's entry, and the keys in which its config.json differs."""

    hub_id: str
    entry: str
    changes: dict[str, Any]

    @property
    def model(self) -> str:
        """What a spec calls it: the entry, unless only the hub id says it all."""
        return self.hub_id if self.changes else self.entry


@lru_cache(maxsize=1)
def all_shipped() -> dict[str, Shipped]:
    """By hub id in small letters: the entries' own, and those under an entry's `also`."""
    found = {}
    for name in names("models"):
        own = published_as(name)
        also = {} if own is None else {own: {}, **entry_of(name)[1].get("also", {})}
        found.update({hub_id.lower(): Shipped(hub_id, name, changes) for hub_id, changes in also.items()})
    return found


def known(model: str) -> bool:
    """Whether the catalogue has a model's figures, by its name there or by its hub id."""
    return model in names("models") or model.lower() in all_shipped()


# --- what a name says --------------------------------------------------------------------------

_QUANT = re.compile(
    r"[-_.](?:quantized\.)?(?:(?:nv|mx)?fp[48](?:[-_](?:dynamic|kv|block|static|ar|dynamic-kv|scaled|v\d))*|w\d+a\d+"
    r"|awq(?:[-_]int4|[-_]4bit|-marlin)?|gptq(?:[-_]int[48]|[-_]4bit)?|int[48]|[348]bit|bnb-4bit|gguf)(?=$|[-_.])",
    re.I,
)
# What a model's name says of its weights, the first that fits: pattern -> (engine.quantization, words).
_BITS: tuple[tuple[str, str | None, str], ...] = (
    (r"nvfp4|fp4|mxfp4|gguf|exl2|mlx|w4a8|w3a16|w2a16|int3|2bit|3bit", None, "4 bits or fewer"),
    (r"fp8|w8a8-?fp8", "fp8", "fp8"),
    (r"gptq-?int8|w8a16|8bit", None, "8-bit weights with 16-bit arithmetic"),
    (r"int8|w8a8", "int8", "int8"),
    (r"w4a16|awq|gptq|int4|4bit|bnb", "int4", "4-bit weights"),
)


@dataclass(frozen=True)
class Named:
    """What the name of a model says of it. `quantised`: how, in words; `quantization`: the engine key that says so."""

    model: str  # what a spec calls the one of the same shape
    same: bool  # nothing else stands in the name
    quantised: str | None
    quantization: str | None


def told_by_name(name: str) -> Named | None:
    """A model whose figures ship, by the last part of an id or path; None where none has such a name."""
    last = name.split("://")[-1].rstrip("/").rsplit("/", 1)[-1].lower()
    tag = _QUANT.search(last)
    found = _shipped_as(_QUANT.sub("", last))
    if found is None:
        return None
    if tag is None:
        return Named(found, found == last, None, None)
    _, bits, words = next((one for one in _BITS if re.search(one[0], tag[0], re.I)), (tag[0], None, tag[0]))
    return Named(found, found == last, words, bits)


def _shipped_as(stem: str) -> str | None:
    """What a spec calls the model of a lower-case stem without its quantisation."""
    ours = {hub_id.rpartition("/")[2]: one.model for hub_id, one in all_shipped().items()}
    ours |= {name: name for name in names("models")}
    plain = re.sub(r"^(meta-|nvidia-)", "", stem)
    for candidate in (plain, re.sub(r"-(instruct|chat|it|hf|base)(-.*)?$", "", plain)):
        if candidate in ours:
            return ours[candidate]
    return None
