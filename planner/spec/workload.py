"""The traffic part of the YAML: lengths, workload kinds and the retrieval stage. Import these from `planner.spec`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from planner.messages import message
from planner.spec.strict_yaml import Fraction, Node, NonNegative, NonNegativeInt, Positive, PositiveInt

MOST_TICKS = 10_000_000  # of multi_round_qa's loop; all are laid out beforehand

# --- lengths -----------------------------------------------------------------------------------


class Fixed(Node):
    """Always `value`."""

    kind: Literal["fixed"] = "fixed"
    value: NonNegative


class Uniform(Node):
    """Every whole number of [low, high] equally often."""

    kind: Literal["uniform"] = "uniform"
    low: NonNegative
    high: NonNegative

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError(message("high {high:g} is below low; allowed: numbers from {low:g}", self.high, self.low))
        return self


class Lognormal(Node):
    """Lognormal with this arithmetic mean; `sigma` is that of the logarithm. Cut to [min, max]."""

    kind: Literal["lognormal"] = "lognormal"
    mean: Positive
    sigma: NonNegative
    min: NonNegative = 1
    max: Positive | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(message("max {max:g} is below min; allowed: numbers from {min:g}", self.max, self.min))
        return self


class Empirical(Node):
    """Values drawn with the given weights (equal when left out)."""

    kind: Literal["empirical"] = "empirical"
    values: Annotated[tuple[NonNegative, ...], Field(min_length=1, strict=False)]
    weights: Annotated[tuple[NonNegative, ...], Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.weights is not None:
            if len(self.weights) != len(self.values):
                raise ValueError(
                    message(
                        "{weights} weights for {values} values; allowed: one each", len(self.weights), len(self.values)
                    )
                )
            if sum(self.weights) <= 0:
                raise ValueError(message("all weights are zero; allowed: at least one above 0"))
        return self


Distribution = Annotated[Fixed | Uniform | Lognormal | Empirical, Field(discriminator="kind")]


def _form(value: Any) -> str:
    return "distribution" if isinstance(value, (dict, BaseModel)) else "number"


# tokens or turns
Length = Annotated[
    Annotated[PositiveInt, Tag("number")] | Annotated[Distribution, Tag("distribution")], Discriminator(_form)
]
# seconds
Duration = Annotated[
    Annotated[NonNegative, Tag("number")] | Annotated[Distribution, Tag("distribution")], Discriminator(_form)
]


def longest_of(length: float | Distribution) -> float | None:
    """The largest value of a length; None when it has no bound."""
    match length:
        case Fixed(value=value):
            return value
        case Uniform(high=high):
            return high
        case Lognormal(max=most):
            return most
        case Empirical(values=values):
            return max(values)
        case number:
            return number


# requests of a run: each costs about a kilobyte
Count = Annotated[PositiveInt, Field(le=10_000_000)]


# --- workload ----------------------------------------------------------------------------------


class Lengths(Node):
    """Prompt and output lengths of independent requests.

    `shared_prefix_tokens` leading tokens are the same in every prompt (a system prompt) and count
    within `prompt_tokens`. `max_tokens` is what the client asks for at most; default: the output length.
    """

    prompt_tokens: Length = 1024
    output_tokens: Length = 128
    shared_prefix_tokens: NonNegativeInt = 0
    max_tokens: PositiveInt | None = None

    @model_validator(mode="after")
    def _within(self) -> Self:
        longest = longest_of(self.prompt_tokens)
        if longest is not None and self.shared_prefix_tokens > longest:
            raise ValueError(
                message(
                    "shared_prefix_tokens {tokens} is above prompt_tokens; allowed: up to {longest:g}",
                    self.shared_prefix_tokens,
                    longest,
                )
            )
        return self


class Poisson(Lengths):
    """Exponential gaps at `rate` requests per second."""

    kind: Literal["poisson"] = "poisson"
    rate: Positive = 1.0
    requests: Count = 500


class Gamma(Lengths):
    """Gamma gaps as in `vllm bench serve`: shape = burstiness (1 is Poisson, below 1 is burstier)."""

    kind: Literal["gamma"]
    rate: Positive
    requests: Count = 500
    burstiness: Positive = 1.0


class Constant(Lengths):
    """Equal gaps."""

    kind: Literal["constant"]
    rate: Positive
    requests: Count = 500


class Concurrency(Lengths):
    """Closed loop: `concurrency` requests in flight; the next is sent when one ends."""

    kind: Literal["concurrency"]
    concurrency: PositiveInt
    requests: Count = 500


class Sessions(Node):
    """Multi-turn chats: sessions start as a Poisson process; each turn repeats the whole history.

    A turn's prompt = system prompt + all earlier turns and answers + `prompt_tokens` new ones; the next turn
    is sent `think_time_s` after the answer ends.
    """

    kind: Literal["sessions"]
    rate: Positive  # new sessions per second
    sessions: Count = 100
    turns: Length = 4
    think_time_s: Duration = 5.0
    system_tokens: NonNegativeInt = 0
    prompt_tokens: Length = 256
    output_tokens: Length = 128


class Rag(Node):
    """Document Q&A: system prompt, `retrieval.top_k` chunks drawn by popularity, then a question."""

    kind: Literal["rag"]
    rate: Positive
    requests: Count = 500
    burstiness: Positive = 1.0
    system_tokens: NonNegativeInt = 200
    question_tokens: Length = 50
    output_tokens: Length = 128


class MultiRoundQa(Node):
    """production-stack's multi-round-qa with its own option names (underscores for dashes).

    `tick_s` is the period of its main loop: a 0.1 s sleep plus the loop's own work. `time` bounds launching only.
    Each `log_interval` the loop prints a summary, which holds it up for `summary_s`. Token overheads of the prompt
    text and the chat template, and the digits that make one token, are parameters: they depend on the tokenizer.
    """

    kind: Literal["multi_round_qa"]
    num_users: Annotated[PositiveInt, Field(le=1_000_000)] = 10
    num_rounds: Annotated[PositiveInt, Field(le=1_000_000)] = 5
    qps: Positive = 1.0
    shared_system_prompt: NonNegativeInt = 1000
    user_history_prompt: NonNegativeInt = 1000
    answer_len: PositiveInt = 100
    time: Positive = 60.0
    init_user_id: NonNegativeInt = 0
    tick_s: Positive = 0.1015
    log_interval: Positive = 30.0
    summary_s: NonNegative = 0.05
    text_overhead_tokens: NonNegativeInt = 38
    template_tokens: NonNegativeInt = 5
    question_tokens: PositiveInt = 19
    digits_per_token: PositiveInt = 3

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.time / self.tick_s > MOST_TICKS:
            raise ValueError(
                message("time {time:g} is too many of tick_s; allowed: up to {most} ticks", self.time, MOST_TICKS)
            )
        return self


class Trace(Node):
    """Requests of a trace file. `format: auto` looks at the file; `requests` keeps only the first so many.

    `start_s` to `end_s` is the part wanted, in seconds after the first request; `sample` the share of its sessions (of
    its requests, where it has none). `rate` stretches or shortens the send times to so many requests per second, and
    starts the sessions of traces without send times; `speedup` divides send times. Pauses inside a session stay.
    `closed_loop` lets a session's next request wait for the answer and the recorded pause. Stamps on a coarse grid are
    spread within it, unless `dequantise` is false. Rows that do not fit are left out and counted, or
    refused (`strict`).
    """

    kind: Literal["trace"]
    path: Annotated[str, Field(min_length=1, description=message("the path of a trace file"))]
    format: str = "auto"
    speedup: Positive = 1.0
    rate: Positive | None = None
    requests: PositiveInt | None = None
    start_s: NonNegative = 0.0
    end_s: Positive | None = None
    sample: Fraction = 1.0
    closed_loop: bool = False
    dequantise: bool = True
    strict: bool = False
    block_tokens: PositiveInt | None = None  # tokens a hash id stands for; default: the format's own

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.rate is not None and self.speedup != 1.0:
            raise ValueError(message("rate {rate:g} beside a speedup; allowed: one of the two", self.rate))
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(
                message(
                    "end_s {end:g} is not after start_s; allowed: numbers above {start:g}", self.end_s, self.start_s
                )
            )
        return self


Workload = Annotated[
    Poisson | Gamma | Constant | Concurrency | Sessions | Rag | MultiRoundQa | Trace,
    Field(discriminator="kind"),
]


# --- retrieval ---------------------------------------------------------------------------------


class Popularity(Node):
    """Which documents are asked for: Zipf with exponent `zipf_s` over `documents`."""

    documents: Annotated[PositiveInt, Field(le=100_000_000)] = 1000
    zipf_s: NonNegative = 1.0


class Retrieval(Node):
    """The RAG stage, a queueing station of `workers`. Times are means of one request's service.

    `service_cv` is the coefficient of variation of the lognormal service time (0: constant).
    `at: prefill_worker` retrieves after routing, so prefix-aware routing sees only the system prompt.
    `corpus`, `embedder`, `index`, `reranker` and `candidates` are used by live mode only.
    """

    workers: Annotated[PositiveInt, Field(le=100_000)] = 4
    embed_ms: NonNegative = 5.0
    search_ms: NonNegative = 10.0
    rerank_ms: NonNegative = 0.0
    service_cv: Annotated[NonNegative, Field(le=100)] = 0.3
    top_k: PositiveInt = 4
    chunk_tokens: PositiveInt = 512
    popularity: Popularity = Popularity.model_construct()
    order: Literal["rank", "canonical"] = "rank"  # canonical: equal sets of chunks give equal prompts
    at: Literal["frontend", "prefill_worker"] = "frontend"
    corpus: str | None = None  # a folder of .txt/.md files; default: the small corpus that ships
    embedder: str = "hashing"  # or sentence-transformers:<name or folder>, openai:<base url>
    index: Literal["numpy", "faiss"] = "numpy"
    reranker: str | None = None  # overlap, none, rerank:<url>[#model]; default: overlap when rerank_ms is above 0
    candidates: PositiveInt = 20  # chunks that the index gives to the reranker (at least top_k)
