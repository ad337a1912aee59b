"""Writes what the documents repeat from the program: docs/metrics.md and the outputs that README.md shows.

With --check it changes nothing and says whether they are current; of an output only its first line, the answer, counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from planner.metrics import METRICS, Metric

ROOT = Path(__file__).resolve().parent.parent
METRICS_PAGE = ROOT / "docs" / "metrics.md"
README = ROOT / "README.md"
HEAD = """# Metrics

Written by `python docs/generate.py` from the catalogue that the program itself uses; do not edit. The names are those
of `--json` and of the comparison tables; a metric that a run cannot show is null there. Words are explained in
[glossary.md](glossary.md).

| name | what it is | unit | better |
|---|---|---|---|
"""
# <!-- output: planner simulate X --> and the block behind it
SHOWN = re.compile(r"(<!-- output: (planner [^\n]*) -->\n)(?:\n```text\n(.*?)```\n)?", flags=re.DOTALL)


def row(metric: Metric) -> str:
    better = "" if metric.better == "none" else metric.better
    return f"| `{metric.name}` | {metric.help.replace('|', chr(92) + '|')} | {metric.unit} | {better} |\n"


def metrics_page() -> str:
    return HEAD + "".join(row(metric) for metric in METRICS.values())


def printed(command: str) -> str:
    """What a planner command prints on a terminal of 100 columns, without the line that names the run folder."""
    arguments = command.split()[1:]
    with tempfile.TemporaryDirectory() as folder:
        code = "import sys; from planner.cli import main; main(sys.argv[1:])"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--out", f"{folder}/run"],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    lines = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("Run: ")]
    return "\n".join(lines).strip() + "\n"


def stale() -> list[str]:
    """What --check finds."""
    found = []
    if not METRICS_PAGE.is_file() or METRICS_PAGE.read_text() != metrics_page():
        found.append("docs/metrics.md is not what the catalogue says")
    for _, command, output in SHOWN.findall(README.read_text()):
        if output.partition("\n")[0] != printed(command).partition("\n")[0]:
            found.append(f"README.md shows another answer than `{command}` gives")
    return found


def write() -> None:
    METRICS_PAGE.write_text(metrics_page())
    README.write_text(SHOWN.sub(lambda match: f"{match[1]}\n```text\n{printed(match[2])}```\n", README.read_text()))


if __name__ == "__main__":
    if "--check" not in sys.argv:
        write()
    elif faults := stale():
        sys.exit("\n".join([*faults, "run: python docs/generate.py"]))
