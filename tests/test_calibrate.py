"""Calibration: what is sent, and that an engine of known law is recovered through the same path as a live one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from planner import cli
from planner.backends import backend
from planner.calibration.calibrate import calibrate, fit, instability, one_pool
from planner.calibration.costs import interference
from planner.calibration.fitting import LAW, FitError, Fitted, fit_step
from planner.calibration.load import PhasedLoad, plan
from planner.calibration.observations import from_steps, from_tokens
from planner.calibration.sources import read_source
from planner.engine.profiles import dump_profile, from_file, load_profile
from planner.run.tables import Progress, Run, frame
from planner.spec import SpecError, load
from planner.system.resolve import System, resolve
from planner.traffic.requests import Load
from planner.validation.parity import compare, fingerprint

H200 = ["profile=h200-llama-3.1-8b-tp1"]


def aggregated(*overrides: str) -> System:
    return resolve(load("agg", ["deployment.replicas=1", *overrides]))


class TracedSimulator:
    """The simulator as a live engine would be seen: steps with the attention pairs of their single prompts.

    Steps with several prompts at once are dropped: the simulator does not say how they were cut.
    """

    def __init__(self) -> None:
        self.calls = 0

    def run(self, system: System, load: Load, progress: Progress | None = None) -> Run:
        self.calls += 1
        run = backend("simulate").run(system, load, progress)
        started = run.requests.groupby("prefill_start_s")["prompt_tokens"].agg(["count", "sum"])
        alone = run.steps["start_s"].map(started["count"]).eq(1)
        whole = run.steps["start_s"].map(started["sum"]).eq(run.steps["prefill_tokens"])
        steps = run.steps[(run.steps["prefill_tokens"] == 0) | (alone & whole)]
        steps = steps.assign(prefill_pairs=steps["prefill_tokens"] ** 2 / 2)
        return replace(run, steps=steps, manifest=run.manifest | {"started_at": "2026-01-01"})


@pytest.mark.parametrize("name", ["agg", "disagg", "cpu-agg", "cpu-1p1d"])
def test_a_plan_fits_the_engine_and_its_time(name: str) -> None:
    system = resolve(load(name))
    phases = plan(system, 60)
    assert sum(phase.estimate_s for phase in phases) <= 60
    beside = {"cpu-1p1d": {"company"}, "disagg": set()}.get(name, {"mixed"})  # engines of one CPU; of two GPUs
    assert {phase.kind for phase in phases} == {"idle", "decode"} | beside
    numbers = [request.request_id for phase in phases for request in phase.requests]
    contents = [request.segments[0][0] for phase in phases for request in phase.requests]
    assert len(set(numbers)) == len(numbers) == len(set(contents))
    limits = system.pools[0].limits
    for phase in phases:
        assert all(one.prompt_tokens + one.output_tokens <= limits.max_model_len for one in phase.requests)
        assert sum(one.prompt_tokens for one in phase.together) <= limits.kv_blocks * limits.block_size


@pytest.mark.parametrize("name", ["agg", "disagg"])
def test_a_calibration_comes_to_hundreds_of_decodes(name: str) -> None:
    """Beyond a tile of rows each sequence takes longer, which a law of fewer does not know."""
    system = resolve(load(name, ["deployment.replicas=1"] if name == "agg" else []))
    wide = [phase for phase in plan(system, 120) if len(phase.together) > 256]
    assert len(wide) == 1
    run = backend("simulate").run(system, PhasedLoad(tuple(wide)))
    assert run.steps["decode_seqs"].max() > 0.9 * len(wide[0].together)
    assert run.requests["finish_s"].max() < 1.3 * wide[0].estimate_s


def test_too_little_room_is_said() -> None:
    with pytest.raises(SpecError, match="calibration: no decode or idle phase fits in 0 s"):
        plan(aggregated(*H200), 0.01)


def test_phases_follow_each_other_and_their_prompts_go_one_by_one() -> None:
    load_ = PhasedLoad(plan(aggregated(*H200), 30))
    now, pending, most = 0.0, load_.start(), 0
    served: list[int] = []
    while pending:
        most = max(most, len(pending))
        arrival = pending.pop(0)
        now = max(now, arrival.time_s)
        served.append(arrival.request.request_id)
        following = load_.finished(arrival.request, now)
        assert all(one.time_s >= now for one in following)
        pending += following
    assert len(served) == len(set(served)) == load_.expected_requests
    assert most > 1
    assert set(load_.kinds.values()) == {"idle", "decode", "mixed"}


def test_a_known_engine_is_recovered() -> None:
    system, engine = aggregated(*H200), TracedSimulator()
    found = calibrate(system, engine, seconds=60, name="again")
    truth = load_profile("h200-llama-3.1-8b-tp1").file
    assert truth is not None
    assert found.unstable is None
    assert engine.calls == 1
    one_speed = {"mixed_per_context_s": truth.step.decode_per_context_s}  # KV is read as decodes do
    for name, value in (truth.step.model_dump() | one_speed).items():
        assert getattr(found.file.step, name) == pytest.approx(value, rel=0.01, abs=1e-10), name
    assert found.file.host.request_s == pytest.approx(truth.host.request_s, rel=1e-3)
    assert found.file.measured is not None
    assert found.file.measured.date == "2026-01-01"
    assert from_file(found.file).outside(10**6, 0, 0)
    assert dump_profile(found.file).startswith("schema: 1\nname: again\nprovenance: calibrated\n")


def test_a_calibration_run_is_not_a_prediction() -> None:
    system = aggregated(*H200)
    run = TracedSimulator().run(system, PhasedLoad(plan(system, 30)))
    file = fit(system, [run])
    assert [source.sha256 for source in file.fitted_on] == [fingerprint(run)]
    assert compare(run, run, fitted_on=from_file(file).fitted_hashes).label == "fitted"


def test_links_and_hops_are_measured_in_disaggregated_systems() -> None:
    system = resolve(
        load(
            "disagg",
            [
                *H200,
                "deployment.link.bandwidth_gb_s=20",
                "deployment.link.setup_us=1000",
                "deployment.link.preset=nvlink",
            ],
        )
    )  # a preset without a way: the profile's is found again
    found = calibrate(system, TracedSimulator(), seconds=40, rounds=1)
    assert found.file.link is not None
    assert found.file.link.bandwidth_gb_s == pytest.approx(20, rel=0.05)
    assert found.file.host.hop_s == pytest.approx(2e-3, rel=0.05)


def test_noise_and_unsure_parameters_ask_for_another_round() -> None:
    system = aggregated(*H200)
    run = TracedSimulator().run(system, PhasedLoad(plan(system, 30)))
    rows = from_steps(run.steps, ())
    fitted = fit_step(rows)
    assert instability(fitted, 0.01) is None
    assert "too noisy" in str(instability(fitted, 0.5))
    unsure = replace(fitted, covariance=fitted.covariance + 1.0)
    assert "decode_s is known to" in str(instability(unsure, 0.01))


def test_unequal_pools_and_empty_runs_are_refused() -> None:
    with pytest.raises(SpecError, match="calibrate each in an aggregated deployment"):
        one_pool(resolve(load("disagg", ["deployment.prefill.tp=2", "profile=null"])))
    empty = Run(frame("requests"), frame("steps"), frame("samples"), frame("transfers"))
    with pytest.raises(FitError, match="neither steps nor token times"):
        fit(aggregated(*H200), [empty])


def test_prompt_chunks_of_one_token_count_as_decodes() -> None:
    """The decode worker of a P/D pair computes one prompt token after reading the others' KV."""
    steps = pd.DataFrame(
        {
            "worker": ["d"] * 2,
            "start_s": [0.0, 1.0],
            "duration_s": [0.005] * 2,
            "prefill_tokens": [1, 11],
            "prefill_pairs": [99.5, 99.5 + 50.0],
            "decode_seqs": [2, 0],
            "context_tokens": [300, 0],
            "chunks": ["[[1, 99]]", "[[1, 99], [10, 0]]"],
        }
    )
    rows = from_steps(steps, ())
    assert rows["kind"].tolist() == ["decode", "mixed"]
    assert rows["decode_padded"].tolist() == [3, 0]
    assert rows["decode_context"].tolist() == [399, 0]
    assert rows["prefill_tokens"].tolist() == [0, 10]
    assert rows["prefill_pairs"].tolist() == [0, 50]


