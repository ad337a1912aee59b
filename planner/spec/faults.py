"""What is wrong with a YAML value, in one plain line: key, fault, what is allowed. Translates pydantic's errors."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from planner.spec.strict_yaml import MOST_SHOWN, join, shorten

Path = tuple[str | int, ...]


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The types of section that a key may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def kind_of(model: type[BaseModel]) -> tuple[str, str] | None:
    """(`kind` or `mode`, its value) of a section that is one of several kinds."""
    for key in ("kind", "mode"):
        field = model.model_fields.get(key)
        if field is not None and get_origin(field.annotation) is Literal:
            return key, str(get_args(field.annotation)[0])
    return None


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _bounds(item.metadata)
        for kind, key in ((at.Gt, "gt"), (at.Ge, "ge"), (at.Lt, "lt"), (at.Le, "le")):
            if isinstance(item, kind):
                found[key] = getattr(item, key)
    return found


def _range(bounds: dict[str, Any], whole: bool) -> str:
    words = []
    if whole and "gt" in bounds:
        words.append(f"from {bounds['gt'] + 1}")
    elif "gt" in bounds:
        words.append(f"above {bounds['gt']}")
    if "ge" in bounds:
        words.append(f"from {bounds['ge']}")
    if "lt" in bounds:
        words.append(f"below {bounds['lt']}")
    if "le" in bounds:
        words.append(f"up to {bounds['le']}")
    return " ".join(words)


def allowed(annotation: Any, metadata: list[Any]) -> str:
    """What a key takes, in words: `whole numbers from 1`, `a, b or c`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return allowed(inner, [*extra, *metadata])
    if origin is Literal:
        return ", ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        tags = [tag for model in sections(annotation) if (tag := kind_of(model))]
        plain = [part for part in get_args(annotation) if part is not type(None) and not list(sections(part))]
        words = [allowed(part, metadata) for part in plain]
        if tags:
            words.append(f"a section with {tags[0][0]} {', '.join(value for _, value in tags)}")
        else:
            words += [allowed(model, []) for model in sections(annotation)]
        return ", or ".join(words)
    if origin is tuple:
        return f"a list of {allowed(get_args(annotation)[0], [])}"
    if annotation is bool:
        return "true or false"
    if annotation is int or annotation is float:
        noun = "whole numbers" if annotation is int else "numbers"
        return f"{noun} {_range(_bounds(metadata), annotation is int)}".strip()
    if annotation is str:
        return "text"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a section with keys {', '.join(_keys(annotation))}"
    return "a section of keys"


def _takes(field: FieldInfo) -> str:
    return field.description or allowed(field.annotation, field.metadata)


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _field(model: type[BaseModel], key: str) -> FieldInfo | None:
    for name, field in model.model_fields.items():
        if (field.alias or name) == key:
            return field
    return None


def _walk(
    model: type[BaseModel], loc: Path, data: Any, error_names_key: bool
) -> tuple[Path, list[type[BaseModel]], FieldInfo | None]:
    """pydantic's location -> (path of keys as the user wrote them, sections that may hold the last key, its field).

    pydantic's location also holds the tags of unions, which are no keys.
    """
    path: Path = ()
    holders: list[type[BaseModel]] = [model]
    inside: list[type[BaseModel]] = [model]
    field: FieldInfo | None = None
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(part, int):
            path += (part,)
            data = data[part] if isinstance(data, (list, tuple)) and part < len(data) else None
            continue
        tagged = [candidate for candidate in inside if (tag := kind_of(candidate)) and tag[1] == part]
        is_key = isinstance(data, dict) and part in data
        if tagged and len(inside) > 1:
            inside = tagged
            continue
        known = next((found for candidate in inside if (found := _field(candidate, part))), None)
        if not is_key and known is None and not (last and error_names_key):
            continue
        path += (part,)
        holders, field = inside, known
        inside = list(sections(known.annotation)) if known is not None else []
        data = data.get(part) if isinstance(data, dict) else None
    return path, holders, field


def _near(value: Any, choices: list[str]) -> str:
    close = difflib.get_close_matches(str(value)[:MOST_SHOWN], choices, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def unknown(value: Any, choices: list[str]) -> str:
    """`'x' is unknown; did you mean 'y'? allowed: ...`"""
    near = _near(value, choices)
    return f"{_show(value)} is unknown{near}{'' if near else ';'} allowed: {', '.join(choices)}"


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(shorten(value))
    return shorten(str(value))


# pydantic's error type -> fault; {value} is what the user wrote.
_FAULTS = {
    "greater_than": "{value} is too small",
    "greater_than_equal": "{value} is too small",
    "less_than": "{value} is too large",
    "less_than_equal": "{value} is too large",
    "finite_number": "{value} is not finite",
    "int_type": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "int_parsing": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "float_parsing": "{value} is not a number",
    "bool_type": "{value} is not true or false",
    "string_type": "{value} is not text",
    "model_type": "{value} is not a section",
    "model_attributes_type": "{value} is not a section",
    "dict_type": "{value} is not a section",
    "tuple_type": "{value} is not a list",
    "too_short": "is empty",
    "string_too_short": "is empty",
    "string_too_long": "{value} is too long",
    "missing": "is missing",
}


def _line(model: type[BaseModel], data: Any, error: Any) -> tuple[Path, str]:
    path, holders, field = _walk(model, tuple(error["loc"]), data, error["type"] == "missing")
    kind, value = error["type"], error["input"]
    takes = _takes(field) if field is not None else allowed(model, [])
    if kind == "extra_forbidden":
        choices = list(dict.fromkeys(key for holder in holders for key in _keys(holder)))
        near = _near(path[-1], choices)
        return path, f"unknown key{near}{'' if near else ';'} allowed: {', '.join(choices)}"
    if kind == "value_error":
        return path, str(error["ctx"]["error"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = str(error["ctx"]["discriminator"]).strip("'")
        tags = [tag[1] for found in sections(field.annotation if field else model) if (tag := kind_of(found))]
        if kind == "union_tag_not_found" and not isinstance(value, dict):
            return path, f"{_show(value)} is not a section; allowed: {takes}"
        if kind == "union_tag_not_found":
            return (*path, key), f"is missing; allowed: {', '.join(tags)}"
        return (*path, key), unknown(value.get(key) if isinstance(value, dict) else value, tags)
    if kind == "literal_error":
        return path, unknown(value, takes.split(", "))
    if kind == "string_pattern_mismatch":
        return path, f"{_show(value)} does not fit; allowed: {takes}"
    fault = _FAULTS.get(kind, "{value} cannot be used").format(value=_show(value))
    if kind == "missing" and isinstance(path[-1], int):
        takes = "a value"
    return path, f"{fault}; allowed: {takes}"


def explain(model: type[BaseModel], data: Any, error: ValidationError, where: str) -> str:
    """One line for the most telling fault: an unknown key first (it often causes the others), then the deepest."""
    faults = error.errors()
    order = {"extra_forbidden": 0, "value_error": 2}
    lines = [(order.get(fault["type"], 1), *_line(model, data, fault)) for fault in faults]
    _, path, text = min(lines, key=lambda line: (line[0], -len(line[1])))
    place = f"{where}: {join(*path)}" if path else where
    return " ".join(f"{place}: {text}".split())
