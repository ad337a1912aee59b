"""Every metric against figures worked out by hand, and the exact pooled percentiles against a full expansion."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hand_made import manifest, requests, run
from planner.run import gaps
from planner.run.facts import STAGES, Facts, Window, growth
from planner.run.metrics import METRICS, summarise
from planner.run.tables import Run, frame
from planner.spec import Slo


def test_latencies_and_rates() -> None:
    summary = summarise(run(requests([0, 1, 2, 3], [0.1, 0.2, 0.3, 0.4], tpot=0.02)))
    assert summary["ttft_mean_ms"] == pytest.approx(250)
    assert summary["ttft_p50_ms"] == pytest.approx(250)
    assert summary["ttft_p90_ms"] == pytest.approx(np.percentile([100, 200, 300, 400], 90))
    assert summary["ttft_max_ms"] == pytest.approx(400)
    assert summary["tpot_p99_ms"] == pytest.approx(20)
    assert summary["e2e_p50_ms"] == pytest.approx(450)
    assert summary["tokens_per_s_per_user"] == pytest.approx(50)
    assert summary["duration_s"] == pytest.approx(3.6)  # first send to last finish
    assert summary["requests_per_s"] == pytest.approx(4 / 3.6)
    assert summary["input_tokens_per_s"] == pytest.approx(400 / 3.6)
    assert summary["output_tokens_per_s"] == pytest.approx(44 / 3.6)
    assert summary["total_tokens_per_s"] == pytest.approx(444 / 3.6)
    assert summary["offered_requests_per_s"] == pytest.approx(1.0)
    assert summary["steady_s"] == pytest.approx(2.7)


def test_rates_per_gpu_count_every_gpu() -> None:
    one = run(requests([0, 1], [0.1, 0.1]))
    eight = Run(**{**one.__dict__, "manifest": {**one.manifest, "gpus": 8}})
    for name in ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s", "goodput_requests_per_s"):
        whole = summarise(one)[name]
        assert whole is not None
        assert summarise(eight)[f"{name}_per_gpu"] == pytest.approx(whole / 8)


def test_an_answer_of_one_token_has_no_tpot_and_meets_its_target() -> None:
    summary = summarise(run(requests([0, 1], [0.1, 0.1], tokens=1)))
    assert summary["tpot_mean_ms"] is None
    assert summary["attainment"] == 1.0


def test_goodput_needs_every_target_and_failures_miss() -> None:
    table = requests(
        [0, 1, 2, 3, 4],
        [0.1, 0.6, 0.1, 0.1, 0.1],
        finish_reason=["length", "length", "rejected", "error", "stop"],
    )
    summary = summarise(run(table))
    assert summary["completed"] == 3
    assert summary["rejected"] == 1
    assert summary["failed"] == 1
    assert summary["attainment"] == pytest.approx(2 / 5)
    assert summary["ttft_attainment"] == pytest.approx(2 / 5)
    assert summary["tpot_attainment"] == pytest.approx(3 / 5)
    assert summary["e2e_attainment"] is None  # no target set
    assert summary["goodput_requests_per_s"] == pytest.approx(2 / summary.number("duration_s"))
    assert not summary.meets_targets
    assert summarise(run(table), Slo(ttft_ms=None, tpot_ms=None, attainment=0.6)).meets_targets


def test_warmup_requests_are_left_out() -> None:
    table = requests([0, 1, 10, 11], [5, 5, 0.1, 0.1])
    summary = summarise(run(table, run={"warmup_requests": 2}))
    assert summary["requests"] == 2
    assert summary["ttft_max_ms"] == pytest.approx(100)
    assert summary["duration_s"] == pytest.approx(1.2)


def test_cache_preemptions_local_share_and_cost() -> None:
    table = requests(
        [0, 1, 2, 3],
        [0.1] * 4,
        cached_tokens=[0, 50, 50, None],
        preemptions=[0, 2, 0, 1],
        worker=["prefill-0", "prefill-0", "prefill-0", "decode-0"],
        decode_worker=["decode-0"] * 4,
    )
    summary = summarise(run(table, mode="disaggregated", cluster={"price_per_gpu_hour": 3.6}))
    assert summary["cache_hit_rate"] == pytest.approx(100 / 300)  # the unknown one counts neither way
    assert summary["preemptions"] == 3
    assert summary["local_prefill_share"] == pytest.approx(0.25)
    spent = 3.6 * 2 * summary.number("duration_s") / 3600
    assert summary["cost_per_million_output_tokens"] == pytest.approx(spent / 44 * 1e6)
    assert summary["cost_per_million_tokens"] == pytest.approx(spent / 444 * 1e6)


def test_retrieval_is_told_apart_from_the_engine() -> None:
    table = requests(
        [0.0, 1.0],
        [0.5, 0.5],
        retrieval_start_s=[0.05, 1.05],
        retrieval_end_s=[0.15, 1.15],
        queued_s=[0.16, 1.16],
        prefill_start_s=[0.2, 1.2],
        prefill_end_s=[0.49, 1.49],
    )
    summary = summarise(run(table, retrieval={"workers": 1}))
    assert summary["retrieval_mean_ms"] == pytest.approx(100)
    assert summary["ttft_without_retrieval_mean_ms"] == pytest.approx(350)
    assert summary.stages_ms["retrieval"] == pytest.approx(150)
    assert summary.stages_ms["queue"] == pytest.approx(40)
    assert summary["ttft_share_retrieval"] == pytest.approx(0.3)
    assert summary["retrieval_utilization"] == pytest.approx(0.05 / 0.9, rel=1e-6)  # the window is 0.1 to 1.0


# --- stages ------------------------------------------------------------------------------------

pd_row = {
    "worker": ["prefill-0"],
    "decode_worker": ["decode-0"],
    "queued_s": [0.01],
    "prefill_start_s": [0.03],
    "prefill_end_s": [0.13],
    "transfer_start_s": [0.14],
    "transfer_end_s": [0.16],
    "decode_start_s": [0.17],
}


def test_stages_of_a_handed_over_request() -> None:
    facts = Facts(run(requests([0.0], [0.2], **pd_row), mode="disaggregated"))
    stages = {name: float(values[0]) for name, values in facts.stages.items()}
    expected = {
        "host": 0.01,
        "queue": 0.02,
        "prefill": 0.1,
        "transfer": 0.02,
        "decode_wait": 0.02,
        "first_decode": 0.03,
    }
    assert {name: value for name, value in stages.items() if value} == pytest.approx(expected)


def test_kv_moved_after_the_first_token_is_not_part_of_ttft() -> None:
    deployment = {"mode": "disaggregated", "first_token": "prefill"}
    facts = Facts(run(requests([0.0], [0.135], **pd_row), mode="disaggregated", deployment=deployment))
    assert facts.stages["transfer"][0] == 0
    assert facts.stages["host"][0] == pytest.approx(0.015)
    assert facts.stages["first_decode"][0] == 0


times = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=8, max_size=8)


@given(st.lists(times, min_size=1, max_size=5), st.booleans())
def test_stages_add_up_to_ttft_whatever_is_known(rows: list[list[float | None]], local: bool) -> None:
    names = [
        "retrieval_start_s", "retrieval_end_s", "queued_s", "prefill_start_s", "prefill_end_s",
        "transfer_start_s", "transfer_end_s", "decode_start_s",
    ]  # fmt: skip
    known = [sorted(value for value in row if value is not None) for row in rows]
    ordered = [[None if value is None else known[i].pop(0) for value in row] for i, row in enumerate(rows)]
    columns = {name: [math.nan if row[i] is None else row[i] for row in ordered] for i, name in enumerate(names)}
    worker = "decode-0" if local else "prefill-0"
    n = len(rows)
    table = requests([0.0] * n, [1.0] * n, worker=[worker] * n, decode_worker=["decode-0"] * n, **columns)
    facts = Facts(run(table, mode="disaggregated"))
    assert list(facts.stages) == list(STAGES)
    np.testing.assert_allclose(sum(facts.stages.values()), facts.ttft, atol=1e-12)
    assert all((values >= -1e-9).all() for values in facts.stages.values())


def test_what_is_not_recorded_is_unobserved() -> None:
    blind = {name: [math.nan] for name in ("prefill_start_s", "prefill_end_s", "decode_start_s")}
    facts = Facts(run(requests([0.0], [0.2], **{**blind, "queued_s": [0.05]})))
    assert facts.stages["host"][0] == pytest.approx(0.05)
    assert facts.stages["unobserved"][0] == pytest.approx(0.15)


# --- gaps --------------------------------------------------------------------------------------

progressions = st.lists(
    st.tuples(
        st.sampled_from([0.005, 0.0051, 0.006, 0.02]),
        st.sampled_from([0.0, 1e-6, 3e-5]),
        st.integers(1, 60),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=30,
)


@given(progressions, st.sampled_from([1, 40, 20_000]))
def test_pooled_gaps_equal_their_expansion(rows: list[tuple[float, float, int, int]], expand: int) -> None:
    first, grows, count, weight = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    every = np.concatenate([np.repeat(f + np.arange(c) * g, w) for f, g, c, w in rows])
    pooled = gaps.Gaps(first, grows, count, weight)
    percents = [0, 1, 50, 77.7, 90, 99, 100]
    usual, gaps._EXPAND = gaps._EXPAND, expand
    try:
        np.testing.assert_allclose(pooled.percentiles(percents), np.percentile(every, percents), rtol=1e-9)
    finally:
        gaps._EXPAND = usual
    assert pooled.total == len(every)
    assert pooled.mean() == pytest.approx(every.mean())
    assert pooled.std() == pytest.approx(every.std(), abs=1e-12)
    assert pooled.maximum() == pytest.approx(every.max())


def test_itl_from_steps_and_from_tokens() -> None:
    table = requests([0.0], [0.1], tokens=5, tpot=0.02)
    # two sequences for three steps of 10, 12 and 14 ms; a prompt alone gives no gap
    rows = [
        {"start_s": 0.1, "duration_s": 0.036, "count": 3, "growth_s": 0.002, "decode_seqs": 2},
        {"start_s": 0.0, "duration_s": 0.1, "prefill_tokens": 100},
    ]
    stepped = run(table, rows)
    assert summarise(stepped)["itl_mean_ms"] == pytest.approx(12)
    assert summarise(stepped)["itl_p50_ms"] == pytest.approx(12)
    assert summarise(stepped)["itl_max_ms"] == pytest.approx(14)
    tokens = frame("tokens", {"request_id": [0, 0, 0], "index": [0, 2, 1], "time_s": [0.1, 0.16, 0.12]})
    streamed = Run(**{**stepped.__dict__, "tokens": tokens})
    assert summarise(streamed)["itl_mean_ms"] == pytest.approx(30)  # 20 and 40, in order of index
    assert summarise(run(table))["itl_mean_ms"] is None


def _priced(made: Run, **costs: Any) -> Facts:
    """The run with what API servers do beside handing out tokens: nothing but `costs`."""
    nothing = {
        "first_token_per_token_s": 0.0, "request_s": 0.0, "request_per_token_s": 0.0, "way_s": 0.0,
        "way_per_token_s": 0.0, "read_s": 0.0, "read_every_s": [],
    }  # fmt: skip
    return Facts(Run(**{**made.__dict__, "manifest": {**made.manifest, "answering": nothing | costs}}))


@pytest.mark.parametrize("pair", [False, True])
def test_first_tokens_hold_up_those_that_come_with_them(pair: bool) -> None:
    """100 prompt tokens at 20 us: what ends with a step comes 2 ms late, and the next token that much sooner after."""
    worker = "decode-0" if pair else "aggregated-0"
    begins, ends = [0.0, 0.136], [0.1, 0.15]
    of_pair = {"transfer_start_s": [0.0, 0.12], "transfer_end_s": [0.0, 0.13]} if pair else {}
    table = requests([0.0, 0.0], [0.1, 0.15], worker=["prefill-0" if pair else worker] * 2, decode_worker=[worker] * 2,
                     prefill_end_s=[-1.0, -1.0] if pair else ends, decode_start_s=begins if pair else ends,
                     **of_pair)  # fmt: skip
    rows = [
        {"start_s": 0.0, "duration_s": 0.1, "decode_seqs": 1},  # ends the first prompt
        {"start_s": 0.1, "duration_s": 0.036, "count": 3, "growth_s": 0.002, "decode_seqs": 1},
        {"start_s": 0.136, "duration_s": 0.014, "decode_seqs": 1},  # ends the second
        {"start_s": 0.15, "duration_s": 0.01, "decode_seqs": 1},
    ]
    made = run(table, [{**row, "worker": worker} for row in rows], mode="disaggregated" if pair else "aggregated")
    priced = _priced(made, first_token_per_token_s=2e-5)
    assert priced.gaps is not None
    assert priced.step_gaps is not None
    found = priced.gaps.first[priced.gaps.count == 1]
    assert sorted(1e3 * found) == pytest.approx([8.0, 8.0, 16.0, 102.0])
    assert priced.gaps.mean() == pytest.approx(priced.step_gaps.mean())
    assert priced.gaps.total == priced.step_gaps.total == 6
    assert priced.gaps.maximum() == pytest.approx(0.102)
    assert priced.gaps.percentiles([50]) == pytest.approx([0.013])  # 8, 8, 12, 14, 16, 102
    assert priced.step_gaps.percentiles([50]) == pytest.approx([0.013])  # 10, 10, 12, 14, 14, 100


def _even_steps(*rows: dict[str, Any], **of_request: Any) -> Run:
    """Steps of 10 ms from 0 on, 100 of them in one row unless `rows` say it; one sequence."""
    table = requests([0.0], [1.0], **of_request)
    given = rows or ({"start_s": 0.0, "duration_s": 1.0, "count": 100},)
    return run(table, [{"decode_seqs": 1, **row} for row in given])


def test_tokens_wait_while_their_server_takes_in_a_prompt() -> None:
    """It works from 0.127 to 0.133 s: the token of 0.13 leaves 3 ms late, whichever row it stands in."""
    rows = {"start_s": 0.0, "duration_s": 0.13, "count": 13}, {"start_s": 0.13, "duration_s": 0.87, "count": 87}
    for made in (_even_steps(queued_s=[0.133]), _even_steps(*rows, queued_s=[0.133])):
        found = _priced(made, request_s=0.001, request_per_token_s=5e-5).gaps
        assert found is not None
        assert found.total == 100
        assert found.mean() == pytest.approx(0.010)
        assert found.maximum() == pytest.approx(0.013)
        assert found.percentiles([0, 50]) == pytest.approx([0.007, 0.010])


def test_a_decode_server_takes_a_prompt_in_after_its_way() -> None:
    moved = {"transfer_start_s": [0.2], "transfer_end_s": [0.3], "decode_start_s": [0.3], "prefill_end_s": [0.12],
             "worker": ["prefill-0"], "decode_worker": ["aggregated-0"]}  # fmt: skip
    costs = {"way_s": 0.004, "way_per_token_s": 9e-5, "request_s": 0.006}
    found = _priced(_even_steps(**moved), **costs).gaps  # 0.127 to 0.133
    assert found is not None
    assert found.maximum() == pytest.approx(0.013)


def test_tokens_wait_while_metrics_are_read() -> None:
    """Each 0.1 s, from 0.025 on, for 6 ms: that of 0.03 leaves at 0.031. Work that takes longer holds up several."""
    read = _priced(_even_steps(), read_s=0.006, read_every_s=[0.1]).gaps
    assert read is not None
    assert read.percentiles([0, 50, 100]) == pytest.approx([0.009, 0.010, 0.011])
    assert (read.count[read.weight > 0].sum(), int((read.first > 0.0105).sum())) == (100, 10)
    long = _priced(_even_steps(), read_s=0.028, read_every_s=[1.0]).gaps  # from 0.25 to 0.278: all of three at once
    assert long is not None
    assert long.percentiles([0, 100]) == pytest.approx([0.0, 0.038])
    assert long.mean() == pytest.approx(0.010)
    assert long.total == 100


def test_growing_steps_are_found_by_when_they_end() -> None:
    """Steps of 10, 10.1, 10.2 ms and so on against a list of them all."""
    lengths = 0.010 + 1e-4 * np.arange(60)
    row = {"start_s": 0.0, "duration_s": float(lengths.sum()), "count": 60, "growth_s": 1e-4}
    found = _priced(_even_steps(row), read_s=0.004, read_every_s=[0.017]).gaps
    assert found is not None
    due = np.cumsum(lengths)
    begun = np.floor(due / 0.017 - 0.25) * 0.017 + 0.25 * 0.017
    seen = np.maximum(due, np.where(begun >= 0, begun + 0.004, 0.0))
    gaps = np.sort(np.diff(seen, prepend=0.0))
    assert found.percentiles([0, 25, 50, 75, 99, 100]) == pytest.approx(np.percentile(gaps, [0, 25, 50, 75, 99, 100]))


# --- use ---------------------------------------------------------------------------------------


def test_utilisation_kv_and_batch_over_the_steady_window() -> None:
    rows = [
        {"start_s": 0.0, "duration_s": 2.0, "prefill_tokens": 10, "kv_used_fraction": 0.9},  # 1 s of it in the window
        {"start_s": 4.0, "duration_s": 3.0, "decode_seqs": 4, "waiting": 2, "kv_used_fraction": 0.5},
        {"start_s": 20.0, "duration_s": 9.0, "decode_seqs": 9, "kv_used_fraction": 1.0},  # while draining
    ]
    summary = summarise(run(requests([0, 10], [1, 1]), rows))  # the window is 1 to 10 s
    (pool,) = summary.pools
    assert pool.utilization == pytest.approx(4 / 9)
    assert pool.prefill_time_share == pytest.approx(1 / 4)
    assert pool.blocked_share == pytest.approx(3 / 9)
    assert pool.decode_seqs_mean == pytest.approx(3.0)
    assert pool.kv_used_mean == pytest.approx((0.9 + 3 * 0.5) / 4)
    assert pool.kv_used_max == pytest.approx(0.9)
    assert summary["aggregated_utilization"] == pytest.approx(4 / 9)
    assert summary["prefill_utilization"] is None


def test_use_of_requests_sent_before_any_first_token_is_over_the_whole_run() -> None:
    """At 1e9 req/s the last is sent before the first step has ended: that window knows nothing of the engine."""
    rows = [{"start_s": 0.5, "duration_s": 3.0, "prefill_tokens": 10, "kv_used_fraction": 0.5}]
    summary = summarise(run(requests([0.0, 1e-9], [3.9, 3.9], tpot=0.01), rows))  # both end after 4 s
    assert summary["aggregated_utilization"] == pytest.approx(3 / 4)
    assert summary["offered_requests_per_s"] == pytest.approx(1e9)


def test_an_idle_worker_counts_as_idle() -> None:
    rows = [{"worker": "prefill-0", "start_s": 1.0, "duration_s": 9.0, "prefill_tokens": 1}]
    summary = summarise(run(requests([0, 10], [1, 1]), rows, mode="disaggregated"))
    assert summary["prefill_utilization"] == pytest.approx(1.0)
    assert summary["decode_utilization"] == 0.0


def test_link_use_per_port_and_per_uplink() -> None:
    transfers = {
        "request_id": [0, 1],
        "source": ["prefill-0", "prefill-0"],
        "target": ["decode-0", "decode-0"],
        "link": ["wire", "wire"],
        "bytes": [10**9, 10**9],
        "start_s": [0.0, 2.0],
        "end_s": [1.0, 4.0],
    }
    made = run(requests([0, 1], [1, 3]), transfers=transfers, mode="disaggregated")
    summary = summarise(made)
    assert [link.name for link in summary.links] == ["wire out of prefill-0", "wire into decode-0"]
    assert summary["link_utilization"] == pytest.approx(0.5)  # 2 GB in 4 s over 1 GB/s
    assert summary["link_offered"] == pytest.approx(1.0)  # 2 GB, one request a second
    assert summary["transfer_bytes"] == 2e9
    apart = {**made.manifest, "nodes": {"prefill-0": "a", "decode-0": "b"}, "uplinks": {"a": 5e8, "b": 1e12}}
    summary = summarise(Run(**{**made.__dict__, "manifest": apart}))
    assert summary["link_offered"] == pytest.approx(2.0)
    later = {**apart, "spec": {**apart["spec"], "run": {"warmup_requests": 1}}}
    assert summarise(Run(**{**made.__dict__, "manifest": later}))["transfer_bytes"] == 1e9
    two_gpus = {**made.manifest, "gpus_by_role": {"prefill": 2, "decode": 1}}
    summary = summarise(Run(**{**made.__dict__, "manifest": two_gpus}))
    assert summary.links[0].offered == pytest.approx(0.5)  # a port for each GPU of the worker


# --- saturation --------------------------------------------------------------------------------


def queue(rate: float, service_s: float, n: int, seed: int = 0) -> Run:
    """One server, first come first served, Poisson arrivals; the first token comes at the end of service."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, n))
    end, free = np.empty(n), 0.0
    for i, time in enumerate(arrival):
        free = max(free, time) + service_s
        end[i] = free
    return run(requests(list(arrival), list(end - arrival), tokens=1))


