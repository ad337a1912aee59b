"""What a checkpoint says of its own quantisation: `quantization_config` of a config.json -> `Quantisation`.

vLLM obeys it without being told: bits of the weights, what their products run in, the type of the KV cache. The keys
are those of vLLM's readers (`model_executor/layers/quantization`) for each `quant_method`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from planner.messages import message
from planner.spec import SpecError

# Types of weights and arithmetic. fp8, int8, fp4: both. int4 and w*a16: weights are expanded to the engine's dtype.
Weights = Literal["fp8", "int8", "int4", "fp4", "w4a8", "w8a16", "w3a16", "w2a16"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How weights are stored. `bits` hold the scales; `routed_only`: attention and dense MLPs are as they were."""

    method: str
    weights: Weights
    bits: float
    routed_only: bool = False
    group: int = 0  # weights of a row that share a scale; 0: no groups
    block: tuple[int, int] | None = None  # (rows, columns) that share a scale
    kv: Literal["fp8"] | None = None  # what the KV cache is kept in unless the engine is told otherwise


# What stands before differs from writer to writer; under other names are towers and layers that predict further tokens.
_TO_LAYERS = re.compile(r"^(?:(?:model|language_model|backbone|transformer|decoder)\.)*(?=layers\.)")
_OTHER_EXPERT, _FIRST_EXPERT = re.compile(r"experts\.[1-9]\d*"), re.compile(r"(experts\.0)\..*")
_LAYER = re.compile(r"layers\.(\d+)(?=\.|$)")


@dataclass(frozen=True)
class Names:
    """A list of modules as quantisers write it: names, their parents, `*` patterns, regular expressions (`re:`)."""

    anywhere: re.Pattern[str] | None
    in_layer: dict[str, re.Pattern[str]]

    def __contains__(self, name: str) -> bool:
        """`name`: "layers.3.mlp.up_proj", or "lm_head"."""
        layer = _LAYER.match(name)
        own = self.in_layer.get(layer[1]) if layer else None
        if own is not None and own.match(name):
            return True
        return self.anywhere is not None and any(
            self.anywhere.match(prefix + name) for prefix in ("", "model.", "language_model.model.")
        )


def _matching(names: list[str]) -> Names:
    everywhere: list[str] = []
    layers: dict[str, list[str]] = {}
    for name in names:
        if name.startswith("re:"):
            everywhere.append(f"(?:{name[3:]})")
            continue
        if _OTHER_EXPERT.search(name):
            continue  # experts of a layer are stored alike
        plain = _FIRST_EXPERT.sub(r"\1", _TO_LAYERS.sub("", name))
        whole = fnmatch.translate(plain) if "*" in plain else rf"(?:.*\.)?{re.escape(plain)}(?:\..*)?$"
        layer = None if plain.startswith("layers.") and "*" in plain.split(".")[1] else _LAYER.match(plain)
        (layers.setdefault(layer[1], []) if layer else everywhere).append(whole)
    return Names(
        re.compile("|".join(everywhere)) if everywhere else None,
        {number: re.compile("|".join(patterns)) for number, patterns in layers.items()},
    )


@dataclass(frozen=True)
class Quantisation:
    """Which module is stored how: the first of `rules` that names it, else `rest`; plain where it is ignored."""

    rules: tuple[tuple[Names, Checkpoint], ...]
    rest: Checkpoint | None
    ignored: Names

    def of(self, name: str, routed: bool) -> Checkpoint | None:
        """`name` as in `Names`; the head is quantised only where it is named. `routed`: a routed expert."""
        if name in self.ignored:
            return None
        for names, found in self.rules:
            if name in names:
                return found
        if self.rest is None or name == "lm_head" or (self.rest.routed_only and not routed):
            return None
        return self.rest


