"""What kernels reach of a datasheet, by generation of GPU and how numbers are stored.

Hopper and Blackwell are fitted to public end-to-end rows (benchmarks/fit_roofline.py on configs/public); the others are
scaled from them by operator tables of aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0): matrix products of 4,096 to
8,192 rows, attention over 8,192 tokens, reads of weights by at most 16 rows. What neither holds is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from planner.engine.catalogue import Dtype, Hardware

# How weights lie in memory. int4: any weights alone that are expanded before the product; mxfp4: gpt-oss's experts.
Kind = Literal["plain", "fp8", "fp4", "int4", "mxfp4"]


@dataclass(frozen=True)
class Rates:
    """Shares of the peak, and seconds that kernels take besides. Experts' products are of the peak of their dtype."""

    weights: Mapping[Kind, float]
    experts: Mapping[Kind, float]
    kv: float
    products: Mapping[Dtype, float]
    expert_products: Mapping[Kind, float]
    attention: float
    layer_s: float  # of a layer in any step
    launch_layer_s: float  # the host's to launch its kernels one by one: felt where the GPU is done before
    expert_kernels: Mapping[Kind, float]  # how much of planner.engine.roof.EXPERTS_S a step takes: fused kernels less
    all_reduce_s: float  # a small one among two GPUs
    all_reduce: float  # share of NVLink's bandwidth that a large one reaches
    # Kernels that convert numbers of 8 bits and do so no faster where memory is: 1e9 bytes a second of one GPU.
    kv8_gb_s: float = math.inf  # attention over an fp8 cache
    tile8_gb_s: float = math.inf  # fp8 products of more rows than `planner.engine.roof.Roof.tile_rows`


_SAME: dict[Kind, float] = {"plain": 0.8, "fp8": 0.8, "fp4": 0.8, "int4": 0.8, "mxfp4": 0.8}
_HALF: dict[Dtype, float] = {"bf16": 0.6, "fp16": 0.6, "fp32": 0.6, "fp8": 0.6, "int8": 0.6, "fp4": 0.6}
_ONE: dict[Kind, float] = dict.fromkeys(_SAME, 1.0)
OTHER = Rates(_SAME, _SAME, 0.8, _HALF, dict.fromkeys(_SAME, 0.3), 0.5, 0.0, 0.1e-3, _ONE, 15e-6, 0.48)


def _of(
    weights: float, fp4: float, kv: float, products: tuple[float, float, float], attention: float, prompts: float
) -> Rates:
    """A generation known by operator tables: what they do not hold is Hopper's."""
    bf16, eight, four = products
    return Rates(
        weights={"plain": weights, "fp8": weights, "fp4": fp4, "int4": weights, "mxfp4": weights},
        experts=HOPPER.experts,
        kv=kv,
        products={"bf16": bf16, "fp16": bf16, "fp32": bf16, "fp8": eight, "int8": eight, "fp4": four},
        expert_products={"plain": 0.36, "fp8": 0.25, "fp4": 0.25, "int4": 0.36, "mxfp4": 0.36},
        attention=attention,
        layer_s=HOPPER.layer_s,
        launch_layer_s=prompts,
        expert_kernels=_ONE,
        all_reduce_s=HOPPER.all_reduce_s,
        all_reduce=HOPPER.all_reduce,
    )


HOPPER = Rates(
    weights={"plain": 0.79, "fp8": 0.808, "fp4": 0.79, "int4": 0.79, "mxfp4": 0.79},
    experts={"plain": 0.8, "fp8": 0.921, "fp4": 0.6, "int4": 0.661, "mxfp4": 0.925},
    kv=0.751,
    products={"bf16": 0.705, "fp16": 0.705, "fp32": 0.705, "fp8": 0.63, "int8": 0.63},
    expert_products={"plain": 0.55, "fp8": 0.0973, "fp4": 0.18, "int4": 0.14, "mxfp4": 0.166},
    attention=0.749,
    layer_s=1.86e-05,
    launch_layer_s=0.000394,
    expert_kernels=_ONE,
    all_reduce_s=1.63e-05,
    all_reduce=0.455,
    # An H200 reads a token's KV in 0.68 of the time in vLLM's tables of fp8, an H100 in 0.53 (8 KV heads of 128).
    kv8_gb_s=2650.0,
    # Llama-3.1-70B on one H200, whose steps of 17 to 64 sequences took 1.31 times those of 16; tables of H100: 1.05.
    tile8_gb_s=2760.0,
)
BLACKWELL = Rates(
    weights={"plain": 0.64, "fp8": 0.654, "fp4": 0.458, "int4": 0.64, "mxfp4": 0.64},
    experts={"plain": 0.8, "fp8": 0.865, "fp4": 0.794, "int4": 0.432, "mxfp4": 0.994},
    kv=0.889,
    products={"bf16": 0.76, "fp16": 0.76, "fp32": 0.76, "fp8": 0.434, "int8": 0.5, "fp4": 0.384},
    expert_products={"plain": 0.45, "fp8": 0.106, "fp4": 0.218, "int4": 0.0719, "mxfp4": 0.526},
    attention=0.478,
    layer_s=2.17e-05,
    launch_layer_s=0.000697,
    expert_kernels={"plain": 1.0, "fp8": 0.55, "fp4": 0.42, "int4": 1.0, "mxfp4": 0.55},
    all_reduce_s=9.83e-06,
    all_reduce=0.233,
)

# By the major part of the compute capability, and all of it where that says more.
GENERATIONS: dict[str, Rates] = {
    "8": _of(0.72, 0.72, 0.65, (0.75, 0.7, 0.5), 0.44, 0.35e-3),
    "8.9": _of(0.8, 0.8, 0.8, (0.55, 0.5, 0.5), 0.43, 0.35e-3),
    "9": HOPPER,
    "10": BLACKWELL,
    "12": _of(0.85, 0.6, 0.88, (0.7, 0.67, 0.55), 0.45, 0.5e-3),
}


def rates(hardware: Hardware) -> Rates:
    """Of a GPU; `OTHER` for a CPU and for what nobody measured."""
    capability = hardware.compute_capability if hardware.kind == "gpu" else None
    if capability is None:
        return OTHER
    return GENERATIONS.get(capability) or GENERATIONS.get(capability.partition(".")[0]) or OTHER
