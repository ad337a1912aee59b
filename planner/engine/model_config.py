"""A Hugging Face `config.json` -> `ModelShape`. One entry of FAMILIES per model type; others are refused."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.engine.catalogue import names, read_entry
from planner.engine.checkpoint import Checkpoint, Quantisation, quantisation
from planner.engine.config_reader import Reader, text_config
from planner.engine.families import FAMILIES, family
from planner.engine.hub_ids import HUB_ID, all_shipped, entry_of, told_by_name
from planner.engine.layers import NO_KV, Kind, KvLayer, Layer
from planner.engine.mlps import CHOSEN, EXPERTS
from planner.engine.model_shape import Bits, ModelShape, Parameters
from planner.engine.vision import vision_parameters
from planner.messages import Message, message
from planner.spec import SpecError
from planner.spec.faults import unknown
from planner.spec.strict_yaml import read_text


@dataclass(frozen=True)
class ModelConfig:
    """The Hugging Face keys of a model and where they were read. `folder`: of a local checkpoint."""

    name: str
    config: dict[str, Any]
    where: str
    folder: Path | None = None


DTYPES = {"bfloat16": 2, "float16": 2, "float32": 4}  # bytes


def _catalogued(name: str) -> ModelConfig:
    path, entry = entry_of(name)
    config = entry.get("config")
    if not isinstance(config, dict) or not isinstance(entry.get("source"), str):
        raise SpecError(
            "{path}: config or source is missing; allowed: Hugging Face keys, and where they are from", path
        )
    return ModelConfig(name, config, str(path))


def _fetched(hub_id: str) -> Path | None:
    """The config.json of a hub model in Hugging Face's cache; None when it was never fetched."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    kept = cache / f"models--{hub_id.replace('/', '--')}"
    main = kept / "refs" / "main"
    file = kept / "snapshots" / main.read_text().strip() / "config.json" if main.is_file() else None
    return file if file is not None and file.is_file() else None


def _of_hub(hub_id: str) -> ModelConfig | None:
    """Figures of a hub model: those that were fetched, else the catalogue's own. Nothing is downloaded here."""
    file = _fetched(hub_id)
    if file is not None:
        found = model_config(str(file))
        return ModelConfig(hub_id.partition("/")[2].lower(), found.config, found.where)
    ours = all_shipped().get(hub_id.lower())
    if ours is None:
        return None
    entry = _catalogued(ours.entry)
    if not ours.changes:
        return entry
    return ModelConfig(hub_id.partition("/")[2].lower(), entry.config | ours.changes, entry.where)


