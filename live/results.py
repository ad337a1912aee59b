"""What the load client brings back, and how it becomes the tables of a run."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from live.openai_api import Usage
from live.records import FrontendRecord
from planner.traffic.requests import Request

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")
LATE_S = 0.5  # p99 of the schedule lag beyond which a run's times say more about the client than about the servers


@dataclass(slots=True)
class Outcome:
    """One request as the client saw it. Times in seconds since the run's start."""

    request: Request
    endpoint: str
    header_id: str  # its x-request-id
    arrival_s: float = NAN
    finish_s: float = NAN  # last token (or the end of an answer without tokens)
    token_times_s: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)  # where the server returns them
    usage: Usage | None = None
    nvext: dict[str, Any] = field(default_factory=dict)  # what Dynamo's frontend tells of the request's way
    finish_reason: str | None = None
    error: str | None = None
    complete: bool = False  # the stream came to its end
    ended: bool = False

    def fail(self, error: str) -> None:
        self.error, self.finish_reason = error, "error"

    def refuse(self, status: int, text: str) -> None:
        """An answer other than 200. 429, and a frontend's 503, mean that load was shed."""
        try:
            said = json.loads(text)["error"]
            message, code = str(said["message"]), said.get("code")
        except (ValueError, KeyError, TypeError, AttributeError):
            message, code = " ".join(text.split())[:500], None
        self.error = f"{status}: {message}"
        self.finish_reason = "rejected" if status == 429 or code == "overloaded" else "error"

    def close(self, now_s: float) -> None:
        self.ended = True
        if self.error is None and self.finish_reason is None:
            self.fail("the answer gave no finish_reason")
        if self.error is None and not self.token_times_s:
            self.fail("the answer held no token")
        self.finish_s = self.token_times_s[-1] if self.token_times_s and self.error is None else now_s

    @property
    def first_token_s(self) -> float:
        return self.token_times_s[0] if self.token_times_s else NAN

    @property
    def prompt_tokens(self) -> int:
        return self.usage.prompt if self.usage else self.request.prompt_tokens

    @property
    def output_tokens(self) -> int:
        return self.usage.output if self.usage and self.error is None else len(self.token_times_s)


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds by which requests were sent later than planned."""

    p50_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """Planned lengths against those that happened, over the requests that were answered."""

    compared: int
    prompt_equal: int
    output_equal: int
    prompt_planned: int
    prompt_tokens: int
    cached_tokens: int | None  # None: no server reported any
    output_planned: int
    output_tokens: int

    @property
    def equal(self) -> bool:
        return self.compared == self.prompt_equal == self.output_equal


@dataclass(frozen=True, slots=True)
class ClientResult:
    """A whole run, in sending order. `start_s` is the run's zero on the clock of `time.monotonic()`."""

    outcomes: tuple[Outcome, ...]
    start_s: float
    lag: Lag
    notes: tuple[str, ...]
    stopped: bool

    @property
    def late(self) -> bool:
        return self.lag.p99_s > LATE_S

    def answers(self) -> dict[int, list[int]]:
        """Token ids of each answer by request id, where the servers return them."""
        return {one.request.request_id: one.token_ids for one in self.outcomes if one.token_ids}

    def tokens(self) -> LengthCheck:
        answered = [one for one in self.outcomes if one.error is None]
        cached = [one.usage.cached for one in answered if one.usage and one.usage.cached is not None]
        return LengthCheck(
            compared=len(answered),
            prompt_equal=sum(one.prompt_tokens == one.request.prompt_tokens for one in answered),
            output_equal=sum(one.output_tokens == one.request.output_tokens for one in answered),
            prompt_planned=sum(one.request.prompt_tokens for one in answered),
            prompt_tokens=sum(one.prompt_tokens for one in answered),
            cached_tokens=sum(cached) if cached else None,
            output_planned=sum(one.request.output_tokens for one in answered),
            output_tokens=sum(one.output_tokens for one in answered),
        )

    def summary(self) -> str:
        """One line for a log."""
        errors = sum(one.error is not None for one in self.outcomes)
        ttft = [one.first_token_s - one.arrival_s for one in self.outcomes if not math.isnan(one.first_token_s)]
        median = f"{1e3 * statistics.median(ttft):.1f} ms" if ttft else "-"
        return (
            f"{len(self.outcomes)} requests, {errors} without an answer, median TTFT {median}, "
            f"sent late by {1e3 * self.lag.p50_s:.1f} ms (median), {1e3 * self.lag.max_s:.1f} ms (most)"
        )

    def request_columns(self, frontend: Mapping[str, FrontendRecord] | None = None) -> dict[str, list[Any]]:
        """Columns of records.REQUEST_COLUMNS: the client's own, and the frontend's where there was one."""
        rows = [row_of(one, (frontend or {}).get(one.header_id), self.start_s) for one in self.outcomes]
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    def token_columns(self) -> dict[str, list[Any]]:
        """Columns of records.TOKEN_COLUMNS: one row a token, when its chunk came in."""
        return {
            "request_id": [one.request.request_id for one in self.outcomes for _ in one.token_times_s],
            "index": [index for one in self.outcomes for index in range(len(one.token_times_s))],
            "time_s": [time_s for one in self.outcomes for time_s in one.token_times_s],
        }

    def request_table(self, frontend: Mapping[str, FrontendRecord] | None = None) -> pd.DataFrame:
        from planner.run.tables import frame

        return frame("requests", self.request_columns(frontend))

    def token_table(self) -> pd.DataFrame:
        from planner.run.tables import frame

        return frame("tokens", self.token_columns())


def row_of(one: Outcome, seen: FrontendRecord | None, start_s: float) -> dict[str, Any]:
    """One request's columns of REQUEST_COLUMNS; `start_s` is the run's start on the frontend's clock."""

    def since(time_s: float | None) -> float:
        return NAN if time_s is None else time_s - start_s

    cached = one.usage.cached if one.usage else None
    if seen is not None and seen.prefill_end_s is not None:
        cached = seen.cached_tokens  # P/D: the decode worker calls all that it read cached
    return {
        "request_id": one.request.request_id,
        "session_id": one.request.session_id,
        "arrival_s": one.arrival_s,
        "prompt_tokens": one.prompt_tokens,
        "cached_tokens": cached,
        "output_tokens": one.output_tokens,
        "max_tokens": one.request.max_tokens,
        "worker": seen.worker if seen else one.endpoint,
        "decode_worker": seen.decode_worker if seen else None,  # who decodes behind an endpoint is not seen
        "retrieval_start_s": since(seen.retrieval_start_s if seen else None),
        "retrieval_end_s": since(seen.retrieval_end_s if seen else None),
        "queued_s": since(seen.queued_s if seen else None),
        "prefill_end_s": since(seen.prefill_end_s if seen else None),
        "first_token_s": one.first_token_s,
        "finish_s": one.finish_s,
        "finish_reason": one.finish_reason,
        "error": one.error,
    }
