"""What readers of a run take for granted of its manifest. Other keys, and keys that are missing, are no fault."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict

from planner.spec import Node, NonNegative, NonNegativeInt, Positive, Retrieval, Slo

Role = Literal["aggregated", "prefill", "decode"]
Named = dict[str, Any]


class _Part(Node):
    """Strict about values, not about keys."""

    model_config = ConfigDict(extra="ignore")


class Options(_Part):
    warmup_requests: NonNegativeInt | None = None


class Prices(_Part):
    price_per_gpu_hour: NonNegative | None = None


class Pools(_Part):
    mode: str | None = None
    prefill: Named | None = None
    decode: Named | None = None


class Shown(_Part):
    """The part of a run's spec that its report shows."""

    name: str | None = None
    hardware: str | None = None
    deployment: Pools | None = None
    slo: Slo | None = None
    run: Options | None = None
    cluster: Prices | None = None
    retrieval: Retrieval | None = None
    workload: Named | None = None


class Posted(_Part):
    role: Role
    post_s: NonNegative
    block_size: NonNegative
    block_descriptors: NonNegative
    block_bytes: NonNegative


class Answering(_Part):
    """What an API server does beside handing out tokens."""

    first_token_per_token_s: NonNegative
    request_s: NonNegative
    request_per_token_s: NonNegative
    way_s: NonNegative
    way_per_token_s: NonNegative
    read_s: NonNegative
    read_every_s: list[Positive]


class Manifest(_Part):
    spec: Shown
    spec_yaml: str | None = None
    provenance: str | None = None
    origin: str | None = None
    workers: dict[str, Role] | None = None
    gpus: NonNegative | None = None
    gpus_by_role: dict[str, NonNegative] | None = None
    nodes: dict[str, str] | None = None
    uplinks: dict[str, NonNegative] | None = None
    links: dict[str, NonNegative] | None = None
    kv_blocks: dict[str, NonNegative | None] | None = None
    kv_block_tokens: dict[str, NonNegative | None] | None = None
    underway: bool | None = None  # its traffic had long gone on when it began
    highest_rates: dict[str, NonNegative | None] | None = None
    posting: Posted | None = None
    answering: Answering | None = None
    versions: Named | None = None
    server_start_s: Named | None = None
    profiles_measured: dict[str, Named] | None = None
    fitted_on: list[str] | None = None
    sources: list[str] | None = None
    warnings: list[Any] | None = None
