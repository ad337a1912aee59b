"""What would change the verdict: prompt length, output length, targets and link, each 20 % more and less."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from planner.messages import Message, message
from planner.report.words import percent
from planner.spec import Empirical, Fixed, Lognormal, Slo, Spec, Uniform
from planner.suggestion.answer import Change, EnoughLink
from planner.suggestion.probe import Period
from planner.suggestion.search import Found, Probe, Runs, first_guess, highest_rate, paced, probe, probes, system_of
from planner.suggestion.splits import Split, apply
from planner.suggestion.tuning import BLOCK_SIZES, CONNECTORS
from planner.suggestion.verdict import WORDS, Advantage, Word, decide
from planner.system.resolve import System, Wire

STEP = 0.2
AT_ONCE = 3  # searches that go on at least, while it is not known which change is told
TOLERANCE = 0.015  # width of the brackets of what changes are held against, and of the change that is named
NEAR = 1.02  # from a rate that all seeds have found to the second one
FARTHEST = 1.5  # that the closed form may move the first rate
UNSURE = 1.2  # from the first rate to the second with other hand-overs, about which the closed form knows little
ROUGH = 0.06  # and of those that do where both of their ends come to the same verdict


def lengthened(length: object, factor: float) -> object:
    """A length or distribution of lengths times `factor`; whole numbers stay whole and at least 1."""
    match length:
        case int():
            return max(1, round(length * factor))
        case Fixed(value=value):
            return Fixed(value=value * factor)
        case Uniform(low=low, high=high):
            return Uniform(low=low * factor, high=high * factor)
        case Lognormal():
            most = None if length.max is None else length.max * factor
            return length.model_copy(update={"mean": length.mean * factor, "min": length.min * factor, "max": most})
        case Empirical():
            return length.model_copy(update={"values": tuple(value * factor for value in length.values)})
        case _:
            raise TypeError(f"{length!r} is not a length")


def _lengths(spec: Spec, names: Sequence[str], factor: float) -> Spec | None:
    """None: the workload has no such length (a trace)."""
    workload = spec.workload
    update = {name: lengthened(getattr(workload, name), factor) for name in names if hasattr(workload, name)}
    change: dict[str, object] = {"workload": workload.model_copy(update=update)}
    if "question_tokens" in update and spec.retrieval is not None:
        chunk = max(1, round(spec.retrieval.chunk_tokens * factor))
        change["retrieval"] = spec.retrieval.model_copy(update={"chunk_tokens": chunk})
    return spec.model_copy(update=change) if update else None


def _target(spec: Spec, name: str, factor: float) -> Spec | None:
    limit: float | None = getattr(spec.slo, name)
    if limit is None:
        return None
    return spec.model_copy(update={"slo": spec.slo.model_copy(update={name: limit * factor})})


PROMPTS = ("prompt_tokens", "question_tokens", "shared_system_prompt", "user_history_prompt")
OUTPUTS = ("output_tokens", "answer_len")
# In the order in which they are asked; the first that flips the verdict is named.
SPEC_CHANGES: dict[str, Callable[[Spec, float], Spec | None]] = {
    "prompts": lambda spec, factor: _lengths(spec, PROMPTS, factor),
    "link bandwidth": lambda spec, factor: spec,
    "TTFT target": lambda spec, factor: _target(spec, "ttft_ms", factor),
    "TPOT target": lambda spec, factor: _target(spec, "tpot_ms", factor),
    "outputs": lambda spec, factor: _lengths(spec, OUTPUTS, factor),
}

NAMES: dict[str, str] = {
    "prompts": message("prompts"),
    "link bandwidth": message("link bandwidth"),
    "TTFT target": message("{metric} target", "TTFT"),
    "TPOT target": message("{metric} target", "TPOT"),
    "outputs": message("outputs"),
}


@dataclass(frozen=True, slots=True)
class ChangeTask:
    spec: Spec  # changed already
    split: Split
    seed: int
    start: float
    link_factor: float
    period: Period | None = None
    step: float = 1.08  # from the start to the second rate
    enough: float = TOLERANCE  # width of the bracket that it may end with
    guess: float = 0.0  # closed form without the change, which then says how far to begin from the start; 0: there
    far: float = 1 + 0.99 * ROUGH  # and how far from that the second rate is: two runs may do
    known: tuple[Probe, ...] = ()  # runs that were made before, which this search goes on from
    judges: tuple[Slo, ...] = ()  # other targets that its runs are also judged by


@dataclass(frozen=True, slots=True)
class Held:
    """A search without a change. `others`: its runs as other targets judge them, for each of the task's `judges`."""

    found: Found
    others: tuple[tuple[Probe, ...], ...]