def test_a_profile_from_a_run_folder_a_csv_and_a_vllm_bench_result(tmp_path: Path) -> None:
    system = aggregated(*H200)
    run = TracedSimulator().run(system, PhasedLoad(plan(system, 30)))
    measured = replace(run, manifest=run.manifest | {"provenance": "measured"})
    folder = measured.save(tmp_path / "run")
    table = tmp_path / "steps.csv"
    run.steps.to_csv(table, index=False)
    truth = load_profile("h200-llama-3.1-8b-tp1").file
    assert truth is not None
    for path in (folder, table):
        file = fit(system, [read_source(path)])
        assert file.step.decode_s == pytest.approx(truth.step.decode_s, rel=0.01), path
    result = tmp_path / "bench.json"
    count, gap = 40, 0.006
    requests = {
        "start_times": [100.0 + 0.5 * index for index in range(count)],
        "ttfts": [0.08] * count,
        "itls": [[gap] * 99] * count,
        "input_lens": [3000] * count,
        "output_lens": [100] * count,
    }
    result.write_text(json.dumps(requests))
    read = read_source(result)
    assert len(read.tokens) == 100 * count
    rows = from_tokens(read.requests, read.tokens, ())
    assert rows.loc[rows["kind"] == "served decode", "seconds"].median() == pytest.approx(gap)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("steps.csv", "a,b\n1,2\n", "no column prefill_tokens"),
        ("steps.csv", "prefill_tokens,decode_seqs,context_tokens,duration_s\n1,x,1,1\n", "decode_seqs: not numbers"),
        ("result.json", "{", "not JSON"),
        ("result.json", '{"ttfts": []}', "no known result"),
        ("notes.txt", "", "not a source"),
    ],
)
def test_a_broken_source_is_one_line(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError, match=fault) as found:
        read_source(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


def test_a_simulated_run_is_no_source(tmp_path: Path) -> None:
    system = aggregated(*H200)
    run = TracedSimulator().run(system, PhasedLoad(plan(system, 20)))
    with pytest.raises(SpecError, match="a calibrated run; allowed: a measured one"):
        read_source(run.save(tmp_path / "run"))


def test_the_command_writes_a_profile_from_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = aggregated(*H200)
    run = TracedSimulator().run(system, PhasedLoad(plan(system, 30)))
    table, out = tmp_path / "steps.csv", tmp_path / "mine.yaml"
    run.steps.to_csv(table, index=False)
    assert cli.run(["calibrate", "agg", "--from", str(table), "--out", str(out), "--name", "mine"]) == 0
    assert capsys.readouterr().out.startswith("Profile mine: ")
    assert load_profile(str(out)).provenance == "calibrated"
    assert cli.run(["simulate", "agg", "--set", f"profile={out}", "--no-save"]) == 0
    assert "[calibrated: mine]" in capsys.readouterr().out
    assert cli.run(["calibrate", "agg", "--from", str(tmp_path / "none.csv")]) == 2
    assert "not a source" in capsys.readouterr().err


def test_host_times_come_from_requests_without_company() -> None:
    """In a burst the host has queues of its own."""
    system = aggregated(*H200)
    run = TracedSimulator().run(system, PhasedLoad(plan(system, 30)))
    crowd = run.requests["arrival_s"].duplicated(keep=False)
    slow = run.requests.assign(queued_s=run.requests["queued_s"] + 0.5 * crowd)
    found = fit(system, [replace(run, requests=slow)])
    truth = load_profile("h200-llama-3.1-8b-tp1").file
    assert truth is not None
    assert found.host.request_s == pytest.approx(truth.host.request_s, rel=1e-3)


def test_engines_that_slow_each_other_are_noted() -> None:
    """Two engines decode, first one, then both: each step is then half as long again."""
    worker, start, duration, now = [], [], [], 0.0
    for index in range(40):
        both = index >= 20
        for name in ("a", "b")[: 1 + both]:
            worker.append(name)
            start.append(now)
            duration.append(0.010 * (1 + 0.5 * both))
        now += 0.020
    zeros = [0] * len(worker)
    columns = {"worker": worker, "start_s": start, "duration_s": duration, "prefill_tokens": zeros}
    columns |= {"decode_seqs": [1] * len(worker), "context_tokens": zeros, "count": [1] * len(worker)}
    table = frame("steps", columns | dict.fromkeys(("running", "waiting"), zeros))
    run = Run(frame("requests"), table, frame("samples"), frame("transfers"))
    values = dict.fromkeys(LAW, 0.0) | {"decode_s": 0.012}
    fitted = Fitted(values, (), np.zeros((0, 0)), {}, (), 60, {})
    assert interference([run], (), fitted) == pytest.approx(1.5)
    assert interference([replace(run, steps=table.iloc[:20])], (), fitted) is None


def test_the_slowing_of_engines_on_one_host_is_recovered() -> None:
    """A prefill and a decode engine of one host, each 1.4 times as slow while the other is in a step."""
    system = resolve(load("cpu-1p1d"))
    file = system.pools[0].profile.file
    assert file is not None
    truth = file.model_copy(update={"interference": 1.4})
    slowed = replace(system, pools=tuple(replace(pool, profile=from_file(truth)) for pool in system.pools))
    run = TracedSimulator().run(slowed, PhasedLoad(plan(system, 20)))
    found = fit(system, [run])
    assert found.interference == pytest.approx(1.4, rel=0.02)
    assert found.step.decode_s == pytest.approx(truth.step.decode_s, rel=0.02)
    assert found.step.prefill_per_token_s == pytest.approx(truth.step.prefill_per_token_s, rel=0.05)
    assert any("not pinned" in note and "1.40 times" in note for note in found.notes)
