"""Random deployments, and what this process's core makes of them: a line each, `checksum of all tables`.

    python tests/core_cases.py COUNT [--step]     PLANNER_INTERPRETED=1 chooses the interpreted core

`--step` also takes every step by itself, and ends with an error where a time differs by more than 1e-9 s.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from planner.core import core
from planner.run.tables import Run
from planner.spec import SpecError, parse
from planner.system.resolve import resolve
from planner.traffic.workload import build
from simulator.backend import SimulatorBackend
from test_cluster import DEPLOYMENTS, ENGINES, ORDER, WORKLOADS, text

OPTIMIZATIONS = [
    *["{}"] * 4,
    "{transfer: {layerwise: {groups: 4}}}",
    "{transfer: {staging: host, compression: {}}}",
    "{decode: {offload: [{capacity_gb: 4}]}}",
    "{decode: {preemption: swap}}",
    "{separation: {role_switch: {}}}",
]


def specs(count: int) -> Iterator[str]:
    rng = random.Random("core")
    for seed in range(count):
        deployment, workload, engine = (rng.choice(kind) for kind in (DEPLOYMENTS, WORKLOADS, ENGINES))
        yield text(deployment, workload, engine, seed) + f"optimizations: {rng.choice(OPTIMIZATIONS)}\n"


def simulated(yaml: str, fast_forward: bool) -> Run | None:
    try:
        spec = parse(yaml, "case")
        return SimulatorBackend(fast_forward=fast_forward).run(resolve(spec), build(spec))
    except SpecError:  # an optimisation that this deployment cannot have
        return None


def checksum(run: Run | None) -> str:
    if run is None:
        return "refused"
    with TemporaryDirectory() as folder:
        run.save(Path(folder))
        files = sorted(Path(folder).iterdir())
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def main() -> None:
    print("compiled" if core().compiled else "interpreted", file=sys.stderr)
    for number, yaml in enumerate(specs(int(sys.argv[1]))):
        fast = simulated(yaml, True)
        print(number, checksum(fast), flush=True)
        if fast is not None and "--step" in sys.argv:
            slow = simulated(yaml, False)
            assert slow is not None
            assert fast.requests["worker"].equals(slow.requests["worker"]), yaml
            for column in [*ORDER, "first_token_s"]:
                same = np.allclose(fast.requests[column], slow.requests[column], atol=1e-9, rtol=0, equal_nan=True)
                assert same, f"{yaml}{column}"


if __name__ == "__main__":
    main()
