"""Conditions of a script, as far as the script itself says how they come out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from planner.interop.shell_tokens import Token, Word

NUMBERS: dict[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b, "-ne": lambda a, b: a != b, "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b, "-gt": lambda a, b: a > b, "-ge": lambda a, b: a >= b,
}  # fmt: skip
_CLOSED = {"[": "]", "[[": "]]"}
_UNSET = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})")
Expand = Callable[[Sequence[Word]], list[str]]


@dataclass(frozen=True, slots=True)
class Test:
    """What `if`, `while` and `&&` ask, as words; None: another command, or several, whose end nobody knows.

    `subject`: of a branch of `case`, whose words are its patterns then.
    """

    words: tuple[Word, ...] | None
    subject: Word | None = None

    @property
    def text(self) -> str:
        """As the script begins it."""
        if self.subject is not None:
            return f"case {self.subject.raw}"
        return "if ..." if self.words is None else f"if {' '.join(word.raw for word in self.words)}"

    def holds(self, expand: Expand, unset: str | None = None) -> bool | None:
        """Whether it does; None when the script does not say. `unset`: what `-z` and `-n` see of no variable."""
        if self.words is None:
            return None
        if self.subject is not None:
            return _matches(self.subject, self.words, expand)
        plain, words = [word.plain for word in self.words], list(self.words)
        turned = False
        while plain[:1] == ["!"]:
            turned, plain, words = not turned, plain[1:], words[1:]
        if plain in (["true"], [":"], ["false"]):
            return (plain != ["false"]) != turned
        if plain[:1] == ["getopts"] and not expand([Word((("$@", "bare"),))]):
            return turned  # no arguments, no options
        if not plain or plain[0] not in ("[", "[[", "test") or plain[-1] != _CLOSED.get(plain[0], plain[-1]):
            return None
        inner = words[1:] if plain[0] == "test" else words[1:-1]
        while inner and inner[0].plain == "!":
            turned, inner = not turned, inner[1:]
        found = _bracket(inner, expand, unset, globs=plain[0] == "[[")
        return None if found is None else found != turned


def condition(tokens: Sequence[Token]) -> Test:
    """What stands between `if` and `then`."""
    said = [token for token in tokens if token.kind != "comment" and token.text not in ("\n", ";")]
    first = next((at for at, token in enumerate(tokens) if token.text in ("\n", ";")), len(tokens))
    later = any(token.kind == "word" for token in tokens[first:])
    if later or any(token.kind != "word" for token in said):
        return Test(None)
    return Test(tuple(token.word for token in said))


def _known(word: Word, expand: Expand, unset: str | None = None) -> str | None:
    """A word's text; `unset`: that of a variable which nothing has set."""
    made = expand([word]) if word.pieces else [""]
    text = " ".join(made)
    if _UNSET.fullmatch(text):
        return unset
    return None if "$" in text or (not made and word.raw) else text


def _bracket(words: Sequence[Word], expand: Expand, unset: str | None, globs: bool) -> bool | None:
    if len(words) == 2 and words[0].plain in ("-z", "-n"):
        text = _known(words[1], expand, unset)
        return None if text is None else (text == "") == (words[0].plain == "-z")
    if len(words) != 3:
        return None
    operator, left, right = words[1].plain, _known(words[0], expand), _known(words[2], expand)
    if left is None or right is None or operator is None:
        return None
    if operator in ("=", "==", "!="):
        same = fnmatchcase(left, right) if globs and words[2].plain is not None else left == right
        return same == (operator != "!=")
    if operator in NUMBERS and all(re.fullmatch("-?[0-9]{1,18}", text) for text in (left, right)):
        return NUMBERS[operator](int(left), int(right))
    return None


def _matches(subject: Word, patterns: Sequence[Word], expand: Expand) -> bool | None:
    if any(pattern.plain == "*" for pattern in patterns):
        return True
    text, told = _known(subject, expand), [_known(pattern, expand) for pattern in patterns]
    if text is None or None in told:
        return None
    return any(fnmatchcase(text, pattern or "") for pattern in told)
