"""The pages in Streamlit's own test runner: as they come, empty, with absurd input, without GPUs, in both languages."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from planner.commands import doctor
from planner.engine.catalogue import hardware
from planner.engine.catalogue import names as catalogue
from planner.engine.model_config import load_model, model_config
from planner.engine.profiles import shipped
from planner.messages import names
from planner.run.facts import STAGES
from planner.run.metrics import METRICS, summarise
from planner.spec import SpecError, dump, load, parse
from planner.suggestion.suggest import suggest
from planner.ui import compute, jobs, models, uploads
from planner.ui.answer import command
from planner.ui.chinese import CHINESE, PAGES
from planner.ui.frame import doubts
from planner.ui.lead import edge
from planner.ui.scenario import CARDS, Scenario, read
from planner.ui.texts import chinese, fault
from ui_pages import HANGS_S, SMALL, page, small_machine  # noqa: F401 (small_machine is a fixture of every test here)

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("ask", "answer", "why", "deploy", "check", "replay", "watch", "workbench")


def fine(app: AppTest) -> AppTest:
    assert not app.exception, [one.message for one in app.exception]
    assert not app.error, [one.value for one in app.error]
    return app


def texts(app: AppTest) -> str:
    kinds = (app.title, app.subheader, app.markdown, app.caption, app.info, app.warning)
    return "\n".join(str(one.value) for kind in kinds for one in kind)


def address(app: AppTest) -> dict[str, str]:
    return {key: value if isinstance(value, str) else value[-1] for key, value in app.query_params.items()}


# --- every page --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", NAMES)
def test_page_as_it_comes(name: str, language: str) -> None:
    app = fine(page(name, lang=language))
    assert len(app.title) == 1
    assert bool(re.search("[\u4e00-\u9fff]", app.title[0].value)) == (language == "zh")
    if language == "zh":
        assert english_left(app) == []


ENGLISH = re.compile(r"(?:\b[A-Za-z][a-z']*[ ,]+){3,}[a-z]{2,}")  # four words in a row
# A source in its own words, and names of hardware.
KEPT_ENGLISH = (
    "lowest hourly price of each GPU",
    "Own recording, Apache-2.0",
    *(hardware(name).title for name in catalogue("hardware")),
)


def english_left(app: AppTest) -> list[str]:
    """Sentences of any element that are not Chinese; code, and what charts are drawn from, are none."""
    found = []
    for element in app.main:
        if element.type in ("code", "text_area"):
            continue
        proto = getattr(element, "proto", None)
        for field, value in () if proto is None else proto.ListFields():
            if field.name in ("label", "body", "help", "text", "caption", "placeholder", "options", "alt"):
                texts = [value] if isinstance(value, str) else [one for one in value if isinstance(one, str)]
                found += [one for one in texts if ENGLISH.search(one)]
            if field.name == "spec":
                titles = re.findall(r'"(?:title|told)": ?"([^"]+)"', value)
                found += [one.encode().decode("unicode_escape") for one in titles if ENGLISH.search(one)]
    return [one for one in found if not any(kept in one for kept in KEPT_ENGLISH)]


def test_english_is_found_where_it_is_left() -> None:
    assert english_left(page("ask", lang="en")) != []


def test_whole_app_starts_on_ask() -> None:
    app = fine(AppTest.from_file(str(ROOT / "app.py"), default_timeout=HANGS_S).run())
    assert app.title[0].value == "How should your GPUs serve this model?"


def test_no_gpu_is_said_and_needed_nowhere() -> None:
    assert "No GPU was found" in texts(fine(page("ask")))
    checked = texts(fine(page("check")))
    assert "recorded earlier on a GPU" in checked
    assert "Predicted against measured over 80 requests" in checked


def test_absurd_address_keeps_defaults_and_says_so() -> None:
    app = fine(page("ask", gpus="-3", rate="nan", model="gpt-99", ttft_ms="1e99", traffic="nonsense"))
    assert len(app.warning) == 5
    assert app.number_input(key="ask_gpus").value == Scenario().gpus


def test_impossible_targets_are_answered() -> None:
    app = page("answer", ttft_ms="1", tpot_ms="1")
    assert not app.exception
    assert "No use of 2 GPUs meets the targets at any rate." in texts(app)
    least = {one.label: (one.value, one.delta) for one in app.metric}  # what would have to be allowed
    assert set(least) == {"TTFT p99", "TPOT p99"}
    assert all(float(value.removesuffix(" ms")) > 1 and "missed" in delta for value, delta in least.values())
    assert [one.key for one in app.button] == ["answer_ask"]  # there is nothing to deploy
    files = page("deploy", ttft_ms="1", tpot_ms="1")
    assert [one.value for one in files.warning] == ["No use of 2 GPUs meets the targets at any rate."]
    page("answer", rate="3000")
    files = page("deploy", rate="3000")
    assert ["cannot be served" in one.value for one in files.warning] == [True]


def test_a_model_that_does_not_fit_is_one_line() -> None:
    app = page("answer", model="deepseek-v3", gpus="1")
    assert not app.exception
    assert len(app.error) == 1
    assert "allowed" in app.error[0].value


def test_first_look_is_replaced_by_the_sure_answer() -> None:
    """The page ends with the answer from several lists, not with the quick one."""
    app = fine(page("answer", seeds="2"))
    asked, _ = read({**SMALL, "seeds": "2"})
    quick, sure = compute.first_look(asked), compute.known(asked)
    assert sure is not None
    assert (quick.seeds, sure.seeds) == (1, 2)
    assert quick.verdict is not None
    assert quick.verdict.why == ()
    assert f"**{sure.sentence.removesuffix(sure.provenance).strip()}**" in texts(app)
    assert "Rates may be off by" in texts(app)  # in sight of the profile's name


def test_one_gpu_has_an_answer_and_reasons() -> None:
    assert "can only run aggregated" in texts(fine(page("answer", gpus="1")))
    app = fine(page("why", gpus="1"))
    app.segmented_control(key="why_view").set_value("Ratio")
    assert "One GPU cannot be split." in texts(fine(app.run()))


@pytest.mark.parametrize("card", CARDS)
def test_cards_fill_in_their_numbers(card: str) -> None:
    app = page("ask")
    app.button(key=f"card_{card}").click()
    fine(app.run())
    assert app.number_input(key="ask_prompt").value == CARDS[card].prompt
    found, faults = read(address(app))
    assert (found.traffic, faults) == (card, [])
    assert found.spec().slo.ttft_ms == CARDS[card].ttft_ms


def test_own_trace_becomes_the_workload() -> None:
    app = page("ask")
    app.button(key="card_trace").click()
    fine(app.run())
    found, _ = read(address(app))
    assert found.spec().workload.kind == "trace"


def test_a_trace_is_read_before_the_click() -> None:
    good, bad = (uploads.stored("a.jsonl", data) for data in (b"".join(ROW % (100 * n, 50) for n in range(9)), b"no\n"))
    app = fine(page("ask", traffic="trace", trace=good))
    assert "9 requests at " in texts(app)
    assert "ask_button" in [one.key for one in app.button]
    app = page("ask", traffic="trace", trace=bad)
    assert len(app.error) == 2  # where it stands, and in the place of the button
    assert "ask_button" not in [one.key for one in app.button]


def test_traces_outside_the_folders_are_out_of_reach() -> None:
    found, faults = read({"traffic": "trace", "trace": "../../etc/passwd"})
    assert found.trace == ""
    assert len(faults) == 1


def test_an_unknown_key_of_the_address_is_one_line() -> None:
    assert read({"lang": "zh", "gpus": "4"})[1] == []
    _, faults = read({"modle": "qwen3-32b", "gpus": "4", "utm_source": "x"})
    assert faults == [faults[0]]
    assert faults[0].startswith("'modle' is unknown; did you mean 'model'? allowed: model, hardware, gpus, ")
    assert faults[0].endswith(", lang (1 more unknown)")
    for name in ("ask", "replay"):
        app = fine(page(name, modle="qwen3-32b"))
        assert [one.value for one in app.warning if "did you mean 'model'?" in one.value]


def test_wrong_extra_key_is_one_line_and_no_button() -> None:
    app = page("ask")
    app.text_area(key="ask_extra").set_value("engine.max_num_seq=3")
    app.run()
    assert not app.exception
    assert "did you mean" in app.error[0].value
    assert not [one for one in app.button if one.key == "ask_button"]


def test_scenario_survives_its_address() -> None:
    asked = Scenario(gpus=3, traffic="rag", rate=2.5, extra="engine.max_num_seqs=64\nrun.margin=0.1")
    assert read(asked.params()) == (asked, [])


@pytest.mark.parametrize(("hardware", "wire"), [("h200", "nvlink_nixl"), ("l40s", "pcie4"), ("cpu", "cpu_shm")])
def test_kv_takes_a_link_that_the_gpu_has(hardware: str, wire: str) -> None:
    assert Scenario(hardware=hardware).wire == wire
    assert Scenario(hardware=hardware, link="ib_400").wire == "ib_400"


@pytest.mark.parametrize("view", ["Load", "Ratio", "Trade-off", "First token", "Timeline"])
def test_why_views(view: str) -> None:
    app = page("why")
    app.segmented_control(key="why_view").set_value(view)
    app.slider(key="why_rate").set_value(app.slider(key="why_rate").max / 2)
    fine(app.run())
    assert any(":material/visibility:" in one.value for one in app.caption), "how to read the chart"


def test_the_slider_begins_at_a_short_number() -> None:
    value = page("why").slider(key="why_rate").value
    assert len(f"{value!r}") <= len("0.123"), "it stands above the handle as it is"


def test_workbench_tools() -> None:
    app = page("workbench")
    app.text_area(key="bench_text").set_value("name: x\nmodle: y\n")
    app.run()
    assert not app.exception
    assert "modle" in app.error[0].value
    app = page("workbench")
    app.segmented_control(key="bench_view").set_value("Sweep")
    fine(app.run())
    assert re.fullmatch(r"[\d.]+ %", app.dataframe[0].value["Attainment"][0])
    app.text_input(key="bench_values").set_value(",,")
    app.run()
    assert len(app.error) == 1
    app = page("workbench")
    app.segmented_control(key="bench_view").set_value("Compare runs")
    assert "Fewer than two runs" in texts(fine(app.run()))
    app = page("workbench")
    app.segmented_control(key="bench_view").set_value("Calibration")
    fine(app.run())


def test_a_command_and_a_file_reach_the_workbench() -> None:
    app = page("workbench")
    app.text_area(key="bench_pasted").set_value("vllm serve Qwen/Qwen3-32B --tensor-parallel-size 2 --max-num-seqs 99")
    app.button(key="bench_bring").set_value(True)
    fine(app.run())
    text = app.text_area(key="bench_text").value
    assert "max_num_seqs: 99" in text
    assert parse(text, "YAML").deployment.tp == 2
    own = "name: mine\ndeployment: {mode: aggregated, replicas: 1}\n"
    app.file_uploader(key="bench_upload").set_value(("mine.yaml", own.encode(), "application/yaml"))
    app.button(key="bench_bring").set_value(True)
    assert fine(app.run()).text_area(key="bench_text").value == own
    app.file_uploader(key="bench_upload").set_value(("x.bin", b"\xff\x00\x01", "application/octet-stream"))
    app.button(key="bench_bring").set_value(True)
    app.run()
    assert [one.value.startswith("x.bin: ") for one in app.error] == [True]


def test_a_watch_is_shown_from_a_recording_and_from_its_folder(tmp_path: Path) -> None:
    """What the command writes in the folder runs is what a replay of the same recording shows."""
    from planner import cli

    assert cli.run(["watch", "--replay", "no-connector", "--out", str(tmp_path / "runs" / "mine")]) == 0
    app = page("watch")
    assert "It is P/D" in texts(app)
    for name in ("no-connector", "runs/mine"):
        fine(app.selectbox(key="watch_of").set_value(name).run())
        assert "It is not P/D: the connector is off." in texts(app)
        assert next(one.value for one in app.metric) == "18"


def test_a_file_that_is_no_recording_is_one_line() -> None:
    app = AppTest.from_string(
        "from planner.ui.frame import begin\nbegin()\nfrom planner.ui import watch\nwatch.page()\n",
        default_timeout=HANGS_S,
    )
    name = uploads.stored("made.jsonl", b"{}\n")
    app.session_state["uploads"], app.session_state["watch_of"] = [name], name
    app.run()
    assert (
        len(app.error) == 1
        and app.error[0].value.startswith("made.jsonl (")
        and "is no recording" in app.error[0].value
    )


def test_replay_of_an_empty_trace_is_one_line() -> None:
    app = page("replay", traffic="trace", trace=uploads.stored("empty.jsonl", b""))
    assert not app.exception
    assert "empty" in app.error[0].value


ROW = b'{"timestamp": %d, "input_length": %d, "output_length": 5, "hash_ids": []}\n'


def test_the_same_name_with_other_content_is_another_trace() -> None:
    """Nothing that was kept for the first is shown for the second, and neither is listed for another session."""
    few, many = (b"".join(ROW % (100 * n, size) for n in range(count)) for count, size in ((40, 500), (90, 4000)))
    names = [uploads.stored("again.jsonl", data) for data in (few, many)]
    assert names[0] != names[1]
    assert [uploads.shown(name)[:12] for name in names] == ["again.jsonl "] * 2
    for name, requests in zip(names, ("40", "90"), strict=True):
        app = fine(page("replay", traffic="trace", trace=name))
        assert next(one.value for one in app.metric if one.label == "Requests") == requests
    options = page("replay").selectbox(key="replay_trace").options
    assert not [one for one in options if one.startswith("again")]


@pytest.mark.parametrize("name", ["../secret~0123456789abcdef0123.jsonl", "again.jsonl", "~.jsonl", ""])
def test_names_reach_only_what_was_uploaded(name: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "uploads").mkdir(parents=True)
    (tmp_path / "runs" / "secret~0123456789abcdef0123.jsonl").write_bytes(ROW % (0, 5))
    assert uploads.file_of(name) is None


@pytest.mark.parametrize(("field", "value"), [("gpus", 65), ("gpus", 0), ("rate", -1.0), ("attainment", 101.0)])
def test_out_of_range_is_refused_where_it_stands(field: str, value: float) -> None:
    """On Ask beside the field and without a button; on every other page in a line, not another answer."""
    app = page("ask")
    app.number_input(key=f"ask_{field}").set_value(value)
    app.run()
    assert not app.exception
    assert "allowed: a number from" in texts(app)
    assert not [one for one in app.button if one.key == "ask_button"]
    assert len(app.error) == 1


def test_typed_values_survive_the_traffic_cards() -> None:
    app = page("ask")
    app.number_input(key="ask_rate").set_value(3.0)
    app.button(key="card_rag").click()
    fine(app.run())
    assert app.number_input(key="ask_rate").value == 3.0
    assert app.number_input(key="ask_prompt").value == CARDS["rag"].prompt


def test_users_become_requests() -> None:
    """500 users, each 30 s of thinking and 6.83 s of an answer at the targets' pace."""
    asked = Scenario(load="users")
    assert asked.sent_rate == pytest.approx(500 / (30 + 0.5 + 211 * 0.03))
    assert compute.rate_of(asked.spec()) == pytest.approx(asked.sent_rate)
    told = [one.value for one in page("ask", load="users", users="20").caption]
    assert any("20 users (0.543 requests/s)" in text for text in told), "the question in a line"


