"""A measured run warns of what it measured with; doubts about predicted step times stand beside the prediction."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")

from fake_engine import FakeEngine
from planner import cli


@pytest.fixture
def engine() -> Iterator[str]:
    """The address of a fake engine in a thread of its own."""
    ready, stop = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with FakeEngine(ttft_s=0.01, itl_s=0.001) as fake:
            found.append(fake.url)
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    stop.set()
    thread.join(30)


def test_only_the_prediction_doubts_its_profile(engine: str, tmp_path: Path) -> None:
    """Two CPU workers of one host on a roofline: the simulation does not know how they slow each other."""
    out = tmp_path / "run"
    sets = ["deployment.replicas=2", "workload.requests=8", "workload.rate=20", "optimizations.decode.key_only=true"]
    words = ["live", "cpu-agg", "--endpoint", engine, "--endpoint", engine, "--validate", "--out", str(out)]
    assert cli.run([*words, *(word for text in sets for word in ("--set", text))]) == 0
    measured = json.loads((out / "manifest.json").read_text())["warnings"]
    predicted = json.loads((out / "simulated" / "manifest.json").read_text())["warnings"]
    assert not [text for text in measured if "profile" in text or "roofline" in text]
    assert [text for text in predicted if "does not say how they slow each other" in text]
    assert [text for text in measured if "changes what the model answers" in text]
