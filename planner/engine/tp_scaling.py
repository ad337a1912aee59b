"""Step times at a tensor-parallel size that was not measured: each parameter times the ratio of its rooflines.

What TP divides (weights, KV, arithmetic) and the time of a small all-reduce come from the roofline, the bytes of a
large one from the link; how far a real engine is from its roofline comes from the measurement. It is an estimate, and
the profile says so in its name and in a warning.
"""

from __future__ import annotations

from dataclasses import replace

from planner.engine.catalogue import Hardware
from planner.engine.model_shape import ModelShape
from planner.engine.profile_file import Fit, ProfileFile, StepLaw
from planner.engine.profiles import LatencyProfile, from_file, roofline, wave_seqs
from planner.messages import message
from planner.spec import Engine

ALL_REDUCE_EFFICIENCY = 0.7  # share of the link's bandwidth that a large all-reduce reaches; an assumption


def all_reduce_per_token_s(model: ModelShape, hardware: Hardware, tp: int) -> float:
    """Seconds a token adds to a step at this TP: two all-reduces a layer, each moving 2 (tp - 1) / tp of its vector."""
    if tp == 1:
        return 0.0
    link_gb_s = hardware.nvlink_gb_s or hardware.pcie_gb_s
    size = 2 * model.layers * model.hidden * model.dtype_bytes * 2 * (tp - 1) / tp
    return size / (link_gb_s * 1e9 * ALL_REDUCE_EFFICIENCY)


def at_tp(profile: LatencyProfile, model: ModelShape, hardware: Hardware, tp: int, engine: Engine) -> LatencyProfile:
    """The profile at `tp`, scaled when it was measured at another size; a roofline gets the all-reduces' bytes."""
    file = profile.file
    if file is None or (file.tp == tp and (profile.provenance == "calibrated" or tp == 1)):
        return profile
    per_token = all_reduce_per_token_s(model, hardware, tp)
    if file.tp == tp:
        law = _more_per_token(file.step, per_token)
        return replace(from_file(file.model_copy(update={"step": law})), warnings=profile.warnings)
    here, there = (roofline(model, hardware, size, engine).file for size in (tp, file.tp))
    assert here is not None and there is not None
    measured, mine, base = (law.model_dump() for law in (file.step, here.step, there.step))
    values = {
        name: value * (mine[name] / base[name]) if base[name] > 0 else value + mine[name]
        for name, value in measured.items()
    }
    values["prefill_floor_s"] = measured["prefill_floor_s"]  # launching kernels, which TP does not divide
    values["decode_wide_per_seq_s"] *= mine["decode_per_seq_s"] / base["decode_per_seq_s"]
    if measured["decode_wave_seqs"]:
        values["decode_wave_seqs"] = wave_seqs(model, hardware, tp)  # fewer KV heads a GPU: more sequences fill it
    values["prefill_s"] = measured["prefill_s"] + mine["prefill_s"] - base["prefill_s"]
    law = file.step.model_copy(update=values)
    law = _more_per_token(law, per_token - all_reduce_per_token_s(model, hardware, file.tp))
    scaled = {
        "name": f"{file.name}-at-tp{tp}",
        "tp": tp,
        "step": law,
        "fit": _scaled_fit(file, law),
        "kv_cache_tokens": None,  # of an engine at the measured TP
    }
    note = message(
        "profile {name} was measured at TP {measured}; TP {tp} is scaled from it by the roofline",
        file.name,
        file.tp,
        tp,
    )
    return replace(from_file(file.model_copy(update=scaled)), warnings=(*profile.warnings, note))


def is_scaled(profile: LatencyProfile) -> bool:
    """Whether the profile is an estimate at a TP size that was not measured."""
    return profile.file is not None and profile.file.name.endswith(f"-at-tp{profile.file.tp}")


def _scaled_fit(file: ProfileFile, law: StepLaw) -> Fit | None:
    """How sure the scaled parameters are: errors grow with what they are the errors of."""
    fit = file.fit
    if fit is None:
        return None
    factors = []
    for name in fit.parameters:
        old, new = getattr(file.step, name), getattr(law, name)
        factors.append(new / old if old > 0 else 1.0)
    covariance = tuple(
        tuple(value * row_factor * factor for value, factor in zip(row, factors, strict=True))
        for row, row_factor in zip(fit.covariance, factors, strict=True)
    )
    by_name = dict(zip(fit.parameters, factors, strict=True))
    errors = {name: error * by_name.get(name, 1.0) for name, error in fit.standard_errors.items()}
    return fit.model_copy(update={"covariance": covariance, "standard_errors": errors})


def _more_per_token(law: StepLaw, seconds: float) -> StepLaw:
    names = ("prefill_per_token_s", "decode_per_seq_s", "mixed_per_seq_s")
    return law.model_copy(update={name: max(getattr(law, name) + seconds, 0.0) for name in names})
