"""Step times at a tensor-parallel size that was not measured: each parameter times the ratio of its rooflines.

What TP divides (weights, KV, arithmetic) and the time of a small all-reduce come from the roofline, the bytes of a
large one from the link; how far a real engine is from its roofline comes from the measurement. It is an estimate.
"""

from __future__ import annotations

from dataclasses import replace

from planner.engine_limits import batch_sizes
from planner.knobs import knobbed
from planner.profile_file import ProfileFile, StepLaw
from planner.profiles import LatencyProfile, from_file, roofline
from planner.system import Pool, System

ALL_REDUCE_EFFICIENCY = 0.7  # share of the link's bandwidth that a large all-reduce reaches; an assumption


def all_reduce_per_token_s(pool: Pool, tp: int) -> float:
    """Seconds a token adds to a step at this TP: two all-reduces a layer, each moving 2 (tp - 1) / tp of its vector."""
    if tp == 1:
        return 0.0
    link_gb_s = pool.hardware.nvlink_gb_s or pool.hardware.pcie_gb_s
    size = 2 * pool.model.layers * pool.model.hidden * pool.model.dtype_bytes * 2 * (tp - 1) / tp
    return size / (link_gb_s * 1e9 * ALL_REDUCE_EFFICIENCY)


def at_tp(pool: Pool) -> LatencyProfile:
    """The pool's profile, scaled when it was measured at another TP size; a roofline gets the all-reduces' bytes."""
    profile, file = pool.profile, pool.profile.file
    if file is None or (file.tp == pool.tp and (profile.provenance == "calibrated" or pool.tp == 1)):
        return profile
    if file.tp == pool.tp:
        return _remade(pool, file, _more_per_token(file.step, all_reduce_per_token_s(pool, pool.tp)), file.name, ())
    here, there = (roofline(pool.model, pool.hardware, tp, pool.engine).file for tp in (pool.tp, file.tp))
    assert here is not None and there is not None
    measured, mine, base = (law.model_dump() for law in (file.step, here.step, there.step))
    values = {
        name: value * (mine[name] / base[name]) if base[name] > 0 else value + mine[name]
        for name, value in measured.items()
    }
    values["prefill_floor_s"] = measured["prefill_floor_s"]  # launching kernels, which TP does not divide
    values["prefill_s"] = measured["prefill_s"] + mine["prefill_s"] - base["prefill_s"]
    extra = all_reduce_per_token_s(pool, pool.tp) - all_reduce_per_token_s(pool, file.tp)
    law = _more_per_token(file.step.model_copy(update=values), extra)
    note = f"profile {file.name} was measured at TP {file.tp}; TP {pool.tp} is scaled from it by the roofline"
    return _remade(pool, file, law, f"{file.name}-at-tp{pool.tp}", (note,))


def _more_per_token(law: StepLaw, seconds: float) -> StepLaw:
    names = ("prefill_per_token_s", "decode_per_seq_s", "mixed_per_seq_s")
    return law.model_copy(update={name: max(getattr(law, name) + seconds, 0.0) for name in names})


def _remade(pool: Pool, file: ProfileFile, law: StepLaw, name: str, notes: tuple[str, ...]) -> LatencyProfile:
    budget, seqs, _ = batch_sizes(pool.model, pool.hardware, pool.tp, pool.engine)
    made = from_file(file.model_copy(update={"name": name, "tp": pool.tp, "step": law}))
    made = made.for_engine(pool.engine, seqs, budget)
    return replace(made, warnings=(*made.warnings, *notes))


def scaled_system(system: System) -> System:
    """The system with every pool's profile at the pool's TP size. A no-op when they match already."""
    pools, warnings = [], list(system.warnings)
    for pool in system.pools:
        profile = at_tp(pool)
        if profile is not pool.profile:
            wrong = pool.profile.mismatches(pool.model.name, pool.hardware.name, pool.tp)
            right = profile.mismatches(pool.model.name, pool.hardware.name, pool.tp)
            warnings = [text for text in warnings if text not in wrong] + right + list(profile.warnings)
            pool = replace(pool, profile=knobbed(profile, pool, system.spec.optimizations))
        pools.append(pool)
    return replace(system, pools=tuple(pools), warnings=tuple(dict.fromkeys(warnings)))
