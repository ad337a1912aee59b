"""Every chart is valid Vega-Lite, keeps its colours, and its drawing needs nothing from elsewhere."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from planner import charts, load, summarise
from planner.report.html import run_report, suggestion_report
from planner.run.tables import Run
from planner.spec import Spec
from planner.suggestion import curves
from planner.suggestion.answer import Suggestion, best_of
from planner.suggestion.splits import apply
from planner.suggestion.suggest import suggest
from planner.suggestion.verdict import WORDS
from planner.ui.recorded import recorded_runs
from planner.validation.parity import compare


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load("disagg", ["workload.requests=60"])


@pytest.fixture(scope="module")
def run(spec: Spec) -> Run:
    return curves.simulated(spec)


@pytest.fixture(scope="module")
def found(spec: Spec) -> Suggestion:
    return suggest(spec, 2, seeds=2, requests=60, processes=1)


def valid(chart: charts.Chart) -> str:
    """The chart as JSON; Altair checks it against Vega-Lite's schema on the way."""
    return json.dumps(chart.to_dict())


def test_the_answer_s_charts(found: Suggestion) -> None:
    text = valid(charts.which_split(found, 8.0))
    assert charts.COLOURS["aggregated"] in text
    assert charts.COLOURS["disaggregated"] in text
    assert "Your traffic" in text
    change = valid(charts.what_would_change(found))
    assert all(f'"{word}"' in change for word in WORDS)  # a word without a colour would not be drawn
    valid(charts.what_trade(found))


def test_both_modes_are_shown_however_few_rows(found: Suggestion) -> None:
    assert set(charts.split_table(found, most=1)["mode"]) == {"aggregated", "disaggregated"}


def test_load_curve_grows(spec: Spec) -> None:
    table = curves.load_curve(spec, [2.0, 8.0, 40.0], None)
    assert table["ttft_p99_ms"].is_monotonic_increasing
    chart = charts.how_latency_grows({"1P1D": ("disaggregated", table)}, "ttft", spec.slo, 8.0)
    assert '"Target"' in valid(chart)
    two = valid(
        charts.how_latency_grows(
            {"1P1D": ("disaggregated", table), "2P1D": ("disaggregated", table)}, "ttft", spec.slo, 8.0
        )
    )
    assert charts.COLOURS["disaggregated"] in two
    assert charts.COLOURS["transfer"] in two  # two of a mode are told apart


def test_rates_begin_low_and_end_past_the_highest() -> None:
    rates = curves.rates_up_to(100.0)
    assert rates == sorted(rates)
    assert 0 < rates[0] < 50
    assert rates[-1] == pytest.approx(125.0)


def test_the_ratio_is_the_answer_s_own(found: Suggestion) -> None:
    table = charts.ratio_table(found)
    assert dict(zip(table["name"], table["rate"], strict=True)) == {
        row.name: row.rate for row in found.rows if row.split.second is not None
    }
    valid(charts.which_ratio(found))


def test_a_curve_is_made_of_the_runs_that_the_answer_judges(spec: Spec, found: Suggestion) -> None:
    """At every rate that a finalist was run at, the curve has the attainment that it was judged by."""
    for row in (best_of(found.rows, mode) for mode in charts.MODES):
        assert row is not None
        probes = row.searches[0].probes
        table = curves.load_curve(apply(spec, row.split), [one.rate for one in probes], row.period(found.period))
        assert table["attainment"].tolist() == pytest.approx([one.attainment for one in probes])


def test_stages_add_up_in_the_chart(run: Run) -> None:
    summary = summarise(run)
    chart = charts.where_time_goes({"1P1D": summary})
    data = chart.data
    assert data["end"].iloc[-1] == pytest.approx(summary.number("ttft_mean_ms"), rel=1e-6)
    valid(chart)


def test_simulated_is_hollow_and_measured_filled(run: Run) -> None:
    recorded = Run.load(next(iter(recorded_runs().values())))
    hollow = charts.where_time_goes({"a": summarise(run)}).data["fill"]
    filled = charts.where_time_goes({"a": summarise(recorded)}).data["fill"]
    assert hollow.max() < 1 == filled.min()


