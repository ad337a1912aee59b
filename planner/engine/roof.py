"""What a model on a GPU cannot beat, and what is assumed of it where nothing was measured.

`planner.engine.law` says which of these rates bounds a term, and which one stands in for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from planner.engine.catalogue import Dtype, Hardware
from planner.engine.memory import release_of
from planner.engine.model_shape import ModelShape
from planner.engine.rates import Kind, Rates, rates
from planner.engine.setup import Setup

# Shares of the peak where an estimate asks for no kernel in particular (planner.system.knobs).
MEMORY_EFFICIENCY = 0.8
MATMUL_EFFICIENCY = 0.6
ALL_REDUCE_S = 15e-6  # a small all-reduce over NVLink

# Seconds of every step, and of each of its sequences, that no kernel takes; fitted as `planner.engine.rates` is.
STEP_S = 0.000311
CPU_STEP_S = 1e-3  # assumed
SEQUENCE_S = 1.49e-05
# Kernels that a layer has beside an ordinary one's: seconds of a step, and of the host to launch them one by one.
EXPERTS_S = 1.71e-05, 5.63e-05  # routing tokens to experts, and their results together again
LATENT_S = 1.21e-05, 5.77e-05  # MLA's projections
BLOCKS_S = 1.8e-05, 0.000267  # weights with a scale a block: inputs are quantised by kernels of their own
NORMS_S = 1.95e-05, 0.00024  # q and k normed over heads of all GPUs, which add up their squares
EARLY, EARLY_EXPERTS = (0, 18), 1.4  # before this release kernels of a layer of a mixture took so many times as long

LAUNCH_S = 2.4e-3  # the host's for any step; this and PIECEWISE: H200 profiles of Llama-3.1-8B and Qwen3-1.7B
LAUNCH_RANKS = 0.105  # more for each doubling of tp: the slowest of its processes is waited for
PIECEWISE = 0.37  # of launching kernel by kernel: graphs between the layers' attention

# Two all-reduces a layer when tp > 1.
DOUBLED_S = 3.39e-06  # more for each doubling of tp beyond 2
PCIE_S = 7e-6  # more for each GPU beyond 2 where there is no NVLink
PCIE_EFFICIENCY = 0.2  # of PCIe's: from 0.3 at tp 2 down to 0.05 at 8 in operator tables of L40S

# Bytes of memory that a token passes between matrix products, whole on every GPU: of each number of a layer's hidden
# state in its norms, sums and quantisation, and of each such number for each of its experts, sent there and back.
MOVED_BYTES, ROUTED_BYTES = 22.0, 8.0

# Two exchanges a layer of experts between ranks: all tokens to all of them, and their results back. NCCL 2.29's
# all_gather and reduce_scatter in aiconfigurator-core 0.12.0's tables (Apache-2.0) of 2, 4 and 8 H100, H200 and B200:
# 6 to 9, 8 to 13 and 10 to 19 us for few bytes; from 0.45 to 0.7 of NVLink's bandwidth for 16 to 128 MiB.
EXCHANGE_S, EXCHANGE_DOUBLED_S = 7e-6, 3.5e-6  # a small one among two GPUs, and more for each doubling
EXCHANGE_EFFICIENCY = 0.55
# Qwen3-30B-A3B on two H200s of one host (`benchmarks/recorded/h200x2-ranks`): a step in lockstep takes so much longer
# than its kernels and these, and launching a layer's exchanges this share of its other kernels (73 to 94 ms a step).
LOCKSTEP_S = 0.85e-3
EXCHANGES_LAUNCHED = 0.28
NETWORK_S = 2e-5  # assumed: more for each where the ranks stand on several nodes
NETWORK_EFFICIENCY = 0.8  # assumed: share of the nodes' NICs that they reach

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
        return size / self.shards / self.hardware.memory_bandwidth

    @property
    def shards(self) -> int:
        """GPUs that share the routed experts."""
        return self.tp * self.setup.ranks

    @property
    def ranks(self) -> float:
        """In lockstep; 0 where there is one."""
        return float(self.setup.ranks) if self.setup.ranks > 1 else 0.0

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

    @cached_property
    def rates(self) -> Rates:
        return rates(self.hardware)

    def _kind(self, bits: float) -> Kind:
        """How weights of so many bits lie in memory."""
        if bits >= 8.0 * self.model.dtype_bytes:
            return "plain"
        stored, checkpoint = self.model.types(self.setup.options)[1], self.model.checkpoint
        if checkpoint is not None and checkpoint.method == "mxfp4":
            return "mxfp4"
        if bits >= 8:
            return "fp8"
        return "fp4" if stored == "fp4" and "fp4" in self.hardware.tflops else "int4"

    def _arithmetic(self, bits: float) -> Dtype:
        """What products of such weights run in: the engine's dtype, unless inputs are quantised too."""
        plain = bits >= 8.0 * self.model.dtype_bytes
        quantised = None if plain else _QUANTISED.get(self.model.types(self.setup.options)[1])
        dtype = quantised or _DTYPES.get(self.setup.options.dtype, "bf16")
        return dtype if dtype in self.hardware.tflops else "bf16"

    @cached_property
    def _dense(self) -> tuple[tuple[int, float], ...]:
        """(weights, bits of each) that every token passes, without the head."""
        kinds, bits, plain = self.model.parameters, self.model.bits, 8.0 * self.model.dtype_bytes
        return (
            (kinds.attention, bits.attention),
            (kinds.mlp, bits.mlp),
            (kinds.shared, bits.shared),
            (kinds.router, plain),
        )

    def _products_s(self, flops: float, bits: float) -> float:
        dtype = self._arithmetic(bits)
        return flops / (self.hardware.flops(dtype) * self.tp) / self.rates.products[dtype]

    def _layers_s(self, launched: bool) -> float:
        """All layers' kernels however little they do: the GPU's time, or the host's to launch them one by one."""
        model, at, own = self.model, int(launched), self.rates
        layer = own.launch_layer_s if launched else own.layer_s
        if not own.layer_s:
            return layer * model.layers
        layer += LATENT_S[at] if model.latent_dim else 0.0
        if model.experts:
            layer += EXPERTS_S[at] * (1.0 if launched else own.expert_kernels[self._kind(model.bits.routed)])
        layer += BLOCKS_S[at] if model.checkpoint is not None and model.checkpoint.block is not None else 0.0
        layer += NORMS_S[at] * model.wide_norms / model.layers if self.tp > 1 else 0.0
        early = bool(model.experts) and not launched and release_of(self.setup.options) < EARLY
        return layer * model.layers * (EARLY_EXPERTS if early else 1.0)

    @property
    def launch_eager_s(self) -> float:
        """Assumed: the host's time to launch a step that no CUDA graph covers. On a CPU it is part of the step."""
        return self.launch_decode_s + self._kernels_s

    @property
    def launch_graph_s(self) -> float:
        """Assumed: the same of a step with prompts that graphs cover but for attention."""
        return self.launch_decode_s + PIECEWISE * self._kernels_s

    @property
    def launch_decode_s(self) -> float:
        """Assumed: the same of a step that one graph covers."""
        return 0.0 if self.hardware.kind == "cpu" else LAUNCH_S

    @property
    def _kernels_s(self) -> float:
        ranks = 1.0 + LAUNCH_RANKS * math.log2(self.shards)
        exchanges = 1.0 + EXCHANGES_LAUNCHED * (self.ranks > 0)
        return 0.0 if self.hardware.kind == "cpu" else self._layers_s(launched=True) * ranks * exchanges

    @property
    def _prompts_s(self) -> float:
        """What a CPU's steps with prompts take besides."""
        return self._layers_s(launched=True) if self.hardware.kind == "cpu" else 0.0

    @property
    def all_reduces_s(self) -> float:
        """Assumed: the small all-reduces of a step."""
        if self.tp == 1:
            return 0.0
        each = self.rates.all_reduce_s + DOUBLED_S * math.log2(self.tp / 2)
        if self.hardware.nvlink_gb_s is None:
            each += PCIE_S * (self.tp - 2)
        return 2 * self.model.layers * each

    @property
    def exchanges_s(self) -> float:
        """Assumed: the small exchanges of a step between ranks, and agreeing to take it."""
        if not self.ranks:
            return 0.0
        each = EXCHANGE_S + EXCHANGE_DOUBLED_S * math.log2(self.shards / 2)
        if self.hardware.nvlink_gb_s is None:
            each += PCIE_S * (self.shards - 2)
        if self.setup.parallel.nodes > 1:
            each += NETWORK_S
        return 2 * sum(self.model.moe_layers) * each + LOCKSTEP_S

    @property
    def exchanged_token_s(self) -> float:
        """Assumed: what a token of any rank adds to the exchanges of a step.

        vLLM's default gathers the tokens of all ranks on each, and adds up the experts' results on their way back.
        Between nodes they pass the NICs of a node's GPUs together.
        """
        if not self.ranks:
            return 0.0
        nodes, group = self.setup.parallel.nodes, self.shards if self.setup.parallel.ep > 1 else self.ranks
        size = 2 * sum(self.model.moe_layers) * self.model.hidden * self.model.dtype_bytes
        seconds = size * (group - 1) / group / (self._link_gb_s(EXCHANGE_EFFICIENCY) * 1e9)
        if nodes > 1:
            uplink = self.hardware.nic_gb_s * self.shards / nodes * NETWORK_EFFICIENCY
            seconds += size * (nodes - 1) / nodes / (uplink * 1e9)
        return seconds

    @property
    def uneven_token_s(self) -> float:
        """Assumed: the experts' products of a token that the mean rank has and this one has not."""
        return self._experts_token_s if self.ranks else 0.0

    def _link_gb_s(self, efficiency: float) -> float:
        """Of a GPU to its neighbours, as large collectives reach it: that share of NVLink, or of PCIe its own."""
        nvlink = self.hardware.nvlink_gb_s
        return nvlink * efficiency if nvlink else self.hardware.pcie_gb_s * PCIE_EFFICIENCY

    @property
    def fixed_s(self) -> float:
        """Assumed: what a step takes besides its work."""
        step = CPU_STEP_S if self.hardware.kind == "cpu" else STEP_S
        return step + self._layers_s(launched=False) + self.all_reduces_s + self.exchanges_s

    @property
    def likely_weights_s(self) -> float:
        """Assumed: reading the weights, and `fixed_s`."""
        model = self.model
        head = model.parameters.head or model.parameters.embedding
        read = sum(count * bits / 8 / self.rates.weights[self._kind(bits)] for count, bits in self._dense)
        read += head * model.bits.head / 8 / self.rates.weights[self._kind(model.bits.head)]
        read += model.parameters.norms * model.dtype_bytes / self.rates.weights["plain"]
        return read / self.tp / self.hardware.memory_bandwidth + self.fixed_s

    @property
    def likely_floor_s(self) -> float:
        """Assumed: the least that a step with prompts takes."""
        return self.likely_weights_s + self._prompts_s

    @property
    def likely_line_s(self) -> float:
        """Assumed: what a step with prompts takes besides its tokens."""
        return self.fixed_s + self._prompts_s

    @property
    def likely_token_s(self) -> float:
        """Assumed: `token_s`."""
        products = sum(self._products_s(2.0 * count, of) for count, of in self._dense)
        return products + self._experts_token_s + self._moved_token_s

    @property
    def _moved_token_s(self) -> float:
        """Of kernels between the products, which tensor parallelism does not share out."""
        if self.hardware.kind == "cpu":
            return 0.0
        routed = sum(self.model.moe_layers) * self.model.experts_per_token
        size = self.model.hidden * (MOVED_BYTES * self.model.layers + ROUTED_BYTES * routed)
        return size / self.hardware.memory_bandwidth

    @property
    def _experts_token_s(self) -> float:
        """Of routed experts, where every rank has as many tokens."""
        routed = self.model.flops_per_token - 2.0 * self.model.parameters.dense
        bits = self.model.bits.routed
        peak = self.hardware.flops(self._arithmetic(bits)) * self.tp
        return routed * self.imbalance / peak / self.rates.expert_products[self._kind(bits)]

    @property
    def likely_wide_s(self) -> float:
        """Assumed: the matrix products of a token and of its logits."""
        return self.likely_token_s + self._products_s(self.model.head_flops, self.model.bits.head)

    @property
    def likely_seq_s(self) -> float:
        """Assumed: a sequence whose products hide behind the reading of weights; its windows' KV."""
        if self.hardware.kind == "cpu":
            return self.likely_wide_s  # nothing hides there
        windows = self.model.window_bytes_per_gpu(self.setup.parallel)
        return SEQUENCE_S + windows / self.hardware.memory_bandwidth / self.rates.kv

    @property
    def likely_beside_s(self) -> float:
        """Assumed: a sequence beside prompts, whose products do not hide."""
        return self.likely_wide_s + (0.0 if self.hardware.kind == "cpu" else self.likely_seq_s)

    @property
    def likely_expert_s(self) -> float:
        """Assumed: `expert_s`."""
        return self.expert_s / self.rates.experts[self._kind(self.model.bits.routed)]

    @property
    def likely_kv_s(self) -> float:
        """Assumed: `kv_s`."""
        read = self.kv_s / self.rates.kv
        if self.model.kv_dtype_bytes > 1 or self.model.latent_dim:
            return read
        return max(read, self.kv_s * self.hardware.memory_bandwidth / 1e9 / self.rates.kv8_gb_s)

    @property
    def likely_pair_s(self) -> float:
        """Assumed: attention of a query-key pair in layers without a window."""
        peak = self.hardware.flops(_DTYPES.get(self.setup.options.dtype, "bf16")) * self.tp
        return self.full_attention * self.model.attention_flops_per_pair / peak / self.rates.attention

    @property
    def reduced_token_s(self) -> float:
        """Seconds a token adds to a step at this TP: two all-reduces a layer.

        Each GPU sends 2 (tp - 1) / tp of the vector; all of it once where switches add up (NVLink SHARP).
        """
        if self.tp == 1:
            return 0.0
        nvlink, capability = self.hardware.nvlink_gb_s, self.hardware.compute_capability
        switched = bool(nvlink and capability and int(capability.partition(".")[0]) >= 9)
        sent = 1.0 if switched else 2 * (self.tp - 1) / self.tp
        size = 2 * self.model.layers * self.model.hidden * self.model.dtype_bytes * sent
        return size / (self._link_gb_s(self.rates.all_reduce) * 1e9)

    @property
    def tile_rows(self) -> float:
        """Rows up to which dense products in fp8 have kernels of their own; 0 where none are known.

        CUTLASS on Hopper (vLLM: cutlass_gemm_sm90_fp8_dispatch): 17 to 64 sequences took 1.31 times as long as 16 of
        Llama-3.1-70B on an H200, of Llama-3.1-8B 1.2 to 1.3 times. Scales a block have other kernels.
        """
        checkpoint, capability = self.model.checkpoint, self.hardware.compute_capability or ""
        blocks = checkpoint is not None and checkpoint.block is not None
        hopper = self.hardware.kind == "gpu" and capability.partition(".")[0] == "9"
        return 16.0 if hopper and not blocks and self._arithmetic(self.model.bits.mlp) == "fp8" else 0.0

    @property
    def likely_tile_s(self) -> float:
        """Assumed: what those for wider batches read the weights longer."""
        if not self.tile_rows:
            return 0.0
        most = self.rates.tile8_gb_s * 1e9
        seconds = 0.0
        for count, bits in self._dense:
            reached = self.rates.weights[self._kind(bits)] * self.hardware.memory_bandwidth
            if self._arithmetic(bits) == "fp8" and reached > most:
                seconds += count * bits / 8 * (1 / most - 1 / reached)
        return seconds / self.tp

    @property
    def wave_seqs(self) -> float:
        """Sequences whose KV heads on one GPU are as many as its multiprocessors; 0 where either is not known."""
        if self.hardware.multiprocessors is None or self.model.latent_dim:
            return 0.0
        return self.hardware.multiprocessors / max(1, self.model.kv_heads // self.tp)
