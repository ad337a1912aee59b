"""Formats beyond one request a line, what is wanted of a trace, and rows that do not fit."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import cli, simulate, summarise
from planner.spec import Spec, SpecError, parse
from planner.traffic.trace_scan import Scan
from planner.traffic.traces import Selection, TraceFile, format_of, read, requests_of, to_requests
from planner.traffic.workload import at_rate, build, offered_rate

STRICT = Selection(strict=True)


def write(folder: Path, name: str, data: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def seen(trace: TraceFile) -> list[tuple[float | None, int, int]]:
    return [(row.arrival_s, row.prompt_tokens, row.output_tokens) for row in trace.requests]


def spec_of(path: Path, **fields: Any) -> Spec:
    workload = {"kind": "trace", "path": str(path), **fields}
    return Spec.model_validate(
        {"schema": 1, "name": "replay", "deployment": {"mode": "aggregated"}, "workload": workload}
    )


# --- formats -----------------------------------------------------------------------------------


def aiperf(start_s: float, prompt: int, output: int, **about: Any) -> dict[str, Any]:
    start_ns = int((1_759_000_000 + start_s) * 1e9)
    error = about.pop("error", None)
    return {
        "metadata": {"request_start_ns": start_ns, "request_end_ns": start_ns + 10**9, **about},
        "metrics": {
            "input_sequence_length": {"value": prompt, "unit": "tokens"},
            "output_sequence_length": {"value": output, "unit": "tokens"},
        },
        "error": error,
    }


def test_aiperf_records(tmp_path: Path) -> None:
    rows = [
        aiperf(0, 9, 1, benchmark_phase="warmup"),
        aiperf(1, 550, 120, benchmark_phase="profiling", x_correlation_id="u"),
        aiperf(2, 550, 120, error={"code": 500}),
        aiperf(3.5, 600, 100, benchmark_phase="profiling", x_correlation_id="u"),
    ]
    trace = read(write(tmp_path, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows)), selection=STRICT)
    assert trace.format == "aiperf"
    assert seen(trace) == [(0.0, 550, 120), (2.5, 600, 100)]
    assert {row.session for row in trace.requests} == {"u"}
    assert "2 requests that had failed" in " ".join(trace.warnings)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt_tokens": 100, "output_tokens": 20, "request_start_time": 1.0},
        {"prompt_tokens": 100, "output_tokens": 20, "start_time": 1.0, "end_time": 3.0},
        {
            "info": {"timings": {"request_start": 1.0, "request_end": 3.0}},
            "input_metrics": {"text_tokens": 100},
            "output_metrics": {"text_tokens": 20},
        },
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_guidellm_reports(tmp_path: Path, row: dict[str, Any], indent: int | None) -> None:
    requests = {"successful": [row], "errored": [{"prompt_tokens": 5}], "incomplete": []}
    later = {"successful": [row | {"request_start_time": 9.0}]}
    report = {"metadata": {"version": 1}, "args": {}, "benchmarks": [{"requests": requests}, {"requests": later}]}
    trace = read(write(tmp_path, "r.json", json.dumps(report, indent=indent)), selection=STRICT)
    assert trace.format == "guidellm"
    assert seen(trace) == [(0.0, 100, 20), (8.0, 100, 20)]
    assert "1 requests that had failed" in " ".join(trace.warnings)


AGENT = {
    "id": "s", "models": ["m"], "block_size": 64, "hash_id_scope": "local",
    "requests": [
        {"t": 0.0, "type": "s", "in": 200, "out": 10, "hash_ids": [1, 2, 3]},
        {"t": 1.0, "type": "subagent", "agent_id": "a", "status": "completed", "requests": [
            {"t": 1.0, "type": "n", "in": 70, "out": 5, "hash_ids": [9]},
            {"t": 3.0, "type": "n", "in": 130, "out": 5, "hash_ids": [9, 8], "think_time": 0.25},
        ]},
        {"t": 1.0, "type": "subagent", "agent_id": "b", "status": "async_launched", "requests": [
            {"t": 2.0, "type": "n", "in": 64, "out": 90, "hash_ids": [7]},
        ]},
        {"t": 9.0, "type": "n", "in": 300, "out": 20, "hash_ids": [1, 2, 3, 4], "think_time": 0.5},
    ],
}  # fmt: skip


def test_agents_fork_and_join(tmp_path: Path) -> None:
    load = build(spec_of(write(tmp_path, "trace_0001.json", AGENT)))
    for _ in range(2):  # a load can be started anew
        (first,) = load.start()
        assert first.request.prompt_tokens == 200
        inner, free = load.finished(first.request, 2.0)
        assert (inner.time_s, inner.request.prompt_tokens) == (3.0, 70)  # 1 s after the recorded start
        assert (free.time_s, free.request.prompt_tokens) == (4.0, 64)
        (second,) = load.finished(inner.request, 4.0)
        assert (second.time_s, second.request.prompt_tokens) == (4.25, 130)
        (main,) = load.finished(second.request, 6.0)
        assert (main.time_s, main.request.prompt_tokens) == (6.5, 300)
        assert load.finished(free.request, 99.0) == load.finished(main.request, 9.0) == []
    assert load.expected_requests == 5
    assert len({first.request.session_id, main.request.session_id}) == 1
    assert main.request.segments[:3] == first.request.segments[:3]
    assert [first.request.shared_tokens, main.request.shared_tokens] == [192, 192]


def test_ids_of_sessions_are_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, f"{name}.json", AGENT | {"id": name})
    assert format_of(tmp_path) == "agents"
    trace = read(tmp_path, selection=STRICT)
    assert len(trace.requests) == 10
    ids = [set(row.hash_ids) for row in trace.requests if row.prompt_tokens == 300]
    assert not ids[0] & ids[1]
    run = simulate(spec_of(tmp_path))
    assert (run.requests["finish_reason"] == "length").all()
    assert len(run.requests) == 10
    lines = write(tmp_path, "all.jsonl", "".join(json.dumps(AGENT | {"id": str(i)}) + "\n" for i in range(3)))
    assert len(read(lines).requests) == 15
    assert offered_rate(spec_of(lines)) is None
    assert [a.time_s for a in build(spec_of(lines)).start()] == [0.0] * 3
    drawn = [a.time_s for a in build(spec_of(lines, rate=0.5)).start()]
    assert 0 < drawn[0] < drawn[1] < drawn[2]


def test_sharegpt_turns_repeat_what_was_said(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "x" * 400},
        {"from": "gpt", "value": "y" * 80},
        {"from": "human", "value": "z" * 40},
        {"from": "gpt", "value": "y" * 4},
    ]
    path = write(tmp_path, "s.json", [{"id": "1", "conversations": turns}, {"id": "2", "conversations": turns[:2]}])
    with pytest.raises(
        SpecError, match=r"^workload\.rate: missing; .* has no send times; allowed: requests per second$"
    ):
        build(spec_of(path))
    load = build(spec_of(path, rate=2.0))
    first, other = load.start()
    assert [r.request.prompt_tokens for r in (first, other)] == [100, 100]
    (second,) = load.finished(first.request, 5.0)
    assert (second.time_s, second.request.prompt_tokens, second.request.output_tokens) == (5.0, 130, 1)
    assert second.request.segments[0] == first.request.segments[0]
    assert first.request.segments[0] != other.request.segments[0]
    assert "4 characters" in read(path).warnings[0]
    assert offered_rate(spec_of(path, rate=2.0)) == 2.0
    assert offered_rate(at_rate(spec_of(path, rate=2.0), 3.0)) == 3.0


def test_our_own_runs(tmp_path: Path) -> None:
    run = simulate(
        parse("{schema: 1, name: a, deployment: {mode: aggregated}, workload: {kind: poisson, requests: 9}}")
    )
    folder = run.save(tmp_path / "run")
    for path in (folder, Path(folder) / "requests.parquet"):
        trace = read(path, selection=STRICT)
        assert trace.format == "planner"
        expected = run.requests["arrival_s"] - run.requests["arrival_s"].iloc[0]
        assert [row.arrival_s for row in trace.requests] == pytest.approx(expected.to_list())


def servegen(folder: Path, *, rows: str, tokens: str = "{100: 0.25, 200: 0.75}") -> Path:
    write(folder, "chunk-0-dataset.json", {"0": {"input_tokens": tokens, "output_tokens": "{7: 1.0}"}})
    return write(folder, "chunk-0-trace.csv", rows)


def test_servegen_windows(tmp_path: Path) -> None:
    rows = "0,2.0,1.5,Gamma,0.4,1.0\n600,0,0,,0,0\n1200,4.0,2.0,Weibull,0.6,1.0\n"
    path = servegen(tmp_path, rows=rows)
    assert format_of(path) == format_of(tmp_path) == "servegen"
    trace = read(path, selection=Selection(strict=True, dequantise=False))
    times = np.array([row.arrival_s for row in trace.requests])
    early, late = times[times < 600], times[times > 1100]
    assert len(early) == pytest.approx(1200, rel=0.15)
    assert len(late) == pytest.approx(2400, rel=0.15)
    assert len(early) + len(late) == len(times)
    gaps = np.diff(late)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.76, rel=0.15)  # of a Weibull law of shape 0.6
    share = np.mean([row.prompt_tokens == 200 for row in trace.requests])
    assert share == pytest.approx(0.75, abs=0.03)
    part = read(path, selection=Selection(1200, 1260))
    assert len(part.requests) == pytest.approx(240, rel=0.4)


# --- any table ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "arrival_s,prompt_tokens,output_tokens\n10,300,40\n10.5,400,50\n",
        "request_id;arrival_timestamp;prompt_size;token_size\n1;10;300;40\n2;10.5;400;50\n",
        "time_ms\tisl\tosl\n10000\t300\t40\n10500\t400\t50\n",
        "created_at,input_tokens,completion_tokens\n2024-01-01T00:00:10Z,300,40\n2024-01-01T00:00:10.5Z,400,50\n",
        '{"start_time": 1700000000000, "usage": {"prompt_tokens": 300, "completion_tokens": 40}}\n'
        '{"start_time": 1700000000500, "usage": {"prompt_tokens": 400, "completion_tokens": 50}}\n',
        '{"startTime": "2024-01-01T00:00:10Z", "input": "hi", "usageDetails": {"input": 300, "output": 40}}\n'
        '{"startTime": "2024-01-01T00:00:10.5Z", "input": "hi", "usageDetails": {"input": 400, "output": 50}}\n',
        '{"ts": 10, "usageMetadata": {"promptTokenCount": 300, "candidatesTokenCount": 40}}\n'
        '{"ts": 10.5, "usageMetadata": {"promptTokenCount": 400, "candidatesTokenCount": 50}}\n',
        '{"ts": 10, "usage": {"input_tokens": 20, "cache_read_input_tokens": 280, "output_tokens": 40}}\n'
        '{"ts": 10.5, "usage": {"input_tokens": 390, "cache_creation_input_tokens": 10, "output_tokens": 50}}\n',
        '{"ts": 10, "prompt_tokens": 300, "cache_read_input_tokens": 280, "completion_tokens": 40}\n'
        '{"ts": 10.5, "prompt_tokens": 400, "cache_read_input_tokens": 0, "completion_tokens": 50}\n',
        '{\n "object": "list",\n "data": [\n  {"ts": 10, "tokens_prompt": 300, "tokens_completion": 40},\n'
        '  {"ts": 10.5, "tokens_prompt": 400, "tokens_completion": 50}\n ]\n}\n',
    ],
)
def test_a_table_is_told_by_its_columns(tmp_path: Path, text: str) -> None:
    trace = read(write(tmp_path, "t", text))
    assert trace.format == "columns"
    found = [(row.arrival_s, row.prompt_tokens, row.output_tokens) for row in trace.requests]
    assert found == [(0.0, 300, 40), (pytest.approx(0.5, abs=1e-3), 400, 50)]


def test_bytes_and_sums_are_not_taken_for_the_tokens_of_a_request(tmp_path: Path) -> None:
    path = write(tmp_path, "t", '{"time": 1, "request_length": 3000, "response_length": 4000}\n')
    with pytest.raises(SpecError, match="unknown format with the columns time, request_length, response_length; "):
        read(path)
    path = write(tmp_path, "t", "start_time,input_tokens,output_tokens,num_model_requests\n1,30000,4000,120\n")
    with pytest.raises(SpecError, match="num_model_requests: rows that are sums of many requests; must be a row a req"):
        read(path)


def test_a_project_is_no_session(tmp_path: Path) -> None:
    row = '{"start_time": 1, "prompt_tokens": 30, "completion_tokens": 4, "session_id": "a"'
    for end, sessions in (("}\n", {"a"}), (', "run_type": "llm"}\n', {None})):
        trace = read(write(tmp_path, "t", (row + end) * 2))
        assert {request.session for request in trace.requests} == sessions


def test_rows_of_a_table_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    rows = "time,prompt_tokens,output_tokens\n1,2,3\nsoon,2,3\n2,2,0\n3,4,5\n4,4,5\n"
    trace = read(write(tmp_path, "t", rows))
    assert len(trace.requests) == 3
    assert "line 3: time is 'soon'; must be a date and time" in trace.warnings[1]
    assert "line 4: output_tokens is '0'" in trace.warnings[1]


def test_rows_before_the_first_one_are_kept(tmp_path: Path) -> None:
    """A trace in the order in which its answers ended, or newest first."""
    text = "time,prompt_tokens,output_tokens\n" + "".join(f"{10 - at},{100 + at},5\n" for at in range(8))
    trace = read(write(tmp_path, "t", text))
    assert [row.prompt_tokens for row in trace.requests] == list(range(107, 99, -1))
    assert [row.arrival_s for row in trace.requests] == list(range(8))


def test_a_trace_that_is_one_pause_is_doubted(tmp_path: Path) -> None:
    rows = "".join(f"{at},100,5\n" for at in range(30))
    trace = read(write(tmp_path, "t", f"time,prompt_tokens,output_tokens\n{rows}31536000,100,5\n"))
    assert "Nothing is sent for 8760 of the trace's 8760 hours" in trace.warnings[1]


# --- telling them apart ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"hello": 1}\n', "[1, 2]", '{"schema": 1, "name": "x"}', "a b c"])
def test_an_unknown_format_names_the_known_ones(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, "t", text)
    with pytest.raises(SpecError) as caught:
        read(path)
    known = (
        "mooncake, bailian, azure, burstgpt, agents, servegen, sharegpt, vllm_bench, aiperf, guidellm, planner, columns"
    )
    assert f"{path}: line 1: unknown format" in str(caught.value)
    assert f"; workload.format must be one of {known} (CSV" in str(caught.value)


def test_bench_results_without_details_say_so(tmp_path: Path) -> None:
    path = write(tmp_path, "b.json", {"total_input_tokens": 5, "request_throughput": 1.0})
    with pytest.raises(
        SpecError, match=r"no list 'start_times'; must be the result of `vllm bench serve --save-result --sa"
    ):
        read(path)


def test_the_size_of_a_block_is_seen(tmp_path: Path) -> None:
    rows = [
        {"timestamp": i, "input_length": 640 + i, "output_length": 1, "hash_ids": list(range(10))} for i in range(4)
    ]
    trace = read(write(tmp_path, "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows)), selection=STRICT)
    assert trace.block_tokens == 64
    assert trace.warnings == ("The trace's hash_ids stand for blocks of 64 tokens.",)
    assert to_requests(trace).arrivals[3][1].segments[-1][1] == 3  # what is beyond the whole blocks


# --- rows that do not fit ----------------------------------------------------------------------

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def azure(*rows: tuple[float, int, int]) -> str:
    return HEADER + "".join(
        f"2024-05-10 {int(s // 3600):02d}:{int(s % 3600 // 60):02d}:{s % 60:09.6f}+00:00,{prompt},{output}\n"
        for s, prompt, output in rows
    )


def test_bad_rows_are_counted_and_strict_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "a.csv", azure((0, 5, 5), (1, 5, 0), (2, 5, 5), (3, 5, 5)) + "oops\n")
    trace = read(path)
    assert len(trace.requests) == 3
    (warning,) = trace.warnings
    assert warning == (
        "2 of 5 rows of the trace were left out (line 3: GeneratedTokens is '0'; must be a whole number, at least 1; "
        "line 6: 1 cells; must be 3 as in the header)."
    )
    assert warning in simulate(spec_of(path)).manifest["warnings"]
    assert cli.run(["trace", str(path), "--strict"]) == 2
    assert "line 3: GeneratedTokens is '0'" in capsys.readouterr().err
    with pytest.raises(SpecError, match="line 3"):
        build(spec_of(path, strict=True))


def test_a_file_of_mostly_bad_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", azure((0, 5, 5), (1, 5, 0), (2, 5, 0)))
    with pytest.raises(SpecError, match=r"line 3: GeneratedTokens is '0'.*\(2 such rows\)$"):
        read(path)


# --- what is wanted ----------------------------------------------------------------------------


def test_windows_samples_and_rates(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", azure(*((i * 1.25, 100 + i, 5) for i in range(400))))
    part = read(path, selection=Selection(100.0, 200.0))
    assert [row.prompt_tokens for row in part.requests] == list(range(180, 260))
    assert part.requests[0].arrival_s == 0.0
    some = read(path, selection=Selection(sample=0.25))
    assert len(some.requests) == pytest.approx(100, abs=35)
    more = {row.prompt_tokens for row in read(path, selection=Selection(sample=0.5)).requests}
    assert {row.prompt_tokens for row in some.requests} < more
    assert offered_rate(spec_of(path)) == pytest.approx(0.8)
    fast = spec_of(path, rate=8.0)
    assert build(fast).start()[-1].time_s == pytest.approx(399 * 0.125)
    assert offered_rate(fast) == 8.0
    with pytest.raises(SpecError, match="the trace is empty in what was chosen of it"):
        read(path, selection=Selection(1e6, 2e6))


def test_sessions_are_sampled_as_a_whole(tmp_path: Path) -> None:
    rows = "Timestamp,Session ID,Elapsed time,Request tokens,Response tokens\n" + "".join(
        f"{turn * 10 + user / 7},{user},2,{10 + turn},5\n" for turn in range(3) for user in range(60)
    )
    path = write(tmp_path, "b.csv", rows)
    some = read(path, selection=Selection(sample=0.5))
    assert 20 < len({row.session for row in some.requests}) < 40
    assert len(some.requests) == 3 * len({row.session for row in some.requests})


def test_closed_loops_wait_for_the_answer_and_the_pause(tmp_path: Path) -> None:
    rows = "Timestamp,Session ID,Elapsed time,Request tokens,Response tokens\n0,a,4,10,5\n10,a,1,20,5\n2,b,1,30,5\n"
    load = build(spec_of(write(tmp_path, "b.csv", rows), closed_loop=True))
    first, other = load.start()
    assert [a.request.prompt_tokens for a in (first, other)] == [10, 30]
    (second,) = load.finished(first.request, 1.0)
    assert (second.time_s, second.request.prompt_tokens) == (7.0, 20)  # 10 - 0 - 4 s after the answer


def test_coarse_stamps_are_spread_within_their_grid(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 3000 * (i // 10), "input_length": 100 + i, "output_length": 1} for i in range(600)
    ]  # 10 every 3 s, as Mooncake's
    path = write(tmp_path, "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    trace = read(path)
    assert trace.warnings[0].startswith("The trace's send times lie on a grid of 3 s; requests were spread evenly")
    assert [row.prompt_tokens for row in trace.requests] == [100 + i for i in range(600)]
    times = np.array([row.arrival_s for row in trace.requests])
    gaps = np.diff(times)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, abs=0.2)
    cells = np.floor((times + times[0]) / 3)
    assert max(len(list(group)) for _, group in itertools.groupby(cells)) < 16
    kept = read(path, selection=Selection(dequantise=False))
    assert (kept.warnings, kept.requests[9].arrival_s) == ((), 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("rate: 2, speedup: 3", "workload: rate 2 beside a speedup; allowed: one of the two"),
        ("start_s: 5, end_s: 5", "workload: end_s 5 is not after start_s; allowed: numbers above 5"),
        ("sample: 0", "workload.sample"),
    ],
)
def test_wishes_that_cannot_be(fields: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(f"{{schema: 1, name: a, deployment: {{mode: aggregated}}, workload: {{kind: trace, path: x, {fields}}}}}")
    assert message in str(caught.value)


# --- size --------------------------------------------------------------------------------------


def test_a_long_file_is_described_in_little_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are not kept: 20,000 rows of 200 ids cost far less than their text, let alone than their numbers."""
    import resource

    ids = list(range(200))
    path = tmp_path / "m.jsonl.gz"
    with gzip.open(path, "wt", compresslevel=1) as file:
        for i in range(20_000):
            ids[-1] = i
            row = {"timestamp": i * 7, "input_length": 512 * 200, "output_length": 9, "hash_ids": ids}
            file.write(json.dumps(row) + "\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert cli.run(["trace", str(path), "--json", "--cache", "500"]) == 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = json.loads(capsys.readouterr().out)
    assert found["requests"] == 20_000
    assert found["lru_hit_shares"]["500"] == pytest.approx(0.995, abs=1e-3)
    assert sum(found["arrivals"]) == 20_000
    assert grown < 60_000  # kB; the rows kept would be 20,000 x 200 x 8 B and more


@pytest.mark.parametrize(("last_s", "said"), [(1, "1 second."), (60, "1 minute."), (90, "1.5 minutes.")])
def test_a_short_trace_has_no_minute_below_its_mean(
    last_s: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["trace", str(write(tmp_path, "a.csv", azure((0, 100, 5), (last_s, 100, 5))))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"2 requests over {said}" in out
    assert "0.5 times the mean" not in out


def test_the_trace_command_says_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "a.csv", azure(*((i * 1.5, 100, 5) for i in range(200))))
    assert cli.run(["trace", str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "azure, 200 requests over 4.97 minutes." in out
    assert "Requests by minute, at most 40: █████" in out
    assert cli.run(["replay", str(path), "--from", "60", "--to", "120", "--json", "--no-save"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["requests"] == 40


def test_requests_of_depends_on_what_is_wanted(tmp_path: Path) -> None:
    path = str(write(tmp_path, "a.csv", azure(*((i * 1.5, 100, 5) for i in range(40)))))
    assert requests_of(path).requests == 40
    assert requests_of(path, selection=Selection(requests=3)).requests == 3
    assert summarise(simulate(spec_of(Path(path), requests=3)))["requests"] == 3


def test_a_list_of_records_is_read_like_a_record_a_line(tmp_path: Path) -> None:
    rows = [{"timestamp": 500 * n, "input_length": 600, "output_length": 7, "hash_ids": [0, n + 1]} for n in range(4)]
    lines = write(tmp_path, "lines.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    listed = write(tmp_path, "list.json", json.dumps(rows, indent=1))
    assert format_of(listed) == "mooncake" and seen(read(listed)) == seen(read(lines))
    plain = [{"time": 0.5 * n, "usage": {"prompt_tokens": 600, "completion_tokens": 7}} for n in range(4)]
    assert seen(read(write(tmp_path, "plain.json", plain))) == seen(read(lines))
    odd = read(write(tmp_path, "odd.json", [*plain, 5]))
    assert len(odd.requests) == 4 and odd.warnings[-1].startswith("1 of 5 rows")


def test_an_unknown_format_says_what_its_columns_are_called(tmp_path: Path) -> None:
    for text, names in (("when;in;out\n1;2;3\n", "when, in, out"), ('{"a": 1, "b": {"c": 2}}\n', "a, b, c")):
        with pytest.raises(SpecError, match=f"unknown format with the columns {names}; "):
            format_of(write(tmp_path, "odd", text))


@pytest.mark.parametrize("packed", [False, True])
def test_reading_tells_how_far_it_is(tmp_path: Path, packed: bool) -> None:
    text = "time,prompt_tokens,output_tokens\n" + "".join(f"{n},{n % 997 + 1},5\n" for n in range(30_000))
    path = tmp_path / "t"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    told: list[float] = []
    assert sum(1 for _ in Scan(path, "auto", None, told=told.append)) == 30_000
    assert told == sorted(told) and 0 < told[0] < told[-1] <= 1
