"""What the modelling code of each family fixes and a config does not say. One entry of FAMILIES per `model_type`.

Sources: the modelling code of `transformers` 5.19, and vLLM 0.32's where transformers has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.engine.config_reader import Reader
from planner.engine.layers import (
    Attention,
    Builder,
    KvLayer,
    Layer,
    Mamba2,
    Matrix,
    Mixture,
    Mlp,
    Sizes,
    alternating,
    every_layer,
    gated_delta,
    kimi_delta,
    latent,
    lightning,
    mamba1,
    short_convolution,
    sparse_latent,
    when_asked,
)


@dataclass(frozen=True)
class Family:
    """A layer is `mixer` and `mlp` and `norms` of hidden size (`norm_bias`: with biases)."""

    mixer: Builder
    mlp: Builder = Mlp()
    norms: int = 2
    norm_bias: bool = False
    last_norm: bool = True
    tied: bool = False  # default of tie_word_embeddings
    head_bias: bool = False
    positions: bool = False  # a learnt embedding of each position
    extra: Callable[[Reader], int] | None = None  # what else there is, beside the layers
    state_type: tuple[str, ...] = ()  # keys of the memory's type; without one it has the model's
    experts: Mixture | None = None  # where `mlp` is not it

    @property
    def mixture(self) -> Mixture | None:
        """What to ask for the experts' sizes; a config may still have none."""
        return self.mlp if isinstance(self.mlp, Mixture) else self.experts

    def layer(self, read: Reader, number: int) -> Layer:
        norms = Matrix("norms", "norm", self.norms * read.hidden * (2 if self.norm_bias else 1))
        return _first(self.mixer(read, number), self.mlp(read, number), Layer((norms,)))

    def beside_layers(self, read: Reader) -> int:
        """The last norm, biases and embeddings that are not of words."""
        found = read.hidden * self.last_norm * (2 if self.norm_bias else 1)
        found += read.whole("vocab_size") * self.head_bias
        found += read.hidden * read.whole("max_position_embeddings", "n_positions") if self.positions else 0
        return found + (self.extra(read) if self.extra else 0)


def _first(*found: Layer) -> Layer:
    """One layer of several parts side by side."""
    kv = next((layer.kv for layer in found if layer.kv), None)
    state = next((layer.state for layer in found if layer.state.memory or layer.state.convolution), found[0].state)
    return Layer(tuple(matrix for layer in found for matrix in layer.matrices), kv, state)


def _by_type(linear: Builder, full: Builder, kinds: tuple[str, ...] = ("linear_attention", "mamba", "conv")) -> Builder:
    """Linear layers where `layer_types` has one of `kinds`."""

    def mixer(read: Reader, layer: int) -> Layer:
        types = read.items("layer_types", read.layers) or read.items("layers_block_type", read.layers)
        if types is None and "full_attention_interval" in read.config:
            return (full if (layer + 1) % read.whole("full_attention_interval") == 0 else linear)(read, layer)
        return (linear if types is not None and types[layer] in kinds else full)(read, layer)

    return mixer


def _listed(linear: Builder, full: Builder, key: str) -> Builder:
    """Full attention in the layers that `key` lists."""

    def mixer(read: Reader, layer: int) -> Layer:
        return (full if layer in (read.config.get(key) or ()) else linear)(read, layer)

    return mixer


def _minimax(read: Reader, layer: int) -> Layer:
    kinds = read.items("attn_type_list", read.layers)  # MiniMax-Text-01 and M1: 0 is linear
    full = (
        kinds[layer] == 1
        if kinds is not None
        else (read.items("layer_types", read.layers) or [])[layer] == "full_attention"
    )
    return (Attention() if full else lightning)(read, layer)


def _jamba(read: Reader, layer: int) -> Layer:
    full = layer % read.whole("attn_layer_period") == read.count("attn_layer_offset")
    return (Attention() if full else mamba1)(read, layer)


def _kimi_linear(read: Reader, layer: int) -> Layer:
    own = read.config.get("linear_attn_config") or {}
    if "full_attn_layers" in own:  # counted from 1
        return (latent if layer + 1 in own["full_attn_layers"] else kimi_delta)(read, layer)
    types = read.items("layer_types", read.layers) or []
    return (kimi_delta if types[layer : layer + 1] == ["linear_attention"] else latent)(read, layer)


_NEMOTRON_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}


