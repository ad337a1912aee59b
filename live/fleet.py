"""The workers as the frontend sees them: health, load, prefix caches, and the queue that prefill workers share.

Load is the frontend's own count of what it has sent and not got back; only the split of a worker's unstarted
requests into queued and being prefilled comes from its /metrics. Who gets a request is for planner.dispatch to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import re
import time
from collections import deque
from collections.abc import Collection, Sequence

import aiohttp

from live.address import ServerAddress
from live.bounded import MOST_METRICS, whole_text
from live.kv_events import KvEventFeed, overlaps
from planner.dispatch import Held, NoWorker, backlog, turns
from planner.engine.host_costs import FRONTEND_READS_S
from planner.messages import joined, message
from planner.routing import NEEDS_OVERLAP, WorkerLoad
from planner.spec import SpecError
from planner.system.resolve import Pool

log = logging.getLogger("planner.frontend")
POLL_S = FRONTEND_READS_S  # how often a worker's /metrics is read
POLL_TIMEOUT_S = 5.0
SILENT_S = 6.0  # without an answer to a poll
STALLED_S = 30.0  # with requests and without a token or an answer of theirs; longer than a prompt on a CPU takes
OK, REFUSED, SILENT, STALLED, STOPPED = (
    "ok", message("not answering"), message("silent: connections are taken, polls are not answered"),
    message("stalled: it has requests and makes no progress"), message("stopped by a signal"),
)  # fmt: skip
_NAMES = "num_requests_running|num_requests_waiting|kv_cache_usage_perc"
_SERIES = re.compile(rf"^vllm:({_NAMES})(?:\{{[^}}]*\}})? (\S+)$", re.M)


class UpstreamError(Exception):
    """A worker that could not be reached, broke off, or failed (5xx). Another one may do better."""

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(f"{worker}: {reason}")
        self.worker = worker


def polled_load(text: str) -> dict[str, float]:
    """Running, waiting and KV use from vLLM's Prometheus text; data-parallel ranks of one server are summed."""
    found: dict[str, float] = {}
    for name, value in _SERIES.findall(text):
        with contextlib.suppress(ValueError):  # no number: as if the server did not have it
            if math.isfinite(number := float(value)):
                found[name] = found.get(name, 0.0) + number
    return found


class Ticket:
    """One request on one worker, from sent to answered; keeps the worker's counters. Use as a context manager."""

    def __init__(self, worker: LiveWorker, prompt_tokens: int, uncached_tokens: int) -> None:
        self.worker = worker
        self.sent_s = time.monotonic()
        self.started = False  # its first token has been seen
        self._queued_tokens = max(0, uncached_tokens)
        self._tokens = prompt_tokens
        self._blocks = math.ceil(prompt_tokens / worker.block_size)

    def __enter__(self) -> Ticket:
        load = self.worker.load
        if not self.worker.tickets:
            self.worker.progress_s = self.sent_s
        self.worker.tickets.add(self)
        self.worker.unstarted.add(self)
        self.worker.fresh += 1
        load.queued_tokens += self._queued_tokens
        load.active_blocks += self._blocks
        self.worker.count()
        return self

    def tokens(self, count: int) -> None:
        """`count` more tokens have come: the prompt is done and the request holds more KV."""
        load = self.worker.load
        self.worker.progress_s = time.monotonic()
        if not self.started:
            self.started = True
            self._is_started()
            load.queued_tokens -= self._queued_tokens
            self._queued_tokens = 0
            self.worker.count()
        self._tokens += count
        blocks = math.ceil(self._tokens / self.worker.block_size)
        load.active_blocks += blocks - self._blocks
        self._blocks = blocks

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        load = self.worker.load
        if kind is None:
            self.worker.progress_s = time.monotonic()
        self.worker.tickets.discard(self)
        self._is_started()
        load.queued_tokens -= self._queued_tokens
        load.active_blocks -= self._blocks
        self.worker.count()

    def _is_started(self) -> None:
        worker = self.worker
        if self in worker.unstarted:
            worker.unstarted.remove(self)
            worker.fresh -= self.sent_s > worker.polled_at_s


