"""Hostile values, and files that are damaged or broken somewhere, for `fuzz.py`."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

NUMBERS: list[Any] = [
    0,
    -1,
    1,
    2,
    7,
    2**31,
    2**63,
    10**18,
    10**19,
    10**400,
    -(10**400),
    0.5,
    1e-308,
    1e-12,
    1e-7,
    1e9,
    1e30,
    1e308,
    float("nan"),
    float("inf"),
    -float("inf"),
]
ODD: list[Any] = [
    None,
    True,
    False,
    "",
    " ",
    "foo",
    "0",
    "1e400",
    "nan",
    "../../etc/passwd",
    "/proc/self/mem",
    "/dev/null",
    "\x00",
    "\u202e",
    "a" * 300,
    "b" * 90_000,
    [],
    [1],
    [[[]]],
    {},
    {"a": 1},
    {"kind": "fixed", "value": 1e308},
    {"kind": "lognormal", "mean": 1e300, "sigma": 1e3},
    {"kind": "uniform", "low": 5, "high": 1},
    {"kind": "empirical", "values": [1e18]},
]
VALUES = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(ODD), st.integers(-5, 10**6), st.floats(), st.text(max_size=12)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:5]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a path; ... takes it out."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


WORK = re.compile(r"(^|\.)(requests|sessions|turns|num_users|num_rounds|time)$")


def short(value: Any, key: str = "") -> Any:
    """Without amounts of work that are allowed and take minutes: a long simulation is no fault."""
    if isinstance(value, dict):
        return {name: short(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [short(inner, key) for inner in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return 20 if number and WORK.search(key) and 1_000 < value <= 10_000_000 else value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    return at(value[path[0]], path[1:]) if path else value


def like(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, most of which a reader takes: what comes after reading is tried too."""
    if isinstance(value, bool):
        return st.just(not value)
    if isinstance(value, int):
        scaled = st.integers(-18, 18).map(lambda power: value * 10 ** max(power, 0) // 10 ** max(-power, 0))
        return st.one_of(st.sampled_from([0, 1, 2, 3, value + 1, 2 * value]), scaled)
    if isinstance(value, float):
        scaled = st.integers(-18, 18).map(lambda power: value * 10.0**power)
        return st.one_of(st.sampled_from([0.0, 1.0, value / 3, 1.5 * value]), scaled)
    if isinstance(value, list):
        return st.sampled_from([value[:1], value * 2, value[::-1], value[1:]])
    if isinstance(value, str):
        return st.sampled_from([value * 2, value[1:], value.upper(), value + "0"])
    return VALUES


@st.composite
def broken(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one to three places changed, taken out, or given an unknown neighbour."""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        all_places = list(places(value))
        if not all_places:
            return draw(VALUES)
        path = draw(st.sampled_from(all_places))
        value = changed(value, path, draw(st.one_of(VALUES, st.just(...), *2 * [like(at(value, path))])))
    return value


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Text with bytes cut, doubled or overwritten."""
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    match draw(st.sampled_from(["cut", "bytes", "double", "long", "none", "gzip", "cut gzip"])):
        case "cut":
            return data[:at]
        case "bytes":
            return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at + 1 :]
        case "double":
            return data + data[at:]
        case "long":
            return data[:at] + b"9" * draw(st.sampled_from([500, 5_000, 140_000])) + data[at:]
        case "gzip":
            return gzip.compress(data)
        case "cut gzip":
            return gzip.compress(data)[: draw(st.integers(2, 60))]
    return data


def as_json(value: Any) -> bytes:
    """JSON that may hold what no reader should trust: NaN, surrogates, whole numbers of 400 digits."""
    return json.dumps(value, default=str).encode("utf-8", "replace")


def as_yaml(value: Any) -> bytes:
    try:
        return yaml.dump(value, Dumper=DUMPER, allow_unicode=True).encode("utf-8", "replace")
    except yaml.YAMLError:
        return as_json(value)