def _nemotron_kind(read: Reader, layer: int) -> str:
    pattern = read.config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return _NEMOTRON_LETTERS.get(pattern[layer : layer + 1], "mlp")
    kinds = read.items("layers_block_type", read.layers) or ["mlp"] * read.layers
    return {"linear_attention": "mamba", "full_attention": "attention"}.get(kinds[layer], str(kinds[layer]))


_NEMOTRON_MOE = Mixture(
    path="mixer", matrices=2, shared_keys=("moe_shared_expert_intermediate_size",), correction=True, always=True
)


def _nemotron_h(read: Reader, layer: int) -> Layer:
    """A layer is one thing only."""
    kinds: dict[str, Builder] = {
        "mamba": Mamba2("mixer"),
        "attention": Attention("mixer", bias_key="attention_bias"),
        "mlp": Mlp("mixer", matrices=2),
        "moe": _NEMOTRON_MOE,
    }
    return kinds[_nemotron_kind(read, layer)](read, layer)


def _nothing(read: Reader, layer: int) -> Layer:
    return Layer(())


def _swa(read: Reader, layer: int) -> bool:
    types = read.items("layer_types", read.layers)
    if types is not None:
        return types[layer] == "sliding_attention"
    return (read.items("hybrid_layer_pattern", read.layers) or [0] * read.layers)[layer] == 1


def _mimo_sizes(read: Reader, layer: int) -> Sizes:
    dim, value = read.head_dim, read.whole("v_head_dim", default=read.head_dim)
    if not _swa(read, layer):
        return Sizes(read.heads, read.kv_heads, dim, value)
    return Sizes(
        read.whole("swa_num_attention_heads", default=read.heads),
        read.whole("swa_num_key_value_heads", default=read.kv_heads),
        read.whole("swa_head_dim", default=dim),
        read.whole("swa_v_head_dim", default=value),
    )


def _mimo_v2(read: Reader, layer: int) -> Layer:
    local = _swa(read, layer)
    sinks = read.flag("add_swa_attention_sink_bias" if local else "add_full_attention_sink_bias", local)
    window = (lambda read, layer: read.whole("sliding_window")) if local else (lambda read, layer: None)
    return Attention(bias_key="attention_bias", sinks=sinks, sizes=_mimo_sizes, window=window)(read, layer)


def _step_sizes(read: Reader, layer: int) -> Sizes:
    other = read.config.get("attention_other_setting") or {}
    types = read.items("layer_types", read.layers)
    if types is not None and types[layer] == "sliding_attention" and other:
        own = Reader({**read.config, **other}, f"{read.where}: attention_other_setting")
        return Sizes(own.heads, own.kv_heads, own.head_dim, own.head_dim)
    return Sizes(read.heads, read.kv_heads, read.head_dim, read.head_dim)


# --- Gemma -------------------------------------------------------------------------------------------------


def _gemma4_full(read: Reader, layer: int) -> bool:
    types = read.items("layer_types", read.layers)
    return types[layer] == "full_attention" if types is not None else (layer + 1) % 6 == 0


def _gemma4_sizes(read: Reader, layer: int) -> Sizes:
    if not _gemma4_full(read, layer):
        return Sizes(read.heads, read.kv_heads, read.head_dim, read.head_dim)
    dim, kv = read.whole("global_head_dim", default=512), read.kv_heads
    if read.flag("attention_k_eq_v"):
        kv = read.whole("num_global_key_value_heads", default=kv)
    return Sizes(read.heads, kv, dim, dim)


def _shares_kv(read: Reader, layer: int) -> bool:
    """The last layers attend to the KV of the last one before them of their kind."""
    return layer >= read.layers - read.count("num_kv_shared_layers")


def _gemma4_attention(read: Reader, layer: int) -> Layer:
    full = _gemma4_full(read, layer)
    found = Attention(norms="head", window=alternating(6), sizes=_gemma4_sizes)(read, layer)
    matrices = found.matrices
    if full and read.flag("attention_k_eq_v"):
        matrices = tuple(matrix for matrix in matrices if not matrix.path.endswith("v_proj"))
    if _shares_kv(read, layer):
        dim = _gemma4_sizes(read, layer).dim
        kept = (m if m.kind != "norms" else replace(m, count=m.count - dim) for m in matrices if m.kind != "kv")
        return Layer(tuple(kept))
    return Layer(matrices, found.kv)


