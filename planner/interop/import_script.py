"""Scripts and command lines as a deployment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from planner.engine.catalogue import gpu_named
from planner.interop import import_checks
from planner.interop.import_load import load_of
from planner.interop.import_reading import Choices, Imported, Note, Role
from planner.interop.import_servers import assemble
from planner.interop.import_vllm import Started, started
from planner.interop.server import Server
from planner.interop.shell import Command
from planner.spec import SpecError

# What a job of Slurm asks for: --gres=gpu:h100:8, --gpus-per-node=h100:8, -C h100
_SLURM = re.compile(
    r"(?m)^(?:#SBATCH\s(?:.*?\s)??(?:--(?:gres|gpus(?:-per-\w+)?|constraint|partition)[= ]|-[GCp]\s*)"
    r"|\s*srun\s(?:.*?\s)??--(?:gres|gpus(?:-per-\w+)?)[= ])(\S+)"
)
NAMES = {
    "vllm": "vllm serve",
    "dynamo": "Dynamo workers",
    "sglang": "SGLang",
    "trtllm": "TensorRT-LLM",
    "kserve": "KServe",
}
_ROUTERS = {
    "kv": "prefix_aware", "cache_aware": "prefix_aware", "cache-aware": "prefix_aware", "prefixaware": "prefix_aware",
    "kvaware": "prefix_aware", "round-robin": "round_robin", "round_robin": "round_robin", "roundrobin": "round_robin",
    "random": "random", "power_of_two": "power_of_two", "power-of-two": "power_of_two", "least-loaded": "least_loaded",
    "session": "session_affinity", "consistent_hash": "session_affinity",
}  # fmt: skip


def proxy_ports(commands: Sequence[Command]) -> dict[str, Role]:
    """Port -> role, as a proxy is told: `--prefill http://host:8100`, `--decoder-port 8200`."""
    found: dict[str, Role] = {}
    for command in commands:
        role: Role | None = None
        for word in command.words:
            if word.startswith("-"):
                name = word.partition("=")[0].lower()
                role = "prefill" if "prefill" in name else "decode" if "decod" in name else None
                word = word.partition("=")[2]
            if role is not None:
                for port in re.findall(r"(?:^|:)(\d{2,5})(?=$|[/,\s])", word):
                    found.setdefault(port, role)
    return found


def router_of(commands: Sequence[Command], split: bool) -> tuple[dict[str, Any] | None, list[Note]]:
    """The policy of the proxy or router that the script starts."""
    for command in commands:
        line = " ".join(command.words)
        mode = re.search(r"--(?:router-mode|policy|routing-logic)[ =](\S+)", line)
        if mode and mode[1] in _ROUTERS:
            return {"policy": _ROUTERS[mode[1]]}, [
                Note("assumed", "deployment.router", f"{mode[1]} as {_ROUTERS[mode[1]]}")
            ]
        if re.search(r"(^|/)proxy\.py\b", line) and re.search(r"--(?:aggregated|prefill)=http", line):
            return {"policy": "least_loaded"}, []  # what `planner export` writes
    if not split:
        return None, []
    return {"preset": "vllm_proxy"}, [Note("assumed", "deployment.router", "vLLM's example proxy: each pool in turn")]


def visible(environment: Mapping[str, str]) -> int | None:
    """How many GPUs a server sees, where the script says."""
    text = next(
        (environment[name] for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if name in environment), ""
    )
    parts = [part.strip() for part in text.split(",")]
    return len(parts) if parts and all(part.isdigit() for part in parts) else None


def shared_gpus(found: Sequence[Started]) -> list[Note]:
    """Two servers on one GPU: here each has its own."""
    seen: dict[tuple[str, str], int] = {}
    notes = []
    for index, one in enumerate(found):
        for gpu in str(one.environment.get("CUDA_VISIBLE_DEVICES", "")).split(","):
            here = (one.machine, gpu)
            if gpu.strip().isdigit() and here in seen:
                text = f"command {seen[here] + 1} has GPU {gpu} too; here each has its own"
                notes.append(Note("loss", f"command {index + 1}", text))
            seen.setdefault(here, index)
    return notes


_OWN_LINE = "an option on a line of its own: the line above does not end in \\, or is a comment"
_PER_NODE = re.compile(r"(?m)^#SBATCH.*--(?:gpus-per-node|gres)[= ](?:gpu:)?(?:[A-Za-z][\w.-]*:)?(\d+)\b")
_NODES = re.compile(r"(?m)^#SBATCH.*?(?:--nodes[= ]|-N\s*)(\d+)\b")


def batch_variables(text: str) -> dict[str, str]:
    """What Slurm sets for a batch script that asks for so many GPUs of a node and so many nodes."""
    if "#SBATCH" not in text:
        return {}
    gpus, nodes = _PER_NODE.search(text), _NODES.search(text)
    found = dict.fromkeys(("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"), gpus[1]) if gpus else {}
    if nodes:
        found |= dict.fromkeys(("SLURM_NNODES", "SLURM_JOB_NUM_NODES"), nodes[1])
    return {"SLURM_NODEID": "0", "SLURM_PROCID": "0", **found}


def read(text: str, where: str, name: str, choices: Choices) -> Imported:
    """A script of servers, and of what starts them. Raises SpecError."""
    found, others = started(text, where, batch_variables(text))
    if not found:
        named = re.search(r"trtllm-serve\s+disaggregated\b[^\n]*?(?:-c|--config_file|--config)[ =](\S+)", text)
        if named is not None:
            raise SpecError("{where}: its servers are in {path}; allowed: that file", where, named[1])
        raise SpecError(
            "{where}: no command that starts a server; allowed: `vllm serve MODEL`, `python -m dynamo.vllm`, `python "
            "-m sglang.launch_server`, `trtllm-serve`",
            where,
        )
    many = len(found) > 1
    servers = [
        Server(
            one.options,
            f"command {index + 1}" if many else "",
            one.engine,
            one.environment,
            one.hints,
            gpus=visible(one.environment),
            place="managed" if one.engine == "dynamo" else "host",
            named=False,
            doubts=one.doubts,
            machine=one.machine,
        )
        for index, one in enumerate(found)
    ]
    notes = shared_gpus(found)
    for command in others:
        for body in command.bodies:
            if import_checks.is_proxy(body):
                notes += import_checks.proxy_mistakes(body, command.words[-1] if command.words else "proxy")
        if command.words and command.words[0].startswith("--"):
            words = " ".join(command.words[:3])
            notes.append(Note("loss", words, _OWN_LINE, grave=True))
    ports = proxy_ports(others)
    made = assemble(NAMES[found[0].engine], name, where, servers, choices, ports=ports, notes=notes)
    section = made.data["deployment"]
    router, remarks = router_of(others, section["mode"] == "disaggregated")
    if router is not None:
        section["router"] = router
    load, losses = load_of(others, where)
    data = made.data if load is None else {**made.data, "workload": load}
    asked = next(((line, gpu) for line in _SLURM.findall(text) if (gpu := gpu_named(line))), None)
    if asked is not None:
        data = {"hardware": asked[1], **data}
        remarks = [*remarks, Note("assumed", "hardware", f"{asked[1]}, as the job asks for {asked[0]}")]
    return Imported(made.dialect, data, (*made.notes, *remarks, *losses))
