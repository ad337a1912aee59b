"""The YAML of a deployment, as frozen types, and its reading and writing.

Units are part of every name: `_s`, `_ms`, `_us`, `_tokens`, `_bytes`, `_gb_s` (1e9 bytes a second).
A wrong file raises `SpecError`, whose text is one line: where, what is wrong, what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import yaml
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from planner.strict_yaml import Node, SpecError, read_mapping, read_text, read_value, validate

__all__ = ["Node", "SpecError"]


def _whole(value: Any) -> Any:
    """1e4 is a whole number although YAML reads it as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


PositiveInt = Annotated[int, Field(gt=0), BeforeValidator(_whole)]
NonNegativeInt = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


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
    def _ordered(self) -> Uniform:
        if self.high < self.low:
            raise ValueError(f"high ({self.high}) must be at least low ({self.low})")
        return self


class Lognormal(Node):
    """Lognormal with this arithmetic mean; `sigma` is that of the logarithm. Cut to [min, max]."""

    kind: Literal["lognormal"] = "lognormal"
    mean: Positive
    sigma: NonNegative
    min: NonNegative = 1
    max: Positive | None = None


class Empirical(Node):
    """Values drawn with the given weights (equal when left out)."""

    kind: Literal["empirical"] = "empirical"
    values: Annotated[tuple[NonNegative, ...], Field(min_length=1, strict=False)]
    weights: Annotated[tuple[NonNegative, ...], Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _paired(self) -> Empirical:
        if self.weights is not None:
            if len(self.weights) != len(self.values):
                raise ValueError(f"{len(self.weights)} weights for {len(self.values)} values; give one each")
            if sum(self.weights) <= 0:
                raise ValueError("weights must not all be zero")
        return self


Distribution = Annotated[Union[Fixed, Uniform, Lognormal, Empirical], Field(discriminator="kind")]


def _form(value: Any) -> str:
    return "distribution" if isinstance(value, (dict, BaseModel)) else "number"


# tokens or turns
Length = Annotated[
    Union[Annotated[PositiveInt, Tag("number")], Annotated[Distribution, Tag("distribution")]], Discriminator(_form)
]
# seconds
Duration = Annotated[
    Union[Annotated[NonNegative, Tag("number")], Annotated[Distribution, Tag("distribution")]], Discriminator(_form)
]


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


class Poisson(Lengths):
    """Exponential gaps at `rate` requests per second."""

    kind: Literal["poisson"] = "poisson"
    rate: Positive = 1.0
    requests: PositiveInt = 500


class Gamma(Lengths):
    """Gamma gaps as in `vllm bench serve`: shape = burstiness (1 is Poisson, below 1 is burstier)."""

    kind: Literal["gamma"]
    rate: Positive
    requests: PositiveInt = 500
    burstiness: Positive = 1.0


class Constant(Lengths):
    """Equal gaps."""

    kind: Literal["constant"]
    rate: Positive
    requests: PositiveInt = 500


class Concurrency(Lengths):
    """Closed loop: `concurrency` requests in flight; the next is sent when one ends."""

    kind: Literal["concurrency"]
    concurrency: PositiveInt
    requests: PositiveInt = 500


class Sessions(Node):
    """Multi-turn chats: sessions start as a Poisson process; each turn repeats the whole history.

    A turn's prompt = system prompt + all earlier turns and answers + `prompt_tokens` new ones; the next turn
    is sent `think_time_s` after the answer ends.
    """

    kind: Literal["sessions"]
    rate: Positive  # new sessions per second
    sessions: PositiveInt = 100
    turns: Length = 4
    think_time_s: Duration = 5.0
    system_tokens: NonNegativeInt = 0
    prompt_tokens: Length = 256
    output_tokens: Length = 128


class Rag(Node):
    """Document Q&A: system prompt, `retrieval.top_k` chunks drawn by popularity, then a question."""

    kind: Literal["rag"]
    rate: Positive
    requests: PositiveInt = 500
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
    num_users: PositiveInt = 10
    num_rounds: PositiveInt = 5
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


class Trace(Node):
    """Requests of a trace file. `format: auto` looks at the file; `requests` keeps only the first so many."""

    kind: Literal["trace"]
    path: str
    format: str = "auto"
    speedup: Positive = 1.0
    requests: PositiveInt | None = None
    block_tokens: PositiveInt | None = None  # tokens a hash id stands for; default: the format's own


Workload = Annotated[
    Union[Poisson, Gamma, Constant, Concurrency, Sessions, Rag, MultiRoundQa, Trace],
    Field(discriminator="kind"),
]


# --- retrieval ---------------------------------------------------------------------------------


class Popularity(Node):
    """Which documents are asked for: Zipf with exponent `zipf_s` over `documents`."""

    documents: PositiveInt = 1000
    zipf_s: NonNegative = 1.0


class Retrieval(Node):
    """The RAG stage, a queueing station of `workers`. Times are means of one request's service.

    `service_cv` is the coefficient of variation of the lognormal service time (0: constant).
    `at: prefill_worker` retrieves after routing, so prefix-aware routing sees only the system prompt.
    `corpus`, `embedder` and `index` are used by live mode only.
    """

    workers: PositiveInt = 4
    embed_ms: NonNegative = 5.0
    search_ms: NonNegative = 10.0
    rerank_ms: NonNegative = 0.0
    service_cv: NonNegative = 0.3
    top_k: PositiveInt = 4
    chunk_tokens: PositiveInt = 512
    popularity: Popularity = Popularity()
    order: Literal["rank", "canonical"] = "rank"  # canonical: equal sets of chunks give equal prompts
    at: Literal["frontend", "prefill_worker"] = "frontend"
    corpus: str | None = None  # a folder of .txt/.md files; default: the small corpus that ships
    embedder: str = "hashing"  # or sentence-transformers:<name or folder>, openai:<base url>
    index: Literal["numpy", "faiss"] = "numpy"


# --- deployment --------------------------------------------------------------------------------


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


Deployment = Annotated[Union[Aggregated, Disaggregated], Field(discriminator="mode")]


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


class Slo(Node):
    """Targets: `attainment` of the requests must meet all those that are set."""

    ttft_ms: Positive | None = 500
    tpot_ms: Positive | None = 30
    e2e_ms: Positive | None = None
    attainment: Fraction = 0.99


class RunOptions(Node):
    seed: NonNegativeInt = 0
    warmup_requests: NonNegativeInt = 0  # left out of the metrics
    sample_interval_s: Positive = 1.0
    step_records: bool = True
    margin: NonNegative = 0.05  # suggest: P/D must win by this share to be worth it


class Optimizations(Node):
    """Knobs of the four areas; each is off when empty."""

    prefill: dict[str, Any] = {}
    transfer: dict[str, Any] = {}
    decode: dict[str, Any] = {}


class Spec(Node):
    """One deployment, its traffic and its targets."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str = "llama-3.1-8b"
    hardware: str = "h200"
    profile: str | None = None
    deployment: Deployment
    cluster: Cluster = Cluster()
    engine: Engine = Engine()
    retrieval: Retrieval | None = None
    workload: Workload = Poisson()
    slo: Slo = Slo()
    run: RunOptions = RunOptions()
    optimizations: Optimizations = Optimizations()

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        if isinstance(self.workload, Rag) and self.retrieval is None:
            raise ValueError("workload kind 'rag' needs a 'retrieval' section")
        return self


# --- reading and writing -------------------------------------------------------------------------

_KINDS: dict[str, tuple[str, dict[str, type[Node]]]] = {
    "workload": (
        "kind",
        {
            "poisson": Poisson,
            "gamma": Gamma,
            "constant": Constant,
            "concurrency": Concurrency,
            "sessions": Sessions,
            "rag": Rag,
            "multi_round_qa": MultiRoundQa,
            "trace": Trace,
        },
    ),
    "deployment": ("mode", {"aggregated": Aggregated, "disaggregated": Disaggregated}),
}


def config_root() -> Path:
    """The folder of shipped configs: the repository's `configs`, or `planner/_configs` of an installed wheel."""
    packaged = Path(__file__).parent / "_configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "configs"


def find_config(name: str | Path) -> Path:
    """A deployment file: a path, or the name of a shipped one (`disagg`, `configs/disagg.yaml`)."""
    path = Path(name)
    if path.is_file():
        return path
    root = config_root()
    inner = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    for candidate in (root / inner, root / f"{inner}.yaml"):
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(file.stem for file in root.glob("*.yaml")))
    raise SpecError(f"{name}: no such file; allowed: the path of a YAML file, or one of {shipped}")


