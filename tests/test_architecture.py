"""The import direction, held by import-linter; the contracts are in pyproject.toml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


def test_imports_go_down_only(root: Path) -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_its_layer(root: Path) -> None:
    """A new module of planner is written into the layers of pyproject.toml, else nothing would hold it in its place."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    layers = " ".join(project["tool"]["importlinter"]["contracts"][0]["layers"])
    named = set(re.findall(r"planner\.(\w+)", layers))
    there = {
        path.stem for path in (root / "planner").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert there - named == {"__init__"}


def test_no_modules_import_each_other(root: Path) -> None:
    """Circles of any length; imports inside functions and those for annotations count."""
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed")
    graph = grimp.build_graph("planner", "simulator", "live", cache_dir=None)
    below = {module: graph.find_upstream_modules(module) for module in graph.modules}
    assert sorted(module for module, imported in below.items() if any(module in below[one] for one in imported)) == []


HEAVY = ["pandas", "scipy", "simpy", "streamlit", "vllm", "torch", "aiohttp"]


def test_the_command_line_starts_without_heavy_modules() -> None:
    code = f"import sys, planner.cli, planner.commands; print(*(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], "importing planner.cli imports these"
