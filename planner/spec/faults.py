"""What is wrong with a YAML value, in one plain line: key, fault, what is allowed. Translates pydantic's errors."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from planner.messages import Message, joined, message, one_line, said
from planner.spec.strict_yaml import MOST_SHOWN, Number, SpecError, join, shorten

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


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
        if isinstance(item, Number):
            found |= item.bounds
        for kind, key in ((at.Gt, "gt"), (at.Ge, "ge"), (at.Lt, "lt"), (at.Le, "le")):
            if isinstance(item, kind):
                found[key] = getattr(item, key)
    return found


def _range(bounds: dict[str, Any], whole: bool) -> str:
    words = []
    if whole and "gt" in bounds:
        words.append(message("from {low}", bounds["gt"] + 1))
    elif "gt" in bounds:
        words.append(message("above {low}", bounds["gt"]))
    if "ge" in bounds:
        words.append(message("from {low}", bounds["ge"]))
    if "lt" in bounds:
        words.append(message("below {high}", bounds["lt"]))
    if "le" in bounds:
        words.append(message("up to {high}", bounds["le"]))
    return joined(" ", words)


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
            kinds = ", ".join(value for _, value in tags)
            words.append(message("a section with {key} {kinds}", tags[0][0], kinds))
        else:
            words += [allowed(model, []) for model in sections(annotation)]
        return joined(", or ", words)
    if origin is tuple:
        return message("a list of {what}", allowed(get_args(annotation)[0], []))
    if annotation is bool:
        return message("true or false")
    if annotation is int or annotation is float:
        noun = message("whole numbers") if annotation is int else message("numbers")
        limits = _range(_bounds(metadata), annotation is int)
        return message("{numbers} {limits}", noun, limits) if limits else noun
    if annotation is str:
        return message("text")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return message("a section with keys {keys}", ", ".join(_keys(annotation)))
    return message("a section of keys")


def _takes(field: FieldInfo) -> str:
    if field.description is not None:  # in deployment.py and document.py, as messages
        return field.description
    return allowed(field.annotation, field.metadata)


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


MOST_LISTED = 24  # names that a line holds
MOST_PLACES = 3


def _letters(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())


def _near(value: Any, choices: list[str]) -> str | None:
    """The choice that is likest, whatever the case and what stands between words; one that begins so before others."""
    named = {_letters(name): name for name in reversed(choices)}
    asked = _letters(str(value)[:MOST_SHOWN])
    begun = [name for name in reversed(named) if len(asked) > 2 and name.startswith(asked)]
    close = difflib.get_close_matches(asked, begun or list(reversed(named)), n=1, cutoff=0.0 if begun else 0.6)
    return named[close[0]] if close else None


def unknown(value: Any, choices: list[str], meant: str | None = None) -> Message:
    """`'x' is unknown; did you mean 'y'? allowed: ...`; of very many choices those most like it.

    `meant`: the choice that it is another name of, where that is known.
    """
    near, keys = meant or _near(value, choices), _listed(value, choices)
    if near is None:
        return message("{value} is unknown; allowed: {choices}", _show(value), keys)
    return message("{value} is unknown; did you mean '{near}'? allowed: {choices}", _show(value), near, keys)


def _listed(value: Any, choices: list[str]) -> str:
    if len(choices) <= MOST_LISTED:
        return ", ".join(choices)
    asked = difflib.SequenceMatcher(b=str(value)[:MOST_SHOWN])

    def unlike(name: str) -> float:
        asked.set_seq1(name)
        return -asked.ratio()

    kept = sorted(sorted(choices, key=unlike)[: MOST_LISTED // 2])
    return message("{names} and {count} more", ", ".join(kept), len(choices) - len(kept))


# Sizes that people know from vLLM and that a worker here does not have, by what they may be called.
_PARALLEL = {
    **dict.fromkeys(("pp", "pipeline_parallel_size"), message("pipeline parallelism is not modelled; allowed: tp")),
    **dict.fromkeys(
        ("dp", "data_parallel_size"),
        message("is `dp` of the pool, beside its tp; allowed: deployment.dp, deployment.prefill.dp, ..."),
    ),
    **dict.fromkeys(
        ("ep", "expert_parallel_size"),
        message("is the worker's tp x dp where experts are whole; allowed: enable_expert_parallel: true in engine"),
    ),
}


_USERS = ("concurrency", "users", "num_users")
# What does the job of a key of another kind of workload, by the kind that is there.
_INSTEAD = {
    "sessions": {
        **dict.fromkeys(
            _USERS, message("rate (new sessions a second) x how long one lasts is how many there are at once")
        ),
        "requests": message("sessions x turns is how many requests there are"),
    },
    "multi_round_qa": {
        **dict.fromkeys(("concurrency", "users"), message("num_users is how many there are at once")),
        **dict.fromkeys(("rate",), message("qps is how many requests there are a second")),
        **dict.fromkeys(("turns",), message("num_rounds is how many requests a user sends")),
    },
    "concurrency": {
        **dict.fromkeys(("users", "num_users"), message("concurrency is how many there are at once")),
        "rate": message("a request is sent when another ends, concurrency says how many there are at once"),
    },
    **dict.fromkeys(
        ("poisson", "gamma", "constant", "rag"),
        dict.fromkeys(_USERS, message("rate says how often requests come; kind concurrency keeps so many at once")),
    ),
}


DEEPEST = 3  # sections in sections, of a key that is looked for
UNITS = ("", "_ms", "_tokens", "_s")  # that people leave out
OWN = ("profile", "cluster")  # whose keys are of a measurement or of machines


def places(model: type[BaseModel], name: str) -> list[str]:
    """Where a document has a key, as workload.rate; its unit may be left out. Only the least deep."""
    wanted = {f"{name.replace('-', '_')}{unit}" for unit in UNITS}
    found: dict[str, int] = {}

    def look(inside: type[BaseModel], above: Path) -> None:
        for key in _keys(inside):
            if key in wanted:
                found.setdefault(join(*above, key), len(above))
            field = _field(inside, key)
            if field is not None and len(above) < DEEPEST and key not in OWN:
                for section in sections(field.annotation):
                    look(section, (*above, key))

    look(model, ())
    least = min(found.values(), default=0)
    return [place for place, depth in found.items() if depth == least]


def _of_other_kind(model: type[BaseModel], path: Path) -> Message | None:
    """Which kinds of a section have the key at the end of the path, where the section could be of another kind."""
    inside = [model]
    for part in path[:-1]:
        fields = [field for one in inside if (field := _field(one, str(part))) is not None]
        inside = [section for field in fields for section in sections(field.annotation)] or inside
    kinds = [tag for one in inside if _field(one, str(path[-1])) and (tag := kind_of(one))]
    return message("{key} {kinds}", kinds[0][0], ", ".join(kind for _, kind in kinds)) if kinds else None


def _unknown_key(path: Path, holders: list[type[BaseModel]], model: type[BaseModel]) -> Message:
    choices = list(dict.fromkeys(key for holder in holders for key in _keys(holder)))
    key = path[-1]
    here = kind_of(holders[0]) if len(holders) == 1 else None
    if here is not None and (instead := _INSTEAD.get(here[1], {}).get(str(key))) is not None:
        return message("is not of kind {kind}: {instead}; allowed: {choices}", here[1], instead, ", ".join(choices))
    if key in _PARALLEL:
        return _PARALLEL[str(key)]
    keys, kinds = ", ".join(choices), _of_other_kind(model, path)
    if kinds is not None:
        return message("belongs to {kinds}; allowed: {choices}", kinds, keys)
    elsewhere, near = places(model, str(key)), _near(key, choices)
    if near is not None and not any(place.endswith(f".{key}") for place in elsewhere):
        return message("unknown key; did you mean '{near}'? allowed: {choices}", near, keys)
    if elsewhere:
        shown = joined(" or ", elsewhere[:MOST_PLACES])
        return message("unknown key; did you mean {places}? allowed: {choices}", shown, keys)
    return message("unknown key; allowed: {choices}", keys)


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return message("a section")
    if isinstance(value, (list, tuple)):
        return message("a list")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(shorten(value))
    return shorten(str(value))


def _fault(kind: str, value: str, takes: str) -> Message:
    """What a value is not, by pydantic's type of error."""
    match kind:
        case "greater_than" | "greater_than_equal":
            return message("{value} is too small; allowed: {takes}", value, takes)
        case "less_than" | "less_than_equal":
            return message("{value} is too large; allowed: {takes}", value, takes)
        case "finite_number":
            return message("{value} is not finite; allowed: {takes}", value, takes)
        case "int_type" | "int_from_float" | "int_parsing":
            return message("{value} is not a whole number; allowed: {takes}", value, takes)
        case "float_type" | "float_parsing":
            return message("{value} is not a number; allowed: {takes}", value, takes)
        case "bool_type":
            return message("{value} is not true or false; allowed: {takes}", value, takes)
        case "string_type":
            return message("{value} is not text; allowed: {takes}", value, takes)
        case "model_type" | "model_attributes_type" | "dict_type" | "union_tag_not_found":
            return message("{value} is not a section; allowed: {takes}", value, takes)
        case "tuple_type":
            return message("{value} is not a list; allowed: {takes}", value, takes)
        case "too_short" | "string_too_short":
            return message("is empty; allowed: {takes}", takes)
        case "string_too_long":
            return message("{value} is too long; allowed: {takes}", value, takes)
        case "string_pattern_mismatch":
            return message("{value} does not fit; allowed: {takes}", value, takes)
        case "missing":
            return message("is missing; allowed: {takes}", takes)
    return message("{value} cannot be used; allowed: {takes}", value, takes)


