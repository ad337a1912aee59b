"""Some of what `benchmarks/fuzz.py` tries, and the limits that it led to."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import sys
import time
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from planner import cli
from planner.calibration.sources import read_source
from planner.engine.model_config import load_model
from planner.engine.profiles import read_profile
from planner.interop.dialects.multi_round_qa import summary_of_csv
from planner.interop.import_file import import_file
from planner.run.tables import Run, read_parquet
from planner.spec import SpecError, load, parse
from planner.spec.csv_file import read_rows
from planner.traffic.workload import build
from planner.watching.scrape import read_recording


@pytest.fixture(scope="module")
def fuzz(root: Path) -> ModuleType:
    sys.path.insert(0, str(root / "benchmarks"))  # where its cases are
    spec = importlib.util.spec_from_file_location("fuzz", root / "benchmarks" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "cases"),
    [("traces", 180), ("runs", 100), ("import", 80), ("spec", 60), ("checkpoints", 40), ("catalogues", 40)],
)
def test_hostile_input_gets_one_line(fuzz: ModuleType, kind: str, cases: int) -> None:
    tally = fuzz.fuzz(cases, [kind], 1)
    assert tally.tried[kind] >= cases // 2
    codes = {code for name, code in tally.codes if name == kind}
    assert 2 in codes, "some are refused"
    assert codes <= {0, 1, 2}
    faults = [(fault, case.words, case.files) for case, fault in tally.faults.get(kind, [])]
    assert not faults, faults[0]


def test_a_fault_is_seen(fuzz: ModuleType) -> None:
    """The judge itself: exit codes, tracebacks, lines and JSON."""
    case = fuzz.Case("spec", ("simulate", "x", "--json"))

    def outcome(code: int, out: str = "{}", err: str = "planner: no", size: int = 0) -> object:
        return fuzz.Outcome(code, 0.1, size, out, err)

    assert fuzz.judge(case, outcome(2)) is None
    assert fuzz.judge(case, outcome(0, '{"a": 1}', "")) is None
    assert "NaN" in fuzz.judge(case, outcome(0, '{"a": NaN}', ""))
    assert "exit code 1" in fuzz.judge(case, outcome(1))
    assert "2 lines" in fuzz.judge(case, outcome(2, "", "planner: a\nb"))
    assert "characters" in fuzz.judge(case, outcome(2, "", "planner: " + "a" * 5000))
    assert "traceback" in fuzz.judge(case, outcome(2, "", "Traceback (most recent call last)\nKeyError: 1"))
    assert "GiB" in fuzz.judge(case, outcome(0, "{}", "", 5 * 2**30))
    assert "signal 9" in fuzz.judge(case, outcome(-9))


def test_idle_time_costs_nothing() -> None:
    """Views that are renewed every 10 ms, over half a year in which twenty requests come."""
    text = (
        "{schema: 1, name: a, deployment: {mode: aggregated, replicas: 2, router: {state_age_s: 0.01}},"
        " workload: {kind: constant, rate: 0.000001, requests: 20}, run: {sample_interval_s: 1000}}"
    )
    import planner

    begun = time.process_time()
    run = planner.simulate(parse(text))
    assert time.process_time() - begun < 10
    assert (run.requests["finish_reason"] == "length").all()


def test_two_periodic_looks_do_not_keep_each_other_going() -> None:
    """Both pools' views, and workers that change roles: the run ends with its requests."""
    text = (
        "{schema: 1, name: a, deployment: {mode: disaggregated, prefill: {replicas: 2, router: {state_age_s: 0.5}},"
        " decode: {replicas: 2, router: {state_age_s: 0.5}}}, optimizations: {separation: {role_switch: {}}},"
        " workload: {kind: poisson, rate: 2, requests: 20}}"
    )
    import planner

    assert (planner.simulate(parse(text)).requests["finish_reason"] == "length").all()


