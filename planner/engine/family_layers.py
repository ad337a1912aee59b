"""Layers that one family has: which kind stands where, and what its config calls them."""

from __future__ import annotations

from dataclasses import replace

from planner.engine.config_reader import Reader
from planner.engine.layers import NO_STATE, Attention, Builder, KvLayer, Layer, Matrix, Sizes, by_kind, latent
from planner.engine.mlps import Mixture, Mlp
from planner.engine.state_layers import Mamba2, kimi_delta, lightning, mamba1, short_convolution


def together(*found: Layer) -> Layer:
    """One layer of several parts side by side."""
    kv = next((layer.kv for layer in found if layer.kv), None)
    state = next((layer.state for layer in found if layer.state != NO_STATE), NO_STATE)
    matrices = tuple(matrix for layer in found for matrix in layer.matrices)
    return Layer(matrices, kv, state, any(layer.wide_norms for layer in found))


def beside(*builders: Builder) -> Builder:
    """One mixer of several that see the same input."""
    return lambda read, layer: together(*(build(read, layer) for build in builders))


def by_type(linear: Builder, full: Builder, kinds: tuple[str, ...] = ("linear_attention", "mamba", "conv")) -> Builder:
    """Linear layers where `layer_types` has one of `kinds`."""

    def mixer(read: Reader, layer: int) -> Layer:
        types = read.items("layer_types", read.layers) or read.items("layers_block_type", read.layers)
        if types is None and "full_attention_interval" in read.config:
            return (full if (layer + 1) % read.whole("full_attention_interval") == 0 else linear)(read, layer)
        return (linear if types is not None and types[layer] in kinds else full)(read, layer)

    return mixer


def listed(linear: Builder, full: Builder, key: str) -> Builder:
    """Full attention in the layers that `key` lists."""

    def mixer(read: Reader, layer: int) -> Layer:
        return (full if layer in (read.config.get(key) or ()) else linear)(read, layer)

    return mixer


def minimax(read: Reader, layer: int) -> Layer:
    kinds = read.items("attn_type_list", read.layers)  # MiniMax-Text-01 and M1: 0 is linear
    full = kinds[layer] == 1 if kinds is not None else read.per_layer("layer_types")[layer] == "full_attention"
    return (Attention() if full else lightning)(read, layer)


def jamba(read: Reader, layer: int) -> Layer:
    full = layer % read.whole("attn_layer_period") == read.count("attn_layer_offset")
    return (Attention() if full else mamba1)(read, layer)


def kimi_linear(read: Reader, layer: int) -> Layer:
    own = read.config.get("linear_attn_config") or {}
    if "full_attn_layers" in own:  # counted from 1
        return (latent if layer + 1 in own["full_attn_layers"] else kimi_delta)(read, layer)
    types = read.per_layer("layer_types")
    return (kimi_delta if types[layer : layer + 1] == ["linear_attention"] else latent)(read, layer)


_NEMOTRON_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}


def _nemotron_kind(read: Reader, layer: int) -> str:
    pattern = read.config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return _NEMOTRON_LETTERS.get(pattern[layer : layer + 1], "mlp")
    kinds = read.items("layers_block_type", read.layers) or ["mlp"] * read.layers
    return {"linear_attention": "mamba", "full_attention": "attention"}.get(kinds[layer], str(kinds[layer]))


NEMOTRON_MOE = Mixture(
    path="mixer", matrices=2, shared_keys=("moe_shared_expert_intermediate_size",), correction=True, always=True
)


def nemotron_h(read: Reader, layer: int) -> Layer:
    """A layer is one thing only."""
    kinds: dict[str, Builder] = {
        "mamba": Mamba2("mixer"),
        "attention": Attention("mixer", bias_key="attention_bias"),
        "mlp": Mlp("mixer", matrices=2),
        "moe": NEMOTRON_MOE,
    }
    return kinds[_nemotron_kind(read, layer)](read, layer)


def nothing(read: Reader, layer: int) -> Layer:
    return Layer(())


def _swa(read: Reader, layer: int) -> bool:
    types = read.items("layer_types", read.layers)
    if types is not None:
        return bool(types[layer] == "sliding_attention")
    return bool((read.items("hybrid_layer_pattern", read.layers) or [0] * read.layers)[layer] == 1)


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


def mimo_v2(read: Reader, layer: int) -> Layer:
    local = _swa(read, layer)
    sinks = read.flag("add_swa_attention_sink_bias" if local else "add_full_attention_sink_bias", local)
    window = (lambda read, layer: read.whole("sliding_window")) if local else (lambda read, layer: None)
    return Attention(bias_key="attention_bias", sinks=sinks, sizes=_mimo_sizes, window=window)(read, layer)


