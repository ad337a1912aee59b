"""Layers that keep a state of each sequence instead of KV: linear attention, state spaces, convolutions.

Sizes of the states are those of vLLM's `model_executor/layers/mamba/mamba_utils.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.engine.config_reader import Reader
from planner.engine.layers import Layer, Matrix, State


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
    heads, dim = own.whole("linear_num_heads", "num_heads"), own.whole("linear_head_dim", "head_dim")
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
        dim = read.config.get("mamba_d_head", read.config.get("mamba_head_dim"))
        states, kernel = read.whole("mamba_d_state", "ssm_state_size"), read.whole("mamba_d_conv", "conv_kernel")
        expand = read.whole("mamba_expand", "expand", default=2)
        wide = heads * dim if isinstance(dim, int) else read.count("mamba_d_ssm") or expand * hidden
        groups = read.whole("mamba_n_groups", "n_groups", "mamba_ngroups", default=1)
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
