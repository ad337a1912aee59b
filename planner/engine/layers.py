"""What a layer is made of: its matrices by the names that checkpoints give them, and what it keeps of a token.

Shapes are those of the `transformers` modelling code of each family; MLA's are of DeepSeek-V2's paper, section 2.1.
A mixer is attention or whatever stands in its place; each kind is a small type that is called with a layer's number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    extra_bytes: int = 0


NO_KV = KvLayer(0, 0)


@dataclass(frozen=True, slots=True)
class State:
    """What a layer keeps of each sequence, however long: numbers of the convolution, and of the memory."""

    convolution: int
    memory: int


NO_STATE = State(0, 0)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer or a part of one."""

    matrices: tuple[Matrix, ...]
    kv: KvLayer | None = None
    state: State = NO_STATE


Builder = Callable[[Reader, int], Layer]


# --- windows -----------------------------------------------------------------------------------------


def no_window(read: Reader, layer: int) -> int | None:
    return None


def every_layer(read: Reader, layer: int) -> int | None:
    types = read.items("layer_types", read.layers)
    if types is not None and types[layer] != "sliding_attention":
        return None
    return read.count("sliding_window") or None


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
        if self.norms and (self.norm_key is None or read.flag(self.norm_key)):
            small += 2 * size.dim if self.norms == "head" else wide + kv_k
        gate = {"": 0, "query": hidden * wide, "head": hidden * size.heads}[self.gate]
        matrices = (
            Matrix("attention", f"{self.path}.q_proj", hidden * wide + gate),
            Matrix("kv", f"{self.path}.k_proj", hidden * kv_k),
            Matrix("kv", f"{self.path}.v_proj", hidden * kv_v),
            Matrix("attention", f"{self.path}.o_proj", size.heads * size.value * hidden),
            Matrix("norms", self.path, small + size.heads * self.sinks),
        )
        return Layer(matrices, KvLayer(size.kv_heads, size.dim + size.value, self.window(read, layer)))


def latent(read: Reader, layer: int) -> Layer:
    """MLA: low-rank queries (optional) and one compressed KV for all heads."""
    hidden, heads = read.hidden, read.heads
    rank, rope = read.whole("kv_lora_rank"), read.whole("qk_rope_head_dim")
    nope, value = read.whole("qk_nope_head_dim"), read.whole("v_head_dim")
    query, wide = read.count("q_lora_rank"), heads * (nope + rope)
    down = (
        (
            Matrix("attention", "self_attn.q_a_proj", hidden * query),
            Matrix("attention", "self_attn.q_b_proj", query * wide),
        )
        if query
        else (Matrix("attention", "self_attn.q_proj", hidden * wide),)
    )
    gate = hidden * heads * value if read.flag("mla_use_output_gate") else 0
    matrices = (
        *down,
        Matrix("kv", "self_attn.kv_a_proj_with_mqa", hidden * (rank + rope)),
        Matrix("attention", "self_attn.kv_b_proj", rank * heads * (nope + value)),
        Matrix("attention", "self_attn.o_proj", heads * value * hidden + gate),
        Matrix("norms", "self_attn", rank + query),
    )
    return Layer(matrices, KvLayer(1, rank + rope))


