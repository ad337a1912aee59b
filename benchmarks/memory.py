"""Memory that a request takes: a trace on 5P3D with shared prefixes, and beside it NVIDIA Dynamo's replay of the same.

    python benchmarks/memory.py TRACE [--dynamo PYTHON_THAT_HAS_DYNAMO]

A row is the highest resident memory of a process that serves the whole trace, less that of one that serves its first
1,000 requests, a request more. Reading the trace is in.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from planner import core

FIRST = 1000  # requests of the run that the other is held against
OURS = """
import sys
from planner import load
from planner.core import no_cycles
from planner.system.resolve import resolve
from planner.traffic import workload
from simulator.backend import SimulatorBackend
from simulator.cluster import SimulatedCluster
spec = load("disagg", [
    "workload.kind=trace", f"workload.path={sys.argv[1]}", "deployment.router.policy=prefix_aware",
    "deployment.prefill.replicas=5", "deployment.decode.replicas=3", "deployment.link={bandwidth_gb_s: 50}",
    "engine.block_size=64", "run.step_records=false",
])
with no_cycles():
    system, sent = resolve(spec), workload.build(spec)
    held = SimulatorBackend().run(system, sent) if tables else SimulatedCluster(system, sent, record_steps=False).run()
"""
DYNAMO = """
import json, sys
import dynamo._core as core
def engine(role):
    given = {"worker_type": role, "block_size": 64, "backend": "vllm", "kv_transfer_bandwidth": 50.0,
             "kv_transfer_bytes_per_token": 131072}
    return core._normalize_mocker_config(json.dumps({"engine": given}))
held = core.run_mocker_trace_replay(
    [sys.argv[1]], trace_block_size=512, num_prefill_workers=5, num_decode_workers=3, router_mode="kv_router",
    prefill_engine_args=engine("prefill"), decode_engine_args=engine("decode"), sla_ttft_ms=300.0, sla_itl_ms=10.0,
)
"""
USED = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


def peak(python: str, code: str, trace: Path) -> tuple[float, float]:
    """(highest resident bytes, processor seconds) of a process that runs `code` on a trace."""
    environment = {**os.environ, "DYN_LOG": "error", "PYTHONPATH": str(Path(__file__).parents[1])}
    told = subprocess.run(
        [python, "-c", code + USED, str(trace)], check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    kilobytes, cpu_s = told.split()[-2:]
    return 1024 * float(kilobytes), float(cpu_s)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("trace", type=Path)
    options.add_argument("--dynamo", metavar="PYTHON")
    given = options.parse_args()
    rows = {"without tables": (sys.executable, f"tables = False{OURS}")}
    rows["with tables"] = (sys.executable, f"tables = True{OURS}")
    if given.dynamo:
        rows["Dynamo"] = (given.dynamo, DYNAMO)
    how = "compiled" if core.core().compiled else "interpreted"
    print(f"{how} core, load average {os.getloadavg()[0]:.1f}\n")
    print("| | KB a request | peak MB | processor s |\n|---|---|---|---|")
    with TemporaryDirectory() as folder, given.trace.open() as lines:
        few = Path(folder) / "few.jsonl"
        few.write_text("".join(islice(lines, FIRST)))
        more = sum(1 for _ in lines)
        for name, (python, code) in rows.items():
            base, _ = peak(python, code, few)
            most, cpu_s = peak(python, code, given.trace)
            print(f"| {name} | {(most - base) / more / 1e3:.2f} | {most / 1e6:.0f} | {cpu_s:.1f} |", flush=True)


if __name__ == "__main__":
    main()
