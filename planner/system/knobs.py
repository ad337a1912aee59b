"""What the knobs of a step do to its time and to an engine's memory. What happens between workers is the simulator's.

Each class is a `StepTime` around another one. Costs come from the model's shape and the hardware's datasheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.engine.engine_limits import EngineLimits
from planner.engine.law import bounds
from planner.engine.profiles import LatencyProfile
from planner.engine.roof import ALL_REDUCE_S, MATMUL_EFFICIENCY, MEMORY_EFFICIENCY, Roof
from planner.engine.setup import Setup
from planner.engine.step_time import StepTime
from planner.spec import SpecError
from planner.spec.optimizations import Optimizations, Tier

PCIE_EFFICIENCY = 0.8  # of the nominal rate, for large copies: see configs/links/pcie4.yaml

Chunks = Sequence[tuple[int, int]]


def pairs(new: int, done: int) -> float:
    """Query-key pairs of `new` tokens after `done` ones."""
    return new * (done + 0.5 * new)


def selected_pairs(new: int, done: int, keys: int) -> float:
    """The same when no query attends to more than `keys`."""
    if done >= keys:
        return float(new * keys)
    if done + new <= keys:
        return pairs(new, done)
    return 0.5 * (keys * keys - done * done) + (done + new - keys) * keys


@dataclass(frozen=True)
class Sparse:
    """Prompts attend to `keys` tokens; an indexer looks at all. Decodes are left as they are."""

    inner: StepTime
    pair_s: float
    keys: int
    indexer: float

    def decode(self, batch: int) -> tuple[float, float]:
        return self.inner.decode(batch)

    def mixed(self, chunks: Chunks, batch: int, context: float) -> float:
        every = sum(pairs(new, done) for new, done in chunks)
        kept = sum(selected_pairs(new, done, self.keys) for new, done in chunks)
        return self.inner.mixed(chunks, batch, context) + self.pair_s * (kept - every + self.indexer * every)

    def launch(self, tokens: int, batch: int) -> float:
        return self.inner.launch(tokens, batch)


@dataclass(frozen=True)
class Resident:
    """Persistent decode kernels: no launches, but fewer multiprocessors for prompts."""

    inner: StepTime
    removed_s: float
    floor_s: float
    share: float

    def decode(self, batch: int) -> tuple[float, float]:
        base, slope = self.inner.decode(batch)
        return max(base - self.removed_s, min(base, self.floor_s)), slope

    def mixed(self, chunks: Chunks, batch: int, context: float) -> float:
        prompts = self.inner.mixed(chunks, 0, 0)
        return self.inner.mixed(chunks, batch, context) + prompts * (1 / (1 - self.share) - 1)

    def launch(self, tokens: int, batch: int) -> float:
        return self.inner.launch(tokens, batch)


@dataclass(frozen=True)
class TwoStreams:
    """Prompts and decodes side by side; both read the weights, and each has part of the multiprocessors."""

    inner: StepTime
    decode_share: float
    bandwidth_share: float

    def decode(self, batch: int) -> tuple[float, float]:
        return self.inner.decode(batch)

    def mixed(self, chunks: Chunks, batch: int, context: float) -> float:
        prompts = self.inner.mixed(chunks, 0, 0)
        if not batch:
            return prompts
        base, slope = self.inner.decode(batch)
        decodes = (base + slope * context) / min(1.0, self.decode_share / self.bandwidth_share)
        return max(prompts / (1 - self.decode_share), decodes)

    def launch(self, tokens: int, batch: int) -> float:
        return self.inner.launch(tokens, batch)


@dataclass(frozen=True)
class MicroBatches:
    """The decode batch in `count` parts: each reads the weights; its all-reduces hide behind the kernels of others."""

    inner: StepTime
    count: int
    reduce_s: float  # all-reduces of one part
    layers: int

    def decode(self, batch: int) -> tuple[float, float]:
        base, slope = self.inner.decode(batch)
        if batch < self.count:
            return base, slope
        sizes = [batch // self.count + (part < batch % self.count) for part in range(self.count)]
        kernels = sum(max(self.inner.decode(size)[0] - self.reduce_s, 0.0) for size in sizes)
        exposed = self.reduce_s / self.layers  # of the last layer
        return max(kernels, self.count * self.reduce_s) + exposed, slope

    def mixed(self, chunks: Chunks, batch: int, context: float) -> float:
        return self.inner.mixed(chunks, batch, context)

    def launch(self, tokens: int, batch: int) -> float:
        return self.inner.launch(tokens, batch)


def _keys_alone(setup: Setup, profile: LatencyProfile) -> tuple[float, float]:
    """(decode, chunk) seconds more for each token attended to: half is not read, its values are computed from keys."""
    model = setup.model
    if model.latent_dim:
        raise SpecError(
            "optimizations.decode.key_only: {name} keeps one latent vector, not keys and values; "
            "allowed: models with a KV cache of both",
            model.name,
        )
    width = model.kv_heads * model.head_dim
    flops = 2 * width * width * model.layers / setup.tp
    rate = setup.hardware.flops("bf16") * MATMUL_EFFICIENCY
    read_s = bounds(Roof(setup)).decode_per_context_s / MEMORY_EFFICIENCY
    return flops / rate - min(read_s, profile.step.decode(1)[1]) / 2, flops / rate


def changed_step(profile: LatencyProfile, setup: Setup, knobs: Optimizations, decodes: bool) -> LatencyProfile:
    """The profile with the step-time knobs applied; `decodes`: not a prefill pool. Raises SpecError.

    Knobs that have no meaning for the model or the profile are refused.
    """
    step = profile.step
    prefill, decode = knobs.prefill, knobs.decode
    if prefill.sparse_attention is not None:
        if profile.file is None:
            raise SpecError("optimizations.prefill.sparse_attention: the profile has no law; allowed: fitted profiles")
        sparse = prefill.sparse_attention
        step = Sparse(step, profile.file.step.prefill_per_pair_s, sparse.keys, sparse.indexer_share)
    if decode.persistent is not None and decodes:
        floor_s = bounds(Roof(setup)).decode_s
        step = Resident(step, decode.persistent.removed_ms / 1e3, floor_s, decode.persistent.sm_share)
    if decode.micro_batches > 1:
        layers = setup.model.layers
        reduce_s = 2 * layers * ALL_REDUCE_S if setup.tp > 1 else 0.0
        step = MicroBatches(step, decode.micro_batches, reduce_s, layers)
    if prefill.streams is not None:
        step = TwoStreams(step, prefill.streams.decode_sm_share, prefill.streams.bandwidth_sm_share)
    return profile if step is profile.step else replace(profile, step=step)


def changed_limits(limits: EngineLimits, setup: Setup, profile: LatencyProfile, knobs: Optimizations) -> EngineLimits:
    """The limits with the memory knobs applied: long sequences that keep keys alone, room on the host.

    `profile` is the pool's, without the knobs of a step. Raises SpecError for a model without keys to keep.
    """
    decode, tp = knobs.decode, setup.tp
    block_bytes = limits.block_size * setup.kv_bytes_per_token  # on each of the tp GPUs
    pcie = setup.hardware.pcie_gb_s * 1e9 * PCIE_EFFICIENCY
    swap = int(decode.swap_gb * 1e9 / (block_bytes * tp)) if decode.preemption == "swap" else 0

    def tier(found: Tier) -> tuple[int, float, float]:
        read = min(found.read_gb_s * 1e9, pcie) if found.read_gb_s else pcie
        write = min(found.write_gb_s * 1e9, pcie) if found.write_gb_s else pcie
        return int(found.capacity_gb * 1e9 / (block_bytes * tp)), block_bytes / read, block_bytes / write

    if decode.key_only:
        decode_s, chunk_s = _keys_alone(setup, profile)
        limits = replace(
            limits, keys_above_tokens=decode.key_only_above_tokens, keys_decode_s=decode_s, keys_chunk_s=chunk_s
        )
    return replace(
        limits,
        swap_blocks=swap,
        swap_s_per_block=block_bytes / pcie,
        tiers=tuple(tier(found) for found in decode.offload),
    )
