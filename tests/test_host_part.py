"""`planner calibrate --host`: another host's launches and times become a profile's, its steps stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from planner import cli
from planner.backends import backend
from planner.calibration.costs import _per_sequence
from planner.calibration.fitting import FitError
from planner.calibration.host_part import calibrate_host, engine_of, fit_host_part
from planner.calibration.launches import KINDS
from planner.calibration.load import PhasedLoad, plan_host
from planner.engine.profile_file import HostLaw, ProfileFile
from planner.engine.profiles import dump_profile, from_file, load_profile
from planner.engine.step_time import AffineStep
from planner.run.tables import Progress, Run
from planner.spec import SpecError, load
from planner.system.resolve import System, resolve
from planner.traffic.requests import Load
from test_launches import LAW, SIZES, bursts, table

PROFILE = "h200-qwen3-30b-a3b-tp1-served"
ENGINE = ["model=qwen3-30b-a3b", f"profile={PROFILE}", "deployment.replicas=1"]
HOST = HostLaw(request_s=9e-3, request_per_token_s=2e-6, response_s=3e-3, response_per_seq_s=5e-4)


def shipped() -> ProfileFile:
    file = load_profile(PROFILE).file
    assert file is not None
    return file


class OtherHost:
    """Requests take what `HOST` says, launches what `LAW` says."""

    def __init__(self) -> None:
        self.rounds = 0

    def run(self, system: System, sent: Load, progress: Progress | None = None) -> Run:
        self.rounds += 1
        profile = from_file(shipped().model_copy(update={"host": HOST, "launches": None}))
        pools = tuple(replace(pool, profile=profile) for pool in system.pools)
        run = backend("simulate").run(replace(system, pools=pools), sent, progress)
        steps = table(bursts(), AffineStep(LAW, SIZES)).assign(worker=system.pools[0].workers[0].name)
        steps = steps.assign(count=1, growth_s=0.0, running=0, waiting=0, kv_used_fraction=0.0)
        return replace(run, steps=steps, manifest=run.manifest | {"provenance": "measured"})


def test_a_profile_gets_another_host() -> None:
    host, file = OtherHost(), shipped()
    found = calibrate_host(resolve(load("agg", ENGINE)), host, file)
    assert host.rounds == 1
    assert found.unstable is None
    launches = {name: getattr(LAW, name) for name in KINDS}
    for name, value in found.file.step.model_dump().items():
        want = launches.get(name, getattr(file.step, name))
        assert value == pytest.approx(want, rel=0.06), name  # LAW has 0.03 ms a sequence, the profile 0.037
    assert found.file.host.request_s == pytest.approx(HOST.request_s, rel=0.02)
    assert found.file.host.request_per_token_s == pytest.approx(HOST.request_per_token_s, rel=0.05)
    assert found.file.host.response_per_token_s == file.host.response_per_token_s  # this host shows none
    assert len(found.file.fitted_on) == len(file.fitted_on) + 1
    again = dump_profile(found.file)
    assert f"name: {PROFILE}-host\n" in again


def test_errors_of_launches_are_the_new_ones(tmp_path: Path) -> None:
    system, file = resolve(load("agg", ENGINE)), shipped()
    found = fit_host_part(system, [OtherHost().run(system, PhasedLoad(plan_host(system)))], file)
    assert found.fit is not None
    assert file.fit is not None
    at = found.fit.parameters.index("launch_eager_s")
    assert found.fit.covariance[at][at] == pytest.approx(found.fit.standard_errors["launch_eager_s"] ** 2, rel=1e-3)
    assert found.fit.standard_errors["launch_eager_s"] < file.fit.standard_errors["launch_eager_s"]
    assert found.fit.standard_errors["decode_s"] == file.fit.standard_errors["decode_s"]
    path = tmp_path / "here.yaml"
    path.write_text(dump_profile(found))
    assert load_profile(str(path)).file == found


def test_steps_without_launches_show_no_host() -> None:
    system = resolve(load("agg", ENGINE))
    run = OtherHost().run(system, PhasedLoad(plan_host(system)))
    with pytest.raises(FitError, match="no launches were seen"):
        fit_host_part(system, [replace(run, steps=run.steps.iloc[:0])], shipped())


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        ("agg", ["model=qwen3-30b-a3b", "deployment.tp=2"], "tp 1, the deployment is qwen3-30b-a3b on h200, tp 2"),
        ("agg", [], "is of qwen3-30b-a3b on h200, tp 1, the deployment is llama-3.1-8b"),
        ("disagg", ["model=qwen3-30b-a3b"], "the deployment is disaggregated"),
        ("cpu-agg", [], "on cpu the host is the engine"),
    ],
)
def test_only_the_profiles_engine_has_its_host_measured(config: str, changes: list[str], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        engine_of(resolve(load(config, [*changes, "profile=null"])), shipped())


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = resolve(load("agg", ENGINE))
    OtherHost().run(system, PhasedLoad(plan_host(system))).save(tmp_path / "run")
    out = tmp_path / "here.yaml"
    arguments = [
        *(part for one in ENGINE for part in ("--set", one)),
        "--from",
        str(tmp_path / "run"),
        "--out",
        str(out),
    ]
    assert cli.run(["calibrate", "agg", "--host", PROFILE, *arguments]) == 0
    assert f"launches and host times of 1 run, the steps of {PROFILE}." in " ".join(capsys.readouterr().out.split())
    assert load_profile(str(out)).file is not None


def test_a_queue_before_the_api_server_is_not_its_pace() -> None:
    """0.1 ms a sequence; 64 of them take longer than their steps of 5 ms, and wait for those before."""
    rng = np.random.default_rng(1)
    batches = np.repeat([2.0, 5.0, 17.0, 33.0, 65.0], [20, 20, 14, 7, 7])
    waited = 1e-4 * (batches - 1) + np.where(batches > 50, 15e-3, 0.0) + rng.normal(0.0, 1e-4, len(batches))
    asked = pd.DataFrame({"prefill_end_s": 1.0, "prompt_tokens": 100, "beside": batches, "step_s": 5e-3})
    slope, error = _per_sequence(asked.assign(first_token_s=1.002 + waited), 2e-3, 0.0)
    assert slope == pytest.approx(1e-4, rel=0.1)
    assert error < 1e-5
