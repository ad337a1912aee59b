"""Trace files: every format, the errors, the figures, and the way out again."""

from __future__ import annotations

import gzip
import json
import os
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import Spec, SpecError
from planner.traffic import trace_files
from planner.traffic.loads import Chained
from planner.traffic.requests import Segments
from planner.traffic.traces import (
    Selection,
    TraceRequest,
    TraceSummary,
    format_of,
    lru_hit_share,
    read,
    requests_of,
    summarise,
    to_requests,
    write_mooncake,
)
from planner.traffic.workload import at_rate, build, offered_rate
from trace_samples import AZURE, BAILIAN, BURSTGPT

MOONCAKE = [
    {"timestamp": 1000, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 2]},
    {"timestamp": 3000, "input_length": 1100, "output_length": 6, "hash_ids": [0, 1, 3]},
    {"timestamp": 2000, "input_length": 300, "output_length": 7, "hash_ids": [4]},
]
AZURE_2024 = AZURE.replace("2023-11-16 18:15:46.6805900", "2024-05-10 00:00:00.009930+00:00").replace(
    "2023-11-16 18:15:50.9951690", "2024-05-10 00:00:04.324509+00:00"
)
STRICT = Selection(strict=True)
VLLM = {"start_times": [10.0, 10.5, 11.0], "input_lens": [8, 9, 10], "output_lens": [3, 0, 4], "backend": "vllm"}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, text: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "format", "expected"),
    [
        (lines(MOONCAKE), "mooncake", [(0.0, 1030, 5), (1.0, 300, 7), (2.0, 1100, 6)]),
        (AZURE, "azure", [(0.0, 374, 44), (4.314579, 396, 9)]),
        (AZURE_2024, "azure", [(0.0, 374, 44), (4.314579, 396, 9)]),
        (BURSTGPT, "burstgpt", [(0.0, 472, 18), (113.0, 417, 276)]),
        (lines(BAILIAN), "bailian", [(0.0, 20, 3), (4.0, 40, 3)]),
        (json.dumps(VLLM), "vllm_bench", [(0.0, 8, 3), (1.0, 10, 4)]),
        (json.dumps(VLLM, indent=1), "vllm_bench", [(0.0, 8, 3), (1.0, 10, 4)]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_formats(tmp_path: Path, text: str, format: str, expected: list[tuple[float, int, int]], packed: bool) -> None:
    path = write(tmp_path, gzip.compress(text.encode()) if packed else text)
    assert format_of(path) == format
    trace = read(path)
    assert trace.format == format
    assert [
        (pytest.approx(r.arrival_s, abs=1e-6), r.prompt_tokens, r.output_tokens) for r in trace.requests
    ] == expected


def test_limit_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff\n" + lines(MOONCAKE).replace("\n", "\n\n"))
    assert len(read(path, limit=2).requests) == 2


def test_hash_ids_become_segments_and_private_tails(tmp_path: Path) -> None:
    sent = to_requests(read(write(tmp_path, lines(MOONCAKE))))
    first, third, second = (request for _, request in sent.arrivals)
    assert not sent.followers
    assert first.segments[:2] == second.segments[:2] == ((0, 512), (1, 512))
    assert [r.shared_tokens for r in (first, second, third)] == [1024, 1024, 0]
    tails = {r.segments[-1] for r in (first, second, third)}
    assert {tokens for _, tokens in tails} == {6, 76, 300}
    assert len({content for content, _ in tails}) == 3
    assert all(content < 0 for content, _ in tails)


def test_sessions_keep_their_id(tmp_path: Path) -> None:
    arrivals = to_requests(read(write(tmp_path, lines(BAILIAN)))).arrivals
    assert len({request.session_id for _, request in arrivals}) == 1
    assert [request.shared_tokens for _, request in arrivals] == [16, 16]


def test_delay_waits_for_the_session(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 10, "output_length": 5, "session_id": "a"},
        {"delay": 1500, "input_length": 20, "output_length": 5, "session_id": "a"},
        {"timestamp": 700, "input_length": 30, "output_length": 5, "session_id": "b"},
        {"delay": 500, "input_length": 40, "output_length": 5, "session_id": "a"},
    ]
    load = build(trace_spec(write(tmp_path, lines(rows))))
    first, other = load.start()
    assert (other.time_s, other.request.prompt_tokens) == (0.7, 30)
    (second,) = load.finished(first.request, 3.0)
    assert (second.time_s, second.request.prompt_tokens) == (4.5, 20)
    (third,) = load.finished(second.request, 6.0)
    assert (third.time_s, third.request.prompt_tokens) == (6.5, 40)
    assert load.finished(third.request, 9.0) == load.finished(other.request, 9.0) == []
    assert load.expected_requests == 4


# --- errors ------------------------------------------------------------------------------------

GOOD = lines(MOONCAKE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the trace is empty; it must hold at least one request"),
        ("\n  \n", "the trace is empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "the trace is empty"),
        ("hello,world\n1,2\n", "line 1: unknown format with the columns hello, world; "),
        (GOOD + "{oops\n", "line 4: not JSON"),
        (GOOD + "[1]\n", "line 4: a JSON list; must be one object a line"),
        (GOOD.replace("1030", "0"), "line 1: input_length is 0; must be a whole number, at least 1"),
        (GOOD.replace("1030", "1030.5"), "line 1: input_length is 1030.5; must be a whole number"),
        (GOOD.replace("1030", "NaN"), "line 1: input_length is nan; must be"),
        (GOOD.replace("1030", "true"), "line 1: input_length is True; must be"),
        (GOOD.replace('"output_length": 6, ', ""), "line 2: output_length is missing; must be"),
        (GOOD.replace("3000", "-3000"), "line 2: timestamp is -3000; must be milliseconds, zero or more"),
        (GOOD.replace('"timestamp": 2000, ', ""), "line 3: timestamp is missing; must be"),
        (
            GOOD.replace("[4]", "[4, 5]"),
            "line 3: 2 hash_ids for 300 prompt tokens; with blocks of 512",
        ),
        (GOOD.replace("[4]", '["x"]'), "line 3: hash_ids must be a list of whole numbers"),
        (GOOD.replace("[4]", "7"), "line 3: hash_ids must be a list of whole numbers"),
        (AZURE.replace("396,9", "396"), "line 3: 2 cells; must be 3 as in the header"),
        (AZURE.replace("396", "many"), "line 3: ContextTokens is 'many'; must be a whole number, at least 1"),
        (AZURE.replace("2023-11-16 18:15:50", "yesterday"), "line 3: TIMESTAMP is 'yesterday.9951690'; must be a date"),
        (AZURE.replace("GeneratedTokens", "Tokens"), "line 1: no column 'GeneratedTokens'; the header must have"),
        ('{"input_lens": [1]}', "no list 'start_times'; must be the result of"),
        (
            '{"input_lens": [1], "output_lens": [], "start_times": [1]}',
            "1 start_times, 1 input_lens, 0 output_lens",
        ),
        ('{"input_lens": [1], "output_lens": ["a"], "start_times": [1]}', "request 1: output_lens is 'a'; must be"),
        (b"\x1f\x8bbroken", "damaged gzip file"),
        (gzip.compress(GOOD.encode())[:-9], "damaged gzip file"),
        (b"\xff\xfe\x00", "byte 0 is not UTF-8"),
        (
            '{"input_length": 1, "output_length": 1, "session_id": 3, "delay": 5}\n' + GOOD,
            "line 1: first request of session '3' needs a timestamp",
        ),
    ],
)
def test_errors_name_file_line_fault_and_remedy(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read(path, selection=STRICT)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            AZURE + "x" * 140_000 + ",1,1\n",
            "line 4: not CSV (field larger than field limit (131072)); must be cells",
        ),
        (BURSTGPT.replace("472", "9" * 400), f"line 2: Request tokens is '{'9' * 199}...; must be a whole number"),
        (lines([MOONCAKE[0] | {"input_length": 10**400}]), f"line 1: input_length is 1{'0' * 199}...; must be a whole"),
        (lines([MOONCAKE[0] | {"output_length": 1e300}]), "line 1: output_length is 1e+300; must be at most 1e+09"),
        (lines([MOONCAKE[0] | {"hash_ids": [10**400]}]), "line 1: hash_ids must be a list of whole numbers, zero or"),
        ('{"input_length": 1, "timestamp": ' + "9" * 5000 + "}\n", "line 1: not JSON (Exceeds the limit (4300 digits)"),
        (
            '{"input_length": 1, "timestamp": ' + "[" * 100_000 + "\n",
            "line 1: nested too deeply; must be one object a line",
        ),
        (lines([BAILIAN[0] | {"chat_id": [1]}]), "line 1: chat_id is [1]; must be a number or text"),
        (lines([BAILIAN[0] | {"parent_chat_id": {}}]), "line 1: parent_chat_id is {}; must be a number or text"),
    ],
)
def test_hostile_cells_get_one_short_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read(path, selection=STRICT)
    told = str(caught.value)
    assert told.startswith(f"{path}: {message}")
    assert "\n" not in told
    assert len(told) < 500


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    path.write_bytes(gzip.compress(os.urandom(2**20).hex().encode() + bytes(trace_files.MOST_LINE)))
    with pytest.raises(SpecError, match=r"t\.gz: a line of more than 67108864 bytes; must be at most that$"):
        read(path, "mooncake")
    path.write_bytes(gzip.compress(b"\n" * (trace_files.FREE + 2**20)))
    with pytest.raises(SpecError, match=r"t\.gz: unpacks to more than 200 times its size; must be at most that, or"):
        read(path, "mooncake")


