"""How far off the law of today is for the four budgets that one H200 served: the loads of `budget-*` in plan.yaml.

    python benchmarks/gpu/budgets.py [--profile NAME] [--set KEY=VALUE]

Prints a table of errors, predicted against measured in %. What was measured is the table of predictions/README.md,
which has it to two or three digits: the runs themselves were not kept. Where its first column of errors is of the
committed predictions, it is checked against them, so that a wrong row cannot pass unseen.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from planner import simulate, summarise
from planner.report.printing import provenance
from planner.spec import load

HERE = Path(__file__).parent
METRICS = ("ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "e2e_p50_ms")
BUDGETS = (512, 1024, 2048, 8192)
# | 512 | 3000/100 at 8 req/s | 207 / 591 / 11.4 / 15.4 / 1,380 | +779 / +702 / +124 / +66 / +215 | ...
ROW = re.compile(r"^\| (\d+) \| (\d+)/\d+ at \d+(?: req/s)? \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
SAME_PERCENT = 0.04  # two errors of one row that differ by this share of what was predicted are the same: digits


def numbers(cell: str) -> tuple[float, ...]:
    return tuple(float(one.replace(",", "")) for one in cell.split("/"))


def errors(predicted: tuple[float, ...], measured: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(100 * (one / other - 1) for one, other in zip(predicted, measured, strict=True))


def measured() -> dict[tuple[int, str], tuple[float, ...]]:
    """What was measured of each budget and load, in ms."""
    committed = json.loads((HERE / "predictions/2026-11-29.json").read_text())
    found: dict[tuple[int, str], tuple[float, ...]] = {}
    for budget, prompt, values, first in ROW.findall((HERE / "predictions/README.md").read_text()):
        values_ms = numbers(values)
        foretold = committed[f"budget-{budget}"][prompt]
        ours = errors(tuple(foretold[metric] for metric in METRICS), values_ms)
        for said, seen in zip(numbers(first), ours, strict=True):
            if abs(said - seen) > SAME_PERCENT * (100 + seen):
                sys.exit(f"budget {budget}, {prompt}: the table says {said:+g} %, the committed file {seen:+.1f} %")
        found[int(budget), prompt] = values_ms
    if len(found) != 2 * len(BUDGETS):
        sys.exit(f"predictions/README.md has {len(found)} rows of budgets, not {2 * len(BUDGETS)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="instead of that of the plan's configuration")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the plan's own")
    options = parser.parse_args()
    profile = [f"profile={options.profile}"] if options.profile else []
    plan, served = yaml.safe_load((HERE / "plan.yaml").read_text()), measured()
    origin = ""
    lines = []
    for budget in BUDGETS:
        part = plan[f"budget-{budget}"]
        for key, one in part["loads"].items():
            spec = load(part["config"], [*part["set"], f"workload={json.dumps(one)}", *profile, *options.set])
            summary = summarise(simulate(spec))
            origin = provenance(summary)
            off = errors(tuple(summary[metric] for metric in METRICS), served[budget, str(key)])
            cells = " / ".join(f"{value:+.0f}" for value in off)
            lines.append(
                f"| {budget} | {one['prompt_tokens']}/{one['output_tokens']} at {one['rate']:g} req/s | {cells} |"
            )
    print(f"{origin} TTFT p50 / p99, TPOT p50 / p99, E2E p50, predicted against measured in %:\n")
    print("| budget | load | error |\n|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
