"""A GPU's memory as vLLM counts it when it starts: what weights, a profiling step and the runtime leave for KV.

Up to release 0.19: llm-d-incubation/llm-d-planner, `accuracy/accuracy_report.md` (875a4fd, Apache-2.0), an H100 of
79.19 GiB at utilisation 0.95. After it: starts of 0.25.1 on H200s at 0.92, which take CUDA graphs off the pool too.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.engine.setup import Setup
from planner.spec import Engine

GIB = 1 << 30
RELEASE = (0, 32)  # what is meant where nothing is said
Release = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each GPU. `non_torch`: NCCL's buffers and what else the allocator does not see."""

    usable: float  # physical memory times gpu_memory_utilization
    weights: int
    activation: int
    non_torch: int
    graphs: int  # CUDA graphs, where they are taken off before the KV pool is made

    @property
    def kv(self) -> float:
        """What is left; negative when the model does not fit."""
        return self.usable - self.weights - self.activation - self.non_torch - self.graphs


@dataclass(frozen=True, slots=True)
class _Runtime:
    """What one range of releases keeps, in GiB; `sampling`: bytes for each sequence and word of the vocabulary."""

    sampling: float
    alone: float  # non-torch at TP 1
    together: float  # and beyond
    graphs: float = 0.0
    mixture: float = 0.0  # workspaces of the experts' kernels


# First release of each range. Sampling sorts the float32 logits of every sequence up to 0.19, and copied them more
# often up to 0.16 (Qwen3-14B: 5.64 GiB, then 2.23). The last row is Llama-3.1-8B at TP 1 (919,824 KV tokens with a
# budget of 8,192) and at TP 2 (1,961,168), and Qwen3-30B-A3B (744,656).
_RUNTIMES: dict[Release, _Runtime] = {
    (0, 0): _Runtime(38.9, 0.13, 2.1),
    (0, 17): _Runtime(15.35, 0.13, 2.1),
    (0, 18): _Runtime(15.35, 0.25, 2.1),
    (0, 20): _Runtime(4.0, 0.25, 0.39, graphs=0.483, mixture=2.25),
}


def release_of(engine: Engine) -> Release:
    """(major, minor) of the vLLM that an engine is said to be."""
    if engine.vllm_release is None:
        return RELEASE
    major, minor = engine.vllm_release.split(".")[:2]
    return int(major), int(minor)


def _activation_bytes(setup: Setup, budget: int, seqs: int, runtime: _Runtime) -> int:
    """Peak of vLLM's profiling run: the MLP's gate, up and product of a full step, its experts', or the sampler's.

    Checked on two H200 runs whose budgets differ by 8,192 tokens: 86,016 bytes a token here, 88,320 measured.
    """
    model, tp = setup.model, setup.tp
    mlp = budget * 3 * (model.intermediate // tp) * model.dtype_bytes
    width = model.expert_intermediate // tp
    routed = budget * model.experts_per_token * (max(2 * width, model.hidden) + width) * model.dtype_bytes
    if setup.ranks > 1:  # tokens of all ranks come together before the experts
        routed += budget * setup.ranks * model.hidden * model.dtype_bytes
    sampling = seqs * model.vocab * runtime.sampling
    if runtime.sampling <= 4.0:
        sampling += budget * model.hidden * model.dtype_bytes
    workspace = runtime.mixture * GIB if model.experts else 0.0
    return round(max(mlp, routed if model.experts else 0, sampling) + workspace)


def _runtime(release: Release) -> _Runtime:
    return _RUNTIMES[max(first for first in _RUNTIMES if first <= release)]


def memory(setup: Setup, budget: int, seqs: int) -> Memory:
    """`budget` and `seqs` are a step's most tokens and sequences."""
    hardware, engine = setup.hardware, setup.options
    gpu = hardware.kind == "gpu"
    runtime = _runtime(release_of(engine) if gpu else RELEASE)
    return Memory(
        usable=hardware.usable_bytes * engine.gpu_memory_utilization,
        weights=setup.model.weight_bytes_per_gpu(setup.parallel),
        activation=_activation_bytes(setup, budget, seqs, runtime),
        non_torch=round((runtime.alone if setup.tp * setup.ranks == 1 else runtime.together) * GIB) if gpu else 0,
        graphs=round(runtime.graphs * GIB) if gpu and not engine.enforce_eager else 0,
    )