def test_missing_file_and_unknown_format(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.jsonl"
    for reader in (read, requests_of, format_of):
        with pytest.raises(SpecError, match=r"nothing\.jsonl: No such file or directory"):
            reader(str(missing))
    with pytest.raises(SpecError, match=r"^workload\.format: 'weka' is unknown; must be auto or one of mooncake, "):
        read(write(tmp_path, GOOD), "weka")


# --- figures -----------------------------------------------------------------------------------


def test_lru_share_by_hand() -> None:
    rows = [TraceRequest(float(i), 512, 1, (block,)) for i, block in enumerate([1, 2, 1, 3, 2, 1])]
    assert lru_hit_share(rows, None) == pytest.approx(3 / 6)
    assert lru_hit_share(rows, 2) == pytest.approx(1 / 6)
    assert lru_hit_share(rows, 1) == 0


def test_summary_without_hash_ids_or_duration(tmp_path: Path) -> None:
    summary = summarise(read(write(tmp_path, AZURE)).requests[:1])
    assert summary is not None
    assert (summary.requests, summary.rate, summary.gap_cv, summary.infinite_cache_hit_share) == (1, None, None, None)


def figures(requests: Sequence[TraceRequest]) -> TraceSummary:
    found = summarise(requests)
    assert found is not None
    return found


def shared_trace(shared: Path, name: str) -> Path:
    path = shared / "traces" / name
    if not path.exists():
        pytest.skip(f"optional trace {path} is absent")
    return path


def test_mooncake_figures(shared: Path) -> None:
    summary = figures(read(shared_trace(shared, "mooncake_fast25_synthetic_trace.jsonl.gz")).requests)
    assert summary.requests == 3993
    assert summary.duration_s == pytest.approx(1022, abs=1)
    assert summary.prompt_tokens["mean"] == pytest.approx(15_326, abs=1)
    assert summary.output_tokens["mean"] == pytest.approx(149, abs=0.5)
    assert summary.infinite_cache_hit_share == pytest.approx(0.640, abs=5e-4)
    assert summary.lru_hit_shares == pytest.approx({5_000: 0.28, 10_000: 0.42, 30_000: 0.62}, abs=5e-3)


def test_azure_figures(shared: Path) -> None:
    summary = figures(read(shared_trace(shared, "AzureLLMInferenceTrace_conv.csv.gz")).requests)
    assert summary.requests == 19_366
    assert summary.duration_s == pytest.approx(3502, abs=1)
    assert summary.prompt_tokens["mean"] == pytest.approx(1155, abs=0.5)
    assert summary.output_tokens["mean"] == pytest.approx(211, abs=0.5)
    assert summary.gap_cv == pytest.approx(1.0, abs=0.15)


def test_private_tails_lose_no_cache_hit(shared: Path, tmp_path: Path) -> None:
    """Read, export, read: the same hit shares, although unshared blocks were merged."""
    path = shared_trace(shared, "mooncake_fast25_synthetic_trace.jsonl.gz")
    copy = tmp_path / "copy.jsonl"
    write_mooncake(build(trace_spec(path)), copy)
    assert figures(read(copy).requests) == figures(read(path).requests)


# --- as a workload -----------------------------------------------------------------------------


def trace_spec(path: Path, **fields: Any) -> Spec:
    workload = {"kind": "trace", "path": str(path), **fields}
    return Spec.model_validate(
        {"schema": 1, "name": "replay", "deployment": {"mode": "aggregated"}, "workload": workload}
    )


def test_speedup_and_rate(tmp_path: Path) -> None:
    spec = trace_spec(write(tmp_path, GOOD), speedup=2.0)
    assert [a.time_s for a in build(spec).start()] == [0, 0.5, 1.0]
    assert offered_rate(spec) == pytest.approx(2.0)
    assert [a.time_s for a in build(at_rate(spec, 0.5)).start()] == [0, 2.0, 4.0]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    assert len(build(trace_spec(path)).start()) == 3
    write(tmp_path, GOOD + lines([{"timestamp": 9000, "input_length": 1, "output_length": 1}]))
    assert len(build(trace_spec(path)).start()) == 4


def test_how_far_the_reading_is_is_told_and_what_was_read_is_remembered(tmp_path: Path) -> None:
    rows = [{"timestamp": at, "input_length": 1, "output_length": 1} for at in range(10_000)]
    spec = trace_spec(write(tmp_path, lines(rows)))
    shares: list[float] = []
    assert build(spec, shares.append).expected_requests == len(rows)
    assert 0 < min(shares) < 0.5 < shares[-1] <= 1
    told = len(shares)
    build(spec, shares.append)
    assert len(shares) == told


def test_other_block_size(tmp_path: Path) -> None:
    path = write(tmp_path, lines([{"timestamp": 0, "input_length": 100, "output_length": 1, "hash_ids": [1, 2]}] * 2))
    (first, second) = build(trace_spec(path, block_tokens=64)).start()
    assert first.request.segments == second.request.segments == ((1, 64), (2, 36))
    assert first.request.shared_tokens == 100


# --- export ------------------------------------------------------------------------------------


def test_export_needs_send_times(tmp_path: Path) -> None:
    spec = trace_spec(write(tmp_path, GOOD)).model_copy(update={"workload": closed_loop()})
    with pytest.raises(SpecError, match=r"out\.jsonl: only 4 of 20 requests have their own send time"):
        write_mooncake(build(spec), tmp_path / "out.jsonl")


def closed_loop() -> Any:
    fields = {"kind": "concurrency", "concurrency": 4, "requests": 20}
    return Spec.model_validate(
        {"schema": 1, "name": "c", "deployment": {"mode": "aggregated"}, "workload": fields}
    ).workload


PROMPTS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=5).map(tuple), min_size=1, max_size=8
)