def _override(data: dict[str, Any], assignments: Sequence[str]) -> None:
    """Apply `a.b=value` texts to raw data. A changed kind or mode drops the old kind's keys that the new one lacks."""
    before = {section: (data[section] or {}).copy() for section in _KINDS if isinstance(data.get(section), dict)}
    touched: dict[str, set[str]] = {section: set() for section in _KINDS}
    for text in assignments:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise SpecError(f"--set {text}: not an assignment; allowed: --set key.inner=value")
        here = data
        for part in parts[:-1]:
            if not isinstance(here.get(part), dict):
                here[part] = {}
            here = here[part]
        here[parts[-1]] = read_value(value, f"--set {key}")
        if parts[0] in touched and len(parts) > 1:
            touched[parts[0]].add(parts[1])
    for section, (key, kinds) in _KINDS.items():
        now = data.get(section)
        if not isinstance(now, dict) or key not in touched[section] or section not in before:
            continue
        kind = now.get(key)
        if kind in kinds and kind != before[section].get(key):
            keep = set(kinds[kind].model_fields) | touched[section]
            data[section] = {name: value for name, value in now.items() if name in keep}


def _from_data(data: dict[str, Any], where: str, overrides: Sequence[str]) -> Spec:
    _override(data, overrides)
    workload = data.get("workload")
    if isinstance(workload, dict) and "kind" not in workload:
        data["workload"] = {"kind": "poisson", **workload}
    return validate(Spec, data, where)


