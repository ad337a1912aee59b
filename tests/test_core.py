"""The compiled core is what the sources say, and is used only while it is."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from planner import core
from planner.spec import load
from planner.system.resolve import resolve
from planner.traffic.requests import Request
from simulator.compile import MODULES


def test_every_module_of_the_simulator_is_compiled_or_named_here(root: Path) -> None:
    there = {str(path.relative_to(root)) for path in root.glob("simulator/*.py")}
    once = {f"simulator/{name}.py" for name in ("__init__", "backend", "compile", "processes")}
    assert there - set(MODULES) == once
    assert all((root / name).is_file() for name in MODULES)


def test_compiled_modules_of_other_sources_are_not_used(tmp_path: Path) -> None:
    assert not core.look(tmp_path).compiled
    stamp = tmp_path / core.CHECKSUMS
    stamp.write_text(core.checksums(MODULES))
    assert core.look(tmp_path) == core.Core(True, core.PLATFORM)
    for edited in ("simulator/worker.py", "simulator/gone.py"):
        line = core.checksums(["simulator/worker.py"])
        other = line.replace(line[0], "0" if line[0] != "0" else "1", 1).replace("simulator/worker.py", edited)
        stamp.write_text(stamp.read_text() + other)
        found = core.look(tmp_path)
        assert not found.compiled
        assert found.stale
        assert "simulator/worker.py has changed" in found.why or "simulator/gone.py has changed" in found.why
        stamp.write_text(core.checksums(MODULES))


def test_a_request_survives_pickling() -> None:
    request = Request(1, 2, 30, 4, 5, ((7, 30),), 30, -1, documents=(3,))
    assert pickle.loads(pickle.dumps(request)) == request


@pytest.mark.parametrize("config", ["disagg", "cpu-1p1d"])
def test_a_system_survives_pickling(config: str) -> None:
    """It goes to other nodes of a Ray cluster."""
    system = resolve(load(config))
    again = pickle.loads(pickle.dumps(system))
    for pool, other in zip(system.pools, again.pools, strict=True):
        assert other.limits == pool.limits
        assert other.profile.host == pool.profile.host
        assert other.profile.step.decode(7) == pool.profile.step.decode(7)
    assert again.spec == system.spec


def test_both_cores_fill_the_same_tables(root: Path) -> None:
    if not core.look(core.FOLDER).compiled:
        pytest.skip("the core is not compiled here: python -m simulator.compile")

    def told(**more: str) -> tuple[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != "PLANNER_INTERPRETED"} | more
        command = [sys.executable, str(root / "tests/core_cases.py"), "24"]
        done = subprocess.run(
            command, env=environment | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
        )
        return done.stderr.split()[0], done.stdout

    one, other = told(), told(PLANNER_INTERPRETED="1")
    assert (one[0], other[0]) == ("compiled", "interpreted")
    assert len(one[1].splitlines()) == 24
    assert one[1] == other[1]
