"""The wires KV travels on: presets and the numbers a spec puts over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from planner.engine.catalogue import Hardware, LinkPreset, link
from planner.engine.profile_file import HandOverLaw, WireLaw
from planner.spec import Link, LinkClass
from planner.system.hand_over import ALONE, HandOver
from planner.system.placement import Host

SMALL = 0.5  # of a wire's bandwidth: what pieces of 128 and 256 KiB got on NVLink, in loads of two pairs


@dataclass(frozen=True, slots=True)
class Wire:
    """A resolved link class. Bandwidth in bytes a second, times in seconds; `source` says where it is from."""

    name: str
    bandwidth: float
    latency_s: float
    setup_s: float
    sharing: Literal["fair", "fifo"]
    source: str


@dataclass(frozen=True, slots=True)
class Wires:
    """The wires of a disaggregated deployment. `nic` is the uplink of each node in bytes a second."""

    intra_node: Wire
    inter_node: Wire
    inter_rack: Wire
    nic: dict[str, float]
    hand_over: HandOver


def default_preset(hardware: Hardware) -> str:
    """The wire between two GPUs of one node: NVLink of its generation, PCIe, or shared memory on CPU."""
    if hardware.kind == "cpu":
        return "cpu_shm"
    if hardware.nvlink_gb_s is not None:
        return {300.0: "nvlink3", 900.0: "nvlink5"}.get(hardware.nvlink_gb_s, "nvlink")
    return "pcie5" if hardware.pcie_gb_s > 40 else "pcie4"


def _wire(layers: list[LinkClass], default: str, measured: WireLaw | None = None) -> Wire:
    """Later layers win key by key; a preset named in a layer replaces everything before it.

    A `measured` wire stands in for the default preset, but for how it is shared.
    """
    base: LinkPreset = link(default)
    if measured is not None:
        numbers = {"latency_us": 1e6 * measured.latency_s, "setup_us": 1e6 * measured.setup_s}
        told = {"name": "measured", "source": "measured with the latency profile"}
        base = base.model_copy(update={"bandwidth_gb_s": measured.bandwidth_gb_s, **numbers, **told})
    name, bandwidth, latency, setup = base.name, base.bandwidth_gb_s, base.latency_us, base.setup_us
    sharing, source = base.sharing, base.source
    for layer in layers:
        if layer.preset is not None:
            base = link(layer.preset)
            name, bandwidth, latency, setup = base.name, base.bandwidth_gb_s, base.latency_us, base.setup_us
            sharing, source = base.sharing, base.source
        own = [
            key for key in ("bandwidth_gb_s", "latency_us", "setup_us", "sharing") if getattr(layer, key) is not None
        ]
        if own:
            name, source = "custom", f"{', '.join(own)} set in the spec, the rest from {base.name}: {base.source}"
        bandwidth = layer.bandwidth_gb_s if layer.bandwidth_gb_s is not None else bandwidth
        latency = layer.latency_us if layer.latency_us is not None else latency
        setup = layer.setup_us if layer.setup_us is not None else setup
        sharing = layer.sharing if layer.sharing is not None else sharing
    return Wire(name, bandwidth * 1e9, latency * 1e-6, setup * 1e-6, sharing, source)


def connector_config(spec: Link) -> dict[str, object]:
    """What vLLM's --kv-transfer-config says of a link, whoever starts the servers."""
    config: dict[str, object] = {"kv_connector": spec.connector}
    extra: dict[str, object] = {}
    if spec.cross_layer_blocks:
        extra["enable_cross_layers_blocks"] = "True"
    if spec.nixl_threads is not None:
        extra["num_threads"] = spec.nixl_threads
    return config | ({"kv_connector_extra_config": extra} if extra else {})


def _hand_over(spec: Link, hardware: Hardware, measured: HandOverLaw | None) -> HandOver:
    """Of the preset of one node's wire, or as `measured`, unless the spec says otherwise."""
    inner = spec.intra_node.preset if spec.intra_node else None
    base: LinkPreset = link(inner or spec.preset or default_preset(hardware))
    known = measured or HandOverLaw(
        post_s=base.post_us * 1e-6,
        way_s=base.way_ms * 1e-3,
        way_per_token_s=base.way_us_per_token * 1e-6,
        slowing=base.slowing,
        pull_beside=base.pull_beside,
        idle_look_s=base.idle_look_ms * 1e-3,
        block_size=base.block_size,
        piece_bytes=base.piece_bytes,
        pull_block_sizes=base.pull_block_sizes,
        push_block_sizes=base.push_block_sizes,
        tp=base.tp,
    )
    push = spec.connector == "NixlPushConnector"
    checked = known.push_block_sizes if push else known.pull_block_sizes
    return HandOver(
        post_s=known.post_s if spec.post_us is None else spec.post_us * 1e-6,
        alone=known.alone or ALONE,
        way_s=known.way_s if spec.way_ms is None else spec.way_ms * 1e-3,
        way_per_token_s=known.way_per_token_s if spec.way_us_per_token is None else spec.way_us_per_token * 1e-6,
        push=push,
        cross_layer_blocks=spec.cross_layer_blocks,
        slowing=known.slowing,
        pull_beside=known.pull_beside,
        idle_look_s=known.idle_look_s,
        measured_block_sizes=() if known.block_size is None else (known.block_size, *checked),
        measured_tp=known.tp,
        piece_bytes=known.piece_bytes or 0.0,
    )


def of_pieces(net: Wires, piece_bytes: float, hardware: Hardware) -> Wires:
    """The wires with pieces of other sizes than hand-overs were measured with.

    What a piece takes of the measured wire it takes whatever its size; more bytes go at SMALL of the hardware's speed.
    """
    known, hand, inner = net.hand_over.piece_bytes, net.hand_over, net.intra_node
    if not known or not hand.post_s or piece_bytes == known:
        return net
    full = SMALL * 1e9 * link(default_preset(hardware)).bandwidth_gb_s
    each_s = known / inner.bandwidth + max(piece_bytes - known, 0.0) / full
    return replace(
        net,
        intra_node=replace(inner, bandwidth=piece_bytes / each_s),
        hand_over=replace(hand, piece_bytes=piece_bytes),
    )


def wires(
    spec: Link,
    hardware: Hardware,
    hosts: list[Host],
    measured: WireLaw | None = None,
    measured_hand_over: HandOverLaw | None = None,
) -> Wires:
    """`spec`'s top level is the wire of one node; between nodes InfiniBand (CPU: 10 Gb/s Ethernet) unless given.

    `measured` are the wire of one node and what hand-overs on it cost, as a profile has them.
    """
    between = "ethernet_10g" if hardware.kind == "cpu" else "ib_400"
    top = LinkClass(**{key: getattr(spec, key) for key in LinkClass.model_fields})
    inter_node = [spec.inter_node] if spec.inter_node else []
    inter_rack = [*inter_node, *([spec.inter_rack] if spec.inter_rack else [])]
    return Wires(
        intra_node=_wire([top, *([spec.intra_node] if spec.intra_node else [])], default_preset(hardware), measured),
        inter_node=_wire(inter_node, between),
        inter_rack=_wire(inter_rack, between),
        nic={host.name: host.nic_gb_s * 1e9 for host in hosts},
        hand_over=_hand_over(spec, hardware, measured_hand_over),
    )