@dataclass(frozen=True)
class _Keys:
    """One section of the file, with errors that name file and key."""

    values: dict[str, Any]
    where: str

    def fault(self, key: str, allowed: str) -> SpecError:
        return SpecError(
            "{where}: {key}: {value!r} is not covered; allowed: {allowed}",
            self.where,
            key,
            self.values.get(key),
            allowed,
        )

    def section(self, key: str) -> _Keys:
        found = self.values.get(key) or {}
        if not isinstance(found, dict):
            raise SpecError(
                "{where}: {key}: {value!r} is not a section; allowed: a section of keys", self.where, key, found
            )
        return _Keys(found, f"{self.where}.{key}")

    def whole(self, key: str, default: int) -> int:
        found = self.values.get(key)
        found = default if found is None else found
        if isinstance(found, bool) or not isinstance(found, int):
            raise SpecError(
                "{where}: {key}: {value!r} is not a whole number; allowed: whole numbers", self.where, key, found
            )
        return found

    def listed(self, key: str) -> list[str]:
        found = self.values.get(key) or []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise SpecError("{where}: {key}: is no list of names; allowed: a list of modules", self.where, key)
        return found

    def block(self, key: str) -> tuple[int, int] | None:
        found = self.values.get(key)
        if found is None:
            return None
        pair = list(found) if isinstance(found, (list, tuple)) else []
        if len(pair) != 2 or not all(type(size) is int and size > 0 for size in pair):
            raise self.fault(key, message("two whole numbers from 1"))
        return pair[0], pair[1]


def _weight_only(keys: _Keys, key: str, bits: int) -> Weights:
    name = "int4" if bits == 4 else f"w{bits}a16"
    found = next((known for known in WEIGHTS if known == name), None)
    if found is None:
        raise keys.fault(key, "2, 3, 4, 8")
    return found


def _fp8(keys: _Keys) -> Checkpoint:
    return _blocks("fp8", keys.block("weight_block_size"))


def _blocks(method: str, block: tuple[int, int] | None) -> Checkpoint:
    return Checkpoint(method, "fp8", 8 + (32 / (block[0] * block[1]) if block else 0.0), block=block)


def _integers(keys: _Keys) -> Checkpoint:
    """AWQ, GPTQ and AutoRound: integers with a 16-bit scale and a zero point a group."""
    bits, group = keys.whole("bits", 4), max(0, keys.whole("group_size", 128))
    stored = bits + ((16 + bits) / group if group else 0.0)
    return Checkpoint(str(keys.values["quant_method"]), _weight_only(keys, "bits", bits), stored, group=group)


def _mxfp4(keys: _Keys) -> Checkpoint:
    """Experts only: 4 bits and an 8-bit scale for 32 weights."""
    return Checkpoint("mxfp4", "int4", 4.25, routed_only=True)


def _bitsandbytes(keys: _Keys) -> Checkpoint:
    """4 bits with a 32-bit scale for 64 weights, unless 8 bits are asked for."""
    eight = bool(keys.values.get("load_in_8bit"))
    return Checkpoint("bitsandbytes", "int8" if eight else "int4", 8.0 if eight else 4.5)


def _kv(keys: _Keys) -> Literal["fp8"] | None:
    """Of `kv_cache_scheme`, as compressed-tensors and modelopt write it."""
    if str(keys.values.get("kv_cache_scheme")).upper() == "FP8":
        return "fp8"
    scheme = keys.section("kv_cache_scheme")
    if not scheme.values:
        return None
    if (scheme.values.get("num_bits"), scheme.values.get("type", "float")) != (8, "float"):
        raise keys.fault("kv_cache_scheme", message("num_bits 8 of type float, or none"))
    return "fp8"


def _compressed_tensors(keys: _Keys) -> Quantisation:
    groups, kv = keys.section("config_groups"), _kv(keys)
    if not groups.values:
        raise SpecError("{where}: holds no group; allowed: config_groups with num_bits", groups.where)
    rules, rest = [], None
    for name in groups.values:
        group = groups.section(name)
        found, targets = _compressed_group(group, kv), group.listed("targets") or ["Linear"]
        if "Linear" in targets:
            rest = found
        rules.append((_matching([target for target in targets if target != "Linear"]), found))
    return Quantisation(tuple(rules), rest, _matching(keys.listed("ignore")))


