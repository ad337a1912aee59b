"""Are the verdicts of `planner suggest` those of an exhaustive search? Forty questions, asked both ways.

    python benchmarks/parity.py ROWS [--questions 40] [--requests 400] [--seeds 3]     goes on where it was stopped
    python benchmarks/parity.py ROWS --count                                           what ROWS come to

The exhaustive way searches every candidate to the same width of bracket (nobody leaves a race), the knobs of every
candidate on whole lists, and runs every seed of all candidates within 20 % of the best of their mode to the end of
their search; no run is shorter than its period. Both ways are asked without *what would change it*, which says nothing
about the word. ROWS gets a line of JSON for each question.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from traffic import TRAFFIC

from planner import load
from planner.spec import Spec, SpecError, dump, parse
from planner.suggestion import race, suggest, tasks
from planner.suggestion.answer import Suggestion, best_of
from planner.suggestion.search import Found
from planner.suggestion.words import pick

KINDS = ("3000/100", "512/256", "page's chat", "bursts", "8000/100")
TARGETS = ((1000, 30), (300, 12))
SETTINGS = (("llama-3.1-8b", "h200"), ("qwen2.5-7b", "h100"))
GPUS = (2, 4)


def questions() -> Iterator[tuple[dict[str, Any], Spec]]:
    """(what is asked, as a spec), 40 of them; neighbours differ in all but the model."""
    for model, hardware in SETTINGS:
        for gpus in GPUS:
            for ttft_ms, tpot_ms in TARGETS:
                for name in KINDS:
                    cell = {"model": model, "hardware": hardware, "gpus": gpus, "traffic": name, "ttft_ms": ttft_ms,
                            "tpot_ms": tpot_ms}  # fmt: skip
                    data: dict[str, Any] = yaml.safe_load(dump(load("disagg")))
                    data |= {
                        "model": model,
                        "hardware": hardware,
                        "workload": {"rate": 8, **TRAFFIC[name]},
                        "engine": {},
                    }
                    if (model, hardware) != SETTINGS[0]:
                        data.pop("profile", None)
                    changes = [f"slo.ttft_ms={ttft_ms}", f"slo.tpot_ms={tpot_ms}"]
                    yield cell, parse(yaml.safe_dump(data), "parity", changes)


@contextmanager
def exhaustive() -> Iterator[None]:
    """Searches in this process that leave nothing out."""
    whole = {
        (tasks, "shortened"): lambda period, rate, requests=0: period,
        (suggest, "shortened"): lambda period, rate, requests=0: period,
        (suggest, "halved"): lambda period: period,
        (suggest, "COARSE"): 0.01,
        (suggest, "NEAR"): 0.8,
        (suggest, "WITHIN"): 0.0,
        (suggest, "FINALISTS"): 1000,
        (race, "TIE"): 2.0,  # all that serve half of what the best of their mode does are run to their edge
        (race, "REFINED"): 0.0,
        (race, "DOUBT"): 1e9,
        (race, "leaders"): list,
    }
    with ExitStack() as stack:
        for (module, name), value in whole.items():
            stack.enter_context(patch.object(module, name, value))
        yield


@contextmanager
def without_changes() -> Iterator[None]:
    def nothing(*_: object) -> tuple[list[str], list[object]]:
        return [], []

    def start(task: Any) -> Any:
        return suggest.changes.Held(Found(task.start, 1.01 * task.start, ()), ())

    with (
        patch.object(suggest.changes, "tasks", nothing),
        patch.object(suggest.changes, "search_unchanged", start),
        patch.object(suggest.changes, "enough_link", lambda task: None),
    ):
        yield


def told(found: Suggestion, begun: float) -> dict[str, Any]:
    ours, theirs, verdict = best_of(found.rows, "disaggregated"), best_of(found.rows, "aggregated"), found.verdict
    gain = verdict and verdict.advantage
    return {
        "word": verdict and verdict.word,
        "pick": pick(found.rows, verdict).name,
        "splits": [ours and ours.name, theirs and theirs.name],
        "ratio": gain and [1 + gain.value, 1 + gain.low, 1 + gain.high],
        "cpu_s": round(time.process_time() - begun, 1),
    }


def ask(options: argparse.Namespace) -> None:
    done = {json.dumps(row["question"]) for row in read(options.rows)}
    for cell, spec in list(questions())[: options.questions]:
        if json.dumps(cell) in done:
            continue
        row: dict[str, Any] = {"question": cell}
        for way in ("default", "exhaustive"):
            with without_changes(), exhaustive() if way == "exhaustive" else ExitStack():
                begun = time.process_time()
                try:
                    found = suggest.suggest(
                        spec, cell["gpus"], seeds=options.seeds, requests=options.requests, processes=1
                    )
                    row[way] = told(found, begun)
                except SpecError as error:
                    row[way] = {"word": str(error), "splits": None, "ratio": None}
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count(rows: list[dict[str, Any]]) -> None:
    """What agrees: the word, both splits, and the ratio (each lies in the interval of the other)."""
    words = splits = ratios = opposite = 0
    for row in rows:
        quick, full = row["default"], row["exhaustive"]
        words += quick["word"] == full["word"]
        opposite += {quick["word"], full["word"]} == {"worth it", "not worth it"}
        splits += quick["splits"] == full["splits"]
        near = quick["ratio"] == full["ratio"] or (
            None not in (quick["ratio"], full["ratio"])
            and quick["ratio"][1] <= full["ratio"][0] <= quick["ratio"][2]
            and full["ratio"][1] <= quick["ratio"][0] <= full["ratio"][2]
        )
        ratios += near
        if quick["word"] != full["word"] or not near:
            print(json.dumps(row))
    spent = [math.fsum(row[way].get("cpu_s", 0.0) for row in rows) for way in ("default", "exhaustive")]
    print(
        f"{len(rows)} questions: word as in the exhaustive search {words}, opposite {opposite}, both splits {splits}, "
        f"ratio within both intervals {ratios}; {spent[0]:.0f} s of a processor against {spent[1]:.0f} s, "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", action="store_true")
    options = parser.parse_args()
    if not options.count:
        ask(options)
    count(read(options.rows))


if __name__ == "__main__":
    sys.exit(main())
