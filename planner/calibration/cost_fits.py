"""Robust lines: host costs against prompt length, transfer times against bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from planner.calibration.fitting import ROBUST_FROM, Array, FitError, covariance_of

LEAST_SHARE = 0.05  # of the largest transfers' time that must be due to their bytes


@dataclass(frozen=True)
class HostFit:
    """Seconds per request and per prompt token outside the engine, with standard errors."""

    request_s: float
    request_per_token_s: float
    request_error_s: float
    per_token_error_s: float
    samples: int

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors by the names of a profile's host section."""
        return {"request_s": self.request_error_s, "request_per_token_s": self.per_token_error_s}


def fit_host(prompt_tokens: Array, seconds: Array) -> HostFit:
    """Host time against prompt length; one number when the lengths do not differ by twice."""
    if len(seconds) < 3:
        raise FitError(f"{len(seconds)} host samples; allowed: at least 3 requests whose waiting is known")
    slope = len(np.unique(prompt_tokens)) >= 3 and prompt_tokens.max() >= 2 * prompt_tokens.min()
    design = np.column_stack([np.ones_like(seconds), prompt_tokens] if slope else [np.ones_like(seconds)])
    values, errors = robust_line(design, seconds)
    per_token, per_token_error = (values[1], errors[1]) if slope else (0.0, 0.0)
    return HostFit(max(values[0], 0.0), max(per_token, 0.0), errors[0], per_token_error, len(seconds))


def robust_line(design: Array, seconds: Array) -> tuple[list[float], list[float]]:
    """Linear least squares with soft_l1; residuals absolute. Values and standard errors."""
    scale = np.linalg.norm(design, axis=0)
    start = np.linalg.lstsq(design / scale, seconds, rcond=None)[0]
    noise = max(1.4826 * float(np.median(np.abs(design / scale @ start - seconds))), 1e-9)
    for _ in range(3):
        unit = noise * ROBUST_FROM
        found = least_squares(
            lambda x, unit=unit: (design / scale @ x - seconds) / unit,
            start,
            jac=lambda x, unit=unit: design / scale / unit,
            loss="soft_l1",
        )
        start = found.x
        wrong = design / scale @ found.x - seconds
        used, noise = noise, max(1.4826 * float(np.median(np.abs(wrong))), 1e-9)
    covariance = covariance_of(design / scale / used, wrong / used)
    return (found.x / scale).tolist(), (np.sqrt(np.diag(covariance)) / scale).tolist()


@dataclass(frozen=True)
class LinkFit:
    """A transfer takes fixed_s + bytes / bandwidth; with standard errors."""

    bandwidth_gb_s: float
    fixed_s: float  # set-up and latency, which single transfers cannot tell apart
    bandwidth_error_gb_s: float
    fixed_error_s: float
    samples: int


def fit_link(sizes: Array, seconds: Array) -> LinkFit:
    """Least squares of the logarithms of transfer times. Raises FitError when all are of about one size.

    Logarithms, because noise multiplies: on a busy host a transfer takes 0.6 to 4 times as long as usual. Relative
    residuals would weigh the fast ones more and call the link up to a third too fast.
    """
    if len(np.unique(sizes)) < 3 or sizes.max() < 4 * sizes.min():
        raise FitError(f"{len(np.unique(sizes))} transfer sizes; allowed: at least 3, the largest 4 times the smallest")
    small, large = (float(np.median(seconds[sizes == size])) for size in (sizes.min(), sizes.max()))
    unit = np.array([small, large / sizes.max()])  # both parameters become about one
    design = np.column_stack([np.ones_like(seconds), sizes]) * unit
    start, noise = np.array([0.5, 1.0]), 0.3
    for _ in range(4):
        scale = noise * ROBUST_FROM
        found = least_squares(
            lambda x, scale=scale: (np.log(design @ x) - np.log(seconds)) / scale,
            start,
            jac=lambda x, scale=scale: design / (design @ x)[:, None] / scale,
            bounds=(1e-9, np.inf),
            loss="soft_l1",
        )
        start = found.x
        wrong = np.log(design @ start) - np.log(seconds)
        used, noise = noise, max(1.4826 * float(np.median(np.abs(wrong))), 1e-9)
    fixed, per_byte = start * unit
    if per_byte * sizes.max() < LEAST_SHARE * large:
        raise FitError("transfers do not take longer with more bytes; allowed: sizes large enough to fill the link")
    covariance = covariance_of(design / (design @ start)[:, None] / used, wrong / used)
    fixed_error, per_byte_error = np.sqrt(np.diag(covariance)) * unit
    bandwidth = 1e-9 / per_byte
    return LinkFit(
        float(bandwidth), float(fixed), float(bandwidth * per_byte_error / per_byte), float(fixed_error), len(seconds)
    )
