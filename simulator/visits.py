"""What happens to each request, and what KV goes between workers: rows of a run's tables while they come about."""

from __future__ import annotations

from array import array
from typing import Final

from planner.traffic.requests import Request
from simulator.clock import NOT_YET
from simulator.layers import Push
from simulator.pool import Station
from simulator.sequence import Sequence

NOTHING_SENT: Final = ("", 0)


class Visit:
    """What happens to one request: the columns of the requests table, and the sequences that stand for it.

    Sequences are there while it is served. What they tell is the visit's from then on: a run holds many visits.
    """

    __slots__ = (
        "request", "arrival_s", "worker", "decode_worker", "retrieval_start_s", "retrieval_end_s", "shared_queued_s",
        "prefill", "decode", "cached_tokens", "queued_s", "prefill_start_s", "prefill_end_s", "decode_start_s",
        "preemptions",
        "transfer_start_s", "transfer_end_s", "first_token_s", "finish_s", "finish_reason", "error", "push", "sent",
    )  # fmt: skip

    def __init__(self, request: Request, arrival_s: float) -> None:
        self.request = request
        self.arrival_s = arrival_s
        self.worker: Station | None = None
        self.decode_worker: Station | None = None
        self.retrieval_start_s = self.retrieval_end_s = self.shared_queued_s = NOT_YET
        self.prefill: Sequence | None = None
        self.decode: Sequence | None = None
        self.cached_tokens = self.preemptions = 0
        self.queued_s = self.prefill_start_s = self.prefill_end_s = self.decode_start_s = NOT_YET
        self.transfer_start_s = self.transfer_end_s = NOT_YET
        self.first_token_s = self.finish_s = NOT_YET
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.push: Push | None = None  # its KV goes ahead, layer by layer
        self.sent: tuple[str, int] = NOTHING_SENT  # else: the wire its KV goes over, and bytes

    @property
    def served(self) -> bool:
        """An engine has had it. Known once the visit is settled."""
        return self.queued_s == self.queued_s

    def settle(self) -> None:
        """It has ended, or the run has."""
        prefill, decode = self.prefill, self.decode
        if prefill is not None:
            self.cached_tokens, self.preemptions = prefill.cached_tokens, prefill.preemptions
            self.queued_s, self.prefill_start_s = prefill.queued_s, prefill.prefill_start_s
            self.prefill_end_s = prefill.prefill_end_s
        if decode is not None:
            self.decode_start_s = decode.decode_start_s
            if decode is not prefill:
                self.preemptions += decode.preemptions
        self.prefill = self.decode = None
        self.push = None


class Transfers:
    """Bytes moved between two workers: the columns of the transfers table, a row a transfer."""

    __slots__ = ("bytes", "end_s", "link", "request_id", "source", "start_s", "target")

    def __init__(self) -> None:
        self.request_id = array("q")
        self.source: list[str] = []
        self.target: list[str] = []
        self.link: list[str] = []
        self.bytes = array("q")
        self.start_s = array("d")
        self.end_s = array("d")

    def add(self, visit: Visit, link: str, size: int, start_s: float, end_s: float) -> None:
        """What went from the visit's prefill worker to its decode worker."""
        source, target = visit.worker, visit.decode_worker
        assert source is not None
        assert target is not None
        self.request_id.append(visit.request.request_id)
        self.source.append(source.place.name)
        self.target.append(target.place.name)
        self.link.append(link)
        self.bytes.append(size)
        self.start_s.append(start_s)
        self.end_s.append(end_s)
