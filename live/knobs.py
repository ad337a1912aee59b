"""The knobs of `optimizations` on real vLLM: those that it has a switch for; the others are refused, not ignored."""

from __future__ import annotations

from planner.spec import SpecError
from planner.system.resolve import System

GIB = 1 << 30
REAL = (
    "decode.offload (one tier, aggregated), and the engine's own: enforce_eager, enable_prefix_caching, kv_cache_dtype"
)


def check(system: System, kind: str) -> None:
    """Raises SpecError for a knob that this vLLM cannot turn; `kind` of build: gpu or cpu."""
    knobs = system.spec.optimizations
    asked = {
        "prefill.streams": knobs.prefill.streams is not None,
        "prefill.sparse_attention": knobs.prefill.sparse_attention is not None,
        "prefill.prefetch_retrieval": knobs.prefill.prefetch_retrieval,
        "transfer.staging": knobs.transfer.staging != "zero_copy",
        "transfer.compression": knobs.transfer.compression is not None,
        "transfer.layerwise": knobs.transfer.layerwise is not None,
        "decode.micro_batches": knobs.decode.micro_batches > 1,
        "decode.persistent": knobs.decode.persistent is not None,
        "decode.preemption": knobs.decode.preemption != "recompute",
        "decode.key_only": knobs.decode.key_only,
        "separation.role_switch": knobs.separation.role_switch is not None,
        "decode.offload": len(knobs.decode.offload) > 1 or bool(knobs.decode.offload and system.disaggregated),
    }
    if kind == "cpu" and knobs.decode.offload:
        raise SpecError("optimizations.decode.offload: vLLM's KV offloading needs a GPU; allowed live on a CPU: none")
    for name, on in asked.items():
        if on:
            raise SpecError("optimizations.{name}: only the simulator has it; allowed live: {real}", name, REAL)


def options(system: System) -> list[str]:
    """vLLM's options for the knobs that it has: KV that falls out of the cache is kept in host memory."""
    offload = system.spec.optimizations.decode.offload
    if not offload:
        return []
    return [f"--kv-offloading-size={offload[0].capacity_gb * 1e9 / GIB:.4g}", "--kv-offloading-backend=native"]
