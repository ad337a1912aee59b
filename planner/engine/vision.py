"""Weights of a multimodal model's vision tower, which are loaded but no text step reads."""

from __future__ import annotations

from typing import Any

SECTIONS = ("vision_config", "vision_model", "visual", "vit_config")
# What `transformers` leaves out of a tower's section: the defaults of its class (width, MLP, depth, heads).
_LEFT_OUT = {
    "pixtral": (1024, 4096, 24, 16), "siglip_vision_model": (768, 3072, 12, 12),
    "clip_vision_model": (768, 3072, 12, 12), "smolvlm_vision": (1152, 3072, 12, 16),
}  # fmt: skip
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
GATED = ("qwen2_5_vl", "pixtral", "glm4v", "gemma4_vision", "exaone4_5")  # MLPs of three matrices


def _number(section: dict[str, Any], *keys: str) -> int:
    """The first of `keys` that holds a whole number, or a list that begins with one; else 0."""
    for key in keys:
        value = section.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def vision_parameters(config: dict[str, Any], hidden: int) -> int:
    """Of the tower and the projector into a text stream of `hidden`; 0 where a config has none.

    An estimate from the width, depth and MLP of a vision transformer: patches, positions and projectors differ from
    model to model. Within 1 % of all weights for the models of tests/test_families.py.
    """
    section = next((config[key] for key in SECTIONS if isinstance(config.get(key), dict)), None)
    if section is None:
        return 0
    kind = str(section.get("model_type") or config.get("model_type") or "")
    if kind in _LEFT_OUT:
        section = {**dict(zip(_SIZES, _LEFT_OUT[kind], strict=True)), **section}
    width = _number(section, "embed_dim", "vt_hidden_size", "hidden_size", "width")
    depth = _number(section, "depth", "vt_num_hidden_layers", "num_hidden_layers", "layers")
    out = _number(section, "out_hidden_size", "text_hidden_size") or hidden
    inner = _number(section, "vt_intermediate_size", "intermediate_size") or int(width * section.get("mlp_ratio", 4))
    projector = 0
    if kind.startswith("glm4v"):  # whose `intermediate_size` is the projector's
        inner, projector = out, 3 * inner * out + out * out + 4 * width * out
    heads = _number(section, "num_heads", "num_attention_heads", "vt_num_attention_heads")
    kv = _number(section, "num_key_value_heads") / heads if heads and "num_key_value_heads" in section else 1.0
    layer = round(2 * width * width * (1 + kv)) + (3 if kind.startswith(GATED) else 2) * width * inner
    patch = _number(section, "patch_size") or 14
    pixels = 3 * patch * patch * (_number(section, "temporal_patch_size") or 1)
    positions = _number(section, "num_position_embeddings", "position_embedding_size")
    if not positions:
        positions = (_number(section, "image_size") // patch) ** 2
    merge = _number(section, "spatial_merge_size", "init_pos_emb_time") and 2  # patches to a side that become one
    if not projector:
        merged = width * merge * merge
        projector = merged * (merged + out) if merge else (width + out) * out
        projector *= 1 + len(section.get("deepstack_visual_indexes") or ())
    return depth * layer + width * (pixels + positions) + projector
