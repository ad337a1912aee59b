"""Shell text as tokens, and tokens as commands, loops, functions and branches. Nothing is run, nothing expanded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Quote = Literal["bare", "double", "literal"]
OPERATORS = re.compile(r"&&|\|\||;;|;|&>>?|\d*[<>]&\d*-?|\|&|&|\||<<<|<<-?|\d*>>?|\d*<|\n|\(|\)")
PLACEHOLDER = re.compile(r"<[A-Za-z_][\w ./:-]*>")  # <MODEL> in documentation, not a redirect
ENDS = {"done", "fi", "esac", "}", "else", "elif", "then", "do", ";;"}


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


@dataclass
class Simple:
    words: list[Word] = field(default_factory=list)
    targets: list[Word] = field(default_factory=list)  # of redirects
    comments: list[str] = field(default_factory=list)  # above it, and on its line
    bodies: list[str] = field(default_factory=list)  # heredocs


@dataclass
class Loop:
    name: str
    values: list[Word]
    body: list[Node]
    head: str = ""  # of `for ((a; b; c))`


@dataclass
class Branch:
    """`if`, `case` and `while`: bodies of which at most one runs. `otherwise`: the last one is an else."""

    bodies: list[list[Node]]
    what: str


@dataclass
class Function:
    name: str
    body: list[Node]


Node = Simple | Loop | Branch | Function


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
    text = re.sub(r"\\[ \t]*\n", " ", re.sub(r"(?m)^[ \t]*\$ (?=\S)", "", text.replace("\r\n", "\n")))
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


class Parser:
    """Tokens -> nodes."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens(text)
        self.at = 0
        self.comments: list[str] = []

    def parse(self, ends: frozenset[str] = frozenset()) -> list[Node]:
        """Nodes up to a keyword of `ends`, which is left, or to the end of the text."""
        nodes: list[Node] = []
        while self.at < len(self.tokens):
            token, _ = self.tokens[self.at]
            if token.kind == "comment":
                self.comments.append(token.text)
                self.at += 1
            elif token.kind == "operator" and token.text in ("(", ")"):
                if token.text in ends:
                    return nodes
                self.at += 1  # a subshell's commands count like others
            elif token.kind == "operator" and token.text not in ends:
                self.at += 1
            elif (token.kind == "operator" or token.word.plain in ENDS) and token.text in ends:
                return nodes
            elif token.word.plain in ENDS:
                self.at += 1  # a stray one: an excerpt of a script
            else:
                nodes.append(self._node())
        return nodes

    def _until(self, *ends: str) -> list[Node]:
        nodes = self.parse(frozenset(ends))
        self.at += 1
        return nodes

    def _node(self) -> Node:
        keyword = self.tokens[self.at][0].word.plain
        special: dict[str | None, Callable[[], Node]] = {
            "for": self._for, "while": self._while, "until": self._while, "if": self._if, "case": self._case,
            "function": self._function,
        }  # fmt: skip
        if keyword in special:
            return special[keyword]()
        after = [self.tokens[i][0].text for i in range(self.at + 1, min(self.at + 3, len(self.tokens)))]
        if after == ["(", ")"]:
            return self._function()
        if keyword in ("{", "!", "time"):
            self.at += 1
            return Branch([self._until("}")], "{") if keyword == "{" else Simple()
        return self._simple()

    def _simple(self) -> Simple:
        made = Simple(comments=self.comments)
        self.comments = []
        while self.at < len(self.tokens):
            token, bodies = self.tokens[self.at]
            if token.kind == "comment":
                made.comments.append(token.text)
            elif token.kind == "word":
                made.words.append(token.word)
            elif re.fullmatch(r"\d*[<>]&\d+-?|\d*[<>]&-", token.text):
                pass  # 2>&1
            elif re.fullmatch(r"\d*[<>].*|&>>?", token.text) and token.text not in ("<<", "<<-"):
                self.at += 1
                if self.at < len(self.tokens) and self.tokens[self.at][0].kind == "word":
                    made.targets.append(self.tokens[self.at][0].word)
            elif token.text in ("<<", "<<-"):
                made.bodies = bodies
            else:
                break
            self.at += 1
        return made

    def _line(self) -> list[Word]:
        """The words up to the end of the line or a semicolon."""
        words = []
        while self.at < len(self.tokens) and self.tokens[self.at][0].kind == "word":
            words.append(self.tokens[self.at][0].word)
            self.at += 1
        return words

    def _for(self) -> Node:
        self.at += 1
        head = []
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "do":
            head.append(self.tokens[self.at][0])
            self.at += 1
        self.at += 1
        body = self._until("done")
        words = [token.word for token in head if token.kind == "word"]
        if head and head[0].text == "(":
            return Loop("", [], body, "".join(token.text for token in head))
        return Loop(words[0].raw if words else "", words[2:], body)

    def _while(self) -> Node:
        self.at += 1
        self._until("do")
        return Branch([self._until("done")], "while")

    def _if(self) -> Node:
        bodies = []
        self.at += 1
        self._until("then")
        while True:
            bodies.append(self.parse(frozenset(("elif", "else", "fi"))))
            word = self.tokens[self.at][0].text if self.at < len(self.tokens) else "fi"
            self.at += 1
            if word == "fi":
                return Branch(bodies, "if")
            if word == "elif":
                self._until("then")

    def _case(self) -> Node:
        bodies = []
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "in":
            self.at += 1
        self.at += 1
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "esac":
            if self.tokens[self.at][0].text == "\n":
                self.at += 1
                continue
            while self.at < len(self.tokens) and self.tokens[self.at][0].text != ")":
                self.at += 1
            self.at += 1
            bodies.append(self.parse(frozenset((";;", "esac"))))
            if self.at < len(self.tokens) and self.tokens[self.at][0].text == ";;":
                self.at += 1
        self.at += 1
        return Branch(bodies, "case")

    def _function(self) -> Node:
        if self.tokens[self.at][0].word.plain == "function":
            self.at += 1
        name = self.tokens[self.at][0].text if self.at < len(self.tokens) else ""
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "{":
            self.at += 1
        self.at += 1
        return Function(name, self._until("}"))
