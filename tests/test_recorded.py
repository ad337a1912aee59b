"""Records predicted again, their tables, and the warnings that every surface prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from planner import cli
from planner.backends import backend
from planner.calibration.aiconfigurator import read_aiconfigurator
from planner.engine import profiles
from planner.engine.profile_file import WireLaw
from planner.engine.profiles import dump_profile, load_profile
from planner.run.tables import Run
from planner.spec import SpecError, load
from planner.system.resolve import resolve
from planner.traffic import workload
from planner.validation.parity import compare, fingerprint
from planner.validation.recorded import judge, read_record, recorded_load, replay_spec, small
from planner.validation.report import BEGIN, END, measured_bandwidth, record_table, write

PROFILE = "h200-llama-3.1-8b-tp1"
RECORDED = Path(__file__).parent.parent / "benchmarks" / "recorded"
LOAD = ["deployment.replicas=1", "workload.requests=30", "workload.rate=3", "workload.prompt_tokens=500"]


def measured(*overrides: str, **manifest: object) -> Run:
    """A run of the simulator, labelled as a measured one."""
    spec = load("agg", [*LOAD, f"profile={PROFILE}", *overrides])
    run = backend("simulate").run(resolve(spec), workload.build(spec))
    own = {"provenance": "measured", "warnings": [], "host": {"load_average": [0.5, 0, 0], "cpus": 2}, **manifest}
    return replace(run, manifest=run.manifest | own)


def record(folder: Path, *runs: Run) -> Path:
    for number, run in enumerate(runs, start=1):
        small(run).save(folder / f"short-{number}")
    file = load_profile(PROFILE).file
    assert file is not None
    (folder / "profile.yaml").write_text(dump_profile(file))
    return folder


def test_a_record_is_predicted_as_it_was_made(tmp_path: Path) -> None:
    """Profile and load are those of the run, so nothing but the rounding of times is off."""
    found = judge(read_record(record(tmp_path / "exact", measured(), measured())))
    (only,) = found
    assert only.comparison.tokens.agrees
    assert only.comparison.error("ttft", "p50").error == pytest.approx(0.0, abs=1e-3)
    assert only.comparison.error("throughput", "requests").error == pytest.approx(0.0, abs=1e-3)
    assert only.comparison.error("tpot", "p50").spread == pytest.approx(0.0, abs=1e-3)


def test_a_wrong_profile_misses_its_aims(tmp_path: Path) -> None:
    folder = record(tmp_path / "slow", measured())
    file = load_profile(PROFILE).file
    assert file is not None
    slow = file.step.model_copy(update={"decode_s": 2 * file.step.decode_s})
    (folder / "profile.yaml").write_text(dump_profile(file.model_copy(update={"step": slow})))
    found = read_record(folder)
    text = "\n".join(record_table(found, judge(found)))
    assert "3 %: missed" in text
    assert "Every aim is met in 0 of 1 comparisons." in text
    assert "The host's load average when runs began: 0.5 to 0.5, 2 CPUs." in text


def test_what_was_fitted_is_not_called_predicted(tmp_path: Path) -> None:
    """A shipped copy is rounded, yet names the original that the profile was fitted on."""
    run = measured()
    folder = record(tmp_path / "fitted", run)
    file = load_profile(PROFILE).file
    assert file is not None
    own = file.fitted_on[0].model_copy(update={"sha256": fingerprint(run)})
    (folder / "profile.yaml").write_text(dump_profile(file.model_copy(update={"fitted_on": (own,)})))
    assert judge(read_record(folder))[0].comparison.label == "fitted"


def test_recorded_requests_keep_their_times() -> None:
    run = measured()
    sent = recorded_load(run).start()
    assert [one.time_s for one in sent] == run.requests["arrival_s"].tolist()
    assert [one.request.prompt_tokens for one in sent] == run.requests["prompt_tokens"].tolist()


def test_a_run_folder_alone_is_judged_by_its_own_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = measured().save(tmp_path / "run")
    assert cli.run(["validate", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("1 of 1 comparisons meet every aim.")


def test_the_command_writes_between_the_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, docs = record(tmp_path / "exact", measured()), tmp_path / "docs.md"
    docs.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert cli.run(["validate", str(folder), "--docs", str(docs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["comparisons"]
    assert [row["record"] for row in rows] == ["exact"]
    text = docs.read_text()
    assert text.startswith(f"above\n{BEGIN}\n### exact")
    assert text.endswith(f"{END}\nbelow\n")
    assert "old" not in text
    with pytest.raises(SpecError, match="has no lines"):
        write(tmp_path / "none.md", "x")


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_that_is_no_record_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match="holds no loads"):
        read_record(tmp_path / name)


def test_the_shipped_record_tells_the_three_fits_apart() -> None:
    """Steps in process alone are wrong about serving; the served run, seen or not, is predicted by the others."""
    root = Path(__file__).parent.parent / "benchmarks" / "recorded" / "h200-llama-3.1-8b"
    found = {(one.profile, one.load): one.comparison for one in judge(read_record(root))}
    assert found["both", "requests 1-80"].label == "fitted"
    assert found["both", "requests 81-160"].label == "predicted"
    assert abs(found["both", "requests 81-160"].error("tpot", "p50").error) < 0.05
    assert found["steps", "requests 81-160"].error("tpot", "p50").error > 0.2


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("h200-llama-3.1-8b-served", "h200-llama-3.1-8b-tp1-served"),
        ("h200-llama-3.1-8b-fp8-kv", "h200-llama-3.1-8b-tp1-fp8-kv-served"),
        ("h200-qwen3-1.7b", "h200-qwen3-1.7b-tp1-served"),
        ("h200-qwen3-30b-a3b", "h200-qwen3-30b-a3b-tp1-served"),
    ],
)
def test_a_served_profile_is_what_its_calibration_gives(name: str, profile: str) -> None:
    """No load of the record is among what it was fitted on."""
    record_ = read_record(Path(__file__).parent.parent / "benchmarks" / "recorded" / name)
    fitted, shipped = record_.profiles["calibration"], load_profile(profile).file
    assert fitted is not None
    assert shipped is not None
    for law in ("step", "host"):
        assert getattr(shipped, law).model_dump() == pytest.approx(
            getattr(fitted, law).model_dump(), rel=1e-3, abs=1e-12
        )
    assert (shipped.kv_cache_tokens, shipped.types) == (fitted.kv_cache_tokens, fitted.types)
    hashes = {source.sha256 for source in shipped.fitted_on}
    assert hashes == {source.sha256 for source in fitted.fitted_on}
    assert len(hashes) == len(record_.rounds)
    for run in (run for runs in record_.loads.values() for run in runs):
        assert not hashes & {fingerprint(run), *run.manifest["sources"]}


def test_bandwidth_of_transfers_leaves_set_up_out(tmp_path: Path) -> None:
    """Two sizes over a wire of 2 GB/s with 30 ms of set-up: 2 GB/s."""
    link = "deployment.link={bandwidth_gb_s: 2, setup_us: 30000, latency_us: 0}"
    load_ = ["workload.kind=constant", "workload.requests=6", "workload.rate=0.4"]
    runs = []
    for prompt in (512, 4096):
        spec = load("disagg", [link, *load_, f"workload.prompt_tokens={prompt}"])
        runs.append(backend("simulate").run(resolve(spec), workload.build(spec)))
    found = replace(read_record(record(tmp_path / "wire", measured())), loads={"sizes": tuple(runs)})
    assert measured_bandwidth(found) == pytest.approx(2.0, rel=1e-6)


def test_the_link_of_a_profile_is_used_where_the_spec_leaves_it_open(tmp_path: Path) -> None:
    file = load_profile(PROFILE).file
    assert file is not None
    path = tmp_path / "mine.yaml"
    path.write_text(dump_profile(file.model_copy(update={"link": WireLaw(bandwidth_gb_s=7.0, setup_s=0.004)})))
    mine = f"profile={path}"
    wires = resolve(load("disagg", [mine, "deployment.link={}"])).wires
    assert wires is not None
    assert (wires.intra_node.name, wires.intra_node.bandwidth) == ("measured", 7e9)
    assert wires.intra_node.setup_s == pytest.approx(0.004)
    for given in ("{preset: tcpx}", "{bandwidth_gb_s: 20}", "{intra_node: {preset: tcpx}}"):
        other = resolve(load("disagg", [mine, f"deployment.link={given}"])).wires
        assert other is not None
        assert other.intra_node.bandwidth != 7e9


# --- warnings -----------------------------------------------------------------------------------------------------


SHIPPED = ["--set", f"profile={PROFILE}"]
FAR = [*SHIPPED, "--set", "workload.prompt_tokens=30000", "--set", "workload.rate=0.5", "--set", "workload.requests=5"]


def test_leaving_the_measured_range_is_said_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """simulate, its JSON, show, compare and its JSON."""
    folder, near = str(tmp_path / "far"), str(tmp_path / "near")
    text = "context tokens of a sequence reach 30100, measured only from 1 to 16414; this is an extrapolation"

    def printed(*arguments: str) -> str:
        assert cli.run(list(arguments)) == 0
        return capsys.readouterr().out

    assert f"Warning: profile {PROFILE}: {text}" in printed("simulate", "agg", *FAR, "--out", folder)
    assert text in " ".join(json.loads(printed("simulate", "agg", *FAR, "--no-save", "--json"))["warnings"])
    assert text in printed("show", folder)
    assert text not in printed("simulate", "agg", *SHIPPED, "--out", near)
    assert f"Warning: A: profile {PROFILE}: {text}" in printed("compare", folder, near)
    assert f"Warning: B: profile {PROFILE}: {text}" in printed("compare", near, folder)
    assert text in " ".join(json.loads(printed("compare", folder, near, "--json"))["warnings"])


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model=qwen2.5-7b", "is for model llama-3.1-8b, not qwen2.5-7b"),
        ("hardware=h100", "is for hardware h200, not h100"),
    ],
)
def test_another_model_or_gpu_is_said(override: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", override, "--set", f"profile={PROFILE}", "--set", "workload.requests=5", "--no-save"]
    assert cli.run(["simulate", "agg", *options]) == 0
    assert text in capsys.readouterr().out


def test_another_vllm_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vLLM that this Python would serve with on such hardware; that of a CPU says nothing of a GPU."""
    text = f"profile {PROFILE} was measured on vLLM 0.25.1, and 0.31.0 is installed here; times may differ"
    monkeypatch.setattr(profiles, "installed_vllm", lambda: {"gpu": "0.31.0"})
    assert text in resolve(load("agg", [f"profile={PROFILE}"])).warnings
    monkeypatch.setattr(profiles, "installed_vllm", lambda: {"cpu": "0.31.0"})
    assert text not in resolve(load("agg", [f"profile={PROFILE}"])).warnings