def parsed(text: str, file: object, kind: str) -> dict[str, Any]:
    """The JSON object that a file of a model holds; `kind` is what Hugging Face calls it. Raises SpecError."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(
            "{file}: line {line}: not valid JSON ({fault}); allowed: a {kind}", file, error.lineno, error.msg, kind
        ) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, or lists in lists
        raise SpecError("{file}: not JSON that can be read ({fault}); allowed: a {kind}", file, error, kind) from None
    if not isinstance(found, dict):
        raise SpecError("{file}: holds no JSON object; allowed: a Hugging Face {kind}", file, kind)
    return found


def _json(file: Path, kind: str) -> dict[str, Any]:
    return parsed(read_text(file, message("a Hugging Face {file}", kind)), file, kind)


def _not_there(name: str, hub: bool) -> Message:
    """What is unknown, and what to write instead."""
    if not hub:
        return message("{fault}, or a folder with a config.json", unknown(name, names("models")))
    fetch = f"hf download {name} --include '*config.json'"  # hf_quant_config.json too, where there is one
    like = told_by_name(name)
    stored = like is not None and model_config(like.model).config.get("quantization_config") is not None
    if like is None or like.quantised is not None and (like.quantization is None or stored):
        return message(
            "{fault}, or a folder with a config.json; a hub id once `{command}` has fetched its figures",
            unknown(name, names("models")),
            fetch,
        )
    shape: str = like.model
    if like.quantization is not None:
        shape = message("{model} with engine.quantization: {bits}", like.model, like.quantization)
    return message(
        "the figures of {name} do not ship; allowed: {shape}, as its name says, or the id itself once `{command}` has "
        "fetched them",
        name,
        shape,
        fetch,
    )


def model_config(name_or_path: str) -> ModelConfig:
    """The config of a catalogue name, a folder, a `config.json` or a hub id. Raises SpecError."""
    if "/" not in name_or_path and name_or_path in names("models"):
        return _catalogued(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.exists():
        hub = HUB_ID.fullmatch(name_or_path) is not None
        found = _of_hub(name_or_path) if hub else None
        if found is not None:
            return found
        raise SpecError("model: {fault}", _not_there(name_or_path, hub))
    file = path / "config.json" if path.is_dir() else path
    if file.suffix in (".yaml", ".yml"):
        entry = read_entry(file)
        config = entry.get("config")
        if not isinstance(config, dict):
            raise SpecError("{file}: config is missing; allowed: Hugging Face keys", file)
        return ModelConfig(file.stem, config, str(file))
    config = _json(file, "config.json")
    beside = file.parent / "hf_quant_config.json"  # modelopt's; read by vLLM where config.json does not say
    if config.get("quantization_config") is None and beside.is_file():
        config["quantization_config"] = {
            "quant_method": "modelopt",
            **_json(beside, beside.name),
        }
    return ModelConfig(file.resolve().parent.name, config, str(file), file.parent)


def _dtype(config: dict[str, Any], where: str) -> str:
    dtype = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in DTYPES:
        raise SpecError("{where}: torch_dtype: {fault}", where, unknown(dtype, list(DTYPES)))
    return dtype


@dataclass
class _Sums:
    """Counts and bits of the weights of each kind, and how most of the quantised ones are stored."""

    counts: Counter[Kind]
    bits: dict[Kind, float]
    stored: Counter[tuple[Checkpoint, bool]]

    def average(self, *kinds: Kind, default: float) -> float:
        count = sum(self.counts[kind] for kind in kinds)
        return sum(self.bits[kind] for kind in kinds) / count if count else default

    @property
    def checkpoint(self) -> Checkpoint | None:
        if not self.stored:
            return None
        most = max(self.stored, key=lambda key: self.stored[key])[0]
        return replace(most, routed_only=all(routed for _, routed in self.stored))


def _sums(layers: list[Layer], stored: Quantisation | None, plain: float) -> _Sums:
    found = _Sums(Counter(), defaultdict(float), Counter())
    for number, layer in enumerate(layers):
        for matrix in layer.matrices:
            kind, routed = matrix.kind, matrix.kind == "routed"
            how = None
            if stored is not None and kind not in ("router", "norms") and matrix.count:
                how = stored.of(f"layers.{number}.{matrix.path}", routed)
            if how is not None:
                found.stored[how, routed] += matrix.count
            found.counts[kind] += matrix.count
            found.bits[kind] += matrix.count * (plain if how is None else how.bits)
    return found


def _pair_dim(read: Reader, kv: list[KvLayer]) -> int:
    """Numbers per head that a query-key pair touches in QK and AV together."""
    if read.count("kv_lora_rank"):
        return read.whole("qk_nope_head_dim") + read.whole("qk_rope_head_dim") + read.whole("v_head_dim")
    return max((layer.numbers for layer in kv if layer.heads), default=0)


def shape(name: str, config: dict[str, Any], where: str) -> ModelShape:
    """The arithmetic of one config. Raises SpecError for model types and quantisations that are not covered."""
    read = Reader(text_config(config), where)
    kind = str(read.config.get("model_type"))
    found = family(kind)
    if found is None:
        raise SpecError(
            "{where}: model_type: {kind!r} is not covered; allowed: {families}", where, kind, ", ".join(FAMILIES)
        )
    hidden, heads, vocab, count = read.hidden, read.heads, read.vocab, read.layers
    dtype, tied = _dtype(read.config, where), read.flag("tie_word_embeddings", found.tied)
    plain = 8.0 * DTYPES[dtype]
    layers = [found.layer(read, number) for number in range(count)]
    stored = quantisation(read.config, where)
    sums, embedding = _sums(layers, stored, plain), vocab * hidden
    head = None if stored is None or tied else stored.of("lm_head", routed=False)
    kv = [layer.kv or NO_KV for layer in layers]
    moe = tuple(any(matrix.kind == "routed" for matrix in layer.matrices) for layer in layers)
    mixture = found.mixture if any(moe) else None
    widths = [
        matrix.count
        for layer in layers
        for matrix in layer.matrices
        if matrix.kind == "mlp" and "down_proj" in matrix.path
    ]
    longest = read.whole(
        "max_position_embeddings", "n_positions", "model_max_length", "max_sequence_length", "seq_length"
    )
    counts, of_memory = sums.counts, next((read.config[key] for key in found.state_type if key in read.config), dtype)
    return ModelShape(
        name=name,
        family=kind,
        layers=count,
        hidden=hidden,
        heads=heads,
        kv_heads=read.kv_heads,
        head_dim=read.head_dim,
        vocab=vocab,
        intermediate=max(widths, default=0) // hidden or (mixture.width(read) if mixture else 0),
        max_position=longest,
        tied_embeddings=tied,
        dtype=dtype,
        parameters=Parameters(
            embedding=embedding,
            head=0 if tied else embedding,
            attention=counts["attention"] + counts["kv"],
            kv=counts["kv"],
            mlp=counts["mlp"],
            shared=counts["shared"],
            router=counts["router"],
            routed=counts["routed"],
            norms=counts["norms"] + found.beside_layers(read),
            vision=vision_parameters(config, hidden),
        ),
        kv=tuple(kv),
        bits=Bits(
            attention=sums.average("attention", "kv", default=plain),
            mlp=sums.average("mlp", default=plain),
            shared=sums.average("shared", default=plain),
            routed=sums.average("routed", default=plain),
            head=plain if head is None else head.bits,
        ),
        experts=read.whole(*EXPERTS) if mixture else 0,
        experts_per_token=read.whole(*CHOSEN) if mixture else 0,
        expert_intermediate=mixture.width(read) if mixture else 0,
        shared_intermediate=mixture.shared_width(read) if mixture else 0,
        moe_layers=moe if mixture else (),
        latent_dim=read.whole("kv_lora_rank") + read.whole("qk_rope_head_dim") if read.count("kv_lora_rank") else 0,
        pair_dim=_pair_dim(read, kv),
        state=tuple(layer.state for layer in layers),
        state_dtype=str(of_memory),
        kv_dtype_bytes=plain / 8,
        checkpoint=sums.checkpoint,
        wide_norms=sum(layer.wide_norms for layer in layers),
    )


@lru_cache(maxsize=64)
def load_model(name_or_path: str) -> ModelShape:
    """A catalogue name, a Hugging Face folder, its `config.json`, or a hub id. Raises SpecError with one line."""
    found = model_config(name_or_path)
    return shape(found.name, found.config, found.where)