def sparse_latent(read: Reader, layer: int) -> Layer:
    """MLA behind DeepSeek-V3.2's indexer, whose keys are kept in 8 bits with a 32-bit scale for 128 of them."""
    base, width, heads = latent(read, layer), read.whole("index_head_dim"), read.whole("index_n_heads")
    kinds = read.items("indexer_types", read.layers)
    if kinds is not None and kinds[layer] == "shared":
        return base
    hidden, query = read.hidden, read.whole("q_lora_rank")
    indexer = (
        Matrix("attention", "self_attn.indexer.wq_b", query * heads * width),
        Matrix("attention", "self_attn.indexer.wk", hidden * width),
        Matrix("norms", "self_attn.indexer.weights_proj", hidden * heads + 2 * width),
    )
    kv = KvLayer(1, read.whole("kv_lora_rank") + read.whole("qk_rope_head_dim"), None, width + 4 * -(-width // 128))
    return Layer((*base.matrices, *indexer), kv)


# --- linear attention and state spaces -----------------------------------------------------------------


def gated_delta(read: Reader, layer: int) -> Layer:
    """Gated DeltaNet, as in Qwen3-Next and Qwen3.5."""
    hidden, kernel = read.hidden, read.whole("linear_conv_kernel_dim")
    key_dim, value_dim = read.whole("linear_key_head_dim"), read.whole("linear_value_head_dim")
    key_heads, value_heads = read.whole("linear_num_key_heads"), read.whole("linear_num_value_heads")
    keys, values = key_dim * key_heads, value_dim * value_heads
    matrices = (
        Matrix("attention", "linear_attn.in_proj_qkv", hidden * (2 * keys + values)),
        Matrix("attention", "linear_attn.in_proj_z", hidden * values),
        Matrix("norms", "linear_attn.in_proj_ba", hidden * 2 * value_heads),
        Matrix("attention", "linear_attn.out_proj", values * hidden),
        Matrix("norms", "linear_attn.conv1d", (2 * keys + values) * kernel + 2 * value_heads + value_dim),
    )
    return Layer(matrices, state=State((kernel - 1) * (2 * keys + values), value_heads * value_dim * key_dim))


def kimi_delta(read: Reader, layer: int) -> Layer:
    """Kimi Delta Attention: a decay for every channel, through low-rank gates."""
    own = Reader(read.config.get("linear_attn_config") or read.config, f"{read.where}: linear_attn_config")
    heads, dim = own.whole("num_heads", "linear_num_heads"), own.whole("head_dim", "linear_head_dim")
    kernel = own.whole("short_conv_kernel_size", "linear_conv_kernel_dim")
    hidden, wide = read.hidden, heads * dim
    matrices = (
        Matrix("attention", "self_attn.q_proj", hidden * wide),
        Matrix("attention", "self_attn.k_proj", hidden * wide),
        Matrix("attention", "self_attn.v_proj", hidden * wide),
        Matrix("attention", "self_attn.f_a_proj", 2 * (hidden * dim + dim * wide) + hidden * heads),
        Matrix("attention", "self_attn.o_proj", wide * hidden),
        Matrix("norms", "self_attn", 3 * wide * kernel + wide + heads + dim),
    )
    return Layer(matrices, state=State((kernel - 1) * 3 * wide, heads * dim * dim))


@dataclass(frozen=True)
class Mamba2:
    path: str = "mamba"
    norm_key: str | None = None  # a key that switches the gated norm; None: there is one

    def __call__(self, read: Reader, layer: int) -> Layer:
        hidden, heads = read.hidden, read.whole("mamba_n_heads", "mamba_num_heads", "n_mamba_heads")
        dim, states = (
            read.config.get("mamba_d_head", read.config.get("mamba_head_dim")),
            read.whole("mamba_d_state", "ssm_state_size"),
        )
        expand = read.whole("mamba_expand", "expand", default=2)
        wide = heads * dim if isinstance(dim, int) else read.count("mamba_d_ssm") or expand * hidden
        groups, kernel = (
            read.whole("mamba_n_groups", "n_groups", "mamba_ngroups", default=1),
            read.whole("mamba_d_conv", "conv_kernel"),
        )
        mixed = wide + 2 * groups * states
        bias = mixed * read.flag("use_conv_bias", read.flag("mamba_conv_bias", True))
        bias += (wide + mixed + heads + hidden) * (read.flag("mamba_proj_bias") or read.flag("use_bias"))
        norm = wide * (self.norm_key is None or read.flag(self.norm_key))
        matrices = (
            Matrix("attention", f"{self.path}.in_proj", hidden * (wide + mixed + heads)),
            Matrix("attention", f"{self.path}.out_proj", wide * hidden),
            Matrix("norms", self.path, mixed * kernel + bias + 3 * heads + norm),
        )
        return Layer(matrices, state=State((kernel - 1) * mixed, wide * states))


def mamba1(read: Reader, layer: int) -> Layer:
    """As in Jamba, which adds norms of the time step and of B and C."""
    hidden, states, kernel = read.hidden, read.whole("mamba_d_state"), read.whole("mamba_d_conv")
    wide, rank = read.whole("mamba_expand", default=2) * hidden, read.whole("mamba_dt_rank", default=-(-hidden // 16))
    matrices = (
        Matrix("attention", "mamba.in_proj", hidden * 2 * wide),
        Matrix("attention", "mamba.x_proj", wide * (rank + 2 * states)),
        Matrix("attention", "mamba.dt_proj", rank * wide),
        Matrix("attention", "mamba.out_proj", wide * hidden),
        Matrix("norms", "mamba", wide * (kernel + 3 + states) + rank + 2 * states),
    )
    return Layer(matrices, state=State((kernel - 1) * wide, wide * states))


def lightning(read: Reader, layer: int) -> Layer:
    """MiniMax's linear attention: a square memory for each head."""
    hidden, heads, dim = read.hidden, read.heads, read.head_dim
    wide = heads * dim
    matrices = (
        Matrix("attention", "self_attn.qkv_proj", hidden * 3 * wide),
        Matrix("attention", "self_attn.output_gate", hidden * wide),
        Matrix("attention", "self_attn.out_proj", wide * hidden),
        Matrix("norms", "self_attn.norm", wide),
    )
    return Layer(matrices, state=State(0, heads * dim * dim))


def short_convolution(read: Reader, layer: int) -> Layer:
    """LFM2's gated convolution."""
    hidden, kernel = read.hidden, read.whole("conv_L_cache")
    matrices = (
        Matrix("attention", "conv.in_proj", 3 * hidden * hidden),
        Matrix("attention", "conv.out_proj", hidden * hidden),
        Matrix("norms", "conv.conv", hidden * kernel + 5 * hidden * read.flag("conv_bias")),
    )
    return Layer(matrices, state=State((kernel - 1) * hidden, 0))


# --- MLPs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mlp:
    """`matrices` of hidden times width: three with a gate, two without."""

    path: str = "mlp"
    keys: tuple[str, ...] = ("intermediate_size",)
    matrices: int = 3
    bias: bool = False
    bias_key: str | None = "mlp_bias"
    times_hidden: int = 0  # width in hidden sizes where the config has none

    def __call__(self, read: Reader, layer: int) -> Layer:
        hidden = read.hidden
        width = read.whole(*self.keys, default=self.times_hidden * hidden or None)
        names = ("gate_proj", "up_proj", "down_proj")[3 - self.matrices :]
        biased = self.bias or (self.bias_key is not None and read.flag(self.bias_key))
        bias = (width * (self.matrices - 1) + hidden) * biased
        return Layer(
            (
                *(Matrix("mlp", f"{self.path}.{name}", hidden * width) for name in names),
                Matrix("norms", self.path, bias),
            )
        )


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")
WIDTHS = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")


def sparse(read: Reader, layer: int) -> bool:
    """Whether a layer of a mixture has experts; each family says it in its own keys."""
    types = read.items("mlp_layer_types", read.layers)
    if types is not None:
        return types[layer] != "dense"
    config = read.config
    if isinstance(config.get("moe_layer_freq"), list):
        return bool((read.items("moe_layer_freq", read.layers) or [])[layer])
    if isinstance(listed := config.get("moe_layers_enum"), str):  # Step
        return str(layer) in [number.strip() for number in listed.split(",")]
    if isinstance(listed := config.get("moe_layers"), list):  # Llama 4
        return layer in listed
    if "moe_layer_start_index" in config:  # ERNIE
        first, last = read.count("moe_layer_start_index"), config.get("moe_layer_end_index")
        last = read.layers - 1 if last in (None, -1) else int(last)
        return first <= layer <= last and (layer + 1) % read.whole("moe_layer_interval", default=1) == 0
    if "expert_layer_period" in config:  # Jamba
        return layer % read.whole("expert_layer_period") == read.count("expert_layer_offset")
    if layer < read.count("first_k_dense_replace", "num_dense_layers") or layer in (
        config.get("mlp_only_layers") or ()
    ):
        return False
    step = read.whole("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", default=1)
    return (layer + 1) % step == 0 if "moe_layer_freq" not in config else layer % step == 0


@dataclass(frozen=True)
class Mixture:
    """Routed and shared experts in the layers that have them, `dense` in the others."""

    path: str = "mlp"
    dense: Builder = Mlp()
    width_keys: tuple[str, ...] = WIDTHS
    shared_keys: tuple[str, ...] = ()  # width of the shared expert
    shared_number: tuple[str, ...] = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    shared_path: str = "shared_experts"
    shared_gate: bool = False
    shared_default: int = 0  # shared experts where the config does not say
    matrices: int = 3
    correction: bool = False  # a bias of each expert's score
    biases: bool = False  # of experts and router, as gpt-oss has them
    router_norms: int = 0  # further vectors of hidden size
    always: bool = False  # all layers are mixtures
    beside: bool = False  # the dense MLP stands beside the experts

    def has_experts(self, read: Reader, layer: int) -> bool:
        return bool(read.count(*EXPERTS)) and (self.always or sparse(read, layer))

    def shared_width(self, read: Reader) -> int:
        if read.count(*self.shared_keys) if self.shared_keys else 0:
            return read.count(*self.shared_keys)
        number = read.config.get(
            next((key for key in self.shared_number if key in read.config), ""), self.shared_default
        )
        number = number[0] if isinstance(number, list) else number or 0
        return int(number) * self.width(read)

    def width(self, read: Reader) -> int:
        key = next((key for key in self.width_keys if read.config.get(key) is not None), self.width_keys[-1])
        value = read.config.get(key)
        return int(value[0]) if isinstance(value, list) and value else read.whole(key)  # Hunyuan: one a layer

    def __call__(self, read: Reader, layer: int) -> Layer:
        if not self.has_experts(read, layer):
            return self.dense(read, layer)
        hidden, experts, width = read.hidden, read.whole(*EXPERTS), self.width(read)
        inner = read.count("moe_latent_size", "routed_expert_hidden_size") or hidden
        shared, path = self.shared_width(read), self.path
        small = experts * self.correction + hidden * self.router_norms
        if self.biases:
            small += experts * (2 * width + hidden) + experts
        down = 2 * hidden * inner if inner != hidden else 0  # Nemotron 3: experts of a narrower stream
        found = (
            Matrix("router", f"{path}.gate", hidden * (experts + self.shared_gate)),
            Matrix("routed", f"{path}.experts.0.up_proj", self.matrices * inner * width * experts),
            Matrix("shared", f"{path}.{self.shared_path}.up_proj", self.matrices * hidden * shared),
            Matrix("shared", f"{path}.fc1_latent_proj", down),
            Matrix("norms", path, small),
        )
        return Layer(found + (self.dense(read, layer).matrices if self.beside else ()))
