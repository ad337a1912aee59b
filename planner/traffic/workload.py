"""A spec and its seed -> the requests that both backends send.

Each quantity (gaps, prompt lengths, ...) has its own random stream, named after it, and gaps are drawn at unit rate
and then scaled. So two specs that differ in rate only send the same requests, sooner or later (common random numbers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.core import no_cycles
from planner.messages import message
from planner.spec import (
    Concurrency,
    Constant,
    Distribution,
    Gamma,
    Lengths,
    Lognormal,
    MultiRoundQa,
    Poisson,
    Rag,
    Sessions,
    Spec,
    SpecError,
    Trace,
)
from planner.traffic.contents import ANSWER, DOCUMENT, PROMPT, SYSTEM, content_id, segments_of, shared_runs
from planner.traffic.loads import Chained, ClosedLoop, Woven
from planner.traffic.random_streams import arrival_times, draw, draw_tokens, long_run_mean, stream
from planner.traffic.requests import Arrival, Load, Request

if TYPE_CHECKING:
    from planner.traffic.traces import Sendable

MOST_TURNS = 2_000_000  # each costs about a kilobyte
MOST_HISTORY = 20_000_000  # pieces of prompts, about 100 bytes each

STRAYS = 0.1  # of the mean that many draws come to, from which a list is said to be far from it

# --- kinds -------------------------------------------------------------------------------------


def _open_loop(times: Sequence[float], requests: Sequence[Request], workload: Lengths | None = None) -> Chained:
    warnings = () if workload is None else _strays(workload, requests)
    return Chained(tuple(map(Arrival, times, requests)), {}, warnings)


def _strays(workload: Lengths, requests: Sequence[Request]) -> tuple[str, ...]:
    """What to know of a list whose mean lengths are not those of its workload: it is another load."""
    lengths: list[tuple[str, int | Distribution, float]] = [
        ("prompt_tokens", workload.prompt_tokens, sum(one.prompt_tokens for one in requests) / len(requests))
    ]
    if workload.max_tokens is None:
        mean = sum(one.output_tokens for one in requests) / len(requests)
        lengths.append(("output_tokens", workload.output_tokens, mean))
    found = []
    for key, length, drawn in lengths:
        asked = long_run_mean(length)
        if isinstance(length, Lognormal) and abs(asked - length.mean) > STRAYS * length.mean:
            found.append(
                message(
                    "workload.{key}: cut to its min and max, the mean is {cut} tokens instead of {mean}.",
                    key,
                    f"{asked:,.0f}",
                    f"{length.mean:,.0f}",
                )
            )
        if abs(drawn - asked) > max(STRAYS * asked, 1.0):
            found.append(
                message(
                    "workload.{key}: the {count} drawn have a mean of {drawn} tokens, many would have {asked}. More "
                    "requests come closer, another run.seed draws others.",
                    key,
                    f"{len(requests):,}",
                    f"{drawn:,.0f}",
                    f"{asked:,.0f}",
                )
            )
    return tuple(found)


def _independent(workload: Lengths, count: int, seed: int) -> list[Request]:
    """Requests with nothing in common but `shared_prefix_tokens`."""
    where = "workload.prompt_tokens", "workload.output_tokens"
    prompts = draw_tokens(workload.prompt_tokens, count, stream(seed, "prompt_tokens"), where[0])
    outputs = draw_tokens(workload.output_tokens, count, stream(seed, "output_tokens"), where[1])
    cap = workload.max_tokens
    if cap is not None:
        outputs = [min(output, cap) for output in outputs]
    prefix, system = workload.shared_prefix_tokens, content_id(SYSTEM, 0)
    requests = []
    for index, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        shared = min(prefix, prompt)
        private = (content_id(PROMPT, index), prompt - shared)
        if shared == 0:
            segments: tuple[tuple[int, int], ...] = (private,)
        elif shared == prompt:
            segments = ((system, shared),)
        else:
            segments = ((system, shared), private)
        answer = content_id(ANSWER, index)
        known = shared if count > 1 else 0
        requests.append(Request(index, index, prompt, output, cap or output, segments, known, answer))
    return requests


def _poisson(spec: Spec, workload: Poisson) -> Load:
    times = arrival_times(workload.requests, workload.rate, 1.0, spec.run.seed)
    return _open_loop(times, _independent(workload, workload.requests, spec.run.seed), workload)


def _gamma(spec: Spec, workload: Gamma) -> Load:
    times = arrival_times(workload.requests, workload.rate, workload.burstiness, spec.run.seed)
    return _open_loop(times, _independent(workload, workload.requests, spec.run.seed), workload)


def _constant(spec: Spec, workload: Constant) -> Load:
    times = [index / workload.rate for index in range(workload.requests)]
    return _open_loop(times, _independent(workload, workload.requests, spec.run.seed), workload)


def _concurrency(spec: Spec, workload: Concurrency) -> Load:
    requests = _independent(workload, workload.requests, spec.run.seed)
    return ClosedLoop(requests, workload.concurrency, _strays(workload, requests))


@dataclass(frozen=True)
class DrawnSessions:
    """Chats, with all lengths drawn beforehand, so that no quantity depends on the order in which turns end.

    `turns` and `starts_s` have one entry a session, the others one a turn, those of a session after each other; the
    first turn of session i is number `firsts[i]`.
    """

    system_tokens: int
    starts_s: list[float]
    turns: list[int]
    firsts: list[int]
    questions: list[int]
    answers: list[int]
    thinking_s: list[float]

    @staticmethod
    def of(workload: Sessions, seed: int, whole: bool = True) -> DrawnSessions:
        """Raises SpecError where they would not fit into memory; `whole`: with the requests of every turn."""
        count = workload.sessions
        turns = draw_tokens(workload.turns, count, stream(seed, "turns"), "workload.turns")
        total = sum(turns)
        repeated = sum(one * one for one in turns)  # a turn holds all before it
        if total > MOST_TURNS or (whole and repeated > MOST_HISTORY):
            raise SpecError(
                "workload.turns: {total} turns in {count} sessions; allowed: {most} in all, and at most {history} when "
                "every "
                "turn is counted as often as it is repeated",
                total,
                count,
                MOST_TURNS,
                MOST_HISTORY,
            )
        return DrawnSessions(
            system_tokens=workload.system_tokens,
            starts_s=list(arrival_times(count, workload.rate, 1.0, seed)),
            turns=turns,
            firsts=[0, *accumulate(turns)][:-1],
            questions=draw_tokens(
                workload.prompt_tokens, total, stream(seed, "prompt_tokens"), "workload.prompt_tokens"
            ),
            answers=draw_tokens(workload.output_tokens, total, stream(seed, "output_tokens"), "workload.output_tokens"),
            thinking_s=draw(workload.think_time_s, total, stream(seed, "think_time_s")).tolist(),
        )

    def requests(self, session: int, since: int = 0) -> list[Request]:
        """Its turns, from one on."""
        segments, prompt = segments_of((content_id(SYSTEM, 0), self.system_tokens)), self.system_tokens
        history: tuple[tuple[int, int], ...] = ()
        known = self.system_tokens if len(self.turns) > 1 else 0
        first, found = self.firsts[session], []
        for index in range(first, first + self.turns[session]):
            last = index == first + self.turns[session] - 1
            question, tokens, answer = self.questions[index], self.answers[index], content_id(ANSWER, index)
            segments += ((content_id(PROMPT, index), question),)
            prompt += question
            if index >= first + since:
                found.append(
                    Request(
                        index, session, prompt, tokens, tokens, segments, known if last else prompt, answer, not last,
                        None, (), history,
                    )
                )  # fmt: skip
            segments += ((answer, tokens),)
            prompt += tokens
            known, history = prompt, (*history, (answer, index))
        return found

    def followers(self, requests: Sequence[Request]) -> dict[int, tuple[float, Request]]:
        """For each of these turns of a session but the last, what follows it."""
        return {one.request_id: (self.thinking_s[then.request_id], then) for one, then in pairwise(requests)}


def _sessions(spec: Spec, workload: Sessions) -> Load:
    sessions = DrawnSessions.of(workload, spec.run.seed)
    arrivals: list[Arrival] = []
    followers: dict[int, tuple[float, Request]] = {}
    for session, start_s in enumerate(sessions.starts_s):
        requests = sessions.requests(session)
        arrivals.append(Arrival(start_s, requests[0]))
        followers |= sessions.followers(requests)
    return Chained(tuple(arrivals), followers)


def popular_documents(count: int, documents: int, zipf_s: float, top_k: int, seed: int) -> list[list[int]]:
    """For each of `count` requests, `top_k` distinct documents, drawn one after the other with weight 1 / (rank ** s).

    Document 0 is the most popular. A document that comes up again is passed over, which is drawing without replacement;
    a row that runs out of draws is finished by the exponential race over the documents it has not got.
    """
    weights = np.arange(1, documents + 1, dtype=float) ** -zipf_s
    cumulative = np.cumsum(weights)
    rng, spare = stream(seed, "documents"), stream(seed, "documents, drawn again")
    uniform = rng.random((count, 2 * top_k + 8)) * cumulative[-1]
    drawn = np.minimum(np.searchsorted(cumulative, uniform, side="right"), documents - 1)
    rows = []
    for row in drawn.tolist():
        chosen = list(dict.fromkeys(row))[:top_k]
        if len(chosen) < top_k:
            finish = spare.standard_exponential(documents) / weights
            finish[chosen] = math.inf
            chosen += np.argsort(finish, kind="stable")[: top_k - len(chosen)].tolist()
        rows.append(chosen)
    return rows


def _rag(spec: Spec, workload: Rag) -> Load:
    seed, count, retrieval = spec.run.seed, workload.requests, spec.retrieval
    if retrieval is None:
        raise SpecError("retrieval: missing; workload kind 'rag' needs it (top_k, chunk_tokens, popularity)")
    popularity, top_k = retrieval.popularity, retrieval.top_k
    if top_k > popularity.documents:
        raise SpecError(
            "retrieval.top_k: {top_k} chunks of {documents} documents; at most one chunk each",
            top_k,
            popularity.documents,
        )
    questions = draw_tokens(
        workload.question_tokens, count, stream(seed, "question_tokens"), "workload.question_tokens"
    )
    outputs = draw_tokens(workload.output_tokens, count, stream(seed, "output_tokens"), "workload.output_tokens")
    found = popular_documents(count, popularity.documents, popularity.zipf_s, top_k, seed)
    if retrieval.order == "canonical":
        found = [sorted(row) for row in found]
    prompts = [
        segments_of(
            (content_id(SYSTEM, 0), workload.system_tokens),
            *((content_id(DOCUMENT, document), retrieval.chunk_tokens) for document in row),
            (content_id(PROMPT, index), question),
        )
        for index, (row, question) in enumerate(zip(found, questions, strict=True))
    ]
    known = workload.system_tokens if retrieval.at == "prefill_worker" else None
    requests = [
        Request(
            index, index, sum(tokens for _, tokens in segments), output, output, segments,
            sum(tokens for _, tokens in segments[:run]), content_id(ANSWER, index), False, known, tuple(row),
        )
        for index, (segments, run, output, row) in enumerate(
            zip(prompts, shared_runs([[one for one, _ in parts] for parts in prompts]), outputs, found, strict=True)
        )
    ]  # fmt: skip
    return _open_loop(arrival_times(count, workload.rate, workload.burstiness, seed), requests)


def _multi_round_qa(spec: Spec, workload: MultiRoundQa) -> Load:
    from planner.traffic import multi_round_qa

    return multi_round_qa.MultiRoundQaLoad(workload)


def _sendable(workload: Trace, told: Callable[[float], None] | None = None) -> Sendable:
    from planner.traffic import traces  # the formats of traces: most specs need none

    wanted = traces.selection_of(workload)
    return traces.requests_of(workload.path, workload.format, workload.block_tokens, wanted, told)


def _trace(spec: Spec, workload: Trace) -> Load:
    """A trace file. Only send times are scaled, not the pauses inside a session; the seed draws missing send times."""
    sent = _sendable(workload)
    arrivals = sent.arrivals
    if sent.starts in ("together", "unknown") and workload.rate is not None:
        sessions_per_s = workload.rate * len(arrivals) / sent.requests
        times = arrival_times(len(arrivals), sessions_per_s, 1.0, spec.run.seed)
        arrivals = tuple(Arrival(time_s, one.request) for time_s, one in zip(times, arrivals, strict=True))
    elif sent.starts == "unknown":
        raise SpecError("workload.rate: missing; {path} has no send times; allowed: requests per second", workload.path)
    elif (speedup := _speedup(workload, sent)) != 1.0:
        arrivals = tuple(Arrival(one.time_s / speedup, one.request) for one in arrivals)
    single = {earlier: rest[0] for earlier, rest in sent.followers.items() if len(rest) == 1}
    if len(single) < len(sent.followers) or any(count > 1 for count in sent.waits.values()):
        return Woven(arrivals, sent)
    return Chained(arrivals, single, sent.warnings)


def _speedup(workload: Trace, sent: Sendable) -> float:
    if workload.rate is None:
        return workload.speedup
    if sent.rate is None:
        raise SpecError(
            "workload.rate: all requests of {path} come at once; allowed: without rate, or another trace", workload.path
        )
    return workload.rate / sent.rate


KINDS: dict[str, Callable[[Spec, Any], Load]] = {
    "poisson": _poisson,
    "gamma": _gamma,
    "constant": _constant,
    "concurrency": _concurrency,
    "sessions": _sessions,
    "rag": _rag,
    "multi_round_qa": _multi_round_qa,
    "trace": _trace,
}


def build(spec: Spec, told: Callable[[float], None] | None = None) -> Load:
    """The load of a spec: the same spec and seed give the same requests. Raises SpecError for an unusable trace, and
    where no request would count. `told` is given the share of a trace that was read, now and then."""
    if isinstance(spec.workload, Trace) and told is not None:
        _sendable(spec.workload, told)  # it is remembered
    with no_cycles():
        found = KINDS[spec.workload.kind](spec, spec.workload)
    if spec.run.warmup_requests >= found.expected_requests > 0:
        raise SpecError(
            "run.warmup_requests: {warmup} leaves none of {count} requests to count; allowed: up to {most}",
            spec.run.warmup_requests,
            found.expected_requests,
            found.expected_requests - 1,
        )
    return found


# --- rates -------------------------------------------------------------------------------------


def mean_turns(workload: Sessions, seed: int) -> float:
    """Mean number of turns of the sessions that `build` makes with this seed."""
    return float(np.mean(draw_tokens(workload.turns, workload.sessions, stream(seed, "turns"), "workload.turns")))


def offered_rate(spec: Spec) -> float | None:
    """Requests per second that the load sends when the system keeps up; None for a closed loop."""
    match spec.workload:
        case Poisson(rate=rate) | Gamma(rate=rate) | Constant(rate=rate) | Rag(rate=rate):
            return rate
        case Sessions() as workload:
            return workload.rate * mean_turns(workload, spec.run.seed)
        case MultiRoundQa() as workload:
            from planner.traffic import multi_round_qa

            return multi_round_qa.steady_rate(workload)
        case Trace() as workload:
            natural = _sendable(workload).rate
            return workload.rate or (natural * workload.speedup if natural is not None else None)
        case _:
            return None


def at_rate(spec: Spec, rate: float) -> Spec:
    """The same requests at another request rate (requests per second). SpecError where the load has no rate.

    multi_round_qa has its time axis compressed as a whole (qps, tick, pauses and time), so that every user sends what
    it sent before; sessions keep their think times, traces the pauses inside a session.
    """
    workload, now = spec.workload, offered_rate(spec)
    if now is None:
        if isinstance(workload, Trace):
            raise SpecError(
                "workload.rate: missing; {path} has no send times; allowed: requests per second", workload.path
            )
        raise SpecError(
            "workload.kind: {kind!r} has no request rate to vary; allowed: {kinds}",
            workload.kind,
            ", ".join(kind for kind in KINDS if kind != workload.kind),
        )
    if not (rate > 0 and math.isfinite(rate)):
        raise SpecError("workload.rate: {rate} requests/s; must be a positive number", rate)
    factor = rate / now
    match workload:
        case Sessions():
            change: dict[str, float] = {"rate": workload.rate * factor}
        case MultiRoundQa():
            from planner.traffic import multi_round_qa

            change = multi_round_qa.sped_up(workload, factor)
        case Trace(rate=None):
            change = {"speedup": workload.speedup * factor}
        case _:
            change = {"rate": rate}
    return spec.model_copy(update={"workload": workload.model_copy(update=change)})
