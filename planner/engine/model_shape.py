"""The arithmetic of a model: parameters, weight bytes, KV bytes and FLOPs from its Hugging Face `config.json`.

Sources of the formulas: the `transformers` modelling code of each family (which projections have biases, how many
norms a layer has), DeepSeek-V2's paper for MLA, and the quantisation formats' own documentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from planner.engine.checkpoint import Checkpoint, Weights
from planner.engine.layers import NO_STATE, KvLayer, State
from planner.engine.parallel import Parallel
from planner.spec import Engine, SpecError

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "auto": 2}
ONLINE_BITS = {"fp8": 8.0, "int8": 8.0, "int4": 4.25}  # int4: a 16-bit scale and a 4-bit zero point in 128, rounded up

ALONE = Parallel()

KvType = Literal["auto", "fp8", "bf16", "fp16"]  # of `engine.kv_cache_dtype`


@dataclass(frozen=True, slots=True)
class Parameters:
    """Weights by kind, over all layers. `routed` experts are sparse; `kv`: the part of attention for K and V."""

    embedding: int
    head: int  # 0 when tied to the embedding
    attention: int
    kv: int
    mlp: int  # of layers without experts
    shared: int  # experts that every token passes through
    router: int  # never quantised
    routed: int
    norms: int  # norms, biases and whatever is never quantised
    vision: int = 0  # towers of a multimodal model: loaded, not read by a step

    @property
    def dense(self) -> int:
        """Products of every token in every layer: all but the routed experts and the head."""
        return self.attention + self.mlp + self.shared + self.router

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.dense + self.routed + self.norms + self.vision


@dataclass(frozen=True, slots=True)
class Bits:
    """Of a weight as stored, by kind, scales included, averaged over layers. All else has the model's dtype."""

    attention: float
    mlp: float
    shared: float
    routed: float
    head: float


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One model as an engine runs it. `kv` and `state` have an entry for each layer."""

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    max_position: int
    tied_embeddings: bool
    dtype: str
    parameters: Parameters
    kv: tuple[KvLayer, ...]
    bits: Bits
    experts: int = 0  # routed ones of a layer
    experts_per_token: int = 0
    expert_intermediate: int = 0  # width of one routed expert
    shared_intermediate: int = 0  # width of a layer's shared experts together
    moe_layers: tuple[bool, ...] = ()  # which layers have experts; empty: none
    latent_dim: int = 0  # MLA: kv_lora_rank + qk_rope_head_dim kept per token and layer; 0: ordinary K and V
    pair_dim: int = 0  # numbers per head that a query-key pair touches in QK and AV together
    state: tuple[State, ...] = ()  # of a sequence, in layers without attention or beside it
    state_dtype: str = "bfloat16"  # of the memory; the convolution's is the model's
    kv_dtype_bytes: float = 2.0
    checkpoint: Checkpoint | None = None  # how its weights are quantised as stored
    wide_norms: int = 0  # layers whose q and k are normed over all heads, which GPUs share

    @property
    def active_parameters(self) -> int:
        """Weights that one token of text passes through."""
        idle = self.parameters.routed * (1 - self.experts_per_token / self.experts) if self.experts else 0
        return round(self.parameters.total - self.parameters.vision - idle)

    @property
    def dtype_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def weight_bytes(self) -> int:
        """All weights as stored on the GPUs (tp 1)."""
        kinds, bits = self.parameters, self.bits
        plain = (kinds.embedding + kinds.router + kinds.norms + kinds.vision) * self.dtype_bytes
        linear = kinds.attention * bits.attention + kinds.mlp * bits.mlp + kinds.shared * bits.shared
        return math.ceil(plain + (linear + kinds.routed * bits.routed + kinds.head * bits.head) / 8)

    @property
    def routed_bytes(self) -> float:
        """Of all routed experts, as stored."""
        return self.parameters.routed * self.bits.routed / 8

    @property
    def step_weight_bytes(self) -> int:
        """Weights that a decode step reads at least: the embedding is looked up only, unless it is the head too."""
        unread = self.parameters.vision + (0 if self.tied_embeddings else self.parameters.embedding)
        return self.weight_bytes - unread * self.dtype_bytes

    def weight_bytes_per_gpu(self, parallel: Parallel) -> int:
        """Weights on each GPU: norms are on all of them, K and V projections too once tp exceeds the KV heads.

        Ranks have routed experts in common.
        """
        everywhere = self.parameters.norms * self.dtype_bytes
        kv = self.parameters.kv * self.bits.attention / 8
        rest = self.weight_bytes - everywhere - kv
        elsewhere = self.routed_bytes / parallel.tp * (1.0 - 1.0 / parallel.dp)  # of other ranks
        return math.ceil(rest / parallel.tp + everywhere + kv * self._kv_share(parallel) - elsewhere)

    def _kv_share(self, parallel: Parallel) -> float:
        """Share of a token's KV that each GPU holds: heads are replicated when tp exceeds them, MLA's latent always."""
        whole = self._kv_bytes(ALONE)
        return self._kv_bytes(parallel) / whole if whole else 1.0

    def _kv_of(self, layer: KvLayer, parallel: Parallel) -> float:
        """A token's KV in a layer, on each GPU."""
        if not layer.heads:
            return 0.0
        numbers = max(1, layer.heads // parallel.tp) * layer.numbers
        beside = layer.extra_bytes + layer.fp8_bytes * (self.kv_dtype_bytes == 1)
        return numbers * self.kv_dtype_bytes + beside

    def window_bytes_per_gpu(self, parallel: Parallel) -> float:
        """KV that the layers with a window read of a sequence that is longer than it."""
        return sum(self._kv_of(layer, parallel) * layer.window for layer in self.kv if layer.window)

    def _kv_bytes(self, parallel: Parallel) -> float:
        return sum(self._kv_of(layer, parallel) for layer in self.kv)

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each layer's attention window in tokens; None: all of them, 0: it has no attention of its own."""
        return tuple(layer.window if layer.heads else 0 for layer in self.kv)

    @property
    def kv_bytes_per_token(self) -> int:
        """Of the whole model before replication, for a token that every layer still keeps."""
        return round(self._kv_bytes(ALONE))

    def kv_bytes_per_token_per_gpu(self, parallel: Parallel) -> float:
        return self._kv_bytes(parallel)

    def kv_bytes(self, tokens: int) -> int:
        """KV of one sequence of `tokens`; a windowed layer keeps no more than its window."""
        kept = 0.0
        for layer in self.kv:
            kept += self._kv_of(layer, ALONE) * (tokens if layer.window is None else min(tokens, layer.window))
        return round(kept)

    def request_bytes_per_gpu(self, tokens: int, budget: int, parallel: Parallel) -> float:
        """KV and state of one request of `tokens`; a windowed layer keeps its window and a step's `budget` at most."""
        kept = 0.0
        for layer in self.kv:
            most = tokens if layer.window is None else min(tokens, layer.window - 1 + budget)
            kept += self._kv_of(layer, parallel) * most
        return kept + self.state_bytes / parallel.tp

    @property
    def state_layers(self) -> int:
        """Layers that keep a state of each sequence: linear attention, state spaces, convolutions."""
        return sum(state != NO_STATE for state in self.state)

    @property
    def state_bytes(self) -> int:
        """What those layers keep of one sequence, however long it is (tp 1)."""
        memory = DTYPE_BYTES.get(self.state_dtype, self.dtype_bytes)
        return sum(
            state.convolution * self.dtype_bytes + state.memory * memory + state.other_bytes for state in self.state
        )

    @property
    def flops_per_token(self) -> float:
        """Matrix products of one token through all layers, without attention's pairs and the head."""
        kinds = self.parameters
        routed = kinds.routed * self.experts_per_token / self.experts if self.experts else 0.0
        return 2.0 * (kinds.dense + routed)

    @property
    def head_flops(self) -> float:
        """Logits of one sampled token."""
        return 2.0 * self.hidden * self.vocab

    @property
    def attention_flops_per_pair(self) -> float:
        """One query-key pair in every layer with attention: QK and AV (layers without windows)."""
        return 2.0 * self.attention_layers * self.heads * self.pair_dim

    @property
    def attention_layers(self) -> int:
        return sum(window != 0 for window in self.windows)

    def attention_flops(self, new: int, done: int) -> float:
        """Attention of `new` tokens after `done` computed ones, causal, windows respected."""
        pairs = 0.0
        for window in self.windows:
            if window is None or done + new <= window:
                pairs += new * (done + (new + 1) / 2)
            else:
                growing = max(0, window - done)  # tokens that still see everything before them
                pairs += growing * (done + (growing + 1) / 2) + (new - growing) * window
        return pairs * self.attention_flops_per_pair / self.attention_layers if self.attention_layers else 0.0

    def types(self, engine: Engine) -> tuple[KvType, Weights | None]:
        """Of the KV cache and of quantised weights: what the engine is told, else what the checkpoint says, as vLLM."""
        kv, weights = engine.kv_cache_dtype, engine.quantization
        if self.checkpoint is None:
            return kv, weights
        return (self.checkpoint.kv or "auto") if kv == "auto" else kv, weights or self.checkpoint.weights

    def for_engine(self, engine: Engine) -> ModelShape:
        """The shape under an engine's dtype, KV dtype and quantisation. Raises SpecError."""
        dtype = self.dtype if engine.dtype == "auto" else engine.dtype
        if engine.dtype == "auto" and dtype == "float32":
            dtype = "bfloat16"  # vLLM casts float32 checkpoints unless told otherwise
        bits = 8.0 * DTYPE_BYTES[dtype]
        stored = self.checkpoint
        if stored is not None and engine.quantization not in (None, stored.method):
            raise SpecError(
                "engine.quantization: {quantization!r} on {name}, whose weights are quantised already; "
                "allowed: leave it out",
                engine.quantization,
                self.name,
            )
        kinds = self.bits
        if stored is None:
            linear = ONLINE_BITS[engine.quantization] if engine.quantization else bits
            kinds = Bits(linear, linear, linear, linear, head=bits)
        kept, _ = self.types(engine)
        kv = DTYPE_BYTES[dtype if kept == "auto" else kept]
        return replace(self, dtype=dtype, bits=kinds, kv_dtype_bytes=float(kv))

    @property
    def kind(self) -> Literal["dense", "moe"]:
        return "moe" if self.experts else "dense"
