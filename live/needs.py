"""What `live` needs besides the base install, and the one command that installs it here. Imports nothing of it."""

from __future__ import annotations

import importlib.util
import shutil

FRONTEND = ("aiohttp", "prometheus_client", "tokenizers", "safetensors", "zmq", "msgspec")
INSTALL_FRONTEND = "pip install 'llm-capacity-planner[frontend]'"
INSTALL_GPU = "pip install 'llm-capacity-planner[live]'"
INSTALL_CPU = "python -m live.install_cpu"


def missing(modules: tuple[str, ...] = FRONTEND) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]


def install_command() -> str:
    """vLLM, its build for this machine, with all that the frontend and the client need."""
    return INSTALL_GPU if shutil.which("nvidia-smi") else INSTALL_CPU


def need(*, servers: bool) -> None:
    """Raises ImportError, one line with the command. `servers`: some are started here, not only talked to."""
    lacking = missing()
    if not lacking:
        return
    command = install_command() if servers and missing(("vllm",)) else INSTALL_FRONTEND
    raise ImportError(f"this needs packages that are not installed here ({', '.join(lacking)}): {command}")
