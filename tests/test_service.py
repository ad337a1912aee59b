"""A law of whole workers: fitted to end-to-end points, and what follows from it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from planner import cli
from planner.calibration.service import fit_service
from planner.spec import load
from planner.spec.service import Point
from planner.system.resolve import resolve

ROOT = Path(__file__).parent.parent
AGGREGATED = "schema: 1\nname: box\nhardware: h200\ndeployment: {mode: aggregated, tp: 1}\n"
POINTS = """concurrency,prompt_tokens,output_tokens,ttft_ms,tpot_ms
4,1000,200,60,8.4
64,1000,200,260,17.5
"""


@pytest.fixture(scope="module")
def ladders() -> ModuleType:
    spec = importlib.util.spec_from_file_location("service_ladder", ROOT / "benchmarks" / "service_ladder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_public_ladder_follows_from_two_of_its_points(ladders: ModuleType) -> None:
    """DeepSeek-V3 on H200, 1P1D at 128 in flight and 3P1D at 512: the rows that were not fitted, within 3 %."""
    law, rungs = ladders.climb(ladders.ladder(8192), (0, 3))
    assert law.prefill_tokens_per_s == pytest.approx(23_000, rel=0.05)
    assert law.tpot_ms.base == pytest.approx(30, rel=0.03)
    unseen = [rung for rung in rungs if not rung.fitted]
    assert len(unseen) == 2
    assert all(abs(rung.off) < 0.03 for rung in unseen)


def _box(tmp_path: Path, points: str = POINTS) -> tuple[Path, Path]:
    config, rows = tmp_path / "box.yaml", tmp_path / "points.csv"
    config.write_text(AGGREGATED)
    rows.write_text(points)
    return config, rows


def test_points_become_a_profile_whose_answers_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, rows = _box(tmp_path)
    out = tmp_path / "box-law.yaml"
    assert cli.run(["calibrate", str(config), "--from", str(rows), "--out", str(out)]) == 0
    assert "from 2 measured points" in capsys.readouterr().out
    assert cli.run(["simulate", str(config), "--set", f"profile={out}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "black box" in json.dumps(told)


def test_workers_that_do_both_are_slower_beside_prompts(tmp_path: Path) -> None:
    """TPOT of a busy worker holds the prompts between its steps: without them it is what the law says."""
    config, _ = _box(tmp_path)
    system = resolve(load(config))
    rate, base, more = 20_000.0, 8.0, 0.1
    points = []
    for decoding in (4.0, 40.0):
        step = base + more * decoding
        served = decoding / (199 * step / 1e3 + 1000 / rate * decoding)  # each waits for its fellows' prompts too
        share = served * 1000 / rate
        tpot = step / (1 - share)
        points.append(
            Point(
                concurrency=served * (0.05 + 199 * tpot / 1e3),
                prompt_tokens=1000, output_tokens=200, ttft_ms=50, tpot_ms=tpot,
            )
        )  # fmt: skip
    law = fit_service(points, system)
    assert law.prefill_tokens_per_s == pytest.approx(rate, rel=0.01)
    assert law.tpot_ms.base == pytest.approx(base, rel=0.02)
    assert law.tpot_ms.per_request == pytest.approx(more, rel=0.02)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        (POINTS.splitlines()[0] + "\n4,1000,200,60,8.4\n", "allowed: two or more that decode different numbers"),
        (POINTS.replace("8.4", "fast"), "'fast' is no number"),
        (POINTS.replace("1000,200", "1000,1"), "output_tokens"),
        (POINTS.splitlines()[0] + "\n", "no points"),
    ],
)
def test_points_that_cannot_be_fitted_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], points: str, says: str
) -> None:
    config, rows = _box(tmp_path, points)
    assert cli.run(["calibrate", str(config), "--from", str(rows)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


def test_a_service_may_stand_in_the_yaml_and_warns_where_it_was_not_measured(tmp_path: Path) -> None:
    config, _ = _box(tmp_path)
    law = "{kind: measured_service, prefill_tokens_per_s: 20000, tpot_ms: {base: 8, per_request: 0.1}, hardware: h100}"
    system = resolve(load(config, [f"profile={law}"]))
    profile = system.pools[0].profile
    assert profile.step.decode(10) == pytest.approx((0.009, 0.0))
    assert profile.step.mixed([(2000, 0)], 0, 0) == pytest.approx(0.1)
    assert any("h100" in warning for warning in system.warnings)