@pytest.mark.parametrize("seed", range(10))
def test_saturation_is_seen_and_not_imagined(seed: int) -> None:
    assert not summarise(queue(8, 0.1, 500, seed)).saturation.saturated  # 80 % busy
    over = summarise(queue(13, 0.1, 500, seed)).saturation
    assert over.saturated
    assert over.achieved_per_s == pytest.approx(10, rel=0.02)
    assert over.offered_per_s is not None
    assert over.waiting_slope_per_s == pytest.approx(over.offered_per_s - 10, abs=1.0)


def test_rejecting_is_saturation_too() -> None:
    reasons = ["length", "rejected"] * 50
    assert summarise(run(requests(np.arange(100), [0.1] * 100, finish_reason=reasons))).saturation.saturated


def test_a_run_that_only_fills_up_is_called_unsteady() -> None:
    state = summarise(run(requests(np.arange(100) / 10, [0.1] * 100, tokens=11, tpot=10.0))).saturation
    assert not state.saturated
    assert not state.steady


def test_everything_sent_at_once_has_no_offered_rate() -> None:
    summary = summarise(run(requests([0.0] * 20, [0.5] * 20)))
    assert summary["offered_requests_per_s"] is None
    assert not summary.saturation.saturated


def test_growth_is_the_slope_of_a_line() -> None:
    start = np.arange(0, 100, 0.5)
    assert growth(start, np.full(len(start), np.nan), Window(0, 100)) == pytest.approx(2.0, rel=0.01)
    assert growth(start, start + 3, Window(10, 100)) == pytest.approx(0.0, abs=0.01)