def parse(text: str, where: str = "spec", overrides: Sequence[str] = ()) -> Spec:
    """A Spec from YAML text; `where` names the source in errors. Raises SpecError."""
    return _from_data(read_mapping(text, where), where, overrides)


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Spec:
    """A Spec from a file, a shipped config's name, or (None) the quickstart, with `a.b=value` overrides applied.

    Raises SpecError: one line with file, key, fault and what is allowed.
    """
    file = find_config("quickstart" if path is None else path)
    return parse(read_text(file), os.path.relpath(file) if path is None else str(path), overrides)


def _plain(node: Node) -> dict[str, Any]:
    """Keys that differ from their defaults (and the discriminators), as plain YAML data."""
    out: dict[str, Any] = {}
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        if name in ("kind", "mode") or field.is_required() or value != field.get_default():
            out[field.alias or name] = _data(value)
    return out


def _data(value: Any) -> Any:
    if isinstance(value, Node):
        return _plain(value)
    if isinstance(value, dict):
        return {key: _data(item) for key, item in value.items()}
    return [_data(item) for item in value] if isinstance(value, (list, tuple)) else value



def dump(spec: Spec) -> str:
    """The spec as YAML with only the keys that differ from their defaults; `parse` gives the same spec back."""
    return str(yaml.safe_dump(_plain(spec), sort_keys=False, default_flow_style=None, width=110))


def schema() -> dict[str, Any]:
    """JSON Schema of the YAML, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema(by_alias=True)}


def spec_hash(spec: Spec) -> str:
    """SHA-256 of what the spec says beyond its defaults; the same whatever the order of keys."""
    text = json.dumps(_plain(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
