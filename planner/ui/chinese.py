"""简体中文: the table of translations, and patterns of sentences with numbers in them."""

from __future__ import annotations

CHINESE: dict[str, str] = {}
SENTENCES: tuple[tuple[str, str], ...] = ()
