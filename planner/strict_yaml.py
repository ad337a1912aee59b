"""YAML read strictly into frozen types; every fault is one line: file, key, what is wrong, what is allowed.

Scalars follow YAML 1.2's core schema (`1e-3` is a number; `yes`, `1:30` and `2026-01-01` are text). Duplicate keys,
unknown keys and numbers that are not finite are refused. The words of a fault are in `planner.faults`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class SpecError(ValueError):
    """A spec that cannot be used: one line with the path, the fault and the remedy."""


class Node(BaseModel):
    """Base of every type read from YAML: immutable, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema instead of 1.1's guesses."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 0 if node.value.lstrip("+-")[:2] in ("0x", "0o") else 10)


def _real(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)


def join(*keys: str | int) -> str:
    """`deployment.prefill.tp`, `cluster.nodes[0].gpus`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def _refuse_duplicates(node: yaml.Node | None, where: str, path: tuple[str | int, ...], above: tuple[int, ...]) -> None:
    if id(node) in above:
        raise SpecError(f"{where}: {join(*path)}: an alias contains itself; allowed: aliases of finished values")
    above += (id(node),)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{where}: line {line}: a list or section as a key; allowed: text keys")
            if key.value in seen:
                raise SpecError(f"{where}: {join(*path, key.value)}: given twice (line {line}); allowed: each key once")
            seen.add(key.value)
            _refuse_duplicates(value, where, (*path, key.value), above)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_duplicates(item, where, (*path, index), above)


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every (path, scalar) of nested dicts and lists."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from leaves(value, (*path, index))
    else:
        yield path, data


def read_value(text: str, where: str) -> Any:
    """One YAML value. Raises SpecError for syntax, duplicate keys and numbers that are not finite."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _refuse_duplicates(node, where, (), ())
            data = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SpecError(f"{where}:{place} not valid YAML ({problem}); allowed: `key: value` lines") from None
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{where}: a value that cannot be read ({error}); allowed: plain YAML scalars") from None
    for path, value in leaves(data):
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{where}: {join(*path)}: {value} is not finite; allowed: finite numbers")
    return data


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """A YAML document that is a section of keys; an empty one is refused."""
    data = read_value(text, where)
    if data is None:
        raise SpecError(f"{where}: the file is empty; allowed: YAML keys and values")
    if not isinstance(data, dict):
        raise SpecError(f"{where}: holds {type(data).__name__}, not keys; allowed: `key: value` lines")
    return {str(key): value for key, value in data.items()}


def read_text(path: Path) -> str:
    """The file's text. Raises SpecError when it is missing, a folder or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; allowed: the path of a YAML file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror}); allowed: a readable YAML file") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text; allowed: a YAML text file") from None


def validate(model: type[Model], data: Any, where: str) -> Model:
    """`data` as `model`. Raises SpecError with the most telling fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        from planner.faults import explain  # costs nothing unless something is wrong

        raise SpecError(explain(model, data, error, where)) from None
