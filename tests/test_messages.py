"""Messages: a template and its values. English and Chinese have the same templates, and neither is read back."""

from __future__ import annotations

import ast
import copy
import json
import multiprocessing
import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from string import Formatter

import numpy as np
import pytest

from hand_made import requests, run
from planner.messages import (
    SYSTEM,
    Fault,
    Message,
    capital,
    joined,
    message,
    names,
    one_line,
    packed,
    said,
    unpacked,
)
from planner.report.explain import explain
from planner.report.printing import answer, compared
from planner.run.metrics import METRICS, summarise
from planner.run.tables import Run
from planner.spec import SpecError, load, parse
from planner.system.resolve import resolve
from planner.traffic import traces
from planner.ui.chinese import PAGES
from planner.ui.chinese_answers import ANSWERS
from planner.ui.chinese_faults import FAULTS
from planner.ui.chinese_servers import SERVERS
from planner.ui.chinese_traffic import TRAFFIC
from planner.ui.chinese_warnings import WARNINGS
from planner.ui.recorded import about, recorded_runs
from planner.ui.texts import chinese
from planner.validation.parity import TokenCheck
from spoken import CHINESE_LETTER, ENGLISH, whole

ROOT = Path(__file__).resolve().parent.parent
TABLES = (ANSWERS, FAULTS, TRAFFIC, WARNINGS, SERVERS)
MESSAGES = {english: other for table in TABLES for english, other in table.items()}
SPEAKERS = ("message", "SpecError", "BadLine", "BadResult", "Fault", "LiveError")
# What the browser can show. Elsewhere (import, export, calibrate, other commands) a fault may still be plain text.
SHOWN = ("spec", "engine", "traffic", "system", "run", "report", "suggestion", "charts", "ui", "watching")


class Call:
    """One place where something is said."""

    def __init__(self, file: Path, node: ast.Call, name: str) -> None:
        self.where = f"{file.relative_to(ROOT)}:{node.lineno}"
        self.name, self.first, self.values = name, node.args[0] if node.args else None, node.args[1:]
        first, second, *_ = file.relative_to(ROOT).parts
        self.shown = first == "live" or (first == "planner" and second in SHOWN)

    @property
    def template(self) -> str | None:
        if not isinstance(self.first, ast.Constant) or not isinstance(self.first.value, str):
            return None
        if self.name == "joined":
            return "{one}" + self.first.value + "{two}"
        return self.first.value if self.values else message(self.first.value).template

    @property
    def counted(self) -> bool:
        """As many values as placeholders."""
        return self.name == "joined" or len(self.values) == len(names(self.template or ""))


def calls() -> Iterator[Call]:
    files = [ROOT / "scripts" / "make_recording.py"]
    for folder in ("planner", "simulator", "live"):
        files += sorted((ROOT / folder).rglob("*.py"))
    for file in files:
        if file.name == "messages.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and (name := getattr(node.func, "id", "")) in (*SPEAKERS, "joined"):
                yield Call(file, node, name)


CALLS = list(calls())
SPOKEN = [call for call in CALLS if call.name in ("message", "joined") or call.shown]


# --- both tables -------------------------------------------------------------------------------


def test_both_languages_have_every_template() -> None:
    english = {call.template for call in SPOKEN if call.template is not None}
    assert len(english) > 400
    assert sorted(english - MESSAGES.keys()) == []
    assert sorted(MESSAGES.keys() - english - {*SYSTEM}) == []
    assert sorted(set(SYSTEM) - MESSAGES.keys()) == []


def test_no_text_is_in_two_tables() -> None:
    assert len(MESSAGES) == sum(len(table) for table in TABLES)
    assert PAGES.keys() & MESSAGES.keys() == set()


def test_templates_are_literals_with_a_value_for_each_placeholder() -> None:
    """A template in a variable or an f-string could not be looked up."""
    passed_on = (ast.Call, ast.Name)  # `SpecError(explain(...))`, `raise fault`: a message that was made elsewhere
    for call in SPOKEN:
        assert call.template is not None or (call.name != "message" and isinstance(call.first, passed_on)), call.where
        assert call.template is None or call.counted, call.where


def test_placeholders_agree() -> None:
    def parts(template: str) -> set[tuple[str, str | None, str | None]]:
        return {(name, spec, kind) for _, name, spec, kind in Formatter().parse(template) if name}

    for english, other in MESSAGES.items():
        assert parts(english) == parts(other), english


# --- a message is text -------------------------------------------------------------------------


def test_a_message_is_its_english_text() -> None:
    one = message("{link} carries {share:.0%} of {link}", "my link", 0.5)
    assert one == "my link carries 50% of my link"
    assert json.dumps([one]) == '["my link carries 50% of my link"]'
    assert f"{one:>32}".startswith("  my link")
    assert type(one.text) is str
    assert message("braces { } stay") == "braces { } stay"
    with pytest.raises(ValueError, match="zip"):
        message("{one} of {two}", 1)


