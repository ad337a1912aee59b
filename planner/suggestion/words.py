"""A suggestion in words: the one sentence, and what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planner.engine.provenance import origin
from planner.messages import Message, joined, message
from planner.report.explain import Explanation
from planner.report.words import gigabytes, number, percent
from planner.spec import Slo
from planner.suggestion.answer import Point, Row, Suggestion, Verdict, best_of, rank
from planner.suggestion.splits import PoolSize
from planner.suggestion.verdict import margin_text
from planner.system.resolve import System


def pick(rows: Sequence[Row], verdict: Verdict | None) -> Row:
    """The deployment to run: P/D where it is worth it, else aggregated, which is simpler."""
    if verdict is None:
        return rows[0]
    mode = "disaggregated" if verdict.word == "worth it" else "aggregated"
    found = best_of(rows, mode)
    assert found is not None
    return found


ALONE = 0.3  # of an engine's requests under way on average, and of its rate in closed form: below, hardly any two meet


def alone(row: Row) -> float | None:
    """How many requests are under way on average at a row's rate, where hardly any two ever meet in an engine.

    Such a rate is none that is held: it says how seldom requests must come. None: the rate is one.
    """
    if not (row.rate > 0 and row.tokens_s_user > 0):
        return None
    engines = row.split.first.replicas + (row.split.second.replicas if row.split.second is not None else 0)
    under_way = row.output_tokens_s_gpu * (row.gpus + row.idle) / row.tokens_s_user
    return under_way if under_way < ALONE * engines and row.rate < ALONE * row.guess else None


def bound(slo: Slo) -> Message:
    """What a rate that counts is held to."""
    return message("within the targets") if slo.targets else message("without falling behind")


def sentence(rows: Sequence[Row], verdict: Verdict | None, gpus: int, slo: Slo) -> str:
    """What to run, then how the other mode compares.

    On 8 GPUs run 8 aggregated engines: up to 33 req/s within the targets; P/D with the best split, 5P3D, serves
    15 % (12 to 18 %) less: not worth it.
    """
    ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
    if ours is None and theirs is None:
        if gpus == 1:
            return message("One GPU meets the targets at no rate.")
        return message("No use of {gpus} GPUs meets the targets at any rate.", gpus)
    best = min((row for row in (ours, theirs) if row is not None), key=rank)
    under_way = alone(best)
    if under_way is not None:
        return message(
            "With {gpus} no rate is held within the targets: only requests that hardly ever meet are, {rate} req/s on "
            "{engines}, {count} under way on average.",
            _gpus(gpus),
            number(best.rate),
            engines(best),
            number(under_way),
        )
    if verdict is None or ours is None or theirs is None:
        only = ours or theirs
        assert only is not None
        there = {row.mode for row in rows}
        if len(there) == 1 and gpus == 1:
            return message("One GPU can only run aggregated: {serves}.", _serves(only, slo))
        if len(there) == 1:
            return message("{gpus} GPUs can only run aggregated: {serves}.", gpus, _serves(only, slo))
        if ours:
            return message("{run}; no aggregated deployment meets them at any rate.", _run(only, gpus, slo))
        return message("{run}; no split into prefill and decode meets them at any rate.", _run(only, gpus, slo))
    more = verdict.advantage.text()
    match verdict.word:
        case "worth it":
            return message(
                "{run}, {more} than {engines}: P/D is worth it.", _run(ours, gpus, slo), more, engines(theirs)
            )
        case "not worth it":
            return message(
                "{run}; P/D with the best split, {name}, serves {more}: not worth it.",
                _run(theirs, gpus, slo),
                ours.name,
                more,
            )
        case "too close to call":
            return message(
                "Too close to call on {gpus}, so run the simpler: {serves}; P/D with the best split, {name}, serves "
                "{more}.",
                _gpus(gpus),
                _serves(theirs, slo),
                ours.name,
                more,
            )
        case "not known yet":
            return message(
                "Not known yet on {gpus}, so run the simpler: {serves}; P/D with the best split, {name}, would serve "
                "{more} if {what} cost what is assumed: measure it with planner calibrate.",
                _gpus(gpus),
                _serves(theirs, slo),
                ours.name,
                more,
                verdict.unmeasured,
            )


def _run(row: Row, gpus: int, slo: Slo) -> Message:
    """On 8 GPUs run 8 aggregated engines: up to 33 req/s within the targets"""
    return message(
        "On {gpus} run {engines}: up to {rate} req/s {bound}", _gpus(gpus), engines(row), number(row.rate), bound(slo)
    )


def to_run(suggestion: Suggestion) -> str | None:
    """To run: 6 prefill workers and 2 decode workers of 1 GPU each; up to 91 req/s with 99 % of the requests ..."""
    row = pick(suggestion.rows, suggestion.verdict)
    if not row.rate > 0:
        return None
    verdict, within = suggestion.verdict, slo_text(suggestion.slo)
    if verdict is not None and verdict.word in ("too close to call", "not known yet"):
        text = message("To run (the simpler of the two): {workers}. Up to {rate}", _workers(row), _rate(row))
    else:
        text = message("To run: {workers}. Up to {rate}", _workers(row), _rate(row))
    if within:
        share = percent(suggestion.slo.attainment)
        text = message("{served}, {share} of the requests have {targets}", text, share, within)
    else:
        text = message(
            "{served}, the highest rate at which waiting requests do not pile up: no target is set (slo), so they may "
            "take any time",
            text,
        )
    parts = [message("{text}.", text)]
    if suggestion.as_good:
        parts.append(message("Within the noise of it: {splits}.", joined(", ", suggestion.as_good)))
    split = best_of(suggestion.rows, "disaggregated")
    if split is not None and split != row:
        parts.append(message("The best split: {workers}, up to {rate}.", _workers(split), _rate(split)))
    return joined(" ", parts)


def _rate(row: Row) -> str:
    """84.4 req/s (82.9 to 85.8)"""
    if row.low < row.high:
        return message("{rate} req/s ({low} to {high})", number(row.rate), number(row.low), number(row.high))
    return message("{rate} req/s", number(row.rate))


def slo_text(slo: Slo) -> str:
    """TTFT <= 500 ms and TPOT <= 30 ms; empty without targets."""
    return joined(" and ", [message("{metric} <= {limit:g} ms", name, limit) for name, limit in slo.targets.items()])


def _workers(row: Row) -> Message:
    """6 prefill workers and 2 decode workers of 1 GPU each (6P2D) with max_num_batched_tokens 2048."""
    text, tuned = message("{workers} ({name})", _engines(row), row.name), row.split.tuning.text
    return message("{workers} with {options}", text, tuned) if tuned else text


def _engines(row: Row) -> Message:
    first, second = row.split.first, row.split.second
    if second is None:
        workers = _aggregated(first.replicas)
        return message("{workers}{size}", workers, _size(first))
    prefill = message("1 prefill worker") if first.replicas == 1 else message("{n} prefill workers", first.replicas)
    decode = message("1 decode worker") if second.replicas == 1 else message("{n} decode workers", second.replicas)
    if (first.tp, first.dp) == (second.tp, second.dp):
        return message("{prefill} and {decode} of {gpus} each", prefill, decode, _gpus(first.engine_gpus))
    return message("{prefill}{size} and {decode}{other}", prefill, _size(first), decode, _size(second))


def _aggregated(count: int) -> Message:
    return message("1 aggregated engine") if count == 1 else message("{n} aggregated engines", count)


def _gpus(count: int) -> Message:
    return message("1 GPU") if count == 1 else message("{n} GPUs", count)


def _size(workers: PoolSize) -> Message:
    if workers.replicas > 1:
        return message(" of {gpus} each", _gpus(workers.engine_gpus))
    return message(" of {gpus}", _gpus(workers.engine_gpus))


def method(suggestion: Suggestion) -> str:
    """How long was simulated, and what the intervals hold."""
    used, asked = suggestion.seeds, suggestion.seeds_asked
    if used < asked:
        lists = message("{n} lists of requests ({more} others could hardly change the verdict)", used, asked - used)
    else:
        lists = message("{n} lists of requests", used) if used > 1 else message("1 list of requests")
    period = suggestion.period
    if period is None:
        return message(
            "Each candidate serves the whole workload at every rate; intervals (95 %) are over {lists}.", lists
        )
    best = max(row.rate for row in suggestion.rows) / suggestion.groups
    return message(
        "Each candidate is sent {time} s of traffic at every rate ({count} requests at {rate} req/s), the first "
        "{warmup} s not judged. Intervals (95 %) hold what {lists}, the length of the runs and the steps of the search "
        "leave open.",
        number(period.seconds),
        number(best * period.seconds),
        number(best),
        number(period.warmup_s),
        lists,
    )


def _serves(row: Row, slo: Slo) -> Message:
    if row.split.second is None and row.split.first.replicas > 1:
        return message("{engines} serve {rate} req/s {bound}", engines(row), number(row.rate), bound(slo))
    return message("{engines} serves {rate} req/s {bound}", engines(row), number(row.rate), bound(slo))


def engines(row: Row) -> str:
    """8 aggregated engines; a P/D row is its name."""
    if row.split.second is not None:
        return row.name
    count, tp, router = row.split.first.replicas, row.split.first.tp, row.split.router
    text = _aggregated(count)
    if row.split.first.dp > 1:
        text = message("{engines} of {size}", text, row.split.first.size)
    elif tp > 1:
        text = message("{engines} of TP {tp}", text, tp)
    return message("{engines} with {router}", text, router) if router else text


def steps_origin(systems: Sequence[System]) -> str:
    """Where the step times are from, in brackets."""
    return message("[{origin}]", origin([pool.profile for system in systems for pool in system.pools]))


def limit(found: Explanation) -> str:
    """The first sentence of an explanation. Where nothing is short, single requests end the rate: which target."""
    if found.kind == "none":
        return message("No station is short, single requests are late. {closest}", found.sentences[1])
    return found.sentences[0]


def explanation(verdict: Verdict) -> list[str]:
    """Why, and what would change it, a sentence each, as far as it was asked."""
    lines = [*verdict.why]
    link = verdict.enough_link
    if link is not None:
        lines.append(
            message(
                "A link of {enough} instead of {now} would be enough for {rate} req/s.",
                gigabytes(link.bytes_s),
                gigabytes(link.now_bytes_s),
                number(link.rate),
            )
        )
    equal = verdict.at_equal_rate
    if equal is not None:
        lines.append(
            message(
                "Both at {rate} req/s: {split} (P/D) and {together} (aggregated) of the requests are within the "
                "targets.",
                number(equal.rate),
                percent(equal.disaggregated),
                percent(equal.aggregated),
            )
        )
    if verdict.change:
        lines.append(verdict.change)
    return [*lines, margin_text(verdict.margin, verdict.error)]


def pareto(rows: Sequence[Row], gpus: int) -> tuple[Point, ...]:
    """What no other beats in both speed for a user and output of a GPU, fastest for users first.

    Of each candidate its highest rate as its row has it, and the probes that pass below: what passed above did so in
    short runs, or with one list of requests.
    """
    points = [Point(row.name, row.rate, row.tokens_s_user, row.output_tokens_s_gpu) for row in rows if row.rate > 0] + [
        Point(row.name, probe.rate, probe.tokens_s_user, probe.output_tokens_s / gpus)
        for row in rows
        for found in row.searches[:1]
        for probe in found.probes
        if probe.passed and probe.rate < row.rate
    ]
    points.sort(key=lambda point: (-point.tokens_s_user, -point.output_tokens_s_gpu, point.name))
    front: list[Point] = []
    for point in points:
        if not front or point.output_tokens_s_gpu > front[-1].output_tokens_s_gpu:
            front.append(point)
    return tuple(front)


def never(rate: float, slo: Slo) -> str:
    """What to say of a rate that no number of GPUs serves."""
    return message(
        "No number of these GPUs serves {rate} req/s {bound}: engines miss them even nearly idle.",
        number(rate),
        bound(slo),
    )


def smallest_sentence(suggestion: Suggestion) -> str | None:
    """The answer to --rate."""
    found = suggestion.smallest
    if found is None:
        return None
    if not found.possible:
        return never(found.rate, suggestion.slo)
    if found.gpus is None:
        best, rate = pick(suggestion.rows, suggestion.verdict), number(found.rate)
        within = bound(suggestion.slo)
        if not best.rate > 0 or alone(best) is not None:
            return message("Up to {most} GPUs do not serve {rate} req/s {bound}.", found.limit, rate, within)
        each = best.rate / suggestion.gpus
        return message(
            "Up to {most} GPUs do not serve {rate} req/s {bound}; at the {each} req/s a GPU found above it "
            "would take about {count}.",
            found.limit,
            rate,
            within,
            number(each),
            f"{math.ceil(found.rate / each):,}",
        )
    needs = [
        message("{count} {how}", count, how)
        if count is not None
        else message("more than {most} {how}", found.limit, how)
        for count, how in (
            (found.aggregated_gpus, message("aggregated")),
            (found.disaggregated_gpus, message("split")),
        )
    ]
    best, rate, split = pick(suggestion.rows, suggestion.verdict), number(found.rate), joined(", ", needs)
    if found.gpus == suggestion.gpus and found.rate > best.rate:  # the two searches differ by less than they can tell
        if found.gpus == 1:
            enough = message("1 GPU may be enough for {rate} req/s", rate)
        else:
            enough = message("{gpus} GPUs are the fewest that may serve {rate} req/s", found.gpus, rate)
        return message(
            "{enough}: {name} ({needs}); this is the edge, the highest rate found above is {highest}.",
            enough,
            found.name,
            split,
            _rate(best),
        )
    if found.gpus == 1:
        enough = message("1 GPU is enough for {rate} req/s", rate)
    else:
        enough = message("{gpus} GPUs are the fewest that serve {rate} req/s", found.gpus, rate)
    return message("{enough}: {name} ({needs}).", enough, found.name, split)


def check_sentences(suggestion: Suggestion) -> list[str]:
    """What was run for real, how far off the prediction was, and what that did not test."""
    check = suggestion.check
    if check is None:
        return []
    lines = [check.sentence]
    for name, errors in check.errors.items():
        parts = [
            message("{metric} {error:+z.1f} %", metric.replace("_", " ").upper(), 100 * error)
            for metric, error in errors.items()
        ]
        lines.append(message("{name}, predicted against measured: {errors}.", name, joined(", ", parts)))
    if check.tested:
        lines.append(message("Tested: {what}.", joined("; ", check.tested)))
    if check.untested:
        lines.append(message("Not tested: {what}.", joined("; ", check.untested)))
    return lines
