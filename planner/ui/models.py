"""The model field: names of the catalogue, hub ids, folders and pasted configs, and how well each is known on a GPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

from planner.engine.catalogue import names
from planner.engine.hub_ids import published_as
from planner.engine.model_config import parsed
from planner.engine.profiles import shipped
from planner.spec import SpecError
from planner.suggestion.splits import tp_sizes
from planner.ui.scenario import Scenario

PASTED = Path("runs") / "models"


@lru_cache(maxsize=1)
def offered() -> tuple[str, ...]:
    """The catalogue's models with published weights; the others are for this project's own tests."""
    return tuple(name for name in names("models") if published_as(name) is not None)


@dataclass(frozen=True, slots=True)
class Standing:
    """How well a model is known on a GPU. `fault`: why it is not supported."""

    kind: Literal["measured", "roofline", "not supported"]
    fault: SpecError | None = None


@lru_cache(maxsize=256)
def standing(model: str, hardware: str, gpus: int) -> Standing:
    """Whether its step times were measured there, follow from the datasheet, or it cannot run on so many GPUs."""
    try:
        tp_sizes(Scenario(model=model, hardware=hardware, gpus=gpus).spec(), gpus)
    except SpecError as error:
        return Standing("not supported", error)
    return Standing("roofline" if shipped(model, hardware) is None else "measured")


def pasted(text: str) -> str:
    """Keep a pasted config.json under its content; returns the folder, for the spec's `model`. Raises SpecError."""
    config = parsed(text, "config.json", "config.json")
    kept = json.dumps(config, indent=1, sort_keys=True)
    said = str(config.get("_name_or_path") or config.get("model_type") or "model").rsplit("/", 1)[-1]
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in said).strip(".-") or "model"
    folder = PASTED / f"{name}-{sha256(kept.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(kept)
    return str(folder)
