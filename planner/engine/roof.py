"""What a model on a GPU cannot beat, and what is assumed of it where nothing was measured.

`planner.engine.law` says which of these rates bounds a term, and which one stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from planner.engine.catalogue import Dtype, Hardware
from planner.engine.model_shape import ModelShape
from planner.engine.setup import Setup

# Shares of the datasheet peak that a roofline profile assumes. One H200 with Llama-3.1-8B in bf16 and vLLM 0.25.1
# reached 0.91 of the bandwidth for reading KV, 0.73 of the FLOP/s in matrix products and 0.59 in prefill attention.
MEMORY_EFFICIENCY = 0.8
MATMUL_EFFICIENCY = 0.6
ATTENTION_EFFICIENCY = 0.5
LAUNCH_S_PER_LAYER = 0.3e-3  # the same engine's smallest prefill took 10.4 ms for 32 layers: launching, not computing
STEP_OVERHEAD_S = 1e-3  # scheduling and sampling that asynchronous scheduling does not hide
ALL_REDUCE_S = 15e-6  # a small all-reduce over NVLink; two a layer when tp > 1
ALL_REDUCE_EFFICIENCY = 0.7  # share of the link's bandwidth that a large all-reduce reaches; an assumption

_DTYPES: dict[str, Dtype] = {"float32": "fp32", "float16": "fp16"}
_QUANTISED: dict[str | None, Dtype] = {"fp8": "fp8", "int8": "int8", "fp4": "fp4", "w4a8": "fp8"}


@dataclass(frozen=True)
class Roof:
    """Rates of an engine, at full peak where the name does not say otherwise."""

    setup: Setup

    @property
    def model(self) -> ModelShape:
        return self.setup.model

    @property
    def hardware(self) -> Hardware:
        return self.setup.hardware

    @property
    def tp(self) -> int:
        return self.setup.tp

    @cached_property
    def flops(self) -> float:
        """Operations a second of all GPUs. Weights alone that are quantised are expanded to the engine's dtype."""
        dtype = _QUANTISED.get(self.model.types(self.setup.options)[1]) or _DTYPES.get(self.setup.options.dtype, "bf16")
        return self.hardware.flops(dtype) * self.tp

    @property
    def imbalance(self) -> float:
        """How many times the mean the busiest GPU has of the experts' work: all others wait for it.

        One where every GPU holds a share of every expert.
        """
        return self.setup.options.expert_imbalance if self.setup.parallel.ep > 1 else 1.0

    @property
    def weights_s(self) -> float:
        """Reading the weights once, but for routed experts."""
        return (self.model.step_weight_bytes - self.model.routed_bytes) / self.tp / self.hardware.memory_bandwidth

    @property
    def expert_s(self) -> float:
        """Reading one routed expert of every layer that has them; GPUs share the experts of a step, or each of them.

        A layer's experts are read as often as its neighbours', so that the mean over layers is enough.
        """
        if not self.model.experts:
            return 0.0
        size = self.model.routed_bytes / self.model.experts * self.imbalance
        return size / self.tp / self.hardware.memory_bandwidth

    @property
    def full_attention(self) -> float:
        """Share of the layers that look at the whole context."""
        return sum(window is None for window in self.model.windows) / max(1, self.model.attention_layers)

    @property
    def kv_s(self) -> float:
        """Reading the KV of a token in layers without a window."""
        return self.full_attention * self.setup.kv_bytes_per_token / self.hardware.memory_bandwidth

    @property
    def token_s(self) -> float:
        """The matrix products of a token, without the head; of routed experts those that it is sent to."""
        return self.model_flops / self.flops

    @property
    def model_flops(self) -> float:
        """Operations of a token, as its slowest GPU has them."""
        routed = self.model.flops_per_token - 2.0 * self.model.parameters.dense
        return self.model.flops_per_token + routed * (self.imbalance - 1.0)

    @property
    def pair_s(self) -> float:
        """Attention of a query-key pair in layers without a window."""
        return self.full_attention * self.model.attention_flops_per_pair / self.flops

    @property
    def fixed_s(self) -> float:
        """Assumed: what a step takes besides its work."""
        return STEP_OVERHEAD_S + (2 * self.model.layers * ALL_REDUCE_S if self.tp > 1 else 0.0)

    @property
    def likely_weights_s(self) -> float:
        """Assumed: reading the weights, and `fixed_s`."""
        return self.weights_s / MEMORY_EFFICIENCY + self.fixed_s

    @property
    def likely_floor_s(self) -> float:
        """Assumed: the least that a step with prompts takes."""
        return max(self.likely_weights_s, LAUNCH_S_PER_LAYER * self.model.layers)

    @property
    def likely_seq_s(self) -> float:
        """Assumed: the matrix products of a token and of its logits."""
        return (self.model_flops + self.model.head_flops) / self.flops / MATMUL_EFFICIENCY

    @property
    def likely_expert_s(self) -> float:
        """Assumed: `expert_s`."""
        return self.expert_s / MEMORY_EFFICIENCY

    @property
    def likely_kv_s(self) -> float:
        """Assumed: reading the KV of a token in every layer."""
        return self.setup.kv_bytes_per_token / self.hardware.memory_bandwidth / MEMORY_EFFICIENCY

    @property
    def likely_token_s(self) -> float:
        """Assumed: `token_s`."""
        return self.token_s / MATMUL_EFFICIENCY

    @property
    def likely_pair_s(self) -> float:
        """Assumed: attention of a query-key pair in every layer."""
        return self.model.attention_flops_per_pair / self.flops / ATTENTION_EFFICIENCY

    @property
    def reduced_token_s(self) -> float:
        """Seconds a token adds to a step at this TP: two all-reduces a layer, each 2 (tp - 1) / tp of its vector."""
        if self.tp == 1:
            return 0.0
        link_gb_s = self.hardware.nvlink_gb_s or self.hardware.pcie_gb_s
        size = 2 * self.model.layers * self.model.hidden * self.model.dtype_bytes * 2 * (self.tp - 1) / self.tp
        return size / (link_gb_s * 1e9 * ALL_REDUCE_EFFICIENCY)

    @property
    def wave_seqs(self) -> float:
        """Sequences whose KV heads on one GPU are as many as its multiprocessors; 0 where either is not known."""
        if self.hardware.multiprocessors is None or self.model.latent_dim:
            return 0.0
        return self.hardware.multiprocessors / max(1, self.model.kv_heads // self.tp)
