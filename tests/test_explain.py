"""Each kind of bottleneck is named with its numbers, and the one sentence says what a reader must know."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest

from hand_made import manifest, requests, run
from planner.report import printing
from planner.report.explain import Explanation, explain, waterfall
from planner.report.words import milliseconds, number, percent
from planner.run.metrics import summarise
from planner.run.tables import Run
from spoken import whole

SEND = np.arange(200) / 10.0  # 10 req/s for 20 s


def explained(made: Run) -> Explanation:
    summary = summarise(made)
    found = explain(summary)
    for line in (*found.sentences, printing.sentence(summary, found), *printing.warnings(summary)):
        whole(line)  # in Chinese
    return found


def busy(worker: str, prefill_tokens: int = 0, **more: Any) -> dict[str, Any]:
    """One row that fills the sending time."""
    return {"worker": worker, "start_s": 0.0, "duration_s": 20.0, "prefill_tokens": prefill_tokens, **more}


def growing(stage: str) -> dict[str, Any]:
    """A disaggregated run in which `stage` takes 1 s more for every second sent; the others take 10 ms."""
    names = ["queued", "prefill_start", "prefill_end", "transfer_start", "transfer_end", "decode_start"]
    stages = ["host", "queue", "prefill", "decode_wait", "transfer", "decode_step"]
    time, columns = SEND, {}
    for name, this in zip(names, stages, strict=True):
        time = time + (SEND + 0.6 if this == stage else 0.01)
        columns[f"{name}_s"] = time
    ttft = time + 0.01 - SEND
    n = len(SEND)
    return {
        "table": requests(SEND, ttft, worker=["prefill-0"] * n, decode_worker=["decode-0"] * n, **columns),
        "mode": "disaggregated",
    }


def test_headroom_names_what_is_closest_to_its_limit() -> None:
    found = explained(run(requests(SEND, [0.4] * 200), [busy("aggregated-0", kv_used_fraction=0.3)]))
    assert found.kind == "none"
    assert "TTFT target, p99 at 80 % of it" in found.text


def test_a_full_link_comes_before_the_queues_it_causes() -> None:
    made = growing("transfer")
    transfers = {
        "request_id": np.arange(200),
        "source": ["prefill-0"] * 200,
        "target": ["decode-0"] * 200,
        "link": ["wire"] * 200,
        "bytes": np.full(200, 4 * 10**8),
        "start_s": SEND,
        "end_s": SEND * 4 + 1,
    }
    table = made.pop("table")
    found = explained(run(table, [busy("prefill-0", 9)], transfers=transfers, **made))
    assert found.kind == "link"
    assert found.enough_bytes_s == pytest.approx(199 * 4e8 / 19.9 / 0.8)
    assert "needs 4 GB/s moved and it carries 1 GB/s at most" in found.text
    assert "5 GB/s would be enough" in found.text
    answer = printing.answer(summarise(run(table, transfers=transfers, **made)))
    assert answer.startswith("Past saturation: 1P1D on 2x H200 is offered 10 req/s and serves")
    assert "the KV link is the bottleneck" in answer


def test_busy_prefill_workers_with_a_growing_queue_are_prefill_bound() -> None:
    made = growing("queue")
    found = explained(run(made.pop("table"), [busy("prefill-0", 9), busy("decode-0", decode_seqs=3)], **made))
    assert (found.kind, found.where) == ("prefill", "prefill")
    assert "the prefill workers are busy 100 % of the time" in found.text
    assert "most of it in queue" in found.text


def test_prompts_too_long_for_the_target_are_not_cured_by_more_workers() -> None:
    n = len(SEND)
    at = {"queued_s": SEND, "prefill_start_s": SEND, "prefill_end_s": SEND + 0.8, "decode_start_s": SEND + 0.8}
    table = requests(SEND, [0.81] * n, worker=["prefill-0"] * n, decode_worker=["decode-0"] * n, **at)
    half = {"worker": "prefill-0", "start_s": 0.0, "duration_s": 11.0, "prefill_tokens": 9}
    found = explained(run(table, [half], mode="disaggregated"))
    assert found.kind == "prefill"
    assert "more of them would help little" in found.text


@pytest.mark.parametrize(
    ("waits", "prefills", "said"),
    [(0.0, 0.8, "takes too long by itself"), (0.6, 0.2, "come in bursts and wait for one another")],
)
@pytest.mark.parametrize("tpot", [0.01, 0.05])
def test_aggregated_workers_that_seldom_prefill_are_not_short_of_it(
    waits: float, prefills: float, said: str, tpot: float
) -> None:
    start = SEND + waits
    at = {"queued_s": SEND, "prefill_start_s": start, "prefill_end_s": start + prefills}
    table = requests(SEND, [0.81] * len(SEND), tpot=tpot, worker=["aggregated-0"] * len(SEND), **at)
    rows: list[dict[str, Any]] = []
    for second in range(20):
        rows.append({"worker": "aggregated-0", "start_s": second, "duration_s": 0.2, "prefill_tokens": 9})
        rows.append({"worker": "aggregated-0", "start_s": second + 0.2, "duration_s": 0.8, "decode_seqs": 1})
    found = explained(run(table, rows))
    assert (found.kind, found.where) == ("prefill", "aggregated")
    assert said in found.text
    assert "only 20.1 % of the time in steps with prompt tokens" in found.text
    assert ("Also, TPOT is 50 ms at the median" in found.text) == (tpot > 0.03)


def test_prompts_that_wait_for_a_full_decode_side_are_its_fault() -> None:
    made = growing("queue")
    rows = [
        {**busy("prefill-0", 9, kv_used_fraction=0.88), "duration_s": 2.0, "start_s": 3.0},
        busy("decode-0", decode_seqs=8, waiting=3, kv_used_fraction=0.97),
    ]
    found = explained(run(made.pop("table"), rows, **made))
    assert (found.kind, found.where) == ("kv-memory", "decode")
    assert "97 % full on average" in found.text


def test_slots_taken_on_the_decode_side() -> None:
    made = growing("decode_wait")
    rows = [busy("prefill-0", 9), busy("decode-0", decode_seqs=16, waiting=3, kv_used_fraction=0.4)]
    found = explained(run(made.pop("table"), rows, **made))
    assert (found.kind, found.where) == ("decode", "decode")
    assert "hold 16 sequences each" in found.text


def test_aggregated_workers_whose_slots_or_blocks_are_taken() -> None:
    table = requests(SEND, SEND + 0.7, prefill_start_s=SEND * 2 + 0.6, prefill_end_s=SEND * 2 + 0.7)
    slots = busy("aggregated-0", decode_seqs=16, waiting=5, kv_used_fraction=0.4)
    assert explained(run(table, [slots])).kind == "decode"
    assert explained(run(table, [{**slots, "kv_used_fraction": 0.95}])).kind == "kv-memory"
    compute = busy("aggregated-0", 512, decode_seqs=16, waiting=5, kv_used_fraction=0.4)
    assert explained(run(table, [compute])).kind == "prefill"


def test_retrieval_that_is_always_busy() -> None:
    table = requests(SEND, [1.0] * 200, retrieval_start_s=SEND, retrieval_end_s=SEND + 0.19, queued_s=SEND + 0.2)
    found = explained(run(table, retrieval={"workers": 2}))
    assert found.kind == "retrieval"
    assert "its workers (2) are busy 95 % of the time" in found.text
    assert "3 workers would be enough" in found.text


def test_slow_tokens_are_decode_bound_and_prompts_in_the_way_are_said() -> None:
    rows = [busy("aggregated-0", 512, decode_seqs=20, kv_used_fraction=0.2)]
    found = explained(run(requests(SEND, [0.1] * 200, tpot=0.05), rows))
    assert found.kind == "decode"
    assert "TPOT is 50 ms at the median" in found.text
    assert "100 % of their time goes to steps that also prefill prompts" in found.text


def test_a_slow_link_that_is_not_full_gets_the_bandwidth_that_would_do() -> None:
    n = len(SEND)
    columns = {
        "queued_s": SEND, "prefill_start_s": SEND, "prefill_end_s": SEND + 0.1, "transfer_start_s": SEND + 0.1,
        "transfer_end_s": SEND + 0.7, "decode_start_s": SEND + 0.7,
    }  # fmt: skip
    table = requests(SEND, [0.71] * n, worker=["prefill-0"] * n, decode_worker=["decode-0"] * n, **columns)
    transfers = {
        "request_id": np.arange(n), "source": ["prefill-0"] * n, "target": ["decode-0"] * n, "link": ["wire"] * n,
        "bytes": np.full(n, 10**6), "start_s": SEND + 0.1, "end_s": SEND + 0.7,
    }  # fmt: skip
    found = explained(run(table, transfers=transfers, mode="disaggregated"))
    assert found.kind == "link"
    assert found.enough_bytes_s == pytest.approx(1e7 + 1e6 / (0.5 - 0.11))


def test_a_run_that_recorded_nothing_says_so() -> None:
    blind = {name: [np.nan] * 200 for name in ("queued_s", "prefill_start_s", "prefill_end_s", "decode_start_s")}
    assert explained(run(requests(SEND, [2.0] * 200, **blind))).kind == "unknown"


def test_waterfall_adds_up_to_the_mean_ttft() -> None:
    made = growing("queue")
    summary = summarise(run(made.pop("table"), **made))
    rows = waterfall(summary)
    assert sum(mean for _, mean, _ in rows) == pytest.approx(summary["ttft_mean_ms"])
    assert sum(share for *_, share in rows) == pytest.approx(1.0)


# --- the one sentence --------------------------------------------------------------------------


def test_answer_of_a_run_that_meets_its_targets() -> None:
    text = printing.answer(summarise(run(requests(SEND, [0.1] * 200))))
    assert text == (
        "1 aggregated worker on 1x H200 serves 9.95 req/s; 100 % meet TTFT <= 500 ms and TPOT <= 30 ms"
        " (target 99 %): meets the targets. [calibrated: h200-llama-3.1-8b-tp1]"
    )


def test_answer_of_a_miss_and_of_other_provenance() -> None:
    made = run(requests(SEND, [0.6] * 200), [busy("aggregated-0", 9)], slo={"ttft_ms": 500, "tpot_ms": None})
    measured = Run(**{**made.__dict__, "manifest": {**made.manifest, "provenance": "measured"}})
    text = printing.answer(summarise(measured))
    assert "0 % meet TTFT <= 500 ms (target 99 %): misses the targets; prefill is the bottleneck. [measured]" in text
    simulated = Run(**{**made.__dict__, "manifest": {**made.manifest, "provenance": "simulated"}})
    assert printing.answer(summarise(simulated)).endswith("[roofline: not measured, and no public rows are comparable]")


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert percent(0.9999) == "99.9 %"
    assert [percent(share, 0.99) for share in (0.9896, 0.98999, 0.9899999999, 0.95, 0.99, 0.991)] == [
        "98.96 %", "98.999 %", "98.9999 %", "95 %", "99 %", "99.1 %",
    ]  # fmt: skip
    assert percent(1.0) == "100 %"
    assert percent(0.992) == "99.2 %"
    assert percent(None) == "-"


def test_numbers_as_people_read_them() -> None:
    assert [number(x) for x in (0, 0.01234, 12.345, 1234.5, 2.5e7, None, float("nan"))] == [
        "0", "0.0123", "12.3", "1,234", "2.5e+07", "-", "-",
    ]  # fmt: skip
    assert milliseconds(12.34) == "12.3 ms"
    assert milliseconds(4560) == "4.56 s"


def test_comparison_says_who_is_ahead_per_gpu() -> None:
    a = summarise(run(requests(SEND, [0.1] * 200)))
    half = run(requests(SEND, [0.1] * 200))
    b = summarise(Run(**{**half.__dict__, "manifest": {**manifest(), "gpus": 2}}))
    assert "A is ahead by 100.0 %" in printing.compared(a, b)
    assert "neither is ahead" in printing.compared(a, a)
    near = summarise(run(requests(np.arange(2000) / 10.0, [0.1] * 2000), hardware="h100"))
    other = summarise(run(requests(np.arange(2000) / 10.0, [0.1] * 1999 + [0.15]), hardware="h100"))
    assert near["goodput_requests_per_s_per_gpu"] != other["goodput_requests_per_s_per_gpu"]
    assert "they are within 0.1 % of each other" in printing.compared(near, other)

    rows = {row.name: row for row in printing.compare(a, b)}
    assert rows["goodput_requests_per_s_per_gpu"].better == "A"
    assert rows["goodput_requests_per_s_per_gpu"].change == pytest.approx(-0.5)
    assert rows["ttft_p50_ms"].better == ""

    grows = summarise(run(requests(SEND, np.linspace(0.1, 20.0, 200))))
    slopes = {row.name: row for row in printing.compare(a, grows)} | {
        f"back {row.name}": row for row in printing.compare(grows, a)
    }
    for row in slopes.values():  # no ratio of numbers of which one is negative
        assert row.change is None or min(row.a or 0, row.b or 0) >= 0


def test_a_stage_of_late_requests_is_said_to_be_theirs() -> None:
    from planner import load, simulate

    late = explain(summarise(simulate(load("disagg"))))
    assert "of the time to first token of requests that miss its target" in str(late.sentences[1])
    none = explain(summarise(simulate(load("disagg", ["workload.rate=2"]))))
    assert "that miss its target" not in none.text


def test_where_simulated_numbers_are_from() -> None:
    """A roofline, a fit to a table, and a calibration are three things."""
    from planner import load, simulate

    few = ["workload.requests=5"]
    guessed = summarise(simulate(load("agg", ["profile=null", *few])))
    measured = summarise(simulate(load("agg", few)))
    fitted = summarise(simulate(load("report/agg")))
    assert printing.provenance(guessed).startswith("[roofline: not measured on your GPU; on ")
    assert printing.provenance(fitted) == "[simulated: fitted to the report's four numbers]"
    assert printing.provenance(measured) == "[calibrated: h200x2-llama-3.1-8b-tp1]"
    assert fitted.to_dict()["provenance"] == "simulated"


def test_a_profile_of_another_engine_is_not_its_calibration() -> None:
    from planner import load, simulate

    few = ["workload.requests=5"]
    for other in ("model=qwen3-32b", "hardware=h100"):
        run, own = simulate(load("agg", [other, *few])), simulate(load("agg", [other, "profile=null", *few]))
        assert printing.provenance(summarise(run)).startswith("[roofline: ")
        assert list(run.requests["finish_s"]) == list(own.requests["finish_s"])
    for other in ("deployment.tp=4", "engine.quantization=fp8"):  # the same engine otherwise
        assert printing.provenance(summarise(simulate(load("agg", [other, *few])))).startswith("[not calibrated: ")


def test_a_link_that_waits_for_prompts_is_no_bottleneck() -> None:
    """What is sent is more than the link could carry, but prefill lets through a fraction of it."""
    from planner import load, simulate

    found = explain(summarise(simulate(load("disagg", ["workload.rate=1000", "workload.requests=200"]))))
    assert found.kind == "prefill"


@pytest.mark.parametrize("retrieval", ["null", "{at: prefill_worker, workers: 1, embed_ms: 1, search_ms: 1}", "{}"])
def test_waiting_in_a_shared_queue_is_queueing(retrieval: str) -> None:
    """Prefill workers that take one prompt at a time: the line before them is the queue, whoever retrieves."""
    from planner import load, simulate

    kind = (
        "{kind: rag, rate: 30, requests: 200}"
        if retrieval != "null"
        else "{rate: 30, requests: 200, prompt_tokens: 3000}"
    )
    spec = load(
        "disagg",
        [f"retrieval={retrieval}", f"workload={kind}", "deployment.router.prefill_dispatch=shared_queue"],
    )
    made = simulate(spec)
    summary = summarise(made)
    stages = summary.stages_ms
    assert stages["queue"] > 0.8 * summary.number("ttft_mean_ms")
    assert stages["host"] < 20
    assert sum(stages.values()) == pytest.approx(summary.number("ttft_mean_ms"))
    assert made.requests["shared_queued_s"].notna().all()
    found = explain(summary)
    assert found.kind == "prefill"
    assert "Queue is" in found.text


@pytest.mark.parametrize("count", [1, 9, 10])
def test_few_requests_are_said_to_be_few(count: int) -> None:
    found = printing.warnings(summarise(run(requests(SEND[:count], [0.1] * count))))
    assert any("say little" in text for text in found) == (count < 10)


def test_report_fits_80_columns_and_adds_its_warnings() -> None:
    from rich.console import Console

    made = growing("queue")
    table = made.pop("table")
    table.loc[0, "finish_reason"] = "error"
    made_run = run(table, [busy("prefill-0", 9), busy("decode-0", decode_seqs=3)], **made)
    told = Run(**{**made_run.__dict__, "manifest": {**made_run.manifest, "warnings": ["outside the measured range"]}})
    out = io.StringIO()
    printing.write(Console(file=out, width=80), summarise(told), "runs/x")
    text = out.getvalue()
    assert text.startswith("Past saturation")
    assert "Warning: outside the measured range" in text
    assert "Warning: 1 of 200 requests failed" in text
    assert "Run: runs/x" in text
    tables = [line for line in text.splitlines() if not line.startswith(("Past", "Bottleneck", "Warning"))]
    assert max(len(line) for line in tables) <= 80
    assert "\x1b" not in text
    assert [line for line in _on_a_terminal(told, 80) if line in tables] == tables  # the same but for what is bold
    assert any("Latency, ms" in line and " Rates " in line for line in _on_a_terminal(told, 120))


def _on_a_terminal(told: Run, width: int) -> list[str]:
    from rich.console import Console

    out = io.StringIO()
    printing.write(Console(file=out, width=width, force_terminal=True), summarise(told), "runs/x")
    text = out.getvalue()
    assert "\x1b[1m" in text
    return re.sub(r"\x1b\[\d*m", "", text).splitlines()


def test_what_waits_after_the_first_token_is_found_too() -> None:
    """The prefill worker gives the first token, so TTFT is fine while the decode side falls behind."""
    n = len(SEND)
    columns = {
        "queued_s": SEND, "prefill_start_s": SEND, "prefill_end_s": SEND + 0.1, "transfer_start_s": SEND * 3 + 0.1,
        "transfer_end_s": SEND * 3 + 0.2, "decode_start_s": SEND * 3 + 0.2, "finish_s": SEND * 3 + 0.5,
    }  # fmt: skip
    table = requests(SEND, [0.11] * n, worker=["prefill-0"] * n, decode_worker=["decode-0"] * n, **columns)
    rows = [busy("prefill-0", 9), busy("decode-0", decode_seqs=8, waiting=3, kv_used_fraction=0.4)]
    deployment = {"mode": "disaggregated", "first_token": "prefill"}
    summary = summarise(run(table, rows, mode="disaggregated", deployment=deployment))
    assert summary["ttft_attainment"] == 1.0
    assert summary.saturation.saturated
    found = explain(summary)
    assert (found.kind, found.where) == ("decode", "decode")


def test_a_router_that_turns_requests_away_is_past_saturation() -> None:
    reasons = ["length", "rejected"] * 100
    found = explain(summarise(run(requests(SEND, [0.1] * 200, finish_reason=reasons), [busy("aggregated-0", 9)])))
    assert found.kind == "prefill"
    assert "100 requests are turned away" in found.text
