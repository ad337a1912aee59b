"""Shell text as tokens: words with their quotes, operators, comments, heredocs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Quote = Literal["bare", "double", "literal"]
OPERATORS = re.compile(r"&&|\|\||;;|;|&>>?|\d*[<>]&\d*-?|\|&|&|\||<<<|<<-?|\d*>>?|\d*<|\n|\(|\)")
PLACEHOLDER = re.compile(r"<[A-Za-z_][\w ./:-]*>")  # <MODEL> in documentation, not a redirect

# A line that goes on in the next: by a backslash, perhaps pasted with the prompt of a terminal, or by the caret of
# Windows where an option follows.
_GOES_ON = r"\\[ \t]*\n(?:>[ \t]*(?=-))?|[ \t]\^[ \t]*\n(?=[ \t]*-)"
_COMMENT_LINE = r"(?m)^([ \t]*#.*?)[ \t\\]+$"  # a backslash at its end does not go on


class BadShell(ValueError):
    """Text that is no shell: what is wrong."""


@dataclass(frozen=True, slots=True)
class Word:
    """Pieces of one word and how each was quoted: bare and double ones are expanded, bare ones are split."""

    pieces: tuple[tuple[str, Quote], ...]

    @property
    def raw(self) -> str:
        return "".join(text for text, _ in self.pieces)

    @property
    def plain(self) -> str | None:
        """The text of a word that is written without quotes, as keywords are."""
        return self.raw if all(quote == "bare" for _, quote in self.pieces) else None


@dataclass(frozen=True, slots=True)
class Token:
    kind: Literal["word", "operator", "comment"]
    text: str
    word: Word = Word(())


def _closing(text: str, start: int, opens: str, closes: str, quotes: bool = True) -> int:
    """The index after the bracket that closes the one before `start`; an odd quote (in a comment) does not hide it."""
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif quotes and opens == "(" and text[at] in "'\"" and (end := text.find(text[at], at + 1)) >= 0:
            at = end
        elif text[at] == opens:
            depth += 1
        elif text[at] == closes:
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    if quotes:
        return _closing(text, start, opens, closes, quotes=False)
    raise BadShell(f"No closing {closes}")


def _dollar(text: str, at: int) -> int:
    """The index after a `$...` that begins at `at`."""
    for opens, closes in (("(", ")"), ("{", "}")):
        if text[at + 1 : at + 2] == opens:
            return _closing(text, at + 2, opens, closes)
    match = re.compile(r"\$(\w+|[@*#?$!-])?").match(text, at)
    assert match is not None
    return match.end()


def _word(text: str, at: int) -> tuple[Word, int]:
    pieces: list[tuple[str, Quote]] = []
    array = False
    while at < len(text):
        here = text[at]
        if here in " \t\n;&|<>" or (here == ")" and not array):
            if here == "<" and (match := PLACEHOLDER.match(text, at)):
                pieces.append((match.group(), "literal"))
                at = match.end()
                continue
            break
        if here == "(":
            if not (pieces and pieces[-1][0].endswith("=") and pieces[-1][1] == "bare"):
                break
            end = _closing(text, at + 1, "(", ")")
            pieces.append((text[at:end], "bare"))
            at = end
        elif here == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise BadShell("No closing quotation")
            pieces.append((text[at + 1 : end], "literal"))
            at = end + 1
        elif here == '"':
            inner, at = _double(text, at + 1)
            pieces += inner
        elif here == "\\":
            pieces.append((text[at + 1 : at + 2], "literal"))
            at += 2
        elif here == "$":
            end = _dollar(text, at)
            pieces.append((text[at:end], "bare"))
            at = end
        elif here == "`":
            end = text.find("`", at + 1)
            if end < 0:
                raise BadShell("No closing quotation")
            pieces.append((f"$({text[at + 1 : end]})", "bare"))
            at = end + 1
        else:
            match = re.compile(r"[^\s;&|<>()'\"\\$`]+").match(text, at)
            assert match is not None
            pieces.append((match.group(), "bare"))
            at = match.end()
    return Word(tuple(pieces)), at


def _double(text: str, at: int) -> tuple[list[tuple[str, Quote]], int]:
    pieces: list[tuple[str, Quote]] = [("", "literal")]
    while at < len(text):
        here = text[at]
        if here == '"':
            return pieces, at + 1
        if here == "\\" and text[at + 1 : at + 2] in ('"', "\\", "$", "`"):
            pieces.append((text[at + 1], "literal"))
            at += 2
        elif here == "$":
            end = _dollar(text, at)
            pieces.append((text[at:end], "double"))
            at = end
        else:
            pieces.append((here, "literal"))
            at += 1
    raise BadShell("No closing quotation")


def tokens(text: str) -> list[tuple[Token, list[str]]]:
    """Tokens in order, each operator `<<` with the bodies that follow its line. Raises BadShell."""
    text = re.sub(_COMMENT_LINE, r"\1", text.replace("\r\n", "\n"))
    text = re.sub(_GOES_ON, " ", re.sub(r"(?m)^[ \t]*\$ (?=\S)", "", text))
    found: list[tuple[Token, list[str]]] = []
    waiting: list[tuple[str, list[str]]] = []
    at = 0
    while at < len(text):
        here = text[at]
        if here in " \t":
            at += 1
        elif here == "#":
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            found.append((Token("comment", text[at + 1 : end].strip()), []))
            at = end
        elif (match := OPERATORS.match(text, at)) and not PLACEHOLDER.match(text, at):
            operator = match.group()
            at = match.end()
            bodies: list[str] = []
            found.append((Token("operator", operator), bodies))
            if operator in ("<<", "<<-"):
                mark = re.compile(r"\s*['\"\\]?([\w.-]+)['\"]?").match(text, at)
                if mark is None:
                    raise BadShell("<< without a word")
                waiting.append((mark[1], bodies))
                at = mark.end()
            elif operator == "\n":
                for name, kept in waiting:
                    end_of = re.compile(rf"^[ \t]*{re.escape(name)}[ \t]*$", re.M).search(text, at)
                    kept.append(text[at : end_of.start() if end_of else len(text)])
                    at = end_of.end() if end_of else len(text)
                waiting = []
        else:
            word, at = _word(text, at)
            found.append((Token("word", word.raw, word), []))
    return found
