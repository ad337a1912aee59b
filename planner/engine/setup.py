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
    def of(cls, model: ModelShape, hardware: Hardware, options: Engine, tp: int = 1) -> Setup:
        """From what a spec names: `model` as its config says, `tp` GPUs of a worker."""
        return cls(model.for_engine(options), hardware, _parallel(tp, options), options)

    def at(self, tp: int) -> Setup:
        """The same engine on `tp` GPUs."""
        return replace(self, parallel=_parallel(tp, self.options))

    @property
    def tp(self) -> int:
        return self.parallel.tp

    @property
    def kv_bytes_per_token(self) -> float:
        """Of a token, on each GPU."""
        return self.model.kv_bytes_per_token_per_gpu(self.parallel)


def _parallel(tp: int, options: Engine) -> Parallel:
    return Parallel(tp, ep=tp if options.enable_expert_parallel else 1)