def faster_links(system: System, factor: float) -> System:
    """Every wire and uplink times `factor`."""
    if system.wires is None:
        return system

    def wire(one: Wire) -> Wire:
        return replace(one, bandwidth=one.bandwidth * factor)

    old = system.wires
    nic = {node: speed * factor for node, speed in old.nic.items()}
    new = replace(
        old, intra_node=wire(old.intra_node), inter_node=wire(old.inter_node), inter_rack=wire(old.inter_rack), nic=nic
    )
    return replace(system, wires=new)


def search_change(task: ChangeTask) -> Found:
    """The highest rate of one candidate under one change."""
    system = faster_links(system_of(apply(task.spec, task.split)), task.link_factor)
    start, step = task.start, task.step
    if task.guess:
        factor = first_guess(system, task.seed) / task.guess
        if abs(factor - 1) > TOLERANCE:
            start, step = start * min(max(factor, 1 / FARTHEST), FARTHEST), task.far

    run, known = Runs(system, task.seed, task.period), list(task.known)
    low = max((one.rate for one in known if one.passed), default=0.0)
    high = min((one.rate for one in known if not one.passed), default=math.inf)
    if known and low * (1 + task.enough) < start < high / (1 + task.enough):
        known.append(run(start))
    return highest_rate(
        run,
        start,
        tolerance=TOLERANCE,
        step=step,
        missing=1 - system.spec.slo.attainment,
        known=known,
        enough=task.enough,
    )


def search_unchanged(task: ChangeTask) -> Held:
    """The highest rate of one candidate without a change."""
    system = system_of(apply(task.spec, task.split))
    seen: list[list[Probe]] = []

    def run(rate: float) -> Probe:
        period = paced(task.period, seen[-1][0] if seen else None)
        seen.append(probes(system, rate, task.seed, (system.spec.slo, *task.judges), period=period))
        return seen[-1][0]

    missing = 1 - system.spec.slo.attainment
    found = highest_rate(run, task.start, tolerance=TOLERANCE, step=task.step, missing=missing)
    return Held(found, tuple(zip(*(of_run[1:] for of_run in seen), strict=True)))


ENDLESS = 1e4  # times the wire's bandwidth
ENOUGH = 0.97  # of the rate with endless wires


def enough_link(task: ChangeTask) -> EnoughLink | None:
    """How fast the wires would have to be; None when faster ones do not help by 3 %."""
    base = system_of(apply(task.spec, task.split))
    assert base.wires is not None

    def serves(factor: float, rate: float) -> bool:
        return probe(faster_links(base, factor), rate, task.seed, period=task.period).passed

    endless = faster_links(base, ENDLESS)
    found = highest_rate(
        lambda rate: probe(endless, rate, task.seed, period=task.period),
        task.start,
        tolerance=TOLERANCE,
        missing=1 - base.spec.slo.attainment,
    )
    rate = ENOUGH * found.rate
    if rate <= task.start:
        return None
    if not serves(ENDLESS, rate):  # one short list may pass at a rate and fail below it
        rate = found.rate
    low, high = 1.0, ENDLESS
    while high / low > 1.05:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if serves(middle, rate) else (middle, high)
    now = base.wires.intra_node.bandwidth
    return EnoughLink(high * now, now, rate)