class LiveWorker:
    """One server: where it is, how loaded, whether it answers.

    `healthy` is False while its connections are refused; `state` is OK or what else keeps requests from it.
    """

    def __init__(self, address: ServerAddress, pool: Pool) -> None:
        self.address = address
        self.name = address.name
        self.url = address.url.rstrip("/")
        self.block_size = pool.limits.block_size
        self.load = WorkerLoad(address.name, total_blocks=max(1, pool.limits.kv_blocks))
        self.healthy = True
        self.tickets: set[Ticket] = set()
        self.unstarted: set[Ticket] = set()  # those without a token
        self.fresh = 0  # of them, sent after the last poll
        self.feed = KvEventFeed(address.name, address.kv_events, address.host) if address.kv_events else None
        self.polled: dict[str, float] = {}  # from /metrics, empty when the server has none of vLLM's names
        self.polled_at_s = -math.inf
        self._polled_waiting: int | None = None
        self.stopped = False  # its processes, by a signal
        self.answered_s = self.progress_s = time.monotonic()  # a poll; a request
        self.state = OK
        self._state_s = self.answered_s  # since when
        self._paused_s: dict[str, float] = {}  # by state, those that are over

    def count(self) -> None:
        """Recount running and waiting. Sent after the last poll and not started: taken as waiting."""
        waiting = len(self.unstarted)
        if self._polled_waiting is not None:
            waiting = min(waiting, self._polled_waiting + self.fresh)
        self.load.waiting = waiting
        self.load.running = len(self.tickets) - waiting

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Read /metrics; a server that does not answer is left out of routing until it does."""
        asked_s = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=POLL_TIMEOUT_S)
        try:
            async with session.get(f"{self.url}/metrics", timeout=timeout) as response:
                text = await whole_text(response, MOST_METRICS)
                healthy = response.status < 500
            self.answered_s = time.monotonic()
        except (aiohttp.ClientError, TimeoutError) as error:
            healthy, text = isinstance(error, TimeoutError), ""  # busy is not dead: only a refused connection is
        self.healthy = healthy
        if text:
            self.note(polled_load(text), asked_s)
        self.look()

    def note(self, polled: dict[str, float], asked_s: float) -> None:
        """What its /metrics said when they were asked for."""
        self.polled, self.polled_at_s = polled, asked_s
        self._polled_waiting = int(polled["num_requests_waiting"]) if "num_requests_waiting" in polled else None
        self.fresh = sum(ticket.sent_s > asked_s for ticket in self.unstarted)
        self.count()

    def look(self) -> None:
        """Bring `state` up to date."""
        now = time.monotonic()
        if self.stopped:
            state: str = STOPPED
        elif not self.healthy:
            state = REFUSED
        elif now - self.answered_s > SILENT_S:
            state = SILENT
        elif self.tickets and now - self.progress_s > STALLED_S:
            state = STALLED
        else:
            state = OK
        if state != self.state:
            log.warning("%s is %s", self.name, "back" if state == OK else f"{state}; no requests go there")
            self._paused_s[self.state] = self._paused_s.get(self.state, 0.0) + now - self._state_s
            self.state, self._state_s = state, now

    def paused(self) -> str | None:
        """What kept requests from it so far, and for how long."""
        spent = dict(self._paused_s)
        spent[self.state] = spent.get(self.state, 0.0) + time.monotonic() - self._state_s
        spent.pop(OK, None)
        parts = [message("{state} for {seconds:.1f} s", state, seconds) for state, seconds in spent.items()]
        return joined("; ", parts) if parts else None


@dataclasses.dataclass(frozen=True, eq=False)
class Turn:
    """A request in the queue that prefill workers share, and the workers that it has failed on."""

    worker: asyncio.Future[LiveWorker]
    excluded: Collection[str]


class LivePool:
    """One pool behind its router."""

    def __init__(self, pool: Pool, addresses: Sequence[ServerAddress]) -> None:
        self.role = pool.role
        self.router = pool.router
        self.workers = [LiveWorker(address, pool) for address in addresses if address.role == pool.role]
        if not self.workers:
            raise SpecError("frontend: no worker of role {role!r} was given; the deployment needs one", pool.role)
        caching = pool.limits.prefix_caching and len(self.workers) > 1
        self.needs_overlap = caching and pool.router.policy in NEEDS_OVERLAP
        blind = [worker.name for worker in self.workers if worker.feed is None]
        if self.needs_overlap and blind:
            raise SpecError(
                "router.policy {policy!r} needs the KV events of {blind}; start them with --kv-events-config, or take "
                "a policy that needs none (least_loaded)",
                pool.router.policy,
                ", ".join(blind),
            )
        self._seen: dict[str, WorkerLoad] | None = None
        self._queue: deque[Turn] = deque()
        self._busy: set[str] = set()

    def usable(self, excluded: Collection[str] = ()) -> list[LiveWorker]:
        """Workers that this request has not failed on: those that are well, else those that may only be busy."""
        able = [worker for worker in self.workers if worker.healthy and worker.name not in excluded]
        return [worker for worker in able if worker.state == OK] or [one for one in able if not one.stopped]

    def cached(self, worker: LiveWorker, token_ids: Sequence[int] | None) -> int:
        """Prompt tokens in a worker's prefix cache, as far as its events tell."""
        if token_ids is None or worker.feed is None:
            return 0
        return overlaps(token_ids, worker.block_size, [worker.feed.index])[0]

    def overlaps(self, workers: Sequence[LiveWorker], token_ids: Sequence[int] | None) -> list[int]:
        """As `cached`, of several workers; zeros where the policy does not need them."""
        if not self.needs_overlap or token_ids is None:
            return [0] * len(workers)
        indexes = [worker.feed.index if worker.feed else None for worker in workers]
        return overlaps(token_ids, workers[0].block_size, indexes)

    def seen(self, worker: LiveWorker) -> WorkerLoad:
        """Its load as the router last read it."""
        return worker.load if self._seen is None else self._seen[worker.name]

    @property
    def queued(self) -> int:
        """Requests in the queue that the workers share."""
        return len(self._queue)

    @property
    def waiting(self) -> int:
        return backlog((worker.load for worker in self.workers if worker.healthy), self.queued)

    # --- the shared prefill queue -------------------------------------------------------------------

    async def pull(self, excluded: Collection[str] = ()) -> LiveWorker:
        """An idle worker, when it is this request's turn. Give it back with `release`. Raises NoWorker."""
        turn = Turn(asyncio.get_running_loop().create_future(), excluded)
        self._queue.append(turn)
        try:
            self._serve_queue()
            return await turn.worker
        except asyncio.CancelledError:
            if turn.worker.done() and not turn.worker.cancelled() and turn.worker.exception() is None:
                self.release(turn.worker.result())
            raise
        finally:
            if turn in self._queue:
                self._queue.remove(turn)

    def release(self, worker: LiveWorker) -> None:
        self._busy.discard(worker.name)
        self._serve_queue()

    def _serve_queue(self) -> None:
        """Hand out turns, and the error to those that no worker can serve any more."""
        for turn in [one for one in self._queue if not self.usable(one.excluded)]:
            self._queue.remove(turn)
            if not turn.worker.done():
                turn.worker.set_exception(NoWorker(self.role))
        waiting = [turn for turn in self._queue if not turn.worker.done()]
        able = self.usable()
        held = [Held(worker.name, 0, int(worker.name in self._busy)) for worker in able]
        for number, index in turns((turn.excluded for turn in waiting), held):
            self._queue.remove(waiting[number])
            self._busy.add(able[index].name)
            waiting[number].worker.set_result(able[index])

    # --- watching ---------------------------------------------------------------------------------

    async def watch(self, worker: LiveWorker, session: aiohttp.ClientSession) -> None:
        """Poll one of the workers for ever."""
        while True:
            await worker.poll(session)
            self._serve_queue()
            await asyncio.sleep(POLL_S)

    async def age(self) -> None:
        """Let the router see a copy of the loads that is renewed every `router.state_age_s`."""
        while self.router.state_age_s:
            self._seen = {worker.name: dataclasses.replace(worker.load) for worker in self.workers}
            await asyncio.sleep(self.router.state_age_s)

    def event_ages_s(self) -> list[float]:
        return [age for worker in self.workers if worker.feed for age in worker.feed.ages_s]
