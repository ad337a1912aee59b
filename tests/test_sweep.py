"""`planner sweep`: the same tables however it was spread or stopped, faults of one line, rows that outlive a kill."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import planner
from planner import cli
from planner.suggestion.spread import here, processes
from planner.sweep.answers import CSV, PARQUET, ROWS, answer, sweep
from planner.sweep.grid import MOST_QUESTIONS, read_grid

GRID = """
base: disagg
set:
  workload.requests: [40]
  workload.rate: [8, 40]
  engine.gpu_memory_utilization: [0.92, 0.05]
  deployment.prefill.engine: [{}, {max_num_seqs: 8}]
seeds: [0, 1]
"""


def written(folder: Path, text: str = GRID) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def files(folder: Path) -> list[bytes]:
    assert sorted(path.name for path in folder.iterdir()) == [ROWS, CSV, PARQUET]
    return [(folder / name).read_bytes() for name in (ROWS, CSV, PARQUET)]


def test_a_sweep_is_the_same_however_it_was_spread_or_stopped(tmp_path: Path) -> None:
    questions = read_grid(written(tmp_path))
    assert len(questions) == 16
    with processes(2) as pool:
        found = sweep(questions, tmp_path / "pool", pool)
    fresh = files(tmp_path / "pool")

    def stopped(function: Callable[[Any], Any], inputs: Sequence[Any], done: Callable[[int, Any], None]) -> list[Any]:
        for at in (4, 2, 9):  # as they come, and no further
            done(at, function(inputs[at]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(questions, tmp_path / "one", stopped)
    rows = tmp_path / "one" / ROWS
    assert rows.read_text().count("\n") == 4
    rows.write_text(rows.read_text()[:-7])  # killed in the middle of a line
    again: list[int] = []

    def counted(function: Callable[[Any], Any], inputs: Sequence[Any], done: Callable[[int, Any], None]) -> list[Any]:
        again.extend(range(len(inputs)))
        return here(function, inputs, done)

    sweep(questions, tmp_path / "one", counted)
    assert len(again) == 14
    assert files(tmp_path / "one") == fresh
    sweep(questions, tmp_path / "one", counted)
    assert len(again) == 14

    table = pd.read_parquet(tmp_path / "one" / PARQUET)
    assert list(table.columns) == list(found.columns)
    assert pd.read_csv(tmp_path / "one" / CSV)["fault"].dropna().tolist() == table["fault"].dropna().tolist()
    assert table["fault"].notna().tolist() == [
        question.axes["engine.gpu_memory_utilization"] == 0.05 for question in questions
    ]
    first = planner.summarise(planner.simulate(questions[0].spec))
    assert table["ttft_p99_ms"][0] == first["ttft_p99_ms"]


def test_questions_of_gpus_are_what_suggest_answers(tmp_path: Path) -> None:
    text = "base: disagg\nset: {slo.ttft_ms: [1000], slo.tpot_ms: [15]}\ngpus: [2]\nrequests: 60\n"
    (question,) = read_grid(written(tmp_path, text))
    row = answer(question)
    found = planner.suggest(question.spec, 2, requests=60, processes=1)
    assert (row["best"], row["rate"], row["answer"]) == (found.best.name, found.best.rate, found.sentence)
    assert found.verdict is not None
    assert row["worth_it"] == found.verdict.word


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("set: {}\nsed: [1]", "sed: unknown key; did you mean 'seeds'"),
        ("base: nowhere", "grid.yaml: base: nowhere: no such file"),
        ("set: {workload.rate: []}", "set.workload.rate: [] is not a list of values"),
        ("set: {workload.rate: [1, 1]}", "set.workload.rate: 1 twice"),
        ("set: {workload.rate: [1, fast]}", "workload.rate: 'fast'"),
        ("set: {workload.rat: [1]}", "grid.yaml: --set workload.rat: unknown key"),
        ("set: {run.seed: [1]}", "allowed: the keys seeds and gpus"),
        ("gpus: [0]", "gpus[0]: 0 is"),
        (
            f"seeds: {list(range(100))}\nset: {{workload.rate: {list(range(1, 12))}}}",
            "1,100 questions; allowed: up to 1,000",
        ),
        ("seeds: []", "seeds: [] is not"),
        ("gpus: 3", "gpus: 3 is not a list"),
        ("set: {workload.rate: 3}", "workload.rate: 3 is not a list"),
        ("- 1", "holds a list, not keys"),
    ],
)
def test_a_bad_grid_is_one_line(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sweep", str(written(tmp_path, text)), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "allowed: " in line
    assert not (tmp_path / "out").exists()
    assert MOST_QUESTIONS == 1000


def test_the_first_line_answers_and_faults_have_lines_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = written(tmp_path, "set: {workload.requests: [5], model: [llama-3.1-8b, deepseek-v3]}")
    assert cli.run(["sweep", str(grid), "--out", str(tmp_path / "out"), "--processes", "1"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "1 of 1 deployments within their targets."
    assert any("model=deepseek-v3: deployment.tp: deepseek-v3 does not fit" in line for line in others)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = written(tmp_path, "set: {workload.requests: [5]}")
    assert cli.run(["sweep", str(grid), "--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    for text, said in (('{"sweep": 0}\n', "another version"), ("[\n", "damaged"), ('{"sweep": 1}', "")):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        (folder / ROWS).write_text(text)
        assert cli.run(["sweep", str(grid), "--out", str(folder), "--json"]) == (2 if said else 0)
        assert said in capsys.readouterr().err


def test_a_killed_sweep_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    """SIGKILL once some rows are there; the workers end, and the rest comes later."""
    rates = ", ".join(str(rate) for rate in range(1, 31))
    grid, out = written(tmp_path, f"set: {{workload.requests: [1500], workload.rate: [{rates}]}}"), tmp_path / "out"
    command = [sys.executable, "-m", "planner.cli", "sweep", str(grid), "--out", str(out), "--processes", "2", "--json"]
    begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / ROWS).exists() or (out / ROWS).read_text().count("\n") < 4:
        assert begun.poll() is None
        time.sleep(0.02)
    begun.kill()
    begun.wait(timeout=60)
    kept = [line for line in (out / ROWS).read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 4 <= len(kept) < 31
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
    assert len(json.loads(done.stdout)) == 30
    assert set(kept) <= set((out / ROWS).read_text().splitlines(keepends=True))


def test_a_narrow_table_breaks_no_word_and_loses_no_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = written(tmp_path, "set: {workload.requests: [5], hardware: [h100, h200], workload.rate: [2, 4]}")
    assert cli.run(["sweep", str(grid), "--out", str(tmp_path / "out"), "--processes", "1"]) == 0
    words = capsys.readouterr().out.split()
    assert {"hardware", "good/s/GPU", "short", "aggregated", "h100"} <= set(words)