def unchanged(spec: Spec, seed: int, pair: Sequence[tuple[Split, float, Period | None]]) -> list[ChangeTask]:
    """Two searches in which nothing changes, which all others are held against. The pair has rates and periods."""
    judges = tuple(changed.slo for _, _, changed in _changed(spec) if changed.slo != spec.slo)
    return [ChangeTask(spec, split, seed, rate, 1.0, period, NEAR, judges=judges) for split, rate, period in pair]


def _changed(spec: Spec) -> Iterator[tuple[str, float, Spec]]:
    """(what changes, times what, the spec with it)."""
    for name, change in SPEC_CHANGES.items():
        for factor in (1 + STEP, 1 - STEP):
            changed = change(spec, factor)
            if changed is not None:
                yield name, factor, changed


def tasks(spec: Spec, pair: Sequence[ChangeTask], before: Sequence[Held]) -> tuple[list[str], list[ChangeTask]]:
    """(what changes, two searches for each: P/D, then aggregated). `before` is what `pair` without a change found.

    They begin with the two ends of its brackets: what changes nothing is known after two runs; of other targets, with
    its runs. What a change leaves as it is has the task of `pair`. The brackets of the others are wide (ROUGH).
    """
    names: list[str] = []
    wanted: list[ChangeTask] = []
    ours, theirs = (_from(task, held.found) for task, held in zip(pair, before, strict=True))
    judges = pair[0].judges
    for name, factor, changed in _changed(spec):
        link = factor if name == "link bandwidth" else 1.0
        names.append(message("{what} {share} {how}", NAMES[name], percent(STEP), _word(name, factor)))
        known = [held.others[judges.index(changed.slo)] if changed.slo in judges else () for held in before]
        wanted.append(replace(ours, spec=changed, link_factor=link, known=known[0]))
        wanted.append(pair[1] if changed == spec else replace(theirs, spec=changed, known=known[1]))  # it has no link
    for name, other in hand_overs(spec, ours.split):
        names.append(name)
        wanted += [replace(ours, split=other, far=UNSURE), pair[1]]
    return names, wanted


def _from(task: ChangeTask, found: Found) -> ChangeTask:
    """A task that begins where one without a change ended."""
    task = replace(task, judges=())
    if not found.rate:
        return task
    guess = first_guess(system_of(apply(task.spec, task.split)), task.seed)
    return replace(task, start=found.rate, step=found.above / found.rate, enough=ROUGH, guess=guess)


def hand_overs(spec: Spec, split: Split) -> Iterator[tuple[str, Split]]:
    """The split with other blocks, connector or layout, where posting their pieces costs anything."""
    system = system_of(apply(spec, split))
    if system.wires is None or not system.wires.hand_over.post_s:
        return
    hand, size = system.wires.hand_over, system.pools[1].limits.block_size
    changes: dict[str, dict[str, object]] = {f"block_size {block}": {"block_size": block} for block in BLOCK_SIZES}
    changes.pop(f"block_size {size}", None)
    other = CONNECTORS[0] if hand.push else CONNECTORS[1]
    changes[f"connector {other}"] = {"connector": other}
    for name, values in changes.items():
        yield name, replace(split, tuning=replace(split.tuning, **values))  # type: ignore[arg-type]


def _word(name: str, factor: float) -> str:
    if name in ("prompts", "outputs"):
        return message("longer") if factor > 1 else message("shorter")
    if "target" in name:
        return message("looser") if factor > 1 else message("tighter")
    return message("more") if factor > 1 else message("less")


