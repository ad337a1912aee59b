"""Numbers out of a Hugging Face config, with errors that name file and key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.spec import SpecError

# Under these keys multimodal models keep their language model; the first one found is read.
TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")
_OF_THE_WHOLE = ("tie_word_embeddings", "quantization_config", "compression_config", "torch_dtype", "dtype")
_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "sliding_window",
)  # fmt: skip
# `transformers` writes of a nested section only what differs from the defaults of its class: these (None: has none).
_LEFT_OUT: dict[str, dict[str, Any]] = {
    kind: dict(zip(_SIZES, sizes, strict=True))
    for kind, sizes in {
        "llama": (32000, 4096, 11008, 32, 32, None, None, 2048, None),
        "mistral": (32000, 4096, 14336, 32, 32, 8, None, 131072, 4096),
        "qwen2": (151936, 4096, 22016, 32, 32, 32, None, 32768, None),
        "qwen3": (151936, 4096, 22016, 32, 32, 32, 128, 32768, None),
        "gemma": (256000, 3072, 24576, 28, 16, 16, 256, 8192, None),
        "gemma2": (256000, 2304, 9216, 26, 8, 4, 256, 8192, 4096),
        "gemma3_text": (262208, 2304, 9216, 26, 8, 4, 256, 131072, 4096),
        "cohere2": (256000, 8192, 22528, 40, 64, None, None, 8192, 4096),
    }.items()
}
_POSITIONS = {"falcon": 2048}  # of families whose published files never say


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of the language model: the config itself, or its nested section with what the outer level says."""
    for key in TEXT_SECTIONS:
        inner = config.get(key)
        if isinstance(inner, dict) and inner:
            outer = {name: config[name] for name in _OF_THE_WHOLE if config.get(name) is not None}
            found = {"model_type": str(config.get("model_type")) + "_text", **text_config(inner)}
            return {**_LEFT_OUT.get(str(found["model_type"]), {}), **found, **outer}
    positions = _POSITIONS.get(str(config.get("model_type")))
    return config if positions is None else {"max_position_embeddings": positions, **config}


MOST = 10**9  # of a width or a count
MOST_LAYERS = 10_000  # each is looked at


@dataclass(frozen=True)
class Reader:
    """The keys of one language model. Every method raises SpecError for a value that cannot be."""

    config: dict[str, Any]
    where: str

    def whole(self, *keys: str, default: int | None = None) -> int:
        """The first of `keys` that is given; families have their own names for one thing."""
        key = next((name for name in keys if self.config.get(name) is not None), keys[0])
        value = self.config.get(key)
        if value is None:
            value = default
        if isinstance(value, list) and value and all(type(item) is int for item in value):
            value = max(value)  # one a layer
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            if value is None:
                raise SpecError("{where}: {key}: is missing; allowed: whole numbers from 1", self.where, key)
            raise SpecError(
                "{where}: {key}: {value!r} is not a positive whole number; allowed: whole numbers from 1",
                self.where,
                key,
                value,
            )
        if value > MOST:
            raise SpecError("{where}: {key}: {value} is too large; allowed: up to {most}", self.where, key, value, MOST)
        return value

    def count(self, *keys: str) -> int:
        """As `whole`, where none is allowed."""
        key = next((name for name in keys if self.config.get(name) is not None), None)
        return 0 if key is None or self.config[key] == 0 else self.whole(key)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.config.get(key)
        return default if value is None else bool(value)

    def items(self, key: str, length: int) -> list[Any] | None:
        """One value a layer; None when the key is not given."""
        value = self.config.get(key)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) < length:
            raise SpecError(
                "{where}: {key}: is no list of {length} values; allowed: one value a layer", self.where, key, length
            )
        return list(value)

    def per_layer(self, key: str) -> list[Any]:
        """As `items`, where the family cannot do without."""
        found = self.items(key, self.layers)
        if found is None:
            raise SpecError("{where}: {key}: is missing; allowed: one value a layer", self.where, key)
        return found

    @property
    def hidden(self) -> int:
        return self.whole("hidden_size", "n_embd", "d_model")

    @property
    def vocab(self) -> int:
        return self.whole("vocab_size", "padded_vocab_size")

    @property
    def layers(self) -> int:
        for key in ("layers_block_type", "hybrid_override_pattern"):  # Nemotron-H may give no number
            listed = self.config.get(key)
            if isinstance(listed, (list, str)) and listed and self.config.get("num_hidden_layers") is None:
                return len(listed)
        found = self.whole("num_hidden_layers", "num_layers", "n_layer", "n_layers")
        if found > MOST_LAYERS:
            raise SpecError("{where}: {count} layers; allowed: up to {most}", self.where, found, MOST_LAYERS)
        return found

    @property
    def heads(self) -> int:
        return self.whole("num_attention_heads", "n_head", "n_heads")

    @property
    def kv_heads(self) -> int:
        found = self.whole(
            "num_key_value_heads", "num_attention_groups", "num_kv_heads", "n_head_kv", default=self.heads
        )
        if self.heads % found:
            raise SpecError(
                "{where}: num_key_value_heads: {kv_heads} does not divide {heads} heads; allowed: a divisor",
                self.where,
                found,
                self.heads,
            )
        return found

    @property
    def head_dim(self) -> int:
        return self.whole("head_dim", "attention_head_dim", default=max(1, self.hidden // self.heads))
