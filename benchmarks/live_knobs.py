"""The knobs that vLLM has a switch for, on real CPU servers beside their simulation, one server at a time.

    python benchmarks/live_knobs.py            Markdown for docs/knobs.md; about ten minutes on two free cores

Needs the CPU build of vLLM. Both modes get the same requests, with two seeds, and a cell is the mean of both. The
simulation has the profile fitted on the calibration of benchmarks/recorded/cpu-agg: its own host's, so that times can
be compared as well as effects there, and effects alone elsewhere.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import planner
from live.session import LiveSession
from planner.engine.profiles import dump_profile
from planner.run.metrics import Summary, summarise
from planner.spec import Spec, load
from planner.system.resolve import resolve
from planner.traffic.workload import build
from planner.validation.recorded import read_record

RECORD = Path(__file__).resolve().parent / "recorded" / "cpu-agg"
SEEDS = (11, 12)
LOADS = {
    "chats": "workload={kind: sessions, rate: 0.5, sessions: 10, turns: 4, think_time_s: 0.5, system_tokens: 512, "
    "prompt_tokens: 128, output_tokens: 24}",
    "long prompts": "workload={kind: poisson, rate: 0.8, requests: 20, prompt_tokens: 1024, output_tokens: 48}",
}
BASE = ("engine.max_num_batched_tokens=4096",)
KNOBS = {  # knob -> (load, what it changes)
    "enable_prefix_caching: false": ("chats", ("engine.enable_prefix_caching=false",)),
    "max_num_batched_tokens: 256": (
        "long prompts",
        ("engine.max_num_batched_tokens=256", "engine.max_num_seqs=64"),
    ),
    "enable_chunked_prefill: false": ("long prompts", ("engine.enable_chunked_prefill=false",)),
    "max_num_seqs: 2": ("long prompts", ("engine.max_num_seqs=2",)),
    "kv_cache_dtype: fp8": ("long prompts", ("engine.kv_cache_dtype=fp8",)),
}
METRICS = (
    ("TTFT p50, ms", "ttft_p50_ms"),
    ("TPOT p50, ms", "tpot_p50_ms"),
    ("ITL p99, ms", "itl_p99_ms"),
    ("req/s", "requests_per_s"),
)


def specs(load_name: str, changes: tuple[str, ...], profile: str) -> list[Spec]:
    common = [LOADS[load_name], *BASE, *changes, f"profile={profile}"]
    return [load("cpu-agg", [*common, f"run.seed={seed}"]) for seed in SEEDS]


def mean(summaries: list[Summary]) -> dict[str, float]:
    return {name: sum(one.number(name) for one in summaries) / len(summaries) for _, name in METRICS}


def simulated(wanted: list[Spec]) -> dict[str, float]:
    return mean([summarise(planner.simulate(spec)) for spec in wanted])


def measured(wanted: dict[str, list[Spec]]) -> dict[str, dict[str, float]]:
    """Every load on one start of the servers."""
    first = next(iter(wanted.values()))[0]
    contents = itertools.count()  # no run finds another's prompts in the cache
    found = {}
    with LiveSession(resolve(first)) as session:
        for name, each in wanted.items():
            runs = []
            for spec in each:
                session.system = replace(session.system, spec=spec)
                runs.append(summarise(session.measure(build(spec), repeat=next(contents))))
            found[name] = mean(runs)
    return found


def line(label: str, before: dict[str, float], after: dict[str, float]) -> str:
    cells = [f"{before[name]:.4g} → {after[name]:.4g} ({after[name] / before[name] - 1:+.0%})" for _, name in METRICS]
    return f"| {label} | " + " | ".join(cells) + " |"


def main() -> None:
    file = read_record(RECORD).profiles["calibration"]
    assert file is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.yaml"
        path.write_text(dump_profile(file))
        print("| knob | mode | " + " | ".join(label for label, _ in METRICS) + " |")
        print("|---|---|" + "---:|" * len(METRICS), flush=True)
        bases = {name: specs(name, (), str(path)) for name in LOADS}
        live_bases = measured(bases)
        for knob, (name, changes) in KNOBS.items():
            wanted = specs(name, changes, str(path))
            print(line(f"{knob} ({name}) | simulated", simulated(bases[name]), simulated(wanted)), flush=True)
            try:
                after = measured({name: wanted})[name]
            except RuntimeError as error:
                print(f"| | live | refused by this vLLM: {error} | | | |", flush=True)
                continue
            print(line(" | live", live_bases[name], after), flush=True)


if __name__ == "__main__":
    sys.exit(main())
