"""Decode steps of hundreds of sequences, beside a connector and without one: what they take on GPU and host.

    python benchmarks/gpu/wide.py measure OUT [--servers NAME ...] [--phases NAME ...]
    python benchmarks/gpu/wide.py ship OUT FOLDER      the steps as runs, `plain` and so on

Servers of vLLM: `plain`, an aggregated engine; `connected`, one that keeps its KV for NIXL but has nobody to hand it
to; each on a GPU of its own, or `tp2`, an aggregated one on both. All get the same requests at once, from a process
each: phases of `PHASES`, whose answers end one after another, so that every CUDA graph is seen. OUT gets the steps
(`*.steps.jsonl`), the phases' times (`phases.jsonl`), clocks and power (`gpus.jsonl`), and the matrix products of the
model alone (`products.jsonl`), the servers' logs, and when and on what this was (`about.json`).

Steps are as in live.step_trace, and besides: "s" and "u", the seconds of schedule() and of taking in the results
before; "g", those in which the engine did nothing but wait for the GPU. Where that is nothing the host is the slower.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SERVERS = ("plain", "connected", "tp2")
CONNECTOR = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
OPTIONS = (
    "--served-model-name=m --load-format=dummy --max-model-len=40960 --block-size=128 --max-num-batched-tokens=8192"
    " --max-num-seqs=1024 --seed=2 --disable-uvicorn-access-log --scheduler-cls=wide.scheduler"
).split()
STEADY = 40  # steps beyond those that take the prompts in, before the first answer ends
VOCAB = 100_000
SAMPLED = 1.0  # temperature; live's client asks for 0, which costs a step some 4 us a sequence less
BLOCK = 128  # tokens, as in OPTIONS

# name -> sequences, mean prompt, relative spread of prompts (lognormal sigma), steps between ends, streamed
PHASES: dict[str, tuple[int, int, float, int, bool]] = {
    "warm": (64, 256, 0.0, 1, True),
    "short": (600, 400, 0.0, 1, False),
    "short-streamed": (600, 400, 0.0, 1, True),
    "long": (440, 1750, 0.0, 1, False),
    "uneven": (360, 1700, 0.9, 1, False),
    "few-long": (128, 5000, 0.0, 2, False),
    "repeated": (440, 1750, 0.0, 1, False),  # one token over and over, each sequence its own: does what is read matter?
    "shuffled": (440, 1750, 0.9, 1, False),
    "ordered": (440, 1750, 0.9, 1, False),  # the same, longest first, as where answers have gone on for long
}


def requests_of(name: str) -> list[tuple[int, int]]:
    """(prompt tokens, answer's tokens)."""
    count, mean, sigma, stride, _ = PHASES[name]
    draw = random.Random(1)
    shares = [draw.lognormvariate(-sigma * sigma / 2, sigma) for _ in range(count)]
    prompts = [min(max(int(mean * share), 16), 12_000) for share in shares]
    first = STEADY + sum(prompts) // 8192 + count // 40
    ends = list(range(count))
    if name in ("shuffled", "ordered"):
        draw.shuffle(ends)
    pairs = [(prompt, first + stride * end) for prompt, end in zip(prompts, ends, strict=True)]
    return sorted(pairs, reverse=True) if name == "ordered" else pairs


# --- inside the server ------------------------------------------------------------------------------------------------


def scheduler(*args: Any, **kwargs: Any) -> Any:
    from vllm.v1.worker.gpu.async_utils import AsyncOutput

    from live.step_trace import TracingAsyncScheduler

    waited = [0.0]
    read = AsyncOutput.get_output  # called by the engine's own thread as it needs the results

    def get_output(self: Any) -> Any:
        begin = time.monotonic()
        found = read(self)
        waited[0] = time.monotonic() - begin
        return found

    AsyncOutput.get_output = get_output

    class Timed(TracingAsyncScheduler):
        taken_s = 0.0

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic()
            output = super().schedule(*args, **kwargs)
            if self._latest is not None:
                self._latest["s"] = round(time.monotonic() - begin, 6)
            return output

        def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            begin = time.monotonic()
            _, record = self._steps.get(id(scheduler_output), (0.0, None))
            if record is not None:
                record["g"], record["u"] = round(waited[0], 6), round(self.taken_s, 6)
            result = super().update_from_output(scheduler_output, *args, **kwargs)
            self.taken_s = time.monotonic() - begin
            return result

    return Timed(*args, **kwargs)


# --- outside of it ----------------------------------------------------------------------------------------------------


def start(out: Path, name: str, model: str) -> tuple[subprocess.Popen[bytes], int]:
    gpu = int(name == "connected")
    port = 18100 + gpu
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model, f"--port={port}", *OPTIONS]
    if name == "connected":
        command.append("--kv-transfer-config=" + json.dumps(CONNECTOR))
    if name == "tp2":
        command.append("--tensor-parallel-size=2")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "CUDA_VISIBLE_DEVICES": "0,1" if name == "tp2" else str(gpu),
        "PLANNER_STEP_TRACE": str(out / f"{name}.steps.jsonl"),
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(18200 + gpu),
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = (out / f"{name}.log").open("wb")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log), port


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def _send(port: int, phase: str) -> tuple[int, list[str]]:
    import aiohttp

    streamed = PHASES[phase][-1]
    draw = random.Random(f"{phase} {port}")
    tokens = 0

    async def one(session: Any, prompt: int, output: int) -> None:
        nonlocal tokens
        ids = [draw.randrange(1000, VOCAB) for _ in range(prompt)]
        if phase == "repeated":
            ids = prompt * ids[:1]
        body = {"model": "m", "prompt": ids, "max_tokens": output, "ignore_eos": True, "stream": streamed}
        body["temperature"] = SAMPLED
        async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                tokens += line.startswith(b"data: {")

    limits = {"connector": aiohttp.TCPConnector(limit=0), "timeout": aiohttp.ClientTimeout(total=120)}
    async with aiohttp.ClientSession(**limits) as session:
        sent = [one(session, *sizes) for sizes in requests_of(phase)]
        found = await asyncio.gather(*sent, return_exceptions=True)
    return tokens, [repr(fault) for fault in found if fault is not None]


