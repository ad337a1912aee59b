"""Seconds from the first click on *Answer* to the first sentence, in a real Chromium, for each kind of traffic.

    python benchmarks/first_answer.py            every question as it is prefilled, on an idle machine

The page has been open for some seconds, as for somebody who reads it before clicking. Needs Chromium and playwright.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "scripts")]

import screenshots as shots  # noqa: E402

from planner.ui.scenario import CARDS  # noqa: E402

READING_S = 8.0
SENTENCE = re.compile(r"serves? \S+ req/s within the targets|no .* meets the targets", re.IGNORECASE)


def main() -> None:
    for card in CARDS.values():
        with tempfile.TemporaryDirectory() as folder, shots.server(Path(folder)) as url, shots.browser() as chrome:
            page = chrome.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(url)
            shots.settle(page)
            page.get_by_role("button", name=card.title).click()
            shots.settle(page)
            time.sleep(READING_S)
            begun = time.monotonic()
            page.get_by_role("button", name="Answer", exact=False).last.click()
            page.get_by_text(SENTENCE).first.wait_for()
            first = time.monotonic() - begun
            print(f"{card.title}: {first:.1f} s  {page.get_by_text(SENTENCE).first.inner_text()}", flush=True)


if __name__ == "__main__":
    main()
