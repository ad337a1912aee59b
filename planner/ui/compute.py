"""What pages ask of the product layer, remembered by what was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from planner import charts, load
from planner.report.words import number
from planner.run.metrics import Summary, summarise
from planner.run.tables import Progress, Run
from planner.spec import Spec, SpecError, dump, parse
from planner.suggestion import curves
from planner.suggestion.answer import Row, Smallest, Suggestion, best_of
from planner.suggestion.fewest import smallest
from planner.suggestion.probe import Period
from planner.suggestion.splits import Split, apply, rank_sizes, splits, tp_sizes
from planner.suggestion.spread import Done, ProcessPool, Spread, cores, here
from planner.suggestion.suggest import COARSE, SearchTask, search, suggest
from planner.suggestion.tasks import prepared
from planner.suggestion.words import bound, never
from planner.traffic import traces
from planner.traffic.workload import offered_rate
from planner.ui.bounds import bounded
from planner.ui.scenario import Scenario, trace_path
from planner.ui.waiting import Answers, Work

T = TypeVar("T")

KEPT = 32
PROCESSES = min(cores(), 16)  # that search together; 1 stays in this process
WARM_REQUESTS = 20


@st.cache_resource
def answers() -> Answers:
    return Answers()


@st.cache_resource(show_spinner=False)
def pool() -> ProcessPool | None:
    """The processes that search, for all sessions: started with the first page, ended with the server. None: it is one,
    this one.
    """
    if PROCESSES == 1:
        return None
    workers, question = ProcessPool(PROCESSES), prepared(Scenario().spec(), 2, WARM_REQUESTS, None)
    workers.warm(search, SearchTask(question, 0, None, COARSE, 1.25))
    return workers


def spread(workers: ProcessPool | None, work: Work[Any], first: bool = False) -> Spread:
    """The processes as a piece of work uses them: it ends when nobody waits for it. `first`: before other work."""
    if workers is not None:
        return partial(workers, first=first, going=work.going)

    def alone(function: Callable[[Any], Any], inputs: Sequence[Any], done: Done) -> list[Any]:
        def told(at: int, result: Any) -> None:
            done(at, result)
            work.going()

        return here(function, inputs, told)

    return alone


def _key(scenario: Scenario) -> object:
    return dump(scenario.spec()), scenario.gpus, scenario.seeds, scenario.list_length


def _look_key(scenario: Scenario) -> object:
    return "first look", _key(scenario)


def _count_key(scenario: Scenario) -> object:
    return "fewest", _key(scenario), scenario.most_gpus


def answer(scenario: Scenario, progress: Progress | None = None) -> Suggestion:
    """The suggestion for a scenario; what `planner suggest` gives for the same file and options. Raises SpecError."""
    spec, workers = bounded(scenario.spec()), pool()

    def make(work: Work[Suggestion]) -> Suggestion:
        return suggest(
            spec, scenario.gpus, seeds=scenario.seeds, requests=scenario.requests or None,
            pool=spread(workers, work), progress=work.tell,
        )  # fmt: skip

    return answers().get(_key(scenario), make, progress)


def first_look(scenario: Scenario, progress: Progress | None = None) -> Suggestion:
    """The quick answer that stands until the sure one is known: few splits, one list, no reasons. Raises SpecError."""
    spec, workers = bounded(scenario.spec()), pool()

    def make(work: Work[Suggestion]) -> Suggestion:
        return suggest(
            spec, scenario.gpus, seeds=1, requests=scenario.requests or None, pool=spread(workers, work, first=True),
            quick=True, progress=work.tell,
        )  # fmt: skip

    return answers().get(_look_key(scenario), make, progress)


def looked(scenario: Scenario) -> Suggestion | None:
    """The first look if there has been one. Raises SpecError."""
    found: Suggestion | None = answers().known(_look_key(scenario))
    return found


def known(scenario: Scenario) -> Suggestion | None:
    """The suggestion for a scenario if it has been worked out, with the fewest GPUs. Raises SpecError."""
    found: Suggestion | None = answers().known(_key(scenario))
    if found is None or offered_rate(scenario.spec()) is None:
        return found
    fewest = counted(scenario)
    return None if fewest is None else replace(found, smallest=fewest)


def fewest(scenario: Scenario, progress: Progress | None = None) -> Smallest | None:
    """The fewest of the GPUs that may be used that serve the scenario's load; None: it has no rate. Raises SpecError.

    As `planner suggest --rate` finds them.
    """
    spec, workers = bounded(scenario.spec()), pool()
    rate = offered_rate(spec)
    if rate is None:
        return None

    def make(work: Work[Smallest]) -> Smallest:
        return smallest(
            spec, rate, limit=scenario.most_gpus, requests=scenario.requests or None, pool=spread(workers, work),
            progress=work.tell,
        )  # fmt: skip

    return answers().get(_count_key(scenario), make, progress)


def counted(scenario: Scenario) -> Smallest | None:
    """The fewest GPUs if they have been counted. Raises SpecError."""
    found: Smallest | None = answers().known(_count_key(scenario))
    return found


def give_up(scenario: Scenario) -> None:
    """End the work on a question, as far as no other session waits for it."""
    for key in (_look_key(scenario), _count_key(scenario), _key(scenario)):
        answers().drop(key)


def asked(scenario: Scenario, progress: Progress | None = None) -> Scenario:
    """The scenario with its number of GPUs: of "how few?" the fewest that serve the load. Raises SpecError."""
    if scenario.want != "fewest":
        return scenario
    found = fewest(scenario, progress)
    if found is None:
        raise SpecError("workload: no rate is given; allowed: a load of so many requests a second, to count GPUs for")
    if not found.possible:
        raise SpecError(never(found.rate, scenario.spec().slo))
    if found.gpus is None:
        raise SpecError(
            "Up to {most} GPUs do not serve {rate} req/s {bound}.",
            found.limit,
            number(found.rate),
            bound(scenario.spec().slo),
        )
    return replace(scenario, want="gpus", gpus=found.gpus)


def fewest_split(scenario: Scenario, found: Smallest) -> Split:
    """How the GPUs of `fewest` are used. Raises SpecError."""
    assert found.gpus is not None
    spec = scenario.spec()
    sizes, _ = tp_sizes(spec, found.gpus)
    every = splits(found.gpus, sizes, rank_sizes(spec, found.gpus, sizes))
    return next(one for one in every if one.name == found.name)


def fewest_yaml(scenario: Scenario, found: Smallest) -> str:
    """The deployment of `fewest`. Raises SpecError."""
    return dump(apply(scenario.spec(), fewest_split(scenario, found)))


def best_rows(found: Suggestion) -> list[Row]:
    """The best aggregated deployment and the best split, as far as there are any."""
    return [row for mode in charts.MODES if (row := best_of(found.rows, mode)) is not None]


def curves_of(found: Suggestion, spec: Spec, rows: Sequence[Row] | None = None) -> dict[str, tuple[Row, pd.DataFrame]]:
    """The load curves of these candidates (None: the best of each mode), by name; over the same rates."""
    rows = best_rows(found) if rows is None else rows
    return {row.name: (row, curve_of(found, row, spec, max(one.rate or one.guess for one in rows))) for row in rows}


@st.cache_resource(max_entries=8, show_spinner=False)
def _read(path: str, changed_ns: int) -> traces.TraceFile:
    return traces.read(path)


def trace_of(name: str) -> traces.TraceFile:
    """A trace by its name on the pages. Raises SpecError."""
    path = trace_path(name)
    return _read(str(path), path.stat().st_mtime_ns)


def rate_of(spec: Spec) -> float | None:
    return offered_rate(spec)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def run_of(text: str, rate: float | None = None, requests: int | None = None) -> Run:
    """One simulated run of a YAML text. Raises SpecError."""
    return curves.simulated(bounded(parse(text)), rate, requests)


@st.cache_resource(max_entries=4 * KEPT, show_spinner=False)
def summary_of(text: str, rate: float | None = None, requests: int | None = None) -> Summary:
    return summarise(run_of(text, rate, requests))


def _under_load(asked: tuple[str, float | None]) -> Summary:
    text, rate = asked
    return summarise(curves.simulated(parse(text), rate))


def under_load(texts: Sequence[str], rate: float | None, progress: Progress | None = None) -> dict[str, Summary]:
    """The metrics of each of these deployments under `rate` requests/s (None: the file's own). Raises SpecError."""
    asked, workers = tuple(dict.fromkeys(texts)), pool()
    for text in asked:
        bounded(parse(text))

    def make(work: Work[dict[str, Summary]]) -> dict[str, Summary]:
        ended = iter(range(1, len(asked) + 1))
        run = spread(workers, work, first=True)
        made = run(_under_load, [(text, rate) for text in asked], lambda *_: work.tell("", next(ended) / len(asked)))
        return dict(zip(asked, made, strict=True))

    return answers().get(("under load", asked, rate), make, progress)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def _curve(text: str, gpus: int, requests: int | None, rates: tuple[float, ...], period: Period | None) -> pd.DataFrame:
    spec, workers = prepared(bounded(parse(text)), gpus, requests, None), pool()
    points = [curves.LoadPoint(spec, rate, period) for rate in rates]

    def make(work: Work[list[pd.DataFrame]]) -> list[pd.DataFrame]:
        return spread(workers, work, first=True)(curves.load_point, points, lambda *_: None)

    return pd.concat(answers().get(("curve", text, gpus, requests, rates, period), make), ignore_index=True)


def curve_of(found: Suggestion, row: Row, spec: Spec, highest: float) -> pd.DataFrame:
    """Load curve of a candidate from the runs that the answer judges it by, up to a little past `highest` requests/s.

    The candidate's own highest rate is one of its points.
    """
    rates = tuple(sorted({*curves.rates_up_to(highest), *([row.rate] if row.rate > 0 else [])}))
    return _curve(dump(apply(spec, row.split)), found.gpus, found.requests, rates, row.period(found.period))


@st.cache_data(max_entries=KEPT, show_spinner=False)
def sweep_of(text: str, key: str, values: tuple[str, ...]) -> pd.DataFrame:
    for value in values:
        bounded(parse(text, "sweep", [f"{key.strip()}={value}"] if key.strip() else []))
    return curves.sweep(parse(text), key, values)


def shipped(name: str) -> Spec:
    return load(name)
