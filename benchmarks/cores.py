"""Are the compiled core, the interpreted one and one-step-at-a-time engines equal? Random deployments, all tables.

    python -m simulator.compile && python benchmarks/cores.py [--specs 300]

Tables of both cores must be the same bytes; times of engines that take every step by themselves may differ by 1e-9 s.
Ends with 1 where something differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from planner import core

ROOT = Path(__file__).resolve().parent.parent


def tables(specs: int, *more: str, interpreted: bool = False) -> list[str]:
    """`checksum of all tables` of each spec. Raises CalledProcessError where single steps come to something else."""
    choice = {"PLANNER_INTERPRETED": "1"} if interpreted else {}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, str(ROOT / "tests" / "core_cases.py"), str(specs), *more]
    found = subprocess.run(
        command, env={**os.environ, **choice, "PYTHONPATH": paths}, check=True, stdout=subprocess.PIPE, text=True
    )
    return found.stdout.splitlines()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--specs", type=int, default=300)
    specs = options.parse_args().specs
    if not core.core().compiled:
        sys.exit(core.core().why)
    compiled, interpreted = tables(specs, "--step"), tables(specs, interpreted=True)
    differing = [at for at, pair in enumerate(zip(compiled, interpreted, strict=True)) if len(set(pair)) > 1]
    print(
        f"{len(compiled)} specs, {sum('refused' in line for line in compiled)} of them refused; differing: {differing}"
    )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
