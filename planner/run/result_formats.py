"""The result files of other tools, request by request: one reader each, in RESULTS.

A reader takes the parsed file (JSON, JSON lines or the rows of a CSV) and raises BadResult for what does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from planner.messages import Fault, joined

MOST_NUMBER = 1e15


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """One request as a client saw it. Times in seconds, on any clock; `tokens` are the times of each token."""

    sent_s: float
    finish_s: float | None
    first_token_s: float | None
    prompt_tokens: int
    output_tokens: int
    tokens: tuple[float, ...] = ()
    error: str | None = None
    session: str | None = None


class BadResult(Fault):
    """A file that does not fit its tool: what is wrong, what is allowed."""


# --- fields --------------------------------------------------------------------------------------------


def _number(row: Any, *keys: str, scale: float = 1.0) -> float | None:
    """The first of `keys` (dotted paths) that holds a number; None where none is there. Raises BadResult."""
    for key in keys:
        here: Any = row
        for part in key.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        if isinstance(here, dict) and "value" in here:
            here = here["value"]
        if here is None or here == "":
            continue
        try:
            number = math.nan if isinstance(here, bool) else float(here)
        except (TypeError, ValueError, OverflowError):  # the last: a whole number of 400 digits
            number = math.nan
        if not math.isfinite(number) or abs(number) > MOST_NUMBER * 1e6:
            raise BadResult("{key}: {value!r} is no number; allowed: numbers", key, here)
        return number * scale
    return None


def _needed(row: Any, *keys: str, scale: float = 1.0) -> float:
    found = _number(row, *keys, scale=scale)
    if found is None:
        raise BadResult("no {keys}; allowed: a result with details of each request", joined(" or ", keys))
    return found


def _tokens(row: Any, *keys: str) -> int:
    return _whole(_needed(row, *keys), keys[0])


def _known_tokens(row: Any, *keys: str) -> int | None:
    """None where none of `keys` is there."""
    number = _number(row, *keys)
    return None if number is None else _whole(number, keys[0])


def _whole(number: float, key: str) -> int:
    if number < 0 or number != int(number) or number > 1e9:
        raise BadResult("{key}: {value:g} is no number of tokens; allowed: whole numbers from 0", key, number)
    return int(number)


def _list(data: Any, key: str) -> list[Any]:
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, list):
        raise BadResult("no list {key}; allowed: a result saved with --save-result --save-detailed", key)
    return found


def _error(value: Any) -> str | None:
    if not value:
        return None
    return str(value.get("message") or value.get("type") or "error") if isinstance(value, dict) else str(value)


# --- tools ---------------------------------------------------------------------------------------------


def _vllm_bench(data: Any) -> Iterable[ClientRequest]:
    """`vllm bench serve --save-result --save-detailed`: lists of one entry a request; a failed one has no TTFT."""
    names = ("start_times", "input_lens", "output_lens", "ttfts", "itls")
    lists = {name: _list(data, name) for name in names}
    if len({len(one) for one in lists.values()}) != 1:
        raise BadResult(
            "{counts}; allowed: equally many", ", ".join(f"{len(one)} {name}" for name, one in lists.items())
        )
    errors = data.get("errors") or [""] * len(lists["ttfts"])
    for index, (sent, prompt, output, ttft, gaps) in enumerate(zip(*(lists[name] for name in names), strict=True)):
        row = {"sent": sent, "prompt": prompt, "output": output, "ttft": ttft}
        start, first = _needed(row, "sent"), _number(row, "ttft")
        if not first:
            yield ClientRequest(start, None, None, _tokens(row, "prompt"), 0, error=_error(errors[index]) or "failed")
            continue
        steps = [_needed({"gap": gap}, "gap") for gap in gaps]
        times = tuple(start + moment for moment in accumulate(steps, initial=first))
        yield ClientRequest(start, times[-1], times[0], _tokens(row, "prompt"), _tokens(row, "output"), times)


def _aiperf(data: Any) -> Iterable[ClientRequest]:
    """AIPerf's profile_export.jsonl: a record a request; those of the warm-up are left out."""
    for row in data:
        about = row.get("metadata") if isinstance(row, dict) else None
        if not isinstance(about, dict):
            raise BadResult("a record without metadata; allowed: AIPerf's profile_export.jsonl")
        if about.get("benchmark_phase", "profiling") != "profiling":
            continue
        metrics = row.get("metrics") or {}
        start = _needed(about, "request_start_ns", scale=1e-9)
        end = _number(about, "request_end_ns", scale=1e-9)
        ttft = _number(metrics, "time_to_first_token", scale=1e-3)
        error = _error(row.get("error")) or ("cancelled" if about.get("was_cancelled") else None)
        chunks = (metrics.get("inter_chunk_latency") or {}).get("value")
        tokens: tuple[float, ...] = ()
        output = _known_tokens(metrics, "output_sequence_length", "output_token_count")
        if ttft is not None and isinstance(chunks, list) and output is not None and len(chunks) + 1 == output:
            steps = [_needed({"gap": gap}, "gap", scale=1e-3) for gap in chunks]
            tokens = tuple(accumulate(steps, initial=start + ttft))
        session = about.get("conversation_id") or about.get("session_num")
        yield ClientRequest(
            start, None if error else end, None if error or ttft is None else start + ttft,
            _tokens(metrics, "input_sequence_length", "input_token_count") if not error or metrics else 0,
            0 if error or output is None else output, tokens, error, None if session is None else str(session),
        )  # fmt: skip


