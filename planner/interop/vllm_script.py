"""A bash script that starts the engines on one machine, waits for them, and puts a proxy in front."""

from __future__ import annotations

import shlex

from planner.interop.workers import VLLM, EngineCommand, engine_commands, needed_hub_id, one_node, transfer_option
from planner.system.resolve import System

HEAD = """\
#!/usr/bin/env bash
# {name}: {engines} behind one OpenAI-compatible address. Options are those of vLLM {vllm}.
# Everything listens on 127.0.0.1. MODEL, PORT and LOGS may be set; Ctrl-C stops all of it.
set -euo pipefail
MODEL=${{MODEL:-{model}}}
PORT=${{PORT:-8000}}
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
LOGS=${{LOGS:-$here/logs}}
mkdir -p "$LOGS"
export VLLM_HOST_IP=127.0.0.1 VLLM_NO_USAGE_STATS=1

pids=()
stop() {{
  trap - EXIT INT TERM
  kill "${{pids[@]}}" 2>/dev/null || true
  wait
}}
trap stop EXIT
trap 'stop; exit 130' INT TERM

ready() {{  # NAME PORT PID
  until curl -sf -o /dev/null "http://127.0.0.1:$2/health"; do
    kill -0 "$3" 2>/dev/null || {{ echo "$1 ended; see $LOGS/$1.log" >&2; exit 1; }}
    sleep 1
  done
}}
"""

CPU = "export VLLM_ENABLE_V1_MULTIPROCESSING=0 OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind\n"


def script(system: System, model: str | None = None) -> str:
    """The script. It expects `proxy.py` beside it, and the folder `model` there for a model without published weights.

    Raises SpecError for several nodes.
    """
    one_node(system, "vllm")
    workers = engine_commands(system)
    cpu = system.pools[0].hardware.kind == "cpu"
    text = HEAD.format(
        name=system.spec.name,
        engines=f"{len(workers)} vLLM server{'s' if len(workers) > 1 else ''}",
        vllm=VLLM,
        model=_default(system, model),
    )
    if cpu:
        text += CPU
    text += "\n" + "\n".join(_start(system, engine, cpu) for engine in workers)
    text += "\n" + "".join(f"ready {engine.name} {engine.port} {_pid(engine)}\n" for engine in workers)
    return text + "\n" + _proxy(workers)


def _default(system: System, model: str | None) -> str:
    """Text for `${MODEL:-...}`."""
    if model is not None:
        return f'"$(dirname "$0")/{model}"'
    return shlex.quote(needed_hub_id(system.spec.model))


def _pid(engine: EngineCommand) -> str:
    return f'"${engine.name.replace("-", "_")}"'


def _start(system: System, engine: EngineCommand, cpu: bool) -> str:
    environment = [f"VLLM_NIXL_SIDE_CHANNEL_HOST=127.0.0.1 VLLM_NIXL_SIDE_CHANNEL_PORT={engine.side_port}"]
    if not cpu:
        environment.insert(0, f"CUDA_VISIBLE_DEVICES={','.join(map(str, engine.gpus))}")
        command = 'vllm serve "$MODEL"'
    else:  # the CPU build of vLLM does not know its own version, which `vllm serve` asks for
        command = 'python3 -m vllm.entrypoints.openai.api_server --model "$MODEL"'
    options = [
        f"--served-model-name={served_name(system)}",
        "--host=127.0.0.1",
        f"--port={engine.port}",
        *engine.options,
        *transfer_option(system, engine.role),
    ]
    lines = " \\\n  ".join(shlex.quote(option) for option in options)
    variable = engine.name.replace("-", "_")
    return (
        f"{' '.join(environment)} \\\n  {command} \\\n  {lines} \\\n"
        f'  >"$LOGS/{engine.name}.log" 2>&1 &\n{variable}=$!\npids+=("${variable}")\n'
    )


def served_name(system: System) -> str:
    """What the servers call the model."""
    return system.spec.model.rstrip("/").rsplit("/", 1)[-1]


def _proxy(workers: list[EngineCommand]) -> str:
    urls = [f"--{engine.role}=http://127.0.0.1:{engine.port}" for engine in workers]
    return (
        'python3 "$here/proxy.py" --port="$PORT" \\\n  ' + " \\\n  ".join(urls) + ' >"$LOGS/proxy.log" 2>&1 &\n'
        'pids+=("$!")\n'
        'ready proxy "$PORT" "$!"\n'
        'echo "Ready: http://127.0.0.1:$PORT/v1"\n'
        'wait -n "${pids[@]}"\n'
        'echo "A server ended; see $LOGS" >&2\n'
        "exit 1\n"
    )
