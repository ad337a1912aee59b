"""Compile the core with mypyc: `python -m simulator.compile`. Needs a C compiler, mypy and setuptools.

Everything works without: the same files then run interpreted (planner/core.py), three times slower.
"""

from __future__ import annotations

import os
import shutil
import sys
from compileall import compile_dir
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from planner import core

# The step loop and all that it calls for each request. Not here: what is done once a run, and what imports pydantic.
MODULES = """
planner/dispatch.py planner/routing.py
planner/engine/engine_limits.py planner/engine/host_costs.py planner/engine/shared_kv.py planner/engine/step_time.py
planner/engine/warmth.py
planner/system/hand_over.py
planner/traffic/contents.py planner/traffic/loads.py planner/traffic/requests.py
simulator/batching.py simulator/clock.py simulator/cluster.py simulator/decodes.py simulator/fabric.py
simulator/host_memory.py simulator/host_pace.py simulator/kv_cache.py simulator/layers.py simulator/link.py
simulator/lockstep.py simulator/pool.py simulator/posts.py simulator/retrieval.py simulator/roles.py
simulator/sequence.py simulator/sharing.py simulator/step_rows.py simulator/step_seconds.py simulator/visits.py
simulator/worker.py
""".split()
# Types are checked elsewhere. Packages that are not installed here must not change what comes out, and those that are
# would be read whole: minutes and 5 GB where Ray and vLLM are.
CONFIG = """
[mypy]
ignore_missing_imports = True
follow_imports = silent

[mypy-ray.*,vllm.*,torch.*,transformers.*,safetensors.*,pandas.*,pyarrow.*,scipy.*,aiohttp.*,streamlit.*,altair.*]
follow_imports = skip
"""
GROUP = "planner.core"  # the library that holds them all is `planner.core__mypyc`


def build(folder: Path) -> None:
    """Compile MODULES into `folder`, as core.FOLDER is laid out; a folder that is there is replaced.

    Ends the process with mypyc's message where a module cannot be compiled, and raises what setuptools raises where the
    C compiler fails.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class Parallel(build_ext):  # type: ignore[misc]
        """Compiles the files of a library on all cores, where setuptools takes one after the other."""

        def build_extension(self, ext: Any) -> None:
            def compiled(source: str) -> list[str]:
                found: list[str] = self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    include_dirs=[*ext.include_dirs, headers],
                    # nobody but Python calls into it: its own calls need no table
                    extra_postargs=[*ext.extra_compile_args, "-fvisibility=hidden"],
                    depends=ext.depends,
                )
                return found

            with ThreadPoolExecutor(os.cpu_count()) as cores:
                ext.extra_objects = [*chain.from_iterable(cores.map(compiled, ext.sources))]
            ext.sources = []
            super().build_extension(ext)

    with TemporaryDirectory() as work, chdir(core.ROOT):
        (Path(work) / "mypy.ini").write_text(CONFIG)
        headers = f"{work}/c/{GROUP.split('.')[0]}"  # of a group with a dot in its name
        sums = core.checksums(MODULES)
        extensions = mypycify(
            [f"--config-file={work}/mypy.ini", f"--cache-dir={work}/mypy", *MODULES],
            group_name=GROUP,
            target_dir=f"{work}/c",
            opt_level="3",
            debug_level="0",
            multi_file=True,  # a C file for each module
        )
        command = Parallel(Distribution({"name": GROUP, "ext_modules": extensions}))
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
    # Python writes bytecode as it imports, but not where PYTHONDONTWRITEBYTECODE is set: there each start would pay.
    for package in ("planner", "simulator", "live"):
        compile_dir(core.ROOT / package, quiet=1)
    print(f"compiled {len(MODULES)} modules into {core.FOLDER}")


if __name__ == "__main__":
    main()
