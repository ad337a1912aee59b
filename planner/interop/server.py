"""One kind of vLLM server, in whatever form a file names it, and the KV connectors that it may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.interop.import_reading import Role
from planner.interop.import_vllm import Options, as_json

LMCACHE_PD = "LMCache's P/D mode"  # the prefill side writes
# Connectors that hand KV to another server, and whether the sender writes (push).
CONNECTORS = {
    "NixlConnector": False, "NixlPullConnector": False, "NixlPushConnector": True, "P2pNcclConnector": True,
    "MooncakeConnector": True, "MoRIIOConnector": False, "PyNcclConnector": True, "ExampleConnector": False,
    "SharedStorageConnector": False, LMCACHE_PD: True,
}  # fmt: skip


@dataclass(frozen=True)
class Server:
    """One kind of server as its file gives it. `role`: by its section; `place`: who gives it an address."""

    options: Options
    key: str  # what the file calls it: `command 2`, `spec.services.Decode`
    engine: str = "vllm"
    environment: Mapping[str, str] = field(default_factory=dict)
    hints: tuple[str, ...] = ()
    role: Role | None = None
    replicas: int = 1
    gpus: int | None = None  # that the file gives to each copy
    place: Literal["host", "pod", "managed"] = "host"
    hardware: str | None = None
    named: bool = True  # the section's name is a role for certain
    machine: str = ""  # where a script names several
    doubts: tuple[str, ...] = ()  # conditions of its script that it depends on and the script does not decide

    @property
    def values(self) -> dict[str, Any]:
        return self.options.values

    def note_key(self, option: str) -> str:
        return f"{self.key}.{option}" if self.key else f"--{option}"

    def transfer(self, where: str) -> dict[str, Any]:
        """`--kv-transfer-config` as data; empty without one."""
        text = self.values.get("kv-transfer-config")
        return {} if text is None else as_json(text, f"{where}: {self.note_key('kv-transfer-config')}")

    def moves_kv(self, where: str) -> bool:
        """Whether its connector hands KV to another server, rather than to memory of its own."""
        return any(name in CONNECTORS for name in connectors(self.transfer(where)))

    @property
    def tp(self) -> int:
        return int(self.values.get("tensor-parallel-size", 1))

    @property
    def balances_ranks(self) -> bool:
        """Whether all ranks are behind this server's address."""
        elsewhere = {"data-parallel-rank", "data-parallel-external-lb", "data-parallel-multi-port-external-lb"}
        elsewhere.add("data-parallel-hybrid-lb")
        return all(self.values.get(name) in (None, False) for name in elsewhere)

    @property
    def copies(self) -> int:
        """Data-parallel engines of this server."""
        ranks = {"data-parallel-rank", "data-parallel-external-lb", "data-parallel-multi-port-external-lb"}
        if any(self.values.get(name) is not None and self.values[name] is not False for name in ranks):
            return 1
        if self.values.get("data-parallel-hybrid-lb"):
            return int(self.values.get("data-parallel-size-local", 1))
        return int(self.values.get("data-parallel-size", 1))


def connectors(config: Mapping[str, Any]) -> list[str]:
    """Names in a `--kv-transfer-config`, those inside a MultiConnector instead of it."""
    extra = config.get("kv_connector_extra_config")
    inner = extra.get("connectors") if isinstance(extra, Mapping) else None
    if isinstance(inner, list):
        return [name for one in inner if isinstance(one, Mapping) for name in connectors(one)]
    name = str(config.get("kv_connector") or "")
    if name.startswith("LMCache") and config.get("kv_role") in ("kv_producer", "kv_consumer"):
        return [LMCACHE_PD]
    return [name] if name else []
