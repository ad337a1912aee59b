"""The wheel's optional build step: compiled modules of the core, for this platform and interpreter."""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledCore(BuildHookInterface):  # type: ignore[misc]
    """On when HATCH_BUILD_HOOKS_ENABLE=1."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from planner import core
        from simulator.compile import build

        if not core.look(core.FOLDER).compiled:
            build(core.FOLDER)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(core.FOLDER)] = f"planner/_compiled/{core.PLATFORM}"
