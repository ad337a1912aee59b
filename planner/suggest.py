"""N GPUs, a model and traffic: every split's highest rate within the targets, ranked, and whether P/D is worth it.

Stages, each a list of independent tasks whose results are taken in order, so that the answer does not depend on how
many workers there are: search every candidate with the first seed; search those near the best of their mode with the
other seeds too; then ask why the two best stop where they stop, and what would change the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from planner import changes
from planner.catalogue import hardware
from planner.explain import Explanation, explain
from planner.metrics import summarise
from planner.records import Progress
from planner.search import Found, Probe, first_guess, highest_rate, load_at, probe, system_of, traffic_of
from planner.spec import Slo, Spec, dump
from planner.splits import Split, apply, splits, tp_sizes, variants
from planner.spread import Spread, cores, spread
from planner.suggestion import EqualRate, Row, Suggestion, Verdict, best_of, rank
from planner.suggestion_words import limit, pareto, pick, provenance, sentence
from planner.system import System
from planner.verdict import advantage, decide, profile_error
from planner.workload import offered_rate, scaled

COARSE, FINE = 0.02, 0.01  # widths of the brackets that searches end with
NEAR = 0.9  # candidates above this share of the best of their mode are searched with every seed
FINALISTS = 3  # of each mode at most
OVERLOAD = 1.1  # how far past its highest rate a candidate is run to see what limits it
SHORT = 1500  # requests that long lists begin their search with, and that changes are searched with
REQUESTS_PER_GPU, FEWEST, MOST = 250, 1000, 4000  # requests of one seed's list


@dataclass(frozen=True, slots=True)
class SearchTask:
    spec: Spec  # with the split applied
    seed: int
    start: float | None  # None: the closed form
    tolerance: float
    step: float


@dataclass(frozen=True, slots=True)
class Searched:
    guess: float
    found: Found


@dataclass(frozen=True, slots=True)
class ProbeTask:
    spec: Spec
    seed: int
    rate: float


def search(task: SearchTask) -> Searched:
    """One candidate, one seed. Raises SpecError when the candidate cannot be built."""
    system = system_of(task.spec)
    guessed = first_guess(system, task.seed)
    start, step = (guessed, task.step) if task.start is None else (task.start, task.step)
    few = first_requests(task.spec, SHORT)
    if task.start is None and few is not task.spec:  # begin where the first requests of the list lead
        brief = replace(system, spec=few)
        near = highest_rate(lambda rate: probe(brief, rate, task.seed), start, tolerance=2 * task.tolerance, step=step)
        if near.rate > 0:
            start, step = near.rate, 1 + task.tolerance
    found = highest_rate(lambda rate: probe(system, rate, task.seed), start, tolerance=task.tolerance, step=step)
    return Searched(guessed, found)


def first_requests(spec: Spec, count: int) -> Spec:
    """The spec with only the first `count` requests of its list; the spec itself where it has no more, or no count."""
    requests = getattr(spec.workload, "requests", None)
    if spec.workload.kind == "trace" or requests is None or requests <= count:
        return spec
    return spec.model_copy(update={"workload": spec.workload.model_copy(update={"requests": count})})


def attained(task: ProbeTask) -> Probe:
    """One whole run at one rate."""
    return probe(system_of(task.spec), task.rate, task.seed, early=False)


def why(task: ProbeTask) -> Explanation:
    """What limits a candidate at this rate."""
    from simulator.backend import SimulatorBackend

    system = system_of(task.spec)
    run = SimulatorBackend().run(system, load_at(task.spec, task.seed, task.rate))
    return explain(summarise(run))


# --- the answer --------------------------------------------------------------------------------


def suggest(
    spec: Spec,
    gpus: int,
    *,
    seeds: int = 5,
    requests: int | None = None,
    sweep: frozenset[str] = frozenset(),
    slo: Slo | None = None,
    processes: int | None = None,
    cluster: str | None = None,
    pool: Spread | None = None,
    reasons: bool = True,
    progress: Progress | None = None,
) -> Suggestion:
    """The ranked ways to use `gpus` GPUs for the spec's model, traffic and targets.

    `seeds` lists of `requests` requests each (where the workload counts requests); `sweep`: router, local_prefill.
    The same arguments give the same answer on any number of `processes`, here, in a `pool` that runs already, or on a
    cluster ("ray"). Without `reasons` the verdict does not say why, nor what would change it: that is half of the work.
    Raises SpecError, and ImportError without ray.
    """
    wanted = prepared(spec, gpus, requests, slo)
    sizes, left_out = tp_sizes(wanted, gpus)
    with nullcontext(pool) if pool is not None else spread(cluster, processes or cores()) as workers:
        session = _Session(wanted, gpus, seeds, sweep, workers, progress, reasons)
        return session.answer(splits(gpus, sizes), left_out)


def prepared(spec: Spec, gpus: int, requests: int | None, slo: Slo | None) -> Spec:
    """The spec with the targets and the number of requests that are searched with, and its router presets expanded."""
    scaled(spec, 1.0)  # refuses a load without a rate
    change: dict[str, object] = {"run": spec.run.model_copy(update={"warmup_requests": 0})}
    if slo is not None:
        change["slo"] = slo
    if spec.workload.kind != "trace" and hasattr(spec.workload, "requests"):
        count = requests or min(max(FEWEST, REQUESTS_PER_GPU * gpus), MOST)
        change["workload"] = spec.workload.model_copy(update={"requests": count})
    return spec.model_copy(update=change)


class _Session:
    """The stages of one answer."""

    def __init__(
        self, spec: Spec, gpus: int, seeds: int, sweep: frozenset[str], pool: Spread, progress: Progress | None,
        reasons: bool,
    ) -> None:  # fmt: skip
        self.spec, self.gpus, self.sweep, self._pool = spec, gpus, sweep, pool
        self.seeds = [spec.run.seed + offset for offset in range(seeds)]
        self._progress, self._reasons = progress, reasons

    def _map(self, stage: str, function: Callable[..., object], inputs: Sequence[object]) -> list[object]:
        count = 0

        def done() -> None:
            nonlocal count
            count += 1
            if self._progress:
                self._progress(stage, count / len(inputs))

        return self._pool(function, inputs, done)

    def answer(self, candidates: list[Split], left_out: list[str]) -> Suggestion:
        rows = self._coarse("search", candidates)
        if self.sweep:
            base = [split for mode in ("aggregated", "disaggregated") for split in self._near(rows, mode)]
            more = [other for split in base for other in variants(split, self.sweep, self._thresholds())]
            rows += self._coarse("sweep", more)
        rows = self._refined(rows)
        verdict = self._verdict(rows)
        notes = [f"Left out: {text}" for text in left_out] + self._notes(rows)
        compared = [row for mode in ("disaggregated", "aggregated") if (row := best_of(rows, mode))]
        brackets = provenance(self._systems(compared or rows[:1]))
        return Suggestion(
            gpus=self.gpus,
            model=self.spec.model,
            hardware=self.spec.hardware,
            slo=self.spec.slo,
            requests=getattr(self.spec.workload, "requests", None),
            seeds=len(self.seeds),
            provenance=brackets,
            rows=tuple(rows),
            verdict=verdict,
            sentence=f"{sentence(rows, verdict, self.gpus)} {brackets}",
            yaml=dump(apply(self.spec, pick(rows, verdict).split)),
            pareto=pareto(rows, self.gpus),
            notes=tuple(dict.fromkeys(notes)),
        )

    # --- stages ---

    def _coarse(self, stage: str, candidates: list[Split]) -> list[Row]:
        tasks = [SearchTask(apply(self.spec, split), self.seeds[0], None, COARSE, 1.25) for split in candidates]
        found: list[Searched] = self._map(stage, search, tasks)  # type: ignore[assignment]
        return [self._row(split, one.guess, (one.found,)) for split, one in zip(candidates, found, strict=True)]

    def _near(self, rows: list[Row], mode: str) -> list[Split]:
        of_mode = sorted((row for row in rows if row.mode == mode and row.rate > 0), key=rank)[:FINALISTS]
        return [row.split for row in of_mode if row.rate >= NEAR * of_mode[0].rate]

    def _refined(self, rows: list[Row]) -> list[Row]:
        finalists = {split for mode in ("aggregated", "disaggregated") for split in self._near(rows, mode)}
        chosen = [row for row in rows if row.split in finalists]
        tasks = [
            SearchTask(apply(self.spec, row.split), seed, row.rate, FINE, 1.02) for row in chosen for seed in self.seeds
        ]
        found: list[Searched] = self._map("all seeds", search, tasks)  # type: ignore[assignment]
        n = len(self.seeds)
        refined = {
            row.split: self._row(row.split, row.guess, tuple(one.found for one in found[i * n : (i + 1) * n]))
            for i, row in enumerate(chosen)
        }
        return sorted((refined.get(row.split, row) for row in rows), key=rank)

    def _verdict(self, rows: list[Row]) -> Verdict | None:
        ours, theirs = best_of(rows, "disaggregated"), best_of(rows, "aggregated")
        if ours is None or theirs is None:
            return None
        found = advantage(ours.searches, theirs.searches, self.spec.run.seed)
        error = profile_error(self._systems([ours, theirs]))
        margin = self.spec.run.margin
        word = decide(found, margin, error)
        if not self._reasons:
            return Verdict(word, found, margin, error)
        both = [apply(self.spec, row.split) for row in (ours, theirs)]
        seed = self.seeds[0]
        reasons: list[Explanation] = self._map(  # type: ignore[assignment]
            "why",
            why,
            [ProbeTask(one, seed, OVERLOAD * row.rate) for one, row in zip(both, (ours, theirs), strict=True)],
        )
        names, tasks = changes.tasks(
            first_requests(self.spec, SHORT), (ours.split, ours.rate), (theirs.split, theirs.rate), seed
        )
        outcomes: list[Found] = self._map("what would change it", changes.search_change, tasks)  # type: ignore[assignment]
        half = (found.high - found.low) / 2
        judged = changes.judged(names, outcomes, half, margin, error)
        enough = None
        if reasons[0].kind == "link":
            enough = self._map(
                "link", changes.enough_link, [changes.ChangeTask(both[0], ours.split, seed, ours.rate, 1.0)]
            )[0]
        return Verdict(
            word=word,
            advantage=found,
            margin=margin,
            error=error,
            at_equal_rate=self._equal_rate(both, max(ours.rate, theirs.rate)),
            why=(f"{ours.name}: {limit(reasons[0])}", f"{theirs.name}: {limit(reasons[1])}"),
            enough_link=enough,  # type: ignore[arg-type]
            changes=tuple(judged),
            change=changes.sentence(word, judged, offered_rate(self.spec), ours.rate, theirs.rate),
        )

    def _equal_rate(self, both: list[Spec], rate: float) -> EqualRate:
        tasks = [ProbeTask(one, seed, rate) for one in both for seed in self.seeds]
        found: list[Probe] = self._map("equal rate", attained, tasks)  # type: ignore[assignment]
        shares = [probe.attainment for probe in found]
        n = len(self.seeds)
        return EqualRate(rate, sum(shares[:n]) / n, sum(shares[n:]) / n)

    # --- pieces ---

    def _row(self, split: Split, guessed: float, searches: tuple[Found, ...]) -> Row:
        rates = [found.rate for found in searches]
        rate = sum(rates) / len(rates)
        probes = [found.best for found in searches if found.best is not None]
        n = max(len(probes), 1)
        output, total = sum(p.output_tokens_s for p in probes) / n, sum(p.total_tokens_s for p in probes) / n
        price = self._price()
        spent = None if price is None else price * self.gpus / 3600
        return Row(
            split=split,
            name=split.name,
            gpus=split.gpus,
            idle=self.gpus - split.gpus,
            guess=guessed,
            rate=rate,
            low=min(rates),
            high=max(rates),
            per_gpu=rate / self.gpus,
            output_tokens_s_gpu=output / self.gpus,
            tokens_s_user=sum(p.tokens_s_user for p in probes) / n,
            cost_per_million_tokens=spent / total * 1e6 if spent is not None and total else None,
            cost_per_million_output_tokens=spent / output * 1e6 if spent is not None and output else None,
            searches=searches,
        )

    def _price(self) -> float | None:
        given = self.spec.cluster.price_per_gpu_hour
        return given if given is not None else hardware(self.spec.hardware).price_per_gpu_hour

    def _thresholds(self) -> list[int]:
        """Prompt lengths up to which decode workers may prefill: none, and the quartiles of the prompts."""
        load, _ = traffic_of(self.spec, self.seeds[0])
        lengths = sorted(arrival.request.prompt_tokens for arrival in load.start())
        return sorted({0, *(lengths[len(lengths) * quarter // 4] for quarter in (1, 2, 3))})

    def _systems(self, rows: Sequence[Row]) -> list[System]:
        return [system_of(apply(self.spec, row.split)) for row in rows]

    def _notes(self, rows: list[Row]) -> list[str]:
        notes = []
        for row in (best_of(rows, "disaggregated"), best_of(rows, "aggregated")):
            if row is not None:
                notes += [f"{row.name}: {text}" for text in system_of(apply(self.spec, row.split)).warnings]
        idle = [row.name for row in rows if row.idle]
        if idle:
            notes.append(f"GPUs left idle by {', '.join(idle)}; rates per GPU count them.")
        return notes
