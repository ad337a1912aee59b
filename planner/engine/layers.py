"""What a layer is made of: its matrices by the names that checkpoints give them, and what it keeps of a token.

Shapes are those of the `transformers` modelling code of each family; MLA's are of DeepSeek-V2's paper, section 2.1.
A mixer is attention or whatever stands in its place; each kind is a small type that is called with a layer's number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from planner.engine.config_reader import Reader

Kind = Literal["attention", "kv", "mlp", "shared", "router", "routed", "norms"]  # kv: the attention's K and V
Window = Callable[[Reader, int], int | None]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights of one kind in one layer. `path` is a module's name below the layer, as quantisation lists have it."""

    kind: Kind
    path: str
    count: int


@dataclass(frozen=True, slots=True)
class KvLayer:
    """What a layer keeps of each token: `numbers` in the cache's type for each of `heads`, `extra_bytes` beside them.

    `heads` are split over GPUs, or replicated once there are more of these. `window`: tokens kept; None: all.
    """

    heads: int
    numbers: int
    window: int | None = None
    extra_bytes: float = 0
    fp8_bytes: float = 0  # more beside them where the cache is fp8


NO_KV = KvLayer(0, 0)


@dataclass(frozen=True, slots=True)
class State:
    """What a layer keeps of each sequence, however long: numbers of the convolution and of the memory; and bytes."""

    convolution: int
    memory: int
    other_bytes: int = 0


NO_STATE = State(0, 0)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer or a part of one."""

    matrices: tuple[Matrix, ...]
    kv: KvLayer | None = None
    state: State = NO_STATE
    wide_norms: bool = False  # q and k are normed over all heads, which GPUs share


Builder = Callable[[Reader, int], Layer]


# --- windows -----------------------------------------------------------------------------------------


def no_window(read: Reader, layer: int) -> int | None:
    return None


def every_layer(read: Reader, layer: int) -> int | None:
    types = read.items("layer_types", read.layers)
    if types is not None and types[layer] != "sliding_attention":
        return None
    return read.count("sliding_window") or None


def by_kind(read: Reader, layer: int) -> int | None:
    """Only `layer_types` says which layers have one."""
    types = read.items("layer_types", read.layers)
    return read.whole("sliding_window") if types is not None and types[layer] == "sliding_attention" else None


def when_asked(read: Reader, layer: int) -> int | None:
    """Qwen: `use_sliding_window`, and then only from layer `max_window_layers` on."""
    if not read.flag("use_sliding_window"):
        return None
    return read.whole("sliding_window") if layer >= read.whole("max_window_layers", default=read.layers) else None


def alternating(period: int, local: str = "sliding_window") -> Window:
    """Of every `period` layers the last sees everything, unless `layer_types` says otherwise."""

    def window(read: Reader, layer: int) -> int | None:
        types = read.items("layer_types", read.layers)
        if types is not None:
            return read.whole(local) if types[layer] in ("sliding_attention", "chunked_attention") else None
        size = read.count(local)
        pattern = read.config.get("sliding_window_pattern") or period
        if isinstance(pattern, str):  # EXAONE: "LLLG"
            return size if size and pattern[layer % len(pattern)] == "L" else None
        every = read.whole("sliding_window_pattern", "_sliding_window_pattern", default=period)
        return size if size and (layer + 1) % every else None

    return window


# --- attention ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sizes:
    heads: int
    kv_heads: int
    dim: int
    value: int


def sizes(read: Reader, layer: int) -> Sizes:
    return Sizes(read.heads, read.kv_heads, read.head_dim, read.count("v_head_dim") or read.head_dim)


@dataclass(frozen=True)
class Attention:
    """Multi-head attention with grouped K and V."""

    path: str = "self_attn"
    qkv_bias: bool = False
    output_bias: bool = False
    bias_key: str | None = None  # a config key that switches all four biases
    norm_key: str | None = None  # one that switches the head norms
    norms: Literal["", "head", "width"] = ""  # RMSNorm of q and k: of one head's width, or of all heads'
    gate: Literal["", "query", "head"] = ""  # of the output: a number for each of its own, or for each head
    sinks: bool = False
    window: Window = no_window
    sizes: Callable[[Reader, int], Sizes] = sizes

    def __call__(self, read: Reader, layer: int) -> Layer:
        hidden, size = read.hidden, self.sizes(read, layer)
        wide, kv_k, kv_v = size.heads * size.dim, size.kv_heads * size.dim, size.kv_heads * size.value
        switched = self.bias_key is not None and read.flag(self.bias_key)
        small = (wide + kv_k + kv_v) * (self.qkv_bias or switched) + hidden * (self.output_bias or switched)
        normed = bool(self.norms) and (self.norm_key is None or read.flag(self.norm_key))
        if normed:
            small += 2 * size.dim if self.norms == "head" else wide + kv_k
        gate = {"": 0, "query": hidden * wide, "head": hidden * size.heads}[self.gate]
        matrices = (
            Matrix("attention", f"{self.path}.q_proj", hidden * wide + gate),
            Matrix("kv", f"{self.path}.k_proj", hidden * kv_k),
            Matrix("kv", f"{self.path}.v_proj", hidden * kv_v),
            Matrix("attention", f"{self.path}.o_proj", size.heads * size.value * hidden),
            Matrix("norms", self.path, small + size.heads * self.sinks),
        )
        kv = KvLayer(size.kv_heads, size.dim + size.value, self.window(read, layer))
        return Layer(matrices, kv, wide_norms=normed and self.norms == "width")


def latent(read: Reader, layer: int) -> Layer:
    """MLA: low-rank queries (optional) and one compressed KV for all heads."""
    hidden, heads = read.hidden, read.heads
    rank, rope = read.whole("kv_lora_rank"), read.whole("qk_rope_head_dim")
    nope, value = read.whole("qk_nope_head_dim"), read.whole("v_head_dim")
    query, wide = read.count("q_lora_rank"), heads * (nope + rope)
    down = [Matrix("attention", "self_attn.q_proj", hidden * wide)]
    if query:
        down = [
            Matrix("attention", "self_attn.q_a_proj", hidden * query),
            Matrix("attention", "self_attn.q_b_proj", query * wide),
        ]
    gate = hidden * heads * value if read.flag("mla_use_output_gate") else 0
    matrices = (
        *down,
        Matrix("kv", "self_attn.kv_a_proj_with_mqa", hidden * (rank + rope)),
        Matrix("attention", "self_attn.kv_b_proj", rank * heads * (nope + value)),
        Matrix("attention", "self_attn.o_proj", heads * value * hidden + gate),
        Matrix("norms", "self_attn", rank + query),
    )
    return Layer(matrices, KvLayer(1, rank + rope))


def _wide_rope(read: Reader) -> float:
    """vLLM's fp8_ds_mla: the rope part stays 16 bits wide, and 128 numbers share a 32-bit scale."""
    return read.whole("qk_rope_head_dim") + read.whole("kv_lora_rank") / 32


