"""One engine: which model runs with which options on which GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.engine.catalogue import Hardware
from planner.engine.model_shape import ModelShape
from planner.engine.parallel import Parallel
from planner.spec import Engine


@dataclass(frozen=True, slots=True)
class Setup:
    """What decides an engine's limits, memory and step time."""

    model: ModelShape  # its shape under `options`
    hardware: Hardware
    parallel: Parallel
    options: Engine

    @classmethod
    def of(
        cls, model: ModelShape, hardware: Hardware, options: Engine, tp: int = 1, dp: int = 1, node: int = 8
    ) -> Setup:
        """From what a spec names: `model` as its config says, `dp` ranks of `tp` GPUs on nodes of `node` GPUs."""
        return cls(model.for_engine(options), hardware, _parallel(tp, dp, options, node), options)

    def at(self, tp: int, dp: int = 1) -> Setup:
        """The same engine on `dp` ranks of `tp` GPUs, as many nodes as before."""
        parallel = _parallel(tp, dp, self.options, 0)
        return replace(self, parallel=replace(parallel, nodes=self.parallel.nodes))

    @property
    def tp(self) -> int:
        return self.parallel.tp

    @property
    def ranks(self) -> int:
        """Ranks that take every step together, as their tokens share the experts; 1 where each goes its own way."""
        return self.parallel.dp if self.model.experts else 1

    @property
    def kv_bytes_per_token(self) -> float:
        """Of a token, on each GPU."""
        return self.model.kv_bytes_per_token_per_gpu(self.parallel)


def _parallel(tp: int, dp: int, options: Engine, node: int) -> Parallel:
    """Ranks fill a node before the next; none is split over two."""
    ep = tp * dp if options.enable_expert_parallel else 1
    return Parallel(tp, ep=ep, dp=dp, nodes=-(-dp // max(1, node // tp)) if node else 1)
