"""The July 2025 table: its workload, its two columns from the imported files and one profile, and what it hides.

Whether the profile is right is not tested here, and cannot be: it was fitted to these numbers (docs/report.md).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

from planner import load, simulate
from planner.engine.profiles import load_profile
from planner.interop.dialects import table
from planner.interop.import_file import import_file
from planner.run.metrics import summarise
from planner.run.tables import Run
from planner.spec import MultiRoundQa
from planner.system.resolve import resolve
from planner.traffic.multi_round_qa import MultiRoundQaLoad, steady_rate

STOCK = Path(__file__).parent / "data" / "dynamo_v0.3"
# As printed, in the order of the table's lines.
PRINTED = {
    "agg": (10.0, 2.4505, 0, 7456.9953, 245.0541, 5.8770, 92.5261, 241.17),
    "disagg": (10.0, 2.3079, 0, 7022.8796, 230.7880, 29.4287, 98.8401, 255.65),
}
REQUESTS = {"agg": 591, "disagg": 590}
TICKS = {"agg": 0.1015, "disagg": 0.1017}


@lru_cache
def report(column: str) -> Run:
    return simulate(load(f"report/{column}"))


def lines(run: Run) -> list[float]:
    """The numbers of the printed table, top to bottom."""
    text = table(run, "multi-round-qa")
    found = [float(line) for line in re.findall(r": ([0-9.]+) ?(?:reqs/s|tokens/s|tokens/req/s|s)?\n", text)]
    span = re.search(r"\(([0-9.]+)s\)", text)
    assert span is not None
    return [*found, float(span.group(1))]


@pytest.mark.parametrize("column", ["agg", "disagg"])
def test_every_line_of_a_column_is_within_three_percent(column: str) -> None:
    run = report(column)
    assert len(run.requests) == REQUESTS[column]
    assert set(run.requests["prompt_tokens"]) == {3043}
    for simulated, printed in zip(lines(run), PRINTED[column], strict=True):
        assert simulated == pytest.approx(printed, rel=0.03)


def test_both_columns_use_one_profile_one_gpu_and_one_kv_size() -> None:
    agg, disagg = load("report/agg"), load("report/disagg")
    assert (agg.profile, agg.hardware, agg.engine.num_gpu_blocks_override) == (
        disagg.profile, disagg.hardware, disagg.engine.num_gpu_blocks_override,
    )  # fmt: skip
    file = load_profile("report-l40s").file
    assert file is not None
    assert "fitted, not validated" in file.notes[0]


@pytest.mark.parametrize("column", ["agg", "disagg"])
def test_the_configs_are_the_imported_files(column: str) -> None:
    """Besides what the files cannot say (GPU, profile, KV size, traffic), only the local prefill rule is changed."""
    spec = load(f"report/{column}")
    imported = import_file(STOCK / f"{column}.yaml").spec
    same = {"num_gpu_blocks_override": 2701}
    assert spec.engine == imported.engine.model_copy(update=same)
    assert spec.optimizations == imported.optimizations
    deployment = imported.deployment
    if column == "disagg":
        local = deployment.local_prefill.model_copy(update={"max_queue": None})  # type: ignore[union-attr]
        deployment = deployment.model_copy(update={"local_prefill": local})
    assert spec.deployment == deployment


def test_fitted_parameters_are_within_physical_ranges() -> None:
    """The ranges and their sources are in docs/report.md."""
    file = load_profile("report-l40s").file
    assert file is not None
    system = resolve(load("report/agg"))
    model, gpu = system.model, system.pools[0].hardware
    flops = model.flops_per_token / file.step.prefill_per_token_s
    assert 0.25 * gpu.flops("bf16") < flops < 0.73 * gpu.flops("bf16")
    assert 0.00178 < file.step.prefill_s < 0.0104
    spec = load("report/agg", ["engine.num_gpu_blocks_override=null"])
    estimate = resolve(spec).pools[0].limits.kv_blocks
    assert 0.89 < system.pools[0].limits.kv_blocks / estimate <= 1.0


def test_the_table_was_taken_four_times_past_saturation_and_its_ttft_is_backlog() -> None:
    for column in ("agg", "disagg"):
        run = report(column)
        summary = summarise(run)
        assert summary.saturation.saturated
        served = lines(run)[1]
        offered = 1 / TICKS[column]
        assert 3.9 < offered / served < 4.5
        fluid = len(run.requests) / 2 * (1 / served) - 30.0  # a first-come queue that 60 s of arrivals fill
        assert lines(run)[6] == pytest.approx(fluid, rel=0.06)
    assert [resolve(load(f"report/{column}")).gpus for column in ("agg", "disagg")] == [1, 2]


def test_the_stock_local_prefill_rule_is_refuted_by_the_table() -> None:
    """With `max-prefill-queue-size: 2` the decode GPU would prefill too: more throughput, slower tokens."""
    run = simulate(load("report/disagg", ["deployment.local_prefill.max_queue=2"]))
    local = (run.requests["worker"] == run.requests["decode_worker"]).mean()
    assert local > 0.3
    assert abs(lines(run)[5] / PRINTED["disagg"][5] - 1) > 0.25


def test_below_saturation_the_fair_pair_meets_targets_and_ttft_is_a_prefill() -> None:
    for column in ("agg-fair", "disagg-fair"):
        summary = summarise(simulate(load(f"report/{column}")))
        assert not summary.saturation.saturated
        assert summary.number("ttft_mean_ms") < 1000
        assert summary.number("attainment") >= 0.99


# --- the generator -----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["agg", "disagg"])
def test_one_round_sends_what_the_report_counted(column: str) -> None:
    workload = MultiRoundQa(kind="multi_round_qa", num_rounds=1, qps=10, time=60, tick_s=TICKS[column])
    arrivals = MultiRoundQaLoad(workload).start()
    assert len(arrivals) == REQUESTS[column]
    for other in (1.0, 100.0):  # --qps changes nothing
        again = MultiRoundQa(kind="multi_round_qa", num_rounds=1, qps=other, time=60, tick_s=TICKS[column])
        assert len(MultiRoundQaLoad(again).start()) == REQUESTS[column]


@pytest.mark.parametrize(("rounds", "qps"), [(2, 1.0), (5, 2.0), (20, 1.5)])
def test_several_rounds_offer_more_than_the_printed_qps(rounds: int, qps: float) -> None:
    """q * R / (R - 1), up to what the 0.1 s ticks round."""
    workload = MultiRoundQa(kind="multi_round_qa", num_rounds=rounds, qps=qps, num_users=40, time=600)
    assert steady_rate(workload) == pytest.approx(qps * rounds / (rounds - 1), rel=0.11)
