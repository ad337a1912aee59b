"""Shell tokens as commands, loops, functions and branches. Nothing is run, nothing expanded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from planner.interop.shell_tests import Test, condition
from planner.interop.shell_tokens import Word, tokens

ENDS = {"done", "fi", "esac", "}", "else", "elif", "then", "do", ";;"}


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
    """`if`, `case` and `while`: bodies of which at most one runs, the first whose test holds. None: `else`."""

    bodies: list[list[Node]]
    what: str
    tests: list[Test | None] = field(default_factory=list)


@dataclass
class Function:
    name: str
    body: list[Node]


Node = Simple | Loop | Branch | Function


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
        if keyword in ("[", "[["):
            return self._short_if()
        return self._simple()

    def _short_if(self) -> Node:
        """`[ ... ] && this || that`, or a test whose end nobody asks for."""
        start = self.at
        simple = self._simple()
        operator = self.tokens[self.at][0].text if self.at < len(self.tokens) else ""
        if operator not in ("&&", "||"):
            return simple
        asked = condition([token for token, _ in self.tokens[start : self.at]])
        bodies, tests = [self._next()], [asked]
        if operator == "||":
            return Branch([[], bodies[0]], "if", [asked, None])
        if self.at < len(self.tokens) and self.tokens[self.at][0].text == "||":
            return Branch([bodies[0], self._next()], "if", [*tests, None])
        return Branch(bodies, "if", [*tests])

    def _next(self) -> list[Node]:
        """The command after `&&` or `||`, on its line or the next."""
        self.at += 1
        while self.at < len(self.tokens) and self.tokens[self.at][0].text == "\n":
            self.at += 1
        return [self._node()] if self.at < len(self.tokens) else []

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
        word = self.tokens[self.at][0].text
        asked = self._asked("do")
        return Branch([self._until("done")], "while", [asked if word == "while" else Test(None)])

    def _asked(self, end: str) -> Test:
        """The condition up to `then` or `do`, which is passed."""
        self.at += 1
        start = self.at
        self._until(end)
        return condition([token for token, _ in self.tokens[start : self.at - 1]])

    def _if(self) -> Node:
        bodies: list[list[Node]] = []
        tests: list[Test | None] = [self._asked("then")]
        while True:
            bodies.append(self.parse(frozenset(("elif", "else", "fi"))))
            word = self.tokens[self.at][0].text if self.at < len(self.tokens) else "fi"
            if word == "elif":
                tests.append(self._asked("then"))
                continue
            self.at += 1
            if word == "fi":
                return Branch(bodies, "if", tests)
            tests.append(None)

    def _case(self) -> Node:
        bodies: list[list[Node]] = []
        tests: list[Test | None] = []
        subject = Word(())
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "in":
            subject = self.tokens[self.at][0].word
            self.at += 1
        self.at += 1
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "esac":
            if self.tokens[self.at][0].text == "\n":
                self.at += 1
                continue
            start = self.at
            while self.at < len(self.tokens) and self.tokens[self.at][0].text != ")":
                self.at += 1
            patterns = [token.word for token, _ in self.tokens[start : self.at] if token.kind == "word"]
            tests.append(Test(tuple(patterns), subject))
            self.at += 1
            bodies.append(self.parse(frozenset((";;", "esac"))))
            if self.at < len(self.tokens) and self.tokens[self.at][0].text == ";;":
                self.at += 1
        self.at += 1
        return Branch(bodies, "case", tests)

    def _function(self) -> Node:
        if self.tokens[self.at][0].word.plain == "function":
            self.at += 1
        name = self.tokens[self.at][0].text if self.at < len(self.tokens) else ""
        while self.at < len(self.tokens) and self.tokens[self.at][0].word.plain != "{":
            self.at += 1
        self.at += 1
        return Function(name, self._until("}"))