def test_a_run_on_another_vllm_or_gpu_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured(versions={"vllm": "0.32.0", "gpu": "NVIDIA L40S"})
    folder = str(record(tmp_path / "other", run))
    assert cli.run(["validate", folder]) == 0
    out = capsys.readouterr().out
    assert "was measured on vLLM 0.25.1, the run on 0.32.0" in out
    assert "was measured on NVIDIA H200, the run on NVIDIA L40S" in out
    assert cli.run(["validate", folder, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["comparisons"][0]["warnings"]) == 2
    predicted, served = str(tmp_path / "predicted"), str(run.save(tmp_path / "run"))
    assert cli.run(["simulate", "agg", "--out", predicted]) == 0
    capsys.readouterr()
    assert cli.run(["compare", predicted, served]) == 0
    assert "the run on 0.32.0; times may differ" in capsys.readouterr().out


# --- AIConfigurator ---------------------------------------------------------------------------------------------------


def _installed() -> bool:
    from importlib import metadata

    try:
        return metadata.version("aiconfigurator") == "0.12.0"
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(_installed(), reason="aiconfigurator is installed")
def test_without_the_plug_in_one_line_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["calibrate", "agg", "--from", "aiconfigurator"]) == 2
    assert "not installed; `pip install aiconfigurator==0.12.0`" in capsys.readouterr().err


