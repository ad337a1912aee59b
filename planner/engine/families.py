"""What the modelling code of each family fixes and a config does not say. One entry of FAMILIES per `model_type`.

Sources: the modelling code of `transformers` 5.19, and vLLM 0.32's where transformers has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.engine.config_reader import Reader
from planner.engine.family_layers import (
    NEMOTRON_MOE,
    beside,
    bigcode,
    by_type,
    chatglm,
    falcon,
    jamba,
    kimi_linear,
    laguna,
    lfm2_mixer,
    lfm2_mlp,
    listed,
    longcat,
    mimo_v2,
    minimax,
    minimax_m3,
    nas,
    nemotron_h,
    nothing,
    step3,
    step_sizes,
    together,
)
from planner.engine.gemma_layers import GEMMA4_MOE, gemma3n, gemma3n_extra, gemma4, per_layer_inputs
from planner.engine.layers import (
    Attention,
    Builder,
    Layer,
    Matrix,
    alternating,
    by_kind,
    compressed,
    every_layer,
    latent,
    sparse_latent,
    when_asked,
)
from planner.engine.mlps import GATED, Mixture, Mlp
from planner.engine.state_layers import Mamba2, gated_delta


@dataclass(frozen=True)
class Family:
    """A layer is `mixer` and `mlp` and `norms` of hidden size (`norm_bias`: with biases)."""

    mixer: Builder
    mlp: Builder = GATED
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
        return together(self.mixer(read, number), self.mlp(read, number), Layer((norms,)))

    def beside_layers(self, read: Reader) -> int:
        """The last norm, biases and embeddings that are not of words."""
        found = read.hidden * self.last_norm * (2 if self.norm_bias else 1)
        found += read.vocab * self.head_bias
        found += read.hidden * read.whole("max_position_embeddings", "n_positions") if self.positions else 0
        return found + (self.extra(read) if self.extra else 0)


def _hyper_connections(read: Reader) -> int:
    streams = read.whole("hc_mult")
    return streams * (streams * read.hidden + 1) + 1


_DEEPSEEK_MOE = Mixture(correction=True)
_QWEN_MOE = Mixture(shared_keys=("shared_expert_intermediate_size",), shared_path="shared_expert", shared_gate=True)
_GATED = Attention(bias_key="attention_bias", norms="head", gate="query")
_LLAMA = Attention(bias_key="attention_bias")
_QWEN3 = Attention(bias_key="attention_bias", norms="head", window=when_asked)
_BIASED = Attention(qkv_bias=True, output_bias=True)
_TWO = Mlp(matrices=2, bias=True, bias_key=None)
_BAILING = Attention("attention", bias_key="use_qkv_bias", norms="head", norm_key="use_qk_norm")
_GRANITE_SHARED = Mixture(
    "block_sparse_moe",
    Mlp("shared_mlp", ("shared_intermediate_size", "intermediate_size")),
    width_keys=("intermediate_size",),
    shared_keys=("shared_intermediate_size",),
    shared_number=(),
    shared_path="shared_mlp",
    always=True,
)
_LLAMA4_MOE = Mixture(
    "feed_forward",
    Mlp("feed_forward", ("intermediate_size_mlp",)),
    shared_default=1,
    shared_path="shared_expert",
)
_COHERE_MOE = Mixture(dense=Mlp(keys=("prefix_dense_intermediate_size",)), width_keys=("intermediate_size",))
_SINKS = Attention(bias_key="attention_bias", sinks=True, window=alternating(4))
_MINIMAX_M3_MOE = Mixture(
    "block_sparse_moe",
    Mlp(keys=("dense_intermediate_size",)),
    width_keys=("intermediate_size",),
    shared_keys=("shared_intermediate_size",),
    correction=True,
)
_OWN_WIDTH = Mixture(width_keys=("intermediate_size",))  # experts as wide as a dense MLP would be
_BLOCK = Mixture("block_sparse_moe", width_keys=("intermediate_size",))
_QWEN3_5 = Family(by_type(gated_delta, _GATED), state_type=("mamba_ssm_dtype",))

FAMILIES: dict[str, Family] = {
    "llama": Family(_LLAMA),
    "mistral": Family(Attention(window=every_layer)),
    "ministral": Family(Attention(window=every_layer)),
    "ministral3": Family(Attention(window=every_layer)),
    "mixtral": Family(Attention(window=every_layer), _BLOCK),
    "qwen2": Family(Attention(qkv_bias=True, window=when_asked)),
    "mimo": Family(Attention(bias_key="attention_bias", window=when_asked)),
    "qwen2_moe": Family(Attention(qkv_bias=True, window=when_asked), _QWEN_MOE),
    "qwen3": Family(_QWEN3),
    "qwen3_moe": Family(_QWEN3, Mixture()),
    "mellum": Family(replace(_QWEN3, window=by_kind), Mixture()),
    "laguna": Family(laguna, Mixture(shared_keys=("shared_expert_intermediate_size",), correction=True)),
    "qwen3_next": Family(by_type(gated_delta, _GATED), _QWEN_MOE),
    "qwen3_5": _QWEN3_5,
    "qwen3_5_moe": replace(_QWEN3_5, mlp=_QWEN_MOE),
    "phi": Family(_BIASED, _TWO, norms=1, norm_bias=True, head_bias=True),
    "phi3": Family(Attention(window=every_layer)),
    "phimoe": Family(
        Attention(bias_key="attention_bias", window=every_layer),
        _BLOCK,
        norm_bias=True,
    ),
    "gemma": Family(_LLAMA, tied=True),
    "gemma2": Family(Attention(bias_key="attention_bias", window=alternating(2)), norms=4, tied=True),
    "gemma3": Family(Attention(bias_key="attention_bias", norms="head", window=alternating(6)), norms=4, tied=True),
    "gemma3n": Family(gemma3n, nothing, norms=4, tied=True, extra=gemma3n_extra),
    "gemma4": Family(gemma4, nothing, norms=4, tied=True, extra=per_layer_inputs, experts=GEMMA4_MOE),
    "gpt_oss": Family(
        Attention(qkv_bias=True, output_bias=True, sinks=True, window=alternating(2)),
        Mixture(width_keys=("intermediate_size",), biases=True),
    ),
    "llama4": Family(
        Attention(bias_key="attention_bias", window=alternating(4, "attention_chunk_size")),
        _LLAMA4_MOE,
    ),
    "deepseek_v2": Family(latent, Mixture()),
    "deepseek_v3": Family(latent, _DEEPSEEK_MOE),
    "kimi_k2": Family(latent, _DEEPSEEK_MOE),
    "kimi_k25": Family(latent, _DEEPSEEK_MOE),
    "deepseek_v32": Family(sparse_latent, _DEEPSEEK_MOE),
    "deepseek_v4": Family(compressed, Mixture("ffn", always=True), extra=_hyper_connections),
    "mistral4": Family(latent, Mixture()),
    "axk1": Family(latent, replace(_DEEPSEEK_MOE, router_norms=1)),
    "glm_moe_dsa": Family(sparse_latent, _DEEPSEEK_MOE),
    "kimi_linear": Family(kimi_linear, _DEEPSEEK_MOE),
    "longcat_flash": Family(longcat, nothing, experts=Mixture(width_keys=("expert_ffn_hidden_size",))),
    "glm": Family(Attention(bias_key="attention_bias")),
    "glm4": Family(Attention(qkv_bias=True), norms=4),
    "glm4_moe": Family(Attention(qkv_bias=True, norms="head", norm_key="use_qk_norm"), _DEEPSEEK_MOE),
    "glm4_moe_lite": Family(latent, _DEEPSEEK_MOE),
    "minimax": Family(minimax, _BLOCK),
    "minimax_m2": Family(
        Attention(norms="width", norm_key="use_qk_norm"),
        Mixture("block_sparse_moe", width_keys=("intermediate_size",), correction=True),
    ),
    "minimax_m3": Family(minimax_m3, _MINIMAX_M3_MOE),
    "granite": Family(_LLAMA),
    "granitemoe": Family(_LLAMA, _BLOCK),
    "granitemoeshared": Family(_LLAMA, _GRANITE_SHARED),
    "granite_swa": Family(_SINKS),
    "granitemoe_swa": Family(_SINKS, _GRANITE_SHARED),
    "hyperclovax": Family(_LLAMA, norms=4),
    "granitemoehybrid": Family(by_type(Mamba2(), _LLAMA), _GRANITE_SHARED),
    "olmo": Family(_LLAMA, norms=0, last_norm=False),
    "olmo2": Family(Attention(bias_key="attention_bias", norms="width")),
    "olmo3": Family(Attention(bias_key="attention_bias", norms="width", window=alternating(4))),
    "olmo_hybrid": Family(by_type(gated_delta, Attention(bias_key="attention_bias", norms="width"))),
    "olmoe": Family(Attention(bias_key="attention_bias", norms="width"), _OWN_WIDTH),
    "flex_olmo": Family(Attention(bias_key="attention_bias", norms="width"), _OWN_WIDTH),
    "cohere": Family(Attention(bias_key="attention_bias", norms="head", norm_key="use_qk_norm"), norms=1, tied=True),
    "cohere2": Family(Attention(bias_key="attention_bias", window=alternating(4)), norms=1, tied=True),
    "cohere2_moe": Family(Attention(bias_key="attention_bias", window=alternating(4)), _COHERE_MOE, norms=1, tied=True),
    "falcon": Family(
        falcon,
        Mlp("mlp", ("ffn_hidden_size",), 2, bias_key="bias", times_hidden=4),
        norms=1,
        norm_bias=True,
        tied=True,
    ),
    "falcon_h1": Family(beside(Attention(), Mamba2(norm_key="mamba_rms_norm")), Mlp("feed_forward")),
    "nemotron": Family(_LLAMA, Mlp(matrices=2), norm_bias=True),
    "nemotron_h": Family(nemotron_h, nothing, norms=1, state_type=("mamba_ssm_cache_dtype",), experts=NEMOTRON_MOE),
    "nemotron-nas": Family(nas, nothing, norms=0),
    "jamba": Family(jamba, Mixture("feed_forward", Mlp("feed_forward"), ("intermediate_size",))),
    "bamba": Family(listed(Mamba2(), _LLAMA, "attn_layer_indices"), Mlp("feed_forward")),
    "ernie4_5": Family(Attention(bias_key="use_bias"), Mlp(bias_key="use_bias"), tied=True),
    "ernie4_5_moe": Family(Attention(bias_key="use_bias"), _DEEPSEEK_MOE, tied=True),
    "hunyuan_v1_dense": Family(Attention(bias_key="attention_bias", norms="head", norm_key="use_qk_norm")),
    "hunyuan_v1_moe": Family(
        Attention(bias_key="attention_bias", norms="head", norm_key="use_qk_norm"),
        Mixture(shared_path="shared_mlp", shared_number=("num_shared_expert",), always=True),
    ),
    "step3p5": Family(
        Attention(norms="head", gate="head", window=every_layer, sizes=step_sizes),
        Mixture("moe", shared_keys=("share_expert_dim",), shared_path="share_expert", correction=True),
    ),
    "seed_oss": Family(Attention(qkv_bias=True)),
    "exaone4": Family(Attention(norms="head", window=alternating(4))),
    "exaone_moe": Family(Attention(norms="head", window=alternating(4)), _DEEPSEEK_MOE),
    "internlm2": Family(Attention("attention", bias_key="bias"), Mlp("feed_forward")),
    "internlm3": Family(Attention(bias_key="qkv_bias"), Mlp(bias_key="bias")),
    "dots1": Family(Attention(bias_key="attention_bias", norms="head", window=when_asked), _DEEPSEEK_MOE),
    "mimo_v2_flash": Family(mimo_v2, _DEEPSEEK_MOE),
    "afmoe": Family(Attention(norms="head", gate="query", window=alternating(4)), _DEEPSEEK_MOE, norms=4),
    "arcee": Family(_LLAMA, Mlp(matrices=2)),
    "apertus": Family(
        Attention(bias_key="attention_bias", norms="head"), Mlp(matrices=2), extra=lambda read: 2 * read.layers
    ),
    "smollm3": Family(Attention(bias_key="attention_bias", window=when_asked), tied=True),
    "cwm": Family(Attention(window=alternating(4))),
    "stablelm": Family(Attention(bias_key="use_qkv_bias"), norm_bias=True),
    "starcoder2": Family(_BIASED, _TWO, norm_bias=True, tied=True),
    "gpt_neox": Family(Attention("attention", qkv_bias=True, output_bias=True), _TWO, norm_bias=True),
    "gpt_bigcode": Family(
        bigcode,
        Mlp("mlp", ("n_inner", "intermediate_size"), 2, bias=True, times_hidden=4),
        norm_bias=True,
        tied=True,
        positions=True,
    ),
    "solar_open": Family(_LLAMA, _DEEPSEEK_MOE),
    "hy_v3": Family(Attention(bias_key="attention_bias", norms="head"), _DEEPSEEK_MOE),
    "helium": Family(_LLAMA),
    "jais2": Family(_BIASED, _TWO, norm_bias=True),
    "vaultgemma": Family(Attention(bias_key="attention_bias", window=alternating(2)), tied=True),
    "opt": Family(_BIASED, Mlp("", ("ffn_dim",), 2, bias=True), norm_bias=True, tied=True, positions=True),
    "bloom": Family(
        Attention("self_attention", qkv_bias=True, output_bias=True),
        Mlp("mlp", ("n_inner",), 2, bias=True, times_hidden=4),
        norm_bias=True,
        tied=True,
        extra=lambda read: 2 * read.hidden,  # a norm of the embedding
    ),
    "chatglm": Family(chatglm, Mlp("mlp", ("ffn_hidden_size",))),
    "bailing_moe": Family(_BAILING, Mixture()),
    "bailing_moe_v2": Family(_BAILING, _DEEPSEEK_MOE),
    "step3_text": Family(step3, Mixture("moe", shared_keys=("share_expert_dim",), shared_path="share_expert")),
    "gpt2": Family(
        Attention("attn", qkv_bias=True, output_bias=True),
        Mlp("mlp", ("n_inner",), 2, bias=True, times_hidden=4),
        norm_bias=True,
        tied=True,
        positions=True,
    ),
    "lfm2": Family(lfm2_mixer, lfm2_mlp, tied=True),
    "lfm2_moe": Family(lfm2_mixer, Mixture("feed_forward", lfm2_mlp, correction=True), tied=True),
}

# Names under which the text part of multimodal models, or a newer release, has one of these shapes.
SAME: dict[str, str] = {
    "baichuan": "llama",
    "internlm": "llama",
    "Yi": "llama",
    "gemma3_text": "gemma3",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified": "gemma4",
    "gemma4_unified_text": "gemma4",
    "llama4_text": "llama4",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_omni_moe_text": "qwen3_moe",
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
    "hunyuan": "hunyuan_v1_moe",
    "step3p7_text": "step3p5",
    "step3p7": "step3p5",
    "exaone4_5_text": "exaone4",
    "mimo_v2": "mimo_v2_flash",
    "deepseek_ref": "deepseek_v4",
    "AXK1": "axk1",
}


def family(kind: str) -> Family | None:
    """Of a `model_type`; None when it is not covered."""
    return FAMILIES.get(SAME.get(kind, kind))
