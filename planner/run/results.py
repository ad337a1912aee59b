"""What other tools measured, as a run: `vllm bench serve`, AIPerf, GuideLLM, inference-perf, multi-round-qa (LMBench).

All times become seconds since the first send. What a tool does not record (a worker, a stage, each token) is null, as
everywhere. A result becomes comparable with `with_spec`: the deployment that was measured, which no tool knows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.messages import message, system
from planner.run.result_formats import ALLOWED, QA_COLUMNS, RESULTS, BadResult, ClientRequest
from planner.run.tables import Run, frame
from planner.spec import Spec, SpecError, dump

__all__ = ["ALLOWED", "QA_COLUMNS", "RESULTS", "is_result", "read_results", "with_spec"]


# --- a file -----------------------------------------------------------------------------------------------


def _parsed(text: str, path: Path) -> Any:
    """JSON, JSON lines or CSV with a header. Raises SpecError."""
    stripped = text.lstrip()
    try:
        if stripped.startswith(("{", "[")):
            try:
                return json.loads(text)
            except json.JSONDecodeError:
                lines = [line for line in text.splitlines() if line.strip()]
                return [json.loads(line) for line in lines]
        return list(csv.DictReader(io.StringIO(text)))
    except (ValueError, RecursionError, csv.Error) as error:
        kind = message("not JSON") if stripped.startswith(("{", "[")) else message("not CSV")
        raise SpecError(
            "{path}: {kind} ({error}); allowed: {allowed}", path, kind, " ".join(str(error).split())[:120], ALLOWED
        ) from None


def _one_benchmark(data: dict[str, Any], path: Path, number: int | None) -> Any:
    found = data.get("benchmarks")
    if not isinstance(found, list) or not found:
        raise SpecError("{path}: no benchmarks; allowed: {title}", path, RESULTS["guidellm"].title)
    if number is None and len(found) > 1:
        raise SpecError(
            "{path}: {count} benchmarks; allowed: one of them, {path}#0 to {path}#{last}",
            path,
            len(found),
            len(found) - 1,
        )
    if not 0 <= (number or 0) < len(found):
        raise SpecError("{path}#{number}: no such benchmark; allowed: #0 to #{last}", path, number, len(found) - 1)
    return found[number or 0]


def is_result(path: Path) -> bool:
    """Whether a path may be a tool's result rather than a run folder."""
    return not path.is_dir() and path.suffix.partition("#")[0] in (".json", ".jsonl", ".csv")


def read_results(path: Path) -> Run:
    """A tool's result file (`FILE#2`: the third benchmark in it) as a run. Raises SpecError."""
    name, mark, number = str(path).partition("#")
    file = Path(name)
    if mark and not re.fullmatch(r"[0-9]{1,9}", number):
        raise SpecError("{path}: {number!r} is no number; allowed: FILE#0, FILE#1, ...", path, number)
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError("{file}: not UTF-8 text; allowed: {allowed}", file, ALLOWED) from None
    except OSError as error:
        raise SpecError("{file}: {fault}; allowed: {allowed}", file, system(error), ALLOWED) from None
    data = _parsed(text, file)
    if isinstance(data, dict) and {"metadata", "metrics"} <= set(data):
        data = [data]  # one line of JSON lines
    tool = next((key for key, one in RESULTS.items() if one.fits(data)), None)
    if tool is None and isinstance(data, dict) and "request_throughput" in data:
        raise SpecError(
            "{file}: totals alone, no requests; allowed: a result of vllm bench serve with --save-detailed", file
        )
    if tool is None:
        raise SpecError("{file}: no known result; allowed: {allowed}", file, ALLOWED)
    if tool == "guidellm" and "benchmarks" in data:
        data = _one_benchmark(data, file, int(number) if mark else None)
    elif mark and int(number):
        raise SpecError("{path}: the file holds one result; allowed: {file}", path, file)
    try:
        found = sorted(RESULTS[tool].read(data), key=lambda one: one.sent_s)
    except BadResult as error:
        raise SpecError("{path}: {error}", file, error) from None
    except (AttributeError, TypeError) as error:
        raise SpecError(
            "{file}: not as {title} writes it ({error}); allowed: {allowed}", file, RESULTS[tool].title, error, ALLOWED
        ) from None
    if not any(one.finish_s is not None for one in found):
        raise SpecError("{file}: no request was answered; allowed: a result with finished requests", file)
    started = str(data.get("date", "undated")) if isinstance(data, dict) else "undated"
    return _run(found, tool, file, hashlib.sha256(raw).hexdigest(), started)


def _run(found: Sequence[ClientRequest], tool: str, file: Path, digest: str, started_at: str) -> Run:
    base = found[0].sent_s
    sessions: dict[str, int] = {}
    number = [
        index if one.session is None else sessions.setdefault(one.session, index) for index, one in enumerate(found)
    ]

    def time(moment: float | None) -> float:
        return math.nan if moment is None else moment - base

    requests = frame(
        "requests",
        {
            "request_id": list(range(len(found))),
            "session_id": number,
            "arrival_s": [one.sent_s - base for one in found],
            "prompt_tokens": [one.prompt_tokens for one in found],
            "output_tokens": [one.output_tokens for one in found],
            "max_tokens": [one.output_tokens for one in found],
            "first_token_s": [time(one.first_token_s) for one in found],
            "finish_s": [time(one.finish_s) for one in found],
            "finish_reason": ["error" if one.error else "length" for one in found],
            "error": [one.error for one in found],
        },
    )
    rows = [(index, place, moment - base) for index, one in enumerate(found) for place, moment in enumerate(one.tokens)]
    names = ("request_id", "index", "time_s")
    tokens = (
        frame("tokens", dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))) if rows else frame("tokens")
    )
    manifest = {
        "provenance": "measured", "tool": tool, "spec": {"name": file.name, "slo": {"ttft_ms": None, "tpot_ms": None}},
        "sources": [digest], "started_at": started_at, "replay": True,
    }  # fmt: skip
    return Run(requests, frame("steps"), frame("samples"), frame("transfers"), tokens, manifest)


def with_spec(run: Run, spec: Spec, gpus: int) -> Run:
    """The run as one of `spec`, the deployment that was measured, of so many `gpus`."""
    about = {"spec": spec.model_dump(mode="json", by_alias=True), "spec_yaml": dump(spec), "gpus": gpus}
    return replace(run, manifest=run.manifest | about)
