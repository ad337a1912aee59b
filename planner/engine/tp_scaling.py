"""Step times at a tensor-parallel size that was not measured: each term scaled as the table of the law says.

What TP divides (weights, KV, arithmetic) and the time of a small all-reduce come from the roofline, the bytes of a
large one from the link; how far a real engine is from its roofline comes from the measurement. It is an estimate, and
the profile says so in its name and in a warning.
"""

from __future__ import annotations

from dataclasses import replace

from planner.engine.law import StepLaw, more_per_token, scaled
from planner.engine.profile_file import Fit, ProfileFile
from planner.engine.profiles import LatencyProfile, from_file
from planner.engine.roof import Roof
from planner.engine.setup import Setup
from planner.messages import message


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
    options = setup.options.model_copy(update={"expert_imbalance": 1.0})
    even = Roof(replace(setup, options=options).at(file.tp))
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
    update = {
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
    return replace(from_file(file.model_copy(update=update)), warnings=(*profile.warnings, note))


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
