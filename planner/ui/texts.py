"""Everything that the browser says, in English and 简体中文.

Pages write English: `t("Ask")`. CHINESE is the one table of translations, SENTENCES the patterns of what the product
layer says with numbers in it. A test holds both complete, and their placeholders equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import streamlit as st

from planner.ui.chinese import CHINESE
from planner.ui.chinese_faults import told
from planner.ui.chinese_sentences import SENTENCES

LANGUAGES = {"en": "English", "zh": "简体中文"}


def language() -> str:
    """The language of this session: en or zh."""
    return str(st.session_state.get("lang", "en"))


def t(text: str, **values: object) -> str:
    """`text` in the session's language, with {placeholders} filled in."""
    found = text if language() == "en" else CHINESE.get(text, text)
    return found.format(**values) if values else found


def say(text: str) -> str:
    """A sentence that the product layer made, in the session's language; unknown sentences stay English."""
    return text if language() == "en" else chinese(text)


def fault(error: Exception | str) -> str:
    """One line about what went wrong, in the session's language, safe to show as Markdown."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(text.split())
    return re.sub(r"([\\*\[\]$~<>])", r"\\\1", text if language() == "en" else told(text))


def translator() -> Callable[[str], str]:
    """`say` in the language of now, for work that is done outside of the session (a download)."""
    return str if language() == "en" else chinese


def chinese(text: str) -> str:
    """The Chinese of one text, or of each sentence of it."""
    if text in CHINESE:
        return CHINESE[text]
    for pattern, translation in _PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            parts = {name: chinese(value or "") for name, value in found.groupdict().items()}
            return translation.format(**parts)
    return text


_PATTERNS = [(re.compile(pattern, flags=re.DOTALL), translation) for pattern, translation in SENTENCES]
