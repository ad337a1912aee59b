"""The engines of a deployment as other stacks start them: names, GPUs, ports, vLLM's options."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from planner.engine.catalogue import names
from planner.engine.hub_ids import published_as
from planner.spec import Disaggregated, SpecError
from planner.system.resolve import Pool, System
from planner.system.wires import connector_config

VLLM = "0.32"  # the version whose options these are
HTTP_PORT, SIDE_PORT = 8100, 5600  # of the first worker; each next one has the next port
ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """One vLLM server. `options` do not hold the model, the address, nor the KV connector."""

    name: str  # prefill-0
    role: str
    node: str
    gpus: tuple[int, ...]
    tp: int
    port: int
    side_port: int
    options: tuple[str, ...]


def hub_id(model: str) -> str | None:
    """Where to load the weights of a spec's model from: a folder or a hub id; None for a model without any."""
    return published_as(model) if model in names("models") else model


def needed_hub_id(model: str) -> str:
    """As `hub_id`. Raises SpecError for a model without published weights."""
    found = hub_id(model)
    if found is None:
        published = ", ".join(name for name in names("models") if published_as(name))
        raise SpecError(
            "model: {model} has no published weights; allowed for this export: {published}", model, published
        )
    return found


def engine_commands(system: System) -> list[EngineCommand]:
    """Every engine of the deployment, in the order of its pools."""
    found: list[EngineCommand] = []
    ranks = 0
    for pool in system.pools:
        options = tuple(pool_options(system, pool))
        for place in pool.servers:
            index = len(found)
            found.append(
                EngineCommand(
                    place.name,
                    pool.role,
                    place.node,
                    place.gpus,
                    pool.tp,
                    HTTP_PORT + index,
                    SIDE_PORT + ranks,
                    options,
                )
            )
            ranks += pool.dp  # each rank listens on a port of its own
    return found


def pool_options(system: System, pool: Pool) -> list[str]:
    """vLLM's options of one pool: what the spec sets and what the resolved limits stand for."""
    from live.launch import Runtime, engine_options

    if pool.dp > 1 and pool.setup.parallel.nodes > 1:
        raise SpecError(
            "deployment: a {role} worker of {dp} ranks stands on {nodes} nodes, which no export writes; allowed: ranks "
            "that fit one node",
            pool.role,
            pool.dp,
            pool.setup.parallel.nodes,
        )
    kind: Literal["cpu", "gpu"] = "cpu" if pool.hardware.kind == "cpu" else "gpu"
    runtime = Runtime(kind, VLLM, "vllm", "", nixl=None)
    return [*engine_options(system, pool, runtime), f"--load-format={pool.engine.load_format}"]


def transfer_config(system: System, role: str, *, both: bool = False) -> dict[str, object] | None:
    """vLLM's --kv-transfer-config of a role; None for aggregated engines. `both`: some stacks want kv_both."""
    deployment = system.spec.deployment
    if not isinstance(deployment, Disaggregated):
        return None
    config = connector_config(deployment.link) | {"kv_role": "kv_both" if both else ROLES[role]}
    if system.pools[0].hardware.kind == "cpu":
        config["kv_buffer_device"] = "cpu"
    return config


def transfer_option(system: System, role: str, *, both: bool = False) -> list[str]:
    config = transfer_config(system, role, both=both)
    return [] if config is None else ["--kv-transfer-config", json.dumps(config)]


def one_node(system: System, what: str) -> None:
    """Raises SpecError when the engines stand on several nodes."""
    nodes = sorted({place.node for pool in system.pools for place in pool.workers})
    if len(nodes) > 1:
        raise SpecError(
            "--to {what}: the deployment spans {nodes} nodes; allowed: one, or --to dynamo, --to llm-d",
            what,
            len(nodes),
        )


def dns_name(text: str) -> str:
    """Lower case letters, digits and dashes, as Kubernetes wants names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50]
