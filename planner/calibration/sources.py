"""What a profile can be fitted on besides a calibration: a run folder, a CSV of steps, another tool's result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from planner.run.results import QA_COLUMNS, is_result, read_results
from planner.run.tables import STEP_COLUMNS, Run, frame
from planner.spec import SpecError
from planner.spec.strict_yaml import MOST

STEP_NEEDS = ("prefill_tokens", "decode_seqs", "context_tokens", "duration_s")


def read_source(path: Path) -> Run:
    """The tables of a measured run from `path`. Raises SpecError when it is none of the known kinds."""
    if (path / "manifest.json").is_file():
        run = Run.load(path)
        if run.manifest.get("provenance") != "measured":
            raise SpecError("{path}: a {provenance} run; allowed: a measured one", path, run.manifest.get("provenance"))
        return run
    if path.suffix == ".csv" and path.is_file() and not _is_qa(path):
        return _steps_csv(path)
    if is_result(path) and Path(str(path).partition("#")[0]).is_file():
        return _result(path)
    raise SpecError(
        "{path}: not a source; allowed: a run folder, a .csv of steps, a result with the time of each token", path
    )


def _result(path: Path) -> Run:
    """A tool's result. Step times are read off the gaps between tokens, so it must have them."""
    run = read_results(path)
    answered = run.requests[run.requests["first_token_s"].notna()]
    if run.tokens.empty:
        raise SpecError(
            "{path}: no time of each token; allowed: vllm bench serve --save-detailed, inference-perf, AIPerf's chunks",
            path,
        )
    return replace(run, requests=answered.reset_index(drop=True))


def _is_qa(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return set(file.readline().strip().split(",")) >= QA_COLUMNS


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
        raise SpecError("{path}: not a table ({error}); allowed: CSV with a header", path, error) from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas would take the first column for names of rows
        raise SpecError("{path}: rows have more cells than the header; allowed: CSV with a header", path)
    missing = [name for name in STEP_NEEDS if name not in table]
    if missing:
        raise SpecError(
            "{path}: no column {missing}; allowed: {step_needs} and the steps table's",
            path,
            ", ".join(missing),
            ", ".join(STEP_NEEDS),
        )
    known = [name for name in (*STEP_COLUMNS, "prefill_pairs") if name in table and name != "worker"]
    wrong = [name for name in known if not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise SpecError("{path}: {wrong}: not numbers; allowed: numbers in every row", path, ", ".join(wrong))
    counted = [name for name in known if name in STEP_NEEDS or STEP_COLUMNS.get(name, "int64") == "int64"]
    numbers = table[counted].to_numpy(float)
    if not (np.isfinite(numbers) & (numbers >= 0) & (numbers <= MOST)).all():
        raise SpecError(
            "{path}: {names}: not all from 0 to {most:g}; allowed: such numbers in every row",
            path,
            ", ".join(counted),
            MOST,
        )
    for line, text in enumerate(table.get("chunks", ()), start=2):
        if isinstance(text, str) and not _pairs(text):
            raise SpecError("{path}:{line}: chunks: not pairs; allowed: [[new tokens, tokens before], ...]", path, line)
    if "worker" in table and table["worker"].isna().any():
        raise SpecError(
            "{path}:{line}: worker: no name; allowed: a name in every row, or no such column",
            path,
            int(table["worker"].isna().to_numpy().argmax()) + 2,
        )
    count = len(table)
    defaults = {"worker": ["engine"] * count, "start_s": [1e4 * row for row in range(count)], "count": [1] * count}
    steps = frame(
        "steps",
        {name: table[name] if name in table else defaults.get(name, [0] * count) for name in STEP_COLUMNS},
    )
    extra = [name for name in ("prefill_pairs", "chunks") if name in table]
    return _run(path, {"steps": steps.assign(**{name: table[name] for name in extra})})


def _pairs(text: str) -> bool:
    """Whether a text is the JSON of pairs of numbers."""
    try:
        return all(
            isinstance(number, int | float) and abs(number) <= MOST
            for new, had in json.loads(text)
            for number in (new, had)
        )
    except (ValueError, TypeError, RecursionError):
        return False
