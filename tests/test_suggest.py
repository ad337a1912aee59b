"""The rate search against exhaustive search, the verdict, what would change it, and how answers are spread."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.changes import faster_links, stretched
from planner.fewest import smallest
from planner.search import Found, Probe, first_guess, highest_rate, load_at, probe, system_of
from planner.slo_presets import MLPERF, preset
from planner.spec import Lognormal, Spec, SpecError, Uniform
from planner.splits import Split, Workers, apply, splits
from planner.suggest import suggest
from planner.suggestion import Check, Suggestion, best_of
from planner.suggestion_words import explanation
from planner.system import resolve
from planner.verdict import Advantage, advantage, decide, profile_error
from planner.verify import Here, checked, largest_part, refusal
from planner.workload import build, scaled

SMALL = ["workload.requests=150", "slo.ttft_ms=1000"]


def spec(*more: str) -> Spec:
    return planner.load("disagg", [*SMALL, *more])


# --- one probe -----------------------------------------------------------------------------------


def test_probes_at_several_rates_serve_the_same_requests() -> None:
    one = spec()
    slow, fast = load_at(one, 3, 4.0).start(), load_at(one, 3, 8.0).start()
    assert [arrival.request for arrival in slow] == [arrival.request for arrival in fast]
    assert [a.time_s for a in slow] == pytest.approx([2 * a.time_s for a in fast])
    seeded = one.model_copy(update={"run": one.run.model_copy(update={"seed": 3})})
    direct = build(scaled(seeded, 8.0)).start()
    assert [a.request for a in direct] == [a.request for a in fast]
    assert [a.time_s for a in direct] == pytest.approx([a.time_s for a in fast])


@pytest.mark.parametrize("split", [Split(Workers(2, 1)), Split(Workers(1, 1), Workers(1, 1))])
@pytest.mark.parametrize("rate", [5.0, 11.0, 16.0, 40.0])
def test_giving_up_early_never_changes_a_verdict(split: Split, rate: float) -> None:
    system = system_of(apply(spec("workload.requests=600"), split))
    early, whole = probe(system, rate, 0), probe(system, rate, 0, early=False)
    assert early.passed == whole.passed
    if not early.abandoned:
        assert early == whole


def test_a_probe_agrees_with_the_metrics_of_a_run() -> None:
    one = spec("workload.rate=12", "workload.requests=400")
    found = probe(system_of(one), 12.0, 0, early=False)
    summary = planner.summarise(planner.simulate(one))
    assert found.attainment == pytest.approx(summary["attainment"], abs=0.12)  # the first tenth is not judged
    assert 1 / found.tokens_s_user == pytest.approx(summary.number("tpot_mean_ms") / 1e3, rel=0.05)


def test_a_queue_that_grows_fails_without_any_target() -> None:
    one = spec("slo.ttft_ms=null", "slo.tpot_ms=null", "workload.requests=500")
    system = system_of(apply(one, Split(Workers(1, 1))))
    assert probe(system, 5.0, 0).passed
    assert not probe(system, 40.0, 0).passed


# --- the search ------------------------------------------------------------------------------------


def _threshold(limit: float, rate: float) -> Probe:
    return Probe(rate, rate <= limit, 1.0, rate, 0.0, 0.0, 0.0, False)


@given(st.floats(0.01, 1e4), st.floats(0.05, 20.0), st.floats(1.01, 1.5))
def test_bisection_finds_the_edge_from_any_start(limit: float, off: float, step: float) -> None:
    found = highest_rate(partial(_threshold, limit), limit * off, tolerance=0.01, step=step)
    assert found.rate <= limit < found.above
    assert found.above / found.rate <= 1.01


def test_a_deployment_that_meets_no_rate() -> None:
    found = highest_rate(partial(_threshold, 0.0), 10.0, tolerance=0.01)
    assert found.rate == 0.0
    assert found.best is None
    assert len(found.probes) < 12


@pytest.mark.parametrize("split", [*splits(3, [1]), Split(Workers(1, 1), Workers(1, 2))], ids=lambda split: split.name)
def test_the_search_agrees_with_every_rate_tried(split: Split) -> None:
    """The highest rate found by bisection is the edge that a grid of whole runs shows."""
    system = system_of(apply(spec(), split))
    found = highest_rate(lambda rate: probe(system, rate, 0), first_guess(system, 0), tolerance=0.02)
    grid = [found.rate * factor for factor in (0.7, 0.85, 0.95, 1.0, 1.05, 1.15, 1.3)]
    passed = [probe(system, rate, 0, early=False).passed for rate in grid]
    assert passed == [True] * 4 + [False] * 3


def test_the_pick_is_that_of_exhaustive_search() -> None:
    """Every split of three GPUs at every rate of a grid, whole runs: the best one is the one suggested."""
    one = spec()
    grid = [8.0 * 1.03**index for index in range(50)]
    best: dict[str, float] = {}
    for split in splits(3, [1]):
        system = system_of(apply(one, split))
        rate = 0.0
        for rate_tried in grid:
            if not probe(system, rate_tried, 0, early=False).passed:
                break
            rate = rate_tried
        best[split.name] = rate
    found = suggest(one, 3, seeds=1, requests=150, processes=1)
    ones = [row for row in found.rows if row.split.largest_tp == 1]
    assert max(best, key=lambda name: best[name]) == ones[0].name
    for row in ones:
        assert row.rate == pytest.approx(best[row.name], rel=0.05)


# --- the whole answer --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answer() -> Suggestion:
    return suggest(spec("cluster.price_per_gpu_hour=2"), 2, seeds=3, requests=150, processes=1)


def test_the_answer(answer: Suggestion) -> None:
    assert [row.name for row in answer.rows[:1]] == [answer.best.name]
    assert [row.rate for row in answer.rows] == sorted((row.rate for row in answer.rows), reverse=True)
    assert {row.name for row in answer.rows} == {"2 agg", "1 agg TP2", "1P1D"}
    assert answer.verdict is not None
    assert answer.sentence.endswith(f": {answer.verdict.word}. {answer.provenance}")
    assert all(row.per_gpu == row.rate / 2 for row in answer.rows)
    best = answer.best
    assert best.cost_per_million_output_tokens == pytest.approx(2 / 3600 / best.output_tokens_s_gpu * 1e6)
    assert planner.spec.parse(answer.yaml).deployment.mode == "aggregated"
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False))["answer"] == answer.sentence


def test_the_front_is_not_beaten(answer: Suggestion) -> None:
    for point in answer.pareto:
        assert not any(
            other.tokens_s_user >= point.tokens_s_user and other.output_tokens_s_gpu > point.output_tokens_s_gpu
            for other in answer.pareto
        )


def test_workers_do_not_change_the_answer(answer: Suggestion) -> None:
    other = suggest(spec("cluster.price_per_gpu_hour=2"), 2, seeds=3, requests=150, processes=2)
    assert json.dumps(other.to_dict()) == json.dumps(answer.to_dict())


@pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("ray") is None, reason="ray is not installed (pip install '.[ray]')"
)
def test_a_ray_cluster_gives_the_same_bytes(answer: Suggestion, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        other = suggest(spec("cluster.price_per_gpu_hour=2"), 2, seeds=3, requests=150, cluster="ray")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert json.dumps(other.to_dict()) == json.dumps(answer.to_dict())


def test_ray_that_is_missing_is_said() -> None:
    if __import__("importlib.util").util.find_spec("ray") is not None:
        pytest.skip("ray is installed")
    with pytest.raises(ImportError, match="--cluster ray needs the package ray"):
        suggest(spec(), 2, seeds=1, requests=50, cluster="ray")


def test_one_gpu_cannot_be_split() -> None:
    found = suggest(spec(), 1, seeds=1, requests=100, processes=1)
    assert found.verdict is None
    assert found.sentence.startswith("1 GPUs can only run aggregated: one aggregated engine serves")


def test_targets_that_nothing_meets() -> None:
    found = suggest(spec("slo.ttft_ms=10"), 2, seeds=1, requests=60, processes=1)
    assert found.sentence.startswith("No use of 2 GPUs meets the targets at any rate.")
    assert all(row.rate == 0 for row in found.rows)


def test_a_slow_link_is_named_with_what_would_do() -> None:
    found = suggest(spec("deployment.link={bandwidth_gb_s: 2}"), 4, seeds=1, requests=150, processes=1)
    assert found.verdict is not None
    assert found.verdict.word == "not worth it"
    link = found.verdict.enough_link
    assert link is not None
    assert link.now_bytes_s == 2e9 < link.bytes_s
    assert any("would be enough for" in line for line in explanation(found.verdict))
    ours = best_of(found.rows, "disaggregated")
    assert ours is not None
    system = system_of(apply(spec("deployment.link={bandwidth_gb_s: 2}"), ours.split))
    assert probe(faster_links(system, link.bytes_s / 2e9), link.rate, 0).passed
    assert not probe(faster_links(system, 0.8 * link.bytes_s / 2e9), link.rate, 0).passed


def test_a_closed_loop_has_no_rate() -> None:
    one = planner.load("agg", ["workload.kind=concurrency", "workload.concurrency=4"])
    with pytest.raises(SpecError, match="'concurrency' has no request rate to vary"):
        suggest(one, 2, processes=1)


def test_swept_variants_compete() -> None:
    found = suggest(spec(), 2, seeds=1, requests=100, sweep=frozenset({"router", "local_prefill"}), processes=1)
    names = {row.name for row in found.rows}
    assert "2 agg, round_robin" in names
    assert "1P1D, least_loaded, local<=0" in names
    assert found.best.rate >= max(row.rate for row in found.rows if row.split.router is None)


def test_the_fewest_gpus() -> None:
    found = smallest(spec(), 14.0, seeds=1, requests=150, processes=1)
    assert found.gpus == found.aggregated_gpus == 2
    assert found.disaggregated_gpus is not None
    assert found.disaggregated_gpus >= 2
    few = smallest(spec(), 14.0, limit=1, seeds=1, requests=150, processes=1)
    assert few.gpus is None


# --- the verdict -------------------------------------------------------------------------------------


def _found(*rates: float) -> list[Found]:
    return [Found(rate, rate * 1.001, ()) for rate in rates]


def test_intervals_are_paired() -> None:
    """Both rise and fall with the seed together, so that only their ratio counts."""
    rates = [10.0, 14.0, 12.0, 18.0, 11.0]
    found = advantage(_found(*(rate * 1.1 for rate in rates)), _found(*rates))
    assert found.value == pytest.approx(0.1, abs=0.002)
    assert found.high - found.low < 0.003
    loose = advantage(_found(*(rate * 1.1 for rate in rates)), _found(*reversed(rates)))
    assert loose.high - loose.low > 0.1
    assert found.text() == "10 % (10 to 10 %) more than"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.09, 0.15, "worth it"),
        (0.07, 0.15, "too close to call"),
        (-0.01, 0.01, "not worth it"),
        (-0.3, -0.2, "not worth it"),
        (0.0, 0.03, "too close to call"),
    ],
)
def test_the_margin_and_the_profiles_error(low: float, high: float, word: str) -> None:
    assert decide(Advantage((low + high) / 2, low, high), margin=0.05, error=0.03) == word


def test_an_uncalibrated_profile_widens_the_margin() -> None:
    fitted, scaled_up, guessed = (
        profile_error([system_of(planner.load("agg", more))]) for more in ([], ["deployment.tp=2"], ["profile=null"])
    )
    assert 0 < fitted < scaled_up < guessed


@pytest.mark.parametrize(
    ("length", "longer"),
    [(100, 120), (1, 1), (Uniform(low=10, high=20), Uniform(low=12, high=24))],
)
def test_longer_prompts(length: Any, longer: Any) -> None:
    assert stretched(length, 1.2) == longer
    drawn = stretched(Lognormal(mean=100, sigma=1, max=500), 1.2)
    assert isinstance(drawn, Lognormal)
    assert (drawn.mean, drawn.max) == (120, 600)


def test_faster_links_change_nothing_else() -> None:
    system = resolve(spec())
    fast = faster_links(system, 2.0)
    assert system.wires is not None
    assert fast.wires is not None
    assert fast.wires.intra_node.bandwidth == 2 * system.wires.intra_node.bandwidth
    assert fast.pools == system.pools
    aggregated = resolve(planner.load("agg"))
    assert faster_links(aggregated, 2.0) is aggregated


def test_presets() -> None:
    assert (preset("mlperf-llama-3.1-8b-interactive").ttft_ms, len(MLPERF)) == (500, 11)
    with pytest.raises(SpecError, match=r"did you mean mlperf-llama-3.1-8b-server\?"):
        preset("mlperf-llama-3.1-8b-serve")


# --- checking for real ---------------------------------------------------------------------------------


class Simulated:
    """Stands in for real servers: what is asked of them is kept."""

    def __init__(self) -> None:
        self.systems: list[Any] = []

    def run(self, system: Any, load: Any, progress: Any = None) -> Any:
        from simulator.backend import SimulatorBackend

        self.systems.append(system)
        return SimulatorBackend().run(system, load)


def _checked(answer: Suggestion, here: Here) -> tuple[Check, str, Simulated]:
    live = Simulated()
    machine: Callable[[], Here] = lambda: here  # noqa: E731
    found = checked(answer, spec(), 1, machine=machine, live=lambda: live)
    assert found.check is not None
    return found.check, found.sentence, live


def test_a_check_on_enough_gpus(answer: Suggestion) -> None:
    check, sentence, live = _checked(answer, Here("gpu", ("NVIDIA H200",) * 2))
    assert check.kind == "checked"
    assert sentence.endswith("; checked]")
    assert [system.gpus for system in live.systems] == [2, 2]  # the best, and the best of the other mode
    assert all(abs(error) < 1e-9 for errors in check.errors.values() for error in errors.values())


def test_a_check_on_too_few_gpus(answer: Suggestion) -> None:
    check, sentence, live = _checked(answer, Here("gpu", ("NVIDIA H200",)))
    assert check.kind == "partly checked"
    assert sentence.endswith("; partly checked]")
    assert [system.gpus for system in live.systems] == [1]
    assert any("1P1D: 2 GPUs needed" in text for text in check.untested)


def test_nothing_else_is_called_a_check(answer: Suggestion) -> None:
    for here in (Here("cpu", ()), Here("gpu", ("NVIDIA L4",))):
        check, sentence, live = _checked(answer, here)
        assert check.kind == "not checked"
        assert sentence == answer.sentence
        assert live.systems == []
    assert refusal(planner.load("cpu-agg"), Here("cpu", ())) is None


def test_the_largest_part_that_fits() -> None:
    part = largest_part(Split(Workers(6, 1), Workers(2, 1)), 60.0, 4)
    assert part is not None
    assert part.split == Split(Workers(3, 1), Workers(1, 1))
    assert part.rate == pytest.approx(0.9 * 30.0)
    assert part.tested[:2] == ("the prefill worker at its full load", "the decode worker at its full load")
    two = largest_part(Split(Workers(6, 1), Workers(2, 1)), 60.0, 2)
    assert two is not None
    assert two.rate == pytest.approx(0.9 * 10.0)
    assert "the decode worker beyond 33% of its load" in two.untested
    assert largest_part(Split(Workers(1, 4)), 10.0, 2) is None
    assert math.isclose(largest_part(Split(Workers(8, 1)), 80.0, 2).rate, 0.9 * 20.0)  # type: ignore[union-attr]
