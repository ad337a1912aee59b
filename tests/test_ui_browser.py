"""A newcomer's walk in a real Chromium: ask, answer, check against servers that run, reload in the middle, parity."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.browser


def _shots() -> ModuleType:
    """scripts/screenshots.py: the server, the browser and how to wait are the same."""
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "scripts" / "screenshots.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["screenshots"] = module
    spec.loader.exec_module(module)
    return module


shots = _shots()
if shots.chromium() is None:
    pytest.skip("no Chromium here (apt-get install chromium)", allow_module_level=True)
if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed (pip install playwright)", allow_module_level=True)
if importlib.util.find_spec("aiohttp") is None:
    pytest.skip("aiohttp is not installed: nothing can be sent to a server", allow_module_level=True)


@pytest.fixture
def engine() -> Iterator[str]:
    """The address of a fake engine of known speed, in a thread of its own."""
    from fake_engine import FakeEngine

    ready, stop = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with FakeEngine(ttft_s=0.05, itl_s=0.01) as fake:
            found.append(fake.url)
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    stop.set()
    thread.join(30)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Any]:
    with shots.server(tmp_path) as url, shots.browser() as chrome:
        page = chrome.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(180_000)
        page.goto(f"{url}/?gpus=2&requests=60&seeds=1")
        shots.settle(page)
        yield page


def test_from_question_to_checked_answer(tab: Any, engine: str) -> None:
    tab.get_by_role("button", name="Answer", exact=False).last.click()
    tab.wait_for_url(re.compile("/answer"))
    shots.settle(tab)
    assert re.search(r"serves? \S+ req/s within the targets", tab.inner_text('[data-testid="stMain"]'))
    assert "gpus=2" in tab.url

    tab.get_by_role("button", name="Check it for real").click()
    tab.wait_for_url(re.compile("/check"))
    shots.settle(tab)
    tab.get_by_text("On servers that run already").click()
    box = tab.get_by_label("Addresses, one a line")
    box.fill(engine)
    box.press("Control+Enter")
    tab.get_by_label("Requests", exact=True).fill("20")
    tab.get_by_label("Requests", exact=True).press("Enter")
    start = tab.get_by_role("button", name="Start the check")
    start.wait_for()
    tab.wait_for_function("() => [...document.querySelectorAll('button')]"
                          ".some(b => b.innerText.includes('Start the check') && !b.disabled)")  # fmt: skip
    start.click()
    tab.get_by_text("A check is running").wait_for()

    tab.reload()  # in the middle: the run goes on without the page
    tab.get_by_text("A check is running").or_(tab.get_by_text("against measured over 20 requests")).first.wait_for()
    tab.get_by_text("against measured over 20 requests").first.wait_for()
    tab.get_by_text("Each point is a request").first.wait_for()
    shots.settle(tab)
    assert tab.locator('[data-testid="stVegaLiteChart"]').count() >= 3
    folder = os.environ.get("PLANNER_SHOTS")
    if folder:
        shots.shoot(tab, Path(folder) / "checked.png")


def test_both_themes_draw_their_charts(tab: Any) -> None:
    tab.emulate_media(color_scheme="dark")
    tab.goto(tab.url.split("/?")[0] + "/replay?lang=zh")
    shots.settle(tab)
    assert tab.locator('[data-testid="stVegaLiteChart"]').count() >= 4
    assert "回放" in tab.inner_text('[data-testid="stMain"]')
    assert tab.locator('[data-testid="stException"]').count() == 0