@pytest.mark.parametrize("through", [copy.deepcopy, copy.copy, lambda one: pickle.loads(pickle.dumps(one)), str])
def test_copies_keep_what_was_said(through: Callable[[str], str]) -> None:
    one = capital(message("{what}: {n:g}", message("is full"), 3))
    found = through(one)
    assert isinstance(found, Message)
    assert (found, found.template, dict(found.values)) == ("Is full: 3", "{what}: {n:g}", {"what": "is full", "n": 3})
    assert isinstance(found.values["what"], Message)
    assert isinstance(unpacked(json.loads(json.dumps(packed(one)))), Message)


def _refused(text: str) -> str:
    try:
        parse(text)
    except SpecError as error:
        return said(error)
    raise AssertionError


def test_messages_and_faults_come_back_from_other_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        told = pool.submit(_refused, "name: x").result()
        assert chinese(told) == "spec：deployment：缺失；可用：一节，mode 为 aggregated, disaggregated"
        with pytest.raises(SpecError) as caught:
            pool.submit(parse, "name: x").result()
    assert isinstance(said(caught.value), Message)


def test_other_languages_fill_their_own_template() -> None:
    table = {"{a} of {b}": "{b} · {a}", "half": "½", "{one}, {two}": "{one} / {two}"}
    assert message("{a} of {b}", message("half"), "half").told(table) == "half · ½"  # plain text is the user's
    found = joined(", ", [message("half"), "x", message("half")])
    assert found == "half, x, half"
    assert isinstance(found, Message)
    assert found.told(table) == "½ / x / ½"
    assert joined(", ", []) == ""
    assert message("unknown {x}", 1).told(table) == "unknown 1"


def test_a_message_in_one_line_keeps_its_values() -> None:
    found = one_line(message("{where}: {what}", "a\n b", message("is  full")))
    assert found == "a b: is full"
    assert isinstance(found, Message)


def test_a_fault_is_a_message_also_inside_another() -> None:
    inner = Fault("{path}: no such file", "a {b}")
    outer = Fault("line {n}: {fault}", 3, inner)
    assert str(outer) == "line 3: a {b}: no such file"
    assert isinstance(outer.args[0].values["fault"], Message)
    assert said(RuntimeError("plain", 1)) == "('plain', 1)"


@pytest.mark.parametrize(
    "data",
    [
        {"text": "a b", "template": "a {x}", "values": {"x": "c"}},
        {"text": "a b", "template": "a {x.__class__}", "values": {"x": "b"}},
        {"text": "a b", "template": "a {x}", "values": {}},
        {"template": "a", "values": {}},
    ],
)
def test_files_that_say_something_else_are_not_believed(data: object) -> None:
    with pytest.raises((ValueError, KeyError)):
        unpacked(data)


def test_a_saved_run_says_the_same_in_both_languages(tmp_path: Path) -> None:
    note = message("optimizations.{name} changes what the model answers", "decode")
    origin = message("simulated: fitted to {what}", "the report's four numbers")
    made = run(requests([0.0, 1.0], [0.1, 0.1]))
    died = {"aggregated-0": message("killed by {signal}", "SIGKILL")}
    made.manifest.update(warnings=["plain", note], origin=origin, died=died)
    found = Run.load(made.save(tmp_path / "run"))
    assert found.manifest == made.manifest
    assert [chinese(text) for text in found.manifest["warnings"]] == ["plain", "optimizations.decode 会改变模型的回答"]
    assert chinese(summarise(found).died[0][1]) == "被 SIGKILL 终止"
    assert chinese(summarise(found).origin) == "仿真：按 the report's four numbers 拟合"
    again = Run.load(found.save(tmp_path / "again"))
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (tmp_path / "run" / "manifest.json").read_bytes()
    assert again.manifest == made.manifest
    path = tmp_path / "run" / "manifest.json"
    path.write_text(path.read_text().replace('"template": "', '"template": "not '))
    assert Run.load(tmp_path / "run").manifest["warnings"] == made.manifest["warnings"]  # the English stays


# --- real ones ---------------------------------------------------------------------------------


FAULTY = (
    ["deployment.prefill.tpp=2"],
    ["deployment.prefil.tp=2"],
    ["deployment.prefill.tp=0"],
    ["deployment.prefill.tp=half"],
    ["deployment.prefill.tp=3"],
    ["deployment.prefill.tp=16"],
    ["deployment.mode=both"],
    ["deployment.router.policy=nearest"],
    ["deployment.link.preset=carrier pigeon"],
    ["workload.rate=fast"],
    ["workload.rate=-1"],
    ["workload.rate=true"],
    ["workload.kind=trace"],
    ["workload.kind=trace", "workload.path=nowhere.jsonl"],
    ["workload.kind=rag"],
    ["workload.prompt_tokens=90000000000"],
    ["slo.attainment=2"],
    ["slo.ttft_ms=[1, 2]"],
    ["engine={}", "engine.dtype=float12"],
    ["engine.max_model_len=400000000"],
    ["run.seed=.nan"],
    ["name=a b"],
    ["name=[1]"],
    ["model=gpt-12"],
    ["model=nobody/nothing"],
    ["hardware=abacus"],
    ["cluster.nodes=[{name: a, gpus: 1}]"],
    ["engine.kv_cache_memory_bytes=1"],
    ["no assignment"],
)


