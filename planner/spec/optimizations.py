"""Knobs of the YAML's `optimizations`: each is off unless its key is there. What they do is in docs/knobs.md.

A knob changes what happens (events, resources, work), never a result by a factor. Those that change what the model
answers say so in `CHANGES_OUTPUT`.
"""

from typing import Annotated, Literal

from pydantic import Field

from planner.spec.strict_yaml import LEAST_PERIOD_S, Node, NonNegative, NonNegativeInt, Positive, PositiveInt

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class Streams(Node):
    """Prompts and decodes of one step run in two streams instead of one batch: the step lasts as long as the longer.

    The decode stream gets `decode_sm_share` of the GPU's multiprocessors and reads memory at full speed from
    `bandwidth_sm_share` on; prompts compute on the rest.
    """

    decode_sm_share: Share = 0.3
    bandwidth_sm_share: Share = 0.4


class SparseAttention(Node):
    """A prompt token attends to at most `keys` others, which an indexer picks by looking at all of them.

    `indexer_share` is what one look costs, as a share of attending (DeepSeek-V3.2: 64 small fp8 heads against 128).
    """

    keys: PositiveInt = 2048
    indexer_share: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.06


class Prefill(Node):
    streams: Streams | None = None
    sparse_attention: SparseAttention | None = None
    prefetch_retrieval: bool = False  # shared queue: a worker retrieves for the next request while one prefills


class Compression(Node):
    """KV is compressed on the sending GPUs and expanded on the receiving ones, each shard by its own GPU.

    Only a transfer that finds at least `queue` others on its wire is compressed. `*_gb_s` are rates of uncompressed
    bytes of one GPU.
    """

    ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    compress_gb_s: Positive = 100.0
    expand_gb_s: Positive = 150.0
    queue: NonNegativeInt = 1


class Layerwise(Node):
    """KV leaves in `groups` of layers as they are computed, while the prompt's last step still runs."""

    groups: Annotated[PositiveInt, Field(le=1000)] = 8  # each is a transfer; no model has as many layers


class Transfer(Node):
    staging: Literal["zero_copy", "host"] = "zero_copy"  # host: through both hosts' memory, over PCIe twice
    compression: Compression | None = None
    layerwise: Layerwise | None = None


class Persistent(Node):
    """Decode kernels that stay resident: `removed_ms` of a step's launches and scheduling is gone.

    They keep `sm_share` of the multiprocessors, which prompts on the same GPU then lack.
    """

    removed_ms: NonNegative = 1.0
    sm_share: Share = 0.1


class Tier(Node):
    """Memory below the GPU that keeps evicted KV blocks of shared prompt beginnings."""

    capacity_gb: Positive
    read_gb_s: Positive | None = None  # None: the GPU's PCIe
    write_gb_s: Positive | None = None


class Decode(Node):
    micro_batches: PositiveInt = 1  # the decode batch in so many parts, one after the other
    persistent: Persistent | None = None
    preemption: Literal["recompute", "swap"] = "recompute"
    swap_gb: Positive = 4.0  # host memory for swapped KV, a worker; vLLM V0's default
    offload: Annotated[tuple[Tier, ...], Field(strict=False)] = ()  # host memory first, then slower ones
    key_only: bool = False  # keep keys alone and compute values from them again
    key_only_above_tokens: NonNegativeInt = 0  # only sequences whose prompt is longer


class RoleSwitch(Node):
    """A decode worker without requests becomes a prefill worker when prompts queue, and goes back when they do not.

    Looked at every `check_every_s`: above `queue` waiting prompts a prefill worker one is taken, without any it goes
    back. It first finishes what it has, then is away for `delay_s`.
    """

    queue: PositiveInt = 4
    check_every_s: Annotated[float, Field(ge=LEAST_PERIOD_S)] = 1.0
    delay_s: NonNegative = 5.0


class Separation(Node):
    role_switch: RoleSwitch | None = None


class Optimizations(Node):
    """Knobs of the four areas; each is off when empty."""

    prefill: Prefill = Prefill.model_construct()
    transfer: Transfer = Transfer.model_construct()
    decode: Decode = Decode.model_construct()
    separation: Separation = Separation.model_construct()

    @property
    def changes_output(self) -> tuple[str, ...]:
        """The knobs in use after which the model may answer differently."""
        used = {
            "prefill.sparse_attention": self.prefill.sparse_attention is not None,
            "transfer.compression": self.transfer.compression is not None,
            "decode.key_only": self.decode.key_only,
        }
        return tuple(name for name, on in used.items() if on)