@given(PROMPTS, st.integers(1, 6))
def test_export_shares_exactly_the_common_whole_blocks(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[Segments], block: int
) -> None:
    from planner.traffic.requests import Arrival, Request

    requests = [
        Request(i, i, sum(tokens for _, tokens in segments), 1, 1, segments, 0, -100 - i)
        for i, segments in enumerate(prompts)
    ]
    path = tmp_path_factory.getbasetemp() / "export.jsonl"
    write_mooncake(Chained(tuple(Arrival(float(r.request_id), r) for r in requests), {}), path, block)
    rows = read(path, "mooncake", block).requests
    assert [row.prompt_tokens for row in rows] == [request.prompt_tokens for request in requests]
    flat = [[(content, i) for content, tokens in segments for i in range(tokens)] for segments in prompts]
    for one, left in zip(rows, flat, strict=True):
        for other, right in zip(rows, flat, strict=True):
            for index, (a, b) in enumerate(zip(one.hash_ids, other.hash_ids, strict=False)):
                end = (index + 1) * block
                assert (a == b) == (left[:end] == right[:end])


def test_shipped_examples_are_what_the_script_writes(root: Path, tmp_path: Path) -> None:
    script = root / "benchmarks" / "make_traces.py"
    runpy.run_path(str(script))["main"](tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["chat_azure.csv", "documents_mooncake.jsonl"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (root / "traces" / name).read_bytes()
        assert len(read(tmp_path / name).requests) == 300
