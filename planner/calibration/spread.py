"""How far calibrations of one engine are from each other: between rounds of a server, or between servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from planner.calibration.fitting import digits
from planner.engine.profile_file import ProfileFile, Spread
from planner.engine.profiles import from_file

# What stands for a group of figures: a step, a request and an answer of middling size.
BATCH, CONTEXT, PROMPT = 8, 1000, 2000
FIGURES: dict[str, Callable[[ProfileFile], float]] = {
    "decode": lambda file: _decode_s(file),
    "prompts": lambda file: _prompt_s(file),
    "launches": lambda file: file.step.launch_eager_s * _level(file),
    "requests": lambda file: file.host.request_s + PROMPT * file.host.request_per_token_s,
    "responses": lambda file: file.host.response_s + BATCH * file.host.response_per_seq_s,
}


def _decode_s(file: ProfileFile) -> float:
    base, slope = from_file(file).step.decode(BATCH)
    return base + slope * BATCH * CONTEXT


def _prompt_s(file: ProfileFile) -> float:
    """On a GPU of usual warmth, where that is known to matter."""
    profile = from_file(file)
    return profile.usual_slowing * profile.step.mixed([(PROMPT, 0)], 0, 0)


def _level(file: ProfileFile) -> float:
    return float(np.mean(file.launches.levels)) if file.launches else 1.0


def spread_of(files: Sequence[ProfileFile], what: str) -> Spread | None:
    """Over profiles of the same engine; None for fewer than two. A figure that one of them lacks is left out."""
    if len(files) < 2:
        return None
    found = {}
    for name, figure in FIGURES.items():
        values = np.array([figure(file) for file in files])
        if (values > 0).all():
            found[name] = digits(float(np.log(values).std(ddof=1)))
    return Spread(calibrations=len(files), of=what, **found)
