"""The law of an engine step: a table of terms, and all that follows from it.

A step takes the sum of its terms, each a parameter times a feature of the step:

    decode only    decode terms + context terms
    with prompts   max(floor term, line terms) + prompt terms

`StepLaw` is the table. A term says what it multiplies, what the hardware bounds it to, what is assumed of it where
nothing was measured, what becomes of it at another TP, and how a calibration finds it. One step
(planner.engine.step_time), rows of many (planner.calibration.fitting), bounds, roofline, TP, the keys of a profile and
docs/law.md are read off it, so that a new term is a field here.

Only context terms grow with the context, and in proportion: at one batch a run of decode-only steps is an arithmetic
progression, which the simulator uses. A decode-only step runs at the next CUDA graph size (`Steps.padded`); a step with
prompts leaves the full graph and is not padded. Its decode sequences are rows of the same products as its tokens; where
kernels are launched one by one the first 128 take several times as much (H200, up to 330 beside prompts).

Before the GPU can run a step the host must launch it, which takes the sum of the launch terms. An engine that schedules
ahead launches a step while the one before it runs, so that a launch is felt only where it is longer than that; and it
takes in the results of a step after it has launched the next one (simulator/worker.py).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.engine.roof import EXCHANGES_LAUNCHED, Roof
from planner.spec import Node, NonNegative

Array = NDArray[np.float64]
Amount: TypeAlias = Any  # a number of one step, or an array over many
Values: TypeAlias = Mapping[str, float]  # parameters of a law by name

WIDE = 128  # rows of a matrix product that one tile holds
MANY = 1024  # tokens of a step; more take longer each, most likely because activations leave the caches
ENOUGH = 20  # rows on each side of MANY
FEW = 0.8  # of the most experts that steps touch


@dataclass(slots=True)
class Steps:
    """What one step holds, or each of many. `prompts` and `eager` are 1 or 0."""

    prompts: Amount  # whether it holds prompt chunks
    tokens: Amount = 0.0  # new tokens of the chunks
    pairs: Amount = 0.0  # query-key pairs of the chunks: n new tokens after p have n * (p + n / 2); none across prompts
    seqs: Amount = 0.0  # decode sequences
    padded: Amount = 0.0  # the CUDA graph size that it runs at when it holds no prompts
    context: Amount = 0.0  # tokens that the decode sequences hold
    eager: Amount = 0.0  # whether its tokens and sequences are more than the largest CUDA graph holds
    everyone: Amount = 0.0  # tokens and sequences of all ranks in lockstep; 0: each has as many as this one


def waves(batch: Amount, wave: float, tail: float) -> tuple[Array, Array]:
    """How many times as long `batch` sequences take to read as in full waves of `wave`; its derivative by the tail.

    Attention over the KV cache runs a block for each sequence and KV head: `wave` sequences fill all multiprocessors,
    so that the context is read in whole waves. A last one that is partly filled takes `tail` of a wave at least, and
    half of what is missing to a wave more when it is the only one, with no blocks before it to overlap with. Where
    several times as many sequences would fit, each is split over so many blocks. Without decodes there are no waves.
    """
    seqs = np.asarray(batch, dtype=float)
    if not wave:
        return np.ones(seqs.shape), np.zeros(seqs.shape)
    some = np.maximum(seqs, 1.0)
    split = 2 * some <= wave
    whole = np.ceil(some / wave) - 1
    share = np.where(whole > 0, 1.0, 0.5)  # of the tail in the least that the last wave takes
    least = wave * (1.0 - share + share * min(tail, 1.0))
    rest = some - whole * wave
    short = ~split & (least > rest)
    parts = wave / np.maximum(np.floor(wave / some), 1.0) / some
    factor = np.where(split, parts, (whole * wave + np.where(short, least, rest)) / some)
    decodes = seqs > 0
    return np.where(decodes, factor, 1.0), np.where(decodes & short, share * wave / some, 0.0)


def touched(tokens: Amount, experts: float, each: float) -> Amount:
    """Experts of a layer that `tokens` are sent to, `each` of them to so many of all: the mean under even routing."""
    return experts * (1.0 - (1.0 - each / experts) ** tokens) if experts else 0.0 * tokens


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a feature is multiplied by, from the batch and two parameters of their own: one given, one fitted."""

    of: Callable[[Amount, float, float], tuple[Array, Array]]  # (batch, given, fitted) -> factor, d factor / d fitted
    given: str
    fitted: str
    start: float  # where the search for the fitted one begins


