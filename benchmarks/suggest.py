"""`planner suggest` on the cases that others publish an answer for, and how long it takes.

    python benchmarks/suggest.py peers [--gpus 2,4,8,16] [--cases 1,2,3,4]     published cases; as users get them
    python benchmarks/suggest.py time [--requests 10000] [--processes 2]      8 GPUs, every split
    python benchmarks/suggest.py seeds [--gpus 4] [--cases 1]                 20 seeds: one pick?
    python benchmarks/suggest.py lengths [--gpus 4] [--cases 1]               200, 1,000, 2,000 requests against 10,000

Times are processor seconds of this process and its children beside wall seconds, because the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter

from planner import load
from planner.spec import Spec
from planner.suggestion.answer import Suggestion, best_of
from planner.suggestion.suggest import suggest
from planner.suggestion.words import pick

CASES = ((3000, 100, 1000, 30), (3000, 100, 300, 10), (4000, 500, 1000, 30), (4000, 500, 300, 10))


def chosen(options: argparse.Namespace) -> list[tuple[int, int, int, int]]:
    return [CASES[int(number) - 1] for number in options.cases.split(",")]


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
    for numbers in chosen(options):
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
    """Other requests each time. A pick that changes must be called close: by the verdict, or as one of several."""
    for numbers in chosen(options):
        picks: Counter[str] = Counter()
        words: Counter[str] = Counter()
        admitted = True
        found: list[tuple[str, str, tuple[str, ...]]] = []
        for seed in range(options.first, options.first + options.trials):
            spec = case(*numbers)
            spec = spec.model_copy(update={"run": spec.run.model_copy(update={"seed": 100 * seed})})
            one, _, _ = timed(spec, int(options.gpus), options, options.seeds)
            assert one.verdict is not None
            name = pick(one.rows, one.verdict).name
            picks[name] += 1
            words[one.verdict.word] += 1
            found.append((name, one.verdict.word, one.as_good))
            print(f"seed {100 * seed}: {one.sentence} As good: {', '.join(one.as_good) or 'none'}", flush=True)
        usual, word = picks.most_common(1)[0][0], words.most_common(1)[0][0]
        for name, verdict, as_good in found:
            same = (name == usual or usual in as_good) and verdict == word
            admitted = admitted and (same or verdict == "too close to call")
        print(json.dumps({"picks": picks, "verdicts": words, "a change is always called close": admitted}), flush=True)


def lengths(options: argparse.Namespace) -> None:
    """Do intervals of short runs hold what long runs say?"""
    for numbers in chosen(options):
        rows = []
        for requests in map(int, options.asked.split(",")):
            options.requests = requests
            found, _, cpu = timed(case(*numbers), int(options.gpus), options, options.seeds)
            assert found.verdict is not None
            one = found.verdict.advantage
            rows.append((requests, one))
            print(
                f"{requests} requests, {found.seconds:.1f} s of traffic, {cpu:.0f} s of processors: {found.sentence}",
                flush=True,
            )
        truth = rows[-1][1].value
        for requests, one in rows[:-1]:
            holds = "holds" if one.low <= truth <= one.high else "MISSES"
            print(f"{requests}: {one.low:.1%} to {one.high:.1%} {holds} {truth:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "time", "seeds", "lengths"])
    parser.add_argument("--gpus", default=None)
    parser.add_argument("--cases", default="1,2,3,4", help="which of the four, by number")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first of the seeds, in hundreds")
    parser.add_argument("--asked", default="200,1000,2000,10000", help="the last is held to be the truth")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--requests", type=int, default=None)
    parser.add_argument("--processes", type=int, default=None)
    options = parser.parse_args()
    if options.what == "time":
        options.requests = options.requests or 10000
        times(options)
        return
    options.gpus = options.gpus or ("2,4,8,16" if options.what == "peers" else "4")
    {"peers": peers, "seeds": seeds, "lengths": lengths}[options.what](options)


if __name__ == "__main__":
    main()
