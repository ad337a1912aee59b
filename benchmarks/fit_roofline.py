"""Fits the shares of planner.engine.rates and the seconds of planner.engine.roof to the public rows in configs/public.

    python benchmarks/fit_roofline.py [--every N] [--leave-out gpu|model|fifth [--write]]

In a closed loop which steps run depends on lengths, hardly on how long steps take: every row is simulated once, its
steps are kept with the weight that each has in the mean TTFT and TPOT, and the fit sums them under other rates. The
loss is robust (soft L1 from 12 %), TTFT and TPOT count alike, and so does every model, GPU, precision and TP. A weak
prior keeps what rows do not tell at operator tables (`OPERATORS`) and round figures (`ROUGH`); how far experts are from
their tables is held alike over generations and kinds of weights. Prints the values, and errors over all rows, or over
those whose GPU or model was left out of the fit: nothing of these is in it but which steps they run. A step with
prompts ends with the launch of its kernels where the GPU is done before.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner.backends import backend
from planner.engine import profiles, rates, roof
from planner.engine.law import Steps, guess, more_per_token, of_part
from planner.engine.model_config import load_model
from planner.engine.profiles import capture_sizes
from planner.engine.provenance import UNSEEN
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.engine.step_time import graph_size
from planner.spec import SpecError, config_root
from planner.system.resolve import resolve
from planner.traffic import workload
from planner.validation import public
from planner.validation.public import Errors, PublicRow, catalogued, read_rows, shipped_rows, spec_of

Array = NDArray[np.float64]
PRIOR, TIE, ROBUST = 0.3, 0.4, 0.12

# (module or generation, name, entry): what is fitted.
FITTED: list[tuple[str, str, Any]] = [
    *((major, name, None) for major in ("9", "10") for name in ("kv", "attention", "layer_s", "launch_layer_s")),
    *((major, name, None) for major in ("9", "10") for name in ("all_reduce_s", "all_reduce")),
    *((major, "products", dtype) for major in ("9", "10") for dtype in ("fp8",)),
    ("10", "products", "fp4"),
    *((major, "weights", kind) for major in ("9", "10") for kind in ("fp8",)),
    ("10", "weights", "fp4"),
    *((major, name, kind) for name in ("experts", "expert_products") for major in ("9", "10")
      for kind in ("fp8", "int4", "mxfp4")),
    *(("10", name, "fp4") for name in ("experts", "expert_products")),
    *(("roof", name, None) for name in ("STEP_S", "SEQUENCE_S", "DOUBLED_S", "EARLY_EXPERTS", "LAUNCH_RANKS")),
    ("profiles", "REQUEST_PER_TOKEN_S", None),
    *(("roof", name, at) for name in ("EXPERTS_S", "LATENT_S", "BLOCKS_S", "NORMS_S") for at in (0, 1)),
]  # fmt: skip
# Where a fit starts, and what its prior pulls to, for what `OPERATORS` does not say: round figures that no row has
# seen, the same for both generations. Bf16 products and plain weights are not fitted
# (planner.engine.rates has them from operator tables).
ROUGH: dict[str, float] = {
    "kv": 0.75, "layer_s": 10e-6, "launch_layer_s": 0.4e-3, "all_reduce_s": 15e-6, "STEP_S": 0.4e-3,
    "SEQUENCE_S": 10e-6, "DOUBLED_S": 5e-6, "EARLY_EXPERTS": 1.2, "LAUNCH_RANKS": 0.2,
    "REQUEST_PER_TOKEN_S": 3e-6,
}  # fmt: skip
ROUGH_PAIRS = {
    "EXPERTS_S": (40e-6, 60e-6), "LATENT_S": (10e-6, 60e-6), "BLOCKS_S": (10e-6, 60e-6), "NORMS_S": (30e-6, 120e-6)
}  # fmt: skip
# What kernels alone reach: operator tables of vLLM in aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0) of H100 and H200,
# and of B200 and B300. Dense: Llama-70B's products of 1,024 to 8,192 rows at TP 1 to 8 by their operations; slopes of
# reading by at most 16 rows; attention of 8,192 tokens; NCCL. Experts: MiniMax's, Kimi's and gpt-oss's at TP 2 to 8
# with a skewed draw, by least squares of reading, products, a constant and `roof.ROUTED_BYTES`, of the kernels that
# the rows' newest scripts lead to: Triton's of 0.19 with whole experts for fp8 on Hopper; Marlin's for int4, and for
# mxfp4 on Hopper; TensorRT-LLM's for the rest.
OPERATORS: dict[tuple[str, str, Any], float] = {
    ("9", "weights", "fp8"): 0.77, ("9", "products", "fp8"): 0.6, ("9", "attention", None): 0.63,
    ("9", "experts", "fp8"): 0.95, ("9", "experts", "int4"): 0.78, ("9", "experts", "mxfp4"): 0.85,
    ("9", "expert_products", "fp8"): 0.18, ("9", "expert_products", "int4"): 0.21,
    ("9", "expert_products", "mxfp4"): 0.2, ("9", "all_reduce", None): 0.48,
    ("10", "weights", "fp8"): 0.68, ("10", "weights", "fp4"): 0.72, ("10", "products", "fp8"): 0.47,
    ("10", "products", "fp4"): 0.41, ("10", "attention", None): 0.6, ("10", "experts", "fp8"): 0.94,
    ("10", "experts", "int4"): 0.57, ("10", "experts", "mxfp4"): 0.9, ("10", "experts", "fp4"): 0.92,
    ("10", "expert_products", "fp8"): 0.175, ("10", "expert_products", "int4"): 0.095,
    ("10", "expert_products", "mxfp4"): 0.9, ("10", "expert_products", "fp4"): 0.43, ("10", "all_reduce", None): 0.4,
}  # fmt: skip
MODULES = {"roof": roof, "profiles": profiles}


def rough(place: tuple[str, str, Any]) -> float:
    """Where a fit starts, and what its prior pulls to."""
    _, name, entry = place
    return OPERATORS.get(place) or (ROUGH_PAIRS[name][entry] if name in ROUGH_PAIRS else ROUGH[name])


def ties() -> Array:
    """Pairs of `FITTED` whose shares of their tables are expected alike, of shape (pairs, 2)."""
    places = [(name, number) for number, (_, name, _) in enumerate(FITTED) if name in ("experts", "expert_products")]
    return np.array([(one, two) for name, one in places for same, two in places if name == same and two < one])


@dataclass(frozen=True, eq=False)
class Seen:
    """A row's engine and its steps: `ttft` and `tpot` say how much of each step's time is in the mean."""

    row: PublicRow
    setup: Setup
    steps: Steps
    before: Array  # 1 where the step before, of which it is a follower, ended when this one began
    ttft: Array
    tpot: Array
    host_s: float  # of the mean TTFT, beside what a prompt's tokens take before the engine has them


def look(row: PublicRow) -> Seen | None:
    """The row simulated at the present rates; None where it is not covered, or does not say how many may run."""
    if row.ttft_ms > row.tpot_ms * row.output:
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec = spec_of(row, Path(folder))
            system = resolve(spec)
        except SpecError:
            return None
        run = backend("simulate").run(system, workload.build(spec))
    pool = system.pools[0]
    table, requests = run.steps, run.requests
    count, start = table["count"].to_numpy(), table["start_s"].to_numpy()
    end = start + table["duration_s"].to_numpy()
    prompts = table["prefill_tokens"].to_numpy(dtype=float)
    seqs = table["decode_seqs"].to_numpy(dtype=float)
    first, last = requests["prefill_end_s"].to_numpy(), requests["finish_s"].to_numpy()
    last = last - (requests["first_token_s"].to_numpy() - first)
    tokens = np.maximum(requests["output_tokens"].to_numpy() - 1, 1)
    share = np.full(len(requests), 1 / len(requests))
    sizes = capture_sizes(
        pool.limits.max_num_seqs, pool.limits.max_num_batched_tokens, pool.engine.max_cudagraph_capture_size
    )
    each = 0.9 * row.prompt  # of one prompt; a chunk of several holds no pairs across them
    steps = Steps(
        1.0 * (prompts > 0),
        prompts,
        prompts * np.minimum(prompts, each) / 2,
        seqs,
        np.array([graph_size(int(size), sizes) for size in seqs], dtype=float),
        table["context_tokens"].to_numpy() + (count - 1) / 2 * seqs,
        1.0 * (prompts + seqs > sizes[-1]),
    )
    before = np.concatenate([[0.0], 1.0 * (start[1:] - end[:-1] < 1e-6)])
    queued = requests["queued_s"].to_numpy()
    setup = Setup.of(pool.model, pool.hardware, pool.engine, pool.tp)
    return Seen(
        row, setup, steps, before, count * _weights(start, end, queued, first, share),
        count * _weights(start, end, first, last, share / tokens),
        _host_s(requests) - profiles.REQUEST_PER_TOKEN_S * 0.9 * row.prompt,
    )  # fmt: skip


def _host_s(requests: pd.DataFrame) -> float:
    """Mean seconds of TTFT before the engine's queue and after its step."""
    before = requests["queued_s"] - requests["arrival_s"]
    return float((before + requests["first_token_s"] - requests["prefill_end_s"]).mean())