@dataclass(frozen=True, slots=True)
class Feature:
    """What a term multiplies. A row of measurements holds its sum over the row's steps, as `column`.

    Where it is an amount of the step as it stands, if that holds prompts, `plain` names it (step_time.AMOUNTS).
    """

    column: str
    what: str
    count: Callable[[Steps, Values], Amount]
    stretch: Stretch | None = None
    plain: str = ""

    def of(self, steps: Steps, values: Values) -> Amount:
        """The feature of each step under a law's `values`."""
        found = self.count(steps, values)
        return found if self.stretch is None else found * self.factor(steps.seqs, values)[0]

    def factor(self, seqs: Amount, values: Values) -> tuple[Array, Array]:
        """Of the stretch, with its derivative; one where there is none."""
        if self.stretch is None:
            return np.ones(np.shape(seqs)), np.zeros(np.shape(seqs))
        return self.stretch.of(seqs, values.get(self.stretch.given, 0.0), values.get(self.stretch.fitted, 0.0))


@dataclass(frozen=True, slots=True)
class Scaling:
    """A parameter on its way to another TP: its value, and the roofline's laws `there` (where measured) and `here`."""

    value: float
    here: Values
    there: Values
    roof: Roof  # at the TP asked for


def ratio(of: str) -> Callable[[Scaling], float]:
    """As the roofline's parameter `of`; where that is nothing, what it becomes is added."""

    def scaled(at: Scaling) -> float:
        here, there = at.here[of], at.there[of]
        return at.value * (here / there) if there > 0 else at.value + here

    return scaled


def difference(of: str) -> Callable[[Scaling], float]:
    """By what the roofline's parameter `of` grows or shrinks."""
    return lambda at: at.value + at.here[of] - at.there[of]


def same(at: Scaling) -> float:
    """TP does not change it."""
    return at.value


def launched(at: Scaling) -> float:
    """As it is, but for the exchanges between ranks that the host launches as well."""
    here, there = (1.0 + EXCHANGES_LAUNCHED * (values["ranks"] > 0) for values in (at.here, at.there))
    return at.value * here / there


def own(of: Callable[[Roof], float]) -> Callable[[Scaling], float]:
    """The deployment's figure, whatever it was where the law was measured."""
    return lambda at: of(at.roof)


def anew(of: Callable[[Roof], float]) -> Callable[[Scaling], float]:
    """The hardware's and the model's figure at the new TP, where it had one at all."""
    return lambda at: of(at.roof) if at.value else 0.0


# A term of a fit that rows do not show apart equals another one: (that one, whether `rows` do show it apart).
Tie: TypeAlias = tuple[str, Callable[[Any], bool]]


