"""What a shell script would start: variables, loops and functions followed, nothing run.

A value that the script does not know (`$1`, `$(command)`) stays as it is written, so that it can be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.interop.shell_tokens import BadShell, Word, tokens
from planner.interop.shell_words import Branch, Function, Loop, Node, Parser, Simple
from planner.spec import SpecError

MOST_COMMANDS = 10_000
MOST_STEPS = 20_000  # assignments and commands, of loops each time
MOST_TEXT = 1_000_000  # characters that the words of one command grow to
MOST_COMMENTS = 200  # those nearest to a command
WHOLE = "-?[0-9]{1,18}"
_ASSIGN = re.compile(r"([A-Za-z_]\w*)(\+?=)(.*)", re.S)
_SHELLS = {"sh", "bash", "zsh", "dash"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command as it would run. `hints`: texts near it, the nearest first; `branch`: it runs under a condition.

    `doubts`: conditions that the script does not decide, and that its words depend on.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    hints: tuple[str, ...] = ()
    branch: str | None = None
    bodies: tuple[str, ...] = ()
    unbounded: str | None = None  # the loop around it, when nobody knows how often that runs
    doubts: tuple[str, ...] = ()
    machine: str = ""  # the other one that it runs on, as `ssh` and `srun` name it


@dataclass
class _Scope:
    values: dict[str, list[str]]
    branch: str | None = None
    names: tuple[str, ...] = ()  # of the functions around
    unbounded: str | None = None
    doubt: str | None = None  # the condition around, which nobody knows
    machine: str = ""


@dataclass
class Shell:
    where: str
    functions: dict[str, list[Node]] = field(default_factory=dict)
    found: list[Command] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    depth: int = 0
    steps: int = 0
    doubtful: dict[str, tuple[str, ...]] = field(default_factory=dict)  # variables, and the conditions they depend on
    asked: set[str] = field(default_factory=set)  # variables that the words of the command at hand name

    # --- expansion ------------------------------------------------------------------------------

    def _variable(self, text: str, scope: _Scope) -> list[str]:
        """`$NAME`, `${NAME...}`, `$((...))`, `$(seq ...)`: its values; the text itself when it is not known."""
        if text.startswith("$(("):
            return [self._arithmetic(text[3:-2], scope, text)]
        if re.match(r"\$\((cd \W*)?\$?\(?dirname", text):
            return ["."]  # the script's own folder
        if text.startswith("$("):
            words = [word for part in Parser(text[2:-1]).parse() if isinstance(part, Simple) for word in part.words]
            inner = self.expand(words, scope)
            if inner[:1] == ["seq"] and all(re.fullmatch(WHOLE, one) for one in inner[1:]) and len(inner) in (2, 3, 4):
                numbers = [int(one) for one in inner[1:]]
                first, step, last = (1, 1, *numbers) if len(numbers) == 1 else (numbers[0], 1, numbers[-1])
                step = numbers[1] if len(numbers) == 3 else step
                return [str(number) for number in range(first, last + 1, step or 1)[:MOST_COMMANDS]]
            return inner[1:] if inner[:1] == ["echo"] else [text]
        if text == "$#":
            return [str(len(scope.values["@"]))] if "@" in scope.values else [text]
        name = text[1:].strip("{}") if not text.startswith("${") else text[2:-1]
        match = re.fullmatch(r"([#!]?)(\w+|[@*])(?:\[([^\]]*)\])?(?:(:?[-=?+])(.*))?", name, re.S)
        if match is None:
            return [text]
        count, key, index, operator, other = match.groups()
        self.asked.add(key)
        values = scope.values.get(key)
        if count and (values is None or (count == "!" and index not in ("@", "*"))):
            return [text]
        if count and values is not None:
            return [str(len(values))] if count == "#" else [str(number) for number in range(len(values))]
        if operator:
            there = values is not None and (values != [""] or not operator.startswith(":"))
            if operator.endswith("+"):
                return self._text(other, scope) if there else []
            if not there:
                values = self._text(other, scope) if not operator.endswith("?") else None
                if operator.endswith("=") and values is not None:
                    scope.values[key] = values
        if values is None:
            return [] if index in ("@", "*") else [text]  # a list that was never filled
        if index in ("@", "*"):
            return values
        if index:
            number = self._arithmetic(index, scope, index)
            known = re.fullmatch(r"[0-9]{1,9}", number) and int(number) < len(values)
            return [values[int(number)]] if known else [text]
        return values if key in ("@", "*") else values[:1] or [""]

    def _text(self, text: str, scope: _Scope) -> list[str]:
        words = [word for part in Parser(text).parse() if isinstance(part, Simple) for word in part.words]
        return [" ".join(self.expand(words, scope))]

    def _arithmetic(self, text: str, scope: _Scope, other: str) -> str:
        """Whole numbers with + - * / %, else `other`."""
        named = re.sub(r"\$\{[^}]*\}|\$\w+", lambda match: self._variable(match[0], scope)[0], text)
        plain = re.sub(r"[A-Za-z_]\w*", lambda match: (scope.values.get(match[0]) or ["?"])[0], named)
        if not re.fullmatch(r"[\d\s+*/%()-]{1,60}", plain) or "**" in plain:
            return other
        try:
            return str(eval(plain.replace("/", "//"), {"__builtins__": {}}))
        except (SyntaxError, ArithmeticError, TypeError, ValueError):
            return other

    def expand(self, words: Iterable[Word], scope: _Scope) -> list[str]:
        """The words that a shell would see."""
        done: list[str] = []
        grown = 0
        for word in words:
            made: list[str] = [""]
            quoted = gone = False  # gone: a list without members, which is no word even in quotes
            for text, quote in word.pieces:
                quoted |= quote != "bare"
                if quote == "literal" or not text.startswith("$"):
                    made[-1] += text
                    continue
                values = self._variable(text, scope)
                if quote == "bare" and values != [text]:
                    values = [part for value in values for part in value.split()]
                if not values:
                    gone = True
                    continue
                made[-1] += values[0]
                made += values[1:]
                grown += sum(map(len, values))
                if grown > MOST_TEXT:
                    raise SpecError("{where}: words too long; allowed: up to {most} characters", self.where, MOST_TEXT)
            if made == [""] and (gone or not quoted):
                continue
            braces = re.fullmatch(rf"\{{({WHOLE})\.\.({WHOLE})\}}", word.plain or "")
            done += [str(n) for n in range(int(braces[1]), int(braces[2]) + 1)[:MOST_COMMANDS]] if braces else made
        return done

    # --- running --------------------------------------------------------------------------------

    def run(self, nodes: Sequence[Node], scope: _Scope) -> None:
        for node in nodes:
            if isinstance(node, Function):
                self.functions[node.name] = node.body
            elif isinstance(node, Loop):
                self._loop(node, scope)
            elif isinstance(node, Branch):
                self._branch(node, scope)
            else:
                self._simple(node, scope)

    def _branch(self, node: Branch, scope: _Scope) -> None:
        """The body that runs, or where the script does not decide all that may."""
        if node.what == "{":
            self.run(node.bodies[0], scope)
            return
        doubt, branch = None, f"{node.what} {id(node)}"
        # As `${NAME:-other}` takes the other; of two ways none is sure.
        unset = "" if sum(map(bool, node.bodies)) == 1 else None
        for index, (test, body) in enumerate(zip(node.tests, node.bodies, strict=True)):
            holds = True if test is None else test.holds(lambda words: self.expand(words, scope), unset)
            if holds is False:
                _unset(body, scope)
                continue
            if node.what == "while":
                unbounded = scope.unbounded or "a `while` or `until` loop"
                self.run(body, replace(scope, unbounded=unbounded))
                return
            if doubt is None and holds:
                self.run(body, scope)
                return
            doubt = doubt or (test.text if test is not None else None)
            self.run(body, replace(scope, branch=f"{branch} {index}", doubt=doubt))
            if holds:
                return

    def _loop(self, node: Loop, scope: _Scope) -> None:
        if not _starts(node.body):
            return  # whatever it does is no server
        name, values = (
            (node.name, self.expand(node.values, scope)) if not node.head else self._counted(node.head, scope)
        )
        if values is None or any(value.startswith("$") for value in values):
            what = f"for {node.head or f'{name} in ' + ' '.join(values or [])}"
            self.run(node.body, replace(scope, unbounded=scope.unbounded or what))
            return
        for value in values:
            scope.values[name] = [value]
            self.run(node.body, scope)

    def _counted(self, head: str, scope: _Scope) -> tuple[str, list[str] | None]:
        """Variable and values of `((i=0; i<4; i++))`; None when the bounds are not known."""
        parts = re.fullmatch(
            r"\(\((?:int )?(\w+)=(.+?);\s*\1\s*(<=?)\s*(.+?);.*?(\+\+|\+=\s*\d{1,9}).*", head.replace("\n", "")
        )
        if parts is None:
            return "", None
        name, first, than, last, step = parts.groups()
        numbers = [self._arithmetic(text, scope, "") for text in (first, last)]
        if not all(re.fullmatch(WHOLE, number) for number in numbers):
            return name, None
        by = 1 if step == "++" else int(step[2:])
        turns = range(int(numbers[0]), int(numbers[1]) + (than == "<="), max(by, 1))[:MOST_COMMANDS]
        return name, [str(number) for number in turns]

    def _simple(self, node: Simple, scope: _Scope) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise SpecError("{where}: runs too many lines; allowed: up to {most}", self.where, MOST_STEPS)
        self.comments += node.comments
        self.asked = set()
        local: dict[str, list[str]] = {}
        words = list(node.words)
        while words and (match := _ASSIGN.fullmatch(words[0].raw)) and words[0].pieces[0][1] == "bare":
            self._assign(words.pop(0), match, scope, local)
        expanded = self.expand(words, scope)
        if expanded[:1] and expanded[0] in ("export", "declare", "local", "readonly", "typeset"):
            for word in words[1:]:
                if match := _ASSIGN.fullmatch(word.raw):
                    self._assign(word, match, scope, local)
            scope.values |= local
            return
        if not expanded:
            scope.values |= local
            return
        if len(self.found) >= MOST_COMMANDS or self.depth > 20:
            raise SpecError("{where}: starts too many commands; allowed: up to {most}", self.where, MOST_COMMANDS)
        if expanded[0] in self.functions:
            values = {**scope.values, **positional(expanded[1:])}
            doubts = self._doubts(self.asked)
            self.doubtful |= dict.fromkeys(positional(expanded[1:]), doubts)
            self.depth += 1
            names = (expanded[0], *scope.names)
            self.run(self.functions[expanded[0]], replace(scope, values=values, names=names))
            self.depth -= 1
            return
        self._command(node, expanded, {**scope.values, **local}, scope)

    def _command(self, node: Simple, words: list[str], values: dict[str, list[str]], scope: _Scope) -> None:
        if words[0] == "echo":
            self.comments.append(" ".join(words[1:]))
            return
        environment = {name: value[0] for name, value in values.items() if value and not name.isdigit()}
        targets = self.expand(node.targets, scope)
        raw = [word.raw for word in node.words]
        hints = (*targets, *raw, *scope.names, *self.comments[: -MOST_COMMENTS - 1 : -1])
        machine = _machine(words) or scope.machine
        inner = script_of(words)
        if inner is None and node.bodies and words[0].rsplit("/", 1)[-1] in {*_SHELLS, "ssh"}:
            inner = node.bodies[0], []
        if inner is not None:
            self.depth += 1
            known = {**values, **positional(inner[1])}
            names = (*scope.names, *targets)
            self.run(Parser(inner[0]).parse(), replace(scope, values=known, names=names, machine=machine))
            self.depth -= 1
            return
        doubts = tuple(dict.fromkeys((*self._doubts(self.asked), *filter(None, (scope.doubt,)))))
        bodies = tuple(node.bodies)
        made = Command(tuple(words), environment, hints, scope.branch, bodies, scope.unbounded, doubts, machine)
        self.found.append(made)

    def _doubts(self, names: Iterable[str]) -> tuple[str, ...]:
        """The conditions that values depend on and nobody knows."""
        return tuple(dict.fromkeys(doubt for name in sorted(names) for doubt in self.doubtful.get(name, ())))

    def _assign(self, word: Word, match: re.Match[str], scope: _Scope, local: dict[str, list[str]]) -> None:
        name, operator, text = match.groups()
        before, self.asked = self.asked, {name} if operator == "+=" else set()
        self._value(name, operator, text, word, scope, local)
        self.doubtful[name] = (*self._doubts(self.asked), *filter(None, (scope.doubt,)))
        self.asked |= before

    def _value(
        self, name: str, operator: str, text: str, word: Word, scope: _Scope, local: dict[str, list[str]]
    ) -> None:
        if text.startswith("(") and text.endswith(")"):
            parts = [token.word for token, _ in tokens(text[1:-1]) if token.kind == "word"]
            values = self.expand(parts, scope)
            local[name] = (scope.values.get(name, []) if operator == "+=" else []) + values
            scope.values[name] = local[name]
            return
        head = len(name) + len(operator)
        pieces = list(word.pieces)
        pieces[0] = (pieces[0][0][head:], pieces[0][1])
        value = " ".join(self.expand([Word(tuple(pieces))], scope))
        local[name] = [(scope.values.get(name) or [""])[0] + value if operator == "+=" else value]


def _unset(body: Sequence[Node], scope: _Scope) -> None:
    """What a body that does not run would have set is nothing, unless it was set before."""
    for node in body:
        if isinstance(node, Simple):
            for word in node.words:
                match = _ASSIGN.fullmatch(word.raw)
                if match is None:
                    break
                scope.values.setdefault(match[1], [] if match[3].startswith("(") else [""])
        elif isinstance(node, Branch):
            for inner in node.bodies:
                _unset(inner, scope)


def _starts(body: Sequence[Node]) -> bool:
    """Whether a loop may change what is started: it calls something, or adds to a variable."""
    for node in body:
        if isinstance(node, Simple):
            raw = [word.raw for word in node.words]
            if not raw or raw[0] not in ("sleep", "curl", "echo", "printf", "kill", "wait", "true", ":", "rm", "mkdir"):
                return True
        elif not isinstance(node, Function) and any(
            map(_starts, [node.body] if isinstance(node, Loop) else node.bodies)
        ):
            return True
    return False


def _machine(words: Sequence[str]) -> str:
    """The machine that `ssh` or `srun` starts a command on; empty for this one, or where that is not said."""
    base = words[0].rsplit("/", 1)[-1]
    if base == "srun":
        named = re.search(r"(?:^|\s)(?:-w\s*|--nodelist[= ])(\S+)", " ".join(words))
        return named[1] if named else ""
    if base != "ssh":
        return ""
    rest = list(words[1:])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if re.fullmatch(r"-[BbcDEeFIiJLlmOopQRSWw]", option):  # its value is the next word
            rest = rest[1:]
    return rest[0] if rest else ""


def script_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """What `bash -c TEXT NAME ARG...` would run, and its arguments; None for another command."""
    for index, word in enumerate(words):
        if word.rsplit("/", 1)[-1] not in _SHELLS:
            continue
        after = index + 1
        while after < len(words) - 1 and words[after].startswith("-"):
            if re.fullmatch(r"-[a-z]*c", words[after]) or re.fullmatch(r"-[a-z]*c[a-z]*", words[after]):
                return words[after + 1], list(words[after + 3 :])
            after += 1
    return None


def positional(arguments: Sequence[str]) -> dict[str, list[str]]:
    """`$@`, `$1`, `$2`, ..."""
    return {"@": list(arguments), "*": list(arguments), **{str(i): [word] for i, word in enumerate(arguments, 1)}}


def commands(
    text: str, where: str, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> list[Command]:
    """The commands of a script, in the order of their start. Raises SpecError."""
    shell = Shell(where)
    try:
        nodes = Parser(text).parse()
        values = {name: [value] for name, value in (environment or {}).items()}
        shell.run(nodes, _Scope({**values, **positional(arguments)}))
    except BadShell as error:
        raise SpecError(
            "{where}: not a command line ({error}); allowed: `vllm serve MODEL --option value`", where, error
        ) from None
    except RecursionError:
        raise SpecError("{where}: nested too deeply; allowed: commands, loops and functions", where) from None
    return shell.found
