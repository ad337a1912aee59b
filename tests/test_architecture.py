"""The import direction, held by import-linter; the contracts are in pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_imports_go_down_only(root: Path) -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("heavy", ["pandas", "scipy", "simpy", "streamlit", "vllm", "torch", "aiohttp"])
def test_the_command_line_starts_without_heavy_modules(heavy: str) -> None:
    code = f"import sys, planner.cli; sys.exit({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"importing planner.cli imports {heavy}\n{done.stderr}"
