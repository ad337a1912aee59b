"""Step times at a tensor-parallel size, or with types of weights and KV, that were not measured.

At another TP each term is scaled as the table of the law says: what TP divides (weights, KV, arithmetic) and the time
of a small all-reduce come from the roofline, the bytes of a large one from the link. With other types each term goes as
the roofline's own. How far a real engine is from its roofline comes from the measurement. It is an estimate, and the
profile says so in its name and in a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.engine.catalogue import names
from planner.engine.law import StepLaw, more_per_token, retyped, scaled
from planner.engine.model_config import load_model
from planner.engine.model_shape import ONLINE_BITS
from planner.engine.profile_file import Fit, ProfileFile
from planner.engine.profiles import LatencyProfile, from_file
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.messages import message
from planner.spec import Engine

SCALED = 0.05  # how far scaled step times may be off besides, as a share: fp8 weights and KV of Llama-3.1-8B, an H200


def for_engine(profile: LatencyProfile, setup: Setup) -> LatencyProfile:
    """The profile with the engine's types, then at its TP."""
    return at_tp(with_types(profile, setup), setup)


def other_types(file: ProfileFile, setup: Setup) -> bool:
    """Whether the profile is of an engine that keeps its weights or its KV otherwise."""
    mine = setup.model.types(setup.options)
    plain = all(weights is None and kv != "fp8" for kv, weights in (file.types, mine))  # auto is one of the 16-bit ones
    return not plain and file.types != mine


def types_told(types: tuple[str, str | None]) -> str:
    """Types of the KV cache and of weights, by the engine's keys."""
    kv, weights = types
    return f"kv_cache_dtype {kv}, quantization {weights or 'none'}"


def with_types(profile: LatencyProfile, setup: Setup) -> LatencyProfile:
    """The profile with the engine's types of weights and KV; as it is where those that were measured are not known.

    And on a CPU, which reads less then and converts more: that cost one 16 % (docs/knobs.md), and no roofline has it.
    """
    file = profile.file
    if file is None or profile.provenance != "calibrated" or setup.hardware.kind == "cpu":
        return profile
    if not other_types(file, setup):
        return profile
    measured = _measured(file, setup)
    if measured is None:
        return profile
    here = setup.at(file.tp)
    law = retyped(file.step, Roof(measured), Roof(replace(here, options=_even(here))))
    kv, weights = types = setup.model.types(setup.options)
    update = {
        "name": file.name + _suffix(types),
        "kv_cache_dtype": None if kv == "auto" else kv,
        "quantization": weights,
    }
    note = message(
        "profile {name} was measured with {theirs}; {ours} is scaled from it by the roofline",
        file.name,
        types_told(file.types),
        types_told(types),
    )
    return _estimated(profile, file, law, note, update)


def _estimated(
    profile: LatencyProfile, file: ProfileFile, law: StepLaw, note: str, update: Mapping[str, object]
) -> LatencyProfile:
    """The profile of an engine that was not measured, whose KV blocks nobody has counted."""
    update = {**update, "step": law, "fit": _scaled_fit(file, law), "kv_cache_tokens": None}
    return replace(from_file(file.model_copy(update=update)), warnings=(*profile.warnings, note))


def _measured(file: ProfileFile, setup: Setup) -> Setup | None:
    """The engine that the profile was measured on, at its TP; None: its model cannot be had with those types."""
    model = load_model(file.model) if file.model in names("models") else setup.model
    kv, weights = file.types
    told = weights if model.checkpoint is None else None
    if told is not None and told not in ONLINE_BITS:
        return None
    options = _even(setup).model_copy(update={"kv_cache_dtype": kv, "quantization": told})
    if model.types(options) != file.types:
        return None
    return replace(setup, model=model.for_engine(options), options=options).at(file.tp)


def _even(setup: Setup) -> Engine:
    """Its options with experts that get as many tokens as their neighbours."""
    return setup.options.model_copy(update={"expert_imbalance": 1.0})


def _suffix(types: tuple[str, str | None]) -> str:
    """What a profile that was given these types is called besides."""
    kv, weights = types
    parts = [weights, None if kv == "auto" else f"{kv}-kv"]
    return "-for-" + ("-".join(part for part in parts if part) or "plain")


def at_tp(profile: LatencyProfile, setup: Setup) -> LatencyProfile:
    """The profile at the engine's TP, scaled when it was measured at another; a roofline gets the all-reduces' bytes.

    A measured profile is of even experts: the imbalance that its options state is scaled in as well.
    """
    file, tp = profile.file, setup.tp
    roof = Roof(setup)
    calibrated = profile.provenance == "calibrated"
    if (
        file is None
        or profile.service
        or (file.tp == tp and (roof.imbalance == 1.0 and not roof.ranks if calibrated else tp == 1))
    ):
        return profile
    even = Roof(replace(setup, options=_even(setup)).at(file.tp))
    if file.tp == tp and calibrated:
        law = scaled(file.step, even, roof)
        note = message(
            "profile {name} was measured with even experts; the imbalance of {imbalance:g} is an estimate",
            file.name,
            roof.imbalance,
        )
        if roof.ranks:
            note = message(
                "profile {name} was measured on one rank; {ranks} in lockstep are an estimate", file.name, setup.ranks
            )
        changed = file.model_copy(update={"step": law, "fit": _scaled_fit(file, law)})
        return replace(from_file(changed), warnings=(*profile.warnings, note))
    if file.tp == tp:
        law = more_per_token(file.step, roof.reduced_token_s)
        return replace(from_file(file.model_copy(update={"step": law})), warnings=profile.warnings)
    law = scaled(file.step, even, roof)
    note = message(
        "profile {name} was measured at TP {measured}; TP {tp} is scaled from it by the roofline",
        file.name,
        file.tp,
        tp,
    )
    return _estimated(profile, file, law, note, {"name": f"{file.name}-at-tp{tp}", "tp": tp})


def is_scaled(file: ProfileFile | None) -> bool:
    """Whether the profile is an estimate at a TP size, or with types, that were not measured."""
    if file is None:
        return False
    name = file.name.removesuffix(f"-at-tp{file.tp}")
    return name != file.name or name.endswith(_suffix(file.types))


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
