"""`suggest --verify K`: the best candidates served for real, as far as the GPUs that are here allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.backends import Backend, backend
from planner.engine.catalogue import hardware, words
from planner.messages import joined, message
from planner.report.words import number
from planner.run.facts import ROLES
from planner.run.metrics import summarise
from planner.run.tables import Progress, Run
from planner.spec import Spec
from planner.suggestion.answer import Check, Row, Suggestion, best_of
from planner.suggestion.search import system_of
from planner.suggestion.splits import Split, apply
from planner.suggestion.spread import cores
from planner.suggestion.tasks import prepared
from planner.traffic import workload
from planner.validation.parity import compare

LOAD = 0.9  # of the rate that was found, so that a check does not sit on the edge
REQUESTS = 300


@dataclass(frozen=True, slots=True)
class Here:
    """What vLLM can use on this machine: GPUs, or, with its CPU build, cores (one a worker)."""

    kind: str  # gpu or cpu
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What is run of a candidate: all of it, or as many workers as fit, at their share of the rate."""

    split: Split
    rate: float
    whole: bool
    tested: tuple[str, ...]
    untested: tuple[str, ...]


def this_machine() -> Here:
    """Raises ImportError where there is no vLLM."""
    from live.launch import detect
    from live.needs import need

    need(servers=True)
    runtime = detect()
    if runtime.kind == "cpu":
        return Here("cpu", ("core",) * cores())
    return Here("gpu", tuple(gpu.name for gpu in runtime.gpus))


def largest_part(split: Split, rate: float, gpus: int) -> Part | None:
    """The largest part of a candidate that `gpus` hold, each worker at most at the rate that it has in the whole.

    None when not one worker of each kind fits.
    """
    if split.gpus <= gpus:
        return Part(split, LOAD * rate, True, (message("{split} whole", split.name),), ())
    first, second = split.first, split.second
    if second is None:
        count = min(gpus // first.engine_gpus, first.replicas)
        if count == 0:
            return None
        part = replace(split, first=replace(first, replicas=count))
        left = () if count > 1 else (message("routing between engines"),)
        share = LOAD * rate * count / first.replicas
        return Part(
            part, share, False, (message("{count} of {all} engines at their rate", count, first.replicas),), left
        )
    sizes = [
        (prefill, decode)
        for prefill in range(1, first.replicas + 1)
        for decode in range(1, second.replicas + 1)
        if prefill * first.engine_gpus + decode * second.engine_gpus <= gpus
    ]
    if not sizes:
        return None

    def part_of(size: tuple[int, int]) -> float:
        return min(size[0] / first.replicas, size[1] / second.replicas)

    prefill, decode = max(sizes, key=lambda size: (part_of(size), -sum(size)))
    fraction = part_of((prefill, decode))
    shares = {"prefill": fraction * first.replicas / prefill, "decode": fraction * second.replicas / decode}
    tested = tuple(
        message("the {role} worker at its full load", ROLES[role]) for role, value in shares.items() if value > 0.999
    )
    untested = tuple(
        message("the {role} worker beyond {share:.0%} of its load", ROLES[role], value)
        for role, value in shares.items()
        if value <= 0.999
    )
    more = (message("many transfers sharing the links"), message("routing between workers"))
    part = replace(split, first=replace(first, replicas=prefill), second=replace(second, replicas=decode))
    return Part(
        part,
        LOAD * rate * fraction,
        False,
        (*tested, message("the KV transfer between two engines")),
        (*untested, *more),
    )


def checked(
    suggestion: Suggestion,
    spec: Spec,
    count: int,
    progress: Progress | None = None,
    *,
    machine: Callable[[], Here] = this_machine,
    live: Callable[[], Backend] = lambda: backend("live"),
) -> Suggestion:
    """The suggestion with its check. `machine` and `live` say what is here and how it is run."""
    there = machine()
    reason = refusal(spec, there)
    if reason is not None:
        return _with(suggestion, Check("not checked", reason))
    rows = {row.name: row for row in suggestion.rows[:count]}
    for mode in ("aggregated", "disaggregated"):
        best = best_of(suggestion.rows, mode)
        if best is not None:
            rows.setdefault(best.name, best)
    return _with(suggestion, _check(suggestion, spec, list(rows.values()), there, live(), progress))


def refusal(spec: Spec, there: Here) -> str | None:
    """Why nothing that runs here would be a check: another kind of machine."""
    wanted = hardware(spec.hardware)
    if there.kind != wanted.kind:
        return message(
            "Not checked: the suggestion is for {wanted} and vLLM's {kind} build runs here.",
            wanted.title,
            there.kind.upper(),
        )
    model = wanted.name.split("-")[0].lower()
    if wanted.kind == "gpu" and not all(model in words(name) for name in there.names):
        return message(
            "Not checked: the suggestion is for {wanted}, here is {names}.",
            wanted.title,
            ", ".join(dict.fromkeys(there.names)),
        )
    return None


def _check(
    suggestion: Suggestion, spec: Spec, rows: list[Row], there: Here, live: Backend, progress: Progress | None
) -> Check:
    wanted = prepared(spec, suggestion.gpus, REQUESTS, suggestion.slo)
    tested: list[str] = []
    untested: list[str] = []
    errors: dict[str, dict[str, float]] = {}
    failed: list[str] = []
    whole = True
    for row in rows:
        part = largest_part(row.split, row.rate, len(there.names))
        if part is None:
            untested.append(message("{name}: {gpus} GPUs needed", row.name, row.gpus))
            whole = False
            continue
        whole = whole and part.whole
        one = workload.at_rate(apply(wanted, part.split), part.rate)
        measured = live.run(system_of(one), workload.build(one), progress)
        errors[row.name] = _errors(one, measured)
        if not summarise(measured).meets_targets:
            failed.append(message("{name} at {rate} req/s", part.split.name, number(part.rate)))
        tested += [message("{name}: {what}", row.name, text) for text in part.tested]
        untested += [message("{name}: {what}", row.name, text) for text in part.untested]
    if not errors:
        why = message("Not checked: no candidate fits the {machine} here.", _count(there))
        return Check("not checked", why, (), tuple(untested))
    kind = "checked" if whole else "partly checked"
    missed = message("missed the targets: {which}", joined(", ", failed)) if failed else message("all met the targets")
    how = message("Checked") if whole else message("Partly checked")
    text = message("{how} on {machine} at {load:.0%} of the rates: {outcome}.", how, _count(there), LOAD, missed)
    return Check(kind, text, tuple(tested), tuple(untested), errors)


def _count(there: Here) -> str:
    count = len(there.names)
    if there.kind == "gpu":
        return message("1 GPU") if count == 1 else message("{n} GPUs", count)
    return message("1 core") if count == 1 else message("{n} cores", count)


def _errors(spec: Spec, measured: Run) -> dict[str, float]:
    """Predicted / measured - 1 of the medians and tails, over the same requests."""
    predicted = backend("simulate").run(system_of(spec), workload.build(spec))
    found = compare(predicted, measured)
    wanted = {("ttft", "p50"), ("ttft", "p99"), ("tpot", "p50"), ("tpot", "p99")}
    return {f"{one.metric}_{one.statistic}": one.error for one in found.errors if (one.metric, one.statistic) in wanted}


def _with(suggestion: Suggestion, check: Check) -> Suggestion:
    text = suggestion.sentence
    if check.kind != "not checked" and text.endswith("]"):
        text = f"{text[:-1]}; {check.kind}]"
    return replace(suggestion, sentence=text, check=check)