def client(port: int, name: str, phase: str, queue: Any) -> None:
    begin = time.monotonic()
    tokens, faults = asyncio.run(_send(port, phase))
    times = {"begin": begin, "end": time.monotonic()}
    queue.put({"server": name, "phase": phase, **times, "streamed": tokens, "failed": len(faults), "fault": faults[:1]})


def watch(path: Path, stop: threading.Event) -> None:
    import pynvml

    pynvml.nvmlInit()
    cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    with path.open("w") as file:
        while not stop.wait(0.1):
            for index, card in enumerate(cards):
                line = {
                    "t": round(time.monotonic(), 4),
                    "gpu": index,
                    "sm_mhz": pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM),
                    "power_w": pynvml.nvmlDeviceGetPowerUsage(card) / 1e3,
                    "reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(card),
                }
                file.write(json.dumps(line) + "\n")


SHAPES = {"qkv": (4096, 6144), "o": (4096, 4096), "gate_up": (4096, 28672), "down": (14336, 4096)}
LAYERS = 8


def products(path: Path) -> None:
    """Seconds of all 32 layers' matrix products by rows, in CUDA graphs, after half a second of the same."""
    import torch

    sizes = [1, *range(8, 257, 8), *range(272, 513, 16), *range(544, 673, 32)]
    layers = [
        {key: torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.01 for key, (k, n) in SHAPES.items()}
        for _ in range(LAYERS)
    ]

    def timed(keys: tuple[str, ...], rows: int) -> float:
        inputs = {key: torch.randn(rows, SHAPES[key][0], device="cuda", dtype=torch.bfloat16) for key in keys}

        def once() -> None:
            for layer in layers:
                for key in keys:
                    torch.nn.functional.linear(inputs[key], layer[key])

        once()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            once()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        repeats = 12
        for repeat in range(repeats):
            if repeat == 2:
                begin.record()
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / (repeats - 2) * 32 / LAYERS

    with path.open("w") as file:
        for rows in sizes:
            line = {"rows": rows, "all": timed(tuple(SHAPES), rows)}
            line |= {key: timed((key,), rows) for key in SHAPES}
            file.write(json.dumps(line) + "\n")


