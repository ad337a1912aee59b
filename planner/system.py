"""A spec with everything looked up: models, hardware, engine limits, latency, links and placement.

Both backends, `suggest` and `explain` work on a `System`; only this module knows vLLM's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from planner.catalogue import Hardware
from planner.model_shape import ModelShape
from planner.profiles import LatencyProfile
from planner.spec import Router, Spec

Role = Literal["aggregated", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What vLLM's scheduler obeys. `kv_blocks` is the number of usable blocks (vLLM's null block not counted)."""

    max_num_batched_tokens: int
    max_num_seqs: int
    block_size: int
    kv_blocks: int
    max_model_len: int
    prefix_caching: bool = True
    chunked_prefill: bool = True
    prefill_first: bool = False  # vLLM V0: waiting prompts before running decodes, never in one step
    async_scheduling: bool = False  # the next step is scheduled while one runs: arrivals join one step later
    long_prefill_token_threshold: int = 0
    reserve_full_prompt: bool = True
    watermark_blocks: int = 0


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One worker and where it stands."""

    name: str  # aggregated-0, prefill-1, decode-0
    node: str
    rack: str
    gpus: tuple[int, ...]  # indices within the node


@dataclass(frozen=True, slots=True)
class Pool:
    role: Role
    tp: int
    hardware: Hardware
    limits: EngineLimits
    profile: LatencyProfile
    router: Router
    workers: tuple[WorkerPlace, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """A resolved link class. Bandwidth in bytes a second, times in seconds; `source` says where it is from."""

    name: str
    bandwidth: float
    latency_s: float
    setup_s: float
    sharing: Literal["fair", "fifo"]
    source: str


@dataclass(frozen=True, slots=True)
class Wires:
    """The wires of a disaggregated deployment. `nic` is the uplink of each node in bytes a second."""

    intra_node: Wire
    inter_node: Wire
    inter_rack: Wire
    nic: dict[str, float]


@dataclass(frozen=True, slots=True)
class System:
    spec: Spec
    model: ModelShape
    pools: tuple[Pool, ...]  # (aggregated,) or (prefill, decode)
    wires: Wires | None  # None when aggregated
    kv_bytes_per_token: int  # of the whole model, summed over layers, before TP head replication

    @property
    def gpus(self) -> int:
        return sum(len(pool.workers) * pool.tp for pool in self.pools)

    @property
    def disaggregated(self) -> bool:
        return len(self.pools) == 2


def resolve(spec: Spec) -> System:
    """Look everything up. Raises `SpecError` when the model does not fit, TP does not divide, a name is unknown."""
    raise NotImplementedError
