"""Other tools' definitions of the same records, and their keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hand_made import requests, run
from planner.interop import dialects
from planner.interop.dialects import multi_round_qa
from planner.run.facts import Facts
from planner.run.tables import Run, frame
from planner.spec import SpecError

WORKLOAD = {"kind": "poisson", "rate": 2.0, "requests": 4}


def made() -> Run:
    """Four requests of 11 tokens 10 ms apart; the last one failed."""
    table = requests(
        [0, 1, 2, 3],
        [0.1, 0.2, 0.6, 0.1],
        finish_reason=["length", "stop", "length", "error"],
        error=[None] * 3 + ["x"],
    )
    rows = [{"start_s": 0.1, "duration_s": 0.3, "count": 30, "decode_seqs": 1}]
    return run(table, rows, workload=WORKLOAD)


def test_vllm_keys_and_figures() -> None:
    found = dialects.export_json(made(), "vllm")
    needed = """backend label model_id num_prompts request_rate burstiness max_concurrency duration completed failed
        total_input_tokens total_output_tokens request_throughput request_goodput output_throughput
        total_token_throughput max_output_tokens_per_s max_concurrent_requests input_lens output_lens ttfts
        latencies start_times errors"""
    assert set(needed.split()) <= set(found)
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert {f"{word}_{name}_ms" for word in ("mean", "median", "std", "p99")} <= set(found)
    assert found["completed"] == 3
    assert found["failed"] == 1
    assert found["request_goodput"] == pytest.approx(2 / found["duration"])
    assert found["mean_ttft_ms"] == pytest.approx(300)
    assert found["std_ttft_ms"] == pytest.approx(np.std([100, 200, 600]))  # of the population, as the tool has it
    assert found["median_e2el_ms"] == pytest.approx(300)
    assert found["p99_tpot_ms"] == pytest.approx(10)
    assert found["mean_itl_ms"] == pytest.approx(10)
    assert found["output_lens"] == [11, 11, 11, 0]
    assert found["ttfts"][3] == 0.0
    assert found["errors"] == ["", "", "", "x"]
    assert found["max_output_tokens_per_s"] == 11
    assert found["max_concurrent_requests"] == 1
    assert "itls" not in found  # a simulated run has no token times
    json.dumps(found, allow_nan=False)


def test_vllm_token_times_of_a_live_run() -> None:
    tokens = frame("tokens", {"request_id": [1, 0, 0, 0], "index": [0, 0, 1, 2], "time_s": [1.2, 0.1, 0.15, 0.25]})
    found = dialects.export_json(Run(**{**made().__dict__, "tokens": tokens}), "vllm")
    assert found["itls"][0] == pytest.approx([0.05, 0.1])
    assert found["itls"][1:] == [[], [], []]
    assert found["median_itl_ms"] == pytest.approx(75)


def test_vllm_table_has_the_tools_lines() -> None:
    text = dialects.table(made(), "vllm")
    assert text.splitlines()[0] == "============ Serving Benchmark Result ============"
    assert "Successful requests:                     3" in text
    assert "Request goodput (req/s):" in text
    assert "P99 E2EL (ms):" in text


def test_aiperf_calls_the_mean_gap_of_a_request_itl_and_counts_errors() -> None:
    found = dialects.export_json(made(), "aiperf")
    assert found["inter_token_latency"]["avg"] == pytest.approx(10)
    assert found["inter_token_latency"]["unit"] == "ms"
    assert found["output_token_throughput_per_user"]["p50"] == pytest.approx(100)
    assert found["good_request_fraction"]["avg"] == pytest.approx(2 / 4)
    assert found["request_count"]["avg"] == 3
    assert found["error_request_count"]["avg"] == 1
    record = {
        "unit",
        "avg",
        "min",
        "max",
        "std",
        "count",
        "sum",
        *(f"p{p}" for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)),
    }
    assert set(found["time_to_first_token"]) == record
    assert set(found["request_throughput"]) == {"unit", "avg"}
    assert found["time_to_first_token"]["std"] == pytest.approx(np.std([100, 200, 600], ddof=1))


def test_guidellm_tpot_holds_the_first_token_and_percentiles_occurred() -> None:
    metrics = dialects.export_json(made(), "guidellm")["benchmarks"][0]["metrics"]
    per_token = np.array([0.2, 0.3, 0.7]) * 1e3 / 11
    assert metrics["time_per_output_token_ms"]["successful"]["mean"] == pytest.approx(per_token.mean())
    assert metrics["inter_token_latency_ms"]["successful"]["mean"] == pytest.approx(10)
    assert metrics["time_to_first_token_ms"]["successful"]["percentiles"]["p99"] == pytest.approx(600)
    assert metrics["time_to_first_token_ms"]["successful"]["median"] == pytest.approx(200)
    assert metrics["request_totals"] == {"successful": 3, "incomplete": 0, "errored": 1, "total": 4}
    assert metrics["request_latency"]["successful"]["mean"] == pytest.approx(0.4)  # seconds


SUMMARY = """

