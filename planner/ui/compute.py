"""What pages ask of the product layer, remembered by what was asked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import pandas as pd
import streamlit as st

from planner import curves, load
from planner.metrics import Summary, summarise
from planner.records import Progress, Run
from planner.spec import Spec, dump, parse
from planner.spread import cores
from planner.suggest import suggest
from planner.suggestion import Suggestion
from planner.ui.scenario import FIRST_REQUESTS, Scenario
from planner.workload import offered_rate

CURVE_REQUESTS = 600  # of each point of an interactive curve: tails are coarse
MAP_REQUESTS = 300
KEPT = 32
PROCESSES = cores()  # that search together; 1 stays in this process


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


def _key(scenario: Scenario) -> object:
    return dump(scenario.spec()), scenario.gpus, scenario.seeds, scenario.list_length


def answer(scenario: Scenario, progress: Progress | None = None) -> Suggestion:
    """The suggestion for a scenario; what `planner suggest` gives for the same file and options. Raises SpecError."""
    spec = scenario.spec()
    quick = scenario.list_length <= FIRST_REQUESTS  # done before other processes have started

    def make() -> Suggestion:
        count = 1 if quick else PROCESSES
        return suggest(
            spec, scenario.gpus, seeds=scenario.seeds, requests=scenario.list_length, processes=count, progress=progress
        )

    return answers().get(_key(scenario), make)


def known(scenario: Scenario) -> Suggestion | None:
    """The suggestion for a scenario if it has been worked out. Raises SpecError."""
    return answers().known(_key(scenario))


def rate_of(spec: Spec) -> float | None:
    return offered_rate(spec)


@st.cache_resource(max_entries=KEPT, show_spinner=False)
def run_of(text: str, rate: float | None = None, requests: int | None = None) -> Run:
    """One simulated run of a YAML text. Raises SpecError."""
    return curves.simulated(parse(text), rate, requests)


@st.cache_resource(max_entries=4 * KEPT, show_spinner=False)
def summary_of(text: str, rate: float | None = None, requests: int | None = None) -> Summary:
    return summarise(run_of(text, rate, requests))


@st.cache_data(max_entries=KEPT, show_spinner=False)
def curve_of(text: str, highest: float) -> pd.DataFrame:
    """Load curve of a YAML text up to a little past `highest` requests per second."""
    return curves.load_curve(parse(text), curves.rates_up_to(highest), CURVE_REQUESTS)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def map_of(text: str, gpus: int) -> pd.DataFrame:
    return curves.split_map(parse(text), gpus, MAP_REQUESTS)


@st.cache_data(max_entries=KEPT, show_spinner=False)
def sweep_of(text: str, key: str, values: tuple[str, ...]) -> pd.DataFrame:
    return curves.sweep(parse(text), key, values)


def shipped(name: str) -> Spec:
    return load(name)
