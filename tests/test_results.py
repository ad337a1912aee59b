"""Other tools' results as runs: the same requests in five formats give the same run, and wrong files are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.cli import run
from planner.run.metrics import summarise
from planner.run.results import RESULTS, read_results, with_spec
from planner.run.tables import Run
from planner.spec import SpecError
from planner.validation.recorded import judge, read_record

CONFIG = ("agg", ["workload.requests=30", "workload.output_tokens=20"])
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def requests() -> Rows:
    """Sent, first token, gaps and end of each request of a simulation, in seconds: what a client would note."""
    made = planner.simulate(planner.load(*CONFIG)).requests
    rows = []
    for sent, first, end, prompt, output in made[
        ["arrival_s", "first_token_s", "finish_s", "prompt_tokens", "output_tokens"]
    ].itertuples(index=False):
        gap = (end - first) / (output - 1)
        rows.append(
            {"sent": sent, "ttft": first - sent, "gaps": [gap] * (output - 1), "end": end, "in": prompt, "out": output}
        )
    return rows


def vllm(rows: Rows) -> str:
    lists = {"start_times": "sent", "input_lens": "in", "output_lens": "out", "ttfts": "ttft", "itls": "gaps"}
    return json.dumps({"date": "20261129", **{name: [row[key] for row in rows] for name, key in lists.items()}})


def aiperf(rows: Rows) -> str:
    base = 1_759_000_000_000_000_000
    lines = [{"metadata": {"request_start_ns": base, "benchmark_phase": "warmup"}, "metrics": {}, "error": None}]
    for index, row in enumerate(rows):
        about = {
            "session_num": index, "benchmark_phase": "profiling", "request_start_ns": base + round(row["sent"] * 1e9),
            "request_end_ns": base + round(row["end"] * 1e9),
        }  # fmt: skip
        metrics = {
            "input_sequence_length": {"value": row["in"], "unit": "tokens"},
            "output_sequence_length": {"value": row["out"], "unit": "tokens"},
            "time_to_first_token": {"value": row["ttft"] * 1e3, "unit": "ms"},
            "inter_chunk_latency": {"value": [gap * 1e3 for gap in row["gaps"]], "unit": "ms"},
        }
        lines.append({"metadata": about, "metrics": metrics, "error": None})
    return "\n".join(map(json.dumps, lines))


def guidellm(rows: Rows) -> str:
    done = [
        {"request_start_time": 1e6 + row["sent"], "request_latency": row["end"] - row["sent"],
         "prompt_tokens": row["in"], "time_to_first_token_ms": row["ttft"] * 1e3, "output_tokens": row["out"]}
        for row in rows
    ]  # fmt: skip
    one = {"requests": {"successful": done, "incomplete": [], "errored": []}}
    return json.dumps({"metadata": {"version": 1}, "benchmarks": [one]})


def inference_perf(rows: Rows) -> str:
    return json.dumps([
        {"start_time": 7 + row["sent"], "end_time": 7 + row["end"], "request": "{}", "response": "", "error": None,
         "info": {"input_tokens": row["in"], "output_tokens": row["out"],
                  "output_token_times": list(accumulate(row["gaps"], initial=7 + row["sent"] + row["ttft"]))}}
        for row in rows
    ])  # fmt: skip


def qa(rows: Rows) -> str:
    head = "prompt_tokens,generation_tokens,ttft,generation_time,user_id,question_id,launch_time,finish_time\n"
    return head + "".join(
        f"{row['in']},{row['out']},{row['ttft']},{row['end'] - row['sent'] - row['ttft']},{index},1,"
        f"{row['sent']},{row['end']}\n"
        for index, row in enumerate(rows)
    )


FILES: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "vllm": ("result.json", vllm),
    "aiperf": ("profile_export.jsonl", aiperf),
    "guidellm": ("benchmarks.json", guidellm),
    "inference-perf": ("per_request.json", inference_perf),
    "multi-round-qa": ("summary.csv", qa),
}


def test_every_tool_is_tried() -> None:
    assert set(FILES) == set(RESULTS)


@pytest.mark.parametrize("tool", FILES)
def test_a_result_is_the_run_that_it_measured(tool: str, requests: Rows, tmp_path: Path) -> None:
    name, write = FILES[tool]
    path = tmp_path / name
    path.write_text(write(requests))
    found = read_results(path)
    assert (found.manifest["tool"], found.manifest["provenance"]) == (tool, "measured")
    expected = summarise(planner.simulate(planner.load(*CONFIG)))
    measured = summarise(found)
    for metric in ("requests", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "e2e_p99_ms", "requests_per_s"):
        assert measured[metric] == pytest.approx(expected[metric], rel=1e-4), metric
    again = Run.load(with_spec(found, planner.load(*CONFIG), 1).save(tmp_path / "folder"))
    (verdict,) = judge(read_record(tmp_path / "folder"))
    assert len(again.requests) == 30
    for metric in ("ttft", "e2e"):  # replayed at its own times the simulator says the same again
        assert abs(verdict.comparison.error(metric, "p50").error) < 0.02


def test_the_commands_take_them(requests: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {tool: tmp_path / name for tool, (name, _) in FILES.items()}
    for tool, (_, write) in FILES.items():
        paths[tool].write_text(write(requests))
    folder = tmp_path / "run"
    assert run(["results", str(paths["aiperf"]), "agg", "--out", str(folder)]) == 0
    assert "[measured]" in capsys.readouterr().out
    assert run(["compare", str(folder), str(paths["guidellm"])]) == 0
    assert "The deployment behind benchmarks.json" in capsys.readouterr().out
    assert run(["validate", str(folder)]) == 0
    for tool in ("vllm", "inference-perf", "aiperf"):
        assert run(["calibrate", "agg", "--from", str(paths[tool]), "--out", str(tmp_path / "p.yaml")]) == 0
    capsys.readouterr()
    assert run(["calibrate", "agg", "--from", str(paths["guidellm"]), "--out", str(tmp_path / "p.yaml")]) == 2
    assert "no time of each token" in capsys.readouterr().err
    bare = tmp_path / "bare"
    assert run(["results", str(paths["vllm"]), "--out", str(bare)]) == 0
    assert run(["validate", str(bare)]) == 2
    assert "does not say which deployment was measured" in capsys.readouterr().err


def test_several_benchmarks_are_asked_about(requests: Rows, tmp_path: Path) -> None:
    data = json.loads(guidellm(requests))
    data["benchmarks"] *= 2
    path = tmp_path / "two.json"
    path.write_text(json.dumps(data))
    with pytest.raises(SpecError, match=r"2 benchmarks; allowed: one of them, .*#0 to .*#1"):
        read_results(path)
    assert len(read_results(Path(f"{path}#1")).requests) == 30
    with pytest.raises(SpecError, match="no such benchmark"):
        read_results(Path(f"{path}#2"))


def test_failed_requests_stay_failed(requests: Rows, tmp_path: Path) -> None:
    data = json.loads(vllm(requests))
    data["ttfts"][3], data["output_lens"][3], data["itls"][3], data["errors"] = (
        0.0,
        0,
        [],
        [""] * 3 + ["refused"] + [""] * 26,
    )
    path = tmp_path / "some.json"
    path.write_text(json.dumps(data))
    found = read_results(path).requests
    assert list(found["error"].dropna()) == ["refused"]
    assert summarise(read_results(path))["completed"] == 29


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.json", "{", "not JSON"),
        ("a.json", "{}", "no known result"),
        ("a.json", '{"request_throughput": 5.0}', "totals alone, no requests; allowed: a result of vllm bench serve"),
        ("a.json", '{"input_lens": [1], "mean_ttft_ms": 1}', "no list start_times"),
        ("a.json", '{"input_lens":[1],"output_lens":[1,2],"ttfts":[1],"itls":[[]],"start_times":[0]}', "equally many"),
        ("a.json", '{"input_lens":[1],"output_lens":[1],"ttfts":["x"],"itls":[[]],"start_times":[0]}', "is no number"),
        (
            "a.json",
            '{"input_lens":[1.5],"output_lens":[1],"ttfts":[1],"itls":[[]],"start_times":[0]}',
            "no number of tokens",
        ),
        ("a.json", '{"benchmarks": []}', "no benchmarks"),
        (
            "a.json",
            '{"benchmarks": [{"requests": {"successful": [{"request_start_time": 1}]}}]}',
            "no request_end_time",
        ),
        (
            "a.json",
            '{"benchmarks": [{"requests": {"successful": [{"request_start_time": 1, "request_latency": 2, '
            '"prompt_tokens": 10000000000000000000}]}}]}',
            "no number of tokens",
        ),
        ("a.jsonl", '{"metadata": {}, "metrics": {}}', "no request_start_ns"),
        ("a.json", '[{"start_time": 1, "info": {}}]', "no input_tokens"),
        ("a.csv", "a,b\n1,2\n", "no known result"),
        ("a.csv", "prompt_tokens,generation_tokens,ttft,generation_time,launch_time\n1,1,x,1,1\n", "is no number"),
        ("a.csv", "", "no known result"),
        (
            "a.json",
            '[{"start_time": 1, "error": {"message": "no"}, "info": {"input_tokens": 3}}]',
            "no request was answered",
        ),
    ],
)
def test_faults_are_one_line(name: str, text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_results(path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "allowed:" in str(caught.value)


def test_a_file_of_one_result_has_no_second(requests: Rows, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(vllm(requests))
    with pytest.raises(SpecError, match="a.json#1: the file holds one result; allowed: "):
        read_results(tmp_path / "a.json#1")
    assert len(read_results(tmp_path / "a.json#0").requests) == len(requests)
