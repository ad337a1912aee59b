"""What the frontend notes about each request. Times are `time.monotonic()` seconds, one clock on a host."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class FrontendRecord:
    """One request, keyed by its x-request-id. None: did not happen, or cannot be seen from here."""

    received_s: float
    retrieval_start_s: float | None = None  # a retrieval worker took it
    retrieval_end_s: float | None = None
    queued_s: float | None = None  # sent to the worker that prefills
    prefill_end_s: float | None = None  # P/D: the prefill worker's answer
    first_token_s: float | None = None  # forwarded; streaming only
    finish_s: float | None = None
    worker: str | None = None
    decode_worker: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None  # of the worker that prefilled
    output_tokens: int | None = None
    local_prefill: bool = False
    attempts: int = 0
    documents: list[str] = field(default_factory=list)
    status: int = 0  # HTTP; 499: the client went away
    error: str | None = None


class RecordLog:
    """The newest `limit` records, so that a service that runs for weeks does not grow."""

    def __init__(self, limit: int = 200_000) -> None:
        self._records: OrderedDict[str, FrontendRecord] = OrderedDict()
        self._limit = limit

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._records

    def open(self, request_id: str, now_s: float) -> FrontendRecord:
        record = self._records[request_id] = FrontendRecord(now_s)
        while len(self._records) > self._limit:
            self._records.popitem(last=False)
        return record

    def get(self, request_id: str) -> FrontendRecord | None:
        return self._records.get(request_id)

    def all(self) -> dict[str, FrontendRecord]:
        return dict(self._records)