def test_turns_have_a_limit() -> None:
    text = (
        "{schema: 1, name: a, deployment: {mode: aggregated},"
        " workload: {kind: sessions, rate: 1, sessions: 1000, turns: 10000}}"
    )
    with pytest.raises(SpecError, match=r"^workload\.turns: 10000000 turns in 1000 sessions; allowed: 2000000 in all"):
        build(parse(text))


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "agg", "--set", "workload.requests=" + "9" * 400],
        ["simulate", "agg", "--set", "model=" + "m" * 5000],
        ["simulate", "x" * 5000],
        ["simulate", "agg", "--set", "name=" + "n" * 90_000],
        ["simulate", "agg", "--set", "workload.rate=1e308", "--set", "workload.requests=1e308"],
        ["simulate", "rag", "--set", "retrieval.rerank_ms=1e300", "--no-save"],
        ["simulate", "rag", "--set", "retrieval.workers=2147483648", "--no-save"],
        ["simulate", "rag", "--set", "retrieval.service_cv=1e308", "--no-save"],
        ["simulate", "agg", "--set", "deployment.replicas=1000000000"],
        ["simulate", "agg", "--set", "deployment.router.state_age_s=1e-9"],
        ["simulate", "multi-round-qa", "--set", "workload.num_users=1e12"],
        ["simulate", "rag", "--set", "retrieval.search_ms=1e308", "--no-save"],
        ["simulate", "multi-round-qa", "--set", "workload.qps=1e-308", "--no-save"],
        ["simulate", "disagg", "--set", "optimizations.transfer.layerwise.groups=28860", "--no-save"],
        ["simulate", "disagg", "--set", "deployment.link.setup_us=5.7e98", "--no-save"],
        ["replay", "traces/chat_azure.csv", "--no-save", "--config", ""],
        ["replay", "/proc/self/mem"],
        ["trace", "x" * 5000],
        ["trace", "/dev/null"],
        ["replay", "traces/chat_azure.csv", "--speedup", "1e-12"],
    ],
)
def test_what_was_found_before_stays_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    code = cli.run(words)
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("simulate:")]
    assert code in (0, 2)
    assert len(said) <= 1
    assert all(len(line) < 1500 for line in said)


def _config(root: Path, name: str, **changes: object) -> str:
    """A shipped file with some keys changed, the others as they are."""
    return yaml.safe_dump(yaml.safe_load((root / "configs" / name).read_text()) | changes)


def test_a_model_has_a_limit_of_layers_and_digits(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    known = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "vocab_size": 99}
    path.write_text(json.dumps(known | {"num_hidden_layers": 10**6, "num_attention_heads": 4}))
    with pytest.raises(SpecError, match="1000000 layers; allowed: up to 10000"):
        load_model(str(path))
    path.write_text(json.dumps(known | {"num_hidden_layers": 2, "num_attention_heads": 10**12}))
    with pytest.raises(SpecError, match="num_attention_heads: 1000000000000 is too large; allowed: up to 1000000000"):
        load_model(str(path))
    path.write_text('{"hidden_size": ' + "9" * 5000 + "}")
    with pytest.raises(SpecError, match="not JSON that can be read .* allowed: a config.json"):
        load_model(str(path))


def test_a_fit_is_of_the_laws_parameters(tmp_path: Path, root: Path) -> None:
    name = "profiles/h200x2-llama-3.1-8b-tp1.yaml"
    fit = yaml.safe_load((root / "configs" / name).read_text())["fit"]
    path = tmp_path / "p.yaml"
    path.write_text(_config(root, name, fit=fit | {"parameters": ["nan", *fit["parameters"][1:]]}))
    with pytest.raises(SpecError, match="parameters: 'nan' is none of the law's; allowed: "):
        read_profile(str(path))
    path.write_text(_config(root, name, fit=fit | {"covariance": fit["covariance"][1:]}))
    with pytest.raises(SpecError, match="covariance: is not square; allowed: "):
        read_profile(str(path))


@pytest.mark.parametrize(
    ("part", "value", "fault"),
    [
        ("spec", {"slo": {"ttft_ms": "x"}}, "spec.slo.ttft_ms: 'x' is not a number"),
        ("spec", {"run": {"warmup_requests": 0.5}}, "spec.run.warmup_requests: 0.5 is not a whole number"),
        ("spec", 1, "spec: 1 is not a section"),
        ("workers", {"a": "cook"}, "workers"),
        ("gpus", -1, "gpus: -1 is too small"),
        ("links", {"nvlink": "fast"}, "links"),
    ],
)
def test_a_manifest_is_checked_where_it_is_read(part: str, value: object, fault: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"spec": {}, part: value}))
    with pytest.raises(SpecError, match="damaged .manifest.json: " + re.escape(fault)):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ('0.01,16,1,0,"[[16, 0"', ":2: chunks: not pairs"),
        ('1e300,16,1,0,"[[16, 0]]"', "not all from 0 to 1e\\+18"),
        ("x,16,1,0,", "duration_s: not numbers"),
        ("a,0.01,16,1,0,\na,0.01,16,1,0,", "rows have more cells than the header"),
    ],
)
def test_a_table_of_steps_holds_numbers(rows: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"duration_s,prefill_tokens,decode_seqs,context_tokens,chunks\n{rows}\n")
    with pytest.raises(SpecError, match=fault):
        read_source(path)


