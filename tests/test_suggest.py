"""The rate search against exhaustive search, the verdict, what would change it, and how answers are spread."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.report.words import number
from planner.spec import Lognormal, Spec, SpecError, Uniform, dump, parse
from planner.spec.slo_presets import MLPERF, preset
from planner.suggestion import curves
from planner.suggestion.answer import Check, Smallest, Suggestion, best_of
from planner.suggestion.changes import (
    ROUGH,
    TOLERANCE,
    Held,
    faster_links,
    finer,
    judged,
    lengthened,
    tasks,
    unchanged,
)
from planner.suggestion.edge import Edge, interval, is_found, next_rate
from planner.suggestion.fewest import smallest
from planner.suggestion.probe import Period, lengths_of, load_at, seeded, turn_s, turnaround_s
from planner.suggestion.rows import rough_row, slower_row
from planner.suggestion.search import BLOCKS, Found, Probe, first_guess, highest_rate, probe, probes, sent, system_of
from planner.suggestion.splits import PoolSize, Split, apply, splits
from planner.suggestion.suggest import FIRST_STEP, LOOK, ROUNDS, SearchTask, search, suggest, unproven
from planner.suggestion.tasks import TURNAROUNDS, Searched, period_of
from planner.suggestion.tune import GAIN, Tuned, TuneTask, tune
from planner.suggestion.tuning import BLOCK_SIZES, BUDGETS, CONNECTORS, Tuning
from planner.suggestion.verdict import Advantage, advantage, decide, profile_error, unmeasured
from planner.suggestion.verify import Here, checked, largest_part, refusal
from planner.suggestion.words import explanation, method, smallest_sentence, to_run
from planner.system.resolve import System, resolve
from planner.traffic.requests import Load
from planner.traffic.workload import at_rate, build
from planner.ui.scenario import Scenario
from planner.ui.texts import chinese
from simulator.cluster import SimulatedCluster
from spoken import whole

EARLIER = "profile=h200-llama-3.1-8b-tp1"  # one whose budgets matter at these targets
NONE_PASSED = Searched(1.0, Found(0.0, 1.0, ()))
SMALL = ["workload.requests=150", "slo.ttft_ms=1000"]


def spec(*more: str) -> Spec:
    return planner.load("disagg", [*SMALL, EARLIER, *more])


# --- one probe -----------------------------------------------------------------------------------


def test_probes_at_several_rates_serve_the_same_requests() -> None:
    one = spec()
    slow, fast = load_at(one, 3, 4.0).start(), load_at(one, 3, 8.0).start()
    assert [arrival.request for arrival in slow] == [arrival.request for arrival in fast]
    assert [a.time_s for a in slow] == pytest.approx([2 * a.time_s for a in fast])
    seeded = one.model_copy(update={"run": one.run.model_copy(update={"seed": 3})})
    direct = build(at_rate(seeded, 8.0)).start()
    assert [a.request for a in direct] == [a.request for a in fast]
    assert [a.time_s for a in direct] == pytest.approx([a.time_s for a in fast])


def test_one_run_judged_by_several_targets_passes_by_those_it_would_pass_alone() -> None:
    one = spec()
    targets = [one.slo.model_copy(update={"ttft_ms": 1000.0 * factor}) for factor in (1.0, 0.3, 3.0)]
    told = set()
    for rate in (5.0, 20.0, 40.0, 200.0):
        together = probes(system_of(one), rate, 0, targets)
        alone = [probe(system_of(one.model_copy(update={"slo": slo})), rate, 0) for slo in targets]
        assert [run.passed for run in together] == [run.passed for run in alone]
        told.add(tuple(run.passed for run in together))
    assert len(told) > 1


KINDS = {
    "poisson": "workload={rate: 10, requests: 50, prompt_tokens: {kind: lognormal, mean: 500, sigma: 1}}",
    "gamma": "workload={kind: gamma, burstiness: 0.5, rate: 10, requests: 50}",
    "constant": "workload={kind: constant, rate: 10, requests: 50, output_tokens: {kind: uniform, low: 1, high: 90}}",
    "rag": "workload={kind: rag, rate: 10, requests: 50}",
    "sessions": "workload={kind: sessions, rate: 2, sessions: 10, turns: {kind: uniform, low: 1, high: 5}}",
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seconds_serve_the_head_of_one_list(kind: str) -> None:
    """At twice the rate a run gets about twice as far in the same list, whatever length the YAML names."""
    one = planner.load("disagg", [KINDS[kind], *(["retrieval={}"] if kind == "rag" else [])])
    short, far = (load_at(one, 3, rate, 60.0).start() for rate in (10.0, 20.0))
    assert all(arrival.time_s <= 60.0 for arrival in (*short, *far))
    assert len(far) == pytest.approx(2 * len(short), rel=0.25)
    alike = [a.request.segments == b.request.segments and a.request.output_tokens == b.request.output_tokens
             for a, b in zip(short, far, strict=False)]  # fmt: skip
    assert all(alike)


@pytest.mark.parametrize("rate", [6.0, 12.0, 40.0])
def test_the_longest_answers_of_sessions_need_not_end(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    one = spec("workload={kind: sessions, rate: 2, sessions: 10, turns: 4, output_tokens: {kind: uniform, low: 1, "
               "high: 300}}", "slo.attainment=0.9")  # fmt: skip
    system, period = system_of(apply(one, Split(PoolSize(2, 1)))), Period(40.0, 12.0)
    found = probe(system, rate, 0, period=period)
    monkeypatch.setattr("planner.suggestion.search.OPEN", 0.0)
    whole = probe(system, rate, 0, period=period, early=False)
    assert found.passed == whole.passed
    if not found.abandoned:
        assert found.attainment == pytest.approx(whole.attainment, abs=0.02)


STEADY = {
    "aggregated": (Split(PoolSize(4, 1)), "least_loaded"),
    "by cache": (Split(PoolSize(4, 1)), "prefix_aware"),
    "pools": (Split(PoolSize(3, 1), PoolSize(1, 1)), "least_loaded"),
}


@pytest.mark.parametrize("kind", STEADY)
def test_sessions_that_began_before_a_run_make_it_as_a_long_one_ends(kind: str) -> None:
    """Right after its warm-up: as many requests a second as are asked for, as much of them cached, as long answers."""
    split, policy = STEADY[kind]
    workload = (
        "workload={kind: sessions, rate: 1, sessions: 10, turns: 6, think_time_s: 1, system_tokens: 500, "
        "prompt_tokens: 400, output_tokens: {kind: lognormal, mean: 150, sigma: 0.6, max: 600}}"
    )
    one = apply(spec(workload, "slo={ttft_ms: 500, tpot_ms: 15}", f"deployment.router={{policy: {policy}}}"), split)
    system, rate, turn = system_of(one), 40.0, turn_s(one, 0)

    def mean(seeds: int, load_of: Callable[[int], Load], since_s: float, until_s: float) -> Any:
        found = []
        for seed in range(seeds):
            visits = SimulatedCluster(replace(system, spec=seeded(one, seed)), load_of(seed), record_steps=False).run()
            visits = [visit for visit in visits if since_s <= visit.arrival_s < until_s]
            begun = [visit for visit in visits if visit.served]
            cached = sum(one.cached_tokens for one in begun) / sum(one.request.prompt_tokens for one in begun)
            takes_s = sum(visit.finish_s - visit.arrival_s for visit in visits) / len(visits)
            found.append([len(visits) / rate / (until_s - since_s), cached, takes_s])
        return np.mean(found, axis=0)

    short = Period(4 * turn, 2 * turn)
    steady = mean(3, lambda seed: load_at(one, seed, rate, 24 * turn), 12 * turn, 24 * turn)
    begun = mean(12, lambda seed: sent(system, seed, rate, short), 2 * turn, 4 * turn)
    grows = mean(12, lambda seed: load_at(one, seed, rate, 4 * turn), 2 * turn, 4 * turn)
    assert begun[0] == pytest.approx(1.0, abs=0.05)
    assert begun[1:] == pytest.approx(steady[1:], rel=0.05)
    assert grows[0] < 0.9  # where nobody has begun
    means = lengths_of(system, 0)  # what the closed form takes to be cached: with a router by caches all that was said
    cached = 1 - means.computed / means.prompt
    assert cached > steady[1] if policy == "prefix_aware" else cached == pytest.approx(steady[1], abs=0.05)


def test_a_slower_row_is_its_rough_one_at_the_rate_that_was_found() -> None:
    """Rates follow the rate, what tokens cost goes against it."""
    found = suggest(spec("cluster.price_per_gpu_hour=2"), 2, seeds=1, requests=60, processes=1, quick=True)
    row = next(row for row in found.rows if row.cost_per_million_tokens)
    slower = slower_row(row, row.rate / 2)
    assert (slower.rate, slower.low, slower.high) == (row.rate / 2,) * 3
    assert slower.output_tokens_s_gpu == pytest.approx(row.output_tokens_s_gpu / 2)
    assert row.cost_per_million_tokens is not None
    assert slower.cost_per_million_tokens == pytest.approx(2 * row.cost_per_million_tokens)
    assert not slower.refined


def test_a_run_lasts_longer_than_its_requests() -> None:
    """Short questions, long answers: the number of requests follows from the seconds, not the other way round."""
    one = planner.load(
        "disagg", ["workload.prompt_tokens=300", "workload.output_tokens=1500", "workload.requests=1000"]
    )
    turnaround = turnaround_s(one, 0)
    assert turnaround == pytest.approx(0.5 + 1500 * 0.03)
    found = period_of(one, None, 40.0)
    assert found == Period(TURNAROUNDS * turnaround, turnaround)
    assert period_of(one, 400, 40.0) == found  # 10 s would see no request end
    assert period_of(one, 400, 40.0, least=0) == Period(10.0, 5.0)
    assert period_of(one, 8000, 40.0) == Period(200.0, turnaround)
    assert period_of(planner.load("multi-round-qa"), None, 40.0) is None


@pytest.mark.parametrize("split", [Split(PoolSize(2, 1)), Split(PoolSize(1, 1), PoolSize(1, 1))])
@pytest.mark.parametrize("rate", [5.0, 11.0, 16.0, 40.0])
def test_giving_up_early_never_changes_a_verdict(split: Split, rate: float) -> None:
    system = system_of(apply(spec("workload.requests=600"), split))
    early, whole = probe(system, rate, 0), probe(system, rate, 0, early=False)
    assert early.passed == whole.passed
    if not early.abandoned:
        assert early == whole


def test_a_probe_in_whose_time_nobody_comes_judges_the_first_request() -> None:
    """A search may begin at a rate far below the edge: at one request in 20 minutes, half a minute is empty."""
    found = probe(system_of(spec()), 1 / 1200, 0, period=Period(30.0, 3.0))
    assert found.passed
    assert sum(sent for sent, _ in found.blocks) == 1


def test_a_probe_agrees_with_the_metrics_of_a_run() -> None:
    one = spec("workload.rate=12", "workload.requests=400")
    found = probe(system_of(one), 12.0, 0, early=False)
    summary = planner.summarise(planner.simulate(one))
    assert found.attainment == pytest.approx(summary["attainment"], abs=0.12)  # the first tenth is not judged
    assert 1 / found.tokens_s_user == pytest.approx(summary.number("tpot_mean_ms") / 1e3, rel=0.05)


def test_a_queue_that_grows_fails_without_any_target() -> None:
    one = spec("slo.ttft_ms=null", "slo.tpot_ms=null", "workload.requests=500")
    system = system_of(apply(one, Split(PoolSize(1, 1))))
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


@pytest.mark.parametrize(
    "split", [*splits(3, [1]), Split(PoolSize(1, 1), PoolSize(1, 2))], ids=lambda split: split.name
)
def test_the_search_agrees_with_every_rate_tried(split: Split) -> None:
    """The highest rate found by bisection is the edge that a grid of whole runs shows."""
    system = system_of(apply(spec(), split))
    found = highest_rate(lambda rate: probe(system, rate, 0), first_guess(system, 0), tolerance=0.02)
    grid = [found.rate * factor for factor in (0.7, 0.85, 0.95, 1.0, 1.05, 1.15, 1.3)]
    passed = [probe(system, rate, 0, early=False).passed for rate in grid]
    assert passed == [True] * 4 + [False] * 3


def test_the_pick_is_that_of_exhaustive_search() -> None:
    """Every split of three GPUs at every rate of a grid, whole runs of every seed: the best one is suggested."""
    kept = ["engine.max_num_batched_tokens=8192", "engine.block_size=16"]
    kept += ["deployment.link.connector=NixlConnector"]
    one = planner.load("disagg", ["slo.ttft_ms=1000", "slo.tpot_ms=15", *kept])
    found = suggest(one, 3, seeds=2, requests=300, processes=1)
    assert all(row.split.tuning == Tuning() for row in found.rows)
    assert sum("kept as the file has it" in note for note in found.notes) == 2
    assert found.seconds is not None
    assert found.warmup_s is not None
    period = Period(found.seconds, found.warmup_s)
    best: dict[str, float] = {}
    for split in splits(3, [1]):
        system = system_of(apply(one, split))
        edges = [
            Edge.of([[probe(system, rate, seed, early=False, period=period)] for seed in (0, 1)], one.slo.attainment)
            for rate in (10.0 * 1.04**index for index in range(28))
        ]
        best[split.name] = max(edge.bracket[0] for edge in edges)
    ones = [row for row in found.rows if row.split.largest_tp == 1]
    assert max(best, key=lambda name: best[name]) == ones[0].name
    assert sorted(best.values())[-2] < 0.95 * max(best.values())  # no tie
    for row in ones:
        if row.refined:  # the others were searched roughly
            assert row.rate == pytest.approx(best[row.name], rel=0.08)  # few requests pass and fail by turns


def tuned_here(task: TuneTask) -> Tuned:
    return tune([task], lambda function, inputs, part: [function(one) for one in inputs])[0]


@pytest.mark.parametrize("name", ["2 agg", "1P1D"])
def test_knobs_are_tuned_as_well_as_by_trying_all(name: str) -> None:
    """Every budget, and of P/D every block size and connector, searched from scratch."""
    one = planner.load("disagg", ["slo.tpot_ms=15", EARLIER])
    split = next(split for split in splits(2, [1]) if split.name == name)
    system = system_of(apply(one, split))
    guess = first_guess(system, 0)
    plain = highest_rate(lambda rate: probe(system, rate, 0), guess, tolerance=GAIN)
    tuned = tuned_here(TuneTask(one, split, 0, plain.rate, guess, None))
    pieces = [*itertools.product(BLOCK_SIZES, CONNECTORS)] if split.second else [(None, None)]
    budgets = (1024, 8192) if split.second else BUDGETS  # a few seconds
    best = 0.0
    for budget, (block, connector) in itertools.product(budgets, pieces):
        every = replace(split, tuning=Tuning(budget, block, connector))
        built = system_of(apply(one, every))
        best = max(best, highest_rate(partial(_rate_of, built), guess, tolerance=GAIN).rate)
    assert tuned.found is not None
    assert tuned.found.rate > 1.05 * plain.rate
    assert tuned.found.rate > 0.95 * best
    written = parse(dump(apply(one, tuned.split)))
    assert [pool.limits for pool in system_of(written).pools] == [
        pool.limits for pool in system_of(apply(one, tuned.split)).pools
    ]


def test_a_split_that_posts_hold_back_is_tuned() -> None:
    """One decode worker that posts for three others serves 17 requests/s; with blocks of 128 over twice as many."""
    one = planner.load("disagg", ["slo.ttft_ms=1000"])
    found = suggest(one, 4, seeds=2, requests=200, processes=1, quick=True)
    ours = best_of(found.rows, "disaggregated")
    assert ours is not None
    assert ours.name == "3P1D"
    assert ours.split.tuning.block_size == 128
    others = [row.rate for row in found.rows if row.mode == "disaggregated" and row is not ours]
    assert ours.rate > 1.2 * max(others)


def test_who_posts_is_chosen_for_the_size_of_the_blocks() -> None:
    """With blocks of 16 push serves more, with blocks of 128 pull does: of both knobs neither can be settled first."""
    split, period = Split(PoolSize(3, 1), PoolSize(1, 1)), Period(8.0, 1.6)

    def tuned(*given: str) -> Tuned:
        asked = ("slo.ttft_ms=300", "slo.tpot_ms=10", "engine.max_num_batched_tokens=4096")
        one = planner.load("disagg", [*asked, *given])
        return tuned_here(TuneTask(one, split, 0, 7.0, first_guess(system_of(apply(one, split)), 0), period))

    small, large, both = tuned("engine.block_size=16"), tuned("engine.block_size=128"), tuned()
    assert small.split.tuning.connector == "NixlPushConnector"
    assert both.split.tuning == Tuning(block_size=128, connector="NixlConnector")
    assert small.found is not None
    assert large.found is not None
    assert both.found is not None
    assert large.found.rate > small.found.rate
    assert both.found.rate > 0.98 * large.found.rate


def _rate_of(system: System, rate: float) -> Probe:
    return probe(system, rate, 0)


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
    assert all(row.low <= row.rate <= row.high for row in answer.rows)
    assert {row.name for row in answer.rows if row.refined} >= {answer.best.name, "1P1D"}
    assert answer.seconds == pytest.approx(TURNAROUNDS * (1.0 + 100 * 0.03))  # 150 requests would be sent sooner
    best = answer.best
    assert best.cost_per_million_output_tokens == pytest.approx(2 / 3600 / best.output_tokens_s_gpu * 1e6)
    assert planner.spec.parse(answer.yaml).deployment.mode == "aggregated"
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=False))["answer"] == answer.sentence


def test_the_answer_is_whole_in_chinese(answer: Suggestion) -> None:
    assert answer.verdict is not None
    lines = [answer.sentence, to_run(answer), method(answer), *answer.notes, *explanation(answer.verdict)]
    for line in lines:
        assert line is not None
        whole(line)
    assert {chinese(row.name) for row in answer.rows} == {"2 聚合", "1 聚合 TP2", "1P1D"}


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
    assert found.sentence.startswith("One GPU can only run aggregated: one aggregated engine serves")
    assert whole(found.sentence).startswith("1 个 GPU 只能聚合部署：1 个聚合引擎 在目标内每秒可服务")


def test_no_rough_rate_outranks_what_every_seed_has_shown() -> None:
    """With targets this tight the first list flatters: TP 2 claimed 10 req/s where both end at 5."""
    asked = Scenario(gpus=2, requests=60, seeds=1).with_card("code").spec()
    found = suggest(asked, 2, seeds=1, requests=60, processes=1, quick=True)
    assert found.best.refined
    assert found.best.mode == "aggregated"
    assert best_of(found.rows, "aggregated") is not None
    assert not unproven(found.rows, 3)


@given(st.lists(st.tuples(st.floats(0, 9), st.booleans()), max_size=6))
def test_unproven_rows_are_those_that_claim_more(given: list[tuple[float, bool]]) -> None:
    rows = [
        replace(rough_row(spec(), 8, Split(PoolSize(at + 1, 1)), NONE_PASSED), rate=rate, refined=refined)
        for at, (rate, refined) in enumerate(given)
    ]
    claims = unproven(rows, len(rows))
    top = max((row.rate for row in rows if row.refined), default=0.0)
    assert {row.split for row in rows if not row.refined and row.rate and row.rate >= top} == set(claims)
    assert unproven(rows, 1) == claims[:1]


def test_targets_that_nothing_meets() -> None:
    found = suggest(spec("slo.ttft_ms=10"), 2, seeds=1, requests=60, processes=1)
    assert found.sentence.startswith("No use of 2 GPUs meets the targets at any rate.")
    assert whole(found.sentence).startswith("2 个 GPU 的任何用法在任何速率下都达不到目标。")
    assert all(row.rate == 0 for row in found.rows)


def test_a_slow_link_is_named_with_what_would_do() -> None:
    found = suggest(spec("deployment.link={bandwidth_gb_s: 2}"), 4, seeds=1, requests=150, processes=1)
    assert found.verdict is not None
    assert found.verdict.word == "not worth it"
    link = found.verdict.enough_link
    assert link is not None
    assert link.now_bytes_s == 2e9 < link.bytes_s
    assert any("would be enough for" in line for line in explanation(found.verdict))
    assert all(whole(line) for line in explanation(found.verdict))
    ours = best_of(found.rows, "disaggregated")
    assert ours is not None
    system = system_of(apply(spec("deployment.link={bandwidth_gb_s: 2}"), ours.split))
    assert found.seconds is not None
    assert found.warmup_s is not None
    period = Period(found.seconds, found.warmup_s)
    assert probe(faster_links(system, link.bytes_s / 2e9), link.rate, 0, period=period).passed
    assert not probe(faster_links(system, 0.8 * link.bytes_s / 2e9), link.rate, 0, period=period).passed


def test_a_closed_loop_has_no_rate() -> None:
    one = planner.load("agg", ["workload.kind=concurrency", "workload.concurrency=4"])
    with pytest.raises(SpecError, match="'concurrency' has no request rate to vary; allowed: poisson, gamma, "):
        suggest(one, 2, processes=1)


def test_swept_variants_compete() -> None:
    found = suggest(spec(), 2, seeds=1, requests=60, sweep=frozenset({"router", "local_prefill"}), processes=1)
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


class Queue:
    """A single server with random work and random gaps: where 99 % are done within `limit_s` is known exactly.

    Sojourn times of M/M/1 are exponential with mean 1 / (speed - rate).
    """

    limit_s = 15.0

    def __init__(self, speed: float, seeds: int, trial: int, count: int) -> None:
        self.speed = speed
        draws = np.random.default_rng(trial).exponential(size=(2, seeds, 3 * count + 100))
        self.gaps, self.work = draws  # the same for every speed
        self.period = Period(count / self.truth, 0.1 * count / self.truth)

    @property
    def truth(self) -> float:
        return self.speed - math.log(100) / self.limit_s

    def run(self, seed: int, rate: float) -> Probe:
        arrivals = np.cumsum(self.gaps[seed]) / rate
        arrivals = arrivals[arrivals <= self.period.seconds]
        done = np.cumsum(self.work[seed][: len(arrivals)] / self.speed)
        done = done + np.maximum.accumulate(arrivals - np.concatenate([[0.0], done[:-1]]))
        good = done - arrivals <= self.limit_s
        length = self.period.seconds - self.period.warmup_s
        part = np.floor(BLOCKS * (arrivals - self.period.warmup_s) / length)
        blocks = tuple((int((part == i).sum()), int((good & (part == i)).sum())) for i in range(BLOCKS))
        return Probe(rate, True, 0.0, 0.0, 0.0, 0.0, 0.0, False, True, blocks)

    def edge(self, rough: float, error: float) -> Edge:
        """Run as suggest runs a finalist whose rough rate is `rough` times the truth."""
        first, others = [*range(len(self.gaps))][:LOOK], [*range(len(self.gaps))][LOOK:]
        runs: list[list[Probe]] = [[] for _ in self.gaps]

        def add(seeds: list[int], rates: list[float]) -> None:
            for seed in seeds:
                runs[seed] += [self.run(seed, rate) for rate in rates]

        add(first, [self.truth * rough / FIRST_STEP, self.truth * rough * FIRST_STEP])
        while not (look := Edge.of(runs[: len(first)], 0.99)).is_within(FIRST_STEP**2):
            add(first, [next_rate(look)])
        if others:
            runs[:] = [[one for one in of_seed if one.rate in look.bracket] for of_seed in runs]
            add(others, [*look.bracket])
        while not is_found(found := Edge.of(runs, 0.99), error):
            add(first + others, [next_rate(found)])
        return found


@pytest.mark.parametrize("count", [200, 1000, 2000])
@pytest.mark.parametrize("seeds", [1, 5])
def test_intervals_cover_the_truth_however_short_the_runs(count: int, seeds: int) -> None:
    """95 % intervals of two queues whose highest rates are known; 60 trials with new random numbers each."""
    trials, covered, widths = 60, 0, []
    for trial in range(trials):
        fast, slow = (Queue(speed, seeds, 1000 * count + trial, count) for speed in (1.1, 1.0))
        rough = np.exp(np.random.default_rng(trial).normal(0.03, 0.1, 2))
        found = advantage(*(queue.edge(off, 0.03) for queue, off in zip((fast, slow), rough, strict=True)))
        covered += found.low <= fast.truth / slow.truth - 1 <= found.high
        widths.append(found.high - found.low)
    assert covered / trials >= 0.9  # 3 standard errors below 0.95 would be 0.87
    assert np.median(widths) < 2.0 / math.sqrt(count * seeds / 200)  # and they do shrink


def test_a_bracket_is_as_fine_as_what_is_not_known_makes_worth_it() -> None:
    def of(below: float, above: float) -> Edge:
        runs = [replace(_threshold(5.0, rate), blocks=((50, 50 if rate <= 5 else 45),) * 4) for rate in (below, above)]
        return Edge.of([runs] * 5, 0.99)

    assert not is_found(of(4.9, 5.1), 0.0)
    assert is_found(of(4.9, 5.1), 0.1)
    assert not is_found(of(4.8, 5.2), 0.5)  # however little is known


def test_targets_that_all_may_miss_have_an_edge() -> None:
    runs = [[replace(_threshold(5.0, rate), blocks=((50, 0),) * 4) for rate in (4.0, 6.0)] for _ in range(2)]
    assert math.isfinite(Edge.of(runs, 0.0).expected())


def test_runs_that_fall_behind_at_one_rate_or_the_next_leave_a_narrow_interval() -> None:
    """Nobody misses a target, as where none is set: only whether runs keep up tells the edge."""
    lasting = (10.2, 10.3, 10.1, 10.2, 10.3)  # the highest rate that each seed keeps up with
    every = ((250, 250),) * 4
    runs = [
        [replace(_threshold(20.0, rate), kept_up=rate <= most, blocks=every) for rate in (10.1, 10.2, 10.3)]
        for most in lasting
    ]
    rate, low, high = interval([Edge.of(runs, 0.99)])
    assert 10.0 < low < rate < high < 10.5


def _edge(*steps: float, seeds: int = 5) -> Edge:
    """Runs of 1,000 requests at 10, 10.1, 10.2, ... that miss these shares; every other seed a little more."""
    runs = []
    for seed in range(seeds):
        missed = [round(share * 250 * (1 + 0.2 * (seed % 2))) for share in steps]
        runs.append(
            [Probe(10 + 0.1 * i, True, 0, 0, 0, 0, 0, False, True, ((250, 250 - m),) * 4) for i, m in enumerate(missed)]
        )
    return Edge.of(runs, 0.99)


def test_intervals_are_paired() -> None:
    """Both rise and fall with the seed together, so that only their ratio counts."""
    one = _edge(0.004, 0.008, 0.016, 0.032)
    assert one.bracket == (pytest.approx(10.1), pytest.approx(10.2))
    alone, both = interval([one]), interval([one, one])
    assert 10.1 <= alone[0] <= 10.2
    assert both[0] == 1.0
    bracket = 2**0.5 * math.log(10.2 / 10.1) / 2
    assert math.log(both[2]) == pytest.approx(0.95 * bracket, rel=1e-6)  # nothing but what the rates leave open
    with pytest.raises(ValueError, match="as many seeds"):
        interval([one, _edge(0.004, 0.016, seeds=4)])


def test_targets_that_all_must_meet_have_an_edge() -> None:
    """No miss is allowed: the edge lies between the last rate without one and the first with one."""
    misses = {10.0: (0, 0, 0, 0, 0), 10.1: (0, 0, 0, 0, 0), 10.2: (0, 0, 0, 1, 0), 10.3: (2, 0, 1, 2, 1)}
    full = ((250, 250),) * 3
    runs = [
        [
            Probe(rate, True, 0, 0, 0, 0, 0, False, True, ((250, 250 - missed[seed]), *full))
            for rate, missed in misses.items()
        ]
        for seed in range(5)
    ]
    edge = Edge.of(runs, 1.0)
    assert edge.bracket == (10.1, 10.2)
    rate, low, high = interval([edge])
    assert 10.1 <= rate <= 10.2
    assert 9.5 < low < rate < high < 11


def test_lines_that_still_grow_widen_the_interval() -> None:
    """Few misses in the first half of the runs and many in the second: the runs were too short to tell."""

    def edge(*parts: float) -> Edge:
        """Ever twice as many misses at rates 2 % apart; `parts`: how they spread over a run."""
        runs = [
            Probe(
                10 * 1.02**i, True, 0, 0, 0, 0, 0, False, True, tuple((1000, 1000 - round(m * part)) for part in parts)
            )
            for i, m in enumerate((10, 20, 40, 80, 160))
        ]
        return Edge.of([runs] * 5, 0.99)

    _, low, high = interval([edge(0.0, 0.2, 0.3, 0.5)])
    _, calm_low, calm_high = interval([edge(0.25, 0.25, 0.25, 0.25)])
    assert high - low > 1.2 * (calm_high - calm_low)


def test_changes_are_held_against_the_same_search_unchanged() -> None:
    """Short searches of one seed are off; what counts is how far a change moves them."""
    found = [Found(20.0, 20.2, ()), Found(16.0, 16.16, ()), Found(22.0, 22.22, ()), Found(16.0, 16.16, ())]
    now = Advantage(0.10, 0.07, 0.13)
    change = judged(["prompts 20 % longer"], found, now, 0.05, 0.03)[0]
    assert change.advantage == pytest.approx(1.1 * 1.1 - 1)
    assert (decide(now, 0.05, 0.03), change.word) == ("too close to call", "worth it")


@pytest.mark.parametrize(
    ("ours", "finer_ones"),
    [
        ((20.0, 21.0), []),  # not worth it, as it is
        ((23.0, 24.4), [0, 1, 2, 3]),  # at one end too close to call
        ((28.0, 29.4), [0, 1]),  # worth it: the first one is named
    ],
)
def test_a_rough_change_is_told_finer_where_the_verdict_is_open_or_another(
    ours: tuple[float, float], finer_ones: list[int]
) -> None:
    """Two changes that do the same."""
    spec = planner.load("disagg")
    split = next(one for one in splits(2, [1]) if one.mode == "disaggregated")
    pair = unchanged(spec, (split, 20.0), (split, 16.0), 0)
    rough = [replace(task, enough=ROUGH) for task in (*pair, *pair)]
    found = [Found(20.0, 20.2, ()), Found(16.0, 16.16, ()), *2 * [Found(*ours, ()), Found(16.0, 16.8, ())]]
    wanted = finer(rough, found, Advantage(0.25, 0.22, 0.28), 0.50, 0.03, False)
    assert {at: one.enough for at, one in wanted.items()} == dict.fromkeys(finer_ones, TOLERANCE)


def test_what_a_change_leaves_alone_is_not_searched_again() -> None:
    spec = planner.load("disagg")
    candidates = splits(2, [1])
    ours, theirs = (next(one for one in candidates if one.mode == mode) for mode in ("disaggregated", "aggregated"))
    pair = unchanged(spec, (ours, 20.0), (theirs, 16.0), 0)
    others = ((),) * len(pair[0].judges)
    held = [Held(Found(20.0, 20.2, ()), others), Held(Found(16.0, 16.16, ()), others)]
    names, wanted = tasks(spec, pair, held)
    same = {str(name) for name, task in zip(names, wanted[1::2], strict=True) if task == pair[1]}
    assert {name for name in same if "link" in name} == {
        "link bandwidth 20 % more",
        "link bandwidth 20 % less",
    }
    assert not any("prompts" in name or "target" in name or "outputs" in name for name in same)


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
    assert lengthened(length, 1.2) == longer
    drawn = lengthened(Lognormal(mean=100, sigma=1, max=500), 1.2)
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
    part = largest_part(Split(PoolSize(6, 1), PoolSize(2, 1)), 60.0, 4)
    assert part is not None
    assert part.split == Split(PoolSize(3, 1), PoolSize(1, 1))
    assert part.rate == pytest.approx(0.9 * 30.0)
    assert part.tested[:2] == ("the prefill worker at its full load", "the decode worker at its full load")
    two = largest_part(Split(PoolSize(6, 1), PoolSize(2, 1)), 60.0, 2)
    assert two is not None
    assert two.rate == pytest.approx(0.9 * 10.0)
    assert "the decode worker beyond 33% of its load" in two.untested
    assert largest_part(Split(PoolSize(1, 4)), 10.0, 2) is None
    assert math.isclose(largest_part(Split(PoolSize(8, 1)), 80.0, 2).rate, 0.9 * 20.0)  # type: ignore[union-attr]


# --- hand-overs that nobody measured -----------------------------------------------------------------


def test_worth_it_needs_more_where_hand_overs_were_not_measured() -> None:
    clear, slight, worse = Advantage(0.6, 0.5, 0.7), Advantage(0.2, 0.15, 0.25), Advantage(-0.2, -0.3, -0.1)
    assert [decide(one, 0.05, 0.02) for one in (clear, slight, worse)] == ["worth it", "worth it", "not worth it"]
    unknown = [decide(one, 0.05, 0.02, unknown=True) for one in (clear, slight, worse)]
    assert unknown == ["worth it", "not known yet", "not worth it"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([], None),
        (["engine.block_size=128"], None),
        (["engine.block_size=32"], "hand-overs of block_size 32 (measured: 16, 64, 128)"),
        (["engine.block_size=128", "deployment.link.connector=NixlPushConnector"], None),
        (["deployment.decode.tp=2"], "hand-overs at TP 1, 2 (measured: 1)"),
        (["deployment.link.cross_layer_blocks=true"], "hand-overs of cross-layer blocks"),
        (["deployment.link.preset=nvlink"], "what a hand-over over nvlink costs the workers"),
        (["deployment.link.preset=nvlink", "deployment.link.post_us=3"], None),
    ],
)
def test_what_is_not_measured_about_hand_overs(keys: list[str], told: str | None) -> None:
    assert unmeasured(resolve(planner.load("disagg", keys))) == told


def test_engines_that_hand_nothing_over_have_nothing_to_measure() -> None:
    assert unmeasured(resolve(planner.load("agg"))) is None
    assert unmeasured(resolve(planner.load("cpu-1p1d"))) is None


@pytest.mark.parametrize("off", [1 / 30, 1 / 2, 1.0, 3.0, 100.0])
def test_an_edge_far_from_where_the_search_began_is_found(off: float) -> None:
    """First searches use one list of requests; all lists together may be far from it (1 GPU at tight targets)."""
    limit, runs = 5.0, list[list[Probe]]([[], []])
    rates = [limit * off / 1.04, limit * off, limit * off * 1.04]
    for _ in range(ROUNDS):
        for rate in rates:
            for of_seed in runs:
                of_seed.append(replace(_threshold(limit, rate), blocks=((50, 50 if rate <= limit else 45),) * 4))
        found = Edge.of(runs, 0.99)
        rates = [] if is_found(found, 0.0) else [next_rate(found)]
        if not rates:
            break
    below, above = found.bracket
    assert below <= limit < above
    assert above / below <= 1.011


# --- fewer runs ----------------------------------------------------------------------------------


@given(
    edge=st.floats(1.0, 1000.0), start=st.floats(0.3, 3.0), power=st.floats(5.0, 60.0), tolerance=st.floats(0.01, 0.1)
)
def test_shares_that_miss_lead_to_the_edge_with_no_more_runs_than_halving(
    edge: float, start: float, power: float, tolerance: float
) -> None:
    def run(rate: float) -> Probe:
        missed = min(0.01 * (rate / edge) ** power, 1.0)
        return Probe(rate, missed <= 0.01, 1 - missed, rate, 0.0, 0.0, 0.0, missed > 0.02)

    halved = highest_rate(run, start * edge, tolerance=tolerance)
    aimed = highest_rate(run, start * edge, tolerance=tolerance, missing=0.01)
    for found in (halved, aimed):
        assert found.rate <= edge * (1 + 1e-9) and edge * (1 - 1e-9) <= found.above
        assert found.above / found.rate <= 1 + tolerance
    assert len(aimed.probes) <= len(halved.probes) + 2
    again = highest_rate(run, start * edge, tolerance=tolerance, missing=0.01, known=aimed.probes)
    assert again == aimed


def test_a_candidate_below_the_bar_is_searched_roughly_and_one_above_it_as_without() -> None:
    one = spec("deployment.prefill.replicas=1", "deployment.decode.replicas=1")
    plain = search(SearchTask(one, 0, None, 0.02, 1.25)).found
    lost = search(SearchTask(one, 0, None, 0.02, 1.25, bar=1.5 * plain.rate)).found
    assert lost.above <= 1.5 * plain.rate
    assert len(lost.probes) < len(plain.probes)
    assert lost.rate * 0.98 <= plain.above and plain.rate <= lost.above
    racing = search(SearchTask(one, 0, None, 0.02, 1.25, bar=0.9 * plain.rate)).found
    assert racing.above / racing.rate <= 1.02
    assert racing.rate <= plain.above and plain.rate <= racing.above


def test_progress_goes_forward_in_each_stage() -> None:
    told: list[tuple[str, float]] = []
    suggest(spec(), 2, seeds=2, processes=1, progress=lambda stage, done: told.append((stage, done)))
    stages = [stage for stage, _ in itertools.groupby(told, key=lambda item: item[0])]
    assert len(stages) == len(set(stages))
    for stage in stages:
        done = [share for name, share in told if name == stage]
        assert done == sorted(done)
        assert done[-1] == pytest.approx(1.0)


LONG_ANSWERS = "{kind: lognormal, mean: 1500, sigma: 0.9, max: 6000}"


@pytest.mark.parametrize(("output", "told"), [(LONG_ANSWERS, True), ("20", False)])
def test_a_rate_that_traffic_does_not_keep_for_longer_is_said(output: str, told: bool) -> None:
    """Long answers fill an engine more slowly than a run lasts; short ones do not."""
    workload = f"workload={{kind: poisson, rate: 1, prompt_tokens: 300, output_tokens: {output}}}"
    one = planner.load("agg", [workload, "slo={ttft_ms: 1000, tpot_ms: 30}", "engine.max_num_seqs=1024"])
    found = suggest(one, 1, seeds=1, requests=150 if told else 1500, processes=1)
    notes = [note for note in found.notes if "less is held for long" in note]
    assert len(notes) == told
    assert not told or notes[0].startswith("1 agg: sent for 413 s instead of 138 s, even ")


def test_without_targets_the_rate_is_what_does_not_pile_up_and_that_is_said() -> None:
    one = planner.load("agg", ["slo={ttft_ms: null, tpot_ms: null}", "workload.requests=100"])
    found = suggest(one, 1, seeds=1, requests=100, processes=1)
    assert found.sentence.split(" [")[0].endswith("req/s without falling behind.")
    assert "no target is set" in (to_run(found) or "")


def test_targets_that_nothing_meets_are_answered_with_the_least_that_is_possible() -> None:
    one = planner.load("agg", ["slo={ttft_ms: 0.1, tpot_ms: 30}", "workload.requests=100"])
    found = suggest(one, 1, seeds=1, requests=100, processes=1)
    idle = planner.summarise(curves.nearly_idle(parse(found.yaml)))
    assert not found.best.rate
    assert number(idle["ttft_p99_ms"]) in next(note for note in found.notes if "nearly idle" in note)
    none = smallest_sentence(replace(found, smallest=Smallest(5.0, None, None, None, None, 64)))
    assert none == "Up to 64 GPUs do not serve 5 req/s within the targets."
    edge = smallest_sentence(replace(found, smallest=Smallest(5.0, 1, "1 agg", 1, None, 64)))
    assert edge is not None
    assert edge.startswith("1 GPU may be enough for 5 req/s")
