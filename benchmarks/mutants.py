"""Mutation testing of the simulator: how many small changes of its source do its quick tests notice?

    PYTHONPATH=. python benchmarks/mutants.py [--sample 20] [--modules link batching] [--seed 0]

cosmic-ray, which must be importable, makes the mutants; a seeded sample of each module's is run against the tests named
below, with the interpreted core. Each runs in a fork of this process, which has imported pytest and everything that is
no part of the simulator: the fork imports the module with the change, no file is touched. One that takes three times
the processor time of the unchanged module is ended and counts as noticed. Prints a score a module and
every survivor as a diff. benchmarks/mutation.md has the results, and what became of the survivors.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gc
import importlib.abc
import importlib.util
import math
import os
import random
import resource
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = "hand_over cluster dispatch worker"
TESTS = {
    "batching": "batching oracle worker",
    "kv_cache": "kv_cache oracle worker",
    "link": "link",
    "fabric": "link knobs hand_over cluster",
    "sharing": "sharing hand_over",
    "decodes": "oracle worker cluster",
    "worker": "oracle worker batching lockstep knobs hand_over cluster",
    "sequence": "batching oracle worker dispatch",
    "pool": f"{CLUSTER} lockstep",
    "host_memory": "knobs memory",
    "cluster": f"{CLUSTER} queueing knobs",
}
# Annotations are never evaluated (`from __future__ import annotations`): changes of `X | None` there change nothing.
IN_ANNOTATIONS = "core/ReplaceBinaryOperator_BitOr_"


class Changed(SourceFileLoader):
    """Imports a module as other text than its file's."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    """Finds one module, changed."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.path, self.text = name, path, text

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = Changed(fullname, str(self.path), self.text)
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def mutants(path: Path) -> list[tuple[str, int]]:
    """(operator, occurrence) of every change that cosmic-ray knows of a file."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    nodes = list(ast_nodes(get_ast(path.read_text())))
    found = []
    for name in sorted(cosmic_ray.plugins.operator_names()):
        if name.startswith(IN_ANNOTATIONS):
            continue
        kind = cosmic_ray.plugins.get_operator(name)
        if not kind.arguments():  # of names to put in: none are given
            positions = sum(1 for node in nodes for _ in kind().mutation_positions(node))
            found += [(name, number) for number in range(positions)]
    return found


def changed(path: Path, operator: str, number: int) -> str:
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    text = mutate_code(path.read_text(), cosmic_ray.plugins.get_operator(operator)(), number)
    if text is None:
        raise ValueError(f"{path}: no change {number} of {operator}")
    return str(text)


def survives(module: str, text: str, seconds: int) -> tuple[bool, float]:
    """Whether the module's tests pass with this text, and their seconds of processor time; what hangs is ended."""
    path = ROOT / "simulator" / f"{module}.py"
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
            resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
            signal.alarm(20 * seconds)
            for number in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            sys.meta_path.insert(0, Finder(f"simulator.{module}", path, text))
            import pytest

            options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
            files = [str(ROOT / "tests" / f"test_{name}.py") for name in TESTS[module].split()]
            os._exit(int(pytest.main([*options, *files])))
        finally:
            os._exit(9)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status == 0, usage.ru_utime + usage.ru_stime


def score(module: str, given: argparse.Namespace) -> int:
    """Print a module's score and survivors; how many there are."""
    path = ROOT / "simulator" / f"{module}.py"
    passes, took_s = survives(module, path.read_text(), 600)
    if not passes:
        raise RuntimeError(f"{module}: its tests fail as it is")
    limit_s = math.ceil(3 * took_s) + 5
    every = mutants(path)
    sample = random.Random(given.seed).sample(every, min(given.sample, len(every)))
    survivors = 0
    for operator, number in sample:
        text = changed(path, operator, number)
        if survives(module, text, limit_s)[0]:
            survivors += 1
            lines = list(difflib.unified_diff(path.read_text().splitlines(), text.splitlines(), n=0, lineterm=""))
            print("\n".join([f"{module}: survived: {operator} {number}", *lines[2:]]), flush=True)
    cost = f"{len(every)} mutants in all; its tests take {took_s:.0f} s"
    print(f"{module}: {len(sample) - survivors} of {len(sample)} killed ({cost})", flush=True)
    return survivors


def prepare() -> None:
    """Import what tests import, but for the simulator."""
    import hypothesis.strategies  # noqa: F401
    import pandas as pd  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401

    import planner.calibration.fitting
    import planner.run.metrics
    import planner.traffic.workload  # noqa: F401

    for name in [name for name in sys.modules if name.partition(".")[0] == "simulator"]:
        del sys.modules[name]
    gc.freeze()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=20, help="of a module")
    parser.add_argument("--modules", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--seed", type=int, default=0)
    given: Any = parser.parse_args()
    os.environ["PLANNER_INTERPRETED"] = "1"
    os.environ["PYTHONPATH"] = str(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.dont_write_bytecode = True
    prepare()
    return 1 if sum([score(module, given) for module in given.modules]) else 0


if __name__ == "__main__":
    sys.exit(main())