def _gemma4(read: Reader, layer: int) -> Layer:
    hidden, small = read.hidden, read.count("hidden_size_per_layer_input")
    found = [_gemma4_attention(read, layer)]
    wide = 2 if read.flag("use_double_wide_mlp") and _shares_kv(read, layer) else 1
    dense = Mlp()(read, layer)
    dense = Layer(tuple(replace(matrix, count=matrix.count * wide) for matrix in dense.matrices))
    if read.flag("enable_moe_block"):
        experts = read.whole("num_experts")
        found.append(replace(_GEMMA4_MOE, dense=lambda read, layer: dense)(read, layer))
        found.append(Layer((Matrix("norms", "router", experts + 3 * hidden),)))
    else:
        found.append(dense)
    if small:
        found.append(
            Layer(
                (
                    Matrix("mlp", "per_layer_input_gate", hidden * small),
                    Matrix("mlp", "per_layer_projection", small * hidden),
                    Matrix("norms", "post_per_layer_input_norm", hidden),
                )
            )
        )
    return _first(*found)


_GEMMA4_MOE = Mixture(path="", always=True, beside=True, router_norms=1)


def _per_layer_inputs(read: Reader) -> int:
    """Gemma's embeddings for every layer, and the projection into them."""
    small = read.count("hidden_size_per_layer_input")
    if not small:
        return 0
    wide = small * read.layers
    return (
        read.whole("vocab_size_per_layer_input", default=read.whole("vocab_size")) * wide + read.hidden * wide + small
    )


def _gemma3n(read: Reader, layer: int) -> Layer:
    hidden, small, rank = read.hidden, read.whole("hidden_size_per_layer_input"), read.whole("laurel_rank")
    inputs, widths = read.whole("altup_num_inputs"), read.config.get("intermediate_size")
    own = Reader(
        {**read.config, "intermediate_size": widths[layer] if isinstance(widths, list) else widths}, read.where
    )
    found = Attention(norms="head", window=alternating(5))(read, layer)
    rest = (
        Matrix("mlp", "laurel.linear_left", 2 * hidden * rank),
        Matrix("mlp", "per_layer_input_gate", 2 * hidden * small),
        Matrix("norms", "altup", inputs**3 + inputs**2 + inputs * hidden + 4 * hidden),
    )
    kv = None if _shares_kv(read, layer) else found.kv
    return Layer((*found.matrices, *Mlp()(own, layer).matrices, *rest), kv)


def _gemma3n_extra(read: Reader) -> int:
    return _per_layer_inputs(read) + 2 * (read.whole("altup_num_inputs") - 1) * read.hidden**2


# --- others --------------------------------------------------------------------------------------------------


def _longcat(read: Reader, layer: int) -> Layer:
    """Two attentions and two dense MLPs a layer beside one mixture, some of whose experts do nothing."""
    pair = [latent(read, layer), latent(read, layer)]
    dense = Mlp("mlps", ("ffn_hidden_size", "intermediate_size"))(read, layer)
    width, experts, idle = (
        read.whole("expert_ffn_hidden_size"),
        read.whole("n_routed_experts"),
        read.count("zero_expert_num"),
    )
    routed = (
        Matrix("router", "mlp.router", read.hidden * (experts + idle)),
        Matrix("routed", "mlp.experts.0.up_proj", 3 * read.hidden * width * experts),
        Matrix("norms", "mlp.router", experts + idle + 2 * read.hidden),
    )
    kv = KvLayer(1, 2 * (read.whole("kv_lora_rank") + read.whole("qk_rope_head_dim")))
    return Layer((*pair[0].matrices, *pair[1].matrices, *dense.matrices, *dense.matrices, *routed), kv)


