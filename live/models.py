"""Model folders that the product makes, so that a server starts without any download.

A folder holds config.json (from the catalogue's figures), a byte-level tokenizer (one byte of text is one token, no
training), a chat template, and, when asked for, random weights from a seed. vLLM's own `load_format: dummy` weights
are so small that greedy output hardly depends on the context; seeded weights make it depend on all of it, so that
equal tokens prove that the KV cache arrived intact.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from planner.engine.hub_ids import HUB_ID
from planner.engine.model_config import model_config
from planner.messages import message
from planner.spec import SpecError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
QUERY_KEY_GAIN = 2.0  # sharper attention than 1/sqrt(width): a wrong KV cache then changes the tokens
MAX_SEEDED_PARAMETERS = 300_000_000


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a server loads. `vocab_size` bounds the token ids a client may send; None when only the server knows."""

    path: str  # a folder or a hub id
    load_format: Literal["auto", "dummy"]
    vocab_size: int | None
    note: str | None = None  # said in the run's warnings


def cache_folder() -> Path:
    """Where made model folders are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llm-capacity-planner" / "models"


def served_model(
    name: str,
    config: Mapping[str, Any] | None,
    load_format: Literal["auto", "dummy"],
    *,
    weights_seed: int | None = None,
    root: Path | None = None,
) -> ServedModel:
    """The folder or hub id to serve for a spec's `model`; `config` holds its Hugging Face keys where they are known."""
    folder = Path(name).expanduser()
    folder = folder.parent if folder.name == "config.json" else folder
    if (folder / "config.json").is_file():
        own = json.loads((folder / "config.json").read_text())
        has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
        if not has_weights and not any(folder.glob("tokenizer*")):
            return _made(name, own, weights_seed, root, message("the folder has neither weights nor a tokenizer"))
        dummy = load_format == "dummy" or not has_weights
        note = (
            None
            if has_weights or load_format == "dummy"
            else message("{name} holds no weights: dummy weights are served", name)
        )
        return ServedModel(str(folder), "dummy" if dummy else "auto", own.get("vocab_size"), note)
    config = model_config(name).config if config is None else config
    if HUB_ID.fullmatch(name) and not folder.exists() and weights_seed is None:  # vLLM fetches what it needs
        return ServedModel(name, load_format, config.get("vocab_size"))
    reason = None if load_format == "dummy" else message("a config alone has no weights")
    return _made(name, config, weights_seed, root, reason)


def _made(name: str, config: Mapping[str, Any], seed: int | None, root: Path | None, reason: str | None) -> ServedModel:
    folder = make_folder(dict(config), root or cache_folder(), Path(name).name, weights_seed=seed)
    kind = message("random seeded") if seed is not None else message("dummy")
    note = reason and message(
        "{name}: {reason}: {kind} weights are served, so timing holds and text means nothing", name, reason, kind
    )
    return ServedModel(str(folder), "auto" if seed is not None else "dummy", int(config["vocab_size"]), note)


def make_folder(config: dict[str, Any], root: Path, name: str, *, weights_seed: int | None = None) -> Path:
    """Write the folder (or reuse an equal one, known by a hash of its content) and return it."""
    whole: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    whole |= config | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = json.dumps(whole, indent=1, sort_keys=True)
    key = hashlib.sha256(f"2|{text}|{weights_seed}".encode()).hexdigest()[:12]
    folder = root / f"{name}-{key}"
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(text)
    _write_tokenizer(folder, int(whole["vocab_size"]), int(whole.get("max_position_embeddings", 8192)))
    if weights_seed is not None:
        _write_weights(folder, whole, weights_seed)
    (folder / "complete").touch()
    return folder


def _write_tokenizer(folder: Path, vocab_size: int, max_length: int) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    symbols = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    if vocab_size < len(symbols):
        raise SpecError(
            "model: vocab_size {size} is too small for byte-level tokens; at least {symbols}",
            vocab_size,
            len(symbols),
        )
    symbols += [f"t{index}" for index in range(len(symbols), vocab_size)]  # so that every id decodes to text
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": max_length,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def _write_weights(folder: Path, config: Mapping[str, Any], seed: int) -> None:
    """Gaussian Llama weights scaled by 1/sqrt(fan-in), float32; vLLM casts them to the served dtype."""
    import numpy as np
    from safetensors.numpy import save_file

    if config["architectures"] != ["LlamaForCausalLM"]:
        raise SpecError(
            "model: seeded weights are made for LlamaForCausalLM only, not {architecture}", config["architectures"][0]
        )
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    layers = config["num_hidden_layers"]
    parameters = 2 * vocab * hidden + layers * (2 * hidden * head * (heads + kv_heads) + 3 * hidden * inner)
    if parameters > MAX_SEEDED_PARAMETERS:
        raise SpecError(
            "model: seeded weights are for small models, not for {parameters:.1f} billion parameters",
            parameters / 1000000000.0,
        )
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Any:
        return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(gain * columns**-0.5)

    ones = np.ones(hidden, dtype=np.float32)
    weights = {
        "model.embed_tokens.weight": 0.5 * rng.standard_normal((vocab, hidden), dtype=np.float32),
        "model.norm.weight": ones,
    }
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(vocab, hidden)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        weights |= {
            f"{prefix}self_attn.q_proj.weight": matrix(heads * head, hidden, QUERY_KEY_GAIN),
            f"{prefix}self_attn.k_proj.weight": matrix(kv_heads * head, hidden, QUERY_KEY_GAIN),
            f"{prefix}self_attn.v_proj.weight": matrix(kv_heads * head, hidden),
            f"{prefix}self_attn.o_proj.weight": matrix(hidden, heads * head),
            f"{prefix}mlp.gate_proj.weight": matrix(inner, hidden),
            f"{prefix}mlp.up_proj.weight": matrix(inner, hidden),
            f"{prefix}mlp.down_proj.weight": matrix(hidden, inner),
            f"{prefix}input_layernorm.weight": ones,
            f"{prefix}post_attention_layernorm.weight": ones,
        }
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