@pytest.mark.parametrize("measure", ["busy", "running", "waiting", "kv_used_fraction"])
def test_timeline(run: Run, measure: str) -> None:
    table = charts.timeline_table(run)
    assert set(table["worker"]) == {"prefill-0", "decode-0"}
    assert table["busy"].between(0, 1).all()
    valid(charts.when_busy(run, measure))


def test_the_trade_has_a_frontier_of_each_mode(found: Suggestion) -> None:
    table = charts.trade_table(found)
    assert set(table[table["front"]]["mode"]) == set(table["mode"])
    for _, of_mode in table.groupby("mode"):
        for one in of_mode.to_dict("records"):
            beaten = (of_mode["user"] >= one["user"]) & (of_mode["gpu"] > one["gpu"])
            assert one["front"] == (not beaten.any())
    assert charts.PICKED in valid(charts.what_trade(found, pick_points=True))


def test_the_timeline_s_bars_are_the_run_s_own_times(run: Run, spec: Spec) -> None:
    """In lanes that never overlap, each stage on the worker that does it; of the same requests in any run."""
    ids = charts.followed(run)
    table = charts.spans_table(run, ids)
    rows = run.requests.set_index("request_id").loc[ids]
    begun = rows["arrival_s"].min()
    bars = table.set_index(["stage", "request"])
    for request, row in rows.iterrows():
        prefill, decode = bars.loc["prefill", request], bars.loc["decode", request]
        assert (prefill["worker"], decode["worker"]) == (row["worker"], row["decode_worker"])
        assert prefill["start_s"] == pytest.approx(row["prefill_start_s"] - begun)
        assert decode["end_s"] == pytest.approx(row["finish_s"] - begun)
    assert set(table["stage"]) == {"queue", "prefill", "transfer", "decode"}
    stays = table.groupby(["worker", "lane", "request"]).agg(start=("start_s", "min"), end=("end_s", "max"))
    for _, lane in stays.sort_values("start").groupby(["worker", "lane"]):
        assert (lane["start"].to_numpy()[1:] >= lane["end"].to_numpy()[:-1]).all()
    together = curves.simulated(load("agg", ["workload.requests=60"]))
    assert charts.followed(together) == ids
    for one in (run, together):
        valid(charts.what_requests_do(one, ids, 5.0))


def test_recorded_run_has_its_charts() -> None:
    folder = next(iter(recorded_runs().values()))
    measured, simulated = Run.load(folder), Run.load(folder / "simulated")
    comparison = compare(simulated, measured)
    assert comparison.label == "predicted"
    valid(charts.how_close(simulated, measured, "ttft"))
    valid(charts.how_far_off(comparison))


def test_share_done_ends_at_one(run: Run) -> None:
    table = charts.done_table(run)
    assert table["share"].iloc[-1] == 1.0
    valid(charts.how_many_done(table, table))


def test_traces_sweeps_residuals(spec: Spec, run: Run) -> None:
    valid(charts.how_it_arrives([0.0, 1.0, 1.1]))
    valid(charts.how_long([10, 20, 20], "tokens", "prefill"))
    valid(charts.how_latency_spreads({"A": ("aggregated", run)}, "ttft", 500))
    table = curves.sweep(spec, "workload.rate", ["2", "4"])
    chart = charts.how_it_varies(table, "workload.rate", "ttft_p99_ms").to_dict()
    assert chart["encoding"]["x"]["title"] == "workload.rate"
    assert chart["encoding"]["y"]["title"] == "TTFT p99, ms"
    assert (
        charts.how_it_varies(table, "workload.rate", "attainment").to_dict()["encoding"]["y"]["axis"]["format"] == "%"
    )
    residuals = pd.DataFrame([{"kind": "decode", "rows": 3, "mean": 1.0, "max": 2.0}])
    valid(charts.how_well_fitted(residuals))


def test_reports_stand_alone(found: Suggestion, run: Run) -> None:
    """No script, no address to load from, the sentence and drawings inside."""
    for text in (suggestion_report(found, summarise(run), 8.0), run_report(summarise(run), run)):
        assert "<script" not in text
        assert "src=" not in text
        assert "href=" not in text.replace('xlink:href="#', "").replace('href="#', "")
        assert text.count("<svg") >= 1
    assert found.sentence.removesuffix(found.provenance).strip() in suggestion_report(found, summarise(run), None)
