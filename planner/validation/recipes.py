"""How InferenceX served the rows of configs/public: the options its scripts give vLLM, which the rows do not hold.

Read in SemiAnalysisAI/InferenceX (Apache-2.0), `benchmarks/`: 70b_fp8_h100_slurm.sh (2a205bb3), 70b_fp4_b200_docker.sh
(bb4c7f93), gptoss_fp4_b200.sh and gptoss_fp4_h100.sh (1fc5d73c), single_node/minimaxm2.5_fp8_b200.sh (07e171a3, its
later form in fixed_seq_len: 8eec0d4e), minimaxm2.5_fp4_b200.sh (56245be3, 45c4f91e), minimaxm2.5_fp8_h200.sh
(53605e05), kimik2.5_fp4_b200.sh (04107b3d), kimik2.5_int4_h200.sh (34bc7c40).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Release = tuple[int, int]
NEWEST: Release = (1 << 30, 0)

BLACKWELL = ("b200", "b300", "gb200", "gb300")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Options of one script; `until` is the first release that a later form of it serves."""

    model: str  # part of the row's model, in lower case
    gpus: tuple[str, ...] = ()  # of the catalogue; none: all that no line above names
    precision: str | None = None
    until: Release = NEWEST
    kv: Literal["auto", "fp8"] = "auto"
    utilisation: float = 0.9
    seqs: int | None = None  # max_num_seqs; None: the row's requests in flight
    graph: int | None = None  # max_cudagraph_capture_size
    prompts: int | None = None  # max_num_batched_tokens in prompts of the row's length; None: `BUDGET`
    block_size: int | None = None
    whole_experts: bool = False  # --enable-expert-parallel, whatever the row says


BUDGET = 8192
RECIPES: tuple[Recipe, ...] = (
    Recipe("llama-3.1-70b", BLACKWELL, kv="fp8", seqs=512),
    Recipe("llama-3.1-70b"),  # its script says fp8; the rows wait for KV as bfloat16 does
    Recipe("gpt-oss", BLACKWELL, kv="fp8", seqs=512, graph=2048),
    Recipe("gpt-oss", graph=2048),
    Recipe("minimax-m2", BLACKWELL, "fp4", until=(0, 19), kv="fp8"),
    Recipe("minimax-m2", BLACKWELL, until=(0, 19), utilisation=0.95, seqs=1024, block_size=32, whole_experts=True),
    Recipe("minimax-m2", BLACKWELL, kv="fp8", seqs=1024, graph=2048, prompts=2),
    Recipe("minimax-m2", ("h100",), seqs=256, whole_experts=True),
    Recipe("minimax-m2", utilisation=0.95, seqs=1024, whole_experts=True),
    Recipe("kimi-k2", (), "int4", utilisation=0.95),
    Recipe("kimi-k2", kv="fp8"),
)
ANY = Recipe("")


def recipe(model: str, gpu: str, precision: str, release: str) -> Recipe:
    """Of a row's script: the first line that fits it. `gpu` is a name of the catalogue; `release` may be empty."""
    name = model.lower()
    numbers = [int(part) for part in release.split(".")[:2]] if release else [0, 0]
    for one in RECIPES:
        fits = one.model in name and (not one.gpus or gpu in one.gpus) and one.precision in (None, precision)
        if fits and (numbers[0], numbers[1]) < one.until:
            return one
    return ANY