def _nothing(_: Roof) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the law; its name is that of the field it stands at. See the module for the parts.

    A term of the part `shape` is no time: features of others need it, and it is given by model and hardware
    (`given`) or fitted with them (`Stretch.fitted`). A field with a default is fitted where rows show its feature.
    """

    part: Literal["decode", "context", "floor", "line", "prompt", "launch", "shape"]
    what: str
    feature: Feature | None = None  # None: a shape's
    bound: Callable[[Roof], float] = _nothing  # it is never less
    guess: Callable[[Roof], float] = _nothing  # in a roofline
    scale: Callable[[Scaling], float] = same  # to another TP
    scaling: str = "stays"
    reduced: bool = False  # each unit is a token whose vectors TP moves between GPUs
    given: Callable[[Roof], float] = _nothing  # a shape that needs no measurement
    tie: Tie | None = None
    most: float = math.inf  # times the one that it may be tied to: beyond it the rows told something else
    measured: str = "steps"
    told: Callable[[Any], bool] = lambda rows: True  # whether rows that have the feature tell it from the other terms


def _both_sides(rows: Any) -> bool:
    """Decode steps of several graph sizes below the rows that change kernels, and some above."""
    decodes = rows[(rows["decode_steps"] > 0) & (rows["mixed_steps"] == 0)]
    below = decodes["decode_tiled"] == 0
    sizes = (decodes["decode_padded"] / decodes["decode_steps"])[below].round()
    return bool(sizes.nunique() >= 3 and (~below).sum() >= 5)


def _several(rows: Any) -> bool:
    """Steps of prompts beside batches of several sizes."""
    return bool(rows["mixed_seqs"][rows["mixed_seqs"] > 0].nunique() >= 2)


def _experts(rows: Any) -> bool:
    """Steps of prompts so short that they touch few experts, and of longer ones."""
    found = rows["mixed_experts"][rows["mixed_steps"] > 0]
    return bool(len(found) and found.min() < FEW * found.max())


def _many(rows: Any) -> bool:
    """Enough steps of few prompt tokens and of many, whose floor and line are then not taken for it."""
    prompts = rows[rows["mixed_steps"] > 0]
    return bool(min((prompts["prefill_many"] > 0).sum(), (prompts["prefill_many"] == 0).sum()) >= ENOUGH)


def _touched(tokens: Amount, values: Values) -> Amount:
    return touched(tokens, values.get("experts", 0.0), values.get("experts_per_token", 0.0))


def _everyone(steps: Steps, values: Values) -> Amount:
    """Tokens and sequences of a step with prompts, of all ranks that take it together."""
    mine, ranks = steps.tokens + steps.seqs, values.get("ranks", 0.0)
    return np.where(np.asarray(steps.everyone) > 0, steps.everyone, mine * ranks) if ranks else mine


def _mean(steps: Steps, values: Values) -> Amount:
    """How many more of them the mean rank has than this one."""
    ranks = values.get("ranks", 0.0)
    return _everyone(steps, values) / ranks - (steps.tokens + steps.seqs) if ranks else 0.0 * steps.tokens


def _padded(steps: Steps, values: Values) -> Amount:
    """Sequences of all ranks, padded to the largest rank's CUDA graph as vLLM does; in a decode-only step."""
    return steps.padded * (values.get("ranks", 0.0) or 1.0)


