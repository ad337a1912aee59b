"""A measured service as a latency profile: prompts take so long a token, decode steps so long and more a request."""

from __future__ import annotations

from planner.engine.host_costs import HostCosts
from planner.engine.law import StepLaw
from planner.engine.profile_file import HostLaw, ProfileFile, Validity
from planner.engine.profiles import LatencyProfile
from planner.engine.setup import Setup
from planner.engine.step_time import AffineStep
from planner.messages import message
from planner.spec.service import MeasuredService

NAME = "measured-service"
ANY = 1 << 40


def of_service(service: MeasuredService, setup: Setup, model: str) -> LatencyProfile:
    """The profile of an engine `setup` of `model`, which stand in for what the service does not say of itself.

    Prompts do not share a step's fixed time: a step with prompts takes what these take, and what its decodes add.
    """
    decode = service.tpot_ms
    law = StepLaw(
        decode_s=decode.base / 1e3,
        decode_per_seq_s=decode.per_request / 1e3,
        decode_per_context_s=decode.per_context_token / 1e3,
        prefill_floor_s=0.0,
        prefill_s=0.0,
        prefill_per_token_s=1.0 / service.prefill_tokens_per_s,
        prefill_per_pair_s=0.0,
        mixed_per_seq_s=decode.per_request / 1e3,
        mixed_per_context_s=decode.per_context_token / 1e3,
    )
    ranges = service.batch or (0, ANY), service.context or (0, ANY)
    host = HostLaw(request_s=service.request_ms / 1e3)
    file = ProfileFile(
        name=service.name or NAME,
        provenance="simulated",
        model=service.model or model,
        hardware=service.hardware or setup.hardware.name,
        tp=service.tp or setup.tp,
        step=law,
        host=host,
        validity=Validity(batch=ranges[0], context=ranges[1], prefill_tokens=(0, ANY)),
        fitted_to=told(service),
        kv_cache_tokens=service.kv_cache_tokens,
    )
    return LatencyProfile(file.name, "simulated", AffineStep(law), HostCosts(**host.model_dump()), file, service=True)


def told(service: MeasuredService) -> str:
    """The law in words."""
    decode = service.tpot_ms
    law = message(
        "{rate:.0f} prompt tokens/s a worker and TPOT {base:.3g} + {more:.3g} ms a request",
        service.prefill_tokens_per_s, decode.base, decode.per_request,
    )  # fmt: skip
    return message("{law}, from {count} measured points", law, len(service.points)) if service.points else law
