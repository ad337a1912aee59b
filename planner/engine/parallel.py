"""How the GPUs of one worker share a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parallel:
    """Sizes of vLLM's kinds of parallelism. Raises ValueError for those that no step time and no memory is known of."""

    tp: int = 1  # GPUs that share every layer
    pp: int = 1  # stages of layers
    ep: int = 1  # GPUs that have whole experts to themselves: all of them, or 1 where each has a share of every expert
    dp: int = 1  # copies of the attention layers, each with a scheduler and a KV cache: ranks of tp GPUs
    nodes: int = 1  # that the ranks stand on

    def __post_init__(self) -> None:
        if self.pp != 1 or self.ep not in (1, self.gpus):
            raise ValueError(f"{self}: not modelled; allowed: pp 1, ep 1 or tp * dp")

    @property
    def gpus(self) -> int:
        """Of the worker; routed experts are shared by all of them."""
        return self.tp * self.dp
