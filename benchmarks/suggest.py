"""`planner suggest` on the cases that others publish an answer for, and how long it takes.

    python benchmarks/suggest.py peers [--gpus 2,4,8,16] [--seeds 3] [--requests 2000]   4 cases
    python benchmarks/suggest.py time [--requests 10000] [--processes 2]                8 GPUs, every split
    python benchmarks/suggest.py seeds [--gpus 4]                                       20 seeds, one pick?

Times are processor seconds of this process and its children beside wall seconds, because the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from planner import load
from planner.spec import Spec
from planner.suggest import suggest
from planner.suggestion import Suggestion, best_of

CASES = ((3000, 100, 1000, 30), (3000, 100, 300, 10), (4000, 500, 1000, 30), (4000, 500, 300, 10))


def case(prompt: int, output: int, ttft_ms: int, tpot_ms: int) -> Spec:
    return load(
        "disagg",
        [
            f"workload.prompt_tokens={prompt}",
            f"workload.output_tokens={output}",
            f"slo.ttft_ms={ttft_ms}",
            f"slo.tpot_ms={tpot_ms}",
        ],
    )


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def timed(spec: Spec, gpus: int, options: argparse.Namespace, seeds: int) -> tuple[Suggestion, float, float]:
    wall, cpu = time.monotonic(), cpu_s()
    found = suggest(spec, gpus, seeds=seeds, requests=options.requests, processes=options.processes)
    return found, time.monotonic() - wall, cpu_s() - cpu


def peers(options: argparse.Namespace) -> None:
    for numbers in CASES:
        for gpus in map(int, options.gpus.split(",")):
            found, wall, cpu = timed(case(*numbers), gpus, options, options.seeds)
            ours, theirs = best_of(found.rows, "disaggregated"), best_of(found.rows, "aggregated")
            verdict = found.verdict
            line = {
                "case": "{}/{}, {}/{}".format(*numbers),
                "gpus": gpus,
                "aggregated": theirs and (theirs.name, round(theirs.output_tokens_s_gpu)),
                "disaggregated": ours and (ours.name, round(ours.output_tokens_s_gpu)),
                "advantage": verdict
                and [round(v, 3) for v in (verdict.advantage.value, verdict.advantage.low, verdict.advantage.high)],
                "verdict": verdict and verdict.word,
                "why": verdict and verdict.why,
                "change": verdict and verdict.change,
                "best TP1 split": next(
                    (
                        (row.name, round(row.output_tokens_s_gpu))
                        for row in found.rows
                        if row.mode == "disaggregated" and row.split.largest_tp == 1 and row.rate > 0
                    ),
                    None,
                ),
                "wall_s": round(wall, 1),
                "cpu_s": round(cpu, 1),
                "answer": found.sentence,
            }
            print(json.dumps(line), flush=True)


def times(options: argparse.Namespace) -> None:
    found, wall, cpu = timed(case(*CASES[0]), 8, options, 1)
    print(
        f"{len(found.rows)} candidates, {options.requests} requests each: {wall:.1f} s wall, {cpu:.1f} s of processors"
    )
    print(found.sentence)


def seeds(options: argparse.Namespace) -> None:
    for seed in range(20):
        spec = load("disagg", [f"run.seed={100 * seed}", "slo.ttft_ms=1000"])
        print(suggest(spec, int(options.gpus), seeds=options.seeds, requests=options.requests).sentence, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "time", "seeds"])
    parser.add_argument("--gpus", default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=None)
    parser.add_argument("--processes", type=int, default=None)
    options = parser.parse_args()
    if options.what == "peers":
        options.gpus = options.gpus or "2,4,8,16"
        options.requests = options.requests or 2000
        peers(options)
    elif options.what == "time":
        options.requests = options.requests or 10000
        times(options)
    else:
        options.gpus = options.gpus or "4"
        seeds(options)


if __name__ == "__main__":
    main()
