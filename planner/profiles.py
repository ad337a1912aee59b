"""Latency profiles: what an engine step and a request cost, fitted from measurements or from a roofline.

The law of a step (seconds; B decode sequences holding C context tokens, prompt chunks of n new tokens after p done):

    decode only   decode_base(pad(B)) + decode_per_context_token * C
    with prompts  see StepTime.mixed

so a run of decode-only steps at constant B is an arithmetic progression, which the simulator uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class StepTime(Protocol):
    """Seconds that one engine step takes."""

    def decode(self, batch: int) -> tuple[float, float]:
        """(base, per context token) of a decode-only step of `batch` sequences: base + per_context * context."""
        ...

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: int) -> float:
        """A step with prompt chunks (new tokens, tokens already computed) beside `batch` decodes of `context`."""
        ...


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Seconds spent outside the engine's steps."""

    request_s: float = 0.0  # client send to engine queue: HTTP, tokenisation, routing
    request_per_token_s: float = 0.0
    response_s: float = 0.0  # end of a step to the chunk at the client
    hop_s: float = 0.0  # P/D: prefill's answer to the decode engine's queue


@dataclass(frozen=True)
class LatencyProfile:
    """One engine (model, GPU, TP, vLLM version): its step law, host costs, provenance and validity."""

    name: str
    provenance: Literal["simulated", "calibrated"]  # simulated: a roofline, nothing measured
    step: StepTime
    host: HostCosts