def test_steps_of_a_table_belong_to_a_worker_that_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("worker,duration_s,prefill_tokens,decode_seqs,context_tokens\na,0.01,16,1,0\n,0.01,16,1,0\n")
    with pytest.raises(SpecError, match=":3: worker: no name; allowed: a name in every row"):
        read_source(path)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("9,4,x,1,0,1", ":2: ttft: no number; allowed: a number"),
        ("9,4,0.1,1,0,", ":2: finish_time: no number"),
        ("9,4,0.1,1,5,5", "it takes no time; allowed: requests that finish after"),
    ],
)
def test_a_summary_of_multi_round_qa_is_of_numbers(row: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    path.write_text(f"prompt_tokens,generation_tokens,ttft,generation_time,launch_time,finish_time\n{row}\n")
    with pytest.raises(SpecError, match=fault):
        summary_of_csv(path)


def test_a_cell_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("duration_s,prefill_tokens,decode_seqs,context_tokens\n1,2,3," + "9" * 140_000)
    with pytest.raises(SpecError, match="not CSV .field larger than field limit .131072..; allowed: cells of at most"):
        read_rows(path)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ('x=aaaa\nfor i in {1..9999999999}; do x="$x$x"; vllm serve llama; done', "words too long"),
        ("for i in $(seq 1 99999999999); do for j in {1..999}; do x=1; done; vllm serve a; done", "too many lines"),
    ],
)
def test_a_script_has_a_price_limit(script: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "start.sh"
    path.write_text(script)
    with pytest.raises(SpecError, match=fault):
        import_file(path)


def test_keys_of_a_dynamo_file_are_text(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("Common: {model: a}\nFrontend: {}\nProcessor: {}\nVllmWorker: {common-configs: [model, 1]}\n")
    with pytest.raises(SpecError, match=r"VllmWorker.common-configs: \['model', 1\] is not a list of keys"):
        import_file(path)


def test_an_escape_beyond_all_characters_is_one_line() -> None:
    with pytest.raises(SpecError, match="a value that cannot be read"):
        parse('name: "\\UFFFFFFFF"\n')


def test_a_file_that_fails_while_it_is_read_is_one_line() -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load("/proc/self/mem")  # at address 0 there is nothing


def test_steps_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("prefill_tokens,decode_seqs,context_tokens,duration_s,prefill_pairs\n1,1,1,1,-inf\n")
    with pytest.raises(SpecError, match="prefill_pairs: not all from 0"):
        read_source(path)


def test_text_that_is_none_makes_a_damaged_run(tmp_path: Path) -> None:
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(struct.pack("<2i", 0, 1)), pa.py_buffer(b"\xff"))
    pq.write_table(pa.table({"worker": broken}), tmp_path / "t.parquet")
    with pytest.raises(pa.ArrowException, match="UTF8"):
        read_parquet(tmp_path / "t.parquet")


@pytest.mark.parametrize("every", ["often", 10**400, 0, True])
def test_a_recordings_interval_is_a_time(every: object, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text(json.dumps({"schema": 1, "config": "{schema: 1}", "interval_s": every}))
    with pytest.raises(SpecError, match="is no recording; allowed: "):
        read_recording(path)


@pytest.mark.parametrize(
    "change", [{"t": 10**400}, {"gone": 5}, {"role": []}, {"v": {"a": "b"}}, {"v": {"a_bucket[b]": 1}}]
)
def test_a_recording_is_checked_line_by_line(change: dict[str, object], tmp_path: Path) -> None:
    row = {"engine": "aggregated-0", "round": 1.0, "t": 1.0, "role": "aggregated", "v": {}}
    path = tmp_path / "w.jsonl"
    path.write_text("\n".join(map(json.dumps, ({"schema": 1, "config": "{schema: 1}"}, row | change))))
    _, rounds = read_recording(path)
    with pytest.raises(SpecError, match=r"w.jsonl:2: .* allowed: "):
        list(rounds)
