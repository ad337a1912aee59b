"""vLLM's NIXL connectors for several engines on the cores of one host, through vLLM's `kv_connector_module_path`.

The classes are vLLM's own: the same handshakes, transfers and counters. Two things that suit a GPU host with cores to
spare are put right before they start, because on a few cores they take most of the time of the engines themselves:

- NIXL's Python API asks its progress thread to poll without a pause: one whole core an engine (0.7 of a core measured
  for an idle agent of nixl 1.5.1; with a pause of 0.1 ms, 0.02).
- vLLM binds the engine's main thread, which computes the model on a CPU, to the last core of the host, in every engine
  alike: one prefill and one decode worker then share a core while the others idle.

Loaded by the server process only.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from nixl._api import nixl_agent
from vllm.distributed.kv_transfer.kv_connector.v1.nixl import connector as _vllm

PROGRESS_PAUSE_US = 100

_bindings: Any = importlib.import_module(nixl_agent.__module__).nixlBind
_agent = _bindings.nixlAgent


def _pausing_agent(name: str, config: Any) -> Any:
    config.pthrDelay = PROGRESS_PAUSE_US
    return _agent(name, config)


_bindings.nixlAgent = _pausing_agent


class _WhereItWas:
    """Before a connector class of vLLM: the thread that makes it may run on the same cores afterwards."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        cores = os.sched_getaffinity(0)
        super().__init__(vllm_config, role, kv_cache_config)  # type: ignore[call-arg]
        os.sched_setaffinity(0, cores)


class NixlConnector(_WhereItWas, _vllm.NixlConnector):
    """Pull: the decode worker reads."""


class NixlPushConnector(_WhereItWas, _vllm.NixlPushConnector):
    """Push: the prefill worker writes."""
