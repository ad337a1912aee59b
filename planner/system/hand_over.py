"""What a hand-over between workers costs, as a value."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class HandOver:
    """What a hand-over costs the workers beside the bytes on the wire. Zero: not known.

    NIXL posts every descriptor of a transfer one after another: with pull inside a step of the decode worker, which
    waits for it, with push on a thread of the prefill worker (vLLM's nixl-push-writer). Beside a step of the prefill
    worker that takes `pull_beside` times as long with pull; with push the transfer is not seen to be over before that
    step is (simulator.worker). Where nothing is known of a GPU's warmth
    (planner.engine.warmth) prompts compute `slowing` times as long while KV is read from it.
    """

    post_s: float = 0.0  # a descriptor
    way_s: float = 0.0  # from the prefill worker's answer to the decode worker's queue
    way_per_token_s: float = 0.0  # more of it for each prompt token
    push: bool = False  # the prefill worker posts
    cross_layer_blocks: bool = False
    slowing: float = 1.0
    pull_beside: float = 1.0
    idle_look_s: float = 0.0  # until an idle engine sees that a transfer has ended
    measured_block_sizes: tuple[int, ...] = ()  # tokens of the KV blocks that these figures were measured with
    measured_tp: int | None = None  # of both engines

    def way(self, prompt_tokens: int, hop_s: float) -> float:
        """Seconds between the workers; `hop_s`, the profile's, where the link's is not known."""
        known = self.way_s or self.way_per_token_s
        return self.way_s + self.way_per_token_s * prompt_tokens if known else hop_s

    def descriptors(self, layers: int, latent: bool, fan_out: int) -> int:
        """Of one block: K and V (MLA: one latent) of every layer, from `fan_out` workers of the other pool's TP."""
        return fan_out * (1 if self.cross_layer_blocks else layers * (1 if latent else 2))

    def __reduce__(self) -> tuple[type[HandOver], tuple[object, ...]]:
        return HandOver, tuple(getattr(self, field.name) for field in fields(self))  # compiled: has no other way
