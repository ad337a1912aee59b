"""Mutation testing of the simulator: how many small changes of its source do its quick tests notice?

    python benchmarks/mutants.py TREE --cosmic-ray BIN/cosmic-ray [--sample 50] [--modules link batching] [--seed 0]

TREE is a checkout of its own (`git worktree add --detach TREE`): its files are changed while this runs. cosmic-ray
(from an environment of its own) makes the mutants; a seeded sample of each module's is run against the tests named
below, with the interpreted core. Prints a score a module and every survivor as a diff. benchmarks/mutation.md has the
results, and what became of the survivors.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = {
    "batching": "tests/test_batching.py tests/test_worker.py",
    "kv_cache": "tests/test_kv_cache.py",
    "link": "tests/test_link.py",
    "cluster": "tests/test_cluster.py",
}
CONFIG = """
[cosmic-ray]
module-path = "simulator/{module}.py"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -B -m pytest -q -x -p no:cacheprovider -p no:xdist {tests}"
[cosmic-ray.distributor]
name = "local"
"""
# Annotations are never evaluated (`from __future__ import annotations`): changes of `X | None` there change nothing.
IN_ANNOTATIONS = "core/ReplaceBinaryOperator_BitOr_"


def sampled(session: Path, count: int, seed: int) -> int:
    """Keep so many of a session's mutants; how many there were."""
    with sqlite3.connect(session) as store:
        rows = store.execute(
            "SELECT job_id, operator_name FROM mutation_specs ORDER BY operator_name, start_pos_row, occurrence"
        ).fetchall()
        able = [job for job, operator in rows if not operator.startswith(IN_ANNOTATIONS)]
        kept = set(random.Random(seed).sample(able, min(count, len(able))))
        gone = [(job,) for job, _ in rows if job not in kept]
        store.executemany("DELETE FROM mutation_specs WHERE job_id = ?", gone)
        store.executemany("DELETE FROM work_items WHERE job_id = ?", gone)
    return len(able)


def score(module: str, given: argparse.Namespace) -> int:
    """Print a module's score and survivors; how many there are."""
    environment = os.environ | {"PYTHONPATH": str(given.tree), "PLANNER_INTERPRETED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        config, session = Path(folder) / "config.toml", Path(folder) / "session.sqlite"
        config.write_text(
            CONFIG.format(module=module, python=sys.executable, tests=TESTS[module], timeout=given.timeout)
        )

        def cosmic_ray(*words: str) -> str:
            command = [given.cosmic_ray, *words]
            return subprocess.run(
                command, cwd=given.tree, env=environment, capture_output=True, text=True, check=True
            ).stdout

        cosmic_ray("init", str(config), str(session))
        made = sampled(session, given.sample, given.seed)
        cosmic_ray("exec", str(config), str(session))
        with sqlite3.connect(session) as store:
            found = store.execute("SELECT test_outcome, worker_outcome, diff FROM work_results").fetchall()
    killed = sum(outcome != "SURVIVED" for outcome, _, _ in found)
    print(f"{module}: {killed} of {len(found)} killed ({made} mutants in all)", flush=True)
    survivors = [diff for outcome, _, diff in found if outcome == "SURVIVED"]
    for diff in survivors:
        print("\n".join(line for line in diff.splitlines() if line[:1] in "+-@"), flush=True)
    return len(survivors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--cosmic-ray", default="cosmic-ray")
    parser.add_argument("--sample", type=int, default=50, help="of a module")
    parser.add_argument("--modules", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds; a mutant that hangs is killed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.tree = given.tree.resolve()
    return 1 if sum(score(module, given) for module in given.modules) else 0


if __name__ == "__main__":
    sys.exit(main())