@pytest.mark.parametrize("overrides", FAULTY, ids=" ".join)
def test_faults_of_specs_are_whole_in_chinese(overrides: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(load("disagg", overrides))
    whole(said(caught.value))


@pytest.mark.parametrize(
    "text", ["", "[1]", "a: [", "a: 1\na: 2", "1: 2", "a: &b [*b]", "a: .inf", "name: x\ndeployment: 1"]
)
def test_faults_of_yaml_are_whole_in_chinese(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    told = re.sub(r"（[^）]*）", "", chinese(said(caught.value)))  # what PyYAML says stands in brackets
    assert CHINESE_LETTER.search(told)
    assert not ENGLISH.search(told), told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"timestamp": 0, "input_length": 1, "output_length": 0, "hash_ids": []}\n',
        '{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": []}\n',
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1, 2, 3]}\n',
        "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,1\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n1,1\n",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n1,1\n1,1\n",
        '{"session_id": "a", "delay": 5, "input_length": 1, "output_length": 1}\n',
        '{"start_times": [1], "input_lens": [1, 2], "output_lens": [1]}\n',
        '{"id": "a", "block_size": 64, "requests": [7]}\n',
        '[{"conversations": 1}]',
    ],
)
def test_faults_of_traces_are_whole_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trace.jsonl").write_text(text)
    with pytest.raises(SpecError) as caught:
        traces.read("trace.jsonl")
    whole(said(caught.value))


def test_what_was_left_out_of_a_trace_is_whole_in_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{second}.0,1,1" for second in range(40) for _ in range(3)]
    Path("trace.csv").write_text(
        "\n".join(["Timestamp,Request tokens,Response tokens", *rows, *["x,1,1"] * 9, "1,1,0"])
    )
    warnings = traces.read("trace.csv").warnings
    assert [warning.split()[0] for warning in warnings] == ["9", "1", "The"]
    for warning in warnings:
        whole(warning)


def test_a_dead_server_and_requests_that_are_too_long_are_whole_in_chinese() -> None:
    made = run(requests(np.arange(0, 20, 0.1), [0.1] * 200))
    made.manifest["died"] = {"aggregated-0": message("killed by {signal}", "SIGKILL")}
    for sentence in explain(summarise(made)).sentences:
        whole(sentence)
    for tokens in (9, 5):
        text = f"{tokens} tokens (prompt + max_tokens) exceed the KV cache of {tokens - 1} tokens"
        late = requests(np.arange(0, 20, 0.1), [0.1] * 200)
        late["finish_reason"], late["error"] = "rejected", text
        found = explain(summarise(run(late)))
        assert found.kind == "refused"
        for sentence in found.sentences:
            whole(sentence)


def test_chinese_sentences_follow_each_other_without_a_space() -> None:
    two = joined(" ", [message("Nothing is a bottleneck: there is headroom.")] * 2)
    assert chinese(two) == 2 * chinese(message("Nothing is a bottleneck: there is headroom."))


def test_metrics_are_whole_in_chinese() -> None:
    for metric in METRICS.values():
        assert CHINESE_LETTER.search(chinese(metric.help)), metric.name
        if isinstance(metric.help, Message):
            whole(metric.help)


def test_a_link_with_spaces_in_its_name_is_whole_in_chinese() -> None:
    """A pattern of the English sentence would stop at the first space."""
    send = np.arange(0, 20, 0.1)
    n = len(send)
    transfers = {
        "request_id": np.arange(n), "source": ["prefill-0"] * n, "target": ["decode-0"] * n,
        "link": ["my own link"] * n,
        "bytes": np.full(n, 4 * 10**8), "start_s": send, "end_s": send * 4 + 1,
    }  # fmt: skip
    late = requests(send, send * 3 + 1, worker=["prefill-0"] * n, decode_worker=["decode-0"] * n)
    made = run(late, transfers=transfers, mode="disaggregated")
    made.manifest["links"] = {"my own link": 1e9}
    found = explain(summarise(made))
    assert found.where == "my own link out of prefill-0"
    first, second = (whole(line) for line in found.sentences)
    assert first == "KV 链路 my own link（prefill-0 流出） 跟不上：流量需要传输 4 GB/s，而它最多 1 GB/s。"
    assert second.startswith("一次传输平均")


def test_comparisons_are_whole_in_chinese() -> None:
    whole(TokenCheck(12, 1, 2, 3, 4, 5).sentence())
    whole(TokenCheck(12, 0, 0, 0, 0, 0).sentence())
    a, b = (summarise(run(requests(np.arange(0, 20, 0.1), [late] * 200))) for late in (0.1, 5.0))
    whole(compared(a, b))
    whole(answer(a))
    whole(answer(b))


def test_recordings_are_introduced_in_chinese() -> None:
    found = recorded_runs()
    assert len(found) == 3
    for folder in found.values():
        whole(about(Run.load(folder)))
