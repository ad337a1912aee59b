"""The types of configs/profiles/*.yaml: the parameters of a latency law and where they come from."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from planner.engine.checkpoint import Weights
from planner.engine.law import StepLaw
from planner.messages import message
from planner.spec import Factor, Fraction, Node, NonNegative, NonNegativeInt, Positive, PositiveInt


class Residual(Node):
    """How far the law is from the rows it was fitted on, in percent of the measured value."""

    rows: PositiveInt
    mean_abs_pct: NonNegative
    max_abs_pct: NonNegative


class Fit(Node):
    """How sure the parameters are. `covariance` is over `parameters`, in that order (seconds squared)."""

    method: str
    parameters: Annotated[tuple[str, ...], Field(strict=False)]
    standard_errors: dict[str, NonNegative]
    covariance: Annotated[tuple[Annotated[tuple[float, ...], Field(strict=False)], ...], Field(strict=False)]
    host_errors: dict[str, NonNegative] = {}  # standard errors of the host's seconds
    residuals: dict[str, Residual]  # by kind of row
    raised: Annotated[tuple[str, ...], Field(strict=False)] = ()  # parameters that were below the hardware's roofline
    ties: dict[str, str] = {}  # parameter -> the one it was set equal to, for want of rows that tell them apart

    @model_validator(mode="after")
    def _square(self) -> Self:
        unknown = next((name for name in self.parameters if name not in StepLaw.model_fields), None)
        if unknown is not None:
            raise ValueError(
                message(
                    "parameters: {name!r} is none of the law's; allowed: {names}",
                    unknown,
                    ", ".join(StepLaw.model_fields),
                )
            )
        count = len(self.parameters)
        if len(self.covariance) != count or any(len(row) != count for row in self.covariance):
            raise ValueError(
                message("covariance: is not square; allowed: {count} rows of {count} numbers, as parameters", count)
            )
        return self


Range = Annotated[tuple[NonNegativeInt, NonNegativeInt], Field(strict=False)]


class Validity(Node):
    """What was measured, each as [lowest, highest]. A prediction outside it is an extrapolation and says so."""

    batch: Range
    context: Range  # tokens of one sequence
    prefill_tokens: Range  # new prompt tokens of one step


class Source(Node):
    """Data a profile was fitted on: for a slice of a file, the hash of the slice's bytes."""

    what: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Measured(Node):
    """Where and when the measurements were made."""

    gpu: str
    driver: str = "unknown"
    vllm: str = "unknown"
    torch: str = "unknown"
    date: str = "unknown"
    samples: PositiveInt
    how: str = ""
    composed: str | None = None  # where the times are summed up from parts and no engine was run: from what


class HostLaw(Node):
    """`HostCosts` as written in a file."""

    request_s: NonNegative = 0.0
    request_per_token_s: NonNegative = 0.0
    request_shared: Annotated[float, Field(ge=0, le=1)] = 0.0  # of request_s: see planner.engine.host_costs.HostCosts
    response_s: NonNegative = 0.0
    response_per_seq_s: NonNegative = 0.0
    response_per_token_s: NonNegative = 0.0
    hop_s: NonNegative = 0.0


class WireLaw(Node):
    """A KV transfer takes setup_s + latency_s + bytes / bandwidth; measured by a transfer sweep."""

    bandwidth_gb_s: Positive
    latency_s: NonNegative = 0.0
    setup_s: NonNegative = 0.0
    connector: str = "NixlConnector"