def test_quantised_engines_are_refused() -> None:
    system = resolve(load("agg", ["engine.kv_cache_dtype=fp8", "profile=null"]))
    with pytest.raises(SpecError, match="only bf16 engines"):
        read_aiconfigurator("aiconfigurator", system, system.pools[0])


@pytest.mark.skipif(not _installed(), reason="aiconfigurator 0.12.0 is not installed")
def test_operator_times_become_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "aic.yaml"
    assert cli.run(["calibrate", "agg", "--from", "aiconfigurator", "--out", str(out)]) == 0
    file = load_profile(str(out)).file
    assert file is not None
    assert file.measured is not None
    assert file.measured.composed is not None
    assert 0.003 < file.step.decode_s < 0.007  # 16 GB of weights at 4.8 TB/s, and its overhead
    capsys.readouterr()
    assert cli.run(["simulate", "agg", "--set", f"profile={out}", "--set", "workload.requests=5", "--no-save"]) == 0
    assert "no engine was run" in capsys.readouterr().out
    for source, fault in (
        ("aiconfigurator:nothing", "no data of nothing"),
        ("aiconfigurator:vllm/1.0", "that version"),
    ):
        assert cli.run(["calibrate", "agg", "--from", source]) == 2
        assert fault in capsys.readouterr().err
    assert cli.run(["calibrate", "agg", "--from", "aiconfigurator", "--set", "hardware=rtx-4090"]) == 2
    assert "no data of rtx-4090" in capsys.readouterr().err


@pytest.mark.parametrize("load_", ["h200-unseen/llama-3.1-8b-fp8-short-1", "h200-llama-3.1-8b-fp8-kv/long-1"])
def test_fp8_is_foretold_from_a_profile_of_bf16(load_: str) -> None:
    """No fit of the profile has seen them; its times as they were are 15 and 25 % off. 2 and -6 % as foretold."""
    run = Run.load(RECORDED / load_)
    spec = replay_spec(run, "h200-llama-3.1-8b-tp1-served")
    found = compare(backend("simulate").run(resolve(spec), workload.build(spec)), run)
    assert abs(found.error("tpot", "p50").error) < 0.07