def _weights(start: Array, end: Array, begin: Array, finish: Array, share: Array) -> Array:
    """How much of each step's time counts, where spans begin..finish each count `share`."""
    found = np.zeros(len(start) + 1)
    one = np.clip(np.searchsorted(start, begin + 1e-9, side="right") - 1, 0, len(start) - 1)
    two = np.clip(np.searchsorted(start, finish - 1e-9, side="right") - 1, 0, len(start) - 1)
    np.add.at(found, one, share)
    np.add.at(found, two + 1, -share)
    found = np.cumsum(found)[:-1]
    np.add.at(found, one, -share * np.clip((begin - start[one]) / (end - start)[one], 0, 1))
    np.add.at(found, two, -share * np.clip((end[two] - finish) / (end - start)[two], 0, 1))
    return found


def value(place: tuple[str, str, Any]) -> float:
    owner, name, entry = place
    found = getattr(MODULES[owner] if owner in MODULES else rates.GENERATIONS[owner], name)
    return float(found if entry is None else found[entry])


def put(places: list[tuple[str, str, Any]], values: Array) -> None:
    """Set the rates; shares stay at or below 1."""
    for (owner, name, entry), new in zip(places, values.tolist(), strict=True):
        at = MODULES[owner] if owner in MODULES else rates.GENERATIONS[owner]
        old = getattr(at, name)
        new = min(new, 1.0) if owner not in MODULES and not name.endswith("_s") else new
        if isinstance(old, tuple):
            changed: Any = tuple(new if entry == place else item for place, item in enumerate(old))
        else:
            changed = new if entry is None else {**old, entry: new}
        if owner in MODULES:
            setattr(at, name, changed)
        else:
            rates.GENERATIONS[owner] = replace(rates.GENERATIONS[owner], **{name: changed})


