"""Recorded open loads of pairs and replicas, each predicted with a shipped profile: errors in percent.

    python benchmarks/hand_over_loads.py FOLDER [--profile NAME] [--link NAME]

FOLDER holds a folder a deployment (pair-pull, pair-push, pair-agg), each with its runs. `--link`: the preset of pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from planner import simulate, summarise
from planner.run.tables import Run
from planner.spec import parse

METRICS = ("ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "e2e_p50_ms", "output_tokens_per_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", default="h200-llama-3.1-8b-tp1-served")
    parser.add_argument("--link", default="nvlink_nixl")
    given = parser.parse_args()
    for manifest in sorted(given.folder.glob("pair-*/*-open-*/manifest.json")):
        run = Run.load(manifest.parent)
        data = yaml.safe_load(run.manifest["spec_yaml"])
        data["profile"] = given.profile
        if data["deployment"]["mode"] == "disaggregated":
            data["deployment"]["link"]["preset"] = given.link
        measured, predicted = summarise(run), summarise(simulate(parse(yaml.safe_dump(data))))
        errors = [f"{name} {100 * (predicted.number(name) / measured.number(name) - 1):+.1f}" for name in METRICS]
        print(manifest.parent.relative_to(given.folder), *errors)


if __name__ == "__main__":
    main()
