"""What the planner says of the loads of a plan before anybody serves them; evaluate.py's table is judged on it later.

    python benchmarks/gpu/predict.py budget-512 budget-1024 > predictions.json

Each load is simulated with the plan's own configuration, so with the shipped profile or the roofline.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from planner import simulate, summarise
from planner.report.printing import provenance
from planner.spec import load

SHOWN = ("ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "itl_p99_ms", "e2e_p50_ms", "requests_per_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="default: all of the plan")
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the plan's own")
    options = parser.parse_args()
    plan = yaml.safe_load(options.plan.read_text())
    found: dict[str, dict[str, dict[str, object]]] = {}
    for name in options.parts or plan:
        part = plan[name]
        for key, one in part["loads"].items():
            spec = load(part["config"], [*part["set"], f"workload={json.dumps(one)}", *options.set])
            summary = summarise(simulate(spec))
            values = {metric: summary[metric] for metric in SHOWN}
            rounded = {metric: None if value is None else round(value, 3) for metric, value in values.items()}
            found.setdefault(name, {})[str(key)] = {**rounded, "provenance": provenance(summary)}
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
