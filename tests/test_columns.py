"""Tables without pandas: the same files, frames and figures as with it, and a start-up that does not import it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import planner
from planner.run.catalogue import linear_percentile
from planner.run.columns import Columns, FrameColumns, by_worker, equal
from planner.run.tables import TABLES, Run, columns, frame
from planner.spec import config_root
from planner.spec.strict_yaml import read_value


def test_a_saved_run_is_what_pandas_writes(tmp_path: Path) -> None:
    """Nulls in every kind of column, texts that are not ASCII, empty texts, an empty table."""
    given = {
        "request_id": [3, 1, 2],
        "session_id": [0, 0, 1],
        "arrival_s": [0.0, float("nan"), 2.5],
        "prompt_tokens": [1, 2, 3],
        "cached_tokens": [None, 0, 7],
        "output_tokens": [1, 2, 3],
        "max_tokens": [1, 2, 10**18],
        "worker": ["prefill-0", None, "décode-1"],
        "error": ["", None, None],
    }
    for name, filled in ((name, given if name == "requests" else {}) for name in TABLES):
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        columns(name, filled).write_parquet(ours)
        frame(name, filled).to_parquet(theirs, index=False, compression="zstd")
        assert ours.read_bytes() == theirs.read_bytes(), name
        pd.testing.assert_frame_equal(columns(name, filled).frame(), frame(name, filled))


def test_frames_and_columns_say_the_same() -> None:
    run = planner.simulate("multi-turn-disagg")
    for name, schema in TABLES.items():
        arrays = run.columns(name)
        assert isinstance(arrays, Columns) and not isinstance(arrays, FrameColumns)
        table = FrameColumns(arrays.frame())
        assert len(table) == len(arrays)
        for column, dtype in schema.items():
            if dtype == "string":
                assert equal(table.texts(column), arrays.texts(column)).all()
            else:
                np.testing.assert_array_equal(table.floats(column), arrays.floats(column))
    steps = run.columns("steps")
    codes, names = by_worker(steps)
    assert [names[code] for code in codes] == list(run.steps["worker"])
    assert run.steps is run.steps  # made once: what is changed in it stays
    assert isinstance(run.columns("steps"), FrameColumns)


def test_a_column_that_is_missing_is_said() -> None:
    with pytest.raises(KeyError, match="request_id"):
        columns("requests", {"session_id": [1]})
    with pytest.raises(KeyError, match="unknown columns"):
        columns("steps", {"colour": [1]})
    with pytest.raises(TypeError):
        Run(frame("requests"))  # type: ignore[call-arg]
    made = Run(frame("requests"), frame("steps"), frame("samples"), frame("transfers"))
    assert len(made.columns("tokens")) == len(made.tokens) == 0


def test_percentiles_are_those_of_numpy() -> None:
    random = np.random.default_rng(1)
    for size in (*range(1, 40), 1000, 777):
        values = random.exponential(size=size) * 10.0 ** random.integers(-3, 4)
        for percent in (50, 90, 95, 99, 100):
            assert linear_percentile(np.sort(values), percent) == float(np.percentile(values, percent))


def test_shipped_files_read_alike_by_both_parsers() -> None:
    if not yaml.__with_libyaml__:
        pytest.skip("this PyYAML has no libyaml: one parser reads everything")
    for path in sorted(config_root().rglob("*.yaml")):
        text = path.read_text()
        quick, careful = (repr(read_value(text, path.name, ours)) for ours in (True, False))
        assert quick == careful, path


def test_simulate_starts_without_what_it_does_not_need() -> None:
    heavy = "pandas scipy altair streamlit plotly numpy.ma simpy"
    script = (
        "import sys; from planner import cli; code = cli.run(['simulate', 'disagg', '--no-save']); "
        f"print([name for name in {heavy.split()} if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
