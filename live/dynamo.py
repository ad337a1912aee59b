"""NVIDIA Dynamo as the stack that serves a system: what each of its processes is told.

Its frontend routes to workers that run vLLM on GPUs, or without any its mocker: a worker without a model, whose steps
last as long as a table says. The table is the law of the pool's profile, so that only routing, queueing and hand-over
are Dynamo's own. Processes find each other through a folder, talk by TCP and publish KV events by ZMQ.
Options are those of Dynamo 1.4 (`python -m dynamo.frontend --help`, `dynamo.mocker`, `dynamo.vllm`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from live import knobs
from live.launch import MODEL_NAME, LiveError, Ports, Runtime, engine_options, server_environment, visible_gpus
from live.models import ServedModel, cache_folder, make_folder
from planner.messages import message
from planner.spec import Disaggregated, SpecError
from planner.system.resolve import Pool, System
from planner.system.wires import connector_config

if TYPE_CHECKING:
    import numpy as np

DISTRIBUTION, TRIED = "ai-dynamo", "1.4.2"
INSTALL = "`pip install 'llm-capacity-planner[dynamo]'`, or give the Python that has it: --stack dynamo=PYTHON"
ENDPOINTS = {"prefill": "dyn://dynamo.prefill.generate", "decode": "dyn://dynamo.backend.generate"}
ENDPOINTS["aggregated"] = ENDPOINTS["decode"]
PLANES = ("--discovery-backend=file", "--request-plane=tcp", "--event-plane=zmq")
# Dynamo's router modes for our policies; the others have no counterpart there.
MODES = {"prefix_aware": "kv", "round_robin": "round-robin", "random": "random", "least_loaded": "least-loaded"}
MODES["power_of_two"] = "power-of-two"
MODES["session_affinity"] = "random"  # of a session's first turn; later ones stay with its worker
AFFINITY, AFFINITY_S = "router-session-affinity-ttl-secs", 600  # the option, and for how long an idle session stays
SESSION_HEADER = "x-dynamo-session-id"  # by which it knows a session
NVEXT = {"extra_fields": ["worker_id", "timing"]}  # asks for the workers of a request in its answer
GRID = 1.1  # neighbours in a step table: linear between them is 0.1 % off a hyperbola
_VERSIONS = (
    "import importlib.metadata as m, json\n"
    "def v(name):\n"
    "    try: return m.version(name)\n"
    "    except m.PackageNotFoundError: return None\n"
    "print(json.dumps([v(name) for name in ('ai-dynamo', 'vllm', 'torch', 'nixl')]))"
)


def router_mode(policy: str) -> str:
    """Dynamo's name of a routing policy. Raises SpecError for one that it does not have."""
    if policy not in MODES:
        raise SpecError(
            "deployment.router.policy: Dynamo has no {policy!r}; allowed: {modes}", policy, ", ".join(MODES)
        )
    return MODES[policy]


def router_options(policy: str) -> dict[str, str]:
    """The options that make Dynamo's frontend route by a policy, without dashes. Raises SpecError as `router_mode`."""
    options = {"router-mode": router_mode(policy)}
    return options | ({AFFINITY: str(AFFINITY_S)} if policy == "session_affinity" else {})


def variable(option: str) -> str:
    """The environment variable that says the same as an option of its frontend."""
    return "DYN_" + option.replace("-", "_").upper()