def _compressed_group(keys: _Keys, kv: Literal["fp8"] | None) -> Checkpoint:
    weights, inputs = keys.section("weights"), keys.section("input_activations")
    bits, floats = weights.whole("num_bits", 0), weights.values.get("type") == "float"
    group, block = max(0, weights.whole("group_size", 0)), weights.block("block_structure")
    both: dict[tuple[int, int, bool], Weights] = {
        (8, 8, True): "fp8",
        (8, 8, False): "int8",
        (4, 4, True): "fp4",
        (4, 8, False): "w4a8",
    }
    if not inputs.values:
        name = _weight_only(weights, "num_bits", bits)
    elif (key := (bits, inputs.whole("num_bits", 0), floats)) in both:
        name = both[key]
    else:
        raise weights.fault("num_bits", message("8 beside 8, 4 beside 8 or 4 of the inputs"))
    scale = 8 if floats and bits == 4 else 16  # NVFP4 keeps its scales in 8 bits
    stored = bits + (scale / group if group else 0.0) + (32 / (block[0] * block[1]) if block else 0.0)
    return Checkpoint("compressed-tensors", name, stored, group=group, block=block, kv=kv)


_ALGORITHMS: dict[str, Checkpoint] = {
    "FP8": Checkpoint("modelopt", "fp8", 8.0),
    "FP8_PER_CHANNEL_PER_TOKEN": Checkpoint("modelopt", "fp8", 8.0),
    "FP8_PB_WO": Checkpoint("modelopt", "fp8", 8 + 32 / 128**2, block=(128, 128)),
    "MXFP8": Checkpoint("modelopt", "fp8", 8.25, group=32),
    "NVFP4": Checkpoint("modelopt", "fp4", 4.5, group=16),
    "W4A16_NVFP4": Checkpoint("modelopt", "int4", 4.5, group=16),  # expanded to the engine's dtype
}


def _algorithm(keys: _Keys, kv: Literal["fp8"] | None) -> Checkpoint:
    name = str(keys.values.get("quant_algo")).upper()
    if name not in _ALGORITHMS:
        raise keys.fault("quant_algo", ", ".join([*_ALGORITHMS, "MIXED_PRECISION with quantized_layers"]))
    return replace(_ALGORITHMS[name], kv=kv)


def _modelopt(keys: _Keys) -> Quantisation:
    """NVIDIA's; `hf_quant_config.json` has the same keys one level down."""
    inner = keys.section("quantization") if "quantization" in keys.values else keys
    kept = inner.values.get("kv_cache_quant_algo")
    if kept is not None and str(kept).upper() != "FP8":
        raise inner.fault("kv_cache_quant_algo", "FP8, or none")
    kv: Literal["fp8"] | None = "fp8" if kept is not None else _kv(inner)
    ignored = _matching(inner.listed("exclude_modules") + inner.listed("ignore"))
    if str(inner.values.get("quant_algo")).upper() != "MIXED_PRECISION":
        return Quantisation((), _algorithm(inner, kv), ignored)
    layers = inner.section("quantized_layers")
    rest = _fp8(keys) if keys.values.get("quant_method") == "fp8" else None  # a checkpoint in fp8 with other experts
    names: dict[Checkpoint, list[str]] = {}
    for name in layers.values:
        names.setdefault(_algorithm(layers.section(name), kv), []).append(name)
    rules = tuple((_matching(listed), found) for found, listed in names.items())
    return Quantisation(rules, rest, ignored if rest is None else _matching([]))


_QUARK: dict[tuple[str, str], tuple[Weights, float]] = {  # dtypes of weights and inputs -> type, bits without scales
    ("fp8_e4m3", "fp8_e4m3"): ("fp8", 8.0),
    ("int8", "int8"): ("int8", 8.0),
    ("fp4", "fp4"): ("fp4", 4.0),
    ("fp4", "fp8_e4m3"): ("w4a8", 4.0),
    ("int4", "None"): ("int4", 4.0),
    ("uint4", "None"): ("int4", 4.0),
}


def _quark(keys: _Keys) -> Quantisation:
    """AMD's: one setting for all layers, others by pattern; the KV type is the output's of `kv_cache_group`."""
    layers, kept = keys.section("layer_quant_config"), keys.section("export").listed("kv_cache_group")
    group = next((layers.section(name) for name in layers.values if name in kept), None)
    kv: Literal["fp8"] | None = None
    if group is not None:
        output = group.section("output_tensors")
        if output.values.get("dtype") != "fp8_e4m3":
            raise output.fault("dtype", "fp8_e4m3")
        kv = "fp8"
    rest = _quark_group(keys.section("global_quant_config"), kv)
    rules = [(_matching([name]), _quark_group(layers.section(name), kv)) for name in layers.values]
    return Quantisation(
        tuple((names, found) for names, found in rules if found is not None), rest, _matching(keys.listed("exclude"))
    )


