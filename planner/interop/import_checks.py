"""Is it really P/D? The mistakes that leave a prefill and a decode server beside each other without a hand-over.

Each check is a pure function of the servers and their roles, and a line in CHECKS. Sources: vLLM 0.32's NIXL connector
(TP sizes and block sizes must divide), its side channel (one port a server of a host, a reachable address in a pod).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from planner.interop.import_reading import Note, Role
from planner.interop.server import Server, connectors

Check = Callable[[Sequence[Server], Sequence[Role], str], list[Note]]
SIDE_CHANNEL_PORT, SIDE_CHANNEL_HOST = "VLLM_NIXL_SIDE_CHANNEL_PORT", "VLLM_NIXL_SIDE_CHANNEL_HOST"


def _of(servers: Sequence[Server], found: Sequence[Role], role: Role) -> list[Server]:
    return [server for server, own in zip(servers, found, strict=True) if own == role]


def _nixl(server: Server, where: str) -> bool:
    return any(name.startswith("Nixl") for name in connectors(server.transfer(where)))


def no_connector(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """A role without a connector: nothing is handed over, and the decode server computes every prompt again."""
    if len(set(found)) == 1 and found[0] == "aggregated":
        return []
    managed = [server for server in servers if server.place == "managed" and server.engine == "dynamo"]
    if any(not connectors(one.transfer(where)) and not one.values.get("connector") for one in managed):
        text = "not named on every worker: older releases of Dynamo take NIXL by themselves, later ones none"
        return [Note("warning", "kv-transfer-config", text)]
    text = "without a KV connector: nothing is handed over; add --kv-transfer-config"
    return [
        Note("mistake", server.note_key("kv-transfer-config"), f"{role} {text}")
        for server, role in zip(servers, found, strict=True)
        if server.engine not in ("sglang", "trtllm") and role != "aggregated" and not connectors(server.transfer(where))
        and not server.values.get("connector")
    ]  # fmt: skip


def one_direction(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """`kv_role`s that do not face each other."""
    given = [str(server.transfer(where).get("kv_role")) for server in servers if server.moves_kv(where)]
    if len(given) < 2:
        return []
    for role, other in (("kv_consumer", "kv_producer"), ("kv_producer", "kv_consumer")):
        if set(given) == {role}:
            text = f"every server is {role}; none is {other}, so no KV is handed over"
            return [Note("mistake", "kv_role", text)]
    wrong = {"prefill": "kv_consumer", "decode": "kv_producer"}
    return [
        Note("mistake", server.note_key("kv-transfer-config"), f"the {role} server is {wrong[role]}")
        for server, role in zip(servers, found, strict=True)
        if role in wrong and server.transfer(where).get("kv_role") == wrong[role]
    ]


def side_channels(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """NIXL's handshakes: servers of one host need a port each, pods an address that others reach."""
    pair = [
        server for server, role in zip(servers, found, strict=True) if role != "aggregated" and _nixl(server, where)
    ]
    notes = []
    for server in pair:
        if server.place == "pod" and SIDE_CHANNEL_HOST not in server.environment:
            text = f"{SIDE_CHANNEL_HOST} is not set: other pods are told to shake hands with localhost"
            notes.append(Note("mistake", server.key, text))
    hosts = [server for server in pair if server.place == "host"]
    seen: dict[tuple[str, str, str], str] = {}
    for server in hosts:
        port = server.environment.get(SIDE_CHANNEL_PORT, "5600")
        host = server.environment.get(SIDE_CHANNEL_HOST, "localhost")
        place = (server.machine, host, port)
        if place in seen:
            text = f"{SIDE_CHANNEL_PORT} {port} is {seen[place]}'s too: the second server does not start"
            notes.append(Note("mistake", server.key, text))
        elif host == "localhost" and len({one.machine for one in hosts}) > 1:
            text = f"{SIDE_CHANNEL_HOST} is not set: other machines are told to shake hands with localhost"
            notes.append(Note("mistake", server.key, text))
        seen.setdefault(place, server.key)
    return notes


def tp_ratio(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """NIXL wants one TP size to divide the other."""
    notes = []
    for first in _of(servers, found, "prefill"):
        for other in _of(servers, found, "decode"):
            low, high = sorted((first.tp, other.tp))
            if high % low:
                text = f"prefill tp {first.tp} and decode tp {other.tp}: NIXL refuses sizes that do not divide"
                notes.append(Note("mistake", other.note_key("tensor-parallel-size"), text))
    return notes


def block_sizes(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """KV blocks are handed over whole."""
    notes = []
    for first in _of(servers, found, "prefill"):
        for other in _of(servers, found, "decode"):
            mine, theirs = (one.values.get("block-size") for one in (first, other))
            if mine != theirs:
                text = f"prefill {mine or 'default'} and decode {theirs or 'default'}: blocks are handed over whole"
                notes.append(Note("mistake", other.note_key("block-size"), text))
    return notes


def kv_types(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """Both sides keep the same bytes."""
    kinds = {
        str(server.values.get("kv-cache-dtype", "auto"))
        for server, role in zip(servers, found, strict=True)
        if role != "aggregated"
    }
    if len(kinds) < 2:
        return []
    return [Note("mistake", "kv-cache-dtype", f"{' and '.join(sorted(kinds))}: the other side cannot read such KV")]


def caching_on_decode(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """Without a prefix cache every turn's whole KV is handed over again."""
    text = "off on decode: KV that is already there is handed over again"
    return [
        Note("mistake", server.note_key("enable-prefix-caching"), text)
        for server in _of(servers, found, "decode")
        if server.values.get("enable-prefix-caching") is False
    ]


CHECKS: dict[str, Check] = {
    "no_connector": no_connector,
    "one_direction": one_direction,
    "side_channels": side_channels,
    "tp_ratio": tp_ratio,
    "block_sizes": block_sizes,
    "kv_types": kv_types,
    "caching_on_decode": caching_on_decode,
}
_FORWARDS = re.compile(r"/v1/(?:chat/)?completions")


def mistakes(servers: Sequence[Server], found: Sequence[Role], where: str) -> list[Note]:
    """What every check finds."""
    return list(dict.fromkeys(note for check in CHECKS.values() for note in check(servers, found, where)))


def is_proxy(text: str) -> bool:
    """Whether a Python text forwards completions to prefill and decode servers."""
    program = re.search(r"^\s*(?:import|from)\s+\w+", text, re.M) is not None
    return program and _FORWARDS.search(text) is not None and "prefill" in text and "decode" in text


def proxy_mistakes(text: str, key: str) -> list[Note]:
    """A proxy that does not pass what the prefill server answers on to the decode server."""
    if "kv_transfer_params" in text:
        return []
    words = "never passes kv_transfer_params on: the decode server does not know whose KV to take, and prefills itself"
    return [Note("mistake", key, words)]