def about() -> dict[str, Any]:
    import pynvml

    pynvml.nvmlInit()
    versions = {name: version(name) for name in ("vllm", "torch")}
    versions["gpu"] = str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
    versions["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
    return {"started_at": time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime()), "versions": versions}


def phases(ports: dict[str, int], wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    for phase in wanted:
        queue = context.Queue()
        clients = [context.Process(target=client, args=(port, name, phase, queue)) for name, port in ports.items()]
        for one in clients:
            one.start()
        for one in clients:
            one.join(timeout=150)
            yield queue.get(timeout=5)
        time.sleep(0.5)


def measure(out: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    from live.session import model_of
    from planner.spec import load
    from planner.system.resolve import resolve

    out.mkdir(parents=True, exist_ok=True)
    (out / "about.json").write_text(json.dumps(about()))
    model = model_of(resolve(load("agg", ["engine.load_format=dummy"]))).path
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(out / "gpus.jsonl", stop))
    servers: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    try:
        for name in names:
            servers[name] = start(out, name, model)
        begin = time.monotonic()
        while not all(healthy(port) for _, port in servers.values()):
            if time.monotonic() - begin > 240 or any(process.poll() is not None for process, _ in servers.values()):
                raise SystemExit("a server did not come up; see its log")
            time.sleep(1)
        print("up after", round(time.monotonic() - begin), "s", flush=True)
        watcher.start()
        with (out / "phases.jsonl").open("w") as file:
            for line in phases({name: port for name, (_, port) in servers.items()}, wanted):
                print(line, flush=True)
                file.write(json.dumps(line) + "\n")
        time.sleep(1)
    finally:
        for process, _ in servers.values():
            process.terminate()
        for process, _ in servers.values():
            process.wait(timeout=60)
        stop.set()
    if len(names) > 1:
        products(out / "products.jsonl")


def ship(out: Path, folder: Path) -> None:
    """Without the steps of the phase that warms up."""
    from live.run_tables import steps_table
    from live.step_table import read_trace
    from planner.run.tables import Run, frame

    times = [json.loads(line) for line in (out / "phases.jsonl").read_text().splitlines()]
    when = json.loads((out / "about.json").read_text())
    for name in (name for name in SERVERS if (out / f"{name}.steps.jsonl").is_file()):
        begin = min(one["begin"] for one in times if one["server"] == name and one["phase"] != "warm")
        tokens = re.search(r"KV cache size: ([\d,]+)", (out / f"{name}.log").read_text(errors="replace"))
        if tokens is None:
            raise SystemExit(f"{name}.log does not say how large its KV cache is")
        blocks = int(tokens[1].replace(",", "")) // BLOCK
        trace = read_trace(out / f"{name}.steps.jsonl", name, blocks, begin)
        empty = {table: frame(table) for table in ("requests", "samples", "transfers", "tokens")}
        source = hashlib.sha256((out / f"{name}.steps.jsonl").read_bytes()).hexdigest()
        what = {"spec": {"name": f"h200-wide-{name}"}, "sources": [source], "gpus": 1 + (name == "tp2")}
        manifest = {"provenance": "measured", **what, **when}
        Run(steps=steps_table({name: trace}), manifest=manifest, **empty).save(folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("out", type=Path)
    measuring.add_argument("--phases", nargs="*", choices=list(PHASES), default=list(PHASES))
    measuring.add_argument("--servers", nargs="*", choices=SERVERS, default=SERVERS[:2])
    shipping = commands.add_parser("ship")
    shipping.add_argument("out", type=Path)
    shipping.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "measure":
        measure(options.out, options.servers, options.phases)
    else:
        ship(options.out, options.folder)


if __name__ == "__main__":
    main()
