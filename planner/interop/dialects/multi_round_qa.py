"""production-stack's multi-round-qa: its CSV columns, and its performance summary line for line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from planner.interop.dialects.shared import workload
from planner.run.facts import Facts
from planner.spec import SpecError


def csv_rows(facts: Facts) -> pd.DataFrame:
    """The tool's CSV: one row a finished request. question_id counts the requests that a user really sent."""
    requests = facts.run.requests.iloc[facts.rows][facts.ok]
    users = requests["session_id"].to_numpy(np.int64)
    return pd.DataFrame(
        {
            "prompt_tokens": requests["prompt_tokens"].to_numpy(np.int64),
            "generation_tokens": requests["output_tokens"].to_numpy(np.int64),
            "ttft": facts.ttft[facts.ok],
            "generation_time": (facts.finish - facts.first_token)[facts.ok],
            "user_id": users,
            "question_id": pd.Series(users).groupby(users).cumcount().to_numpy(np.int64) + 1,
            "launch_time": facts.arrival[facts.ok],
            "finish_time": facts.finish[facts.ok],
        }
    )


@dataclass(frozen=True, slots=True)
class QaSummary:
    """The figures of the tool's performance summary. `qps` is the configured rate, never a measurement."""

    qps: float
    processing_speed: float
    pending: int
    input_tokens_s: float
    output_tokens_s: float
    generation_speed: float  # mean over requests of tokens / generation time
    ttft_s: float
    start_s: float
    end_s: float


def csv_figures(rows: pd.DataFrame, qps: float = 0.0) -> QaSummary:
    """The figures from the tool's CSV columns: from the first launch to the last finish, as it recomputes them."""
    start, end = float(rows["launch_time"].min()), float(rows["finish_time"].max())
    seconds = end - start
    with np.errstate(divide="ignore"):
        speed = rows["generation_tokens"].to_numpy(np.float64) / rows["generation_time"].to_numpy(np.float64)
    return QaSummary(
        qps=qps,
        processing_speed=len(rows) / seconds,
        pending=0,
        input_tokens_s=float(rows["prompt_tokens"].sum()) / seconds,
        output_tokens_s=float(rows["generation_tokens"].sum()) / seconds,
        generation_speed=float(speed.mean()),
        ttft_s=float(rows["ttft"].mean()),
        start_s=start,
        end_s=end,
    )


def summary_of_csv(path: Path) -> str:
    """The summary of a CSV that the tool wrote (its --process-summary). Raises SpecError for another file."""
    try:
        rows = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        fault = " ".join(str(error).split())
        raise SpecError("{path}: not a CSV ({fault}); allowed: a CSV of multi-round-qa", path, fault) from None
    wanted = ["prompt_tokens", "generation_tokens", "ttft", "generation_time", "launch_time", "finish_time"]
    missing = [column for column in wanted if column not in rows]
    if missing:
        raise SpecError(
            "{path}: column {missing} is missing; allowed: a CSV of multi-round-qa ({wanted})",
            path,
            missing[0],
            ", ".join(wanted),
        )
    if rows.empty:
        raise SpecError("{path}: holds no requests; allowed: at least one row", path)
    rows = rows.reset_index()[wanted].apply(pd.to_numeric, errors="coerce")
    wrong = ~np.isfinite(rows.to_numpy(np.float64))
    if wrong.any():
        line, column = (int(index) for index in np.argwhere(wrong)[0])
        raise SpecError("{path}:{line}: {column}: no number; allowed: a number", path, line + 2, wanted[column])
    if not rows["finish_time"].max() > rows["launch_time"].min():
        raise SpecError("{path}: it takes no time; allowed: requests that finish after the first was launched", path)
    return _text(csv_figures(rows), colour=False)


def _summary(facts: Facts) -> QaSummary:
    if not facts.ok.any():
        raise SpecError("--table multi-round-qa: no request finished; allowed: a run with at least one")
    load = workload(facts)
    return csv_figures(csv_rows(facts), float(load.get("qps", load.get("rate", 0.0))))


def _text(found: QaSummary, colour: bool) -> str:
    """The tool's lines, blank ones included; its colours only where they can be seen."""
    yellow, green, plain = ("\033[33m", "\033[32m", "\033[0m") if colour else ("", "", "")
    figures = (
        ("QPS", f"{found.qps:.4f} reqs/s"),
        ("Processing speed", f"{found.processing_speed:.4f} reqs/s"),
        ("Requests on-the-fly", f"{found.pending}"),
        ("Input tokens per second", f"{found.input_tokens_s:.4f} tokens/s"),
        ("Output tokens per second", f"{found.output_tokens_s:.4f} tokens/s"),
        ("Average generation throughput (per request)", f"{found.generation_speed:.4f} tokens/req/s"),
        ("Average TTFT", f"{found.ttft_s:.4f}s"),
    )
    lines = ["", "", "=" * 20 + " Performance summary " + "=" * 22]
    for label, figure in figures:
        # the count of pending requests has no green of its own
        lines += [f"  {yellow}{label}: {'' if label.startswith('Requests') else green}{figure}{plain}", ""]
    lines.append(f"Time range: {found.start_s} - {found.end_s} ({found.end_s - found.start_s:.2f}s)")
    return "\n".join([*lines, "=" * 63, "", ""])


def export(facts: Facts) -> dict[str, Any]:
    """The tool has no JSON of its own: the lines of its summary by name, and its CSV rows."""
    found = _summary(facts)
    return {
        "qps": found.qps,
        "processing_speed": found.processing_speed,
        "requests_on_the_fly": found.pending,
        "input_tokens_per_second": found.input_tokens_s,
        "output_tokens_per_second": found.output_tokens_s,
        # answers of one token take no time to generate, and infinity is not JSON
        "average_generation_throughput": found.generation_speed if np.isfinite(found.generation_speed) else None,
        "average_ttft": found.ttft_s,
        "time_range": [found.start_s, found.end_s],
        "requests": csv_rows(facts).to_dict(orient="records"),
    }


def table(facts: Facts, colour: bool) -> str:
    """The performance summary; `colour` as on a terminal."""
    return _text(_summary(facts), colour)