def test_how_few_is_answered_for_that_many() -> None:
    app = fine(page("answer", want="fewest", rate="4", gpus="8"))
    assert "4 requests/s needs 1 GPU: run 1 aggregated engine" in app.subheader[0].value


def test_an_answer_on_the_edge_says_so() -> None:
    calm, busy = (summarise(compute.run_of(dump(Scenario(gpus=2).spec()), rate, 200)) for rate in (2.0, 60.0))
    assert edge(calm) == ""
    assert "edge" in edge(busy)
    assert "99 % should" in edge(busy)


def test_models_are_marked_before_the_click() -> None:
    assert not {"tiny", "small", "kvheavy"} & {*models.offered()}
    kinds = {
        name: models.standing(name, "h200", 1).kind
        for name in ("llama-3.1-8b", "Qwen/Qwen3-32B", "llama-3.1-70b", "x/y")
    }
    assert [*kinds.values()] == ["measured", "roofline", "not supported", "not supported"]


def test_a_pasted_config_is_a_model() -> None:
    """The same figures as the catalogue's give the same model."""
    config = model_config("qwen2.5-7b").config
    folder = models.pasted(json.dumps(config))
    assert load_model(folder).parameters == load_model("qwen2.5-7b").parameters
    assert models.pasted(json.dumps(config, indent=3)) == folder
    app = fine(page("ask", model=folder))
    assert app.selectbox(key="ask_model").value == folder
    for text in ("{", "[1]", '{"model_type": '):
        with pytest.raises(SpecError):
            models.pasted(text)


