"""YAML read strictly into frozen types; every fault is one line: file, key, what is wrong, what is allowed.

Scalars follow YAML 1.2's core schema (`1e-3` is a number; `yes`, `1:30` and `2026-01-01` are text). Duplicate keys,
unknown keys and numbers that are not finite are refused. The words of a fault are in `planner.spec.faults`.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import VERSION, BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from planner.messages import Fault, message, system

MOST_TEXT = 4 * 2**20  # characters of one file: a minute of reading
MOST_VALUES = 100_000  # of one file, those of an alias counted each time that it is used
MOST_WHOLE = 10**18  # what arrays of 64-bit numbers hold, with room for sums
MOST, LEAST = 1e18, 1e-18  # of other numbers: their products and quotients stay finite
LEAST_PERIOD_S = 1e-3  # the simulator looks this often at what has a period
MOST_SHOWN = 200  # characters of a refused value
MOST_NAME = 200


class SpecError(Fault):
    """A spec that cannot be used: one line with the path, the fault and the remedy."""


# Before 2.14 two threads that need a type first get in each other's way.
DEFERS = tuple(int(part) for part in VERSION.split(".")[:2]) >= (2, 14)


class Node(BaseModel):
    """Base of every type read from YAML: immutable, and strict about keys and types.

    What checks a type is made when it is first needed, and of the types inside it only there: a start-up needs few of
    them. So a default is `model_construct()`, which is not checked. And files of such types do not put off annotations
    (`from __future__`): pydantic would parse each of them from text again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=DEFERS)


def shorten(text: str) -> str:
    """The beginning of a text that is too long for a line of an error."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _whole(value: Any) -> Any:
    """1e4 is a whole number although YAML reads it as a float. Raises ValueError for what no array holds."""
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(whole, int) and whole > MOST_WHOLE:
        raise ValueError(
            message("{value} is too large; allowed: whole numbers up to {most}", shorten(str(value)), MOST_WHOLE)
        )
    return whole


def _finite(value: float) -> float:
    """Raises ValueError for what can only lead to infinities, or to times that no step of a clock changes."""
    if value > MOST:
        raise ValueError(message("{value:g} is too large; allowed: numbers up to {most:g}", value, MOST))
    return value


def _divisor(value: float) -> float:
    """As `_finite`, for what may be divided by."""
    if value < LEAST:
        raise ValueError(message("{value:g} is too small; allowed: numbers from {least:g}", value, LEAST))
    return _finite(value)


class Number:
    """Of an annotation: how a number is read and checked. `bounds` are as `Field` has them (gt, ge, lt, le).

    `Field` beside a validator says the same, but pydantic then works it out again for each of the 300 keys.
    """

    def __init__(self, made: Callable[..., CoreSchema], **bounds: float) -> None:
        self._made, self.bounds = made, bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return self._made(**self.bounds)


def _whole_number(**bounds: Any) -> CoreSchema:
    return core_schema.no_info_before_validator_function(_whole, core_schema.int_schema(**bounds))


def _number(**bounds: Any) -> CoreSchema:
    return core_schema.no_info_after_validator_function(
        _finite, core_schema.float_schema(allow_inf_nan=False, **bounds)
    )


def _positive(**bounds: Any) -> CoreSchema:
    return core_schema.no_info_after_validator_function(
        _divisor, core_schema.float_schema(allow_inf_nan=False, **bounds)
    )


PositiveInt = Annotated[int, Number(_whole_number, gt=0)]
NonNegativeInt = Annotated[int, Number(_whole_number, ge=0)]
Positive = Annotated[float, Number(_positive, gt=0)]
NonNegative = Annotated[float, Number(_number, ge=0)]
Fraction = Annotated[float, Number(_positive, gt=0, le=1)]
Factor = Annotated[float, Number(_number, ge=1)]


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema instead of 1.1's guesses."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # its own, not the parent's


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 0 if node.value.lstrip("+-")[:2] in ("0x", "0o") else 10)


def _real(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return _real(node.value)


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
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


class _Dumper(yaml.SafeDumper):
    """Texts that `_Loader` takes for something else are quoted, not only those of YAML 1.1: `08`, `1e3`."""

    yaml_implicit_resolvers = {first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _begins, _known in _Loader.yaml_implicit_resolvers.items():
    _Dumper.yaml_implicit_resolvers.setdefault(_begins, []).extend(_known)


def written(data: Any, **options: Any) -> str:
    """Plain data as YAML that `read_value` gives back."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, **options))


