"""A day's hours, policies with known answers, and the price of a change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from planner import cli
from planner.commands.day import start_s_of
from planner.day.answer import Table, all_splits, play_day
from planner.day.hours import Hour, is_profile, of_profile, of_trace
from planner.day.policies import (
    POLICIES,
    Pressure,
    Switching,
    View,
    dynamo_load,
    dynamo_sla,
    forecast,
    idle_gpu_s,
    oracle,
    out_s,
    planner_in_the_loop,
    reactive,
    refill,
    staying,
)
from planner.spec import SpecError, load
from planner.suggestion.splits import PoolSize, Split
from planner.traffic.trace_scan import Selection
from planner.watching.statistics import paired_gain

SPEC = load("disagg")
PUSH = load("disagg", ["deployment.link.connector=NixlPushConnector"])
COST = Switching(100.0, 20.0)


def split(first: int, second: int = 0) -> Split:
    return Split(PoolSize(first, 1), PoolSize(second, 1)) if second else Split(PoolSize(first, 1))


def hour(rate: float, prompt: float = 3000, output: float = 100, at: int = 0) -> Hour:
    return Hour(at * 3600.0, 3600.0, rate, (prompt,), (output,))


PAIRS = [split(p, d) for p in range(1, 4) for d in range(1, 4) if p + d <= 4]


class Made:
    """A stack whose prefill workers serve 1 request of 3,000 tokens a second, decode workers 1 of 100."""

    def serves(self, one: Hour, on: Split) -> float:
        assert on.second is not None
        prefill, decode = self.carries(one)
        return min(1.0, on.first.replicas * prefill / one.rate, on.second.replicas * decode / one.rate)

    def pressure(self, one: Hour, on: Split) -> Pressure:
        assert on.second is not None
        prefill, decode = self.carries(one)
        return Pressure(one.rate / prefill / on.first.replicas, one.rate / decode / on.second.replicas)

    def carries(self, one: Hour) -> tuple[float, float]:
        return 3000 / one.prompt_mean, 100 / one.output_mean


def view(past: list[Hour], now: Split, coming: Hour | None = None, fixed: Split | None = None) -> View:
    return View(past, now, PAIRS, fixed or split(2, 2), Made(), 0.99, coming or hour(1), 24)


# --- policies ----------------------------------------------------------------------------------


def test_reactive_takes_the_fewest_workers_that_serve_the_last_hour() -> None:
    assert reactive(view([hour(1)], split(2, 2))) == split(1, 1)
    assert reactive(view([hour(2, 1500)], split(1, 1))) == split(1, 2)
    assert reactive(view([hour(9)], split(1, 1))) == split(2, 2)  # more than there is: the fixed one


def test_dynamos_sla_rule_divides_the_load_by_what_a_worker_carries() -> None:
    assert dynamo_sla(view([hour(1)], split(2, 2))) == split(1, 1)
    assert dynamo_sla(view([hour(2.5, 1000)], split(1, 1))) == split(1, 3)
    assert dynamo_sla(view([hour(0)], split(1, 2))) == split(1, 2)


def test_dynamos_load_rule_moves_one_worker_of_a_pool_at_its_thresholds() -> None:
    """In stretches of three minutes it decides once."""

    def after(rate: float, prompt: float, now: Split) -> Split:
        return dynamo_load(view([replace(hour(rate, prompt), length_s=180.0)], now))

    assert after(0.95, 600, split(2, 1)) == split(1, 2)  # 0.1 waiting, 95 % of the KV
    assert after(0.8, 3000, split(1, 1)) == split(2, 1)  # 0.8 waiting, 80 %
    assert after(0.3, 3000, split(1, 3)) == split(1, 2)  # 0.3 waiting, 10 %
    assert dynamo_load(view([hour(0.3)], split(1, 3))) == split(1, 1)  # an hour has time for more


def test_the_planner_changes_only_for_a_gain() -> None:
    assert planner_in_the_loop(view([hour(3, 1000)], split(2, 2))) == split(1, 3)
    assert planner_in_the_loop(view([hour(1)], split(2, 2))) == split(2, 2)


def test_the_oracle_sees_the_hour_and_the_others_do_not() -> None:
    coming = hour(3, 1000)
    assert oracle(view([hour(1)], split(2, 2), coming)) == split(1, 3)
    for name, policy in POLICIES.items():
        if name != "best each hour":
            seen = view([hour(1)], split(2, 2))
            assert policy(seen) == policy(replace(seen, coming=coming)), name


def test_the_forecast_is_yesterdays_hour_scaled_or_a_trend() -> None:
    assert forecast([hour(1), hour(1.5)], 24).rate == pytest.approx(1.5 * 1.5**0.5)
    days = [hour(1 + at % 4) for at in range(4)] + [hour(2 * (1 + at % 4)) for at in range(3)]
    assert forecast(days, 4).rate == pytest.approx(8)  # yesterday 4, today twice as busy


def test_a_change_costs_a_start_and_where_gpus_are_taken_a_drain() -> None:
    assert out_s(split(2, 2), split(2, 2), COST) == 0
    assert out_s(split(2, 2), split(1, 2), COST) == 0
    assert out_s(split(1, 1), split(1, 2), COST) == 100
    assert out_s(split(2, 2), split(1, 3), COST) == 120
    assert idle_gpu_s(split(2, 2), split(1, 1), COST) == 40
    assert staying(split(2, 2), split(1, 3)) == split(1, 2)
    assert staying(split(4), split(2, 2)) is None


def test_what_went_with_a_cache_is_computed_once_more() -> None:
    """Half of 3,000 tokens a prompt is reused, 5.4 million an hour; two of three workers that prefill go."""
    one = replace(hour(1), reused=0.5)
    assert refill(split(3, 1), split(1, 3), one, 1e9).reused == pytest.approx(0.5 / 3, abs=1e-3)
    assert refill(split(3, 1), split(1, 3), one, 270_000).reused == pytest.approx(0.45)  # no more than a cache holds
    assert refill(split(1, 3), split(1, 1), one, 1e9) == one  # decode workers hold nothing that is asked for again
    assert refill(split(3, 1), split(1, 3), hour(1), 1e9) == hour(1)


def test_the_stack_of_a_day_is_under_pressure_where_it_is_full() -> None:
    table = Table(PUSH, 150)
    calm, full = (table.pressure(hour(rate), split(1, 1)) for rate in (1, 40))
    assert calm.waiting < 0.2 < 0.5 < full.waiting
    assert calm.kv_used < full.kv_used <= 1
    prefill, decode = table.carries(hour(1))
    assert table.carries(replace(hour(1), reused=0.5)) > (1.4 * prefill, 0.99 * decode)


def test_the_interval_of_a_gain_is_students() -> None:
    found = paired_gain([11, 12, 13], [10, 10, 10])
    assert found.value == pytest.approx(0.2)
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)


# --- hours -------------------------------------------------------------------------------------


def test_hours_of_a_profile_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("hour,rate,prompt_tokens,output_tokens\n0,2,1000,50\n1,0,1,1\n")
    found = of_profile(path, 3600.0, 2.0)
    assert [(one.start_s, one.rate, one.prompt_mean) for one in found] == [(0, 4, 1000), (3600, 0, 1)]
    path.write_text("hour,rate,prompt_tokens,output_tokens\n0,2,many,50\n")
    with pytest.raises(SpecError, match=r"day.csv:2"):
        of_profile(path, 3600.0, 1.0)
    path.write_text("\ufeffhour, rate, prompt_tokens, output_tokens\n8, 2, 1000, 50\n9, 3, 1000, 50\n")
    assert is_profile(path) and [one.rate for one in of_profile(path, 3600.0, 1.0)] == [2, 3]
    path.write_text("hour,rate,prompt_tokens,output_tokens\n5,2,1000,50\n3,2,1000,50\n")
    with pytest.raises(SpecError, match=r"day.csv:3: hour 3 after 5; allowed: rising hours"):
        of_profile(path, 3600.0, 1.0)
    path.write_text("rate,prompt,output\n5,2,1000\n")  # no trace has rates: it is told which columns it lacks
    assert is_profile(path)


def test_hours_of_a_trace_hold_its_requests(root: Path) -> None:
    found = of_trace(root / "traces" / "chat_azure.csv", "auto", 60.0, 3.0, Selection())
    assert len(found) == 2
    assert sum(one.requests for one in found) == pytest.approx(900)
    assert {one.reused for one in found} == {0.0}


def test_hours_of_a_trace_of_blocks_know_what_is_reused(root: Path) -> None:
    path = root / "traces" / "documents_mooncake.jsonl"
    found = of_trace(path, "auto", 60.0, 1.0, Selection())
    assert 0.3 < found[1].reused < 0.95
    shared = found[1].traffic(SPEC).workload.shared_prefix_tokens
    prompts = found[1].prompts
    assert sum(min(shared, one) for one in prompts) == pytest.approx(found[1].reused * sum(prompts), rel=1e-3)


# --- a whole day -------------------------------------------------------------------------------


def test_moving_pays_where_hours_need_other_splits() -> None:
    """Two long stretches, one of long prompts and one of long answers, that no split serves both."""
    hours = [hour(28, 3000, 10, 0), hour(28, 3000, 10, 1), hour(70, 150, 700, 2), hour(70, 150, 700, 3)]
    found = play_day(PUSH, hours, 4, COST, seeds=2, requests=150, only_pd=True)
    assert found.best[0].first.replicas > found.best[2].first.replicas
    best = next(one for one in found.played if one.policy == "best each hour")
    table = Table(PUSH, 150)
    for at, one in enumerate(hours):
        assert table.serves(one, found.best[at]) >= table.serves(one, found.fixed)
    assert best.gpu_hours >= 16 and best.changes <= 2
    assert found.gains["best each hour"].value > 0.01
    assert "in the hours" in found.sentence


def test_a_steady_day_does_not_pay() -> None:
    found = play_day(SPEC, [hour(2, at=at) for at in range(3)], 2, COST, seeds=2, requests=100)
    assert "does not pay" in found.sentence
    assert all(one.good_mean / one.offered > 0.98 for one in found.played if one.policy == "static")


def test_splits_are_all_uses_of_up_to_n() -> None:
    assert len(all_splits(SPEC, 4)) == 4 + 6
    assert all(one.second is not None for one in all_splits(SPEC, 4, only_pd=True))
    with pytest.raises(SpecError, match="--gpus 1"):
        all_splits(SPEC, 1, only_pd=True)


def test_the_command_prints_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "day.csv"
    path.write_text("hour,rate,prompt_tokens,output_tokens\n0,2,1000,50\n1,4,1000,50\n")
    assert cli.run(["day", str(path), "-n", "2", "--requests", "60", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "static" in out and "lost KV" in out
    assert cli.run(["day", str(path), "-n", "2", "--requests", "60", "--seeds", "2", "--json"]) == 0
    assert [one["policy"] for one in json.loads(capsys.readouterr().out)["policies"]] == list(POLICIES)
    assert cli.run(["day", str(tmp_path / "none.csv"), "-n", "2"]) == 2


def test_a_measured_run_says_how_long_a_worker_takes_to_start(root: Path) -> None:
    """The 8B engine of a recorded H200 run was up after 99.1 s."""
    run = root / "planner" / "ui" / "recordings" / "h200-llama-3.1-8b-chat"
    assert start_s_of(str(run)) == 99.1
    assert start_s_of("12") == 12
    with pytest.raises(SpecError, match="--start-up -1"):
        start_s_of("-1")
