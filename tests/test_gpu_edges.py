"""benchmarks/gpu/edges.py and begun.py: loads around an edge, and the runs that are shipped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from planner.calibration.fitting import decode_seconds
from planner.calibration.observations import from_steps
from planner.engine.profiles import capture_sizes, load_profile
from planner.run.tables import Run
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


def test_long_writing_on_a_pair_is_as_slow_as_it_was_served() -> None:
    """360 sequences and more: a law of up to 32 had them 25 % too quick. No load of these is in the profile's fit."""
    plan = {name: part for name, part in yaml.safe_load((GPU / "writing.yaml").read_text()).items() if "loads" in part}
    found = edges.judge(plan, GPU.parent / "data" / "h200x2-writing")
    for rows in found.values():
        for one in rows.values():
            assert one["predicted"]["tpot_p50_ms"] == pytest.approx(one["measured"]["tpot_p50_ms"], rel=0.05)
    edge, inside = edges.edges(found["writing-pull"], plan["writing-pull"], "predicted")["writing"]
    assert inside
    assert edge == pytest.approx(7.18, rel=0.05)


@pytest.mark.parametrize("name", ["plain-1", "connected-2", "tp2-1"])
def test_shipped_laws_hold_for_hundreds_of_sequences(name: str) -> None:
    """Recorded steps draw tokens at random, which takes them 3.5 us a sequence more; 448 meet a slow kernel."""
    run = Run.load(GPU.parent / "data" / "h200x2-wide" / name)
    file = load_profile(f"h200x2-llama-3.1-8b-tp{2 if name == 'tp2-1' else 1}").file
    assert file is not None
    law = (file.in_a_pair if name.startswith("connected") else file).step.model_dump()
    rows = from_steps(run.steps, capture_sizes(), given=law)
    rows = rows[(rows["mixed_steps"] == 0) & (rows["decode_steps"] == 1)]
    for low, high in ((1, 64), (64, 128), (128, 256), (256, 432), (448, 512)):
        some = rows[(rows["decode_seqs"] > low) & (rows["decode_seqs"] <= high)]
        more = 3.5e-6 * some["decode_seqs"]
        off = (decode_seconds(law, some) + more) / some["seconds"] - 1
        assert abs(off.median()) < 0.06, (low, off.median())