def sparse_latent(read: Reader, layer: int) -> Layer:
    """MLA behind DeepSeek-V3.2's indexer, whose keys are kept in 8 bits with a 32-bit scale for 128 of them."""
    base, width, heads = latent(read, layer), read.whole("index_head_dim"), read.whole("index_n_heads")
    kv = KvLayer(1, read.whole("kv_lora_rank") + read.whole("qk_rope_head_dim"), fp8_bytes=_wide_rope(read))
    kinds = read.items("indexer_types", read.layers)
    if kinds is not None and kinds[layer] == "shared":
        return replace(base, kv=kv)
    hidden, query = read.hidden, read.whole("q_lora_rank")
    indexer = (
        Matrix("attention", "self_attn.indexer.wq_b", query * heads * width),
        Matrix("attention", "self_attn.indexer.wk", hidden * width),
        Matrix("norms", "self_attn.indexer.weights_proj", hidden * heads + 2 * width),
    )
    return Layer((*base.matrices, *indexer), replace(kv, extra_bytes=width + 4 * -(-width // 128)))


def compressed(read: Reader, layer: int) -> Layer:
    """DeepSeek-V4: a window of 8-bit latents, and one latent for every `compress_ratios` tokens before it.

    Bytes are vLLM's: 448 of 8 bits, 64 of 16 and 8 scales for a latent; an index key of 8 bits with its scales. What
    the compressor itself keeps of the last tokens is not counted.
    """
    hidden, heads, dim, query = read.hidden, read.heads, read.head_dim, read.whole("q_lora_rank")
    rope, rank, groups = read.whole("qk_rope_head_dim"), read.whole("o_lora_rank"), read.whole("o_groups")
    ratio = int(read.per_layer("compress_ratios")[layer]) or 1
    streams, index = read.whole("hc_mult"), read.whole("index_head_dim")
    of_token = dim - rope + 2 * rope + 8
    matrices = [
        Matrix("attention", "attn.wq_a", hidden * query),
        Matrix("attention", "attn.wq_b", query * heads * dim),
        Matrix("kv", "attn.wkv", hidden * dim),
        Matrix("attention", "attn.wo_a", heads * dim * rank),
        Matrix("attention", "attn.wo_b", groups * rank * hidden),
        Matrix("norms", "hc", 2 * streams * (2 + streams) * (streams * hidden + 1) + heads + query + dim + 6),
    ]
    extra = 0.0
    if ratio > 1:
        wide = 2 * dim if ratio == 4 else dim
        matrices.append(Matrix("norms", "attn.compressor", 2 * wide * hidden + ratio * wide + dim))
        extra = of_token / ratio
    if ratio == 4:
        heads_of_index = read.whole("index_n_heads")
        matrices.append(Matrix("attention", "attn.indexer.wq_b", heads_of_index * index * query))
        small = 4 * index * hidden + hidden * heads_of_index + 2 * ratio * index + index
        matrices.append(Matrix("norms", "attn.indexer.compressor", small))
        extra += (index + 4 * -(-index // 128)) / ratio
    return Layer(
        tuple(matrices),
        KvLayer(1, 0, None, extra) if extra else None,
        State(0, 0, of_token * read.whole("sliding_window")),
    )
