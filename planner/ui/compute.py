"""What pages ask of the product layer, remembered by what was asked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import pandas as pd
import streamlit as st

from planner import load
from planner.run.metrics import Summary, summarise
from planner.run.tables import Progress, Run
from planner.spec import Spec, dump, parse
from planner.suggestion import curves
from planner.suggestion.answer import Suggestion
from planner.suggestion.spread import ProcessPool, Spread, cores, here
from planner.suggestion.suggest import COARSE, SearchTask, prepared, search, suggest
from planner.traffic.workload import offered_rate
from planner.ui.bounds import bounded
from planner.ui.scenario import Scenario

CURVE_REQUESTS = 2000  # of each point of an interactive curve: ten seconds near the highest rates; tails are coarse
MAP_REQUESTS = 300
KEPT = 32
PROCESSES = min(cores(), 16)  # that search together; 1 stays in this process
WARM_REQUESTS = 20


class Answers:
    """The latest answers, the same for every session of this server. Two sessions never work out the same one twice."""

    def __init__(self) -> None:
        self._found: OrderedDict[object, Suggestion] = OrderedDict()
        self._lock = threading.Lock()
        self._busy: dict[object, threading.Lock] = {}

    def get(self, key: object, make: Callable[[], Suggestion]) -> Suggestion:
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            if key not in self._found:
                found = make()
                with self._lock:
                    self._found[key] = found
                    while len(self._found) > KEPT:
                        self._busy.pop(self._found.popitem(last=False)[0], None)
            return self._found[key]

    def known(self, key: object) -> Suggestion | None:
        return self._found.get(key)


@st.cache_resource
def answers() -> Answers:
    return Answers()


@st.cache_resource(show_spinner=False)
def pool() -> Spread:
    """The processes that search, for all sessions: started with the first page, ended with the server."""
    if PROCESSES == 1:
        return here
    workers, question = ProcessPool(PROCESSES), prepared(Scenario().spec(), 2, WARM_REQUESTS, None)
    workers.warm(search, SearchTask(question, 0, None, COARSE, 1.25))
    return workers


def _key(scenario: Scenario) -> object:
    return dump(scenario.spec()), scenario.gpus, scenario.seeds, scenario.list_length


def answer(scenario: Scenario, progress: Progress | None = None) -> Suggestion:
    """The suggestion for a scenario; what `planner suggest` gives for the same file and options. Raises SpecError."""
    spec = bounded(scenario.spec())

    def make() -> Suggestion:
        return suggest(
            spec, scenario.gpus, seeds=scenario.seeds, requests=scenario.requests or None, pool=pool(),
            progress=progress,
        )  # fmt: skip

    return answers().get(_key(scenario), make)


def first_look(scenario: Scenario, progress: Progress | None = None) -> Suggestion:
    """The quick answer that stands until the sure one is known: few splits, one list, no reasons. Raises SpecError."""
    spec = bounded(scenario.spec())

    def make() -> Suggestion:
        return suggest(
            spec, scenario.gpus, seeds=1, requests=scenario.requests or None, pool=pool(), quick=True, progress=progress
        )

    return answers().get(("first look", _key(scenario)), make)


def known(scenario: Scenario) -> Suggestion | None:
    """The suggestion for a scenario if it has been worked out. Raises SpecError."""
    return answers().known(_key(scenario))


def rate_of(spec: Spec) -> float | None:
    return offered_rate(spec)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def run_of(text: str, rate: float | None = None, requests: int | None = None) -> Run:
    """One simulated run of a YAML text. Raises SpecError."""
    return curves.simulated(bounded(parse(text)), rate, requests)


@st.cache_resource(max_entries=4 * KEPT, show_spinner=False)
def summary_of(text: str, rate: float | None = None, requests: int | None = None) -> Summary:
    return summarise(run_of(text, rate, requests))


@st.cache_data(max_entries=KEPT, show_spinner=False)
def curve_of(text: str, highest: float) -> pd.DataFrame:
    """Load curve of a YAML text up to a little past `highest` requests per second."""
    spec = bounded(parse(text))
    points = [curves.Point(spec, rate, CURVE_REQUESTS) for rate in curves.rates_up_to(highest)]
    return pd.concat(pool()(curves.load_point, points, lambda: None), ignore_index=True)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def map_of(text: str, gpus: int) -> pd.DataFrame:
    return curves.split_map(parse(text), gpus, MAP_REQUESTS)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def sweep_of(text: str, key: str, values: tuple[str, ...]) -> pd.DataFrame:
    for value in values:
        bounded(parse(text, "sweep", [f"{key.strip()}={value}"] if key.strip() else []))
    return curves.sweep(parse(text), key, values)


def shipped(name: str) -> Spec:
    return load(name)
