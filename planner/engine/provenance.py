"""Where step times are from, in words, and how far such predictions were off where somebody measured.

measured: a run of engines. calibrated: a profile of this model, GPU, TP and these types. composed: a profile summed up
from tables of operators. roofline: datasheet figures at fitted shares; its errors are those of comparable public rows.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from planner.engine.catalogue import hardware, names, read_entry
from planner.engine.profiles import LatencyProfile
from planner.engine.tp_scaling import is_scaled
from planner.messages import message
from planner.spec import Node, NonNegative, PositiveInt, config_root
from planner.spec.faults import validate

# Under configs. Of the rows that the rates were fitted to, by `planner validate --public --docs`; of rows of
# configurations that were left out of the fit, by `benchmarks/fit_roofline.py --leave-out fifth --write`.
ERRORS, UNSEEN = "public/errors.yaml", "public/unseen.yaml"
ModelKind = Literal["dense", "moe"]


class Off(Node):
    """Absolute errors as shares of the measured values."""

    mean: NonNegative
    p90: NonNegative


class PublicErrors(Node):
    """Of the roofline over public rows: models of a kind on some GPUs, aggregated vLLM. `fitted`: it has seen them."""

    kind: ModelKind
    gpus: Annotated[tuple[str, ...], Field(strict=False)]
    models: Annotated[tuple[str, ...], Field(strict=False)]
    rows: PositiveInt
    fitted: bool
    ttft: Off
    tpot: Off


class _Table(Node):
    errors: Annotated[tuple[PublicErrors, ...], Field(strict=False)]


@lru_cache(maxsize=1)
def _table() -> tuple[PublicErrors, ...]:
    paths = [config_root() / name for name in (ERRORS, UNSEEN)]
    return tuple(
        one for path in paths if path.is_file() for one in validate(_Table, read_entry(path), str(path)).errors
    )


def comparable(profile: LatencyProfile) -> PublicErrors | None:
    """Public rows that show how far this roofline may be off; None: not a GPU's roofline.

    Of a model that the rates were fitted to, on a GPU that they were: those rows. Of any other, rows of this kind of
    model whose model, GPU, precision and TP the fit had not seen.
    """
    file = profile.file
    if file is None or file.provenance == "calibrated" or file.fitted_to is not None:
        return None
    if file.hardware not in names("hardware") or hardware(file.hardware).kind != "gpu":
        return None
    kind = "moe" if file.step.experts else "dense"
    those = [one for one in _table() if one.kind == kind]
    fitted = [one for one in those if one.fitted and file.model in one.models and one.gpus == (file.hardware,)]
    return next(iter(fitted + [one for one in those if not one.fitted]), None)


def origin(profiles: Sequence[LatencyProfile]) -> str:
    """Where the step times of a deployment are from, and of a roofline how far off such times were."""
    found = _origin(profiles)
    if any(profile.file is not None and profile.file.step.ranks for profile in profiles):
        return message("{origin}; ranks in lockstep are measured with one model only", found)
    return found


def _origin(profiles: Sequence[LatencyProfile]) -> str:
    if all(profile.provenance == "calibrated" for profile in profiles):
        composed = all(
            profile.file and profile.file.measured and profile.file.measured.composed for profile in profiles
        )
        listed = ", ".join(dict.fromkeys(profile.name for profile in profiles))
        stretched = [profile for profile in profiles if profile.stretched]
        if stretched and all(is_scaled(profile.file) for profile in stretched):
            return message("not calibrated: {profiles}, scaled by the roofline from what was measured", listed)
        if stretched:
            return message("not calibrated: {profiles}, measured otherwise", listed)
        return message("composed: {profiles}", listed) if composed else message("calibrated: {profiles}", listed)
    guessed = [profile for profile in profiles if profile.provenance != "calibrated"]
    fitted = {profile.file.fitted_to if profile.file else None for profile in guessed}
    what = fitted.pop() if len(fitted) == 1 else None
    if what is not None and all(profile.service for profile in guessed):
        return message("black box: {what}", what)
    if what is not None:
        return message("simulated: fitted to {what}", what)
    errors = [found for found in map(comparable, guessed) if found is not None]
    if not errors:
        return ROOFLINE
    worst = max(errors, key=lambda found: found.tpot.mean)
    if not worst.fitted:
        return message(
            "roofline: not measured on your GPU; on {rows} public rows of configurations that no fit had seen TPOT was "
            "off by {tpot:.0f} % (90 %: {tpot_p90:.0f} %), TTFT by {ttft:.0f} % (90 %: {ttft_p90:.0f} %)",
            worst.rows,
            100 * worst.tpot.mean,
            100 * worst.tpot.p90,
            100 * worst.ttft.mean,
            100 * worst.ttft.p90,
        )
    return message(
        "roofline: not measured on your GPU; on {rows} public rows of {model} on {gpus} TPOT was off by {mean:.0f} % "
        "(90 %: {p90:.0f} %; its rates were fitted to them)",
        worst.rows,
        ", ".join(worst.models),
        ", ".join(name.upper() for name in worst.gpus),
        100 * worst.tpot.mean,
        100 * worst.tpot.p90,
    )


ROOFLINE = message("roofline: not measured, and no public rows are comparable")
