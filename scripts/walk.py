"""A walk in headless Chromium: six traffic cards and three hard questions, each from its first page to its answer.

    python scripts/walk.py [--out walk] [--questions chat,moe] [--short]

Prints the seconds from the click to the first sentence and to the answer. Every question has a window, language and
theme of its own, and is opened again in another one: together they cover 390, 800 and 1440 pixels, English and
Chinese, light and dark. Exit 1: a page scrolls sideways, the button is out of sight, or a page broke.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from screenshots import PATIENCE_S, ROOT, browser, server, settle, shoot

CARDS = ("chat", "rag", "code", "writing", "agents", "trace")  # clicked on the page
HARD = {
    "70b": {"model": "llama-3.1-70b", "gpus": "1"},
    "moe": {"model": "mixtral-8x7b", "gpus": "4"},
    "overload": {"gpus": "1", "prompt": "6000", "rate": "20"},
}
SHORT = {"gpus": "2", "requests": "60", "seeds": "1"}  # answered soon: for the looks of the pages, not for the times
VIEWS = tuple(product((390, 800, 1440), ("en", "zh"), ("light", "dark")))
HEIGHTS = {390: 844, 800: 900, 1440: 900}
MAIN = '[data-testid="stMain"]'
BUTTON = ".st-key-ask_button button"
REFUSED = ".st-key-answer_bar [data-testid=stAlert]"  # in the place of the button: why there can be no answer
SENTENCE = f"{MAIN} h3, {MAIN} [data-testid=stAlert]"  # the answer's sentence, or why there is none


@dataclass(frozen=True, slots=True)
class View:
    width: int  # pixels
    language: str
    theme: str

    def __str__(self) -> str:
        return f"{self.theme}-{self.language}-{self.width}"


@dataclass(frozen=True, slots=True)
class Walked:
    question: str
    view: View
    first_s: float  # from the click on Answer to the first sentence
    answer_s: float  # and to the answer that stays
    said: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        times = f"first sentence {self.first_s:5.1f} s, answer {self.answer_s:6.1f} s"
        lines = [f"{self.question:9} {self.view!s:14} {times}  load {os.getloadavg()[0]:.1f}  {self.said}"]
        return "\n".join([*lines, *(f"    {fault}" for fault in self.faults)])


def views(place: int) -> tuple[View, View]:
    """In which two views a question is opened; nine questions see all twelve."""
    return View(*VIEWS[5 * place % len(VIEWS)]), View(*VIEWS[(5 * place + 9) % len(VIEWS)])


def faults(page: Any, button: str | None = None) -> Iterator[str]:
    """What is wrong with the looks of a page. `button`: what has to be in sight."""
    wide = page.evaluate(f"() => {{const m = document.querySelector('{MAIN}'); return m.scrollWidth - m.clientWidth}}")
    if wide > 0:
        yield f"scrolls sideways by {wide} pixels"
    if page.locator('[data-testid="stException"]').count():
        yield "an exception on the page"
    if button is not None:
        box, size = page.locator(button).bounding_box(), page.viewport_size
        if box is None or box["y"] < 0 or box["y"] + box["height"] > size["height"] or box["x"] < 0:
            yield f"{button} is out of sight: {box}"


def walk(chrome: Any, url: str, name: str, view: View, out: Path, more: dict[str, str]) -> Walked:
    """One question in one view. `more`: of the address."""
    size = {"width": view.width, "height": HEIGHTS[view.width]}
    context = chrome.new_context(viewport=size, color_scheme=view.theme, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(f"{url}/?{urlencode({'lang': view.language, **more, **HARD.get(name, {})})}")
    settle(page)
    if name in CARDS:
        page.locator(f".st-key-card_{name} button").click()
        settle(page)
    refused = page.locator(REFUSED)
    found = [f"ask: {one}" for one in faults(page, REFUSED if refused.count() else BUTTON)]
    page.screenshot(path=str(out / f"{name}-ask-{view}.png"))
    if refused.count():  # before the click
        said = " ".join(refused.inner_text().split())
        context.close()
        return Walked(name, view, 0.0, 0.0, said, tuple(found))
    begun_s = time.monotonic()
    page.locator(BUTTON).click()
    page.wait_for_url("**/answer*")
    page.locator(SENTENCE).first.wait_for()
    first_s = time.monotonic() - begun_s
    page.wait_for_function(
        """() => document.querySelector('[data-testid="stApp"]').dataset.testScriptState === 'notRunning'
              && !document.querySelector('[data-testid="stProgress"]')"""
    )
    answer_s = time.monotonic() - begun_s
    settle(page)
    found += [f"answer: {one}" for one in faults(page)]
    said = " ".join(page.locator(SENTENCE).first.inner_text().split())
    shoot(page, out / f"{name}-answer-{view}.png")
    context.close()
    return Walked(name, view, first_s, answer_s, said, tuple(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "walk", help="where pictures go")
    parser.add_argument("--questions", default=",".join((*CARDS, *HARD)))
    parser.add_argument("--short", action="store_true", help="short lists on few GPUs: the looks, not the times")
    parser.add_argument("--url", help="a server that runs already")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen, found = options.questions.split(","), 0
    with server() if options.url is None else nullcontext(options.url) as url, browser() as chrome:
        for again in (0, 1):  # the second time the answer is known
            for place, name in enumerate((*CARDS, *HARD)):
                if name in chosen:
                    walked = walk(chrome, url, name, views(place)[again], options.out, SHORT if options.short else {})
                    found += len(walked.faults)
                    print(walked, flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
