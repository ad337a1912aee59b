"""A Hugging Face `config.json` -> `ModelShape`. One entry of FAMILIES per model type; others are refused."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.engine.catalogue import find, names
from planner.engine.checkpoint import checkpoint
from planner.engine.model_shape import Bits, ModelShape, Parameters
from planner.messages import message
from planner.spec import SpecError
from planner.spec.faults import unknown
from planner.spec.strict_yaml import read_mapping, read_text


@dataclass(frozen=True)
class ModelConfig:
    """The Hugging Face keys of a model and where they were read. `folder`: of a local checkpoint."""

    name: str
    config: dict[str, Any]
    where: str
    folder: Path | None = None


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # ORGANISATION/NAME


def _entry(name: str) -> tuple[Path, dict[str, Any]]:
    path = find("models", name)
    return path, read_mapping(read_text(path), str(path))


def published_as(name: str) -> str | None:
    """The hub id whose figures a catalogue entry holds; None for a model without published weights."""
    match = re.search(r"model card of (\S+/\S+)", str(_entry(name)[1].get("source", "")))
    return match.group(1) if match else None


def _catalogued(name: str) -> ModelConfig:
    path, entry = _entry(name)
    config = entry.get("config")
    if not isinstance(config, dict) or not isinstance(entry.get("source"), str):
        raise SpecError(
            "{path}: config or source is missing; allowed: Hugging Face keys, and where they are from", path
        )
    return ModelConfig(name, config, str(path))


def _fetched(hub_id: str) -> Path | None:
    """The config.json of a hub model in Hugging Face's cache; None when it was never fetched."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    kept = cache / f"models--{hub_id.replace('/', '--')}"
    main = kept / "refs" / "main"
    file = kept / "snapshots" / main.read_text().strip() / "config.json" if main.is_file() else None
    return file if file is not None and file.is_file() else None


def _of_hub(hub_id: str) -> ModelConfig | None:
    """Figures of a hub model: those that were fetched, else the catalogue's own. Nothing is downloaded here."""
    file = _fetched(hub_id)
    if file is not None:
        found = model_config(str(file))
        return ModelConfig(hub_id.partition("/")[2].lower(), found.config, found.where)
    name = next((name for name in names("models") if (published_as(name) or "").lower() == hub_id.lower()), None)
    return None if name is None else _catalogued(name)


