"""Today's families: parameters against counts of the models themselves, KV and state a token against vLLM's reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.engine.families import FAMILIES, SAME
from planner.engine.limits import uneven
from planner.engine.model_config import load_model, shape
from planner.engine.model_shape import ModelShape
from planner.engine.parallel import Parallel
from planner.spec import Engine, SpecError

DATA = Path(__file__).parent / "data" / "families.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()[1:]]
CONFIGS = {row["name"]: row["config"] for row in ROWS}


def _model(name: str, **changes: Any) -> ModelShape:
    return shape(name, {**CONFIGS[name], **changes}, name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_parameters_and_kv(row: dict[str, Any]) -> None:
    model = shape(row["name"], row["config"], row["name"])
    text = model.parameters.total - model.parameters.vision
    assert text == pytest.approx(row["parameters"], rel=1e-4)
    assert abs(model.parameters.vision - row["vision"]) < 0.01 * (row["parameters"] + row["vision"])
    assert (model.kv_bytes_per_token, model.state_bytes) == (row["kv"], row["state"])
    assert len(model.windows) == len(model.state) == model.layers


def test_enough_is_covered() -> None:
    real = {name for name in CONFIGS if "/" in name}
    kinds = {row["config"]["model_type"] for row in ROWS}
    assert (len(real), len(ROWS), len(kinds)) >= (50, 130, 80)
    assert all(target in FAMILIES for target in SAME.values())


# What the cards say, for models that transformers does not build (in thousand millions).
CARDS = {
    "kimi_k2": ({**CONFIGS["deepseek-ai/DeepSeek-V3"], "model_type": "kimi_k2", "num_attention_heads": 64,
                 "num_key_value_heads": 64, "n_routed_experts": 384, "first_k_dense_replace": 1,
                 "vocab_size": 163840}, 1026, 32),
    "longcat_flash": ({"model_type": "longcat_flash", "hidden_size": 6144, "num_layers": 28, "vocab_size": 131072,
                       "num_attention_heads": 64, "ffn_hidden_size": 12288, "q_lora_rank": 1536, "kv_lora_rank": 512,
                       "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "moe_topk": 12,
                       "n_routed_experts": 512, "zero_expert_num": 256, "expert_ffn_hidden_size": 2048,
                       "max_position_embeddings": 131072}, 560, 27),
    "bailing_moe": ({"model_type": "bailing_moe", "hidden_size": 2048, "num_hidden_layers": 28, "head_dim": 128,
                     "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 5632,
                     "moe_intermediate_size": 1408, "num_experts": 64, "num_experts_per_tok": 6,
                     "num_shared_experts": 2, "vocab_size": 126464, "max_position_embeddings": 16384}, 16.8, 2.75),
    "step3_text": ({"model_type": "step3_text", "hidden_size": 7168, "num_hidden_layers": 61, "head_dim": 256,
                    "num_attention_heads": 64, "num_attention_groups": 1, "share_q_dim": 2048,
                    "intermediate_size": 18432, "moe_intermediate_size": 5120, "moe_num_experts": 48, "moe_top_k": 3,
                    "share_expert_dim": 5120, "moe_layers_enum": ",".join(map(str, range(4, 60))),
                    "vocab_size": 128815, "max_position_embeddings": 65536}, 316, 38),
    "chatglm": ({"model_type": "chatglm", "hidden_size": 4096, "num_layers": 40, "num_attention_heads": 32,
                 "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 128,
                 "ffn_hidden_size": 13696, "padded_vocab_size": 151552, "add_qkv_bias": True,
                 "seq_length": 131072}, 9.4, 9.4),
    "hunyuan_v1_moe": ({"model_type": "hunyuan_v1_moe", "hidden_size": 4096, "num_hidden_layers": 32, "head_dim": 128,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 3072,
                        "moe_intermediate_size": [3072] * 32, "num_experts": 64, "moe_topk": [8] * 32,
                        "num_shared_expert": [1] * 32, "vocab_size": 128167, "use_qk_norm": True,
                        "tie_word_embeddings": True, "max_position_embeddings": 32768}, 80.4, 13),
}  # fmt: skip


@pytest.mark.parametrize("kind", CARDS)
def test_what_the_cards_say(kind: str) -> None:
    config, billions, active = CARDS[kind]
    model = shape(kind, config, kind)
    assert model.parameters.total / 1e9 == pytest.approx(billions, rel=0.01)
    assert model.active_parameters / 1e9 == pytest.approx(active, rel=0.25)  # cards round, and count their own way


def test_layers_of_a_mixture() -> None:
    deepseek = _model("deepseek-ai/DeepSeek-V3")
    assert (deepseek.experts, deepseek.experts_per_token, deepseek.expert_intermediate) == (256, 8, 2048)
    assert (deepseek.shared_intermediate, deepseek.moe_layers.index(True), sum(deepseek.moe_layers)) == (2048, 3, 58)
    maverick = _model("meta-llama/Llama-4-Maverick-17B-128E-Instruct")
    assert maverick.moe_layers[:4] == (False, True, False, True)
    assert maverick.windows[:4] == (8192, 8192, 8192, None)
    assert _model("Qwen/Qwen3-8B").moe_layers == ()


def test_layers_that_keep_a_state() -> None:
    qwen = _model("Qwen/Qwen3.5-35B-A3B")  # three of four layers are linear: 32 heads of 128 x 128 in float32
    assert (qwen.state_layers, qwen.attention_layers, qwen.windows[:4]) == (30, 10, (0, 0, 0, None))
    assert qwen.state_bytes == 30 * (32 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 32 * 128) * 2)
    assert qwen.kv_bytes(1000) == 1000 * qwen.kv_bytes_per_token == 1000 * 10 * 2 * 2 * 256 * 2
    assert qwen.attention_flops(1, 99) == 100 * qwen.attention_flops_per_pair
    assert load_model("llama-3.1-8b").state_bytes == 0


def test_shared_and_narrow_kv() -> None:
    full = _model("default:gemma4")
    shared = _model(
        "default:gemma4", text_config={**CONFIGS["default:gemma4"]["text_config"], "num_kv_shared_layers": 10}
    )
    assert shared.kv_bytes_per_token < full.kv_bytes_per_token
    assert sum(layer.heads > 0 for layer in shared.kv) == sum(layer.heads > 0 for layer in full.kv) - 10
    wide = _model("google/gemma-4-26B-A4B")  # 25 local layers with 8 heads of 256, 5 with 2 of 512
    assert wide.kv_bytes_per_token == 25 * 8 * 512 * 2 + 5 * 2 * 1024 * 2
    assert wide.kv_bytes_per_token_per_gpu(Parallel(4)) == 25 * 2 * 512 * 2 + 5 * 1 * 1024 * 2  # two heads on four GPUs


def test_an_index_is_kept_beside_the_latent() -> None:
    sparse = _model("deepseek-ai/DeepSeek-V3.2")
    assert sparse.kv_bytes_per_token == 61 * (576 * 2 + 132)
    assert sparse.for_engine(Engine(kv_cache_dtype="fp8")).kv_bytes_per_token == 61 * (656 + 132)
    shared = _model("zai-org/GLM-5.2")
    own = CONFIGS["zai-org/GLM-5.2"]["indexer_types"].count("full")
    assert shared.kv_bytes_per_token == 78 * 576 * 2 + own * 132


# --- quantisers' lists -------------------------------------------------------------------------------------

_NVFP4 = {"num_bits": 4, "type": "float", "group_size": 16}


def _bits(name: str, quantization: dict[str, Any]) -> tuple[float, ...]:
    bits = _model(name, quantization_config=quantization).bits
    return bits.attention, bits.mlp, bits.shared, bits.routed, bits.head


def test_modules_that_are_left_out() -> None:
    name, ignore = "deepseek-ai/DeepSeek-V3", ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]
    kimi = {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 32}}},
    }
    dense = r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"
    assert _bits(name, {**kimi, "ignore": [*ignore, dense]}) == (16, 16, 16, 4.5, 16)
    assert _bits(name, {**kimi, "ignore": ignore}) == (16, 4.5, 16, 4.5, 16)
    stars = [f"model.layers.{layer}.self_attn*" for layer in range(61)]
    assert _bits(name, {"quant_algo": "NVFP4", "ignore": stars}) == (16, 4.5, 4.5, 4.5, 16)
    others = ["mtp.layers.0*", "vision_tower.encoder.layers.1.mlp", "model.layers.60*"]
    one = _bits(name, {"quant_algo": "NVFP4", "ignore": others})[3]
    assert one == pytest.approx(4.5 + 11.5 / 58)  # layer 60 alone is the language model's
    half = _bits("Qwen/Qwen3-8B", {"quant_algo": "NVFP4", "exclude_modules": [f"model.layers.{n}" for n in range(18)]})
    assert half[:2] == (10.25, 10.25)  # layers 1 and 10 to 17 are different names
    assert _bits("Qwen/Qwen3-8B", {"quant_method": "fp8", "modules_to_not_convert": ["down_proj"]})[1] == 8 + 8 / 3


def test_groups_of_different_types() -> None:
    layers = {}
    for layer in range(36):
        for path in ("q_proj", "k_proj", "v_proj", "o_proj"):
            layers[f"model.layers.{layer}.self_attn.{path}"] = {"quant_algo": "FP8"}
        for path in ("gate_proj", "up_proj", "down_proj"):
            layers[f"model.layers.{layer}.mlp.{path}"] = {"quant_algo": "W4A16_NVFP4", "group_size": 16}
    mixed = {
        "quantization": {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8", "quantized_layers": layers}
    }
    quantization = {"quant_method": "modelopt", **mixed}
    assert _bits("Qwen/Qwen3-8B", quantization) == (8, 4.5, 16, 16, 16)
    model = _model("Qwen/Qwen3-8B", quantization_config=quantization)
    assert model.types(Engine()) == ("fp8", "int4")  # most of the weights
    groups = {
        "a": {"weights": {"num_bits": 8, "type": "float"}, "targets": ["re:.*self_attn.*"]},
        "b": {"weights": _NVFP4, "targets": ["re:.*mlp.*", "lm_head"]},
    }
    assert _bits("Qwen/Qwen3-8B", {"quant_method": "compressed-tensors", "config_groups": groups}) == (
        8,
        4.5,
        16,
        16,
        4.5,
    )


# GB of published checkpoints, without layers that predict further tokens.
PUBLISHED_GB = {
    "openai/gpt-oss-120b": ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, 65.2),
    "MiniMaxAI/MiniMax-M2.5": ({"quant_method": "fp8", "weight_block_size": [128, 128],
                                "modules_to_not_convert": ["gate", "lm_head"]}, 230),
    "Qwen/Qwen3-235B-A22B": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 236.4),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_GB)
def test_published_sizes(name: str) -> None:
    quantization, gigabytes = PUBLISHED_GB[name]
    assert _model(name, quantization_config=quantization).weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_experts_are_split_with_their_scales() -> None:
    """Qwen3-235B in blocks of 128 with experts of 1536: tp 8 leaves 192 of them."""
    model = _model("Qwen/Qwen3-235B-A22B", quantization_config=PUBLISHED_GB["Qwen/Qwen3-235B-A22B"][0])
    assert uneven(model, Parallel(4)) is None
    assert uneven(model, Parallel(8)) == (
        "8 leaves 192 of Qwen/Qwen3-235B-A22B's expert width 1536 to a GPU, no multiple of its quantised blocks of 128"
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"layer_types": ["full_attention"]}, "x: layer_types: is no list of 64 values; allowed: one value a layer"),
        ({"linear_num_key_heads": None}, "x: linear_num_key_heads: is missing; allowed: whole numbers from 1"),
    ],
)
def test_what_is_missing_gets_one_line(changes: dict[str, Any], line: str) -> None:
    config = CONFIGS["Qwen/Qwen3.5-27B"]
    config = {**config, "text_config": {**config["text_config"], **changes}}
    with pytest.raises(SpecError) as caught:
        shape("x", config, "x")
    assert str(caught.value) == line