def _quark_group(keys: _Keys, kv: Literal["fp8"] | None) -> Checkpoint | None:
    weights, inputs = keys.section("weight"), keys.section("input_tensors")
    if not weights.values:
        return None
    found = _QUARK.get((str(weights.values.get("dtype")), str(inputs.values.get("dtype"))))
    if found is None:
        raise weights.fault("dtype", message("fp8_e4m3, int8 or fp4 beside the same input_tensors, int4 beside none"))
    name, bits = found
    group, block = max(0, weights.whole("group_size", 0)), weights.block("block_size")
    scale = 8 if name == "fp4" or name == "w4a8" else 16
    stored = bits + (scale / group if group else 0.0) + (32 / (block[0] * block[1]) if block else 0.0)
    return Checkpoint("quark", name, stored, group=group, block=block, kv=kv)


_TORCHAO: dict[str, tuple[Weights, float, int]] = {  # its configuration -> type, bits, weights of a scale
    "Float8DynamicActivationFloat8WeightConfig": ("fp8", 8.0, 0),
    "Float8WeightOnlyConfig": ("w8a16", 8.0, 0),
    "Int8DynamicActivationInt8WeightConfig": ("int8", 8.0, 0),
    "Int8WeightOnlyConfig": ("w8a16", 8.0, 0),
    "Int4WeightOnlyConfig": ("int4", 4.0, 128),
}


def _torchao(keys: _Keys) -> Checkpoint:
    """PyTorch's: `quant_type` holds one configuration for all linear layers, as vLLM wants it."""
    kind = keys.section("quant_type").section("default")
    name = str(kind.values.get("_type"))
    if name not in _TORCHAO:
        raise kind.fault("_type", ", ".join(_TORCHAO))
    weights, bits, group = _TORCHAO[name]
    group = kind.section("_data").whole("group_size", group) if group else 0
    return Checkpoint(
        "torchao", weights, bits + (32 / group if group else 0.0), group=group
    )  # a scale and a zero point


def _alone(reader: Callable[[_Keys], Checkpoint]) -> Callable[[_Keys], Quantisation]:
    """One type for all that the config does not keep out."""
    return lambda keys: Quantisation((), reader(keys), _matching(keys.listed("modules_to_not_convert")))


_METHODS: dict[str, Callable[[_Keys], Quantisation]] = {
    "fp8": _alone(_fp8),
    "fbgemm_fp8": _alone(lambda keys: _blocks("fbgemm_fp8", None)),
    "gptq": _alone(_integers),
    "awq": _alone(_integers),
    "auto-round": _alone(_integers),
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": _alone(_mxfp4),
    "bitsandbytes": _alone(_bitsandbytes),
    "quark": _quark,
    "torchao": _alone(_torchao),
}


def quantisation(config: dict[str, Any], where: str) -> Quantisation | None:
    """What the checkpoint says; None when its weights are plain. Raises SpecError for what is not covered."""
    key = "compression_config" if config.get("quantization_config") is None else "quantization_config"
    found = config.get(key)
    if found is None:
        return None
    if not isinstance(found, dict):
        raise SpecError(
            "{where}: {key}: {value!r} is not a section; allowed: a section with quant_method", where, key, found
        )
    method = found.get("quant_method")
    if "quant_algo" in found and method in (None, "fp8"):
        method = "modelopt"  # which leaves its name out
    reader = _METHODS.get(method) if isinstance(method, str) else None
    if reader is None:
        raise SpecError(
            "{where}: {key}: {method!r} is not covered; allowed: {methods}", where, key, method, ", ".join(_METHODS)
        )
    read = reader(_Keys(found, f"{where}: {key}"))
    if config.get("expert_dtype") == "fp4" and not read.rules:  # DeepSeek-V4
        return replace(read, rules=((_matching(["re:.*experts.0"]), Checkpoint(str(method), "int4", 4.25)),))
    return read
