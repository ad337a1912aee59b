"""How long one engine step takes: a law (planner/engine/law.py) read term by term for the steps of a simulation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from planner.engine.law import FLOOR, MANY, PROGRESSION, WIDE, StepLaw, Steps, of_part, total

TABLED: Final = 1025  # batches whose times are computed ahead
# Amounts of a step with prompts, as `mixed` lists them; behind them it lists tokens and sequences.
AMOUNTS: Final = ("prompts", "rows", "pairs", "eager_seqs", "context", "many")

# Of a term that counts: its parameter, and the place of its amount in AMOUNTS, or -1 and the feature that computes it.
Read = tuple[float, int, Any]


class StepTime(Protocol):
    """Seconds that one engine step takes."""

    def decode(self, batch: int) -> tuple[float, float]:
        """(base, per context token) of a decode-only step of `batch` sequences: base + per_context * context."""
        ...

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: float) -> float:
        """A step with prompt chunks (new tokens, tokens already computed) beside `batch` decodes of `context`."""
        ...

    def launch(self, tokens: int, batch: int) -> float:
        """The host's time to launch a step of `tokens` prompt tokens beside `batch` decodes."""
        ...


class Share(NamedTuple):
    """What one rank has of a step: prompt chunks of more than one token, decodes, and the tokens that they hold."""

    chunks: Sequence[tuple[int, int]] = ()  # (new tokens, tokens already computed)
    batch: int = 0
    context: float = 0


def graph_size(batch: int, sizes: Sequence[int]) -> int:
    """The CUDA graph size that a decode batch runs at; the batch itself when no graph covers it."""
    return sizes[bisect_left(sizes, batch)] if sizes and batch <= sizes[-1] else batch


class AffineStep:
    """`StepTime` of a `StepLaw`. `sizes` are the CUDA graph sizes; empty when the engine runs eagerly.

    `floor_s` is the least that a decode-only step takes without a graph: launching its kernels one by one.
    """

    __slots__ = (
        "_decodes",
        "_floor",
        "_largest",
        "_launches",
        "_line",
        "_prompt",
        "_values",
        "floor_s",
        "law",
        "sizes",
    )

    def __init__(self, law: StepLaw, sizes: tuple[int, ...] = (), *, floor_s: float = 0.0) -> None:
        self.law = law
        self.sizes = sizes
        self.floor_s = floor_s
        self._largest: int = sizes[-1] if sizes else 0
        self._values: dict[str, float] = law.model_dump()
        self._floor = self._values[FLOOR]
        self._line, self._prompt = self._read("line"), self._read("prompt")
        self._decodes = self._tabled(range(TABLED))
        self._launches = self._launched(np.arange(TABLED, dtype=float))

    def __reduce__(self) -> tuple[Any, ...]:
        return _step, (self.law, self.sizes, self.floor_s)  # features are functions, which are not to be pickled

    def _read(self, part: str) -> list[Read]:
        return [
            (self._values[name], AMOUNTS.index(found.plain) if found.plain else -1, found.of)
            for name, found in of_part(part).items()
            if self._values[name]
        ]

    def _tabled(self, batches: Sequence[int]) -> list[tuple[float, float]]:
        padded = np.array([graph_size(batch, self.sizes) for batch in batches], dtype=float)
        steps = Steps(np.zeros(len(padded)), seqs=np.array(batches, dtype=float), padded=padded, context=1.0)
        graph = padded <= self._largest
        base, slope = [total(of_part(part), steps, self._values) + np.zeros(len(padded)) for part in PROGRESSION]
        return list(zip(np.where(graph, base, np.maximum(base, self.floor_s)).tolist(), slope.tolist(), strict=True))

    def _launched(self, batches: Any) -> list[list[float]]:
        """Of a decode step in a CUDA graph, of one with prompts in a graph, and of any beyond it, by batch."""
        nothing = np.zeros(len(batches))
        return [
            (total(of_part("launch"), Steps(prompts, seqs=batches, eager=eager), self._values) + nothing).tolist()
            for prompts, eager in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
        ]

    def decode(self, batch: int) -> tuple[float, float]:
        return self._decodes[batch] if batch < TABLED else self._tabled([batch])[0]

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: float, everyone: int = 0) -> float:
        tokens = 0
        pairs = 0.0
        for new, done in chunks:
            tokens += new
            pairs += new * (done + 0.5 * new)
        held = tokens + batch <= self._largest
        amounts = [
            1.0,
            float(tokens + (batch if held else max(batch - WIDE, 0))),
            pairs,
            0.0 if held else float(min(batch, WIDE)),
            float(context),
            float(max(tokens - MANY, 0)),
            float(tokens),
            float(batch),
        ]
        seconds = max(self._more(0.0, self._line, amounts, everyone), self._floor)
        return self._more(seconds, self._prompt, amounts, everyone)

    def _more(self, seconds: float, terms: list[Read], amounts: list[float], everyone: int) -> float:
        steps: Steps | None = None
        for value, place, feature in terms:
            if place >= 0:
                seconds += value * amounts[place]
                continue
            if steps is None:
                tokens, seqs = amounts[len(AMOUNTS) :]
                steps = Steps(1.0, tokens, amounts[2], seqs, seqs, amounts[4], everyone=everyone)
            seconds += float(value * feature(steps, self._values))
        return seconds

    def launch(self, tokens: int, batch: int) -> float:
        kind = 2 if tokens + batch > self._largest else 1 if tokens else 0
        return self._launches[kind][batch] if batch < TABLED else self._launched(np.array([float(batch)]))[kind][0]

    def together(self, ranks: Sequence[Share], *, idle: bool = False) -> float:
        """A step that all `ranks` take: the slowest one's attention, and experts that have all ranks' tokens.

        Where CUDA graphs cover the largest rank's tokens, with prompts or without, all are padded to its graph, those
        without requests too, and the experts get so many tokens of each (vLLM: coordinate_batch_across_dp). Beyond the
        largest graph none is padded. The host's longest launch bounds the step; nothing hides it from an `idle` group,
        whose kernels begin when inputs are ready.
        """
        tokens = [sum(new for new, _ in rank.chunks) for rank in ranks]
        launch = max(self.launch(new, rank.batch) for new, rank in zip(tokens, ranks, strict=True))
        most = max(1, *[rank.batch for rank in ranks])
        if not any(tokens):
            base = self.decode(most)[0]
            seconds = base + max(self.decode(rank.batch)[1] * rank.context for rank in ranks)
        else:
            rows = [new + rank.batch for new, rank in zip(tokens, ranks, strict=True)]
            covered = max(rows) <= self._largest
            everyone = len(ranks) * graph_size(max(rows), self.sizes) if covered else sum(rows)
            seconds = max(self.mixed(rank.chunks, rank.batch, rank.context, everyone) for rank in ranks)
        return max(seconds + (self.launch(0, most) if idle else 0.0), launch)


def _step(law: StepLaw, sizes: tuple[int, ...], floor_s: float) -> AffineStep:
    return AffineStep(law, sizes, floor_s=floor_s)
