"""The load that a script sends to its servers, as planner's workload: `vllm bench serve` with random prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from planner.interop.import_reading import Note
from planner.interop.import_vllm import Options, options
from planner.interop.shell import Command

# The defaults of vLLM 0.32.
PROMPTS, INPUT, OUTPUT = 1000, 1024, 128


def _benchmark(words: Sequence[str]) -> list[str] | None:
    """What follows the load generator's name; None for other commands."""
    for index, word in enumerate(words):
        if list(words[index : index + 2]) == ["bench", "serve"]:
            return list(words[index + 2 :])
        if word.endswith("benchmark_serving.py"):
            return list(words[index + 1 :])
    return None


def _length(values: Mapping[str, Any], of: str, default: int) -> Any:
    """A number of tokens, or a uniform one where --random-range-ratio spreads it."""
    mean, spread = values.get(f"random-{of}-len", default), values.get("random-range-ratio", 0)
    if not isinstance(spread, int | float) or not isinstance(mean, int) or not 0 < spread < 1:
        return mean
    return {"kind": "uniform", "low": max(1, round(mean * (1 - spread))), "high": round(mean * (1 + spread))}


def load_of(commands: Sequence[Command], where: str) -> tuple[dict[str, Any] | None, list[Note]]:
    """The workload of the first benchmark among a script's commands, and what of it is lost. Raises SpecError."""
    found: list[Options] = []
    for command in commands:
        words = _benchmark(command.words)
        if words is not None:
            found.append(options(words, f"{where}: the load", "bench"))
    if not found:
        return None, []
    values = found[0].values
    notes = [Note("loss", "workload", f"{len(found)} loads; the first one counts")] if len(found) > 1 else []
    dataset = str(values.get("dataset-name", "random"))
    if dataset != "random":
        text = f"{dataset}: its lengths are in another file; see planner trace and workload.path"
        return None, [*notes, Note("loss", "workload", text)]
    numbers = ("random-input-len", "random-output-len", "random-prefix-len", "num-prompts", "max-concurrency")
    if any(isinstance(values.get(name, 1), str) for name in numbers):
        return None, [*notes, Note("loss", "workload", "the load's sizes are variables that are set nowhere")]
    prefix = values.get("random-prefix-len", 0)
    prompt = _length(values, "input", INPUT)
    if prefix and isinstance(prompt, dict):
        prompt = {**prompt, "low": prompt["low"] + prefix, "high": prompt["high"] + prefix}
    elif prefix:
        prompt += prefix
    load: dict[str, Any] = {
        "requests": values.get("num-prompts", PROMPTS),
        "prompt_tokens": prompt,
        "output_tokens": _length(values, "output", OUTPUT),
    }
    if prefix:
        load["shared_prefix_tokens"] = prefix
    rate, most = values.get("request-rate", "inf"), values.get("max-concurrency")
    if isinstance(rate, int | float) and rate > 0:
        notes += [Note("loss", "workload", f"at most {most} requests at once; not limited here")] if most else []
        shape = values.get("burstiness", 1.0)
        gamma = isinstance(shape, int | float) and shape > 0 and shape != 1
        kind = {"kind": "gamma", "rate": rate, "burstiness": shape} if gamma else {"kind": "poisson", "rate": rate}
        return {**kind, **load}, notes
    if isinstance(most, int):
        return {"kind": "concurrency", "concurrency": most, **load}, notes
    if not re.fullmatch(r"inf(inity)?", str(rate), re.I):
        return None, [*notes, Note("loss", "workload", f"request rate {rate} is no number")]
    text = f"all {load['requests']} requests at once, which is taken as so many that wait for their answers"
    return {"kind": "concurrency", "concurrency": load["requests"], **load}, [*notes, Note("assumed", "workload", text)]
