"""A stack that nobody can look into, as a law of its workers: what prompts take, and what the tokens of answers do."""

from typing import Annotated, Literal

from pydantic import Field

from planner.spec.strict_yaml import Node, NonNegative, NonNegativeInt, Positive, PositiveInt

Range = Annotated[tuple[NonNegativeInt, NonNegativeInt], Field(strict=False)]


class TokenTime(Node):
    """Milliseconds of an output token: `base` + `per_request` x requests that decode + `per_context_token` x theirs."""

    base: Positive
    per_request: NonNegative = 0.0
    per_context_token: NonNegative = 0.0  # of all tokens that those requests hold


class Point(Node):
    """One end-to-end measurement that the law was fitted to. Times are means; workers are those of the deployment."""

    concurrency: Positive
    prompt_tokens: Positive
    output_tokens: Annotated[float, Field(gt=1)]
    ttft_ms: Positive
    tpot_ms: Positive
    prefill_workers: PositiveInt = 1
    decode_workers: PositiveInt = 1
    requests: PositiveInt | None = None  # of a loop that sent the first `concurrency` of so many at once
    source: str | None = None


class MeasuredService(Node):
    """Of one worker, whatever it is made of. The model and GPU it was measured on warn where others are used."""

    kind: Literal["measured_service"]
    prefill_tokens_per_s: Positive
    tpot_ms: TokenTime
    request_ms: NonNegative = 0.0  # of a request before its prompt is computed
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str | None = None
    hardware: str | None = None
    tp: PositiveInt | None = None  # GPUs of a worker
    kv_cache_tokens: PositiveInt | None = None  # that it has room for; left out: as vLLM counts the GPU's memory
    batch: Range | None = None  # requests that decode, as measured: [lowest, highest]
    context: Range | None = None  # tokens of a request
    points: Annotated[tuple[Point, ...], Field(strict=False)] = ()
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()
