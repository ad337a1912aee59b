"""Writes docs/metrics.md from the catalogue; with --check it only says whether the page is current."""

from __future__ import annotations

import sys
from pathlib import Path

from planner.metrics import METRICS, Metric

PAGE = Path(__file__).with_name("metrics.md")
HEAD = """# Metrics

Written by `python docs/make_metrics.py` from the catalogue that the program itself uses; do not edit. The names are
those of `--json` and of the comparison tables; a metric that a run cannot show is null there. Words are explained in
[glossary.md](glossary.md).

| name | what it is | unit | better |
|---|---|---|---|
"""


def row(metric: Metric) -> str:
    better = "" if metric.better == "none" else metric.better
    return f"| `{metric.name}` | {metric.help.replace('|', chr(92) + '|')} | {metric.unit} | {better} |\n"


def page() -> str:
    return HEAD + "".join(row(metric) for metric in METRICS.values())


if __name__ == "__main__":
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.is_file() or PAGE.read_text() != text:
        sys.exit(f"{PAGE.name} is not what the catalogue says; run: python docs/make_metrics.py")
