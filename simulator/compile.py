"""Compile the core with mypyc: `python -m simulator.compile`. Needs a C compiler, mypy and setuptools.

Everything works without: the same files then run interpreted (planner/core.py), three times slower.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from planner import core

# The step loop and all that it calls for each request. Not here: what is done once a run, and what imports pydantic.
MODULES = """
planner/dispatch.py planner/routing.py
planner/traffic/contents.py planner/traffic/requests.py
simulator/batching.py simulator/clock.py simulator/cluster.py simulator/decodes.py simulator/fabric.py
simulator/host_memory.py simulator/host_pace.py simulator/kv_cache.py simulator/layers.py simulator/link.py
simulator/lockstep.py simulator/pool.py simulator/retrieval.py simulator/roles.py simulator/sequence.py
simulator/sharing.py simulator/worker.py
""".split()
GROUP = "planner.core"  # the library that holds them all is `planner.core__mypyc`


def build(folder: Path) -> None:
    """Compile MODULES into `folder`, as core.FOLDER is laid out; a folder that is there is replaced.

    Ends the process with mypyc's message where a module cannot be compiled, and raises what setuptools raises where the
    C compiler fails.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    # Types are checked elsewhere; packages that are not installed here must not change what comes out.
    flags = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    with TemporaryDirectory() as work, chdir(core.ROOT):
        sums = core.checksums(MODULES)
        extensions = mypycify(
            [*flags, f"--cache-dir={work}/mypy", *MODULES],
            group_name=GROUP,
            target_dir=f"{work}/c",
            opt_level="3",
            debug_level="0",
        )
        command = build_ext(Distribution({"name": GROUP, "ext_modules": extensions}))
        command.build_lib, command.build_temp = f"{work}/lib", f"{work}/objects"
        command.ensure_finalized()
        command.run()
        (Path(work) / "lib" / core.CHECKSUMS).write_text(sums)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(f"{work}/lib", folder)


def main() -> None:
    try:
        build(core.FOLDER)
    except ImportError as error:
        sys.exit(f"{error}: compiling needs mypy and setuptools; pip install mypy setuptools")
    print(f"compiled {len(MODULES)} modules into {core.FOLDER}")


if __name__ == "__main__":
    main()