def _line(model: type[BaseModel], data: Any, error: Any) -> tuple[Path, str]:
    path, holders, field = _walk(model, tuple(error["loc"]), data, error["type"] == "missing")
    kind, value = error["type"], error["input"]
    takes = _takes(field) if field is not None else allowed(model, [])
    if kind == "extra_forbidden":
        return path, _unknown_key(path, holders, model)
    if kind == "value_error":
        return path, said(error["ctx"]["error"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = str(error["ctx"]["discriminator"]).strip("'")
        tags = [tag[1] for found in sections(field.annotation if field else model) if (tag := kind_of(found))]
        if kind == "union_tag_not_found" and not isinstance(value, dict):
            return path, _fault(kind, _show(value), takes)
        if kind == "union_tag_not_found":
            return (*path, key), _fault("missing", "", ", ".join(tags))
        return (*path, key), unknown(value.get(key) if isinstance(value, dict) else value, tags)
    if kind == "literal_error":
        return path, unknown(value, takes.split(", "))
    if kind == "missing" and isinstance(path[-1], int):
        takes = message("a value")
    return path, _fault(kind, _show(value), takes)


def _explained(model: type[BaseModel], data: Any, error: ValidationError, where: str, given: Collection[str]) -> str:
    """One line for the most telling fault: an unknown key first (it often causes the others), then the deepest.

    A fault in what was `given` beside the document is not the document's.
    """
    faults = error.errors()
    order = {"extra_forbidden": 0, "value_error": 2}
    lines = [(order.get(fault["type"], 1), *_line(model, data, fault)) for fault in faults]
    order_of, path, text = min(lines, key=lambda line: (line[0], -len(line[1])))
    key = join(*path)
    if any(key == one or key.startswith((f"{one}.", f"{one}[")) for one in given) or (
        order_of == 0 and any(one.startswith(f"{key}.") for one in given)
    ):
        return one_line(message("--set {key}: {fault}", key, text))
    place = message("{where}: {key}", where, key) if path else where
    return one_line(message("{where}: {fault}", place, text))


def validate(model: type[Model], data: Any, where: str, given: Collection[str] = ()) -> Model:
    """`data` as `model`. Raises SpecError with the most telling fault. `given`: keys that are not from `where`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise SpecError(_explained(model, data, error, where, given)) from None
