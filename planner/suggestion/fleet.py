"""More GPUs than one search can take in: equal groups of them, one of which is searched.

What a group serves, so many groups serve as well: each may have a router of its own. Whether pools of several groups
behind one router do so too is run: as many groups as can be in a short time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from planner.messages import Message, message
from planner.report.words import number, percent
from planner.spec import Spec, dump
from planner.suggestion import changes
from planner.suggestion.answer import EqualRate, Row, Suggestion, Verdict, best_of
from planner.suggestion.search import Found, Probe
from planner.suggestion.splits import PoolSize, Split, apply
from planner.suggestion.tasks import ProbeTask
from planner.suggestion.words import pareto, pick, sentence
from planner.traffic.workload import offered_rate

SEARCHED = 32  # GPUs that are searched as they are: twice as many take four times as long
LEAST = 16  # of a group: a split of fewer is a coarse ratio
TOGETHER = 128  # GPUs of the groups that are run together: a router looks at every worker for every request
EVEN = 8  # GPUs of the largest engines that are worth a whole number of them in a group


@dataclass(frozen=True, slots=True)
class Groups:
    """`count` groups of `gpus` each, and the GPUs that are left."""

    count: int
    gpus: int
    left: int

    @staticmethod
    def of(gpus: int, engine: int) -> Groups:
        """One where all of them can be searched. `engine`: GPUs of the smallest engine, of which a group holds two."""
        most = max(SEARCHED, 2 * engine)
        if gpus <= most:
            return Groups(1, gpus, 0)
        sizes = [size for size in range(max(LEAST, 2 * engine), most + 1) if size % engine == 0]
        # Few left over first; then groups that larger engines fill, then large ones.
        best = min(sizes, key=lambda size: (gpus % size, -min(size & -size, EVEN), -size))
        return Groups(gpus // best, best, gpus % best)


def whole(found: Suggestion, spec: Spec, gpus: int, groups: Groups, run: Callable[..., Sequence[Probe]]) -> Suggestion:
    """The answer for all the GPUs, from that for a group. `run` runs ProbeTasks."""
    rows = tuple(_row(row, gpus, groups) for row in found.rows)
    verdict = None if found.verdict is None else _verdict(found.verdict, spec, rows, groups.count)
    names = {old.name: new.name for old, new in zip(found.rows, rows, strict=True)}
    of_mode = (best_of(found.rows, mode) for mode in ("disaggregated", "aggregated"))
    best = [row for row in of_mode if row is not None and row.low > 0]
    some = min(max(TOGETHER // groups.gpus, 2), groups.count)
    together = [(apply(spec, _split(row.split, some)), some * row.low) for row in best]
    runs = run([ProbeTask(one, spec.run.seed, rate, found.period) for one, rate in together])
    return replace(
        found,
        gpus=gpus,
        groups=groups.count,
        rows=rows,
        verdict=verdict,
        sentence=message("{sentence} {provenance}", sentence(rows, verdict, gpus, spec.slo), found.provenance),
        yaml=dump(apply(spec, pick(rows, verdict).split)),
        pareto=pareto(rows, gpus),
        as_good=tuple(names[name] for name in found.as_good),
        notes=(
            _how(groups),
            *(_held(_split(row.split, some).name, one) for row, one in zip(best, runs, strict=True)),
            *(message("Of a group: {what}", note) for note in found.notes),
        ),
    )


def _how(groups: Groups) -> Message:
    text = message(
        "One group of {gpus} GPUs was searched, and its rates multiplied by the {count} groups that there are",
        groups.gpus,
        groups.count,
    )
    return message("{text}; {left} GPUs are left over.", text, groups.left) if groups.left else message("{text}.", text)


def _held(name: str, one: Probe) -> Message:
    """What a run of several groups behind one router came to, at the low end of their rate."""
    found = message(
        "Together, as {name}, {share} of the requests are within the targets at {rate} req/s",
        name,
        percent(one.attainment),
        number(one.rate),
    )
    if one.passed:
        return message("{found}: it holds.", found)
    if not one.kept_up:
        found = message("{found}, and waiting requests pile up", found)
    return message("{found}: it does not hold; run the groups behind routers of their own.", found)


def _row(row: Row, gpus: int, groups: Groups) -> Row:
    count = groups.count
    used = count * groups.gpus / gpus  # of the GPUs asked for

    def cost(of_group: float | None) -> float | None:
        return None if of_group is None else of_group / used

    split = _split(row.split, count)
    return replace(
        row,
        split=split,
        name=split.name,
        gpus=split.gpus,
        idle=gpus - split.gpus,
        guess=row.guess * count,
        rate=row.rate * count,
        low=row.low * count,
        high=row.high * count,
        per_gpu=row.per_gpu * used,
        output_tokens_s_gpu=row.output_tokens_s_gpu * used,
        cost_per_million_tokens=cost(row.cost_per_million_tokens),
        cost_per_million_output_tokens=cost(row.cost_per_million_output_tokens),
        searches=tuple(_found(one, count) for one in row.searches),
    )


def _split(split: Split, count: int) -> Split:
    def pool(workers: PoolSize) -> PoolSize:
        return replace(workers, replicas=workers.replicas * count)

    return replace(split, first=pool(split.first), second=None if split.second is None else pool(split.second))


def _found(found: Found, count: int) -> Found:
    return Found(found.rate * count, found.above * count, tuple(_probe(one, count) for one in found.probes))


def _probe(one: Probe, count: int) -> Probe:
    return replace(
        one,
        rate=one.rate * count,
        goodput=one.goodput * count,
        output_tokens_s=one.output_tokens_s * count,
        total_tokens_s=one.total_tokens_s * count,
    )


def _verdict(verdict: Verdict, spec: Spec, rows: Sequence[Row], count: int) -> Verdict:
    """With all rates multiplied; shares and reasons are those of a group."""
    ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
    assert ours is not None
    assert theirs is not None
    equal, link = verdict.at_equal_rate, verdict.enough_link
    return replace(
        verdict,
        at_equal_rate=equal and EqualRate(equal.rate * count, equal.disaggregated, equal.aggregated),
        enough_link=link and replace(link, rate=link.rate * count),
        why=tuple(_of(row, reason) for row, reason in zip((ours, theirs), verdict.why, strict=False)),
        change=changes.sentence(verdict.word, verdict.changes, offered_rate(spec), ours.rate, theirs.rate),
    )


def _of(row: Row, reason: str) -> str:
    """A reason that began with the name of a group's candidate."""
    assert isinstance(reason, Message)
    return message("{name}: {what}", row.name, reason.values["what"])
