"""A model that another stack names, as planner's: catalogue names, quantised ids, longer contexts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planner.engine.catalogue import names
from planner.engine.hub_ids import all_shipped, known, published_as, told_by_name
from planner.engine.model_config import load_model
from planner.interop.import_reading import Choices, Note
from planner.interop.import_vllm import as_json, placeholder
from planner.spec import SpecError

HALF_BYTE = 6.0  # bits of a weight, scales and all: below are those of 4, above those of 8


def model_name(
    foreign: str, key: str, where: str = "", served: str | None = None
) -> tuple[str, dict[str, Any], list[Note]]:
    """(model, engine keys, notes): the catalogue's name of a hub id, or the id with a warning. Raises SpecError."""
    if foreign.startswith("./") and served in names("models"):
        return served, {}, [Note("assumed", key, f"{foreign} is served as {served}, the catalogue's")]
    if placeholder(foreign) or not foreign.strip():
        raise SpecError(
            "{where}: {key}: {foreign!r} is no model; allowed: a model in the file, or --set model=NAME",
            where,
            key,
            foreign,
        )
    ours = all_shipped().get(foreign.lower())
    if ours is not None and (ours.changes or ours.hub_id == published_as(ours.entry)):
        return ours.model, {}, []
    found = told_by_name(foreign)
    if found is None or foreign.startswith(("/", ".", "~")):
        return foreign, {}, [Note("warning", key, _unknown(foreign, served))]
    notes = [] if found.same else [Note("assumed", key, f"{foreign} has the shape of {found.model}")]
    stored = load_model(found.model).checkpoint
    if found.quantised is None or (stored is not None and (stored.bits < HALF_BYTE) == found.quantised.startswith("4")):
        return found.model, {}, notes
    if stored is not None:
        note = f"{foreign}: {found.quantised} in its name; the weights of {found.model} are {stored.weights}"
        return (
            found.model,
            {},
            [*notes, Note("loss", key, f"{note}; a folder with its config.json says more", grave=True)],
        )
    if found.quantization is None:
        note = f"{foreign}: {found.quantised} in its name, which no engine key of the model's plain weights says"
        note += "; a folder with its config.json does"
        return found.model, {}, [*notes, Note("loss", key, note, grave=True)]
    bits = found.quantization
    said = f"{foreign}: {found.quantised}, read from its name (engine.quantization: {bits}); only its config.json knows"
    keys: dict[str, Any] = {"quantization": bits}
    if re.search(r"fp8[-_](?:dynamic[-_])?kv", foreign.rsplit("/", 1)[-1].lower()):
        keys["kv_cache_dtype"] = "fp8"
    return found.model, keys, [*notes, Note("warning", key, said)]


def _unknown(foreign: str, served: str | None) -> str:
    like = None if served is None else told_by_name(served)
    hint = f"; it is served as {served}, whose shape is --set model={like.model}" if like else ""
    like = told_by_name(foreign)
    if like is not None and not hint:  # a path: what is there may be another model of that name
        bits = f" --set engine.quantization={like.quantization}" if like.quantization else ""
        hint = f"; by its name it is --set model={like.model}{bits}"
    return f"{foreign} is not in the catalogue; give `model` a folder with its config.json, or --set model=NAME{hint}"


def positions(
    values: Mapping[str, Any], environment: Mapping[str, str], model: str, key: str
) -> tuple[dict[str, Any], list[Note]]:
    """Engine keys for a context that was made longer than the model's own, by rope scaling or by hand."""
    place = f"{key}.hf-overrides" if key else "--hf-overrides"
    overrides = as_json(values["hf-overrides"], place) if values.get("hf-overrides") is not None else {}
    overrides |= overrides.pop("text_config", {}) if isinstance(overrides.get("text_config"), dict) else {}
    rope: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        given = overrides.pop(name, None) or values.get(name.replace("_", "-"))
        rope |= as_json(given, f"{place}.{name}") if given else {}
    longest = overrides.pop("max_position_embeddings", None)
    overrides.pop("rope_theta", None)
    notes = [
        Note(
            "loss", f"{place}.{name}", f"{value} changes the model, which is taken as it is",
            grave="layer" in name or "hidden" in name,
        )
        for name, value in overrides.items() if name not in ("architectures", "model_type", "max_model_len")
    ]  # fmt: skip
    wanted = values.get("max-model-len")
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    own = load_model(model).max_position if known(model) else None
    if longest is None and isinstance(factor, int | float):
        base = original if isinstance(original, int) else own
        longest = None if base is None else int(base * factor)
    by_hand = environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") in ("1", "true", "True")
    if longest is None and isinstance(wanted, int) and (rope or by_hand):
        longest = wanted
    if not isinstance(longest, int) or isinstance(longest, bool) or longest < 1:
        return {}, notes
    if isinstance(wanted, int) and wanted > longest and by_hand:
        longest = wanted
    if own == longest:
        return {}, notes
    text = f"positions up to {longest}; rope scaling itself takes no time"
    return {"max_position_embeddings": longest}, [*notes, Note("assumed", place, text)]


def chosen(
    choices: Choices, foreign: str, key: str, where: str, served: str | None
) -> tuple[str, dict[str, Any], list[Note]]:
    """As `model_name`, unless the user says which model it is."""
    if choices.model is not None:
        return choices.model, {}, []
    return model_name(foreign, key, where, served)
