"""A suggestion in words: the one sentence, and what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence

from planner.engine.profiles import origin
from planner.report.explain import Explanation
from planner.report.words import gigabytes, number, percent
from planner.spec import Slo
from planner.suggestion.answer import Point, Row, Suggestion, Verdict, best_of, rank
from planner.suggestion.splits import Workers
from planner.suggestion.verdict import margin_text
from planner.system.resolve import System

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def pick(rows: Sequence[Row], verdict: Verdict | None) -> Row:
    """The deployment to run: P/D where it is worth it, else aggregated, which is simpler."""
    if verdict is None:
        return rows[0]
    mode = "disaggregated" if verdict.word == "worth it" else "aggregated"
    found = best_of(rows, mode)
    assert found is not None
    return found


def sentence(rows: Sequence[Row], verdict: Verdict | None, gpus: int) -> str:
    """2P6D serves 31.2 req/s within the targets, 12 % (9 to 15 %) more than eight aggregated engines: worth it."""
    ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
    if ours is None and theirs is None:
        return f"No use of {gpus} GPUs meets the targets at any rate."
    if verdict is None or ours is None or theirs is None:
        only = ours or theirs
        assert only is not None
        there = {row.mode for row in rows}
        if len(there) == 1:
            return f"{gpus} GPUs can only run aggregated: {_serves(only)}."
        other = "aggregated deployment" if ours else "split into prefill and decode"
        return f"{_serves(only)}; no {other} meets them at any rate."
    text = f"serves {number(ours.rate)} req/s within the targets, {verdict.advantage.text()} {engines(theirs)}"
    lead = ours.name if rank(ours) < rank(theirs) else f"The best split, {ours.name},"
    if verdict.word == "not known yet":
        return (
            f"{lead} {text}, if {verdict.unmeasured} cost what is assumed: not known yet, measure it with planner"
            " calibrate."
        )
    return f"{lead} {text}: {verdict.word}."


def to_run(suggestion: Suggestion) -> str | None:
    """To run: 6 prefill workers and 2 decode workers of 1 GPU each; up to 91 req/s with 99 % of the requests ..."""
    row = pick(suggestion.rows, suggestion.verdict)
    if not row.rate > 0:
        return None
    verdict, within = suggestion.verdict, limits(suggestion.slo)
    simpler = (
        " (the simpler of the two)"
        if verdict is not None and verdict.word in ("too close to call", "not known yet")
        else ""
    )
    text = f"To run{simpler}: {_workers(row)}. Up to {_rate(row)}"
    if within:
        text += f", {percent(suggestion.slo.attainment)} of the requests have {within}"
    alike = f" Within the noise of it: {', '.join(suggestion.as_good)}." if suggestion.as_good else ""
    split = best_of(suggestion.rows, "disaggregated")
    if split is None or split == row:
        return f"{text}.{alike}"
    return f"{text}.{alike} The best split: {_workers(split)}, up to {_rate(split)}."


def _rate(row: Row) -> str:
    """84.4 req/s (82.9 to 85.8)"""
    interval = f" ({number(row.low)} to {number(row.high)})" if row.low < row.high else ""
    return f"{number(row.rate)} req/s{interval}"


def limits(slo: Slo) -> str:
    """TTFT <= 500 ms and TPOT <= 30 ms; empty without targets."""
    named = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("E2E", slo.e2e_ms))
    return " and ".join(f"{name} <= {limit:g} ms" for name, limit in named if limit is not None)


def _workers(row: Row) -> str:
    """6 prefill workers and 2 decode workers of 1 GPU each (6P2D) with max_num_batched_tokens 2048."""
    tuned = row.split.tuning.text
    return f"{_engines(row)} ({row.name}){f' with {tuned}' if tuned else ''}"


def _engines(row: Row) -> str:
    first, second = row.split.first, row.split.second
    if second is None:
        return f"{_some(first.replicas, 'aggregated engine')}{_size(first)}"
    prefill, decode = _some(first.replicas, "prefill worker"), _some(second.replicas, "decode worker")
    if first.tp == second.tp:
        return f"{prefill} and {decode} of {_gpus(first.tp)} each"
    return f"{prefill}{_size(first)} and {decode}{_size(second)}"


def _some(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}"


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' if count > 1 else ''}"


def _size(workers: Workers) -> str:
    return f" of {_gpus(workers.tp)}{' each' if workers.replicas > 1 else ''}"


def method(suggestion: Suggestion) -> str:
    """How long was simulated, and what the intervals hold."""
    lists = f"{suggestion.seeds} list{'s' if suggestion.seeds > 1 else ''} of requests"
    if suggestion.seconds is None or suggestion.warmup_s is None:
        return f"Each candidate serves the whole workload at every rate; intervals (95 %) are over {lists}."
    best = max(row.rate for row in suggestion.rows)
    return (
        f"Each candidate is sent {number(suggestion.seconds)} s of traffic at every rate"
        f" ({number(best * suggestion.seconds)} requests at {number(best)} req/s), the first"
        f" {number(suggestion.warmup_s)} s not judged. Intervals (95 %) hold what {lists}, the length of the runs and"
        " the steps of the search leave open."
    )


def _serves(row: Row) -> str:
    verb = "serve" if row.split.second is None and row.split.first.replicas > 1 else "serves"
    return f"{engines(row)} {verb} {number(row.rate)} req/s within the targets"


def engines(row: Row) -> str:
    """eight aggregated engines; a P/D row is its name."""
    if row.split.second is not None:
        return row.name
    count = row.split.first.replicas
    word = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    tp = "" if row.split.first.tp == 1 else f" of TP {row.split.first.tp}"
    swept = f" with {row.split.router}" if row.split.router else ""
    return f"{word} aggregated engine{'s' if count > 1 else ''}{tp}{swept}"


def provenance(systems: Sequence[System]) -> str:
    """Where the step times are from, in brackets."""
    return f"[{origin([pool.profile for system in systems for pool in system.pools])}]"


def limit(found: Explanation) -> str:
    """The first sentence of an explanation."""
    return found.sentences[0]


def explanation(verdict: Verdict) -> list[str]:
    """Why, and what would change it, a sentence each, as far as it was asked."""
    lines = [*verdict.why]
    link = verdict.enough_link
    if link is not None:
        lines.append(
            f"A link of {gigabytes(link.bytes_s)} instead of {gigabytes(link.now_bytes_s)} would be enough for"
            f" {number(link.rate)} req/s."
        )
    equal = verdict.at_equal_rate
    if equal is not None:
        lines.append(
            f"Both at {number(equal.rate)} req/s: {percent(equal.disaggregated)} (P/D) and {percent(equal.aggregated)}"
            " (aggregated) of the requests are within the targets."
        )
    if verdict.change:
        lines.append(verdict.change)
    return [*lines, margin_text(verdict.margin, verdict.error)]


def pareto(rows: Sequence[Row], gpus: int) -> tuple[Point, ...]:
    """Passing probes that no other beats in both speed for a user and output of a GPU, fastest for users first."""
    points = [
        Point(row.name, probe.rate, probe.tokens_s_user, probe.output_tokens_s / gpus)
        for row in rows
        for found in row.searches[:1]
        for probe in found.probes
        if probe.passed
    ]
    points.sort(key=lambda point: (-point.tokens_s_user, -point.output_tokens_s_gpu, point.name))
    front: list[Point] = []
    for point in points:
        if not front or point.output_tokens_s_gpu > front[-1].output_tokens_s_gpu:
            front.append(point)
    return tuple(front)


def smallest_sentence(suggestion: Suggestion) -> str | None:
    """The answer to --rate."""
    found = suggestion.smallest
    if found is None:
        return None
    if found.gpus is None:
        return f"Up to {found.limit} GPUs do not serve {number(found.rate)} req/s within the targets."
    parts = [
        f"{count} {word}" if count is not None else f"more than {found.limit} {word}"
        for count, word in ((found.aggregated_gpus, "aggregated"), (found.disaggregated_gpus, "split"))
    ]
    return f"{found.gpus} GPUs are the fewest that serve {number(found.rate)} req/s: {found.name} ({', '.join(parts)})."


def check_sentences(suggestion: Suggestion) -> list[str]:
    """What was run for real, how far off the prediction was, and what that did not test."""
    check = suggestion.check
    if check is None:
        return []
    lines = [check.sentence]
    for name, errors in check.errors.items():
        parts = [f"{metric.replace('_', ' ').upper()} {100 * error:+z.1f} %" for metric, error in errors.items()]
        lines.append(f"{name}, predicted against measured: {', '.join(parts)}.")
    if check.tested:
        lines.append(f"Tested: {'; '.join(check.tested)}.")
    if check.untested:
        lines.append(f"Not tested: {'; '.join(check.untested)}.")
    return lines
