"""Random quantities, each with its own stream, so that one can change without moving the others."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from planner.spec import Distribution, Empirical, Fixed, Lognormal, SpecError, Uniform

Floats = NDArray[np.float64]


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream of one quantity: independent of all others, and of the order in which they are asked for."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))


def draw(length: float | Distribution, size: int, rng: np.random.Generator) -> Floats:
    """`size` values of a distribution, not rounded (a uniform one is continuous here)."""
    match length:
        case Fixed(value=value):
            return np.full(size, float(value))
        case Uniform(low=low, high=high):
            return rng.uniform(low, high, size)
        case Lognormal(mean=mean, sigma=sigma, min=low, max=high):
            # E = exp(mu + sigma^2 / 2), so this mu gives the arithmetic mean that the user wrote
            values = rng.lognormal(math.log(mean) - sigma * sigma / 2, sigma, size)
            return np.clip(values, low, math.inf if high is None else high)
        case Empirical(values=values, weights=weights):
            share = None if weights is None else np.asarray(weights, float) / sum(weights)
            return rng.choice(np.asarray(values, float), size, p=share)
        case number:
            return np.full(size, float(number))


def draw_tokens(length: int | Distribution, size: int, rng: np.random.Generator, where: str) -> list[int]:
    """`size` whole numbers, at least 1 each. `where` is the YAML path for the error."""
    if isinstance(length, Uniform):
        low, high = max(1, math.ceil(length.low)), math.floor(length.high)
        if high < low:
            raise SpecError(
                "{where}: no whole number of at least 1 in [{low:g}, {high:g}]", where, length.low, length.high
            )
        return list(map(int, rng.integers(low, high, size, endpoint=True).tolist()))
    return list(map(int, np.maximum(np.rint(draw(length, size, rng)), 1).tolist()))


def long_run_mean(length: float | Distribution) -> float:
    """What many draws come to on average, after the cut to min and max; rounding to whole numbers left out."""
    match length:
        case Fixed(value=value):
            return float(value)
        case Uniform(low=low, high=high):
            return (low + high) / 2
        case Lognormal(mean=mean, sigma=sigma, min=low, max=high):
            top = math.inf if high is None else high
            if not sigma:
                return min(max(mean, low), top)
            middle = math.log(mean) - sigma * sigma / 2

            def below(value: float, shift: float) -> float:
                """P(X < value); with `shift` sigma, the share of the mean that values below it make up."""
                if not 0 < value < math.inf:
                    return float(value > 0)
                return (1 + math.erf(((math.log(value) - middle) / sigma - shift) / math.sqrt(2))) / 2

            inside = mean * (below(top, sigma) - below(low, sigma))
            return low * below(low, 0) + inside + (top * (1 - below(top, 0)) if top < math.inf else 0.0)
        case Empirical(values=values, weights=weights):
            return float(np.average(values, weights=weights))
        case number:
            return float(number)


def unit_gaps(size: int, burstiness: float, rng: np.random.Generator) -> Floats:
    """Gaps of mean 1: gamma with shape `burstiness`, as `vllm bench serve` draws them (CV = 1 / sqrt(burstiness))."""
    return rng.standard_gamma(burstiness, size) / burstiness


def arrival_times(size: int, rate: float, burstiness: float, seed: int) -> list[float]:
    """Send times in seconds. The first request waits a gap too, so that the mean rate is unbiased."""
    with np.errstate(over="ignore"):  # told below
        times: list[float] = (np.cumsum(unit_gaps(size, burstiness, stream(seed, "gaps"))) / rate).tolist()
    if times and not math.isfinite(times[-1]):
        raise SpecError("workload.rate: {rate:g} is too small; allowed: rates at which the run ends", rate)
    return times
