"""One page of the UI by itself, on a machine that is made small, for the tests of pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from planner.commands import doctor
from planner.ui import compute

SMALL = {"gpus": "2", "requests": "60", "seeds": "1"}
HANGS_S = 1200.0  # a page that takes longer hangs; no host is so slow


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One process, no GPU, and a folder of its own for runs."""
    # AppTest leaves its script there, and every process that a later test starts would run it first
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(compute, "PROCESSES", 1)
    monkeypatch.setattr(doctor, "nvidia_gpus", lambda: ())
    monkeypatch.chdir(tmp_path)


def page(name: str, **params: str) -> AppTest:
    """One page by itself, run once."""
    return opened(name, **params).run()


def opened(name: str, **params: str) -> AppTest:
    """One page by itself, not run yet."""
    text = f"from planner.ui.frame import begin\nbegin()\nfrom planner.ui import {name}\n{name}.page()\n"
    app = AppTest.from_string(text, default_timeout=HANGS_S)
    for key, value in {**SMALL, **params}.items():
        app.query_params[key] = value
    return app
