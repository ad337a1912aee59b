"""The deployment part of the YAML: engine, router, links, pools and cluster. Import these from `planner.spec`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from planner.messages import message
from planner.spec.service import MeasuredService
from planner.spec.strict_yaml import (
    MOST_NAME,
    Factor,
    Fraction,
    Node,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
)

MOST_WORKERS = 4096  # of a pool, GPUs of a worker and of a node
LEAST_AGE_S = 1e-3  # the simulator renews the router's view this often

Few = Annotated[PositiveInt, Field(le=MOST_WORKERS)]


def _age(seconds: float) -> float:
    if 0 < seconds < LEAST_AGE_S:
        raise ValueError(
            message("{seconds:g} is too small; allowed: 0, or numbers from {least:g}", seconds, LEAST_AGE_S)
        )
    return seconds


class Engine(Node):
    """vLLM's own option names. None means vLLM's default for the hardware (see planner.system.resolve)."""

    max_num_batched_tokens: PositiveInt | None = None  # tokens that one step may process
    max_num_seqs: PositiveInt | None = None  # requests that one step may hold
    block_size: PositiveInt | None = None  # tokens of a KV block; multiples of 16 on NVIDIA GPUs
    max_model_len: PositiveInt | None = None  # longest prompt and answer together
    max_position_embeddings: PositiveInt | None = None  # instead of the model's own: longer by rope scaling
    gpu_memory_utilization: Fraction = 0.92  # share of the memory for weights, working memory and KV
    num_gpu_blocks_override: PositiveInt | None = None  # KV blocks, instead of what the memory gives
    kv_cache_memory_bytes: PositiveInt | None = None  # of KV on each GPU, instead of what the memory gives
    kv_cache_dtype: Literal["auto", "fp8", "bf16", "fp16"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Literal["fp8", "int8", "int4"] | None = None  # of the weights, when they are loaded
    enable_prefix_caching: bool = True  # equal prompt beginnings are computed once
    enable_chunked_prefill: bool = True  # long prompts are cut to the step's budget
    enforce_eager: bool = False  # without CUDA graphs
    max_cudagraph_capture_size: PositiveInt | None = (
        None  # tokens of the largest graph; left out: twice the requests, 512
    )
    async_scheduling: bool | None = None  # the next step is planned while one runs; left out: on GPUs
    long_prefill_token_threshold: NonNegativeInt = 0  # most prompt tokens of one request in a step; 0: the budget
    scheduler_reserve_full_isl: bool = True  # a request is admitted when its whole prompt has room
    watermark: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the KV blocks that admissions leave free
    scheduler: Literal["v1", "prefill_first"] = "v1"  # prefill_first: vLLM V0, prompts before decodes
    enable_expert_parallel: bool = False  # each of a worker's tp x dp GPUs holds whole experts, not a share of each
    expert_imbalance: Factor = 1.0  # expert parallelism: the busiest GPU's work over the mean
    vllm_release: Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+)?$")] | None = None  # "0.19": its memory; else 0.32
    load_format: Literal["auto", "dummy"] = "auto"  # dummy: random weights, nothing is downloaded (live)


class Router(Node):
    """How a request finds its worker. `policy` names a function in planner.routing.POLICIES."""

    policy: str = "least_loaded"  # see docs/glossary.md, router
    overlap_weight: NonNegative = 1.0  # prefix_aware: credit per prompt block already cached
    temperature: NonNegative = 0.0  # prefix_aware: 0 takes the lowest cost, above it a softmax
    state_age_s: Annotated[NonNegative, AfterValidator(_age)] = 0.0  # how old the router's view of the workers is
    decode_choice: Literal["at_arrival", "after_prefill"] = "after_prefill"  # when the decode worker is chosen
    prefill_dispatch: Literal["push", "shared_queue"] = "push"  # shared_queue: prefill workers pull from one queue
    max_queue: PositiveInt | None = None  # shed load: reject when every worker has this many waiting
    preset: Literal["report", "dynamo_v0.3", "vllm_proxy"] | None = None  # a known stack's; keys given here win


class LinkClass(Node):
    """One kind of wire. `setup_us` is paid once a transfer; bandwidth is what a single transfer alone gets."""

    preset: str | None = None  # a file in configs/links
    bandwidth_gb_s: Positive | None = None  # 1e9 bytes a second
    latency_us: NonNegative | None = None
    setup_us: NonNegative | None = None
    sharing: Literal["fair", "fifo"] | None = None  # transfers at the same time: all slower, or one after the other


class Link(LinkClass):
    """KV transfer between workers. The top level is the wire of one node; the others cross nodes and racks."""

    intra_node: LinkClass | None = None
    inter_node: LinkClass | None = None
    inter_rack: LinkClass | None = None
    connector: Literal["NixlConnector", "NixlPushConnector"] = "NixlConnector"  # decode reads, or prefill writes
    cross_layer_blocks: bool = False  # one descriptor a block instead of one for K and one for V of every layer
    nixl_threads: PositiveInt | None = None  # of a NIXL agent; left out: vLLM's number. No term of the law: served only
    post_us: NonNegative | None = None  # a descriptor: pull, inside a step; push, on a thread beside the steps
    way_ms: NonNegative | None = None  # prefill's answer to decode's queue; over the profile's hop_s
    way_us_per_token: NonNegative | None = None  # more for each prompt token: it is parsed twice


class LocalPrefill(Node):
    """Prefill on the decode worker when uncached tokens <= max_tokens or the prefill queue >= max_queue."""

    max_tokens: NonNegativeInt = 0
    max_queue: PositiveInt | None = None


class PoolSpec(Node):
    """One pool of equal workers; the unset keys are inherited from the top level."""

    replicas: Few = 1  # workers
    tp: Few = 1  # GPUs of a rank (tensor parallelism)
    dp: Few = 1  # ranks of a worker (data parallelism), each with a KV cache; they share the experts of a mixture
    hardware: str | None = None
    profile: str | MeasuredService | None = None
    engine: Engine | None = None  # its keys go over those of the file's own `engine`
    router: Router | None = None
    placement: Literal["pack", "spread"] = "pack"  # fill a node first, or take the nodes in turn


class Aggregated(Node):
    """Every worker prefills and decodes."""

    mode: Literal["aggregated"]
    replicas: Few = 1  # workers
    tp: Few = 1  # GPUs of a rank (tensor parallelism)
    dp: Few = 1  # ranks of a worker (data parallelism), each with a KV cache; they share the experts of a mixture
    router: Router = Router.model_construct()
    gpus_per_node: Few = 8
    placement: Literal["pack", "spread"] = "pack"  # fill a node first, or take the nodes in turn


class Disaggregated(Node):
    """Some workers prefill, the others decode."""

    mode: Literal["disaggregated"]
    prefill: PoolSpec = PoolSpec.model_construct()
    decode: PoolSpec = PoolSpec.model_construct()
    link: Link = Link.model_construct()
    gpus_per_node: Few = 8
    router: Router = Router.model_construct()
    first_token: Literal["decode", "prefill"] = "decode"  # whose first token the client gets
    local_prefill: LocalPrefill = LocalPrefill.model_construct()


Deployment = Annotated[Aggregated | Disaggregated, Field(discriminator="mode")]


class ClusterNode(Node):
    """One machine."""

    name: Annotated[str, Field(max_length=MOST_NAME)]
    gpus: Few
    rack: str = "rack-0"
    hardware: str | None = None
    nic_gb_s: Positive | None = None  # of its uplink, shared by all transfers that leave; left out: the GPUs' NICs


class Cluster(Node):
    """Left out: as many nodes of `gpus_per_node` as the deployment needs, in one rack."""

    nodes: Annotated[tuple[ClusterNode, ...], Field(strict=False)] = ()
    price_per_gpu_hour: NonNegative | None = None  # in any currency; then answers have a cost
