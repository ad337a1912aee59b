"""Do servers hold the highest rates that `planner suggest` names? Loads around them, foretold and then judged.

    python benchmarks/gpu/edges.py foretell > FILE                 every load of edges.yaml, simulated
    python benchmarks/gpu/edges.py judge RECORDS [--docs PAGE]     beside what was measured

Loads are those of `begun.py`. Judged are requests that come in the middle of a run; what has not ended when the run
ends goes on as it went so far. An edge is where the share that misses the targets is what `attainment` leaves: the
logarithm of the odds is a straight line in that of the rate between runs, and beyond them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from begun import begun

from planner.run.facts import Window
from planner.run.tables import STOPPED, Run, frame
from planner.spec import Slo, Spec, load
from planner.suggestion.search import Served, _columns
from planner.system.resolve import resolve
from planner.traffic.workload import offered_rate
from planner.validation.recorded import TIME_DIGITS, replay_spec
from simulator.cluster import SimulatedCluster

PLAN = Path(__file__).with_name("edges.yaml")
LATEST_S = 4.0  # before the end of a run: who comes later is not judged
QUANTILES = (0.5, 0.9, 0.99)
Figures = dict[str, Any]


def kind_of(key: str) -> str:
    """Of a load: chat-37.7 -> chat."""
    return key.partition("-")[0]


def spec_of(part: dict[str, Any], key: str) -> Spec:
    return load(part["config"], [*part["set"], f"workload={json.dumps(part['loads'][key])}"])


def simulated(spec: Spec, wanted: dict[str, Any]) -> Served:
    """The run that a host makes of a load, to the second in which it ends it."""
    cluster = SimulatedCluster(resolve(spec), begun(spec, wanted), record_steps=False, until_s=wanted["seconds"])
    visits = [one for one in cluster.run() if one.arrival_s <= wanted["judged_s"][1]]
    return _columns(visits, Window(*wanted["judged_s"]), cluster)


def measured(run: Run, wanted: dict[str, Any]) -> Served:
    """The same of a recorded run."""
    table = run.requests[run.requests["arrival_s"] <= wanted["judged_s"][1]]
    ended = float(run.requests.loc[run.requests["error"].eq(STOPPED).fillna(False), "finish_s"].max())
    first, end = table["first_token_s"].to_numpy(float), table["finish_s"].to_numpy(float)
    tokens, asked = table["output_tokens"].to_numpy(float), table["max_tokens"].to_numpy(float)
    cut = table["error"].eq(STOPPED).fillna(False).to_numpy(bool)
    last = run.tokens.groupby("request_id")["time_s"].max().reindex(table["request_id"]).to_numpy(float)
    first = np.where(np.isnan(first), ended, first)
    pace = np.where(tokens > 1, (last - first) / np.maximum(tokens - 1, 1), 0.0)
    end = np.where(cut, np.maximum(first + np.nan_to_num(pace) * (asked - 1), ended), end)
    return Served(
        window=Window(*wanted["judged_s"]),
        arrival=table["arrival_s"].to_numpy(float),
        first=first,
        end=end,
        prompts=table["prompt_tokens"].to_numpy(float),
        tokens=np.where(cut, asked, tokens),
        ok=(table["error"].isna() | cut).to_numpy(bool),
    )


def figures(run: Served, slo: Slo) -> Figures:
    """Of the judged requests."""
    within = run.judged
    long = within & (run.tokens > 1)
    found: Figures = {
        "judged": int(within.sum()),
        "failed": int((within & ~run.ok).sum()),
        "attainment": round(float(run.good(slo)[within].mean()), 5),
        "rate": round(float(within.sum()) / run.window.length_s, 3),
        "kept_up": bool(run.kept_up),
    }
    for name, values in (("ttft", run.ttft[within]), ("tpot", run.tpot[long])):
        for q in QUANTILES:
            found[f"{name}_p{round(100 * q)}_ms"] = round(1e3 * float(np.quantile(values, q)), 3)
    return found


def edge(runs: Sequence[tuple[float, Figures]], attainment: float) -> tuple[float, bool]:
    """(the rate at which so many are within their targets, whether it lies between two that were run).

    It does not where the lowest rate misses them already.
    """
    level = _log_odds(1 - attainment, math.inf)
    points = sorted((math.log(rate), _log_odds(1 - one["attainment"], one["judged"])) for rate, one in runs)
    pairs = list(pairwise(points))
    inside = [pair for pair in pairs if points[0][1] <= level and pair[0][1] <= level < pair[1][1]]
    if inside:
        pair = inside[0]
    else:
        pair = pairs[0] if points[0][1] > level else pairs[-1]
    (x0, y0), (x1, y1) = pair
    if not y1 > y0:
        return math.nan, False
    return math.exp(x0 + (level - y0) / (y1 - y0) * (x1 - x0)), bool(inside)


def _log_odds(share: float, count: float) -> float:
    least = 0.5 / (count + 1)  # half a request: none that misses is not never
    share = min(max(share, least), 1 - least)
    return math.log(share / (1 - share))


# --- commands ---------------------------------------------------------------------------------------------------------


def foretell(plan: dict[str, dict[str, Any]]) -> Figures:
    found: Figures = {}
    for name, part in plan.items():
        for key in part["loads"]:
            spec = spec_of(part, key)
            one = figures(simulated(spec, part["begun"][key]), Slo(**part["targets"][kind_of(key)]))
            found.setdefault(name, {})[key] = {"sent": offered_rate(spec), **one}
            print(name, key, found[name][key], file=sys.stderr)
    return found


def judge(plan: dict[str, dict[str, Any]], records: Path) -> dict[str, Figures]:
    """By part and load: what was measured, and what the same requests come to in the simulator, to the same second."""
    found: dict[str, Figures] = {}
    for name, part in plan.items():
        for key in part["loads"]:
            folder = records / name / f"{key}-1"
            if not (folder / "manifest.json").is_file():
                continue
            run, slo = Run.load(folder), Slo(**part["targets"][kind_of(key)])
            pace, wanted = slo.model_copy(update={"ttft_ms": None}), as_ended(part["begun"][key], run)
            spec = replay_spec(run, keep=True)
            live, ours = measured(run, wanted), simulated(spec, wanted)
            found.setdefault(name, {})[key] = {
                "sent": offered_rate(spec),
                "measured": figures(live, slo),
                "predicted": figures(ours, slo),
                "measured, TPOT alone": figures(live, pace),
                "predicted, TPOT alone": figures(ours, pace),
            }
    return found


def as_ended(wanted: dict[str, Any], run: Run) -> dict[str, Any]:
    """The seconds of a run that was ended before its time are fewer."""
    last_s = float(run.requests["finish_s"].max())
    begin_s, end_s = wanted["judged_s"]
    return {**wanted, "seconds": min(wanted["seconds"], last_s), "judged_s": [begin_s, min(end_s, last_s - LATEST_S)]}


def edges(rows: dict[str, Figures], part: dict[str, Any], of: str | None) -> dict[str, tuple[float, bool]]:
    """By kind."""
    runs: dict[str, list[tuple[float, Figures]]] = defaultdict(list)
    for key, one in rows.items():
        runs[kind_of(key)].append((one["sent"], one[of] if of else one))
    return {kind: edge(some, part["targets"][kind]["attainment"]) for kind, some in runs.items() if len(some) > 1}


# --- the page ---------------------------------------------------------------------------------------------------------

MARKS = "<!-- {}: begin -->", "<!-- {}: end -->"  # of the plan's name
FIGURES = ("ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p90_ms", "tpot_p99_ms")


def report(plan: dict[str, dict[str, Any]], judged: dict[str, Figures]) -> str:
    head = (
        "| traffic | servers | named | these requests, predicted | measured | error | TPOT alone: predicted, measured |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"] if any(plan[name]["named"] for name in judged) else []
    found = {of: {name: edges(judged[name], plan[name], of) for name in judged} for of in _OF}
    kinds = list(next(iter(plan.values()))["targets"])
    servers = {name: part["servers"] for name, part in plan.items()}
    for kind in kinds:
        for name in (name for name in judged if kind in plan[name]["named"]):
            predicted, live, *alone = (found[of][name].get(kind, (math.nan, False)) for of in _OF)
            error = f"{100 * (predicted[0] / live[0] - 1):+.0f} %" if predicted[1] and live[1] else ""
            rates = f"{plan[name]['named'][kind]:.4g} | {_rate(predicted)} | {_rate(live)}"
            lines.append(f"| {kind} | {servers[name]} | {rates} | {error} | {', '.join(map(_rate, alone))} |")
    head = "| load, req/s | servers | judged | within the targets: predicted, measured |"
    for metric in ("TTFT", "TPOT"):
        head += f" {metric} p50 / p90 / p99, ms | off by, % |"
    lines += [*([""] if lines else []), head, "|---|---|---|---|---|---|---|---|"]
    for kind in kinds:
        for name, rows in judged.items():
            for key, one in ((key, one) for key, one in rows.items() if kind_of(key) == kind):
                live, ours = one["measured"], one["predicted"]
                values = [f"{live[figure]:.3g}" if live[figure] < 100 else f"{live[figure]:,.0f}" for figure in FIGURES]
                off = [f"{100 * (ours[figure] / live[figure] - 1):+.0f}" for figure in FIGURES]
                shares = f"{100 * ours['attainment']:.1f} %, {100 * live['attainment']:.1f} %"
                cells = [" / ".join(some) for some in (values[:3], off[:3], values[3:], off[3:])]
                title = f"{key.replace('-', ' at ')} | {servers[name]} | {live['judged']} | {shares}"
                lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_OF = ("predicted", "measured", "predicted, TPOT alone", "measured, TPOT alone")


def _rate(at: tuple[float, bool]) -> str:
    rate, inside = at
    return f"{rate:.4g}" if inside else "beyond these rates"


def small(run: Run) -> Run:
    """What `judge` reads: requests, and when each answer's last token came."""
    requests = run.requests.copy()
    for name in requests.select_dtypes("float64"):
        requests[name] = requests[name].round(TIME_DIGITS)
    empty = {name: frame(name) for name in ("steps", "samples", "transfers")}
    tokens = run.tokens.assign(time_s=run.tokens["time_s"].round(TIME_DIGITS))
    return Run(requests=requests, tokens=tokens, manifest=run.manifest | {"logs": None}, **empty)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("foretell")
    judging = commands.add_parser("judge")
    judging.add_argument("records", type=Path)
    judging.add_argument("--docs", type=Path, help="write the tables between this file's marks")
    judging.add_argument("--ship", type=Path, help="a folder for small copies of the runs")
    parser.add_argument("--plan", type=Path, default=PLAN)
    options = parser.parse_args()
    plan = {name: part for name, part in yaml.safe_load(options.plan.read_text()).items() if "loads" in part}
    if options.command == "foretell":
        runs = foretell(plan)
        found = {
            name: {kind: round(at, 3) for kind, (at, _) in edges(runs[name], part, None).items()}
            for name, part in plan.items()
        }
        named = {name: part["named"] for name, part in plan.items()}
        json.dump({"named": named, "edges": found, "loads": runs}, sys.stdout, indent=1)
        print()
        return
    text = report(plan, judge(plan, options.records))
    print(text, end="")
    if options.docs:
        begin, end = (mark.format(options.plan.stem) for mark in MARKS)
        head, rest = options.docs.read_text().split(begin, 1)
        options.docs.write_text(f"{head}{begin}\n{text}{end}{rest.split(end, 1)[1]}")
    if options.ship:
        for name, part in plan.items():
            for key in part["loads"]:
                small(Run.load(options.records / name / f"{key}-1")).save(options.ship / name / f"{key}-1")


if __name__ == "__main__":
    main()
