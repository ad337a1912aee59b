"""Everything that the browser says, in English and 简体中文.

Pages write English: `t("Ask")`. The product layer says messages, each a template and its values. CHINESE has the
Chinese of both; a test holds it complete, without leftovers, and with the same placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import streamlit as st

from planner.messages import Message, message, said, system
from planner.ui.chinese import CHINESE
from planner.ui.uploads import named

LANGUAGES = {"en": "English", "zh": "简体中文"}


def language() -> str:
    """The language of this session: en or zh."""
    return str(st.session_state.get("lang", "en"))


def t(text: str, **values: object) -> str:
    """`text` in the session's language, with {placeholders} filled in."""
    found = text if language() == "en" else CHINESE.get(text, text)
    return found.format(**values) if values else found


def say(text: str) -> str:
    """A text that the product layer made, in the session's language. Names and what has no Chinese stay as they are."""
    return translator()(text)


def fault(error: Exception | str) -> str:
    """One line about what went wrong, in the session's language, safe to show as Markdown."""
    text = said(error) if isinstance(error, Exception) else error
    if isinstance(error, OSError) and error.strerror:
        text = message("{path}: {fault}", error.filename, system(error)) if error.filename else system(error)
    told = re.sub(r"([\\*\[\]$~<>])", r"\\\1", " ".join(named(say(text)).split()))
    return re.sub(r"(https?://[!-~]+)(?=[^ -~])", r"\1 ", told)  # else the link goes on through the Chinese after it


def translator() -> Callable[[str], str]:
    """`say` in the language of now, for work that is done outside of the session (a download)."""
    return english if language() == "en" else chinese


def english(text: str) -> str:
    """The plain text of a message."""
    return text.text if isinstance(text, Message) else text


def chinese(text: str) -> str:
    """The Chinese of a message, or of a fixed text. Its sentences follow each other without a space."""
    told = text.told(CHINESE) if isinstance(text, Message) else CHINESE.get(text, text)
    return told.replace("。 ", "。")