def test_a_profile_of_another_model_is_not_called_calibrated() -> None:
    found = suggest(load("disagg", ["model=qwen3-1.7b", "workload.requests=60"]), 1, seeds=1, requests=60, processes=1)
    assert doubts(found.notes)


# --- the same as the command line --------------------------------------------------------------


def test_verdict_is_the_command_line_s(tmp_path: Path) -> None:
    """The page's sentence is that of the command it offers to copy, run on the file that it shows."""
    asked, _ = read(SMALL)
    (tmp_path / "question.yaml").write_text(dump(asked.spec()))
    arguments = command(asked).split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "planner.cli", *arguments, "--processes", "1", "--json"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = json.loads(done.stdout)
    app = fine(page("answer"))
    assert f"**{said['answer'].removesuffix(said['provenance']).strip()}**" in texts(app)


# --- texts -------------------------------------------------------------------------------------


def written() -> set[str]:
    """Every literal that a page or a chart hands to a translator."""
    found: set[str] = set()
    folders = (ROOT / "planner" / "ui", ROOT / "planner" / "charts")
    files = [*(file for folder in folders for file in folder.glob("*.py")), ROOT / "planner" / "report" / "html.py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") in ("t", "say")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def spoken() -> set[str]:
    """Texts that reach a translator through a variable."""
    from planner import charts
    from planner.ui.check import CPU_CONFIGS
    from planner.ui.watch import ABOUT

    machine = doctor.Machine("3.11", 2, None, (), None, None, "interpreted")
    found = {text for card in CARDS.values() for text in (card.title, card.about)}
    found |= {*charts.NAMES.values(), *charts.TIMELINE.values(), *STAGES.values(), "Requests"}
    found |= {check.what for check in doctor.checks(machine)} | {*CPU_CONFIGS} - {"1P1D"}
    found |= {*ABOUT.values()}
    found |= {"Load", "Ratio", "Trade-off", "First token", "Timeline"}
    found |= {"Edit and simulate", "Sweep", "Compare runs", "Calibration"}
    source = (ROOT / "planner" / "suggestion" / "suggest.py").read_text()  # its stages, except those of the command
    found |= set(re.findall(r'_(?:map|coarse)\([^"]*?"([^"]+)"', source)) - {"sweep"}
    return found | {"start servers", "warm up", "calibrate", "load", "stop servers"}


