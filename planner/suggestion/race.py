"""The race of those near the best of their mode: all are run with the same lists of requests, around their edges.

Of each mode the one that promises most is run until its edge is known. The others are run at that rate alone: who does
not serve it is behind. The first LOOK lists show most often what the answer is. Then the others are run only where the
interval is wide, or a narrower one might say something else; of sessions always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace

from planner.spec import Sessions, Spec
from planner.suggestion.answer import TIE, Row, best_of, rank
from planner.suggestion.edge import STEEP, Edge, is_found, next_rate
from planner.suggestion.probe import Period
from planner.suggestion.rows import refined_row, slower_row
from planner.suggestion.search import Probe, paced, system_of
from planner.suggestion.splits import Split, apply
from planner.suggestion.tasks import ProbeTask, attained
from planner.suggestion.verdict import Advantage, advantage, decide, rate_error, unmeasured

LOOK = 2  # lists whose runs at the first rates tell which finalists the others are not worth; and how they compare
REFINED = 0.98  # of the best of its mode, by the first lists: below, the others do not run a finalist
FIRST_STEP, ROUNDS = 1.04, 24  # the first rates of a finalist around its rough one, and how often others are added
CLEAR = 0.1  # of the misses that are allowed: a list that has no more is not run at lower rates
AROUND = 1.01  # from what the first lists say to the rates that the others are run at
ROUND_LEFT = 0.3  # of what is left of their progress, after each: how many rounds there will be is not known
DOUBT = 2.0  # times an interval of the first lists, all of which must say the same, or the others are run
WIDE = 0.1  # from one end of that interval to the other: what is worth the others whatever it says

Each = Callable[[Callable[[ProbeTask], Probe], Sequence[ProbeTask], tuple[float, float]], list[Probe]]


def unproven(rows: Sequence[Row], most: int, seen: Container[Split] = ()) -> list[Split]:
    """Up to `most` of each mode, highest first, whose rough rate is not below that of any that raced. Those `seen` in
    the race were compared by the same lists, and claim nothing.
    """
    found: list[Split] = []
    for mode in ("aggregated", "disaggregated"):
        top = max((row.rate for row in rows if row.mode == mode and row.refined), default=0.0)
        others = [row for row in rows if row.mode == mode and not row.refined and row.split not in seen]
        claims = [row for row in others if row.rate >= top and row.rate > 0]
        found += [row.split for row in sorted(claims, key=rank)[:most]]
    return found


def racing(splits: Iterable[Split], edges: Mapping[Split, Edge], share: float) -> list[Split]:
    """Those whose edge may lie above `share` of the best of its mode that is known."""
    best: dict[str, float] = {}
    for split, edge in edges.items():
        if edge.is_known:
            best[split.mode] = max(best.get(split.mode, 0.0), edge.expected())

    def most(edge: Edge) -> float:
        return edge.expected() if edge.is_known else edge.bracket[1]

    return [split for split in splits if most(edges[split]) > share * best.get(split.mode, 0.0)]


def leaders(edges: Mapping[Split, Edge]) -> list[Split]:
    """Of each mode the one with the highest rate, as far as that is known."""
    best: dict[str, Split] = {}
    for split, edge in edges.items():
        if edge.is_known and (split.mode not in best or edge.expected() > edges[best[split.mode]].expected()):
            best[split.mode] = split
    return [*best.values()]


def is_beyond_doubt(found: Advantage, word: Callable[[Advantage], str]) -> bool:
    """Whether the interval is narrow, and says the same when it is DOUBT times as wide or has no width at all."""

    def times(factor: float) -> Advantage:
        low, high = (found.value + factor * (end - found.value) for end in (found.low, found.high))
        return Advantage(found.value, low, high)

    narrow = 1 + found.high <= (1 + WIDE) * (1 + found.low)
    return narrow and len({word(times(factor)) for factor in (0.0, 1.0, DOUBT)}) == 1


def _around(edge: Edge) -> list[float]:
    """Of the rates that were run the nearest ones on both sides of it, but not so near that other lists cross them."""
    found = edge.expected()
    below = [rate for rate in edge.rates if rate * AROUND <= found]
    above = [rate for rate in edge.rates if rate >= found * AROUND]
    ends = below[-1:] + above[:1] if below and above else edge.bracket
    return [float(rate) for rate in ends if 0 < rate < math.inf]


class Race:
    """Finalists, their runs, and the edges of those that stayed in the race."""

    def __init__(self, spec: Spec, gpus: int, seeds: Sequence[int], each: Each, *, told: bool = False) -> None:
        """`told`: of a first look. Rows are rough, and the first rates are the ends of their brackets."""
        self.edges: dict[Split, Edge] = {}
        self.looks: dict[Split, Edge] = {}  # of all that came to the race, by the first lists
        # Of the lists that finalists are run with, so far. Sessions outlast a run, so that its parts hardly differ: how
        # much lists do is seen by many of them alone.
        self.seeds = [*seeds] if isinstance(spec.workload, Sessions) else [*seeds[:LOOK]]
        self._spec, self._gpus, self._all, self._each, self._told = spec, gpus, seeds, each, told
        self._periods: dict[Split, Period | None] = {}
        self._rates: dict[Split, list[float]] = {}  # that its edge is known by
        self._runs: dict[Split, list[dict[float, Probe]]] = {}  # of each list, by rate

    def needs_all(self, rows: Sequence[Row]) -> bool:
        """Whether lists are left, and what they say might be another verdict or is worth knowing better."""
        if len(self.seeds) == len(self._all):
            return False
        ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
        if ours is None or theirs is None or not (ours.refined and theirs.refined):
            return True
        systems = [system_of(apply(self._spec, row.split)) for row in (ours, theirs)]
        margin, error, unknown = self._spec.run.margin, rate_error(systems), unmeasured(systems[0]) is not None
        found = advantage(self.edges[ours.split], self.edges[theirs.split], self._spec.run.seed)
        return not is_beyond_doubt(found, lambda one: decide(one, margin, error, unknown))

    def take_all(self, rows: list[Row]) -> tuple[list[Row], list[Split]]:
        """From now on every list counts. The rows, of which nothing is proven any more, and who races again."""
        raced = racing(self.edges, self.edges, REFINED)
        self.seeds, self.edges = [*self._all], {}
        return [replace(row, refined=False) if row.refined else row for row in rows], raced

    def lose(self, splits: Iterable[Split], factor: float) -> None:
        """What these hold for long is so many times what their runs say."""
        self.edges |= {split: self.edges[split].times(factor) for split in splits if split in self.edges}

    def run(
        self, rows: list[Row], splits: Sequence[Split], period: Period | None, part: tuple[float, float]
    ) -> list[Row]:
        """The rows with the best of these run by every list, and the others as far as it takes to see them behind."""
        finalists = [row for row in rows if row.split in splits]
        every = range(len(self.seeds))
        begin, length = part[0], part[1] - part[0]

        def of_part(first: float, last: float) -> tuple[float, float]:
            return begin + length * first, begin + length * last

        for row in finalists:
            if row.split in self._runs:
                self.looks[row.split] = self._edge(row.split, every[:LOOK])
            else:
                self._runs[row.split], self._rates[row.split] = [{} for _ in self._all], []
                self._periods[row.split] = row.period(period)
        heads = self._heads(finalists)
        self._look(heads, every, of_part(0.0, 0.25))
        self._find([row.split for row in heads], every, of_part(0.25, 0.4))
        tried = {row.split: self._challenge(row) for row in finalists if row not in heads}
        self._find(self._tried(tried, every, of_part(0.4, 0.5)), every, of_part(0.5, 0.6))
        best = [split for split in leaders(self.edges) if split in splits]
        self._find(best, every, of_part(0.6, 1.0), fine=True)
        raced = {}
        for row in finalists:
            split, began = row.split, self._periods[row.split]
            if split in self.edges:
                runs = [list(self._runs[split][index].values()) for index in every]
                # of a list that was not run at these rates, what it was run at
                runs = [[one for one in of_list if one.rate in self._rates[split]] or of_list for of_list in runs]
                found = refined_row(self._spec, self._gpus, row, runs, self.edges[split])
                raced[split] = replace(found, pace=None if began is None else began.pace)
        for row in rows:
            if row.split in self.looks and row.split not in self.edges:
                raced[row.split] = slower_row(row, self._behind(row.split))
        return [raced.get(row.split, row) for row in rows]

    def _heads(self, rows: Sequence[Row]) -> list[Row]:
        """Of each mode that no one leads yet the one that is likely to: by the first lists, or by its rough rate."""
        led = {split.mode for split in self.edges}
        heads = []
        for mode in dict.fromkeys(row.mode for row in rows if row.mode not in led):
            of_mode = [row for row in rows if row.mode == mode]
            seen = [row for row in of_mode if row.split in self.looks]
            best = max(seen, key=lambda row: self.looks[row.split].expected(), default=None)
            heads.append(best or min(of_mode, key=rank))
        return heads

    def _look(self, heads: Sequence[Row], every: range, part: tuple[float, float]) -> None:
        """Their edges by the first lists, and these rates by every list."""
        first, (begin, end) = every[:LOOK], part
        rates = {row.split: self._first_rates(row) for row in heads if row.split not in self.looks}
        for _ in range(ROUNDS):  # until a rough rate that was far off is mended, by few runs
            if not rates:
                break
            until = end - ROUND_LEFT * (end - begin)
            self._run_up(rates, first, (begin, until))
            begin = until
            if self._told:
                self._pace(rates)
            self.looks |= {split: self._edge(split, first) for split in rates}
            rates = {
                split: [next_rate(self.looks[split])]
                for split in rates
                if not self.looks[split].is_within(FIRST_STEP**2)
            }
        if len(every) > len(first):
            around = {row.split: _around(self.looks[row.split]) for row in heads}
            for split in around:
                self._rates[split] = []
            self._run_up(around, every, (begin, end))

    def _find(self, splits: Sequence[Split], every: range, part: tuple[float, float], *, fine: bool = False) -> None:
        """Their edges by every list; `fine`: as the best of a mode, of which the interval is told."""
        begin, end = part
        errors = {split: rate_error([system_of(apply(self._spec, split))]) if fine else None for split in splits}
        rates: dict[Split, list[float]] = {split: [] for split in splits}
        for _ in range(ROUNDS):
            self.edges |= {split: self._edge(split, every) for split in rates}
            wanted = {split: self._further(split, self.looks[split], errors[split]) for split in splits}
            rates = {split: found for split, found in wanted.items() if found}
            if not rates:
                break
            until = end - ROUND_LEFT * (end - begin)
            self._run_at(rates, every, (begin, until))
            begin = until

    def _challenge(self, row: Row) -> float:
        """The rate at which it is ahead of the best of its mode if it serves that: by TIE, but with smaller engines."""
        known = {split: edge.expected() for split, edge in self.edges.items() if split.mode == row.mode}
        best = max(known, key=lambda split: known[split])
        return known[best] / (1.0 if row.split.largest_tp < best.largest_tp else TIE)

    def _tried(self, tried: Mapping[Split, float], every: range, part: tuple[float, float]) -> list[Split]:
        """Those of them that serve these rates, by every list; the first ones alone may show that they do not."""
        first, (begin, end) = every[:LOOK], part
        rates = {split: [rate] for split, rate in tried.items()}
        for split in tried:
            self._rates[split] = []
        self._run_at(rates, first, (begin, (begin + end) / 2))
        if self._told:
            self._pace(rates)
        for split in rates:
            grows = [look.slope() for one, look in self.looks.items() if one.mode == split.mode and look.is_known]
            self.looks[split] = replace(self._edge(split, first), least_slope=max([STEEP, *grows]))
        most = len(every) / len(first)  # times as many as may miss: no fewer do by every list
        rates = {split: rate for split, rate in rates.items() if self.looks[split].missed() <= most}
        self._run_at(rates, every, ((begin + end) / 2, end))
        return [split for split in rates if self._edge(split, every).passed[-1]]

    def _behind(self, split: Split) -> float:
        """What one serves that is behind the best of its mode: what all lists leave of that by the first ones."""
        of_mode = [one for one, edge in self.edges.items() if one.mode == split.mode and edge.is_known]
        best = max(of_mode, key=lambda one: self.edges[one].expected())
        found = self.edges[best].expected()
        return min(self.looks[split].expected() * found / self.looks[best].expected(), TIE * found)

    def _first_rates(self, row: Row) -> list[float]:
        if not self._told:
            return [row.rate / FIRST_STEP, row.rate * FIRST_STEP]
        return [row.rate, min(max(one.above for one in row.searches), row.rate * FIRST_STEP**2)]

    def _further(self, split: Split, look: Edge, error: float | None) -> list[float]:
        """Rates still to be run. `error`: as of `is_found`, of a leader, whose interval is told; None: of others.

        A leader is also run above what the hardest lists hold, which says how far the others reach.
        """
        edge = self.edges[split]
        if not edge.is_known or error is None:
            return [] if edge.is_known else [next_rate(edge)]
        above = [one for one in look.bracket[1:] if max(self._rates[split]) < one < math.inf]
        return above + ([] if is_found(edge, error, self._spec.run.seed) else [next_rate(edge)])

    def _pace(self, splits: Iterable[Split]) -> None:
        """Further runs begin at the pace that the highest rate within reach has told: rough rates may be far off."""
        for split in splits:
            runs = [one for of_list in self._runs[split] for one in of_list.values()]
            best = max(runs, key=lambda one: (one.passed, one.rate if one.passed else -one.rate))
            self._periods[split] = paced(self._periods[split], best)

    def _edge(self, split: Split, lists: range) -> Edge:
        rates = sorted(self._rates[split])
        runs = [[one for rate in rates if (one := self._known_at(split, index, rate))] for index in lists]
        assert all(len(of_list) == len(rates) for of_list in runs)
        return Edge.of(runs, self._spec.slo.attainment)

    def _known_at(self, split: Split, index: int, rate: float) -> Probe | None:
        """The run of this list at this rate, or what another tells of it: hardly any missed at a higher rate, or at a
        lower one more than all lists together may.

        Which lists are the hardest shows at the first rates; at lower ones these alone are left to run.
        """
        runs = self._runs[split][index]
        if rate in runs:
            return runs[rate]
        few, many = (times * (1 - self._spec.slo.attainment) for times in (CLEAR, len(self._all)))
        above = [one.rate for one in runs.values() if one.rate > rate and one.kept_up and 1 - one.attainment <= few]
        below = [one.rate for one in runs.values() if one.rate < rate and 1 - one.attainment > many]
        for nearest in (min(above, default=None), max(below, default=None)):
            if nearest is not None:
                return replace(runs[nearest], rate=rate)
        return None

    def _run_up(self, rates: Mapping[Split, Sequence[float]], lists: range, part: tuple[float, float]) -> None:
        """Each split at its rates from the lowest on, up to one at which too many miss: higher ones would say less."""
        left = {split: sorted(wanted) for split, wanted in rates.items()}
        (begin, end), most = part, max(map(len, left.values()), default=0)
        for step in range(most):
            wave = {split: [wanted[step]] for split, wanted in left.items() if len(wanted) > step}
            until = begin + (end - begin) / (most - step)
            self._run_at(wave, lists, (begin, until))
            left = {split: left[split] for split in wave if self._edge(split, lists).passed[-1]}
            begin = until

    def _run_at(self, rates: Mapping[Split, Sequence[float]], lists: range, part: tuple[float, float]) -> None:
        """Each split at each of its rates with the lists of these places, as far as what these do is not known."""
        tasks = []
        for split, wanted in rates.items():
            self._rates[split] += [rate for rate in wanted if rate not in self._rates[split]]
            tasks += [
                (split, index, ProbeTask(apply(self._spec, split), self._all[index], rate, self._periods[split]))
                for rate in wanted
                for index in lists
                if self._known_at(split, index, rate) is None
            ]
        probes = self._each(attained, [task for _, _, task in tasks], part)
        for (split, index, task), one in zip(tasks, probes, strict=True):
            self._runs[split][index][task.rate] = one
