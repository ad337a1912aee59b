"""What a run shows, as numpy arrays: each request's latencies, windows of time, stages of TTFT, lines that grow.

Two windows are used everywhere. The *time base* runs from the first send to the last finish; throughput and goodput
are over it. The *steady window* runs from 10 % of the sending time to the last send, so that neither the filling of
an empty system nor its draining counts; rates of offered and served requests and utilisations are over it. When all
requests are sent at once it is the time base. Lines of sessions are looked at only while sessions begin: afterwards any
deployment catches up. Warm-up requests (`run.warmup_requests`, the first by send time) are
left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from planner.messages import message
from planner.run import gaps, held_up
from planner.run.columns import Columns, equal
from planner.run.gaps import Gaps
from planner.run.tables import Run
from planner.run.targets import within
from planner.run.turns import Turns
from planner.spec import Slo

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T")

STEADY_START = 0.1  # share of the sending time that is cut off
SATURATED = 0.05  # share of the offered requests that must pile up
SAME_S = 1e-7  # times of one moment
LEAST_GROWTH = 5.0  # requests: shorter lines grow by chance

# In the order in which a request meets them. Their sum is the TTFT.
STAGES: dict[str, str] = {
    "host": message("HTTP, tokenisation, routing and the way back to the client"),
    "retrieval": message("waiting for and doing the document search"),
    "queue": message("waiting for prefill, in a shared queue or a worker's own"),
    "prefill": message("first to last prompt chunk"),
    "transfer": message("moving the KV cache to the decode worker"),
    "decode_wait": message("waiting for the decode worker: the hop, room for the KV cache, the next step"),
    "first_decode": message("the decode step that gives the first token, and its way to the client"),
    "unobserved": message("stages that this run cannot tell apart"),
}

STAGE_NAMES: dict[str, str] = {
    "host": message("host"),
    "retrieval": message("retrieval"),
    "queue": message("queue"),
    "prefill": message("prefill"),
    "transfer": message("transfer"),
    "decode_wait": message("decode wait"),
    "first_decode": message("first decode"),
    "unobserved": message("unobserved"),
}
ROLES: dict[str, str] = {
    "aggregated": message("aggregated"),
    "prefill": message("prefill"),
    "decode": message("decode"),
}


class Window(NamedTuple):
    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    def overlap(self, start: Array, end: Array) -> Array:
        """Seconds that each interval lies in the window; 0 where an end is null."""
        length = np.minimum(end, self.end_s) - np.maximum(start, self.start_s)
        return np.where(length > 0, length, 0.0)  # a null compares false


@dataclass(frozen=True, slots=True)
class Saturation:
    """Does the deployment keep up? See `Facts.saturation` for the rule."""

    saturated: bool
    steady: bool  # False: requests in the system still grew, although nothing queued: the run is too short to tell
    offered_per_s: float | None  # None: everything was sent at once
    achieved_per_s: float | None
    waiting_slope_per_s: float  # growth of the line of requests without a first token
    backlog_slope_per_s: float  # growth of all requests in the system
    asked_per_s: float | None = None  # of sessions: so many begin a second, times their turns; None: others
    reached: bool = True  # of sessions: this was also sent, once their number had settled
    held_back: bool = False  # of sessions: slow answers kept them from sending what is asked

    @property
    def wanted_per_s(self) -> float | None:
        """What the deployment is to serve: what is offered, or what sessions would offer it."""
        return self.offered_per_s if self.asked_per_s is None else self.asked_per_s


def not_null(values: Array) -> Array:
    """The values that are not null."""
    found: Array = values[~np.isnan(values)]
    return found


def growth(start: Array, end: Array, window: Window) -> float:
    """Least-squares slope, per second, of the number of requests that are in [start, end) over the window.

    A null start never enters, a null end never leaves.
    """
    if not window.length_s > 0:
        return 0.0
    entered = ~np.isnan(start)
    begins = np.sort(start[entered])
    ends = np.sort(np.nan_to_num(end[entered], nan=np.inf))
    times = np.linspace(window.start_s, window.end_s, 201)
    inside = np.searchsorted(begins, times, "right") - np.searchsorted(ends, times, "right")
    centred = times - times.mean()
    return float((centred * inside).sum() / (centred * centred).sum())


class Facts:
    """A run, read once. Arrays have one entry per counted request, in order of sending; null is nan."""

    def __init__(self, run: Run, slo: Slo | None = None) -> None:
        """`slo` judges the run by other targets than its own. Raises ValueError when the manifest names no spec."""
        if "spec" not in run.manifest:
            raise ValueError(message("manifest.json: key 'spec' is missing; allowed: a manifest written by planner"))
        self.run = run
        self.manifest = run.manifest
        self.spec: dict[str, Any] = run.manifest["spec"]
        self.slo = slo or Slo.model_validate(self.spec.get("slo") or {})
        self.requests = run.columns("requests")  # all of them; `rows` are those that count
        sends = self.requests.floats("arrival_s")
        warmup = int((self.spec.get("run") or {}).get("warmup_requests", 0))
        self.rows = np.argsort(sends, kind="stable")[warmup:]
        self.arrival = sends[self.rows]
        reasons = self.requests.texts("finish_reason")[self.rows]
        self.ok: Mask = equal(reasons, "stop") | equal(reasons, "length")
        self.rejected: Mask = equal(reasons, "rejected")
        self.oversized: Mask = self.rejected.copy()
        for index in np.flatnonzero(self.rejected):
            self.oversized[index] = " exceed " in (self.errors[index] or "")

        self._memory: dict[Callable[[Facts], Any], Any] = {}

    def once(self, function: Callable[[Facts], T]) -> T:
        """function(self), computed the first time only."""
        if function not in self._memory:
            self._memory[function] = function(self)
        found: T = self._memory[function]
        return found

    def column(self, name: str) -> Array:
        return self.requests.floats(name)[self.rows]

    @cached_property
    def errors(self) -> npt.NDArray[np.object_]:
        """What each request failed with, or None."""
        return self.requests.texts("error")[self.rows]

    # --- requests ------------------------------------------------------------------------------

    @cached_property
    def finish(self) -> Array:
        return self.column("finish_s")

    @cached_property
    def first_token(self) -> Array:
        return self.column("first_token_s")

    @cached_property
    def prompt_tokens(self) -> Array:
        return self.column("prompt_tokens")

    @cached_property
    def output_tokens(self) -> Array:
        return self.column("output_tokens")

    @cached_property
    def ttft(self) -> Array:
        """Client send to first token, s. Null for requests that failed."""
        return np.where(self.ok, self.first_token - self.arrival, np.nan)

    @cached_property
    def tpot(self) -> Array:
        """(E2E - TTFT) / (n - 1), s; null for answers of one token and for requests that failed."""
        more = self.ok & (self.output_tokens > 1)
        return np.where(more, (self.finish - self.first_token) / np.maximum(self.output_tokens - 1, 1), np.nan)

    @cached_property
    def e2e(self) -> Array:
        return np.where(self.ok, self.finish - self.arrival, np.nan)

    @cached_property
    def retrieval(self) -> Array:
        """Service time of retrieval, s; null without one."""
        return self.column("retrieval_end_s") - self.column("retrieval_start_s")

    @cached_property
    def good(self) -> Mask:
        """Finished, and within every target that is set. An answer of one token has no TPOT to miss."""
        return self.ok & within(self.slo, self.ttft, self.tpot, self.e2e)

    @cached_property
    def local(self) -> Mask:
        """Requests that were prefilled and decoded by the same worker."""
        worker, decode_worker = (self.requests.texts(name)[self.rows] for name in ("worker", "decode_worker"))
        return equal(worker, decode_worker) & ~equal(worker, None)

    @cached_property
    def transfers(self) -> Columns:
        """The transfers of counted requests."""
        table = self.run.columns("transfers")
        if len(self.rows) == len(self.requests):
            return table
        return table.taken(np.isin(table.whole("request_id"), self.requests.whole("request_id")[self.rows]))

    # --- windows -------------------------------------------------------------------------------

    @cached_property
    def base(self) -> Window:
        ends = self.finish[~np.isnan(self.finish)]
        start = float(self.arrival[0]) if len(self.arrival) else 0.0
        return Window(start, float(ends.max()) if len(ends) else start)

    @cached_property
    def steady(self) -> Window:
        if not len(self.arrival) or self.arrival[-1] <= self.arrival[0]:
            return self.base
        first, last = float(self.arrival[0]), float(self.arrival[-1])
        return Window(first + STEADY_START * (last - first), last)

    @cached_property
    def in_use(self) -> Window:
        """What use of workers is measured over: the steady window. Where no request had its first token by its end, the
        requests were sent all at once as far as the engines can tell: then it is the time base."""
        served = not_null(self.first_token)
        return self.steady if len(served) and served.min() <= self.steady.end_s else self.base

    @cached_property
    def turns(self) -> Turns | None:
        """What sessions ask for beside what they send; None where they had begun before, or nothing waits so."""
        if (self.spec.get("workload") or {}).get("kind") != "sessions" or self.manifest.get("underway"):
            return None
        session = self.requests.whole("session_id")[self.rows]
        return Turns.of(session, self.arrival, self.finish, self.output_tokens, STEADY_START)

    @cached_property
    def growing(self) -> Window:
        """Where lines are looked at: the steady window, of sessions only until the last has begun."""
        if self.turns is None:
            return self.steady
        first, last = float(self.turns.begun_s[0]), float(self.turns.begun_s[-1])
        return Window(first + STEADY_START * (last - first), last)

    # --- stages --------------------------------------------------------------------------------

    @cached_property
    def stages(self) -> dict[str, Array]:
        """Seconds of each stage of `STAGES` for each finished request. They add up to its TTFT exactly."""
        names = ["retrieval_end", "queued", "prefill_start", "prefill_end"]
        names += ["transfer_start", "transfer_end", "decode_start"]
        # Whatever happens after the first token is not part of it (first_token: prefill moves the KV cache later).
        at = {name: np.minimum(self.column(f"{name}_s"), self.first_token) for name in names}
        zero = np.zeros(len(self.arrival))
        deployment = self.spec.get("deployment") or {}
        early = self.local if deployment.get("first_token") != "prefill" else np.ones_like(self.local)
        searched = ~np.isnan(at["retrieval_end"])
        moved = ~np.isnan(at["transfer_start"]) & ~np.isnan(at["transfer_end"])

        def counted(seconds: Array) -> Array:
            return np.nan_to_num(seconds, nan=0.0)

        back = np.where(early, counted(self.first_token - at["prefill_end"]), 0.0)
        entered, left = self.shared_queue
        pulled = counted(left - entered)
        by_worker = searched & (entered <= at["retrieval_end"])  # it retrieves, once it has taken the request
        stages = {
            "host": counted(at["queued"] - np.where(searched, at["retrieval_end"], self.arrival))
            + np.where(by_worker, counted(entered - self.arrival), -pulled)
            + back,
            "retrieval": counted(at["retrieval_end"] - np.where(by_worker, left, self.arrival)),
            "queue": counted(at["prefill_start"] - at["queued"]) + pulled,
            "prefill": counted(at["prefill_end"] - at["prefill_start"]),
            "transfer": np.where(early, 0.0, counted(at["transfer_end"] - at["transfer_start"])),
            "decode_wait": np.where(
                early,
                0.0,
                np.where(
                    moved,
                    counted(at["transfer_start"] - at["prefill_end"])
                    + counted(at["decode_start"] - at["transfer_end"]),
                    counted(at["decode_start"] - at["prefill_end"]),
                ),
            ),
            "first_decode": np.where(early, 0.0, counted(self.first_token - at["decode_start"])),
        }
        stages["unobserved"] = self.ttft - sum(stages.values(), zero)
        # below a nanosecond it is rounding, not time
        stages["unobserved"] = np.where(np.abs(stages["unobserved"]) < 1e-9, 0.0, stages["unobserved"])
        return {name: np.where(self.ok, seconds, np.nan) for name, seconds in stages.items()}

    @cached_property
    def shared_queue(self) -> tuple[Array, Array]:
        """When each request enters and leaves the queue that prefill workers pull from; null where there is none."""
        if "shared_queued_s" not in self.requests:  # a run of before
            nothing = np.full(len(self.arrival), np.nan)
            return nothing, nothing
        entered, searched = self.column("shared_queued_s"), self.column("retrieval_start_s")
        left = np.where(searched >= entered, searched, self.column("queued_s"))
        return entered, np.where(np.isnan(entered), np.nan, left)

    # --- saturation ----------------------------------------------------------------------------

    @cached_property
    def saturation(self) -> Saturation:
        """The rule. Over the window of `growing` a run is past saturation when

        - requests finish at less than 95 % of the rate at which they are sent, and
        - the line of requests without a first token grows by more than 5 % of the requests sent (and by more than 5),
          or as many are rejected.

        Sessions are also past it when slow answers kept them from sending what is asked although they lasted no longer
        than half of the time in which they began, or although ever more were under way: then their number grows instead
        of the line. Else the run is too short to tell.

        Requests that no engine could hold are no part of it: another deployment would refuse them too.

        The slope of the line is a least-squares fit. Where the prefill worker gives the first token, the line is of
        requests whose decoding has not started.
        """
        window, turns = self.growing, self.turns
        served = np.fmax(self.first_token, self.column("decode_start_s"))  # fmax ignores a null
        leaves = np.where(self.ok, np.fmin(served, self.finish), self.finish)
        waiting = growth(self.arrival, leaves, window)
        backlog = growth(self.arrival, self.finish, window)
        n = len(self.arrival) - int(self.oversized.sum())
        span = float(self.arrival[-1] - self.arrival[0]) if n > 0 else 0.0
        if span <= 0 or not window.length_s > 0:
            return Saturation(False, True, None, self.finished_per_s(window), waiting, backlog)
        offered = (n - 1) / span
        achieved = self.finished_per_s(self.steady) or 0.0
        if turns is None:
            sent, finished = offered * window.length_s, achieved * window.length_s
        else:  # their rate is not the same all the time
            sent = float(((self.arrival > window.start_s) & (self.arrival <= window.end_s)).sum())
            finished = (self.finished_per_s(window) or 0.0) * window.length_s
        limit = max(SATURATED * sent, LEAST_GROWTH)
        behind = finished < (1 - SATURATED) * sent
        rejected = int((self.rejected & ~self.oversized).sum()) > max(SATURATED * n, LEAST_GROWTH)
        piles_up = waiting * window.length_s > limit or rejected
        if turns is not None:
            saturated = (behind and piles_up) or (turns.held_back and (turns.settled or turns.full))
            unsteady = turns.held_back and not saturated
            state = Saturation(saturated, not unsteady, offered, achieved, waiting, backlog)
            return replace(state, asked_per_s=turns.asked_per_s, reached=turns.reached, held_back=turns.held_back)
        unsteady = behind and not piles_up and backlog * window.length_s > limit
        return Saturation(behind and piles_up, not unsteady, offered, achieved, waiting, backlog)

    def finished_per_s(self, window: Window) -> float | None:
        """Requests served that end in the window, a second of it; None for one without length."""
        if not window.length_s > 0:
            return None
        ends = self.finish[self.ok]
        return float(((ends > window.start_s) & (ends <= window.end_s)).sum()) / window.length_s

    # --- gaps ----------------------------------------------------------------------------------

    @cached_property
    def gaps(self) -> gaps.Gaps | None:
        """Pooled gaps between tokens: as the client saw them, else what it would see of the engine's steps. None: not
        recorded.
        """
        tokens, steps = self.run.columns("tokens"), self.run.columns("steps")
        if len(tokens):
            ids = self.requests.whole("request_id")[self.rows][self.ok]
            seen = tokens.whole("request_id")
            mine = np.isin(seen, ids)
            return gaps.of_tokens(seen[mine], tokens.whole("index")[mine], tokens.floats("time_s")[mine])
        costs = self.manifest.get("answering")
        if not costs or not len(steps):
            return self.step_gaps
        by_prefill = (self.spec.get("deployment") or {}).get("first_token") == "prefill"
        return held_up.gaps(steps, self.requests, self._in_base, costs, by_prefill)

    @cached_property
    def step_gaps(self) -> Gaps | None:
        """The same as the engines' steps have them, whatever clients saw."""
        return gaps.of_steps(*self._steps_seen) if len(self.run.columns("steps")) else None

    @cached_property
    def _in_base(self) -> Mask:
        """Which rows of steps begin in the time base."""
        return np.asarray(self.run.columns("steps").floats("start_s") >= self.base.start_s)

    @cached_property
    def _steps_seen(self) -> tuple[Array, Array, Array, Array]:
        """Of these rows: duration, growth, count, sequences that decode."""
        steps = self.run.columns("steps")
        duration, grows, count, seqs = (
            steps.floats(name)[self._in_base] for name in ("duration_s", "growth_s", "count", "decode_seqs")
        )
        return duration, np.nan_to_num(grows), count, seqs