DECODES = Feature("decode_steps", "a decode-only step", lambda steps, _: 1.0 - steps.prompts)
PADDED = Feature(
    "decode_padded", "its sequences, padded to a CUDA graph", lambda steps, _: steps.padded * (1.0 - steps.prompts)
)
WIDER = Feature(
    "decode_wide",
    f"those beyond {WIDE}",
    lambda steps, _: np.maximum(steps.padded - WIDE, 0.0) * (1.0 - steps.prompts),
)
TILED = Feature(
    "decode_tiled",
    "a decode-only step of more padded sequences than `decode_tile_rows`",
    lambda steps, values: (
        (steps.padded > values.get("decode_tile_rows", 0.0))
        * (steps.padded <= 4 * values.get("decode_tile_rows", 0.0))
        * (values.get("decode_tile_rows", 0.0) > 0)
        * (1.0 - steps.prompts)
    ),
)
CONTEXT = Feature(
    "decode_context",
    "tokens that its sequences hold, read in whole waves",
    lambda steps, _: steps.context * (1.0 - steps.prompts),
    Stretch(waves, "decode_wave_seqs", "decode_wave_tail", start=0.6),
)
DECODE_EXPERTS = Feature(
    "decode_experts",
    "experts of a layer that its padded sequences are sent to",
    lambda steps, values: _touched(_padded(steps, values), values) * (1.0 - steps.prompts),
)
PROMPTS = Feature("mixed_steps", "a step with prompts", lambda steps, _: steps.prompts, plain="prompts")
TOKENS = Feature(
    "prefill_tokens",
    f"its new prompt tokens; decode sequences, too, in a CUDA graph, and beyond {WIDE} elsewhere",
    lambda steps, _: (
        steps.tokens + steps.prompts * np.where(steps.eager > 0, np.maximum(steps.seqs - WIDE, 0.0), steps.seqs)
    ),
    plain="rows",
)
MANY_TOKENS = Feature(
    "prefill_many", f"those beyond {MANY}", lambda steps, _: np.maximum(steps.tokens - MANY, 0.0), plain="many"
)
PAIRS = Feature("prefill_pairs", "its query-key pairs", lambda steps, _: steps.pairs, plain="pairs")
BESIDE = Feature(
    "mixed_seqs",
    f"its decode sequences up to {WIDE}, where CUDA graphs do not hold it",
    lambda steps, _: np.minimum(steps.seqs, WIDE) * steps.prompts * steps.eager,
    plain="eager_seqs",
)
BESIDE_CONTEXT = Feature(
    "mixed_context", "tokens that those hold", lambda steps, _: steps.context * steps.prompts, plain="context"
)
MIXED_EXPERTS = Feature(
    "mixed_experts",
    "experts of a layer that its tokens and sequences are sent to",
    lambda steps, values: _touched(_everyone(steps, values), values) * steps.prompts,
)
DECODE_EXCHANGED = Feature(
    "decode_exchanged",
    "padded sequences of all ranks",
    lambda steps, values: _padded(steps, values) * (1.0 - steps.prompts) * (values.get("ranks", 0.0) > 0),
)
MIXED_EXCHANGED = Feature(
    "mixed_exchanged",
    "tokens and sequences of all ranks",
    lambda steps, values: _everyone(steps, values) * steps.prompts * (values.get("ranks", 0.0) > 0),
)
UNEVEN = Feature(
    "mixed_uneven",
    "tokens and sequences that the mean rank has more than this one, which may be fewer",
    lambda steps, values: _mean(steps, values) * steps.prompts,
)

GRAPH_DECODE = Feature(
    "launched_decode",
    "a decode-only step in a CUDA graph",
    lambda steps, _: (1.0 - steps.prompts) * (1.0 - steps.eager),
)
GRAPH_PROMPTS = Feature(
    "launched_graph", "a step with prompts in one", lambda steps, _: steps.prompts * (1.0 - steps.eager)
)
EAGER = Feature("launched_eager", "a step beyond the largest, kernel by kernel", lambda steps, _: steps.eager)
SEQS = Feature("launched_seqs", "sequences of the step", lambda steps, _: steps.seqs)

BY_RATIO = "as its roofline does"


def _shape(what: str, of: Callable[[Roof], float]) -> Term:
    """A figure of the model, the same in every law of it."""
    return Term("shape", what, bound=of, guess=of, given=of, measured="the model's config.json")


