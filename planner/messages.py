"""What the product says: a template and the values in it.

A `Message` is its English text, so whatever prints, compares or stores texts needs to know nothing of it. It also
remembers the template and the values, so that another language fills its own template instead of reading English.
Values may be messages. Words of the user (keys, names, paths) are plain text and stay as they are in every language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from string import Formatter
from typing import Any


class Message(str):
    """English text made of `template` and `values`; use `message`. Pickled, copied and formatted like text."""

    __slots__ = ("template", "values")
    template: str
    values: Mapping[str, object]

    def __new__(cls, text: str, template: str, values: Mapping[str, object]) -> Message:
        made = super().__new__(cls, text)
        made.template, made.values = template, values
        return made

    def __str__(self) -> str:
        return self  # so that str(text) does not lose it

    @property
    def text(self) -> str:
        """The English as plain text."""
        return str.__str__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, (self.text, self.template, self.values)

    def told(self, table: Mapping[str, str]) -> str:
        """The same in another language. `table` has its template for each English one; English where it has none."""
        other = table.get(self.template)
        if other is None:
            return self.text
        values = self.values.items()
        return other.format_map({name: one.told(table) if isinstance(one, Message) else one for name, one in values})


def message(template: str, /, *values: object) -> Message:
    """`template` with its {placeholders} filled in, in their order; a name that comes again needs no second value.

    Without values the template is plain text: braces mean nothing. An exception stands for what it says.
    """
    if not values:
        return Message(template, template.replace("{", "{{").replace("}", "}}"), {})
    plain = [said(value) if isinstance(value, Exception) else value for value in values]
    named = dict(zip(names(template), plain, strict=True))
    return Message(template.format_map(named), template, named)


def names(template: str) -> list[str]:
    """Its placeholders, each once, in their order."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))


class Fault(ValueError):
    """An error that says a message: `Fault("{path}: no such file", path)`."""

    def __init__(self, template: str, /, *values: object) -> None:
        super().__init__(template if isinstance(template, Message) else message(template, *values))


class Failure(RuntimeError):
    """As `Fault`, for what went wrong without a mistake of the user."""

    def __init__(self, template: str, /, *values: object) -> None:
        super().__init__(template if isinstance(template, Message) else message(template, *values))


def said(error: Exception) -> str:
    """What an exception says: its message where it was raised with one."""
    return error.args[0] if len(error.args) == 1 and isinstance(error.args[0], Message) else str(error)


def system(error: OSError) -> Message:
    """The operating system's words, such as those of SYSTEM."""
    text = error.strerror or str(error)
    return Message(text, text, {})


SYSTEM = ("No such file or directory", "Permission denied", "Is a directory", "Not a directory")


def joined(separator: str, parts: Iterable[str]) -> str:
    """The parts in one message, each still one. `separator` is a text such as ", "; no parts are an empty text."""
    found = list(parts)
    return reduce(lambda one, two: message(f"{{one}}{separator}{{two}}", one, two), found) if found else ""


def capital(text: str) -> str:
    """The text as the beginning of a sentence. Other languages have no such form."""
    return _same(text, f"{text[:1].upper()}{text[1:]}")


def one_line(text: str) -> str:
    """The text with one space wherever it has line breaks or several spaces."""
    return _same(text, " ".join(text.split()))


def _same(text: str, english: str) -> str:
    """`english` in place of the message's own text; template and values stay."""
    return Message(english, text.template, text.values) if isinstance(text, Message) else english


# --- files -------------------------------------------------------------------------------------


def packed(text: str) -> Any:
    """A text as JSON data: a message keeps its template and values, plain text is itself."""
    if not isinstance(text, Message):
        return text
    values = {name: packed(value) if isinstance(value, str) else _plain(value) for name, value in text.values.items()}
    return {"text": text.text, "template": text.template, "values": values}


def unpacked(data: Any) -> Any:
    """What `packed` gave. Raises ValueError, KeyError or TypeError for data of another form."""
    if not isinstance(data, dict):
        return data
    text, template = str(data["text"]), str(data["template"])
    values = {str(name): unpacked(value) for name, value in data["values"].items()}
    if not all(name.isidentifier() for name in names(template)) or _bare(template.format_map(values)) != _bare(text):
        raise ValueError(f"{template!r} is not the template of {text!r}")
    return Message(text, template, values)


def _plain(value: object) -> Any:
    return value if isinstance(value, bool | int | float) or value is None else str(value)


def _bare(text: str) -> str:
    """Without what `capital` and `one_line` change."""
    return "".join(text.split()).casefold()
