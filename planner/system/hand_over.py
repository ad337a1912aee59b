"""What a hand-over between workers costs, as a value."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, fields
from typing import Final

# NIXL posts a transfer of fewer pieces than SPLIT (its split_batch_size) on the thread that asks for it, a larger one
# in as many parts as it has threads; vLLM asks for four. What that takes, in units of what each of many pieces takes,
# is from decode steps that waited for posts, of four pairs. One thread needs ALONE times as long for a piece
# (calibrations tell: 2.9 to 3.6). Four need a while to begin, then post quickly what the queues of the GPU have room
# for, which is 1,024 pieces a thread, and beyond as slowly as pieces are moved.
SPLIT: Final = 1024
ALONE: Final = 3.1
KNOTS: Final = ((1024, 1500.0), (4096, 2600.0), (8192, 7900.0), (65536, 67000.0))
# Pieces are moved one after another; of a transfer of more than CROWDED each takes MORE of that time longer (transfers
# of 1,024 to 65,536 pieces to idle engines). SEEN_S is from the last piece that the threads move until NIXL says so.
CROWDED: Final = 8192
MORE: Final = 0.11
SEEN_S: Final = 0.001
# From when the GPU begins a step until its host has launched it and has taken in the results of the one before: decode
# steps that waited for posts, of four pairs, say 1.0 to 1.4 ms (engines of 64 layers 1.9). The graph of a decode step
# is launched in GRAPH_S after its transfers have been posted; what precedes them is the rest of its launch.
AFTER_S: Final = 0.0012
GRAPH_S: Final = 0.0004
# Push: a thread fetches the message that all has been written when the connector is asked, which knows it when asked
# again (vLLM: nixl-push-writer).
LOOKS: Final = 2


def post_work(pieces: float, behind: bool = False, alone: float = ALONE) -> float:
    """How many times what each of many pieces takes it takes to post a transfer of so many.

    `behind`: pieces of transfers before it are still being moved, so that none is posted quickly. `alone`: how many
    times as long one thread takes.
    """
    if pieces < SPLIT:
        return alone * pieces
    last = min(bisect_right(KNOTS, (pieces, 0.0)), len(KNOTS) - 1)
    (low, begin), (high, end) = KNOTS[max(last - 1, 0)], KNOTS[max(last, 1)]
    quickly = begin + (pieces - low) * (end - begin) / (high - low)
    return max(quickly, pieces) if behind else quickly


def move_work(pieces: float) -> float:
    """How many times what each of many pieces takes it takes to move a transfer of so many, beside its bytes."""
    return pieces + MORE * max(pieces - CROWDED, 0.0)


@dataclass(frozen=True, slots=True)
class HandOver:
    """What a hand-over costs the workers beside the bytes on the wire. Zero: not known.

    NIXL posts every descriptor of a transfer one after another: with pull inside a step of the decode worker, which
    waits for it, with push on a thread of the prefill worker (vLLM's nixl-push-writer). Beside a step of the prefill
    worker that takes `pull_beside` times as long with pull; with push the transfer is not seen to be over before that
    step is (simulator.worker). Where nothing is known of a GPU's warmth
    (planner.engine.warmth) prompts compute `slowing` times as long while KV is read from it.
    """

    post_s: float = 0.0  # a descriptor of many
    alone: float = ALONE  # times that: one of few, which one thread posts
    way_s: float = 0.0  # from the prefill worker's answer to the decode worker's queue
    way_per_token_s: float = 0.0  # more of it for each prompt token
    push: bool = False  # the prefill worker posts
    cross_layer_blocks: bool = False
    slowing: float = 1.0
    pull_beside: float = 1.0
    idle_look_s: float = 0.0  # until an idle engine sees that a transfer has ended
    measured_block_sizes: tuple[int, ...] = ()  # tokens of the KV blocks that these figures were measured with
    measured_tp: int | None = None  # of both engines
    piece_bytes: float = 0.0  # of a descriptor with which these figures and the wire's were measured

    def way(self, prompt_tokens: int, hop_s: float) -> float:
        """Seconds between the workers; `hop_s`, the profile's, where the link's is not known."""
        known = self.way_s or self.way_per_token_s
        return self.way_s + self.way_per_token_s * prompt_tokens if known else hop_s

    def descriptors(self, layers: int, latent: bool, fan_out: int) -> int:
        """Of one block: K and V (MLA: one latent) of every layer, from `fan_out` workers of the other pool's TP."""
        return fan_out * (1 if self.cross_layer_blocks else layers * (1 if latent else 2))

    def __reduce__(self) -> tuple[type[HandOver], tuple[object, ...]]:
        return HandOver, tuple(getattr(self, field.name) for field in fields(self))  # compiled: has no other way
