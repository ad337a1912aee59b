"""What a profile can be fitted on besides a calibration: a run folder, a CSV of steps, a `vllm bench serve` result."""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd

from planner.run.tables import STEP_COLUMNS, Run, frame
from planner.spec import SpecError

STEP_NEEDS = ("prefill_tokens", "decode_seqs", "context_tokens", "duration_s")
BENCH_NEEDS = ("input_lens", "output_lens", "ttfts", "itls", "start_times")


def read_source(path: Path) -> Run:
    """The tables of a measured run from `path`. Raises SpecError when it is none of the known kinds."""
    if (path / "manifest.json").is_file():
        run = Run.load(path)
        if run.manifest.get("provenance") != "measured":
            raise SpecError(f"{path}: a {run.manifest.get('provenance')} run; allowed: a measured one")
        return run
    if path.suffix == ".csv" and path.is_file():
        return _steps_csv(path)
    if path.suffix == ".json" and path.is_file():
        return _bench(path)
    raise SpecError(f"{path}: not a source; allowed: a run folder, a .csv of steps, a .json of vllm bench serve")


def _run(path: Path, tables: dict[str, pd.DataFrame], **manifest: Any) -> Run:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = {name: tables.get(name, frame(name)) for name in ("requests", "steps", "samples", "transfers", "tokens")}
    return Run(
        **found, manifest={"provenance": "measured", "spec": {"name": path.name}, "sources": [digest], **manifest}
    )


def _steps_csv(path: Path) -> Run:
    """Columns as in the steps table; those of STEP_NEEDS are needed, prefill_pairs is taken where it is."""
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise SpecError(f"{path}: not a table ({error}); allowed: CSV with a header") from None
    missing = [name for name in STEP_NEEDS if name not in table]
    if missing:
        raise SpecError(
            f"{path}: no column {', '.join(missing)}; allowed: {', '.join(STEP_NEEDS)} and the steps table's"
        )
    wrong = [name for name in STEP_NEEDS if not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise SpecError(f"{path}: {', '.join(wrong)}: not numbers; allowed: numbers in every row")
    count = len(table)
    defaults = {"worker": ["engine"] * count, "start_s": [1e4 * row for row in range(count)], "count": [1] * count}
    steps = frame(
        "steps",
        {name: table[name] if name in table else defaults.get(name, [0] * count) for name in STEP_COLUMNS},
    )
    extra = [name for name in ("prefill_pairs", "chunks") if name in table]
    return _run(path, {"steps": steps.assign(**{name: table[name] for name in extra})})


def _bench(path: Path) -> Run:
    """`vllm bench serve --save-result --save-detailed`: send times, TTFTs and gaps of each request."""
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise SpecError(f"{path}: not JSON ({error}); allowed: a result of vllm bench serve") from None
    missing = [name for name in BENCH_NEEDS if name not in data] if isinstance(data, dict) else list(BENCH_NEEDS)
    if missing:
        raise SpecError(f"{path}: no {', '.join(missing)}; allowed: a result saved with --save-result --save-detailed")
    base = min(data["start_times"])
    rows, tokens = [], []
    for index in range(len(data["ttfts"])):
        sent, ttft, gaps = data["start_times"][index] - base, data["ttfts"][index], data["itls"][index]
        if not ttft:
            continue  # a request that failed
        times = [sent + moment for moment in accumulate(gaps, initial=ttft)]
        rows.append((index, sent, data["input_lens"][index], data["output_lens"][index], times[0], times[-1]))
        tokens += [(index, number, moment) for number, moment in enumerate(times)]
    if not rows:
        raise SpecError(f"{path}: no request was answered; allowed: a result with finished requests")
    names = ("request_id", "arrival_s", "prompt_tokens", "output_tokens", "first_token_s", "finish_s")
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns |= {"session_id": columns["request_id"], "max_tokens": columns["output_tokens"]}
    columns |= {"finish_reason": ["length"] * len(rows)}
    token_table = dict(zip(("request_id", "index", "time_s"), map(list, zip(*tokens, strict=True)), strict=True))
    return _run(
        path,
        {"requests": frame("requests", columns), "tokens": frame("tokens", token_table)},
        started_at=str(data.get("date", "undated")),
    )