# --- the summary -------------------------------------------------------------------------------


def test_catalogue_is_whole_and_the_summary_is_json() -> None:
    summary = summarise(run(requests([0, 1], [0.1, 0.1])))
    told = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert list(told["metrics"]) == list(METRICS)
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.label
        assert metric.help.endswith(".")
        assert metric.better in ("higher", "lower", "none")
    with pytest.raises(KeyError):
        summary["no_such_metric"]


def test_a_run_without_requests_or_successes_has_unknown_metrics() -> None:
    nothing = summarise(run(frame("requests")))
    assert nothing["requests"] == 0
    assert nothing["ttft_p50_ms"] is None
    failed = summarise(run(requests([0, 1], [0.1, 0.1], finish_reason=["error", "error"])))
    assert failed["attainment"] == 0
    assert failed["requests_per_s"] == 0
    assert not failed.meets_targets


def test_a_manifest_without_a_spec_is_refused() -> None:
    made = run(requests([0], [1]))
    with pytest.raises(ValueError, match="key 'spec' is missing"):
        summarise(Run(**{**made.__dict__, "manifest": {}}))


def test_profiles_of_two_pools_are_both_named() -> None:
    made = run(requests([0], [1]))
    names = {**manifest(), "profile": {"prefill": "a", "decode": "b"}}
    assert summarise(Run(**{**made.__dict__, "manifest": names})).profile == "prefill a, decode b"
