"""A model's sizes and, for each tp, where a GPU's memory goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.engine.catalogue import hardware
from planner.engine.limits import batch_sizes, divides
from planner.engine.memory import GIB, memory
from planner.engine.model_config import load_model
from planner.engine.setup import Setup
from planner.spec import Engine


def ledger(model: str, gpu: str, engine: Engine, sizes: Sequence[int], dp: int = 1) -> dict[str, Any]:
    """One row of `gpus` for each tp, on a GPU of any of `dp` ranks; `refused` says why vLLM would not start there.

    KV tokens are those that vLLM logs: requests of max_model_len that fit, times that length. Padding of pages, where
    layers differ, is not counted. Raises SpecError.
    """
    one = Setup.of(load_model(model), hardware(gpu), engine)
    shape, entry = one.model, one.hardware
    longest, rows = engine.max_model_len or shape.max_position, []
    for setup in (one.at(size, dp) for size in sizes):
        budget, seqs, _ = batch_sizes(setup)
        found = memory(setup, budget, seqs)
        request = shape.request_bytes_per_gpu(longest, budget, setup.parallel)
        even = divides(shape, setup.parallel)
        tokens = int(found.kv / request * longest) if found.kv > 0 else 0
        rows.append(
            {
                "tp": setup.tp,
                "weights_gib": found.weights / GIB,
                "activation_gib": found.activation / GIB,
                "non_torch_gib": found.non_torch / GIB,
                "graphs_gib": found.graphs / GIB,
                "kv_gib": found.kv / GIB,
                "kv_tokens": tokens,
                "refused": "does not divide" if not even else "" if found.kv > 0 else "does not fit",
            }
        )
    return {
        "model": shape.name,
        "hardware": entry.title,
        "parameters": shape.parameters.total,
        "active_parameters": shape.active_parameters,
        "weight_bytes": shape.weight_bytes,
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "state_bytes": shape.state_bytes,
        "gpus": rows,
    }