PARTS = ("floor", "line", "prompt", "decode", "context", "launch")


@lru_cache(maxsize=1024)
def features(seen: Seen) -> tuple[dict[str, tuple[list[str], Array]], Array, Array, Array]:
    """Of the steps that count or come before one that does: each part's features, `before`, and both weights."""
    counts = (seen.ttft > 0) | (seen.tpot > 0)
    counts |= np.concatenate([counts[1:], [False]])
    law = guess(Roof(seen.setup)).model_dump()
    found = {}
    for part in PARTS:
        named = of_part(part)
        columns = [np.asarray(feature.of(seen.steps, law) + 0.0 * seen.ttft)[counts] for feature in named.values()]
        found[part] = list(named), np.array(columns)
    return found, seen.before[counts], seen.ttft[counts], seen.tpot[counts]


def predicted(seen: Seen, law: dict[str, float]) -> tuple[float, float]:
    """Mean TTFT and TPOT in ms under the row's law."""
    parts, before, ttft, tpot = features(seen)
    floor, line, prompt, decode, context, launch = (
        np.array([law[name] for name in names]) @ columns for names, columns in (parts[part] for part in PARTS)
    )
    prompts = parts["floor"][1][0] > 0
    seconds = np.where(prompts, np.maximum(floor, line) + prompt, decode + context)
    ahead = before * np.concatenate([[0.0], np.maximum(seconds - launch, 0.0)[:-1]])  # launched meanwhile
    seconds = np.where(prompts, np.maximum(seconds, launch - ahead), seconds)
    host = profiles.REQUEST_PER_TOKEN_S * 0.9 * seen.row.prompt + seen.host_s
    return 1e3 * (float(ttft @ seconds) + host), 1e3 * float(tpot @ seconds)


def laws(those: list[Seen]) -> list[dict[str, float]]:
    """Each row's law under the rates that are set; rows of one engine share it."""
    kept: dict[Any, dict[str, float]] = {}
    found = []
    for seen in those:
        row, setup = seen.row, seen.setup
        key = row.model, row.stored, row.gpu, row.release, setup.parallel, setup.options.kv_cache_dtype
        if key not in kept:
            roofed = Roof(setup)
            kept[key] = more_per_token(guess(roofed), roofed.reduced_token_s).model_dump()
        found.append(kept[key])
    return found


