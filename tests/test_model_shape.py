"""Model arithmetic against published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from live.models import served_model
from planner.engine.catalogue import hardware, names
from planner.engine.hub_ids import HUB_ID, all_shipped, published_as
from planner.engine.law import StepLaw, bounds
from planner.engine.limits import uneven
from planner.engine.model_config import load_model, model_config, shape
from planner.engine.parallel import Parallel
from planner.engine.profiles import LatencyProfile, roofline
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.spec import Engine, SpecError

# Parameters as the checkpoints' safetensors hold them (tied embeddings counted once; DeepSeek-V3 without its extra
# prediction layer), and KV bytes a token at 16 bits.
PUBLISHED = {
    "llama-3.1-8b": (8_030_261_248, 131_072),
    "llama-3.1-70b": (70_553_706_496, 327_680),
    "llama-3.2-1b": (1_235_814_400, 32_768),
    "deepseek-r1-distill-llama-8b": (8_030_261_248, 131_072),
    "qwen2.5-7b": (7_615_616_512, 57_344),
    "qwen2.5-0.5b": (494_032_768, 12_288),
    "qwen3-1.7b": (1_720_574_976, 114_688),
    "qwen3-32b": (32_762_123_264, 262_144),
    "mistral-7b-v0.1": (7_241_732_096, 131_072),
    "gemma-2-9b": (9_241_705_984, 344_064),
    "phi-3-mini": (3_821_079_552, 393_216),
    "phi-4": (14_659_507_200, 204_800),
    "mixtral-8x7b": (46_702_792_704, 131_072),
    "qwen3-30b-a3b": (30_532_122_624, 98_304),
    "gpt-oss-20b": (20_914_757_184, 49_152),
    "deepseek-v3": (671_026_419_200, 70_272),
}
# Parameters in thousand millions as the cards say, or as the hub counts where a card rounds harder than to 2 %.
SIZES = {
    "deepseek-r1-distill-llama-8b": 8.03, "deepseek-v3": 671, "deepseek-v3.2": 671, "gemma-2-9b": 9.24,
    "gemma-3-4b": 4.3, "gemma-3-12b": 12.2, "gemma-3-27b": 27.4, "glm-4.5": 355, "glm-4.5-air": 106, "glm-5": 744,
    "gpt-oss-120b": 117, "gpt-oss-20b": 21, "kimi-k2": 1026, "kimi-k2.5": 1026, "llama-3.1-405b": 405,
    "llama-3.1-70b": 70.6, "llama-3.1-8b": 8.03, "llama-3.2-1b": 1.23, "llama-3.2-3b": 3.21, "llama-4-maverick": 400,
    "llama-4-scout": 109, "minimax-m2.5": 230, "mistral-7b-v0.1": 7.24, "mistral-small-24b": 23.6,
    "mixtral-8x22b": 141, "mixtral-8x7b": 46.7, "phi-3-mini": 3.8, "phi-4": 14.7, "phi-4-mini": 3.8,
    "qwen2.5-0.5b": 0.49, "qwen2.5-1.5b": 1.54, "qwen2.5-3b": 3.09, "qwen2.5-7b": 7.61, "qwen2.5-14b": 14.7,
    "qwen2.5-32b": 32.5, "qwen2.5-72b": 72.7, "qwen3-0.6b": 0.6, "qwen3-1.7b": 1.7, "qwen3-4b": 4.0, "qwen3-8b": 8.2,
    "qwen3-14b": 14.8, "qwen3-32b": 32.8, "qwen3-30b-a3b": 30.5, "qwen3-235b-a22b": 235, "qwen3-coder-480b-a35b": 480,
    "mistral-large-123b": 123, "gemma-4-26b-a4b": 25.2 + 0.55, "gemma-4-31b": 30.7 + 0.55,  # text and vision
}  # fmt: skip
# What the model cards call active parameters, in thousand millions.
ACTIVE = {"mixtral-8x7b": 12.9, "qwen3-30b-a3b": 3.3, "deepseek-v3": 37.0, "gemma-4-26b-a4b": 3.8}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    parameters, kv = PUBLISHED[name]
    model = load_model(name)
    assert model.parameters.total == pytest.approx(parameters, rel=1e-5)
    assert model.kv_bytes_per_token == kv


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters(name: str) -> None:
    model = load_model(name)
    assert model.active_parameters / 1e9 == pytest.approx(ACTIVE[name], rel=0.03)
    assert model.kind == "moe"


@pytest.mark.parametrize("name", names("models"))
def test_every_entry_reads(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert len(model.windows) == model.layers
    assert 0 < model.active_parameters <= model.parameters.total
    assert model.step_weight_bytes <= model.weight_bytes


def test_sizes_are_those_published() -> None:
    assert set(SIZES) == {name for name in names("models") if published_as(name)}
    assert {name: load_model(name).parameters.total / 1e9 for name in SIZES} == pytest.approx(SIZES, rel=0.02)


@pytest.mark.parametrize("hub_id", all_shipped())
def test_every_hub_id_reads(hub_id: str) -> None:
    """Its own keys over the entry's: the shape is the entry's but for what a checkpoint may change."""
    ours = all_shipped()[hub_id]
    assert HUB_ID.fullmatch(ours.hub_id)
    model, entry = load_model(hub_id), load_model(ours.entry)
    assert ours.changes.keys() <= {
        "max_position_embeddings", "vocab_size", "sliding_window", "tie_word_embeddings", "quantization_config",
        "vision_config",
    }  # fmt: skip
    assert (model.layers, model.kv_bytes_per_token) == (entry.layers, entry.kv_bytes_per_token)
    for key, mine in (("max_position_embeddings", model.max_position), ("vocab_size", model.vocab)):
        assert mine == ours.changes.get(key, mine)


def test_what_a_checkpoint_changes_counts() -> None:
    distilled, small = load_model("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"), load_model("qwen2.5-1.5b")
    assert distilled.parameters.total == 1_777_088_000  # its head is its own
    assert distilled.parameters.total - small.parameters.total == 151_936 * 1536
    assert load_model("mistralai/Mistral-7B-Instruct-v0.3").windows == (None,) * 32
    plain, stored = load_model("Qwen/Qwen3-32B"), load_model("Qwen/Qwen3-32B-FP8")
    assert stored.weight_bytes < 0.55 * plain.weight_bytes


@pytest.mark.parametrize(
    ("kind", "section", "parameters", "kv_bytes"),
    [
        (
            "llava",
            {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
            6_738_939_904,
            524_288,
        ),
        (
            "llava",
            {
                "model_type": "mistral",
                "hidden_size": 5120,
                "num_hidden_layers": 40,
                "head_dim": 128,
                "vocab_size": 131072,
            }
            | {"num_key_value_heads": 8, "sliding_window": None, "max_position_embeddings": 1024000},
            12_247_782_400,
            163_840,
        ),
        ("gemma3", {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}, 3_880_263_168, 139_264),
        (
            "gemma3",
            {"model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48}
            | {"num_attention_heads": 16, "num_key_value_heads": 8, "sliding_window": 1024},
            11_766_034_176,
            393_216,
        ),
    ],
)
def test_a_nested_section_leaves_out_the_defaults_of_its_class(
    kind: str, section: dict[str, Any], parameters: int, kv_bytes: int
) -> None:
    """LLaVA-1.5-7B, Pixtral-12B, Gemma-3-4B and -12B as published; parameters without their vision towers."""
    found = shape("x", {"model_type": kind, "text_config": section, "torch_dtype": "bfloat16"}, "x")
    assert (found.parameters.total, found.kv_bytes_per_token) == (parameters, kv_bytes)


def test_a_towers_section_leaves_them_out_too() -> None:
    """Pixtral-12B: 24 layers of 4 x 1024 x 1024 and a gated MLP of 4096, and a projector."""
    tower = {"model_type": "pixtral", "image_size": 1024, "patch_size": 16, "head_dim": 64}
    text = {
        "model_type": "mistral",
        "hidden_size": 5120,
        "num_hidden_layers": 40,
        "head_dim": 128,
        "vocab_size": 131072,
    }
    config = {"model_type": "llava", "text_config": text, "vision_config": tower, "torch_dtype": "bfloat16"}
    found = shape("x", config, "x").parameters.total
    assert found == pytest.approx(
        12_247_782_400 + 24 * (4 * 1024**2 + 3 * 1024 * 4096) + (1024 + 5120) * 5120, rel=1e-3
    )


def test_falcons_files_say_nothing_of_positions() -> None:
    config = {"model_type": "falcon", "hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128}
    config |= {"num_kv_heads": 8, "new_decoder_architecture": True, "vocab_size": 65024, "torch_dtype": "bfloat16"}
    found = shape("x", config, "x")
    assert (found.max_position, found.kv_bytes_per_token) == (2048, 60 * 2 * 8 * 64 * 2)


def test_small_models_of_the_cpu() -> None:
    assert load_model("tiny").kv_bytes_per_token == 2_048
    assert load_model("small").kv_bytes_per_token == 8_192
    assert load_model("kvheavy").kv_bytes_per_token == 32_768


def test_flops() -> None:
    model = load_model("llama-3.1-8b")
    matrices = 8_030_261_248 - 2 * 128_256 * 4096 - 65 * 4096
    assert model.flops_per_token == 2 * matrices
    assert model.attention_flops_per_pair == 4 * 32 * 32 * 128  # layers, heads, head size
    assert model.head_flops == 2 * 4096 * 128_256
    assert model.attention_flops(2, 0) == 3 * model.attention_flops_per_pair  # 1 + 2 keys seen
    assert model.attention_flops(1, 9) == 10 * model.attention_flops_per_pair
    mixtral = load_model("mixtral-8x7b")
    assert mixtral.flops_per_token < 2 * mixtral.active_parameters


# --- KV ----------------------------------------------------------------------------------------------


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    model = load_model("llama-3.1-70b")  # 8 KV heads
    assert model.kv_bytes_per_token_per_gpu(Parallel(4)) == 327_680 / 4
    assert model.kv_bytes_per_token_per_gpu(Parallel(8)) == 327_680 / 8
    assert model.kv_bytes_per_token_per_gpu(Parallel(16)) == 327_680 / 8


def test_mla_keeps_one_latent_on_every_gpu() -> None:
    model = load_model("deepseek-v3")
    assert model.kv_bytes_per_token == 61 * (512 + 64) * 2
    assert model.kv_bytes_per_token_per_gpu(Parallel(8)) == model.kv_bytes_per_token


def test_windows_bound_the_kv_of_a_sequence() -> None:
    mistral = load_model("mistral-7b-v0.1")
    assert mistral.kv_bytes(1000) == 1000 * 131_072
    assert mistral.kv_bytes(32_000) == 4096 * 131_072
    gemma = load_model("gemma-2-9b")  # every second layer
    assert gemma.kv_bytes(8192) == (4096 + 8192) * 344_064 / 2
    oss = load_model("gpt-oss-20b")
    assert oss.windows[:2] == (128, None)
    dense = load_model("llama-3.1-8b")
    assert dense.kv_bytes(100_000) == 100_000 * 131_072


def test_windows_bound_attention() -> None:
    mistral = load_model("mistral-7b-v0.1")
    assert mistral.attention_flops(1, 20_000) == 4096 * mistral.attention_flops_per_pair
    whole = mistral.attention_flops(6000, 0)
    assert whole == pytest.approx(mistral.attention_flops(3000, 0) + mistral.attention_flops(3000, 3000))
    pairs = sum(min(position + 1, 4096) for position in range(6000))
    assert whole == pytest.approx(pairs * mistral.attention_flops_per_pair)


# --- weights -----------------------------------------------------------------------------------------


def test_weight_bytes() -> None:
    model = load_model("llama-3.1-8b")
    assert model.weight_bytes == 16_060_522_496
    assert model.weight_bytes - model.step_weight_bytes == 128_256 * 4096 * 2  # the embedding is only looked up
    assert model.weight_bytes_per_gpu(Parallel(1)) == model.weight_bytes
    assert model.weight_bytes_per_gpu(Parallel(4)) == pytest.approx(model.weight_bytes / 4, rel=1e-3)


def test_kv_projections_are_replicated_too() -> None:
    model = load_model("llama-3.1-70b")
    at_16, even = model.weight_bytes_per_gpu(Parallel(16)), model.weight_bytes / 16
    extra = model.parameters.kv * 2 * (1 / 8 - 1 / 16)
    assert at_16 - even == pytest.approx(extra, rel=0.05)


def _with(name: str, **changes: Any) -> dict[str, Any]:
    return {**model_config(name).config, **changes}


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "fp8"}, 8.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128**2),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8.0),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}},
            8.0,
        ),
    ],
)
def test_quantised_checkpoints(quantization: dict[str, Any], bits: float) -> None:
    plain = load_model("llama-3.1-8b")
    model = shape("q", _with("llama-3.1-8b", quantization_config=quantization), "q")
    assert model.bits.mlp == bits
    linear = plain.parameters.attention + plain.parameters.mlp
    assert plain.weight_bytes - model.weight_bytes == pytest.approx(linear * (16 - bits) / 8, rel=1e-6)
    assert model.kv_bytes_per_token == plain.kv_bytes_per_token
    with pytest.raises(
        SpecError, match=r"^engine\.quantization: 'int4' on q, whose weights are quantised already; allo"
    ):
        model.for_engine(Engine(quantization="int4"))


def _compressed(bits: int, kind: str, inputs: int | None = None, **keys: Any) -> dict[str, Any]:
    activations = None if inputs is None else {"num_bits": inputs, "type": kind}
    group = {"weights": {"num_bits": bits, "type": kind, **keys}, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


def _quark(weight: str, inputs: str | None, **keys: Any) -> dict[str, Any]:
    group = {"weight": {"dtype": weight, **keys}, "input_tensors": inputs and {"dtype": inputs}}
    kept = {"*k_proj": {**group, "output_tensors": {"dtype": "fp8_e4m3"}}} if weight == "fp8_e4m3" else {}
    export = {"kv_cache_group": list(kept)}
    return {"quant_method": "quark", "global_quant_config": group, "layer_quant_config": kept, "export": export}


def _torchao(kind: str, **data: Any) -> dict[str, Any]:
    return {"quant_method": "torchao", "quant_type": {"default": {"_type": kind, "_data": data}}}


_FP8_KV = {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}


@pytest.mark.parametrize(
    ("quantization", "types", "bits"),
    [
        ({"quant_method": "fp8"}, ("auto", "fp8"), 8.0),
        ({"quant_method": "fbgemm_fp8"}, ("auto", "fp8"), 8.0),
        (_compressed(8, "float", 8), ("auto", "fp8"), 8.0),
        (_compressed(8, "int", 8), ("auto", "int8"), 8.0),
        (_compressed(8, "float"), ("auto", "w8a16"), 8.0),
        (_compressed(4, "int", group_size=128), ("auto", "int4"), 4.125),
        (_compressed(4, "float", 4, group_size=16), ("auto", "fp4"), 4.5),
        ({**_compressed(8, "float", 8), **_FP8_KV}, ("fp8", "fp8"), 8.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", **_FP8_KV}, ("fp8", "fp4"), 4.5),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, ("fp8", "fp8"), 8.0),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, ("auto", "w8a16"), 8.0),
        ({"quant_method": "awq"}, ("auto", "int4"), 4 + 20 / 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, ("auto", "int4"), 4.5),
        (_quark("fp8_e4m3", "fp8_e4m3"), ("fp8", "fp8"), 8.0),
        (_quark("fp4", "fp4", group_size=32), ("auto", "fp4"), 4.25),
        (_quark("int4", None, group_size=128), ("auto", "int4"), 4.125),
        (_torchao("Float8DynamicActivationFloat8WeightConfig"), ("auto", "fp8"), 8.0),
        (_torchao("Int4WeightOnlyConfig", group_size=64), ("auto", "int4"), 4.5),
    ],
)
def test_a_checkpoint_decides_where_the_engine_is_silent(
    quantization: dict[str, Any], types: tuple[str, str], bits: float
) -> None:
    model = shape("q", _with("llama-3.1-8b", quantization_config=quantization), "q")
    assert (model.types(Engine()), model.bits.mlp) == (types, bits)
    here = model.for_engine(Engine())
    assert here.types(Engine()) == types
    assert here.kv_bytes_per_token == 131_072 // (2 if types[0] == "fp8" else 1)
    assert model.for_engine(Engine(kv_cache_dtype="bf16")).kv_bytes_per_token == 131_072  # told otherwise


def test_an_fp8_checkpoint_is_the_model_quantised_when_loaded() -> None:
    online = Engine(quantization="fp8")
    model = shape("q", _with("llama-3.1-8b", quantization_config={"quant_method": "fp8"}), "q")
    plain, entry = load_model("llama-3.1-8b").for_engine(online), hardware("h200")
    assert model.for_engine(online) == model  # vLLM takes the method that the checkpoint names
    for found in (lambda setup: bounds(Roof(setup)), lambda setup: _law(roofline(setup))):
        assert found(Setup.of(model, entry, Engine())) == found(Setup.of(plain, entry, online))


def _law(profile: LatencyProfile) -> StepLaw:
    assert profile.file is not None
    return profile.file.step


def test_modelopt_says_it_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_with("llama-3.1-8b")))
    beside = tmp_path / "hf_quant_config.json"
    beside.write_text(json.dumps({"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}))
    model = load_model(str(tmp_path))
    assert (model.types(Engine()), model.bits.mlp) == (("fp8", "fp8"), 8.0)
    beside.write_text("[")
    with pytest.raises(SpecError, match=r"hf_quant_config\.json: line 1: not valid JSON .*allowed: a hf_quant_config"):
        load_model(str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("quantization", "tp", "why"),
    [
        ({"quant_method": "awq"}, 1, None),
        (
            {"quant_method": "awq"},
            2,
            "2 leaves 14784 of q's intermediate size 29568 to a GPU, no multiple of its quantised groups of 128",
        ),
        ({"quant_method": "gptq", "group_size": 64}, 2, None),
        ({"quant_method": "gptq", "group_size": -1}, 8, None),
        (
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            8,
            "8 leaves 3696 of q's intermediate size 29568 to a GPU, no multiple of its quantised blocks of 128",
        ),
        ({"quant_method": "fp8"}, 8, None),
    ],
)
def test_scales_stay_with_the_weights_that_share_them(quantization: dict[str, Any], tp: int, why: str | None) -> None:
    config = _with("llama-3.1-70b", intermediate_size=29568, quantization_config=quantization)
    assert uneven(shape("q", config, "q"), Parallel(tp)) == why


def test_published_sizes_of_quantised_checkpoints() -> None:
    """Llama-3.1-8B AWQ (group 128) is 5.73 GB on disk; gpt-oss-20b in MXFP4 13.76 GB."""
    quantization = {"quant_method": "awq", "bits": 4, "group_size": 128}
    awq = shape("q", _with("llama-3.1-8b", quantization_config=quantization), "q")
    assert awq.weight_bytes / 1e9 == pytest.approx(5.73, rel=0.01)
    assert load_model("gpt-oss-20b").weight_bytes / 1e9 == pytest.approx(13.76, rel=0.01)


def test_the_engines_own_types() -> None:
    model = load_model("llama-3.1-8b")
    assert model.for_engine(Engine()) == model
    assert model.for_engine(Engine(kv_cache_dtype="fp8")).kv_bytes_per_token == 65_536
    assert model.for_engine(Engine(dtype="float32")).weight_bytes == 2 * model.weight_bytes
    assert model.for_engine(Engine(dtype="float32")).kv_bytes_per_token == 2 * 131_072
    assert model.for_engine(Engine(quantization="fp8")).weight_bytes == pytest.approx(9.08e9, rel=0.01)
    wide = shape("w", _with("tiny", torch_dtype="float32"), "w")
    assert wide.for_engine(Engine()).dtype == "bfloat16"  # vLLM casts unless told otherwise


# --- reading -----------------------------------------------------------------------------------------


def test_a_folder_and_its_config_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_with("qwen3-1.7b")))
    model = load_model(str(folder))
    assert model == load_model(str(folder / "config.json"))
    assert model.name == "my-model"
    assert model.parameters == load_model("qwen3-1.7b").parameters
    assert model_config(str(folder)).folder == folder


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model_type": "mamba"}, "x: model_type: 'mamba' is not covered; allowed: llama, mistral, "),
        ({"hidden_size": None}, "x: hidden_size: is missing; allowed: whole numbers from 1"),
        ({"num_hidden_layers": -2}, "x: num_hidden_layers: -2 is not a positive whole number; allowed: whole numbers"),
        ({"num_key_value_heads": 7}, "x: num_key_value_heads: 7 does not divide 32 heads; allowed: a divisor"),
        ({"torch_dtype": "float8"}, "x: torch_dtype: 'float8' is unknown; did you mean 'float32'? allowed: bfloat16,"),
        (
            {"quantization_config": {"quant_method": "quip"}},
            "x: quantization_config: 'quip' is not covered; allowed: fp8, fbgemm_fp8, gptq, awq, auto-round, compres",
        ),
        ({"quantization_config": "fp8"}, "x: quantization_config: 'fp8' is not a section; allowed: a section with"),
        ({"quantization_config": {"quant_method": ["fp8"]}}, "x: quantization_config: ['fp8'] is not covered; allowed"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": 128}},
            "x: quantization_config: weight_block_size: 128 is not covered; allowed: two whole numbers from 1",
        ),
        (
            {"quantization_config": {"quant_method": "awq", "group_size": "128"}},
            "x: quantization_config: group_size: '128' is not a whole number; allowed: whole numbers",
        ),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 5}},
            "x: quantization_config: bits: 5 is not covered; allowed: 2, 3, 4, 8",
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": ["g"]}},
            "x: quantization_config: config_groups: ['g'] is not a section; allowed: a section of keys",
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            "x: quantization_config.config_groups: holds no group; allowed: config_groups with num_bits",
        ),
        (
            {"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}},
            "x: quantization_config: quant_algo: 'W4A8_AWQ' is not covered; allowed: FP8, FP8_PER_CHANNEL_PER_TOKEN, ",
        ),
    ],
)
def test_what_is_not_covered_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(SpecError) as caught:
        shape("x", _with("llama-3.1-8b", **changes), "x")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_hub_id_has_the_figures_that_were_fetched_or_the_catalogues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert load_model("meta-llama/Llama-3.1-8B").name == "llama-3.1-8b"
    with pytest.raises(
        SpecError, match=r"^model: 'acme/Llama-9' is unknown.*`hf download acme/Llama-9 --include '\*config\.json'`"
    ):
        load_model("acme/Llama-9")
    with pytest.raises(SpecError, match=r"do not ship; allowed: qwen3-32b with engine\.quantization: fp8, as its name"):
        load_model("acme/Qwen3-32B-FP8-dynamic")
    with pytest.raises(SpecError, match=r"^model: 'acme/gpt-oss-20b-FP8' is unknown"):  # mxfp4 as it is published
        load_model("acme/gpt-oss-20b-FP8")
    kept = tmp_path / "models--acme--Llama-9"
    (kept / "snapshots" / "abc").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    (kept / "snapshots" / "abc" / "config.json").write_text(json.dumps(_with("llama-3.1-8b", num_hidden_layers=9)))
    fetched = load_model("acme/Llama-9")
    assert (fetched.name, fetched.layers) == ("llama-9", 9)
    served = served_model("acme/Llama-9", _with("llama-3.1-8b"), "auto", root=tmp_path)
    assert (served.path, served.load_format, served.note) == ("acme/Llama-9", "auto", None)  # its own weights


def test_broken_folders_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"config\.json: no such file; allowed: the path of a Hugging Face config\.json$"
    ):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpecError, match=r"config\.json: line 1: not valid JSON \(.*\); allowed: a config\.json$"):
        load_model(str(tmp_path))
    with pytest.raises(SpecError, match=r"^model: 'lama-3.1-8b' is unknown; did you mean 'llama-3\.1-8b'\? allowed: "):
        load_model("lama-3.1-8b")


@pytest.mark.parametrize("text", ["config: 5.0", "config: [a, b]", "source: x", "config: text"])
def test_a_file_without_a_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(SpecError, match="config is missing; allowed: Hugging Face keys"):
        load_model(str(tmp_path / "m.yaml"))
