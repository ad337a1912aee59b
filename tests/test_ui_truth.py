"""One truth: every figure of every page and of the report is that of `planner suggest --json` for the same file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner import charts
from planner.report.html import suggestion_report
from planner.report.words import number
from planner.spec import dump, parse
from planner.ui import compute, deploy
from planner.ui.answer import command
from planner.ui.lead import options
from planner.ui.scenario import Scenario, read
from ui_pages import SMALL, page, small_machine  # noqa: F401 (small_machine is a fixture of every test here)

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS: dict[str, dict[str, str]] = {
    "chat": {"gpus": "3"},
    "code": {"traffic": "code", "prompt": "2048", "output": "28", "ttft_ms": "300", "tpot_ms": "20"},
    "more than two serve": {"rate": "150"},
}


def told(asked: Scenario, folder: Path) -> dict[str, Any]:
    """What the command that the page offers to copy prints as JSON."""
    (folder / "question.yaml").write_text(dump(asked.spec()))
    done = subprocess.run(
        [sys.executable, "-m", "planner.cli", *command(asked).split()[1:], "--processes", "1", "--json"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", QUESTIONS)
def test_pages_report_and_command_say_the_same(name: str, tmp_path: Path) -> None:
    params = {**SMALL, "rate": "4", **QUESTIONS[name]}
    asked, faults = read(params)
    assert faults == []
    app = page("answer", **params)
    assert not app.exception
    found = compute.known(asked)
    assert found is not None
    said = told(asked, tmp_path)
    rates = {one["name"]: (one["rate"], one["low"], one["high"]) for one in said["candidates"]}

    # Bars, the ratio and the trade-off are drawn from the answer's rows.
    bars = charts.split_table(found, most=99)
    assert {row["name"]: (row["rate"], row["low"], row["high"]) for row in bars.to_dict("records")} == rates
    ratio = charts.ratio_table(found)
    assert {row["name"]: (row["rate"], row["low"], row["high"]) for row in ratio.to_dict("records")} == {
        name: value for name, value in rates.items() if "agg" not in name
    }
    assert [(point.name, point.rate) for point in found.pareto] == [(p["name"], p["rate"]) for p in said["pareto"]]

    # A curve crosses the target where its candidate's search ends: its runs are those that the bar is judged by.
    made = compute.curves_of(found, asked.spec())
    for row, table in made.values():
        passed = table[table["attainment"] >= found.slo.attainment]["rate"]
        judged = {probe.rate: probe.attainment for probe in row.searches[0].probes}
        assert passed.max() == pytest.approx(row.searches[0].rate, abs=table["rate"].diff().max())  # one of its steps
        # Rough rows were searched by runs that each began at the pace which the one before had told.
        for rate, attainment in zip(table["rate"], table["attainment"], strict=True) if row.refined else ():
            assert judged.get(rate, attainment) == pytest.approx(attainment)

    # The report has the same rates, and the pages the same sentence.
    rate = compute.rate_of(asked.spec())
    assert rate is not None
    report = suggestion_report(found, compute.summary_of(found.yaml, rate), rate, str, made)
    for value, *_ in rates.values():
        assert f"<td>{number(value)}</td>" in report
    verdict = said["answer"].removesuffix(said["provenance"]).strip()
    assert verdict in report
    assert verdict in "\n".join(str(one.value) for one in app.markdown)

    # The lead counts as the command counts, and what is deployed is what was answered.
    counted = said["smallest"]["gpus"]
    if found.smallest is not None and found.smallest.gpus is not None:
        assert counted == found.smallest.gpus
    elif found.smallest is not None:  # the page counts the GPUs that there are
        assert counted is None or counted > found.smallest.limit
    head = str(app.subheader[0].value)
    if counted is None or counted > asked.gpus:
        assert "cannot be served" in head
    else:
        assert f"needs {said['smallest']['gpus']} GPU" in head
        assert options(asked, found, rate)[0].gpus == said["smallest"]["gpus"]
    assert found.yaml == said["yaml"]
    assert parse(deploy.whole(parse(found.yaml))) == parse(found.yaml)