def logs(those: list[Seen]) -> Array:
    """Logarithms of predicted over measured: TTFT, TPOT."""
    pairs = [predicted(seen, law) for seen, law in zip(those, laws(those), strict=True)]
    return np.log([(a / seen.row.ttft_ms, b / seen.row.tpot_ms) for (a, b), seen in zip(pairs, those, strict=True)])


def cell(seen: Seen) -> tuple[str, str, str, int]:
    return seen.row.model, seen.row.gpu, seen.row.precision, seen.setup.tp


def fifth(seen: Seen) -> int:
    """One of five parts of the configurations: all rows of a model, GPU, precision and TP stay together."""
    return crc32(repr(cell(seen)).encode()) % 5


def fit(those: list[Seen]) -> Array:
    """The values of FITTED, which are left set."""
    start = np.array([rough(place) for place in FITTED])
    sizes = Counter(map(cell, those))
    weight = np.array([sizes[cell(seen)] ** -0.5 for seen in those])
    weight /= weight.mean()

    one, two = ties().T

    def residuals(shift: Array) -> Array:
        put(FITTED, start * np.exp(shift))
        off = logs(those) * weight[:, None]
        return np.concatenate([off.ravel(), PRIOR * shift, TIE * (shift[one] - shift[two])])

    best = least_squares(residuals, np.zeros(len(start)), loss="soft_l1", f_scale=ROBUST, max_nfev=12, diff_step=1e-3)
    values = start * np.exp(best.x)
    put(FITTED, values)
    return values


def report(what: str, off: Array) -> None:
    errors = np.exp(off) - 1
    parts = [
        f"{name} bias {100 * e.mean():+.1f} %, mean abs. {100 * abs(e).mean():.1f} %, "
        f"90 % {100 * np.percentile(abs(e), 90):.1f} %"
        for name, e in zip(("TTFT", "TPOT"), errors.T, strict=True)
    ]
    print(f"{what}, {len(errors)} rows: {'; '.join(parts)}", flush=True)


def unseen_errors(found: list[tuple[Seen, Array]]) -> str:
    """The YAML of `planner.engine.provenance` for rows, and shares by which TTFT and TPOT were off without them."""
    entries = []
    for kind in ("dense", "moe"):
        those = [(seen.row, off) for seen, off in found if load_model(catalogued(seen.row.model)).kind == kind]
        off = {name: Errors.of([shares[column] for _, shares in those]) for column, name in enumerate(("TTFT", "TPOT"))}
        entries.append(public.entry(kind, [row for row, _ in those], off, fitted=False))
    return public.written(entries, "python benchmarks/fit_roofline.py --leave-out fifth --write")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--every", type=int, default=1, help="use one row of so many")
    options.add_argument("--leave-out", choices=("gpu", "model", "fifth"), help="fit without each, and judge it")
    options.add_argument("--write", action="store_true", help="with fifth: the errors that answers name")
    asked = options.parse_args()
    rows = [row for row in read_rows(shipped_rows()) if row.engine == "vllm" and row.mode == "agg"]
    rows = [row for row in rows if row.workers[0][2] == 1][:: asked.every]
    with ProcessPoolExecutor() as executor:
        those = [seen for seen in executor.map(look, rows, chunksize=8) if seen is not None]
    start = np.array([value(place) for place in FITTED])
    report("as shipped", logs(those))
    if asked.leave_out is None:
        values = fit(those)
        for (owner, name, entry), old, new in zip(FITTED, start, values, strict=True):
            print(f"{owner:9} {name:22} {'' if entry is None else entry!s:6} {old:10.4g} -> {new:10.4g}")
        report("fitted", logs(those))
        return
    unseen: list[Array] = []
    kinds: list[tuple[Seen, Array]] = []
    of = {"gpu": lambda seen: seen.row.gpu, "model": lambda seen: seen.row.model, "fifth": fifth}[asked.leave_out]
    for out in sorted({of(seen) for seen in those}):
        judged = [seen for seen in those if of(seen) == out]
        kept = [seen for seen in those if of(seen) != out]
        fit(kept)
        off = logs(judged)
        report(f"without {out}", off)
        unseen.append(off)
        kinds += [(seen, shares) for seen, shares in zip(judged, np.exp(off) - 1, strict=True)]
    report("left out", np.concatenate(unseen))
    if asked.write:
        (config_root() / UNSEEN).write_text(unseen_errors(kinds))


if __name__ == "__main__":
    main()