SAME = {"GPU", "YAML", "P/D"}  # the same word in both languages


def test_every_text_has_its_chinese() -> None:
    assert sorted(text for text in written() | spoken() if text not in CHINESE and text not in SAME) == []


def test_no_translation_is_left_over() -> None:
    """Messages' are held against each other in test_messages.py."""
    metrics = {text for metric in METRICS.values() for text in (metric.label, metric.help)}
    assert sorted(PAGES.keys() - written() - spoken() - metrics) == []


def test_placeholders_are_equal() -> None:
    for text, translation in PAGES.items():
        assert set(names(text)) == set(names(translation)), text


def test_every_metric_is_explained_in_chinese() -> None:
    english = [metric.help for metric in METRICS.values() if chinese(metric.help) == metric.help]
    assert english == []


# --- jobs --------------------------------------------------------------------------------------


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Jobs whose command reports progress, ends with Ctrl-C, and would last a minute."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job of a shell ignores it
        "print('load:  50 %, 1 s', file=sys.stderr, flush=True)\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(130)"
    )
    monkeypatch.setattr(jobs, "command", lambda *_: [sys.executable, "-c", code])
    root = tmp_path / "jobs"
    yield root
    job = jobs.latest(root)
    if job is not None and jobs.running(job):
        os.killpg(job.pid, 9)