class HandOverLaw(Node):
    """What a hand-over costs the workers of a measured pair, and the standard errors of that by name. 0: not seen."""

    connector: str = "NixlConnector"
    post_s: NonNegative = 0.0  # a descriptor of a transfer of many, on the worker that posts
    alone: Factor | None = None  # times that: one of a transfer of few, which one thread posts; None: not seen
    way_s: NonNegative = 0.0  # from the prefill worker's answer to the decode worker's queue
    way_per_token_s: NonNegative = 0.0
    slowing: Factor = 1.0  # a prompt's step while KV is read from its GPU, where nothing is known of its warmth
    idle_look_s: NonNegative = 0.0  # until an idle engine sees that a transfer has ended
    pull_beside: Factor = 1.0  # pull: posts while the GPU that is read from computes
    block_size: PositiveInt | None = None  # tokens of the KV blocks that it was measured with
    piece_bytes: PositiveInt | None = None  # of a descriptor, likewise
    pull_block_sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()  # more that pull was checked with
    push_block_sizes: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()  # or push
    tp: PositiveInt | None = None  # of both workers
    errors: dict[str, NonNegative] = {}


class Launches(Node):
    """How uneven the host launches steps, as multiples of the law's launch terms.

    A worker's host keeps a level for `stays_s` seconds on average, then takes another one, each as likely.
    """

    levels: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    stays_s: Positive


class Spread(Node):
    """How far calibrations of one engine are from each other: standard deviations of logarithms over `calibrations`.

    Rounds of one server say less than servers, which say what a prediction for another server may be off by.
    """

    calibrations: PositiveInt
    of: str  # what they are: rounds of one server, servers
    decode: NonNegative = 0.0  # a decode step
    prompts: NonNegative = 0.0  # a step of prompts
    launches: NonNegative = 0.0
    requests: NonNegative = 0.0  # the host's time before a request reaches the engine
    responses: NonNegative = 0.0  # and after


GROUPS = ("decode", "prompts", "launches", "requests", "responses")  # of a `Spread`


class ProfileFile(Node):
    """configs/profiles/*.yaml, as read."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    provenance: Literal["simulated", "calibrated"]
    model: str
    hardware: str
    tp: PositiveInt = 1
    cuda_graphs: bool = True
    gpu_memory_utilization: Fraction | None = None
    kv_cache_tokens: PositiveInt | None = None
    kv_cache_dtype: Literal["fp8", "bf16", "fp16"] | None = None  # of the engine that was measured; None: its dtype
    quantization: Weights | None = None  # of its weights, stored so or when they were loaded
    also: Annotated[tuple[str, ...], Field(strict=False)] | None = None  # profiles of this engine at other TP sizes
    measured: Measured | None = None
    step: StepLaw
    connected: dict[str, NonNegative] | None = None  # terms of `step` in engines that keep their KV for a connector
    host: HostLaw = HostLaw.model_construct()
    link: WireLaw | None = None
    hand_over: HandOverLaw | None = None
    launches: Launches | None = None
    spread: Spread | None = None
    interference: Factor | None = None  # a step's time while another engine of the host works
    warm_slowing: Factor | None = None  # of prompts on a warm GPU; `connected` has a rested one's, or else `step`
    rested: Literal[True] | None = None  # `step` is that of a rested GPU where `connected` has terms, too
    validity: Validity | None = None
    fit: Fit | None = None
    fitted_to: str | None = None  # what a simulated profile was fitted to, where that is no measurement of steps
    fitted_on: Annotated[tuple[Source, ...], Field(strict=False)] = ()
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @field_validator("connected")
    @classmethod
    def _terms(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        unknown = sorted(set(value or ()) - set(StepLaw.model_fields))
        if unknown:
            raise ValueError(f"unknown terms {', '.join(unknown)}; allowed: terms of a step")
        return value

    @property
    def in_a_pair(self) -> Self:
        """The engine with a connector to another one."""
        if not self.connected:
            return self
        return self.model_copy(update={"step": self.step.model_copy(update=self.connected), "connected": None})

    @property
    def types(self) -> tuple[str, str | None]:
        """Of the measured engine's KV cache and quantised weights, as in `engine`."""
        return self.kv_cache_dtype or "auto", self.quantization

    @property
    def fit_error(self) -> float | None:
        """How far the law is from the steps that it was fitted to, on average, as a share; None: not known."""
        residuals = self.fit.residuals.values() if self.fit else ()
        return sum(one.mean_abs_pct for one in residuals) / len(residuals) / 100 if residuals else None
