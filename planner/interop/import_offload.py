"""KV connectors by what they do, and KV kept below the GPU: vLLM's offloading, LMCache, Dynamo's KVBM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from planner.interop.import_reading import Note
from planner.interop.server import CONNECTORS, Server, connectors

GIB = 2**30 / 1e9  # GB in a GiB
_STORE = re.compile(r"offload|lmcache|kvbm|dynamoconnector|store|flexkv|hicache|hf3fs|^pdconnector", re.I)


def _extra(config: Mapping[str, Any]) -> dict[str, Any]:
    extra = config.get("kv_connector_extra_config")
    if not isinstance(extra, Mapping):
        return {}
    found = dict(extra)
    for one in extra.get("connectors") or ():
        found |= _extra(one) if isinstance(one, Mapping) else {}
    return found


def _number(value: Any) -> float | None:
    try:
        return float(str(value).rstrip("GBgi "))
    except ValueError:
        return None


def gigabytes(text: Any) -> float | None:
    """`10Gi`, `20G`, `512Mi` or a number of GB, in GB."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*", str(text))
    if match is None:
        return None
    unit = match[2] or "G"
    scale = 10.0 ** (3 * "KMGT".index(unit[0]) - 6)
    return float(match[1]) * scale * (1.024 ** ("KMGT".index(unit[0]) + 1) if unit.endswith("i") else 1.0)


def _tiers_of(server: Server, where: str) -> tuple[list[float], list[Note]]:
    """Capacities in GB a worker, the fastest first."""
    values, environment, config = server.values, server.environment, server.transfer(where)
    names = [*connectors(config), str(values.get("connector", ""))]
    key = server.note_key("kv-offloading-size")
    extra = _extra(config)
    size = _number(values.get("kv-offloading-size"))
    if size:
        return [size * GIB], []
    for name in ("cpu_bytes_to_use", "cpu_bytes_to_use_per_rank", "lmcache.max_local_cpu_size"):
        if (size := _number(extra.get(name))) is not None and size > 0:
            scale = server.tp if name.endswith("per_rank") else 1
            return [size * scale / 1e9 if "bytes" in name else size * server.tp], []
    if size := _number(environment.get("DYN_KVBM_CPU_CACHE_GB")):
        disk = _number(environment.get("DYN_KVBM_DISK_CACHE_GB"))
        return [size, *([disk] if disk else [])], []
    lmcache = any(name.startswith("LMCache") for name in names) or values.get("kv-offloading-backend") == "lmcache"
    if lmcache and str(environment.get("LMCACHE_LOCAL_CPU", "True")).lower() == "true":
        size = _number(environment.get("LMCACHE_MAX_LOCAL_CPU_SIZE"))
        if size:
            return [size * server.tp], [Note("assumed", key, "LMCache's size is one GPU's: times tp")]
    stores = [name for name in names if name not in CONNECTORS and _STORE.search(name)]
    if stores:
        text = f"{', '.join(stores)} keeps KV outside the GPU, and the file does not say how much; none is modelled"
        return [], [Note("loss", server.note_key("kv-transfer-config"), text)]
    return [], []


def tiers(servers: Sequence[Server], where: str) -> tuple[list[dict[str, Any]], list[Note]]:
    """`optimizations.decode.offload` of all servers: one for every worker, so theirs must be equal."""
    found = [_tiers_of(server, where) for server in servers]
    notes = list(dict.fromkeys(note for _, remarks in found for note in remarks))
    sizes = [capacities for capacities, _ in found if capacities]
    if not sizes:
        return [], notes
    if any(capacities != sizes[0] for capacities, _ in found):
        text = "not the same on every server; the first one's is taken for all"
        notes.append(Note("loss", "KV tiers", text))
    text = "KV below the GPU; the speed is PCIe's unless optimizations.decode.offload says read_gb_s"
    notes.append(Note("assumed", "optimizations.decode.offload", text))
    return [{"capacity_gb": round(size, 6)} for size in sizes[0]], notes