def _quick() -> type[Any]:
    """The same of libyaml, several times as fast where it can be had. For our own files: deep nesting crashes it."""
    if not yaml.__with_libyaml__:
        return _Loader
    own = {name: getattr(_Loader, name) for name in ("yaml_implicit_resolvers", "yaml_constructors")}
    return type("_QuickLoader", (yaml.CSafeLoader,), own)


_KEY_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}


def join(*keys: str | int) -> str:
    """`deployment.prefill.tp`, `cluster.nodes[0].gpus`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{shorten(key)}" for key in keys).lstrip(".")


def _check(
    node: yaml.Node | None, where: str, path: tuple[str | int, ...], above: tuple[int, ...], count: Iterator[int]
) -> None:
    """Refuse what YAML allows and a spec must not hold: equal keys, keys that are no text, NaN, endless aliases."""
    if id(node) in above:
        raise SpecError(
            "{where}: {key}: an alias contains itself; allowed: aliases of finished values", where, join(*path)
        )
    if next(count) > MOST_VALUES:
        raise SpecError(
            "{where}: more than {most} values, aliases written out; allowed: up to {most}",
            where,
            MOST_VALUES,
        )
    above += (id(node),)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
                raise SpecError("{where}: line {line}: a key that is no text; allowed: text keys", where, line)
            if key.value in seen:
                raise SpecError(
                    "{where}: {key}: given twice (line {line}); allowed: each key once",
                    where,
                    join(*path, key.value),
                    line,
                )
            seen.add(key.value)
            _check(value, where, (*path, key.value), above, count)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check(item, where, (*path, index), above, count)
    elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":float") and not math.isfinite(_real(node.value)):
        place = message("{where}: {key}", where, join(*path)) if path else where
        raise SpecError("{where}: {value} is not finite; allowed: finite numbers", place, shorten(node.value))


def read_value(text: str, where: str, ours: bool = False) -> Any:
    """One YAML value; `ours`: of a file that ships. Raises SpecError for syntax, equal keys and what is not finite."""
    if len(text) > MOST_TEXT:
        raise SpecError("{where}: {count} characters; allowed: up to {most}", where, len(text), MOST_TEXT)
    try:
        loader = (_quick() if ours else _Loader)(text)
        try:
            node = loader.get_single_node()
            _check(node, where, (), (), itertools.count(1))
            data = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            where = message("{where}: line {line}, column {column}", where, mark.line + 1, mark.column + 1)
        problem = shorten(" ".join(str(getattr(error, "problem", None) or error).split()))
        raise SpecError("{where}: not valid YAML ({problem}); allowed: `key: value` lines", where, problem) from None
    except SpecError:
        raise
    except RecursionError:
        raise SpecError("{where}: nested too deeply; allowed: sections in sections, a few levels", where) from None
    except (ValueError, OverflowError) as error:  # the latter: "\UFFFFFFFF"
        raise SpecError(
            "{where}: a value that cannot be read ({error}); allowed: plain YAML scalars", where, shorten(str(error))
        ) from None
    return data


def read_mapping(text: str, where: str, ours: bool = False) -> dict[str, Any]:
    """A YAML document that is a section of keys; an empty one is refused."""
    data = read_value(text, where, ours)
    if data is None:
        raise SpecError("{where}: the file is empty; allowed: YAML keys and values", where)
    if not isinstance(data, dict):
        what = message("a list") if isinstance(data, list) else message("text")
        raise SpecError("{where}: holds {what}, not keys; allowed: `key: value` lines", where, what)
    return data


def read_text(path: Path, wanted: str = message("a YAML file")) -> str:
    """The file's text. Raises SpecError when it is missing, a folder or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("{path}: no such file; allowed: the path of {wanted}", path, wanted) from None
    except OSError as error:  # a folder, no permission, /proc/self/mem
        raise SpecError(
            "{path}: cannot be read ({fault}); allowed: {wanted} that can be read", path, system(error), wanted
        ) from None
    except UnicodeDecodeError:
        raise SpecError("{path}: not UTF-8 text; allowed: {wanted}", path, wanted) from None
