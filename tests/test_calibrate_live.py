"""`planner calibrate` through servers, frontend and client, on engines of known timing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")

from planner import cli
from stand_in import UNTRACED, use_fake_engines

# Slow beside the delays of a busy host, so that its steps stay in step.
ENGINE = {"ttft_s": 0.016, "prompt_token_s": 2e-5, "itl_s": 0.016}


def test_all_rounds_are_measured_on_servers_that_start_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from planner.calibration import calibrate

    started = use_fake_engines(monkeypatch, **ENGINE)
    monkeypatch.setattr(calibrate, "instability", lambda _fitted, _noise: "it is never enough")
    out = tmp_path / "fake.yaml"
    words = ["calibrate", "cpu-agg", "--seconds", "1", "--rounds", "3", "--out", str(out), "--json", *UNTRACED]
    assert cli.run(words) == 0
    assert started == ["aggregated"]
    found = json.loads(capsys.readouterr().out)["profile"]
    assert len({source["sha256"] for source in found["fitted_on"]}) == 3
    assert any("after 3 rounds it is never enough" in note for note in found["notes"])


def test_what_cannot_be_calibrated_is_said_before_servers_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = use_fake_engines(monkeypatch, **ENGINE)
    assert cli.run(["calibrate", "cpu-1p1d", "--set", "deployment.prefill.engine.max_num_seqs=8"]) == 2
    assert "calibrate each in an aggregated deployment" in capsys.readouterr().err
    assert not started
