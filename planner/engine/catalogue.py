"""The shipped catalogues: hardware, links, models and profiles, one YAML file an entry."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from planner.messages import message
from planner.spec import Factor, Node, NonNegative, NonNegativeInt, Positive, PositiveInt, SpecError, config_root
from planner.spec.faults import unknown, validate
from planner.spec.strict_yaml import read_mapping, read_text

Kind = Literal["models", "hardware", "links", "profiles"]
Dtype = Literal["bf16", "fp16", "fp32", "fp8", "int8", "fp4"]


class Hardware(Node):
    """One GPU (or, for `cpu`, one worker's share of a host). Rates are datasheet peaks without sparsity.

    `memory_gb` is the vendor's figure; what an engine can use is `usable_bytes`. `nic_gb_s` and `nvlink_gb_s` are per
    GPU and one direction. `gpu_runtime_mib` is what the driver and a CUDA context keep for themselves.
    """

    name: str
    title: str
    kind: Literal["gpu", "cpu"] = "gpu"
    memory_gb: Positive
    memory_mib: PositiveInt
    gpu_runtime_mib: NonNegativeInt = 0
    bandwidth_gb_s: Positive
    tflops: dict[Dtype, Positive]
    compute_capability: str | None = None
    multiprocessors: PositiveInt | None = None
    l2_mb: Positive | None = None  # cache that all multiprocessors share: planner.engine.shared_kv; None: not known
    nic_gb_s: Positive
    nvlink_gb_s: Positive | None = None
    pcie_gb_s: Positive
    tdp_w: Positive
    warm_slowing: Factor | None = None  # prompts, once they have run for long: planner.engine.warmth; None: not known
    price_per_gpu_hour: NonNegative | None = None
    sources: dict[str, str]

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        needed = {"memory_gb", "memory_mib", "bandwidth_gb_s", "tflops", "nic_gb_s", "pcie_gb_s", "tdp_w"}
        optional = ("l2_mb", "nvlink_gb_s", "price_per_gpu_hour", "warm_slowing")
        needed |= {key for key in optional if getattr(self, key) is not None}
        if missing := sorted(needed - set(self.sources)):
            raise ValueError(
                message("sources: no source for {missing}; allowed: one line of text each", ", ".join(missing))
            )
        return self

    @property
    def usable_bytes(self) -> int:
        """Memory that the engine sees before `gpu_memory_utilization` is applied."""
        return (self.memory_mib - self.gpu_runtime_mib) << 20

    @property
    def memory_bandwidth(self) -> float:
        """Bytes a second."""
        return self.bandwidth_gb_s * 1e9

    def flops(self, dtype: Dtype) -> float:
        """Peak operations a second at `dtype`; without units for it (fp8, int8, fp4) such weights compute in bf16."""
        rate = self.tflops.get(dtype) or self.tflops.get("bf16") or self.tflops["fp32"]
        return rate * 1e12


class LinkPreset(Node):
    """A wire as seen in the field: what one transfer alone gets, one direction."""

    name: str
    bandwidth_gb_s: Positive
    latency_us: NonNegative = 0.0
    setup_us: NonNegative = 0.0
    sharing: Literal["fair", "fifo"] = "fair"
    post_us: NonNegative = 0.0  # a descriptor, on the worker that posts; 0: not known, as of the two below
    way_ms: NonNegative = 0.0
    way_us_per_token: NonNegative = 0.0
    slowing: Factor = 1.0  # a prompt's step while KV is read from its GPU, where nothing is known of its warmth
    idle_look_ms: NonNegative = 0.0  # until an idle engine sees that a transfer has ended
    pull_beside: Factor = 1.0  # pull: posts while the GPU that is read from computes
    block_size: PositiveInt | None = None  # tokens of the KV blocks that hand-overs were measured with
    piece_bytes: PositiveInt | None = None  # of a descriptor, likewise
    pull_block_sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()  # more that pull was checked with
    push_block_sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()  # or push
    tp: PositiveInt | None = None  # of both engines
    source: Annotated[str, Field(min_length=1)]


def names(kind: Kind) -> list[str]:
    """What the catalogue holds."""
    return sorted(path.stem for path in (config_root() / kind).glob("*.yaml"))


KEYS: dict[Kind, str] = {  # what a deployment calls an entry of each kind
    "models": "model",
    "hardware": "hardware",
    "links": "deployment.link.preset",
    "profiles": "profile",
}


def find(kind: Kind, name_or_path: str) -> Path:
    """The file of an entry: its catalogue name or a path. Raises SpecError."""
    entry = config_root() / kind / f"{name_or_path}.yaml"
    if "/" not in name_or_path and entry.is_file():
        return entry
    path = Path(name_or_path).expanduser()
    if path.exists() and ("/" in name_or_path or path.suffix in (".yaml", ".yml", ".json")):
        return path
    meant = gpu_named(name_or_path) if kind == "hardware" else None
    raise SpecError("{kind}: {fault}, or a path", KEYS[kind], unknown(name_or_path, names(kind), meant))


def read_entry(path: Path) -> dict[str, Any]:
    """The keys of a catalogue's file, or of a user's. Raises SpecError."""
    return read_mapping(read_text(path), str(path), ours=path.is_relative_to(config_root()))


def words(text: str) -> list[str]:
    """Of a GPU's name, in small letters: "NVIDIA-A100-SXM4-80GB" has the word "80g" too."""
    found = re.split(r"[^a-z0-9]+", text.lower())
    return found + [word[:-1] for word in found if word.endswith("gb")]


def gpu_named(text: str) -> str | None:
    """The entry that a GPU's own name means, as drivers and node labels write it; None when it is not known."""
    there = words(text)
    parts = {name: name.split("-") for name in names("hardware")}
    meant = [name for name, own in parts.items() if own[0] in there and (own[0] != "rtx" or set(own) <= set(there))]

    def fit(name: str) -> tuple[int, int, float]:
        held = sum(part in there for part in parts[name])
        return held, held - len(parts[name]), hardware(name).memory_gb

    return max(meant, key=fit, default=None)


@lru_cache(maxsize=64)
def hardware(name_or_path: str) -> Hardware:
    """A hardware entry. Raises SpecError."""
    path = find("hardware", name_or_path)
    return validate(Hardware, read_entry(path), str(path))


@lru_cache(maxsize=64)
def link(name_or_path: str) -> LinkPreset:
    """A link preset. Raises SpecError."""
    path = find("links", name_or_path)
    return validate(LinkPreset, read_entry(path), str(path))
