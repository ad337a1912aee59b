"""benchmarks/gpu/edges.py and begun.py: loads around an edge, and the runs that are shipped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from planner.traffic.loads import Chained

GPU = Path(__file__).parent.parent / "benchmarks" / "gpu"
sys.path.insert(0, str(GPU))

import edges  # noqa: E402
from begun import begun  # noqa: E402

PLAN = {name: part for name, part in yaml.safe_load((GPU / "edges.yaml").read_text()).items() if "loads" in part}


def test_an_edge_lies_where_the_odds_cross() -> None:
    runs = [(rate, {"attainment": share, "judged": 1000}) for rate, share in ((9.0, 0.999), (10.0, 0.99), (11.0, 0.9))]
    assert edges.edge(runs, 0.99) == (pytest.approx(10.0), True)
    assert not edges.edge(runs, 0.5)[1]


def test_answers_are_under_way_and_others_come_as_often_as_asked() -> None:
    part, key = PLAN["edge-agg"], "chat-37.69"
    load = begun(edges.spec_of(part, key), part["begun"][key])
    assert isinstance(load, Chained)
    first = [one for one in load.start() if one.time_s == 0.0]
    assert len(first) == pytest.approx(37.69 * 0.016 * 211, rel=0.1)
    assert len(load.start()) - len(first) == pytest.approx(37.69 * part["begun"][key]["seconds"], rel=0.1)


def test_sessions_have_begun_at_any_of_their_turns() -> None:
    part, key = PLAN["edge-agg"], "agents-22.73"
    load = begun(edges.spec_of(part, key), part["begun"][key])
    first = [one.request for one in load.start() if one.time_s == 0.0]
    assert {one.request_id % 8 for one in first} == set(range(8))
    assert len(load.followers) > len(first)


def test_shipped_runs_are_judged_to_the_second_that_they_ended_in() -> None:
    name, key = "edge-pull", "writing-7.664"
    records = GPU.parent / "data" / "h200x2-edges"
    one = edges.judge({name: {**PLAN[name], "loads": {key: PLAN[name]["loads"][key]}}}, records)[name][key]
    assert one["measured"]["judged"] == pytest.approx(one["predicted"]["judged"], rel=0.05)  # this client was late
    assert one["measured"]["judged"] == 143
    assert one["measured"]["tpot_p50_ms"] == pytest.approx(32.5, abs=0.1)
