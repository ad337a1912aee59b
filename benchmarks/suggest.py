"""`planner suggest` on the cases that others publish an answer for, and how long it takes.

    python benchmarks/suggest.py peers [--gpus 2,4,8,16] [--cases 1,2,3,4]     published cases; as users get them
    python benchmarks/suggest.py time [--requests 10000] [--processes 2]      8 GPUs, every split
    python benchmarks/suggest.py seeds [--gpus 4] [--cases 1]                 20 seeds: one pick?
    python benchmarks/suggest.py lengths [--gpus 4] [--cases 1]               200, 1,000, 2,000 requests against 10,000
    python benchmarks/suggest.py verdicts ROWS [--gpus 2,4,8] [--trials 5]    five kinds of traffic, seed by seed
    python benchmarks/suggest.py table ROWS [--docs docs/suggest.md]          what they came to
    python benchmarks/suggest.py kinds ROWS [--gpus 8] [--trials 2] [--processes 2]    the page's traffic, by stage

`verdicts` and `kinds` add a line of JSON to ROWS as each answer comes and go on where they were stopped.
Times are processor seconds of this process and its children beside wall seconds, because the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from traffic import TRAFFIC

from planner import load
from planner.spec import Spec, dump, parse
from planner.suggestion.answer import Suggestion, best_of
from planner.suggestion.spread import ProcessPool, cores, processes
from planner.suggestion.suggest import COARSE, SearchTask, search, suggest
from planner.suggestion.tasks import prepared
from planner.suggestion.words import pick

CASES = ((3000, 100, 1000, 30), (3000, 100, 300, 10), (4000, 500, 1000, 30), (4000, 500, 300, 10))
# Requests as they are sent: (TTFT, TPOT) in ms, twice the TTFT for prompts of 8,000 tokens.
TARGETS = {"loose": (1000, 30), "tight": (300, 10)}
KINDS = ("3000/100", "8000/200", "512/256", "chat", "agents")


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
    with processes(options.processes or cores()) as pool:
        found = suggest(spec, gpus, seeds=seeds, requests=options.requests, pool=pool)
    wall = time.monotonic() - wall
    reap()
    return found, wall, cpu_s() - cpu


def reap() -> None:
    """Wait for worker processes to end: only then does the system add their time to that of children."""
    for child in multiprocessing.active_children():
        child.join()


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


def cells(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What tells most for its time first: seed by seed, block sizes after the second, sessions last."""
    gpus = [int(count) for count in (options.gpus or "2,4,8").split(",")]
    wanted = options.traffic.split(",") if options.traffic else list(KINDS)
    blocks = [int(size) for size in options.blocks.split(",") if size]
    for kinds in ([name for name in wanted if name != "agents"], [name for name in wanted if name == "agents"]):
        for trial in range(options.first, options.first + options.trials):
            for block in (None, *(blocks if trial == options.first + 1 else ())):
                for count in gpus:
                    for traffic in kinds:
                        for target in TARGETS:
                            seed = 100 * (options.first if block else trial)
                            yield {"traffic": traffic, "target": target, "gpus": count, "block": block, "seed": seed}


def cell_spec(cell: dict[str, Any]) -> Spec:
    ttft_ms, tpot_ms = TARGETS[cell["target"]]
    ttft_ms *= 2 if cell["traffic"] == "8000/200" else 1
    spec = load("disagg", [f"slo.ttft_ms={ttft_ms}", f"slo.tpot_ms={tpot_ms}", f"run.seed={cell['seed']}"])
    data: dict[str, Any] = yaml.safe_load(dump(spec))
    data["workload"] = TRAFFIC[cell["traffic"]]
    if cell["traffic"] == "agents":  # they repeat their history: it is worth to go where it is cached
        data["deployment"]["router"] = {"policy": "prefix_aware"}
    data["engine"] = {} if cell["block"] is None else {"block_size": cell["block"]}
    return parse(yaml.safe_dump(data))


