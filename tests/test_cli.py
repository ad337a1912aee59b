"""The command line: what it prints, where it writes, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planner import cli, commands
from planner.run.tables import Run

YAML = """
name: small
profile: null
deployment: {mode: aggregated}
workload: {kind: poisson, rate: 4, requests: 30, prompt_tokens: 200, output_tokens: 20}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small deployment on a roofline, in an empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(YAML)
    return "small.yaml"


def test_simulate_answers_first_and_says_where_the_run_is(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("1 aggregated worker on 1x H200 serves")
    assert "[roofline: not measured on your GPU; on " in out[0]
    folder = Path(next(line for line in out if line.startswith("Run: ")).removeprefix("Run: "))
    assert folder.parent == Path("runs")
    assert folder.name.startswith("small-")
    assert len(Run.load(folder).requests) == 30


def test_json_is_all_that_is_printed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--json", "--no-save", "--seed", "3", "--set", "workload.requests=10"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["completed"] == 10
    assert told["seed"] == 3
    assert told["run_folder"] is None
    assert told["bottleneck"]["kind"] == "none"
    assert not Path("runs").exists()


def test_out_is_exact_and_never_overwrites_other_files(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--out", "a/b"]) == 0
    assert (Path("a/b") / "manifest.json").is_file()
    (Path("a/b") / "tokens.parquet").write_bytes(b"of an earlier run")
    assert cli.run(["simulate", config, "--out", "a/b"]) == 0  # a run may be replaced, as a whole
    assert not (Path("a/b") / "tokens.parquet").exists()
    Path("c").mkdir()
    Path("c/thesis.tex").write_text("x")
    capsys.readouterr()
    assert cli.run(["simulate", config, "--out", "c"]) == 2
    assert capsys.readouterr().err == (
        "planner: --out c: holds other files; allowed: a new or empty folder, or one that holds a run\n"
    )


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.time, "strftime", lambda form: "20260101-000000")
    first = commands.run_folder("x", None)
    first.mkdir(parents=True)
    second = commands.run_folder("x", None)
    second.mkdir()
    assert (second.name, commands.run_folder("x", None).name) == ("x-20260101-000000-2", "x-20260101-000000-3")


def test_compare_two_runs(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--out", "a"]) == 0
    assert cli.run(["simulate", config, "--out", "b", "--set", "workload.prompt_tokens=2000"]) == 0
    capsys.readouterr()
    assert cli.run(["compare", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("A (1 aggregated worker on 1x H200) has a goodput of")
    assert "TTFT p50, ms" in out
    assert max(len(line) for line in out.splitlines()[1:]) <= 80
    assert cli.run(["compare", "a", "b", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["differences"]}
    assert rows["ttft_p50_ms"]["better"] == "A"
    assert "was sent" not in out.splitlines()[0]
    assert cli.run(["simulate", config, "--out", "c", "--set", "workload.rate=1"]) == 0
    capsys.readouterr()
    assert cli.run(["compare", "a", "c"]) == 0
    assert ", but A was sent" in capsys.readouterr().out.splitlines()[0]


def test_show_prints_an_earlier_run_again(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--out", "a"]) == 0
    first = capsys.readouterr().out
    assert cli.run(["show", "a"]) == 0
    assert capsys.readouterr().out == first
    assert cli.run(["show", "a", "--table", "vllm"]) == 0
    assert "Serving Benchmark Result" in capsys.readouterr().out
    Path("qa.csv").write_text(
        "prompt_tokens,generation_tokens,ttft,generation_time,launch_time,finish_time\n3043,100,1.0,2.0,0.0,4.0\n"
    )
    assert cli.run(["show", "qa.csv"]) == 0
    assert "per request): 50.0000 tokens/req/s" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["manifest.json", "requests.parquet", "steps.parquet"])
def test_a_damaged_run_is_one_line(config: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--out", "a"]) == 0
    (Path("a") / name).write_bytes(b"{")
    capsys.readouterr()
    assert cli.run(["show", "a"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("planner: a: damaged (")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "damage",
    [b"\x00\xff\x9c\x12", b'{"a":1}', b"[]", b"[" * 100_000, b'{"spec": []}', b'{"spec": {"slo": 3}}', b"9" * 5000],
)
def test_a_manifest_of_anything_is_one_line(config: str, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--out", "a"]) == 0
    (Path("a") / "manifest.json").write_bytes(damage)
    capsys.readouterr()
    assert cli.run(["show", "a"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("planner: a: damaged (manifest.json: ")
    assert told.count("\n") == 1


def test_idle_time_costs_no_samples(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A request each four months: a row a second would be billions."""
    assert cli.run(["simulate", config, "--set", "workload.rate=1e-7", "--out", "a"]) == 0
    assert len(Run.load(Path("a")).samples) <= 100_001
    assert cli.run(["simulate", config, "--set", "workload.rate=1e-320", "--no-save"]) == 2
    assert "workload.rate: 9.99989e-321 is too small" in capsys.readouterr().err


def test_an_endless_name_is_told_in_a_short_line(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["n" * 90_000], [config, "--set", "model=" + "n" * 90_000]):
        assert cli.run(["simulate", *arguments]) == 2
        assert len(capsys.readouterr().err) < 600


def test_replay_puts_a_trace_on_a_config(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"timestamp": 500 * i, "input_length": 600, "output_length": 10, "hash_ids": [0, i + 1]} for i in range(8)]
    Path("t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.run(["replay", "t.jsonl", "--config", config, "--requests", "6", "--json", "--no-save"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metrics"]["completed"] == 6
    assert told["metrics"]["cache_hit_rate"] > 0.5


def test_intervals_say_how_sure_a_prediction_is(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A roofline has no fit: only the seeds differ. A fitted profile's step times do too."""
    few = ["--no-save", "--intervals", "4"]
    assert cli.run(["simulate", config, *few]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "90 % of 4 simulations, seeds only (no profile with a fit):" in out
    fitted = ["--set", "profile=h200-llama-3.1-8b-tp1", "--json"]
    assert cli.run(["simulate", config, *few, *fitted]) == 0
    told = json.loads(capsys.readouterr().out)
    found = told["intervals"]["tpot_p50_ms"]
    assert found["low"] < found["high"] < 2 * found["low"]
    assert cli.run(["simulate", config, *few, "--table", "vllm"]) == 2
    assert "--intervals: vllm has none" in capsys.readouterr().err


@pytest.mark.parametrize("dialect", ["vllm", "aiperf", "guidellm", "multi-round-qa"])
def test_other_tools_tables(config: str, dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulate", config, "--no-save", "--table", dialect]) == 0
    assert "serves" in capsys.readouterr().out.splitlines()[0]
    assert cli.run(["simulate", config, "--no-save", "--table", dialect, "--json"]) == 0
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "absent.yaml"], "absent.yaml: no such file"),
        (["simulate", "small.yaml", "--set", "deployment.replicas=0"], "deployment.replicas"),
        (["simulate", "small.yaml", "--table", "vlm"], "did you mean vllm?"),
        (["simulate", "--sed", "3"], "No such option"),
        (["simulate", "--rate", "3"], "No such option: --rate; it is --set workload.rate=..."),
        (["simulate", "agg", "slo.ttft_ms=3", "seed=1"], "take --set: --set slo.ttft_ms=3 --set seed=1 ("),
        (["simulate", "--ttft", "3"], "No such option: --ttft; it is --set slo.ttft_ms=..."),
        (["simulate", "--seed", "-1"], "--seed"),
        (["simulat"], "No such command"),
        (["compare", "here"], "RUN"),
        (["compare", "absent", "absent"], "absent: not a run folder"),
        (["replay", "absent.jsonl", "--config", "small.yaml"], "absent.jsonl"),
        (["suggest", "small.yaml", "--out", "."], "--out .: is a folder"),
        (["calibrate", "small.yaml", "--from", "steps.csv", "--out", "."], "--out .: is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    config: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert words in told.err
    assert "Traceback" not in told.err


def test_the_list_of_commands_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ImportError("install vLLM: pip install vllm"), 1, "install vLLM: pip install vllm"),
        (RuntimeError("the server\nnever got healthy"), 1, "the server never got healthy"),
        (FileNotFoundError(2, "No such file", "x.csv"), 2, "x.csv: no such file or folder"),
    ],
)
def test_exit_codes(
    config: str, error: BaseException, code: int, text: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("planner.commands.simulate._interruptible", fail)
    assert cli.run(["simulate", config]) == code
    assert capsys.readouterr().err == f"planner: {text}\n"


def test_errors_written_for_users_are_one_line(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = type("TooFewError", (ValueError,), {"__module__": "planner.calibration.fitting"})

    def fail(*_: object, **__: object) -> None:
        raise mine("too few steps")

    monkeypatch.setattr("planner.commands.simulate._interruptible", fail)
    assert cli.run(["simulate", config]) == 1
    assert capsys.readouterr().err == "planner: too few steps\n"


def test_a_bug_is_not_dressed_up_as_bad_input(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("planner.commands.simulate._interruptible", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.run(["simulate", config])


def test_the_package_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "planner", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("planner ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("planner ")


def test_schema_metrics_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["schema"]) == 0
    assert "deployment" in json.loads(capsys.readouterr().out)["properties"]
    assert cli.run(["metrics", "--json"]) == 0
    names = [metric["name"] for metric in json.loads(capsys.readouterr().out)]
    assert "goodput_requests_per_s_per_gpu" in names
    assert cli.run(["metrics"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80
    assert cli.run(["doctor", "--json"]) == 0
    checks = {check["what"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["simulate"]["works"]
    assert all(check["works"] or check["fix"] for check in checks.values())
    assert cli.run(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("This machine can: simulate")


def test_doctor_on_other_machines() -> None:
    from planner.commands.doctor import Machine, checks

    def works(**known: object) -> dict[str, bool]:
        machine = Machine(
            **{
                "python": "3.11",
                "cores": 2,
                "memory_gb": 8.0,
                "gpus": (),
                "vllm": None,
                "nixl": None,
                "core": "",
                **known,
            }
        )  # type: ignore[arg-type]
        found = checks(machine)
        assert all(check.works != bool(check.fix) for check in found)
        return {check.what: check.works for check in found}

    assert not works()["live on CPU"]
    assert not works(gpus=("H200",))["live on GPU"]
    assert not works(gpus=("H200",), vllm="vllm 0.25.1", nixl="nixl 1.0")["P/D with real KV transfer"]


def test_progress_is_silent_for_two_seconds_and_stays_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(commands.time, "monotonic", lambda: clock[0])
    update = commands.progress()
    update("simulate", 0.1)
    clock[0] = 3.0
    for done in (0.2, 0.21, 0.29, 0.31):
        update("simulate", done)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == ["simulate:  20 %, 3 s", "simulate:  31 %, 3 s"]
    for clock[0] in (4.0, 12.0, 13.5, 22.0, 24.0):
        update("simulate", 0.31)
    assert capsys.readouterr().err.splitlines() == ["simulate:  31 %, 14 s", "simulate:  31 %, 24 s"], "it goes on"


def test_help_imports_nothing_heavy() -> None:
    heavy = {"pandas", "numpy", "pydantic", "scipy", "simpy", "rich", "yaml", "vllm", "torch", "streamlit"}
    code = "import sys; from planner import cli; cli.run(['--help']); print('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "simulate" in done.stdout
    assert not heavy & set(done.stdout.splitlines()[-1].split())


def test_a_closed_pipe_is_no_error(config: str) -> None:
    line = f"{sys.executable} -m planner.cli metrics | head -1"
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, cwd=root)
    assert "Traceback" not in done.stderr
