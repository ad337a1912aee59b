"""What a request costs outside the engine's steps, as a value."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

# An API server of vLLM 0.25.1 is one process. Requests that come while it works leave it together, after the work of
# all, MOST_TOGETHER at a time; its work on one is this share of `request_s` and all of `request_per_token_s`. The share
# is measured: ones, twos and fours, 0 to 15 ms apart, to an idle engine (`benchmarks/together.py`). How many, by the
# calibration rounds of the two H200s of the shipped profiles; rounds of other hosts say four.
REQUEST_SHARED: Final = 0.2
MOST_TOGETHER: Final = 3
# Of the way between a pair's workers, so much is work of one process (the decode worker's API server reads the prompt
# and the numbers of blocks), one request after another. From prompts that ended in one step, of two loads of one pair:
# with two of them the way is 2 to 3 ms longer, with three 7. Loads of another pair agree.
WAY_SHARED: Final = 0.5
# While an API server answers who reads its /metrics, its event loop waits (vLLM serves them on a thread of the same
# process, which holds the interpreter's lock). How long is from token gaps of a decode worker, which show the moments
# at which live reads: the frontend each FRONTEND_READS_S, to route, and who samples a run each sample_interval_s.
READ_S: Final = 0.0064
FRONTEND_READS_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class HostCosts:
    """Seconds spent outside the engine's steps."""

    request_s: float = 0.0  # client send to engine queue: HTTP, tokenisation, routing
    request_per_token_s: float = 0.0
    request_shared: float = 0.0  # share of `request_s` that is the API server's own work; 0: it works at no cost
    response_s: float = 0.0  # end of a step to the chunk at the client
    response_per_seq_s: float = 0.0  # the API server hands out a step's tokens one sequence after another
    response_per_token_s: float = 0.0  # and takes longer for a step that ends prompts, by their tokens
    hop_s: float = 0.0  # P/D: prefill's answer to the decode engine's queue

    def request(self, prompt_tokens: int) -> float:
        """Seconds from the client to the engine's queue of a request that comes alone."""
        return self.request_s + self.request_per_token_s * prompt_tokens

    def work(self, prompt_tokens: int) -> float:
        """Seconds of these in which the API server can do nothing else."""
        if not self.request_shared:
            return 0.0
        return self.request_shared * self.request_s + self.request_per_token_s * prompt_tokens

    def __reduce__(self) -> tuple[type[HostCosts], tuple[object, ...]]:
        return HostCosts, tuple(getattr(self, field.name) for field in fields(self))  # compiled: has no other way
