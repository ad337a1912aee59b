"""The JSON Schema of `planner suggest --json`, made of the types that it is written from."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from planner.spec import Slo
from planner.suggestion.answer import Check, Point, Smallest, Verdict
from planner.suggestion.tuning import Tuning

ID = "https://json-schema.org/draft/2020-12/schema"
NUMBER, TEXT, WHOLE, FLAG = {"type": "number"}, {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "array", "items": TEXT}
POOL = {
    "type": "object",
    "properties": {"replicas": {**WHOLE, "minimum": 1}, "tp": {**WHOLE, "minimum": 1}, "dp": {**WHOLE, "minimum": 2}},
    "required": ["replicas", "tp"],
    "additionalProperties": False,
}
# Those of a candidate: what each is, and its type.
CANDIDATE: dict[str, tuple[Any, str]] = {
    "mode": ({"enum": ["aggregated", "disaggregated"]}, "whether prompts have workers of their own"),
    "pools": (
        {"type": "object", "additionalProperties": POOL},
        "aggregated, or prefill and decode: workers, their GPUs (tp), and ranks where there are several (dp)",
    ),
    "name": (TEXT, "6P2D, 2 agg TP2"),
    "gpus": (WHOLE, "used"),
    "idle": (WHOLE, "of those asked for, not used"),
    "guess": (NUMBER, "requests a second, in closed form"),
    "rate": (NUMBER, "highest rate within the targets, requests a second; 0: none is"),
    "low": (NUMBER, "of its 95 % interval, where refined"),
    "high": (NUMBER, "of its 95 % interval, where refined"),
    "per_gpu": (NUMBER, "rate over all GPUs asked for"),
    "output_tokens_s_gpu": (NUMBER, "output tokens a second at that rate, over all GPUs asked for"),
    "tokens_s_user": (NUMBER, "output tokens a second that one user sees at that rate"),
    "cost_per_million_tokens": ({"type": ["number", "null"]}, "null without a price"),
    "cost_per_million_output_tokens": ({"type": ["number", "null"]}, "null without a price"),
    "refined": (FLAG, "run with every seed; the others are rough"),
    "tuning": (Tuning, "engine and link keys that it sets over the spec; null: the spec's"),
    "rates": ({"type": "array", "items": NUMBER}, "of each seed's own search"),
}
TOP: dict[str, tuple[Any, str]] = {
    "answer": (TEXT, "the sentence"),
    "gpus": (WHOLE, "asked for"),
    "model": (TEXT, "of the spec"),
    "hardware": (TEXT, "of the spec"),
    "targets": (Slo, "what the rates keep to"),
    "requests": ({"type": ["integer", "null"]}, "asked for; null: the workload has a length of its own"),
    "seeds": (WHOLE, "lists of requests that the best were run with"),
    "seeds_asked": (WHOLE, "lists of requests, at most"),
    "groups": (WHOLE, "of equal GPUs, one of which was searched and its rates multiplied; 1: all were searched"),
    "run_seconds": ({"type": ["number", "null"]}, "of traffic in a run; null: the workload's own list"),
    "run_warmup_s": ({"type": ["number", "null"]}, "of these, not judged"),
    "run_after_s": ({"type": ["number", "null"]}, "for which requests come after these"),
    "as_good": (TEXTS, "candidates that cannot be told from the first"),
    "provenance": (TEXT, "where step times are from"),
    "verdict": (Verdict, "the comparison; null: only one mode is possible"),
    "candidates": (None, "ranked, best first"),
    "pareto": (Point, "what no other candidate beats in both"),
    "smallest": (Smallest, "with --rate: the fewest GPUs that serve it; null without"),
    "check": (Check, "with --verify: what was run for real; null without"),
    "notes": (TEXTS, "what to know"),
    "yaml": (TEXT, "the suggested deployment's file"),
}
MAY_BE_NULL = {"verdict", "smallest", "check"}


def _object(fields: dict[str, tuple[dict[str, Any], str]]) -> dict[str, Any]:
    properties = {name: {**kind, "description": text} for name, (kind, text) in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}


def schema() -> dict[str, Any]:
    """A closed schema (draft 2020-12): a key that is not in it is never written."""
    definitions: dict[str, Any] = {}

    def of(kind: Any) -> dict[str, Any]:
        made = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}", mode="serialization")
        for name, inner in made.pop("$defs", {}).items():
            definitions[name] = _closed(inner)
        definitions[kind.__name__] = _closed(made)
        return {"$ref": f"#/$defs/{kind.__name__}"}

    fields: dict[str, tuple[dict[str, Any], str]] = {}
    for name, (kind, text) in TOP.items():
        if name == "candidates":
            keys = {key: (one if isinstance(one, dict) else of(one), about) for key, (one, about) in CANDIDATE.items()}
            made: dict[str, Any] = {"type": "array", "items": _object(keys)}
        elif isinstance(kind, dict):
            made = kind
        elif name == "pareto":
            made = {"type": "array", "items": of(kind)}
        else:
            made = {"anyOf": [of(kind), {"type": "null"}]} if name in MAY_BE_NULL else of(kind)
        fields[name] = (made, text)
    return {"$schema": ID, "title": "planner suggest --json", **_object(fields), "$defs": definitions}


def _closed(made: dict[str, Any]) -> dict[str, Any]:
    """Without titles and defaults: every key is written."""
    properties = made.get("properties")
    if properties is None:
        return made
    plain = {
        name: {key: value for key, value in one.items() if key not in ("title", "default")}
        for name, one in properties.items()
    }
    about = {"description": made["description"]} if "description" in made else {}
    return {"type": "object", **about, "properties": plain, "required": list(plain), "additionalProperties": False}
