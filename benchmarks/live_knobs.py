"""The knobs that vLLM has a switch for, on real CPU servers beside their simulation, one server at a time.

    python benchmarks/live_knobs.py            Markdown for docs/knobs.md; about a minute a line on two free cores

Needs the CPU build of vLLM. Both get the same requests: chats that share their history, so that the prefix cache has
something to find. Effects are compared, not times: the CPU has no profile of its own, so the simulation is a roofline.
"""

from __future__ import annotations

import sys

import planner
from planner.backends import backend
from planner.metrics import Summary, summarise
from planner.spec import load
from planner.system import resolve
from planner.workload import build

CHATS = (
    "workload={kind: sessions, rate: 0.5, sessions: 10, turns: 4, think_time_s: 0.5, system_tokens: 512, "
    "prompt_tokens: 128, output_tokens: 24}",
)
# knob -> (what both runs have, what the second has)
KNOBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "enable_prefix_caching: false": ((), ("engine.enable_prefix_caching=false",)),
    "max_num_batched_tokens: 256": ((), ("engine.max_num_batched_tokens=256", "engine.max_num_seqs=64")),
    "enable_chunked_prefill: false": (
        ("engine.max_num_batched_tokens=4096",),
        ("engine.enable_chunked_prefill=false",),
    ),
}
METRICS = (("TTFT", "ttft_mean_ms"), ("TPOT", "tpot_mean_ms"), ("req/s", "requests_per_s"))


def run(mode: str, overrides: tuple[str, ...]) -> Summary:
    spec = load("cpu-agg", [*CHATS, *overrides])
    if mode == "simulate":
        return summarise(planner.simulate(spec))
    return summarise(backend("live").run(resolve(spec), build(spec)))


def main() -> None:
    print("| knob | mode | " + " | ".join(label for label, _ in METRICS) + " |\n|---|---|---:|---:|---:|")
    seen: dict[tuple[str, tuple[str, ...]], Summary] = {}
    for knob, (base, on) in KNOBS.items():
        for mode in ("simulate", "live"):
            if (mode, base) not in seen:
                seen[mode, base] = run(mode, base)
            before, after = seen[mode, base], run(mode, (*base, *on))
            cells = [
                f"{before.number(name):.4g} → {after.number(name):.4g} "
                f"({after.number(name) / before.number(name) - 1:+.0%})"
                for _, name in METRICS
            ]
            print(f"| {knob} | {mode} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