def _json(file: Path, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(read_text(file, message("a Hugging Face {file}", kind)))
    except json.JSONDecodeError as error:
        raise SpecError(
            "{file}: line {line}: not valid JSON ({fault}); allowed: a {kind}", file, error.lineno, error.msg, kind
        ) from None
    if not isinstance(found, dict):
        raise SpecError("{file}: holds no JSON object; allowed: a Hugging Face {kind}", file, kind)
    return found


def model_config(name_or_path: str) -> ModelConfig:
    """The config of a catalogue name, a folder, a `config.json` or a hub id. Raises SpecError."""
    if "/" not in name_or_path and name_or_path in names("models"):
        return _catalogued(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.exists():
        hub = HUB_ID.fullmatch(name_or_path) is not None
        found = _of_hub(name_or_path) if hub else None
        if found is not None:
            return found
        fetch = f"hf download {name_or_path} --include '*config.json'"  # hf_quant_config.json too, where there is one
        remedy = message("; a hub id once `{command}` has fetched its figures", fetch) if hub else ""
        raise SpecError(
            "model: {fault}, or a folder with a config.json{remedy}", unknown(name_or_path, names("models")), remedy
        )
    file = path / "config.json" if path.is_dir() else path
    if file.suffix in (".yaml", ".yml"):
        entry = read_mapping(read_text(file), str(file))
        return ModelConfig(file.stem, dict(entry.get("config") or {}), str(file))
    config = _json(file, "config.json")
    beside = file.parent / "hf_quant_config.json"  # modelopt's; read by vLLM where config.json does not say
    if config.get("quantization_config") is None and beside.is_file():
        config["quantization_config"] = {
            "quant_method": "modelopt",
            **_json(beside, beside.name),
        }
    return ModelConfig(file.resolve().parent.name, config, str(file), file.parent)


class _Reader:
    """Numbers of a config, with errors that name file and key."""

    def __init__(self, config: dict[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            if value is None:
                raise SpecError("{where}: {key}: is missing; allowed: whole numbers from 1", self.where, key)
            raise SpecError(
                "{where}: {key}: {value!r} is not a positive whole number; allowed: whole numbers from 1",
                self.where, key, value,
            )  # fmt: skip
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.config.get(key)
        return default if value is None else bool(value)


Windows = Callable[[_Reader, int], tuple[int | None, ...]]


def _no_window(read: _Reader, layers: int) -> tuple[int | None, ...]:
    return (None,) * layers


def _every_layer(read: _Reader, layers: int) -> tuple[int | None, ...]:
    return (read.config.get("sliding_window"),) * layers


def _when_asked(read: _Reader, layers: int) -> tuple[int | None, ...]:
    """Qwen: `use_sliding_window`, and then only from layer `max_window_layers` on."""
    if not read.flag("use_sliding_window"):
        return (None,) * layers
    first = read.whole("max_window_layers", layers)
    return tuple(read.whole("sliding_window") if layer >= first else None for layer in range(layers))


def _alternating(period: int) -> Windows:
    """Of every `period` layers the last sees everything, unless `layer_types` says otherwise."""

    def windows(read: _Reader, layers: int) -> tuple[int | None, ...]:
        window = read.whole("sliding_window")
        if types := read.config.get("layer_types"):
            return tuple(window if kind == "sliding_attention" else None for kind in types[:layers])
        every = read.whole("sliding_window_pattern", period)
        return tuple(None if (layer + 1) % every == 0 else window for layer in range(layers))

    return windows


@dataclass(frozen=True)
class Family:
    """What the modelling code fixes and the config does not say."""

    qkv_bias: bool = False
    output_bias: bool = False
    bias_key: str | None = None  # a config key that switches all four attention biases
    head_norms: bool = False  # RMSNorm of each head's q and k
    norms_per_layer: int = 2
    tied: bool = False  # default of tie_word_embeddings
    windows: Windows = _no_window
    moe: bool = False
    mla: bool = False


FAMILIES: dict[str, Family] = {
    "llama": Family(bias_key="attention_bias"),
    "mistral": Family(windows=_every_layer),
    "mixtral": Family(windows=_every_layer, moe=True),
    "qwen2": Family(qkv_bias=True, windows=_when_asked),
    "qwen3": Family(bias_key="attention_bias", head_norms=True, windows=_when_asked),
    "qwen3_moe": Family(bias_key="attention_bias", head_norms=True, windows=_when_asked, moe=True),
    "phi3": Family(windows=_every_layer),
    "gemma2": Family(norms_per_layer=4, tied=True, windows=_alternating(2)),
    "gemma3_text": Family(head_norms=True, norms_per_layer=4, tied=True, windows=_alternating(6)),
    "gpt_oss": Family(qkv_bias=True, output_bias=True, windows=_alternating(2), moe=True),
    "deepseek_v2": Family(moe=True, mla=True),
    "deepseek_v3": Family(moe=True, mla=True),
}


def _attention(read: _Reader, family: Family, hidden: int, heads: int, kv_heads: int, dim: int) -> tuple[int, int, int]:
    """(projections, those that make K and V, biases and head norms) of one layer."""
    switched = family.bias_key is not None and read.flag(family.bias_key)
    keys = 2 * hidden * kv_heads * dim
    extra = (heads + 2 * kv_heads) * dim * (family.qkv_bias or switched) + hidden * (family.output_bias or switched)
    extra += 2 * dim * family.head_norms + heads * (read.config.get("model_type") == "gpt_oss")  # sinks
    return 2 * hidden * heads * dim + keys, keys, extra


def _latent_attention(read: _Reader, hidden: int, heads: int) -> tuple[int, int, int]:
    """MLA (DeepSeek-V2 paper, section 2.1): low-rank queries (optional) and one compressed KV for all heads."""
    rank, rope = read.whole("kv_lora_rank"), read.whole("qk_rope_head_dim")
    nope, value = read.whole("qk_nope_head_dim"), read.whole("v_head_dim")
    query_rank = read.config.get("q_lora_rank")
    wide = heads * (nope + rope)
    query = hidden * query_rank + query_rank * wide if query_rank else hidden * wide
    down = hidden * (rank + rope)
    return query + down + rank * heads * (nope + value) + heads * value * hidden, down, rank + (query_rank or 0)


@dataclass(frozen=True)
class _Mlps:
    """The MLPs of all layers. Widths of one routed expert and of a layer's shared experts together."""

    mlp: int
    extra: int  # biases
    shared: int = 0
    router: int = 0
    routed: int = 0
    experts: int = 0
    chosen: int = 0
    width: int = 0
    shared_width: int = 0
    moe_layers: tuple[bool, ...] = ()


def _mlp(read: _Reader, family: Family, hidden: int, layers: int, intermediate: int) -> _Mlps:
    dense = 3 * hidden * intermediate
    if not family.moe:
        return _Mlps(dense * layers, (2 * intermediate + hidden) * read.flag("mlp_bias") * layers)
    key = next((k for k in ("num_local_experts", "num_experts", "n_routed_experts") if k in read.config), "num_experts")
    experts, chosen = read.whole(key), read.whole("num_experts_per_tok")
    width = read.whole("moe_intermediate_size", intermediate)
    first = int(read.config.get("first_k_dense_replace") or 0)
    only = {layer for layer in range(layers) if layer < first} | set(read.config.get("mlp_only_layers") or ())
    step = read.whole("decoder_sparse_step", 1)
    only |= {layer for layer in range(layers) if (layer + 1) % step}
    sparse = layers - len(only)
    shared_width = width * int(read.config.get("n_shared_experts") or 0)
    kind = read.config.get("model_type")
    bias = experts if kind == "deepseek_v3" else 0  # e_score_correction_bias
    if kind == "gpt_oss":
        bias = experts * (2 * width + hidden) + experts
    return _Mlps(
        mlp=dense * len(only),
        extra=bias * sparse,
        shared=3 * hidden * shared_width * sparse,
        router=hidden * experts * sparse,
        routed=3 * hidden * width * experts * sparse,
        experts=experts,
        chosen=chosen,
        width=width,
        shared_width=shared_width,
        moe_layers=tuple(layer not in only for layer in range(layers)),
    )


def shape(name: str, config: dict[str, Any], where: str) -> ModelShape:
    """The arithmetic of one config. Raises SpecError for model types and quantisations that are not covered."""
    read = _Reader(config, where)
    kind = str(config.get("model_type"))
    family = FAMILIES.get(kind)
    if family is None:
        raise SpecError(
            "{where}: model_type: {kind!r} is not covered; allowed: {families}", where, kind, ", ".join(FAMILIES)
        )
    hidden, layers = read.whole("hidden_size"), read.whole("num_hidden_layers")
    heads = read.whole("num_attention_heads")
    kv_heads, vocab = read.whole("num_key_value_heads", heads), read.whole("vocab_size")
    dim, intermediate = read.whole("head_dim", max(1, hidden // heads)), read.whole("intermediate_size")
    if heads % kv_heads:
        raise SpecError(
            "{where}: num_key_value_heads: {kv_heads} does not divide {heads} heads; allowed: a divisor",
            where,
            kv_heads,
            heads,
        )
    dtype = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16")
    if dtype not in ("bfloat16", "float16", "float32"):
        raise SpecError("{where}: torch_dtype: {fault}", where, unknown(dtype, ["bfloat16", "float16", "float32"]))
    if family.mla:
        attention, keys, extra = _latent_attention(read, hidden, heads)
    else:
        attention, keys, extra = _attention(read, family, hidden, heads, kv_heads, dim)
    mlps = _mlp(read, family, hidden, layers, intermediate)
    tied = read.flag("tie_word_embeddings", family.tied)
    plain = 32.0 if dtype == "float32" else 16.0
    stored = checkpoint(config, where)
    linear = plain if stored is None or stored.routed_only else stored.bits
    nope, value = (read.whole("qk_nope_head_dim"), read.whole("v_head_dim")) if family.mla else (0, 0)
    rope = read.whole("qk_rope_head_dim") if family.mla else 0
    return ModelShape(
        name=name,
        family=kind,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        vocab=vocab,
        intermediate=intermediate,
        max_position=read.whole("max_position_embeddings"),
        tied_embeddings=tied,
        dtype=dtype,
        parameters=Parameters(
            embedding=vocab * hidden,
            head=0 if tied else vocab * hidden,
            attention=attention * layers,
            kv=keys * layers,
            mlp=mlps.mlp,
            shared=mlps.shared,
            router=mlps.router,
            routed=mlps.routed,
            norms=layers * (family.norms_per_layer * hidden + extra) + hidden + mlps.extra,
        ),
        windows=family.windows(read, layers),
        bits=Bits(linear, linear, linear, plain if stored is None else stored.bits, head=plain),
        experts=mlps.experts,
        experts_per_token=mlps.chosen,
        expert_intermediate=mlps.width,
        shared_intermediate=mlps.shared_width,
        moe_layers=mlps.moe_layers,
        latent_dim=read.whole("kv_lora_rank") + rope if family.mla else 0,
        pair_dim=nope + rope + value if family.mla else 2 * dim,
        kv_dtype_bytes=plain / 8,
        checkpoint=stored,
    )


@lru_cache(maxsize=64)
def load_model(name_or_path: str) -> ModelShape:
    """A catalogue name, a Hugging Face folder, its `config.json`, or a hub id. Raises SpecError with one line."""
    found = model_config(name_or_path)
    return shape(found.name, found.config, found.where)
