"""Settings and fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# `ci` draws the same examples every time; a developer's runs explore. No deadline: machines are shared.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `live` need a real vLLM; where there is none they are skipped, saying so.

    With `-n 2 --dist loadgroup`, those that start engines or a browser follow each other on one worker.
    """
    for item in items:
        if "live" in item.keywords or "browser" in item.keywords:
            item.add_marker(pytest.mark.xdist_group("engines"))
    if importlib.util.find_spec("vllm") is not None:
        return
    missing = pytest.mark.skip(
        reason="vllm is not installed (GPU: pip install '.[live]'; CPU: python -m live.install_cpu)"
    )
    for item in items:
        if "live" in item.keywords:
            item.add_marker(missing)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Large optional measurements beside the repository; a test that needs them is skipped where they are absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"optional data folder {folder} is absent")
    return folder