def _nas(read: Reader, layer: int) -> Layer:
    """Nemotron's pruned Llamas: each layer has its own K and V heads and MLP width, or none."""
    block = (read.items("block_configs", read.layers) or [])[layer]
    attention, ffn = block["attention"], block["ffn"]
    found = []
    if not attention.get("no_op"):
        group = attention.get("n_heads_in_group")
        kv = read.heads // group if group else attention.get("num_key_value_heads")
        own = Reader({**read.config, "num_key_value_heads": kv}, f"{read.where}: block_configs")
        found.append(Attention(bias_key="attention_bias")(own, layer))
        found.append(Layer((Matrix("norms", "input_layernorm", read.hidden),)))
    if not ffn.get("no_op"):
        width = ffn.get("intermediate_size")
        if width is None:  # in steps of 256, as in the model's own code
            width = -(-int(2 * ffn["ffn_mult"] * read.hidden / 3) // 256) * 256
        own = Reader({**read.config, "intermediate_size": width}, f"{read.where}: block_configs")
        found.append(Mlp()(own, layer))
        found.append(Layer((Matrix("norms", "post_attention_layernorm", read.hidden),)))
    return _first(*found) if found else Layer(())


def _falcon(read: Reader, layer: int) -> Layer:
    heads = read.heads
    if read.flag("new_decoder_architecture"):
        kv = read.whole("num_kv_heads", default=heads)
    else:
        kv = 1 if read.flag("multi_query", True) else heads
    own = Reader({**read.config, "num_key_value_heads": kv}, read.where)
    return Attention("self_attention", bias_key="bias")(own, layer)


def _bigcode(read: Reader, layer: int) -> Layer:
    kv = 1 if read.flag("multi_query", True) else read.heads
    own = Reader({**read.config, "num_key_value_heads": kv}, read.where)
    return Attention("attn", qkv_bias=True, output_bias=True)(own, layer)


def _lfm2_mlp(read: Reader, layer: int) -> Layer:
    width = read.whole("intermediate_size", "block_ff_dim")
    if read.flag("block_auto_adjust_ff_dim", True) and "num_experts" not in read.config:
        width = int(2 * width / 3 * float(read.config.get("block_ffn_dim_multiplier") or 1.0))
        step = read.whole("block_multiple_of", default=256)
        width = -(-width // step) * step
    return Mlp("feed_forward")(Reader({**read.config, "intermediate_size": width}, read.where), layer)


def _lfm2_mixer(read: Reader, layer: int) -> Layer:
    full = Attention(norms="head")
    if (listed := read.config.get("full_attn_idxs")) is not None:
        return (full if layer in listed else short_convolution)(read, layer)
    return _by_type(short_convolution, full)(read, layer)


def _minimax_m3(read: Reader, layer: int) -> Layer:
    """Sparse attention picks blocks of keys by an index of one head; it has keys of its own."""
    found = Attention(norms="head")(read, layer)
    own = Reader(read.config.get("sparse_attention_config") or {}, f"{read.where}: sparse_attention_config")
    layers = own.items("sparse_attention_freq", read.layers)
    if not own.config or (layers is not None and not layers[layer]):
        return found
    heads, width = own.whole("sparse_num_index_heads", default=1), own.whole("sparse_index_dim", default=128)
    index = (
        Matrix("attention", "self_attn.index_q_proj", read.hidden * heads * width),
        Matrix("attention", "self_attn.index_k_proj", read.hidden * width),
        Matrix("norms", "self_attn.index_q_norm", 2 * width),
    )
    return Layer((*found.matrices, *index), found.kv and replace(found.kv, extra_bytes=2 * width))


_DEEPSEEK_MOE = Mixture(correction=True)
_QWEN_MOE = Mixture(shared_keys=("shared_expert_intermediate_size",), shared_path="shared_expert", shared_gate=True)
_GATED = Attention(bias_key="attention_bias", norms="head", gate="query")
_LLAMA = Attention(bias_key="attention_bias")
_QWEN3 = Attention(bias_key="attention_bias", norms="head", window=when_asked)
_BIASED = Attention(qkv_bias=True, output_bias=True)
_TWO = Mlp(matrices=2, bias=True, bias_key=None)
_GRANITE_SHARED = Mixture(
    "block_sparse_moe", width_keys=("intermediate_size",), shared_keys=("shared_intermediate_size",), shared_path="shared_mlp",
    dense=Mlp("shared_mlp", ("shared_intermediate_size", "intermediate_size")), always=True, shared_number=(),
)  # fmt: skip
_QWEN3_5 = Family(_by_type(gated_delta, _GATED), state_type=("mamba_ssm_dtype",))

FAMILIES: dict[str, Family] = {
    "llama": Family(_LLAMA),
    "mistral": Family(Attention(window=every_layer)),
    "ministral3": Family(Attention(window=every_layer)),
    "mixtral": Family(Attention(window=every_layer), Mixture("block_sparse_moe", width_keys=("intermediate_size",))),
    "qwen2": Family(Attention(qkv_bias=True, window=when_asked)),
    "mimo": Family(Attention(bias_key="attention_bias", window=when_asked)),
    "qwen2_moe": Family(Attention(qkv_bias=True, window=when_asked), _QWEN_MOE),
    "qwen3": Family(_QWEN3),
    "qwen3_moe": Family(_QWEN3, Mixture()),
    "qwen3_next": Family(_by_type(gated_delta, _GATED), _QWEN_MOE),
    "qwen3_5": _QWEN3_5,
    "qwen3_5_moe": replace(_QWEN3_5, mlp=_QWEN_MOE),
    "phi": Family(_BIASED, _TWO, norms=1, norm_bias=True, head_bias=True),
    "phi3": Family(Attention(window=every_layer)),
    "phimoe": Family(
        Attention(bias_key="attention_bias", window=every_layer),
        Mixture("block_sparse_moe", width_keys=("intermediate_size",)),
        norm_bias=True,
    ),
    "gemma": Family(_LLAMA, tied=True),
    "gemma2": Family(Attention(bias_key="attention_bias", window=alternating(2)), norms=4, tied=True),
    "gemma3": Family(Attention(bias_key="attention_bias", norms="head", window=alternating(6)), norms=4, tied=True),
    "gemma3n": Family(_gemma3n, _nothing, norms=4, tied=True, extra=_gemma3n_extra),
    "gemma4": Family(_gemma4, _nothing, norms=4, tied=True, extra=_per_layer_inputs, experts=_GEMMA4_MOE),
    "gpt_oss": Family(
        Attention(qkv_bias=True, output_bias=True, sinks=True, window=alternating(2)),
        Mixture(width_keys=("intermediate_size",), biases=True),
    ),
    "llama4": Family(
        Attention(bias_key="attention_bias", window=alternating(4, "attention_chunk_size")),
        Mixture("feed_forward", Mlp("feed_forward", ("intermediate_size_mlp",)), shared_default=1, shared_path="shared_expert"),
    ),
    "deepseek_v2": Family(latent, Mixture()),
    "deepseek_v3": Family(latent, _DEEPSEEK_MOE),
    "kimi_k2": Family(latent, _DEEPSEEK_MOE),
    "kimi_k25": Family(latent, _DEEPSEEK_MOE),
    "deepseek_v32": Family(sparse_latent, _DEEPSEEK_MOE),
    "glm_moe_dsa": Family(sparse_latent, _DEEPSEEK_MOE),
    "kimi_linear": Family(_kimi_linear, _DEEPSEEK_MOE),
    "longcat_flash": Family(_longcat, _nothing, experts=Mixture(width_keys=("expert_ffn_hidden_size",))),
    "glm": Family(Attention(bias_key="attention_bias")),
    "glm4": Family(Attention(qkv_bias=True), norms=4),
    "glm4_moe": Family(Attention(qkv_bias=True, norms="head", norm_key="use_qk_norm"), _DEEPSEEK_MOE),
    "glm4_moe_lite": Family(latent, _DEEPSEEK_MOE),
    "minimax": Family(_minimax, Mixture("block_sparse_moe", width_keys=("intermediate_size",))),
    "minimax_m2": Family(
        Attention(norms="width", norm_key="use_qk_norm"),
        Mixture("block_sparse_moe", width_keys=("intermediate_size",), correction=True),
    ),
    "minimax_m3": Family(
        _minimax_m3,
        Mixture(
            "block_sparse_moe", Mlp(keys=("dense_intermediate_size",)), ("intermediate_size",),
            shared_keys=("shared_intermediate_size",), correction=True,
        ),
    ),  # fmt: skip
    "granite": Family(_LLAMA),
    "granitemoe": Family(_LLAMA, Mixture("block_sparse_moe", width_keys=("intermediate_size",))),
    "granitemoeshared": Family(_LLAMA, _GRANITE_SHARED),
    "granitemoehybrid": Family(_by_type(Mamba2(), _LLAMA), _GRANITE_SHARED),
    "olmo": Family(_LLAMA, norms=0, last_norm=False),
    "olmo2": Family(Attention(bias_key="attention_bias", norms="width")),
    "olmo3": Family(Attention(bias_key="attention_bias", norms="width", window=alternating(4))),
    "olmoe": Family(Attention(bias_key="attention_bias", norms="width"), Mixture(width_keys=("intermediate_size",))),
    "flex_olmo": Family(Attention(bias_key="attention_bias", norms="width"), Mixture(width_keys=("intermediate_size",))),
    "cohere": Family(Attention(bias_key="attention_bias", norms="head", norm_key="use_qk_norm"), norms=1, tied=True),
    "cohere2": Family(Attention(bias_key="attention_bias", window=alternating(4)), norms=1, tied=True),
    "falcon": Family(_falcon, Mlp("mlp", ("ffn_hidden_size",), 2, bias_key="bias", times_hidden=4), norms=1, norm_bias=True, tied=True),
    "falcon_h1": Family(lambda r, n: _first(Attention()(r, n), Mamba2(norm_key="mamba_rms_norm")(r, n)), Mlp("feed_forward")),
    "nemotron": Family(_LLAMA, Mlp(matrices=2), norm_bias=True),
    "nemotron_h": Family(_nemotron_h, _nothing, norms=1, state_type=("mamba_ssm_cache_dtype",), experts=_NEMOTRON_MOE),
    "nemotron-nas": Family(_nas, _nothing, norms=0),
    "jamba": Family(_jamba, Mixture("feed_forward", Mlp("feed_forward"), ("intermediate_size",))),
    "bamba": Family(_listed(Mamba2(), _LLAMA, "attn_layer_indices"), Mlp("feed_forward")),
    "ernie4_5": Family(Attention(bias_key="use_bias"), Mlp(bias_key="use_bias"), tied=True),
    "ernie4_5_moe": Family(Attention(bias_key="use_bias"), _DEEPSEEK_MOE, tied=True),
    "hunyuan_v1_dense": Family(Attention(bias_key="attention_bias", norms="head", norm_key="use_qk_norm")),
    "hunyuan_v1_moe": Family(
        Attention(bias_key="attention_bias", norms="head", norm_key="use_qk_norm"),
        Mixture(shared_path="shared_mlp", shared_number=("num_shared_expert",), always=True),
    ),
    "step3p5": Family(
        Attention(norms="head", gate="head", window=every_layer, sizes=_step_sizes),
        Mixture("moe", shared_keys=("share_expert_dim",), shared_path="share_expert", correction=True),
    ),
    "seed_oss": Family(Attention(qkv_bias=True)),
    "exaone4": Family(Attention(norms="head", window=alternating(4))),
    "exaone_moe": Family(Attention(norms="head", window=alternating(4)), _DEEPSEEK_MOE),
    "internlm2": Family(Attention("attention", bias_key="bias"), Mlp("feed_forward")),
    "internlm3": Family(Attention(bias_key="qkv_bias"), Mlp(bias_key="bias")),
    "dots1": Family(Attention(bias_key="attention_bias", norms="head", window=when_asked), _DEEPSEEK_MOE),
    "mimo_v2_flash": Family(_mimo_v2, _DEEPSEEK_MOE),
    "afmoe": Family(Attention(norms="head", gate="query", window=alternating(4)), _DEEPSEEK_MOE, norms=4),
    "arcee": Family(_LLAMA, Mlp(matrices=2)),
    "apertus": Family(Attention(bias_key="attention_bias", norms="head"), Mlp(matrices=2), extra=lambda read: 2 * read.layers),
    "smollm3": Family(Attention(bias_key="attention_bias", window=when_asked), tied=True),
    "cwm": Family(Attention(window=alternating(4))),
    "stablelm": Family(Attention(bias_key="use_qkv_bias"), norm_bias=True),
    "starcoder2": Family(_BIASED, _TWO, norm_bias=True, tied=True),
    "gpt_neox": Family(Attention("attention", qkv_bias=True, output_bias=True), _TWO, norm_bias=True),
    "gpt_bigcode": Family(
        _bigcode, Mlp("mlp", ("n_inner", "intermediate_size"), 2, bias=True, times_hidden=4), norm_bias=True, tied=True, positions=True
    ),
    "lfm2": Family(_lfm2_mixer, _lfm2_mlp, tied=True),
    "lfm2_moe": Family(_lfm2_mixer, Mixture("feed_forward", _lfm2_mlp, correction=True), tied=True),
}  # fmt: skip

# Names under which the text part of multimodal models, or a newer release, has one of these shapes.
SAME: dict[str, str] = {
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified": "gemma4",
    "llama4_text": "llama4",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_5_text": "qwen3_5",
    "qwen3_5_moe_text": "qwen3_5_moe",
    "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
    "minimax_text_01": "minimax",
    "minimax_m1": "minimax",
    "MiniMaxText01": "minimax",
    "MiniMaxM1": "minimax",
    "minimax_m3_vl_text": "minimax_m3",
    "phi4": "phi3",
    "phi4_multimodal": "phi3",
    "hunyuan": "hunyuan_v1_moe",
    "step3p7_text": "step3p5",
    "step3p7": "step3p5",
    "exaone4_5_text": "exaone4",
    "mimo_v2": "mimo_v2_flash",
    "olmo3_hybrid": "olmo3",
}


def family(kind: str) -> Family | None:
    """Of a `model_type`; None when it is not covered."""
    return FAMILIES.get(SAME.get(kind, kind))