def _guidellm(data: Any) -> Iterable[ClientRequest]:
    """GuideLLM's benchmarks.json, one benchmark of it: requests that were answered, and those that were not."""
    requests = data.get("requests")
    if not isinstance(requests, dict):
        raise BadResult("a benchmark without requests; allowed: GuideLLM's JSON with its requests")
    for kind in ("successful", "incomplete", "errored"):
        for row in requests.get(kind) or ():
            start = _needed(
                row,
                "request_start_time",
                "start_time",
                "info.timings.request_start",
                "scheduler_info.request_timings.request_start",
            )
            spent = _number(row, "request_latency")
            end = _number(
                row,
                "request_end_time",
                "end_time",
                "info.timings.request_end",
                "scheduler_info.request_timings.request_end",
            )
            end = start + spent if end is None and spent is not None else end
            ttft = _number(row, "time_to_first_token_ms", scale=1e-3)
            first = _number(
                row, "first_token_time", "info.timings.first_token_iteration", "info.timings.first_iteration"
            )
            first = start + ttft if ttft is not None else first
            error = None if kind == "successful" else _error(row.get("error")) or kind
            if error is None and end is None:
                raise BadResult("no request_end_time or request_latency; allowed: GuideLLM's JSON with its requests")
            prompt = _known_tokens(row, "prompt_tokens", "input_metrics.total_tokens", "input_metrics.text_tokens") or 0
            output = (
                _known_tokens(row, "output_tokens", "output_metrics.total_tokens", "output_metrics.text_tokens") or 0
            )
            yield ClientRequest(
                start, None if error else end, None if error else first, prompt, 0 if error else output, (), error
            )


def _inference_perf(data: Any) -> Iterable[ClientRequest]:
    """inference-perf's per_request_lifecycle_metrics.json: a list of requests with the time of each token."""
    for row in data:
        if not isinstance(row, dict):
            raise BadResult("an entry that is no request; allowed: per_request_lifecycle_metrics.json")
        start, end = _needed(row, "start_time"), _number(row, "end_time")
        info = row.get("info") or {}
        answer = info.get("response_metrics") or info.get("response_info") or info
        times = answer.get("output_token_times") or info.get("output_token_times") or []
        tokens = tuple(_needed({"time": moment}, "time") for moment in times)
        error = _error(row.get("error"))
        prompt = _tokens(info, "input_tokens", "request_metrics.text.input_tokens", "request_info.input_tokens")
        output = _known_tokens(answer, "output_tokens") or _known_tokens(info, "output_tokens") or len(tokens)
        exact = tokens if len(tokens) == output else ()
        first = tokens[0] if tokens else None
        yield ClientRequest(
            start, None if error else end, None if error else first, prompt, 0 if error else output, exact, error
        )


def _multi_round_qa(data: Any) -> Iterable[ClientRequest]:
    """The CSV of multi-round-qa, as LMBench keeps it: one row a request that finished."""
    for row in data:
        start, ttft, rest = _needed(row, "launch_time"), _needed(row, "ttft"), _needed(row, "generation_time")
        end = _number(row, "finish_time")
        finish = start + ttft + rest if end is None else end
        yield ClientRequest(
            start,
            finish,
            start + ttft,
            _tokens(row, "prompt_tokens"),
            _tokens(row, "generation_tokens"),
            session=row.get("user_id"),
        )


@dataclass(frozen=True, slots=True)
class Tool:
    title: str
    fits: Callable[[Any], bool]
    read: Callable[[Any], Iterable[ClientRequest]]


def _first(data: Any) -> Any:
    return data[0] if isinstance(data, list) and data else None


QA_COLUMNS = {"prompt_tokens", "generation_tokens", "ttft", "generation_time", "launch_time"}
RESULTS: dict[str, Tool] = {
    "vllm": Tool(
        "vllm bench serve --save-result --save-detailed (.json)",
        lambda data: isinstance(data, dict) and ("input_lens" in data or "mean_ttft_ms" in data),
        _vllm_bench,
    ),
    "aiperf": Tool(
        "AIPerf's profile_export.jsonl",
        lambda data: isinstance(_first(data), dict) and {"metadata", "metrics"} <= set(_first(data)),
        _aiperf,
    ),
    "guidellm": Tool(
        "GuideLLM's benchmarks.json",
        lambda data: (
            isinstance(data, dict)
            and "requests" in data
            and "metrics" in data
            or isinstance(data, dict)
            and "benchmarks" in data
        ),
        _guidellm,
    ),
    "inference-perf": Tool(
        "inference-perf's per_request_lifecycle_metrics.json",
        lambda data: isinstance(_first(data), dict) and {"start_time", "info"} <= set(_first(data)),
        _inference_perf,
    ),
    "multi-round-qa": Tool(
        "the CSV of multi-round-qa and LMBench",
        lambda data: isinstance(_first(data), dict) and set(_first(data)) >= QA_COLUMNS,
        _multi_round_qa,
    ),
}
ALLOWED = "; ".join(tool.title for tool in RESULTS.values())
