"""What a test asks of a message: that its Chinese is whole."""

from __future__ import annotations

import re

from planner.messages import Message
from planner.ui.texts import chinese

CHINESE_LETTER = re.compile("[\u4e00-\u9fff]")
ENGLISH = re.compile(r"\b(?:the|of|and|with|than|would|is|are|not|allowed|must|from|up to)\b")


def whole(english: str) -> str:
    """Its Chinese, with every number of the English and none of its small words."""
    assert isinstance(english, Message)
    told = chinese(english)
    assert CHINESE_LETTER.search(told)
    assert not ENGLISH.search(re.sub(r"`[^`]*`|'[^']*'|“[^”]*”", "", told)), told
    for number in re.findall(r"\d+\.\d+|\d{2,}", english):
        assert number in told, (english, told)
    return told