class StepLaw(Node):
    """The parameters, in seconds; standard errors and covariance go by their names. 0 by default: not known."""

    decode_s: Annotated[
        NonNegative,
        Term(
            "decode",
            "reading the weights but for routed experts, and what every step takes",
            DECODES,
            bound=lambda roof: roof.weights_s,
            guess=lambda roof: roof.likely_weights_s,
            scale=ratio("decode_s"),
            scaling=BY_RATIO,
        ),
    ]
    decode_per_seq_s: Annotated[
        NonNegative,
        Term(
            "decode",
            "the matrix products of one more sequence",
            PADDED,
            guess=lambda roof: roof.likely_seq_s,
            scale=ratio("prefill_per_token_s"),
            scaling=BY_RATIO,
            reduced=True,
        ),
    ]
    decode_per_context_s: Annotated[
        NonNegative,
        Term(
            "context",
            "reading the KV of one token",
            CONTEXT,
            bound=lambda roof: roof.kv_s,
            guess=lambda roof: roof.likely_kv_s,
            scale=ratio("decode_per_context_s"),
            scaling=BY_RATIO,
        ),
    ]
    prefill_floor_s: Annotated[
        NonNegative,
        Term(
            "floor",
            "the least that the line takes however few its tokens",
            PROMPTS,
            bound=lambda roof: roof.weights_s,
            guess=lambda roof: roof.likely_floor_s,
        ),
    ]
    prefill_s: Annotated[
        NonNegative,
        Term(
            "line",
            "what every step with prompts takes",
            PROMPTS,
            guess=lambda roof: roof.likely_line_s,
            scale=difference("prefill_s"),
            scaling="grows by the all-reduces",
        ),
    ]
    prefill_per_token_s: Annotated[
        NonNegative,
        Term(
            "line",
            "the matrix products of a prompt token",
            TOKENS,
            bound=lambda roof: roof.token_s,
            guess=lambda roof: roof.likely_token_s,
            scale=ratio("prefill_per_token_s"),
            scaling=BY_RATIO,
            reduced=True,
        ),
    ]
    prefill_per_pair_s: Annotated[
        NonNegative,
        Term(
            "prompt",
            "attention of a query-key pair",
            PAIRS,
            bound=lambda roof: roof.pair_s,
            guess=lambda roof: roof.likely_pair_s,
            scale=ratio("prefill_per_pair_s"),
            scaling=BY_RATIO,
        ),
    ]
    mixed_per_seq_s: Annotated[
        NonNegative,
        Term(
            "prompt",
            "a decode sequence beside prompts",
            BESIDE,
            guess=lambda roof: roof.likely_beside_s,
            scale=ratio("prefill_per_token_s"),
            scaling=BY_RATIO,
            reduced=True,
            tie=("decode_per_seq_s", _several),
            most=8.0,  # a row of the step's products; what few rows say beyond that does not grow with the batch
        ),
    ]
    mixed_per_context_s: Annotated[
        NonNegative,
        Term(
            "prompt",
            "reading the KV of one of its tokens",
            BESIDE_CONTEXT,
            bound=lambda roof: roof.kv_s,
            guess=lambda roof: roof.likely_kv_s,
            scale=ratio("mixed_per_context_s"),
            scaling=BY_RATIO,
            tie=("decode_per_context_s", lambda rows: False),  # KV is read at one speed; what rows say is other terms'
        ),
    ]
    prefill_many_per_token_s: Annotated[
        NonNegative,
        Term(
            "line",
            f"what a prompt token beyond {MANY} takes more",
            MANY_TOKENS,
            scale=ratio("prefill_per_token_s"),
            scaling=BY_RATIO,
            told=_many,
        ),
    ] = 0.0
    decode_wide_per_seq_s: Annotated[
        NonNegative,
        Term(
            "decode",
            f"matrix products, which hide behind the reading of weights for up to {WIDE} rows, a tile of them",
            WIDER,
            guess=lambda roof: 0.0 if roof.hardware.kind == "cpu" else roof.likely_wide_s,
            scale=ratio("prefill_per_token_s"),
            scaling="as that of `decode_per_seq_s`",
        ),
    ] = 0.0
    decode_wave_seqs: Annotated[
        NonNegative,
        Term(
            "shape",
            "sequences whose attention fills the GPU once",
            given=lambda roof: roof.wave_seqs,
            scale=anew(lambda roof: roof.wave_seqs),
            scaling="fewer KV heads a GPU: more sequences fill it",
            measured="multiprocessors / KV heads of a GPU, taken where decodes are nearer to the law with it",
        ),
    ] = 0.0
    decode_wave_tail: Annotated[
        NonNegative,
        Term("shape", "the least share of a wave that its last, partly filled part takes"),
    ] = 0.0
    launch_decode_s: Annotated[
        NonNegative,
        Term(
            "launch",
            "a decode step's CUDA graph",
            GRAPH_DECODE,
            guess=lambda roof: roof.launch_decode_s,
            measured="launches",
        ),
    ] = 0.0
    launch_graph_s: Annotated[
        NonNegative,
        Term(
            "launch",
            "a step with prompts that CUDA graphs still cover",
            GRAPH_PROMPTS,
            guess=lambda roof: roof.launch_graph_s,
            scale=launched,
            measured="launches",
        ),
    ] = 0.0
    launch_eager_s: Annotated[
        NonNegative,
        Term(
            "launch",
            "a step of more tokens than the largest graph",
            EAGER,
            guess=lambda roof: roof.launch_eager_s,
            scale=launched,
            measured="launches",
        ),
    ] = 0.0
    launch_per_seq_s: Annotated[
        NonNegative, Term("launch", "more of each for every sequence", SEQS, measured="launches")
    ] = 0.0
    decode_per_expert_s: Annotated[
        NonNegative,
        Term(
            "decode",
            "reading a routed expert of every layer that has them",
            DECODE_EXPERTS,
            bound=lambda roof: roof.expert_s,
            guess=lambda roof: roof.likely_expert_s,
            scale=ratio("decode_per_expert_s"),
            scaling=BY_RATIO,
        ),
    ] = 0.0
    mixed_per_expert_s: Annotated[
        NonNegative,
        Term(
            "prompt",
            "the same in a step with prompts",
            MIXED_EXPERTS,
            bound=lambda roof: roof.expert_s,
            guess=lambda roof: roof.likely_expert_s,
            scale=ratio("mixed_per_expert_s"),
            scaling=BY_RATIO,
            tie=("decode_per_expert_s", _experts),
        ),
    ] = 0.0
    experts: Annotated[NonNegative, _shape("routed experts of a layer", lambda roof: float(roof.model.experts))] = 0.0
    experts_per_token: Annotated[
        NonNegative, _shape("those that a token is sent to", lambda roof: float(roof.model.experts_per_token))
    ] = 0.0
    decode_per_exchanged_s: Annotated[
        NonNegative,
        Term(
            "decode",
            "moving a token to the ranks of its experts, and the results back",
            DECODE_EXCHANGED,
            guess=lambda roof: roof.exchanged_token_s,
            scale=own(lambda roof: roof.exchanged_token_s),
            scaling="the deployment's own",
            measured="nothing: assumed",
        ),
    ] = 0.0
    mixed_per_exchanged_s: Annotated[
        NonNegative,
        Term(
            "prompt",
            "the same in a step with prompts on any rank",
            MIXED_EXCHANGED,
            guess=lambda roof: roof.exchanged_token_s,
            scale=own(lambda roof: roof.exchanged_token_s),
            scaling="the deployment's own",
            measured="nothing: assumed",
        ),
    ] = 0.0
    mixed_uneven_s: Annotated[
        NonNegative,
        Term(
            "line",
            "the experts' products of a token, which all ranks share",
            UNEVEN,
            guess=lambda roof: roof.uneven_token_s,
            scale=own(lambda roof: roof.uneven_token_s),
            scaling="the deployment's own",
            measured="nothing: assumed",
        ),
    ] = 0.0
    decode_tile_s: Annotated[
        NonNegative,
        Term(
            "decode",
            "the kernels of quantised products that wider batches get, which read weights more slowly",
            TILED,
            guess=lambda roof: roof.likely_tile_s,
            scale=ratio("decode_s"),
            scaling="as `decode_s`",
            told=_both_sides,
        ),
    ] = 0.0
    decode_tile_rows: Annotated[
        NonNegative,
        Term(
            "shape",
            "rows that the kernels for narrow batches take; 0: they are the same",
            guess=lambda roof: roof.tile_rows,
            given=lambda roof: roof.tile_rows,
            measured="the GPU and the weights' type",
        ),
    ] = 0.0
    ranks: Annotated[
        NonNegative,
        Term(
            "shape",
            "ranks that take every step together; 0: one",
            bound=lambda roof: roof.ranks,
            guess=lambda roof: roof.ranks,
            given=lambda roof: roof.ranks,
            scale=own(lambda roof: roof.ranks),
            scaling="the deployment's own",
            measured="the deployment",
        ),
    ] = 0.0


