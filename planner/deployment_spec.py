"""The deployment part of the YAML: engine, router, links, pools and cluster. Import these from `planner.spec`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planner.strict_yaml import Fraction, Node, NonNegative, NonNegativeInt, Positive, PositiveInt


class Engine(Node):
    """vLLM's own option names. None means vLLM's default for the hardware (see planner.system)."""

    max_num_batched_tokens: PositiveInt | None = None
    max_num_seqs: PositiveInt | None = None
    block_size: PositiveInt | None = None
    max_model_len: PositiveInt | None = None
    gpu_memory_utilization: Fraction = 0.92
    num_gpu_blocks_override: PositiveInt | None = None
    kv_cache_memory_bytes: PositiveInt | None = None
    kv_cache_dtype: Literal["auto", "fp8", "bf16", "fp16"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Literal["fp8", "int8", "int4"] | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    enforce_eager: bool = False
    async_scheduling: bool | None = None
    long_prefill_token_threshold: NonNegativeInt = 0
    scheduler_reserve_full_isl: bool = True
    watermark: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scheduler: Literal["v1", "prefill_first"] = "v1"
    load_format: Literal["auto", "dummy"] = "auto"


class Router(Node):
    """How a request finds its worker. `policy` names a function in planner.routing.POLICIES."""

    policy: str = "least_loaded"
    overlap_weight: NonNegative = 1.0  # prefix_aware: credit per prompt block already cached
    temperature: NonNegative = 0.0  # prefix_aware: 0 takes the lowest cost, above it a softmax
    state_age_s: NonNegative = 0.0  # how old the router's view of the workers is
    decode_choice: Literal["at_arrival", "after_prefill"] = "after_prefill"
    prefill_dispatch: Literal["push", "shared_queue"] = "push"
    max_queue: PositiveInt | None = None  # shed load: reject when every worker has this many waiting
    preset: Literal["report", "dynamo_v0.3", "vllm_proxy"] | None = None


class LinkClass(Node):
    """One kind of wire. `setup_us` is paid once a transfer; bandwidth is what a single transfer alone gets."""

    preset: str | None = None
    bandwidth_gb_s: Positive | None = None
    latency_us: NonNegative | None = None
    setup_us: NonNegative | None = None
    sharing: Literal["fair", "fifo"] | None = None


class Link(LinkClass):
    """KV transfer between workers. The top level is the wire of one node; the others cross nodes and racks."""

    intra_node: LinkClass | None = None
    inter_node: LinkClass | None = None
    inter_rack: LinkClass | None = None
    connector: Literal["NixlConnector", "NixlPushConnector"] = "NixlConnector"


class LocalPrefill(Node):
    """Prefill on the decode worker when uncached tokens <= max_tokens or the prefill queue >= max_queue."""

    max_tokens: NonNegativeInt = 0
    max_queue: PositiveInt | None = None


class PoolSpec(Node):
    """One pool of equal workers; the unset keys are inherited from the top level."""

    replicas: PositiveInt = 1
    tp: PositiveInt = 1
    hardware: str | None = None
    profile: str | None = None
    engine: Engine | None = None
    router: Router | None = None
    placement: Literal["pack", "spread"] = "pack"


class Aggregated(Node):
    mode: Literal["aggregated"]
    replicas: PositiveInt = 1
    tp: PositiveInt = 1
    router: Router = Router()
    gpus_per_node: PositiveInt = 8
    placement: Literal["pack", "spread"] = "pack"


class Disaggregated(Node):
    mode: Literal["disaggregated"]
    prefill: PoolSpec = PoolSpec()
    decode: PoolSpec = PoolSpec()
    link: Link = Link()
    gpus_per_node: PositiveInt = 8
    router: Router = Router()
    first_token: Literal["decode", "prefill"] = "decode"
    local_prefill: LocalPrefill = LocalPrefill()


Deployment = Annotated[Aggregated | Disaggregated, Field(discriminator="mode")]


class ClusterNode(Node):
    name: str
    gpus: PositiveInt
    rack: str = "rack-0"
    hardware: str | None = None
    nic_gb_s: Positive | None = None


class Cluster(Node):
    """Left out: as many nodes of `gpus_per_node` as the deployment needs, in one rack."""

    nodes: Annotated[tuple[ClusterNode, ...], Field(strict=False)] = ()
    price_per_gpu_hour: NonNegative | None = None