==================== Performance summary ======================
  QPS: 10.0000 reqs/s

  Processing speed: 1.0000 reqs/s

  Requests on-the-fly: 0

  Input tokens per second: 3043.0000 tokens/s

  Output tokens per second: 100.0000 tokens/s

  Average generation throughput (per request): 37.5000 tokens/req/s

  Average TTFT: 1.5000s

Time range: 0.0 - 6.0 (6.00s)
===============================================================

"""


def qa_run() -> Run:
    """Six requests of 3043 + 100 tokens in 6 s; three take 2 s to generate and three take 4 s."""
    send = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    table = requests(
        send,
        [1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
        tokens=100,
        prompt_tokens=np.full(6, 3043),
        session_id=[1, 2, 1, 2, 1, 3],
        finish_s=[3.0, 3.0, 3.0, 6.0, 6.0, 6.0],
    )
    return run(table, workload={"kind": "multi_round_qa", "qps": 10.0})


def test_multi_round_qa_prints_the_tools_summary_line_for_line() -> None:
    assert dialects.table(qa_run(), "multi-round-qa") == SUMMARY
    coloured = dialects.table(qa_run(), "multi-round-qa", colour=True)
    assert "  \033[33mQPS: \033[32m10.0000 reqs/s\033[0m\n" in coloured
    assert "  \033[33mRequests on-the-fly: 0\033[0m\n" in coloured


def test_multi_round_qa_summary_is_recomputed_from_its_own_csv(tmp_path: Path) -> None:
    rows = multi_round_qa.csv_rows(Facts(qa_run()))
    assert list(rows.columns) == [
        "prompt_tokens", "generation_tokens", "ttft", "generation_time", "user_id", "question_id", "launch_time",
        "finish_time",
    ]  # fmt: skip
    assert rows["question_id"].tolist() == [1, 1, 2, 2, 3, 1]
    file = tmp_path / "summary.csv"
    rows.to_csv(file, index=False)
    # the tool's --process-summary does not know the configured rate and prints 0
    assert multi_round_qa.summary_of_csv(file) == SUMMARY.replace("QPS: 10.0000", "QPS: 0.0000")
    assert multi_round_qa.csv_figures(pd.read_csv(file), 10.0).generation_speed == 37.5


def test_a_csv_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    for text in ("", 'a\n"b,c\n1,2,3\n'):
        file.write_text(text)
        with pytest.raises(SpecError, match="not a CSV"):
            multi_round_qa.summary_of_csv(file)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(SpecError, match="column prompt_tokens is missing"):
        multi_round_qa.summary_of_csv(file)
    file.write_text("prompt_tokens,generation_tokens,ttft,generation_time,launch_time,finish_time\n")
    with pytest.raises(SpecError, match="holds no requests"):
        multi_round_qa.summary_of_csv(file)


def test_no_finished_request_is_one_clear_line() -> None:
    with pytest.raises(SpecError, match="no request finished"):
        dialects.table(run(requests([0.0], [1.0], finish_reason=["error"])), "multi-round-qa")


@pytest.mark.parametrize("name", list(dialects.DIALECTS))
def test_tables_fit_80_columns_and_exports_are_json(name: str) -> None:
    assert max(len(line) for line in dialects.table(made(), name).splitlines()) <= 80
    json.dumps(dialects.export_json(made(), name), allow_nan=False)


def test_an_unknown_dialect_is_one_line_with_a_hint() -> None:
    with pytest.raises(SpecError, match=r"vlm: is unknown; allowed: vllm, .*did you mean vllm\?"):
        dialects.dialect_named("vlm")
