"""axe-core over every page in headless Chromium, in both themes and languages: what it finds of serious impact.

    python scripts/accessibility.py [--axe axe.min.js] [--pages ask,answer] [--themes light,dark] [--languages en,zh]

Of axe-core only axe.min.js is needed: that of axe-playwright-python, unless another one is named. Exit 1: something was
found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from screenshots import PAGES, PATIENCE_S, browser, server, settle

AXE = Path(str(files("axe_playwright_python") / "axe.min.js"))
WEIGHTY = ("serious", "critical")
QUESTION = "gpus=2&requests=60&seeds=1"  # one that is answered soon


@dataclass(frozen=True, slots=True)
class Finding:
    where: str  # page, theme and language
    rule: str
    impact: str
    help: str
    nodes: tuple[str, ...]  # the first few, and what is wrong with them

    def __str__(self) -> str:
        return f"{self.where}: {self.rule} ({self.impact}): {self.help}\n" + "".join(
            f"    {one}\n" for one in self.nodes
        )


def _node(node: dict[str, Any]) -> str:
    return f"{' '.join(node['html'].split())[:140]} · {' '.join(node['failureSummary'].split())[:200]}"


def findings(page: Any, axe: Path, where: str) -> list[Finding]:
    """What axe-core finds of serious impact on the page as it stands."""
    page.add_script_tag(path=str(axe))
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        Finding(where, one["id"], one["impact"], one["help"], tuple(map(_node, one["nodes"][:5])))
        for one in found["violations"]
        if one["impact"] in WEIGHTY
    ]


def walk(
    chrome: Any, url: str, axe: Path, pages: list[str], themes: list[str], languages: list[str], query: str = QUESTION
) -> Iterator[Finding]:
    """Every page in every theme and language. `url`: of a server that runs."""
    for theme in themes:
        context = chrome.new_context(viewport={"width": 1440, "height": 900}, color_scheme=theme, locale="en-US")
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        for language in languages:
            for name in pages:
                page.goto(f"{url}/{'' if name == 'ask' else name}?{urlencode({'lang': language})}&{query}")
                settle(page)
                yield from findings(page, axe, f"{name}, {theme}, {language}")
        context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axe", type=Path, default=AXE, help="axe.min.js")
    for name, default in (("pages", ",".join(PAGES)), ("themes", "light,dark"), ("languages", "en,zh")):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--url", help="a server that runs already")
    options = parser.parse_args()
    lists = [getattr(options, name).split(",") for name in ("pages", "themes", "languages")]
    found = 0
    with server() if options.url is None else nullcontext(options.url) as url, browser() as chrome:
        for one in walk(chrome, url, options.axe, *lists):
            found += 1
            print(one, flush=True)
    print(f"{found} of serious impact")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