TERMS: dict[str, Term] = {
    name: next(item for item in field.metadata if isinstance(item, Term))
    for name, field in StepLaw.model_fields.items()
}
FEATURES: dict[str, Feature] = {
    term.feature.column: term.feature for term in TERMS.values() if term.feature and term.part != "launch"
}
SHAPES = tuple(name for name, term in TERMS.items() if term.part == "shape")


def columns(steps: Steps, values: Values) -> dict[str, Amount]:
    """The features of steps, without their stretch: what the rows of a fit sum up. Of `values` only shapes count."""
    return {name: feature.count(steps, values) for name, feature in FEATURES.items()}


def of_part(*parts: str) -> dict[str, Feature]:
    """The features of the terms of some parts, by the terms' names."""
    return {name: term.feature for name, term in TERMS.items() if term.feature and term.part in parts}


def total(parts: Mapping[str, Feature], steps: Steps, values: Values) -> Amount:
    """The sum of some terms for each step, in the table's order."""
    seconds: Amount = 0.0
    for name, feature in parts.items():
        if value := values.get(name, 0.0):
            seconds = seconds + value * feature.of(steps, values)
    return seconds


def launch_seconds(prompt_tokens: Amount, batch: Amount, largest: int, values: Values) -> Array:
    """The host's time to launch steps; `largest` is that of the CUDA graphs, 0 where there are none."""
    tokens, seqs = np.asarray(prompt_tokens, dtype=float), np.asarray(batch, dtype=float)
    steps = Steps(1.0 * (tokens > 0), tokens, seqs=seqs, eager=1.0 * (tokens + seqs > largest))
    return np.asarray(total(of_part("launch"), steps, values) + np.zeros(seqs.shape))