def finer(
    tasks: Sequence[ChangeTask], found: Sequence[Found], now: Advantage, margin: float, error: float, unknown: bool
) -> dict[int, ChangeTask]:
    """Searches to go on with, by their place in `tasks`; `found` as for `judged`. None: what is told is known.

    Told is the first change with which the verdict would be another, and its advantage. So those of the first few
    changes go on whose brackets leave open whether they are that one, or whose advantage is to be told.
    """
    wanted: dict[int, ChangeTask] = {}
    word, base = decide(now, margin, error, unknown), _base(found, now)
    for at in range(0, len(tasks), 2):
        ours, theirs = found[at + 2], found[at + 3]
        if not ours.rate or not theirs.rate:
            if not wanted:
                return {}  # what is told: only one of them meets the targets, or none
            break
        ends = (ours.rate / theirs.above, ours.above / theirs.rate)
        words = {decide(_times(now, end / math.exp(base)), margin, error, unknown) for end in ends}
        if words == {word}:
            continue
        more = {
            place: replace(tasks[place], enough=TOLERANCE, known=one.probes)
            for place, one in ((at, ours), (at + 1, theirs))
            if one.above / one.rate > 1 + TOLERANCE
        }
        middle = decide(_times(now, math.exp(_log_ratio(ours, theirs) - base)), margin, error, unknown)
        if not more and middle != word and not wanted:
            return {}
        wanted |= more
        if len(wanted) >= AT_ONCE or (len(words) == 1 and middle != word):
            break
    return wanted


def judged(
    names: Sequence[str], found: Sequence[Found], now: Advantage, margin: float, error: float, unknown: bool = False
) -> list[Change]:
    """Each change's advantage and what the verdict would be if it were as sure as the present one.

    `found`: two searches without a change, P/D's and aggregated's, then two for each name. Searches of changes are
    short and have one seed: what counts is how far they are from the same search unchanged.
    """
    changes = []
    base = _base(found, now)
    for index, name in enumerate(names, start=1):
        ours, theirs = found[2 * index], found[2 * index + 1]
        if not ours.rate or not theirs.rate:
            if ours.rate:
                who = message("only P/D meets the targets")
            elif theirs.rate:
                who = message("only aggregated meets the targets")
            else:
                who = message("neither meets the targets")
            changes.append(Change(name, None, who))
            continue
        changed = _times(now, math.exp(_log_ratio(ours, theirs) - base))
        word: Word = decide(changed, margin, error, unknown)
        changes.append(Change(name, changed.value, WORDS[word]))
    return changes


def _times(now: Advantage, factor: float) -> Advantage:
    """The advantage when the ratio of the two rates is `factor` times what it is."""
    value, low, high = ((1 + one) * factor - 1 for one in (now.value, now.low, now.high))
    return Advantage(value, low, high)


def _base(found: Sequence[Found], now: Advantage) -> float:
    """The logarithm of the ratio of the two rates without a change, by the searches that changes are held against."""
    return _log_ratio(found[0], found[1]) if found[0].rate and found[1].rate else math.log1p(now.value)


def _log_ratio(ours: Found, theirs: Found) -> float:
    """Of the middles of two brackets."""
    return math.log(ours.rate * ours.above / theirs.rate / theirs.above) / 2


def sentence(word: Word, changes: Sequence[Change], asked: float | None, ours: float, theirs: float) -> str:
    """Names the first change that flips the verdict; `asked` is the spec's own rate."""
    flip = next((change for change in changes if change.word != word), None)
    if flip is None:
        text = message("No change of 20 % in prompts, outputs, targets or link flips this.")
    elif flip.advantage is None:
        text = message("With {change} it would be: {word}.", flip.what, flip.word)
    else:
        share = f"{'+' if flip.advantage >= 0 else '-'}{percent(abs(flip.advantage))}"
        text = message("With {change} it would be: {word} (P/D {share}).", flip.what, flip.word, share)
    return text if asked is None else message("{flip} {asked}", text, _at_the_asked(asked, ours, theirs))


def _at_the_asked(asked: float, ours: float, theirs: float) -> Message:
    """What the rate that was asked for, or one a little higher, leaves of the choice."""
    low, high = min(ours, theirs), max(ours, theirs)
    better = "P/D" if ours > theirs else message("aggregated")
    if low < asked <= high:
        return message("At the rate asked for ({rate:.3g} req/s) only {which} meets the targets.", asked, better)
    more = asked * (1 + STEP)
    if low < more <= high:
        return message("At a rate 20 % higher ({rate:.3g} req/s) only {which} meets the targets.", more, better)
    if asked > high:
        return message("At the rate asked for ({rate:.3g} req/s) neither meets the targets.", asked)
    return message("Both serve the rate asked for ({rate:.3g} req/s).", asked)