def step_sizes(read: Reader, layer: int) -> Sizes:
    other = read.config.get("attention_other_setting") or {}
    types = read.items("layer_types", read.layers)
    if types is not None and types[layer] == "sliding_attention" and other:
        own = Reader({**read.config, **other}, f"{read.where}: attention_other_setting")
        return Sizes(own.heads, own.kv_heads, own.head_dim, own.head_dim)
    return Sizes(read.heads, read.kv_heads, read.head_dim, read.head_dim)


def _laguna_sizes(read: Reader, layer: int) -> Sizes:
    heads = read.items("num_attention_heads_per_layer", read.layers)
    return Sizes(read.heads if heads is None else int(heads[layer]), read.kv_heads, read.head_dim, read.head_dim)


def laguna(read: Reader, layer: int) -> Layer:
    """Heads differ by layer; a gate for each head, or for each of its numbers."""
    each = read.config.get("gating", True) in (True, "per-head")
    return Attention(
        bias_key="attention_bias", norms="head", gate="head" if each else "query", window=by_kind, sizes=_laguna_sizes
    )(read, layer)


def longcat(read: Reader, layer: int) -> Layer:
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


def nas(read: Reader, layer: int) -> Layer:
    """Nemotron's pruned Llamas: each layer has its own K and V heads and MLP width, or none."""
    block = read.per_layer("block_configs")[layer]
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
    return together(*found) if found else Layer(())


def chatglm(read: Reader, layer: int) -> Layer:
    heads = read.heads
    groups = read.whole("multi_query_group_num") if read.flag("multi_query_attention") else heads
    own = {"num_key_value_heads": groups, "head_dim": read.whole("kv_channels", default=read.hidden // heads)}
    path, bias = "self_attention", read.flag("add_qkv_bias", read.flag("add_bias_linear"))
    return Attention(path, qkv_bias=bias, output_bias=read.flag("add_bias_linear"))(
        Reader({**read.config, **own}, read.where), layer
    )


def step3(read: Reader, layer: int) -> Layer:
    """Queries through a narrow stream that all heads share; one K and V for all of them."""
    hidden, wide, narrow = read.hidden, read.heads * read.head_dim, read.whole("share_q_dim")
    groups = read.whole("num_attention_groups", default=1)
    matrices = (
        Matrix("attention", "self_attn.q_proj", hidden * narrow),
        Matrix("attention", "self_attn.wq", narrow * wide),
        Matrix("kv", "self_attn.k_proj", hidden * groups * read.head_dim),
        Matrix("kv", "self_attn.v_proj", hidden * groups * read.head_dim),
        Matrix("attention", "self_attn.o_proj", wide * hidden),
        Matrix("norms", "self_attn.inter_norm", narrow),
    )
    return Layer(matrices, KvLayer(groups, 2 * read.head_dim))


def falcon(read: Reader, layer: int) -> Layer:
    heads = read.heads
    if read.flag("new_decoder_architecture"):
        kv = read.whole("num_kv_heads", default=heads)
    else:
        kv = 1 if read.flag("multi_query", True) else heads
    own = Reader({**read.config, "num_key_value_heads": kv}, read.where)
    return Attention("self_attention", bias_key="bias")(own, layer)


def bigcode(read: Reader, layer: int) -> Layer:
    kv = 1 if read.flag("multi_query", True) else read.heads
    own = Reader({**read.config, "num_key_value_heads": kv}, read.where)
    return Attention("attn", qkv_bias=True, output_bias=True)(own, layer)


def lfm2_mlp(read: Reader, layer: int) -> Layer:
    width = read.whole("intermediate_size", "block_ff_dim")
    if read.flag("block_auto_adjust_ff_dim", True) and "num_experts" not in read.config:
        width = int(2 * width / 3 * float(read.config.get("block_ffn_dim_multiplier") or 1.0))
        step = read.whole("block_multiple_of", default=256)
        width = -(-width // step) * step
    return Mlp("feed_forward")(Reader({**read.config, "intermediate_size": width}, read.where), layer)


def lfm2_mixer(read: Reader, layer: int) -> Layer:
    full = Attention(norms="head")
    if (listed := read.config.get("full_attn_idxs")) is not None:
        return (full if layer in listed else short_convolution)(read, layer)
    return by_type(short_convolution, full)(read, layer)


def minimax_m3(read: Reader, layer: int) -> Layer:
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
