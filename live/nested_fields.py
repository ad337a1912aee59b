"""What clients may say inside the fields that go to the engines: vLLM keeps some of its own switches there.

`stream_options`, `response_format`, `structured_outputs` and messages have lists of names, as the body itself has
(live.openai_api.PASSED). Content is text: an engine would fetch an image from any address that a client names. A chat
template may have variables of any name, so there the names of vLLM's and transformers' own arguments are refused
(`chat_template` is code that runs in the server), and values are plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

INSIDE: dict[str, frozenset[str]] = {
    "stream_options": frozenset("include_usage include_obfuscation continuous_usage_stats".split()),
    "response_format": frozenset("type json_schema schema structures triggers format".split()),
    "structured_outputs": frozenset(
        "json regex choice grammar json_object structural_tag whitespace_pattern disable_any_whitespace "
        "disable_additional_properties disable_fallback".split()
    ),
}
MESSAGE = frozenset(
    "role content name tool_calls tool_call_id function_call refusal reasoning reasoning_content audio "
    "annotations".split()
)
PART = frozenset("type text refusal thinking".split())
PART_TYPES = frozenset({None, "text", "input_text", "output_text", "refusal", "thinking"})
TEMPLATE_ARGUMENTS = frozenset(
    "conversation messages chat_template tools documents add_generation_prompt continue_final_message tokenize padding "
    "truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs "
    "chat_template_kwargs processor_kwargs load_audio_from_video self".split()
)


def nested_fault(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """(field, what is wrong) of the first nested field that is not to reach an engine. None: all may."""
    for name, allowed in INSIDE.items():
        inner = body.get(name)
        if isinstance(inner, dict) and (other := _other(inner, allowed)) is not None:
            return name, _not_allowed(other, name)
    variables = body.get("chat_template_kwargs")
    if variables is not None:
        if not isinstance(variables, dict):
            return "chat_template_kwargs", "chat_template_kwargs must be an object"
        for key, value in variables.items():
            if key in TEMPLATE_ARGUMENTS or key.startswith("_"):
                return "chat_template_kwargs", _not_allowed(key, "chat_template_kwargs")
            if isinstance(value, (dict, list)):
                return "chat_template_kwargs", f"chat_template_kwargs: {key[:80]!r} must be a text, a number or a truth"
    for message in body.get("messages") or ():
        if (fault := _message_fault(message)) is not None:
            return "messages", fault
    return None


def _message_fault(message: Any) -> str | None:
    if not isinstance(message, dict):
        return None  # refused where messages are read
    if (other := _other(message, MESSAGE)) is not None:
        return _not_allowed(other, "messages")
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if not isinstance(kind, (str, type(None))) or kind not in PART_TYPES:
            return f"content of type {str(kind)[:80]!r} is not served; allowed: text"
        if (other := _other(part, PART)) is not None:
            return _not_allowed(other, "the content of messages")
    return None


def _other(names: Iterable[str], allowed: frozenset[str]) -> str | None:
    return next((name for name in names if name not in allowed), None)


def _not_allowed(name: str, where: str) -> str:
    return f"{name[:80]!r} in {where} is not a field that clients may send to the engines"
