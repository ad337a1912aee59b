"""The rate search of one candidate: its runs, against exhaustive search, and that it makes few."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.spec import dump, parse
from planner.suggestion.answer import best_of
from planner.suggestion.edge import Edge
from planner.suggestion.probe import Period, lengths_of, load_at, seeded, turn_s, turnaround_s
from planner.suggestion.rows import slower_row
from planner.suggestion.search import Probe, Served, first_guess, highest_rate, probe, probes, sent, served, system_of
from planner.suggestion.splits import PoolSize, Split, apply, splits
from planner.suggestion.suggest import SearchTask, search, suggest
from planner.suggestion.tasks import HALVES, period_of
from planner.suggestion.tune import GAIN, BeginTask, Tuned, TuneTask, begin, tune
from planner.suggestion.tuning import BLOCK_SIZES, BUDGETS, CONNECTORS, Tuning
from planner.system.resolve import System
from planner.traffic.requests import Load
from planner.traffic.workload import at_rate, build
from search_cases import EARLIER, spec, threshold
from simulator.cluster import SimulatedCluster

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


ONE_BY_ONE = {
    "poisson": "{kind: poisson, rate: 1, prompt_tokens: 300, output_tokens: {kind: lognormal, mean: 400, sigma: 0.9}}",
    "bursts": "{kind: gamma, burstiness: 0.3, rate: 1, prompt_tokens: 300, output_tokens: 400}",
    "documents": "{kind: rag, rate: 1, output_tokens: {kind: uniform, low: 1, high: 800}}",
}


@pytest.mark.parametrize("kind", ONE_BY_ONE)
@pytest.mark.parametrize("split", [Split(PoolSize(3, 1)), Split(PoolSize(1, 1), PoolSize(2, 1))])
@pytest.mark.parametrize("caching", [True, False])
def test_answers_that_began_before_a_run_make_it_as_a_long_one_ends(kind: str, split: Split, caching: bool) -> None:
    """From its first moments on tokens take as long as they do at the end, whatever workers have in their caches."""
    more = [
        f"engine.enable_prefix_caching={str(caching).lower()}",
        "slo={ttft_ms: 1000, tpot_ms: 12}",
        "retrieval={top_k: 2}",
    ]
    one = apply(planner.load("disagg", [f"workload={ONE_BY_ONE[kind]}", *more]), split)
    system, rate = system_of(one), 30.0 if kind == "documents" else 60.0
    turnaround = turnaround_s(one, 0)

    def pace(seeds: int, period: Period, begun: bool = True) -> float:
        found = []
        for seed in range(seeds):
            if begun:
                run = served(system, rate, seed, period=period)
                assert isinstance(run, Served)
                found.append(float(run.tpot[run.judged & (run.tokens > 20)].mean()))
                continue
            load = load_at(one, seed, rate, period.seconds)
            visits = SimulatedCluster(replace(system, spec=seeded(one, seed)), load, record_steps=False).run()
            judged = [v for v in visits if v.arrival_s >= period.warmup_s and v.request.output_tokens > 20]
            found.append(
                float(np.mean([(v.finish_s - v.first_token_s) / (v.request.output_tokens - 1) for v in judged]))
            )
        return float(np.mean(found))

    steady = pace(2, Period(24 * turnaround, 8 * turnaround, turnaround))
    short = Period(turnaround / 2, turnaround / 20, turnaround / 2)
    assert pace(8, short) == pytest.approx(steady, rel=0.1)
    assert pace(8, short, begun=False) < 0.9 * steady  # where none has begun, and none follows


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
    half_s = 0.5 + 1500 * 0.03 / 2
    assert found is not None
    assert (found.seconds, found.warmup_s, found.after_s) == (HALVES * half_s, half_s, half_s)
    assert period_of(one, 400, 40.0) == found  # 10 s would see no request end
    short, many = period_of(one, 400, 40.0, long=False), period_of(one, 8000, 40.0)
    assert short is not None
    assert many is not None
    assert (short.seconds, short.warmup_s) == (10.0, 5.0)
    assert (many.seconds, many.warmup_s) == (200.0, half_s)
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


@pytest.mark.parametrize("after", [False, True])
def test_a_probe_judges_the_last_request_before_an_empty_time(after: bool) -> None:
    """Whether others come after it or not."""
    one = spec()
    first_s, second_s = (arrival.time_s for arrival in load_at(one, 0, 0.01).start()[:2])
    end_s = (first_s + second_s) / 2
    period = Period(end_s, (first_s + end_s) / 2, 2 * second_s if after else 0.0)
    found = probe(system_of(one), 0.01, 0, period=period)
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


@given(st.floats(0.01, 1e4), st.floats(0.05, 20.0), st.floats(1.01, 1.5))
def test_bisection_finds_the_edge_from_any_start(limit: float, off: float, step: float) -> None:
    found = highest_rate(partial(threshold, limit), limit * off, tolerance=0.01, step=step)
    assert found.rate <= limit < found.above
    assert found.above / found.rate <= 1.01


def test_a_deployment_that_meets_no_rate() -> None:
    found = highest_rate(partial(threshold, 0.0), 10.0, tolerance=0.01)
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
    period = found.period
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
            # Few requests pass and fail by turns; and the best one is named with what it holds for longer.
            assert 0.85 * best[row.name] < row.rate < 1.08 * best[row.name]


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
    """One decode worker that posts for three others serves 17 requests/s; with larger blocks over twice as many."""
    one = planner.load("disagg", ["slo.ttft_ms=1000"])
    found = suggest(one, 4, seeds=2, requests=200, processes=1, quick=True)
    ours = best_of(found.rows, "disaggregated")
    assert ours is not None
    assert ours.name == "3P1D"
    assert ours.split.tuning.block_size in (64, 128)
    others = [row.rate for row in found.rows if row.mode == "disaggregated" and row is not ours]
    assert ours.rate > 1.2 * max(others)


def test_who_posts_is_chosen_for_the_size_of_the_blocks() -> None:
    """With blocks of 16 push serves as much as pull with blocks of 128: of both knobs neither can be settled first."""
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
    assert large.found.rate > 0.98 * small.found.rate
    assert both.found.rate > 0.98 * large.found.rate


def test_what_a_split_begins_with_is_no_choice_of_the_file() -> None:
    """Its blocks and connector are the closed form's guess: of short prompts push serves a tenth more than that."""
    one = planner.load("disagg", ["workload.prompt_tokens=512", "workload.output_tokens=256", "slo.ttft_ms=1000"])
    split = begin(BeginTask(one, Split(PoolSize(1, 1), PoolSize(1, 1)), 0))
    assert split.tuning == Tuning(block_size=128, connector="NixlConnector")
    system, period = system_of(apply(one, split)), Period(12.0, 4.0, 4.0)
    found = highest_rate(lambda rate: probe(system, rate, 0, period=period), 50.0, tolerance=0.02)
    tuned = tuned_here(TuneTask(one, split, 0, found.rate, first_guess(system, 0), period))
    assert tuned.split.tuning.connector == "NixlPushConnector"
    assert tuned.found is not None
    assert tuned.found.rate > 1.1 * found.rate


def _rate_of(system: System, rate: float) -> Probe:
    return probe(system, rate, 0)


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
    near = 1.01  # at an edge runs pass and fail by turns: brackets of other rates may lie next to each other
    assert racing.rate <= near * plain.above and plain.rate <= near * racing.above