def verdicts(options: argparse.Namespace) -> None:
    """Adds a line to the file for each cell that it lacks."""
    kept = read_rows(options.rows) if options.rows.exists() else []
    done = {json.dumps(row["cell"]) for row in kept}
    for cell in cells(options):
        if json.dumps(cell) in done:
            continue
        found, wall, cpu = timed(cell_spec(cell), cell["gpus"], options, options.seeds)
        row = {"cell": cell, **answered(found), "wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kinds(options: argparse.Namespace) -> None:
    """Each kind of traffic as the page fills it in: what is answered, and processor seconds of each stage.

    In one process, so that all processor time is this process's; with --processes seconds of stages are wall seconds.
    `first_s`: wall seconds to the first sentence, that of a page with processes that run already; the whole answer
    comes after it and from the same processes. The file gets a line for each answer that it lacks.
    """
    count = options.processes or 1
    clock = cpu_s if count == 1 else time.monotonic
    from planner.ui.scenario import CARDS, TRACE, Scenario, traces

    done = {json.dumps(row["cell"]) for row in read_rows(options.rows)} if options.rows.exists() else set()
    wanted = [name for name in (*CARDS, TRACE) if options.traffic is None or name in options.traffic.split(",")]
    for trial in range(options.first, options.first + options.trials):
        for gpus in map(int, options.gpus.split(",")):
            for name in wanted:
                cell = {"traffic": name, "gpus": gpus, "seed": 100 * trial}
                if json.dumps(cell) in done:
                    continue
                asked = Scenario(gpus=gpus).with_card(name)
                if name == TRACE:
                    asked = Scenario(gpus=gpus, traffic=TRACE, trace=next(iter(traces())))
                spec = asked.spec()
                spec = spec.model_copy(update={"run": spec.run.model_copy(update={"seed": 100 * trial})})
                stages: Counter[str] = Counter()
                begun = cpu_s()

                def progress(stage: str, _: float, stages: Counter[str] = stages) -> None:
                    nonlocal last
                    now = clock()
                    stages[stage] += now - last  # type: ignore[assignment]
                    last = now

                with processes(count) as pool:
                    if isinstance(pool, ProcessPool):  # as the page does when it is opened
                        question = prepared(Scenario().spec(), 2, 20, None)
                        pool(search, [SearchTask(question, 0, None, COARSE, 1.25)] * count, lambda at, result: None)
                    wall = time.monotonic()
                    look = suggest(spec, gpus, seeds=1, pool=pool, quick=True)
                    first, last = time.monotonic() - wall, clock()
                    wall = time.monotonic()
                    found = suggest(spec, gpus, seeds=options.seeds, pool=pool, progress=progress)
                    wall = time.monotonic() - wall
                reap()
                row = {"cell": cell, **answered(found), "first_word": look.verdict and look.verdict.word}
                row["processes"], row["first_s"], row["wall_s"] = count, round(first, 1), round(wall, 1)
                row["cpu_s"] = round(cpu_s() - begun, 1)  # of both, and of starting the processes
                row["stages"] = {stage: round(spent, 1) for stage, spent in stages.items()}
                row["load"] = round(os.getloadavg()[0], 1)
                with options.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def answered(found: Suggestion) -> dict[str, Any]:
    """The pick, the best of both modes, and the verdict."""
    ours, theirs, verdict = best_of(found.rows, "disaggregated"), best_of(found.rows, "aggregated"), found.verdict
    return {
        "pick": pick(found.rows, verdict).name,
        "as_good": found.as_good,
        "disaggregated": ours and (ours.name, ours.split.tuning.text, ours.rate),
        "aggregated": theirs and (theirs.name, theirs.split.tuning.text, theirs.rate),
        "advantage": verdict and [verdict.advantage.value, verdict.advantage.low, verdict.advantage.high],
        "word": verdict and verdict.word,
        "error": verdict and verdict.error,
        "change": verdict and verdict.change,
        "why": verdict and verdict.why,
    }


BEGIN, END = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"
SHORT = {
    "max_num_batched_tokens": "budget",
    "block_size": "blocks",
    "connector NixlPushConnector": "push",
    "connector NixlConnector": "pull",
    "cross_layer_blocks true": "cross-layer",
    "cross_layer_blocks false": "",
}
HEADS = ("traffic, targets", "GPUs", "seeds", "verdict", "P/D against aggregated (95 %)", "split", "aggregated",
         "a change of 20 %")  # fmt: skip
CLEAR = ("worth it", "not worth it")


def with_knobs(found: list[Any] | None) -> str:
    """3P1D (budget 512, push)."""
    if found is None:
        return "none"
    knobs = found[1]
    for name, short in SHORT.items():
        knobs = knobs.replace(name, short)
    knobs = ", ".join(part for part in knobs.split(", ") if part)
    return f"{found[0]} ({knobs})" if knobs else str(found[0])


def words(rows: list[dict[str, Any]]) -> str:
    """not worth it, or with how often where they differ: too close to call (1), worth it (2)."""
    counts = Counter(row["word"] or "no rate meets them" for row in rows)
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{word} ({n})" for word, n in sorted(counts.items()))


def by_how_much(rows: list[dict[str, Any]]) -> str:
    """-12 to +3 %, from the lowest to the highest over seeds, and the widest ends of their intervals."""
    known = [row["advantage"] for row in rows if row["advantage"]]
    if not known:
        return ""
    values = sorted({f"{100 * one[0]:+.0f}" for one in known}, key=float)
    low, high = min(one[1] for one in known), max(one[2] for one in known)
    return f"{' to '.join(dict.fromkeys((values[0], values[-1])))} % ({100 * low:.0f} to {100 * high:.0f})"


def flip(row: dict[str, Any]) -> str:
    """prompts 20 % shorter: too close to call."""
    text = str(row["change"] or "")
    if not text.startswith("With "):
        return "nothing" if text else ""
    return text.removeprefix("With ").split(" (P/D")[0].replace(" it would be:", ":")


def table(options: argparse.Namespace) -> None:
    """A line for each traffic, target and number of GPUs; then the same with given block sizes; then the counts."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in read_rows(options.rows):
        cell = row["cell"]
        groups.setdefault((cell["traffic"], cell["target"], cell["gpus"], cell["block"]), []).append(row)
    searched = sorted((key for key in groups if key[3] is None), key=lambda key: (KINDS.index(key[0]), key[1], key[2]))
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for key in searched:
        rows = groups[key]
        first = rows[0]
        cells = [f"{key[0]}, {key[1]}", key[2], len(rows), words(rows), by_how_much(rows),
                 with_knobs(first["disaggregated"]), with_knobs(first["aggregated"]), flip(first)]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    blocks = [key for key in searched if (*key[:3], 16) in groups and (*key[:3], 128) in groups]
    if blocks:
        lines += ["", "| traffic, targets | GPUs | blocks of 16 | of 128 | searched |", "|---|---|---|---|---|"]
    for key in blocks:
        cells = [f"{words(rows)}, {by_how_much(rows)}: {with_knobs(rows[0]['disaggregated'])}"
                 for rows in (groups[(*key[:3], 16)], groups[(*key[:3], 128)], groups[key][:1])]  # fmt: skip
        lines.append(f"| {key[0]}, {key[1]} | {key[2]} | {' | '.join(cells)} |")
    several = [rows for key, rows in groups.items() if len(rows) > 1]
    every = [row for rows in groups.values() for row in rows]
    close = sum(row["word"] == "too close to call" for row in every)
    unknown = sum(row["word"] == "not known yet" for row in every)
    opposite = sum(set(CLEAR) <= {row["word"] for row in rows} for rows in several)
    other = sum(len({row["word"] for row in rows}) > 1 for rows in several)
    counted = f"{len(every)} answers: {close} *too close to call*, {unknown} *not known yet*."
    if several:
        counted += f" Of {len(several)} cells with several seeds {opposite} turn into their opposite and {other} have "
        counted += "another word with another seed."
    lines += ["", counted]
    text = "\n".join(lines) + "\n"
    if options.docs is None:
        print(text, end="")
        return
    head, rest = options.docs.read_text().split(BEGIN, 1)
    options.docs.write_text(f"{head}{BEGIN}\n{text}{END}{rest.split(END, 1)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["peers", "time", "seeds", "lengths", "verdicts", "table", "kinds"])
    parser.add_argument("rows", nargs="?", type=Path, help="of verdicts: a file of JSON lines")
    parser.add_argument("--traffic", default=None, help="of verdicts and kinds; left out: all")
    parser.add_argument("--blocks", default="16,128", help="block sizes that verdicts are held to; empty: none")
    parser.add_argument("--docs", type=Path, help="a page that the table is written into")
    parser.add_argument("--gpus", default=None)
    parser.add_argument("--cases", default="1,2,3,4", help="which of the four, by number")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="first of the seeds, in hundreds")
    parser.add_argument("--asked", default="200,1000,2000,10000", help="the last is held to be the truth")
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--requests", type=int, default=None)
    parser.add_argument("--processes", type=int, default=None)
    options = parser.parse_args()
    if options.what == "time":
        options.requests = options.requests or 10000
        times(options)
        return
    if options.what in ("verdicts", "table", "kinds"):
        if options.rows is None:
            parser.error("ROWS is missing")
        options.trials = options.trials or (2 if options.what == "kinds" else 5)
        if options.what == "kinds":
            options.gpus = options.gpus or "8"
        {"verdicts": verdicts, "table": table, "kinds": kinds}[options.what](options)
        return
    options.trials = options.trials or 20
    options.gpus = options.gpus or ("2,4,8,16" if options.what == "peers" else "4")
    {"peers": peers, "seeds": seeds, "lengths": lengths}[options.what](options)


if __name__ == "__main__":
    main()