def test_a_job_outlives_its_page_and_stops(sleeper: Path) -> None:
    started = jobs.start(dump(load()), root=sleeper)
    job = jobs.latest(sleeper)  # what a reloaded page does
    assert job == started
    with pytest.raises(jobs.Busy):
        jobs.start(dump(load()), root=sleeper)
    wait(lambda: bool(jobs.steps(job)))
    assert jobs.steps(job) == [jobs.Step("load", 0.5, 1.0)]
    assert jobs.state(job) == "running"
    jobs.stop(job)
    wait(lambda: not jobs.running(job))
    assert jobs.state(job) == "stopped"
    again = jobs.start(dump(load()), root=sleeper)  # the lock of a run that has ended is taken over
    assert again != job


def wait(what: object, seconds: float = 30.0) -> None:
    assert callable(what)
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_check_that_failed_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import sys; print('planner: no such thing', file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(jobs, "command", lambda *_: [sys.executable, "-c", code])
    job = jobs.start(dump(load()), root=tmp_path / "runs" / "jobs")
    wait(lambda: not jobs.running(job))
    assert (jobs.state(job), jobs.fault(job)) == ("failed", "planner: no such thing")
    app = page("check")
    assert not app.exception
    assert "planner: no such thing" in app.error[0].value


def test_the_fault_of_a_check_is_said_in_the_page_s_language(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import sys; from planner.cli import main; main(['simulate', 'disagg', '--set', 'deployment.prefill.tp=0'])"
    monkeypatch.setattr(jobs, "command", lambda *_: [sys.executable, "-c", code])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = jobs.start(dump(load()), root=tmp_path / "runs" / "jobs")
    wait(lambda: not jobs.running(job))
    assert jobs.fault(job).endswith("tp: 0 is too small; allowed: whole numbers from 1 up to 4096")
    assert jobs.log(job) == f"planner: {jobs.fault(job)}\n"
    assert "0 太小；可用：不小于 1 不超过 4096 的整数" in page("check", lang="zh").error[0].value


def test_controls_are_off_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs.allowed("127.0.0.1")
    assert jobs.allowed("localhost")
    assert not jobs.allowed("0.0.0.0")
    assert not jobs.allowed("")
    monkeypatch.setenv(jobs.ALLOW, "1")
    assert jobs.allowed("0.0.0.0")


def test_an_address_in_a_fault_ends_where_it_ends() -> None:
    assert fault("endpoint http://127.0.0.1:9：无法连接") == "endpoint http://127.0.0.1:9 ：无法连接"
    assert fault("http://127.0.0.1:9: cannot connect") == "http://127.0.0.1:9: cannot connect"


def test_a_token_is_never_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jobs.TOKEN, "secret")
    parts = jobs.command(Path("config.yaml"), Path("run"), ["http://127.0.0.1:1"], "127.0.0.1:6379")
    assert "secret" not in " ".join(parts)
    assert parts[-2:] == ["--endpoint", "http://127.0.0.1:1"]
    assert "ray=127.0.0.1:6379" in parts


def test_a_question_has_the_profile_of_the_files_that_ship() -> None:
    """That of served engines with their hand-overs, not the first by name."""
    found = shipped("llama-3.1-8b", "h200")
    assert found == load("disagg").profile == load("agg").profile
