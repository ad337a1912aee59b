"""Screenshots of every page in headless Chromium, for docs/walkthrough.md and for a look after a change.

    python scripts/screenshots.py [--out docs/screens] [--pages ask,answer] [--themes light,dark] [--languages en,zh]
                                  [--widths 1440,800]
    python scripts/screenshots.py --again          the pictures that docs/screens holds, as the pages are now

Needs `pip install playwright` and a Chromium on the PATH (or CHROMIUM=/path); no browser is downloaded. Chinese needs a
font that has it, such as Noto Sans CJK.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from PIL import Image  # comes with streamlit

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("ask", "answer", "why", "deploy", "check", "replay", "watch", "workbench")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
PATIENCE_S = 1200  # a busy host


def chromium() -> str | None:
    """A Chromium that is installed here."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def server(folder: Path | None = None, **environment: str) -> Iterator[str]:
    """`streamlit run app.py` on a free port of 127.0.0.1, stopped at the end. `folder`: where it runs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port)]
    command += [
        "--server.address",
        "127.0.0.1",
        "--server.headless",
        "true",
        "--server.fileWatcherType",
        "none",
        "--browser.gatherUsageStats",
        "false",
    ]
    started = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(
        command, cwd=folder or ROOT, env=started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urlopen(f"{url}/_stcore/health", timeout=5):
                    break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError("streamlit did not start") from None
                time.sleep(0.3)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # in the middle of an answer
            process.kill()
            process.wait()


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium with a fresh profile."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    if path is None:
        raise RuntimeError("no Chromium found; install one, or name it in CHROMIUM")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


def settle(page: Any) -> None:
    """Wait until the page has run and its charts are drawn."""
    page.wait_for_selector('[data-testid="stAppViewContainer"] h1', timeout=PATIENCE_S * 1000)
    page.wait_for_timeout(700)
    page.wait_for_function(
        """() => document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning'
              && !document.querySelector('[data-testid="stSpinner"]')
              && !document.querySelector('[data-testid*="keleton"]')
              && !document.querySelector('[data-testid="stProgress"]')""",
        timeout=PATIENCE_S * 1000,
    )
    page.wait_for_function(
        """() => [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')]
              .every(chart => chart.querySelector('canvas,svg'))""",
        timeout=PATIENCE_S * 1000,
    )
    page.wait_for_timeout(1500)


def shoot(page: Any, file: Path) -> None:
    """The whole page, not only what fits the window."""
    height = page.evaluate("() => document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    width = page.viewport_size["width"]
    page.set_viewport_size({"width": width, "height": max(700, min(4000, int(height) + 80))})
    page.wait_for_timeout(600)
    page.screenshot(path=str(file))
    with Image.open(file) as picture:  # 256 colours are enough for a page, at a third of the size; rare ones are kept
        picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screens")
    for name, default in (("pages", ",".join(PAGES)), ("themes", "light,dark"), ("languages", "en,zh"),
                          ("widths", "1440,800")):  # fmt: skip
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--query", default="", help="more of the address, as in gpus=4&requests=100")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--again", action="store_true", help="what --out holds already, and nothing else")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [
        (theme, int(width), language, name)
        for theme in options.themes.split(",")
        for width in options.widths.split(",")
        for language in options.languages.split(",")
        for name in options.pages.split(",")
    ]
    if options.again:
        wanted = [one for one in wanted if (options.out / _file(*one)).is_file()]
    with server() if options.url is None else _running(options.url) as url, browser() as chrome:
        for (theme, width), those in groupby(wanted, key=itemgetter(0, 1)):
            size = {"width": width, "height": 900}
            context = chrome.new_context(viewport=size, color_scheme=theme, locale="en-US")
            page = context.new_page()
            page.set_default_timeout(PATIENCE_S * 1000)
            for one in those:
                language, name = one[2:]
                query = urlencode({"lang": language}) + (f"&{options.query}" if options.query else "")
                page.set_viewport_size(size)
                place = "" if name == "ask" else name  # the first page has no name of its own
                page.goto(f"{url}/{place}?{query}")
                settle(page)
                file = options.out / _file(*one)
                shoot(page, file)
                print(file, flush=True)
            context.close()


def _file(theme: str, width: int, language: str, name: str) -> str:
    return f"{name}-{theme}-{language}-{width}.png"


@contextmanager
def _running(url: str) -> Iterator[str]:
    yield url


if __name__ == "__main__":
    main()