def detect(python: str | None = None) -> Runtime:
    """The Dynamo of a Python (default: this one): its vLLM workers where there is a GPU, else its mocker.

    Raises ImportError with the install command when there is none, LiveError where GPUs have no vLLM.
    """
    try:
        told = subprocess.run([python or sys.executable, "-c", _VERSIONS], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LiveError("--stack dynamo={python}: is no Python that runs ({error})", python, error) from None
    dynamo, vllm, torch, nixl = json.loads(told.stdout)
    if dynamo is None:
        raise ImportError(f"--stack dynamo needs NVIDIA Dynamo, which {python or 'this Python'} lacks; {INSTALL}")
    gpus, driver = visible_gpus()
    if not gpus:
        return Runtime("mock", dynamo, DISTRIBUTION, torch, nixl, dynamo=dynamo)
    if vllm is None:
        raise LiveError(
            "a GPU is visible, but Dynamo has no vLLM: `pip install 'ai-dynamo[vllm]=={version}'`, or hide the GPUs "
            "(CUDA_VISIBLE_DEVICES=) for its mocker",
            dynamo,
        )
    return Runtime("gpu", vllm, "vllm", torch, nixl, gpus, driver, dynamo=dynamo)


def check(system: System, runtime: Runtime) -> None:
    """Refuse in one line what Dynamo would not do as the config says. Raises SpecError or LiveError."""
    knobs.check(system, "gpu" if runtime.kind == "gpu" else "cpu")
    for pool in system.pools:
        router_mode(pool.router.policy)
        if pool.engine.scheduler != "v1":
            raise _refused("engine.scheduler", message("vLLM V0's is gone"), "v1")
    first, last = system.pools[0].router, system.pools[-1].router
    if (first.policy, first.temperature, first.overlap_weight) != (last.policy, last.temperature, last.overlap_weight):
        raise _refused("deployment.decode.router", message("one router serves both pools"), "deployment.router")
    if first.max_queue is not None:
        raise _refused("deployment.router.max_queue", message("its frontend sheds by other measures"), "null")
    if system.spec.retrieval is not None:
        raise _refused("retrieval", message("its frontend retrieves nothing"), "null")
    deployment = system.spec.deployment
    if isinstance(deployment, Disaggregated):
        router, local = deployment.router, deployment.local_prefill
        if router.prefill_dispatch == "shared_queue":
            raise _refused("deployment.router.prefill_dispatch", message("its queue went with v0.3"), "push")
        if router.decode_choice == "at_arrival" and len(system.pools[-1].servers) > 1:
            raise _refused("deployment.router.decode_choice", message("it chooses after prefill"), "after_prefill")
        if local.max_tokens or local.max_queue is not None:
            raise _refused("deployment.local_prefill", message("the rule went with v0.3"), "{max_tokens: 0}")
    if runtime.kind == "gpu" and system.gpus > len(runtime.gpus):
        raise LiveError("the deployment needs {gpus} GPUs; {there} are visible here", system.gpus, len(runtime.gpus))


def _refused(key: str, why: str, allowed: str) -> SpecError:
    return SpecError("--stack dynamo: {key}: {why}; allowed: {allowed}", key, why, allowed)


def mock_model(system: System, served: ServedModel) -> ServedModel:
    """A folder with the model's config and a tokenizer, all that a mocker and its frontend read; nothing is fetched."""
    from planner.engine.model_config import model_config

    if Path(served.path).is_dir():
        return replace(served, note=None)
    config = model_config(system.spec.model).config
    folder = make_folder(dict(config), cache_folder(), Path(system.spec.model).name)
    return ServedModel(str(folder), "dummy", int(config["vocab_size"]))


# --- commands ---------------------------------------------------------------------------------------


def frontend_command(system: System, python: str, port: int, host: str = "127.0.0.1") -> list[str]:
    """Dynamo's frontend, routing as the config's entry router does."""
    router = system.pools[0].router
    command = [python, "-m", "dynamo.frontend", *PLANES, f"--http-host={host}", f"--http-port={port}"]
    command += [f"--{option}={value}" for option, value in router_options(router.policy).items()]
    if router.policy == "prefix_aware":
        command.append(f"--router-kv-overlap-score-credit={router.overlap_weight:g}")
        command.append(f"--router-temperature={router.temperature:g}")
        if not system.pools[0].limits.prefix_caching:
            command.append("--no-router-kv-events")
    return command


def worker_command(
    system: System, pool: Pool, runtime: Runtime, model: ServedModel, ports: Ports, python: str, table: Path
) -> list[str]:
    """One worker of `pool`: vLLM's on a GPU, else the mocker with the step times of the file `table`."""
    role = [f"--endpoint={ENDPOINTS[pool.role]}"]
    if system.disaggregated:
        role.append(f"--disaggregation-mode={pool.role}")
    if runtime.kind == "gpu":
        return [python, "-m", "dynamo.vllm", *PLANES, *role, *_vllm_options(system, pool, runtime, model, ports)]
    limits, kv_bytes = pool.limits, system.kv_bytes_per_token
    wires = system.wires
    options = [
        f"--model-path={model.path}",
        f"--model-name={MODEL_NAME}",
        "--engine-type=vllm",
        f"--block-size={limits.block_size}",
        f"--num-gpu-blocks-override={limits.kv_blocks}",
        f"--max-model-len={limits.max_model_len}",
        f"--max-num-seqs={limits.max_num_seqs}",
        f"--max-num-batched-tokens={limits.max_num_batched_tokens}",
        f"--{'' if limits.prefix_caching else 'no-'}enable-prefix-caching",
        f"--{'' if limits.chunked_prefill else 'no-'}enable-chunked-prefill",
        f"--planner-profile-data={table}",
        f"--kv-bytes-per-token={kv_bytes}",
    ]
    if wires is not None:
        options.append(f"--kv-transfer-bandwidth={wires.intra_node.bandwidth / 1e9:.6g}")
    return [python, "-m", "dynamo.mocker", *PLANES, *role, *options]


def _vllm_options(system: System, pool: Pool, runtime: Runtime, model: ServedModel, ports: Ports) -> list[str]:
    options = [
        f"--model={model.path}",
        f"--served-model-name={MODEL_NAME}",
        f"--load-format={model.load_format}",
        *engine_options(system, pool, runtime),
    ]
    deployment = system.spec.deployment
    if isinstance(deployment, Disaggregated):
        transfer = connector_config(deployment.link) | {"kv_role": "kv_both"}
        options.append("--kv-transfer-config=" + json.dumps(transfer))
    if pool.router.policy == "prefix_aware" and pool.role != "decode" and pool.limits.prefix_caching:
        events = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{ports.kv_events}"}
        options.append("--kv-events-config=" + json.dumps(events))
    return options


def environment(
    runtime: Runtime, model: ServedModel, gpus: tuple[int, ...], ports: Ports, discovery: Path
) -> dict[str, str]:
    """Of one process of the stack. `ports.http` is where it tells how it is; `discovery` is the stack's own folder."""
    return server_environment(runtime, model, gpus, ports, None) | {
        "DYN_FILE_KV": str(discovery),
        "DYN_NAMESPACE": "dynamo",
        "DYN_SYSTEM_HOST": "127.0.0.1",
        "DYN_SYSTEM_PORT": str(ports.http),
        "DYN_TCP_RPC_HOST": "127.0.0.1",
        "DYN_TCP_RESPONSE_STREAM_HOST": "lo",  # an interface, not an address
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
    }


# --- the mocker's step times ---------------------------------------------------------------------------


def typical_prompt(system: System) -> int:
    """Tokens of the median prompt among the first that the workload sends."""
    from planner.traffic import workload

    return max(1, round(median(one.request.prompt_tokens for one in workload.build(system.spec).start())))


def step_table(pool: Pool, prompt_tokens: int) -> dict[str, np.ndarray]:
    """The pool's law as the mocker's arrays (names are its own; milliseconds).

    `prefill_ttft_ms` of a step with `prefill_isl` new prompt tokens, in prompts of `prompt_tokens` each; `decode_itl`
    of a step whose sequences hold `decode_active_kv_tokens` together (rows), `decode_context_length` each (columns).
    What the mocker cannot express: a step with both lasts as long as the two together, a decode 1 ms at least.
    """
    import numpy as np

    step, limits, usual = pool.profile.step, pool.limits, pool.profile.usual_slowing
    prompts = _grid(1, limits.max_num_batched_tokens)
    held = _grid(1, max(limits.kv_blocks * limits.block_size, limits.max_model_len))
    contexts = _grid(1, limits.max_model_len)
    filled = [[(prompt_tokens, 0)] * (tokens // prompt_tokens) + [(tokens % prompt_tokens, 0)] for tokens in prompts]
    rows = []
    for tokens in held:
        batches = [max(1, min(limits.max_num_seqs, round(tokens / context))) for context in contexts]
        lines = [step.decode(batch) for batch in batches]
        rows.append([1e3 * (base + slope * tokens) for base, slope in lines])
    return {
        "prefill_isl": np.array(prompts, dtype=float),
        "prefill_ttft_ms": np.array([1e3 * usual * step.mixed(chunks, 0, 0) for chunks in filled]),
        "decode_active_kv_tokens": np.array(held, dtype=float),
        "decode_context_length": np.array(contexts, dtype=float),
        "decode_itl": np.array(rows),
    }


def _grid(low: int, high: int) -> list[int]:
    """Whole numbers from low to high, each about GRID times the one before."""
    found = [low]
    while found[-1] < high:
        found.append(min(high, max(found[-1] + 1, int(found[-1] * GRID))))
    return found
