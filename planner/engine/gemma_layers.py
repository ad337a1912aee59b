"""Gemma 3n's and 4's layers: narrow embeddings for each of them, KV shared with layers before."""

from __future__ import annotations

from dataclasses import replace

from planner.engine.config_reader import Reader
from planner.engine.family_layers import together
from planner.engine.layers import Attention, Layer, Matrix, Sizes, alternating
from planner.engine.mlps import Mixture, Mlp


def _gemma4_full(read: Reader, layer: int) -> bool:
    types = read.items("layer_types", read.layers)
    return bool(types[layer] == "full_attention") if types is not None else (layer + 1) % 6 == 0


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


def gemma4(read: Reader, layer: int) -> Layer:
    hidden, small = read.hidden, read.count("hidden_size_per_layer_input")
    found = [_gemma4_attention(read, layer)]
    wide = 2 if read.flag("use_double_wide_mlp") and _shares_kv(read, layer) else 1
    dense = Mlp()(read, layer)
    dense = Layer(tuple(replace(matrix, count=matrix.count * wide) for matrix in dense.matrices))
    if read.flag("enable_moe_block"):
        experts = read.whole("num_experts")
        found.append(replace(GEMMA4_MOE, dense=lambda read, layer: dense)(read, layer))
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
    return together(*found)


GEMMA4_MOE = Mixture(path="", always=True, beside=True, router_norms=1)


def per_layer_inputs(read: Reader) -> int:
    """Gemma's embeddings for every layer, and the projection into them."""
    small = read.count("hidden_size_per_layer_input")
    if not small:
        return 0
    wide = small * read.layers
    return read.whole("vocab_size_per_layer_input", default=read.vocab) * wide + read.hidden * wide + small


def gemma3n(read: Reader, layer: int) -> Layer:
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


def gemma3n_extra(read: Reader) -> int:
    return per_layer_inputs(read) + 2 * (read.whole("altup_num_inputs") - 1) * read.hidden**2