PROGRESSION = ("decode", "context")  # of a run of decode-only steps: its first value, its growth by the context
FLOOR = next(name for name, term in TERMS.items() if term.part == "floor")


def bounds(roof: Roof) -> StepLaw:
    """The law at the hardware's full peak without any overhead: nothing can be faster.

    A decode step reads the weights once and the KV of its context once; its matrix products may hide behind that.
    Layers with a window are left out of what grows with the context.
    """
    return StepLaw(**{name: term.bound(roof) for name, term in TERMS.items()})


def guess(roof: Roof) -> StepLaw:
    """The law of datasheet figures at assumed efficiencies (planner.engine.roof)."""
    return StepLaw(**{name: term.guess(roof) for name, term in TERMS.items()})


def shapes(roof: Roof) -> dict[str, float]:
    """The shapes that model and hardware give, by name."""
    return {name: TERMS[name].given(roof) for name in SHAPES}


def at_least(law: StepLaw, bound: StepLaw) -> tuple[StepLaw, tuple[str, ...]]:
    """`law` with every parameter that is below its bound raised to it, and the names of those."""
    low = bound.model_dump()
    raised = {name: low[name] for name, value in law.model_dump().items() if value < low[name]}
    return law.model_copy(update=raised), tuple(raised)


def scaled(law: StepLaw, measured: Roof, roof: Roof) -> StepLaw:
    """The law at the TP of `roof`, from one at the TP of `measured`; all-reduces grow by their bytes."""
    here, there = guess(roof).model_dump(), guess(measured).model_dump()
    values = {name: TERMS[name].scale(Scaling(value, here, there, roof)) for name, value in law.model_dump().items()}
    return more_per_token(law.model_copy(update=values), roof.reduced_token_s - measured.reduced_token_s)


def retyped(law: StepLaw, measured: Roof, roof: Roof) -> StepLaw:
    """The law with the types of weights and KV of `roof`, from one with those of `measured` at the same TP.

    Every term goes as its own guess does, so that what types do not change in the roofline stays as it was measured.
    """
    here, there = guess(roof).model_dump(), guess(measured).model_dump()
    values = {name: ratio(name)(Scaling(value, here, there, roof)) for name, value in law.model_dump().items()}
    values |= {name: here[name] if here[name] != there[name] else getattr(law, name) for name in SHAPES}
    return law.model_copy(update=values)


def more_per_token(law: StepLaw, seconds: float) -> StepLaw:
    """The law with what each token of a step takes longer in all-reduces."""
    names = [name for name, term in TERMS.items() if term.reduced]
    return law.model_copy(update={name: max(getattr(law, name) + seconds, 0.0) for name in names})
