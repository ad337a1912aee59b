"""Fit a profile to a published table: Dynamo v0.3's aggregated and disaggregated run of multi-round-qa, July 2025.

    python benchmarks/fit_report.py fit            three parameters to both columns
    python benchmarks/fit_report.py leave-one-out  fit on one column, predict the other
    python benchmarks/fit_report.py alternatives   other GPUs, schedulers and flags that may fit as well
    python benchmarks/fit_report.py below          the same pair, and a fair one, below saturation
    python benchmarks/fit_report.py write          the profile, from the parameters in FITTED

The table prints seven lines a column, of which two are independent: requests per second (input, output tokens and the
time range follow from it, TTFT nearly: it is backlog) and tokens per second of one request. So there are four facts.
Everything of the step law that is not fitted comes from the GPU's datasheet at the efficiencies of a roofline profile.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from scipy.optimize import minimize

import planner
from planner.engine.catalogue import hardware
from planner.engine.model_config import load_model
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import dump_profile, roofline
from planner.engine.roof import MEMORY_EFFICIENCY, Roof
from planner.engine.setup import Setup
from planner.run.tables import Run
from planner.spec import Engine, Spec, load
from planner.system.resolve import resolve

ROOT = Path(__file__).parent.parent
MODEL = "deepseek-r1-distill-llama-8b"
COLUMNS = ("agg", "disagg")
# The table, as printed.
REPORT = {
    "agg": {
        "req/s": 2.4505, "input tok/s": 7456.9953, "output tok/s": 245.0541, "tok/req/s": 5.8770, "TTFT s": 92.5261,
        "range s": 241.17,
    },
    "disagg": {
        "req/s": 2.3079, "input tok/s": 7022.8796, "output tok/s": 230.7880, "tok/req/s": 29.4287, "TTFT s": 98.8401,
        "range s": 255.65,
    },
}  # fmt: skip
FITTED_LINES = ("req/s", "tok/req/s", "TTFT s")  # the others restate the first


@dataclass(frozen=True)
class Parameters:
    """What is fitted. `kv_tokens` None: the estimate from the GPU's memory."""

    prefill_us_per_token: float = 136.0
    step_overhead_ms: float = 5.2
    kv_tokens: float | None = 176_000.0

    def vector(self, names: Sequence[str]) -> np.ndarray:
        return np.array([getattr(self, name) for name in names])


# L40S, both columns; `fit` prints them.
FITTED = Parameters(prefill_us_per_token=138.3, step_overhead_ms=5.82, kv_tokens=172_822)


# GPUs that the catalogue lacks, by their datasheets: memory bandwidth GB/s, dense bf16 TFLOP/s, memory MiB.
OTHERS = {
    "a100-40g": (1555.0, 312.0, 40960),
    "l40": (864.0, 181.0, 46068),
    "rtx-6000-ada": (960.0, 364.2, 49140),
    "rtx-a6000": (768.0, 154.8, 49140),
}


def datasheet(gpu: str, folder: Path) -> str:
    """A catalogue name as it is; one of `OTHERS` as a file in `folder`."""
    if gpu not in OTHERS:
        return gpu
    bandwidth, tflops, memory = OTHERS[gpu]
    entry = hardware("l40s").model_copy(
        update={"name": gpu, "bandwidth_gb_s": bandwidth, "tflops": {"bf16": tflops}, "memory_mib": memory}
    )
    path = folder / f"{gpu}.yaml"
    path.write_text(yaml.safe_dump(entry.model_dump(mode="json", exclude_none=True)))
    return str(path)


def profile(parameters: Parameters, gpu: str, name: str = "report-fit") -> ProfileFile:
    """Weights and KV are read at the datasheet's bandwidth, attention at its FLOP/s; the rest is fitted."""
    setup = Setup.of(load_model(MODEL), hardware(gpu), Engine())
    base = roofline(setup).file
    assert base is not None
    read_s = Roof(setup).weights_s / MEMORY_EFFICIENCY
    overhead_s = parameters.step_overhead_ms / 1e3
    law = base.step.model_copy(
        update={
            "decode_s": read_s + overhead_s,
            "prefill_floor_s": max(base.step.prefill_floor_s, read_s + overhead_s),
            "prefill_s": overhead_s,
            "prefill_per_token_s": parameters.prefill_us_per_token / 1e6,
        }
    )
    return base.model_copy(update={"name": name, "step": law, "notes": ()})


def lines(run: Run) -> dict[str, float]:
    """The table's lines of one run, by the original's definitions."""
    done = run.requests[run.requests["error"].isna()]
    end = float(done["finish_s"].max())
    decoding = done["finish_s"] - done["first_token_s"]
    return {
        "req/s": len(done) / end,
        "input tok/s": float(done["prompt_tokens"].sum()) / end,
        "output tok/s": float(done["output_tokens"].sum()) / end,
        "tok/req/s": float((done["output_tokens"] / decoding).mean()),
        "TTFT s": float((done["first_token_s"] - done["arrival_s"]).mean()),
        "range s": end,
    }


@dataclass(frozen=True)
class World:
    """What the table leaves unknown."""

    title: str = "L40S, vLLM V0 (prompts first)"
    gpu: str = "l40s"
    changes: tuple[str, ...] = ()  # to both columns
    agg: tuple[str, ...] = ()
    disagg: tuple[str, ...] = ()
    free: tuple[str, ...] = ("prefill_us_per_token", "step_overhead_ms", "kv_tokens")
    start: Parameters = Parameters()

    def spec(self, column: str, parameters: Parameters, folder: Path) -> Spec:
        path = folder / "profile.yaml"
        gpu = datasheet(self.gpu, folder)
        path.write_text(dump_profile(profile(parameters, gpu)))
        own = self.agg if column == "agg" else self.disagg
        kv = parameters.kv_tokens
        blocks = "null" if kv is None else str(max(int(kv / 64) + 1, 60))
        return load(
            ROOT / "configs" / "report" / f"{column}.yaml",
            [f"profile={path}", f"hardware={gpu}", f"engine.num_gpu_blocks_override={blocks}",
             "run.step_records=false", *self.changes, *own],
        )  # fmt: skip

    def predict(self, parameters: Parameters, columns: Sequence[str] = COLUMNS) -> dict[str, dict[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            return {column: lines(planner.simulate(self.spec(column, parameters, Path(folder)))) for column in columns}


def errors(found: dict[str, dict[str, float]], names: Sequence[str] = FITTED_LINES) -> np.ndarray:
    return np.array([found[column][name] / REPORT[column][name] - 1 for column in found for name in names])


def fit(world: World, columns: Sequence[str] = COLUMNS, tries: int = 90) -> tuple[Parameters, float]:
    """The parameters with the smallest largest relative error on the fitted lines, and that error."""
    scale = world.start.vector(world.free)

    def parameters(x: np.ndarray) -> Parameters:
        return replace(world.start, **dict(zip(world.free, np.maximum(x, 0.02) * scale, strict=True)))

    def loss(x: np.ndarray) -> float:
        missed = errors(world.predict(parameters(x), columns))
        return float((missed**8).sum() ** (1 / 8))  # nearly the largest, but without its edges

    x = np.ones(len(world.free))
    for size in (0.1, 0.05):  # a second start from the best point frees a simplex that has collapsed
        simplex = np.vstack([x, *(x * (1 + size * row) for row in np.eye(len(x)))])
        options = {"maxfev": tries // 2, "initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-5}
        x = minimize(loss, x, method="Nelder-Mead", options=options).x
    best = parameters(x)
    return best, float(np.abs(errors(world.predict(best, columns))).max())


def show(found: dict[str, dict[str, float]]) -> None:
    print("| line | " + " | ".join(f"{column}: report | simulated | error" for column in found) + " |")
    print("|---|" + "---:|---:|---:|" * len(found))
    for name in REPORT["agg"]:
        cells = [
            f"{REPORT[column][name]:.4f} | {values[name]:.4f} | {values[name] / REPORT[column][name] - 1:+.1%}"
            for column, values in found.items()
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def describe(parameters: Parameters) -> str:
    kv = "estimate" if parameters.kv_tokens is None else f"{parameters.kv_tokens:,.0f}"
    return (
        f"prefill {parameters.prefill_us_per_token:.1f} us a token, "
        f"step overhead {parameters.step_overhead_ms:.2f} ms, KV {kv} tokens"
    )


def run_fit() -> None:
    for free, start in ((World.free, Parameters()), (World.free[:2], Parameters(kv_tokens=None))):
        world = World(free=free, start=start)
        best, worst = fit(world)
        print(f"\n{len(free)} parameters for 4 facts: {describe(best)}; largest error {worst:.1%}\n")
        show(world.predict(best))


def run_leave_one_out() -> None:
    """What a column cannot tell stays at its prior: the memory estimate, the overhead of the H200 profile."""
    prior_ms = 1.78  # host time of a synchronous step, configs/profiles/h200-llama-3.1-8b-tp1.yaml
    cases: list[tuple[str, tuple[str, ...], Parameters]] = [
        ("agg", ("prefill_us_per_token", "kv_tokens"), Parameters(step_overhead_ms=prior_ms)),
        ("disagg", ("prefill_us_per_token", "step_overhead_ms"), Parameters(kv_tokens=None)),
    ]
    for column, free, start in cases:
        world = World(free=free, start=start)
        best, worst = fit(world, (column,), 45)
        print(f"\nfitted on {column} ({', '.join(free)}): {describe(best)}; largest error there {worst:.1%}\n")
        show(world.predict(best))


ROUND_ONE = "{kind: multi_round_qa, num_rounds: 1, shared_system_prompt: 1000, user_history_prompt: 2000, time: 240}"
TWO = ("deployment.replicas=2",)
ALTERNATIVES: tuple[World, ...] = (
    World("V1-like chunked prefill in the aggregated run", agg=("engine.scheduler=v1",),
          start=Parameters(kv_tokens=115_000)),
    World("the aggregated run eager, the disaggregated one eager too", disagg=("engine.enforce_eager=true",)),
    World("no prefix hits in the aggregated run", agg=("engine.enable_prefix_caching=false",)),
    World("the disaggregated file as it stands (local prefill at queue 2)",
          disagg=("deployment.local_prefill.max_queue=2",)),
    World("two aggregated GPUs, 1P1D", agg=TWO),
    World("two aggregated GPUs against 2P1D, GPUs half as fast", agg=TWO, disagg=("deployment.prefill.replicas=2",),
          start=Parameters(prefill_us_per_token=272.0, kv_tokens=90_000)),
    World("A100 80 GB, V0", gpu="a100-80g", start=Parameters(step_overhead_ms=18.0)),
    *(World(f"{gpu}, V0", gpu=gpu) for gpu in OTHERS),
    World("RTX 4090, V0", gpu="rtx-4090", start=Parameters(kv_tokens=None),
          free=("prefill_us_per_token", "step_overhead_ms")),
    World("H100 80 GB, V0", gpu="h100", start=Parameters(step_overhead_ms=25.0)),
)  # fmt: skip


def run_alternatives() -> None:
    """Beside each fit: what its parameters would mean on that GPU."""
    print("| world | fitted | share of peak FLOP/s | memory's KV estimate | largest error |\n|---|---|---:|---:|---:|")
    for world in ALTERNATIVES:
        best, worst = fit(world, tries=50)
        with tempfile.TemporaryDirectory() as folder:
            gpu = datasheet(world.gpu, Path(folder))
            share = load_model(MODEL).flops_per_token / (best.prefill_us_per_token / 1e6) / hardware(gpu).flops("bf16")
            limits = resolve(world.spec("agg", replace(best, kv_tokens=None), Path(folder))).pools[0].limits
        room = limits.kv_blocks * limits.block_size
        print(f"| {world.title} | {describe(best)} | {share:.0%} | {room:,} | {worst:.1%} |", flush=True)


def run_below() -> None:
    """Both pairs around saturation: the same single questions, one a tick, the tick as long as the rate asks."""
    from planner.run.metrics import summarise

    print("| pair | req/s offered | mode | GPUs | achieved req/s | per GPU | TTFT p50 s | TTFT p99 s | TPOT p50 ms |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for pair in ("{}", "{}-fair"):
        for rate in (0.5, 1.0, 1.5, 2.0, 2.2, 3.0, 4.0):
            for column in COLUMNS:
                spec = load(
                    ROOT / "configs" / "report" / f"{pair.format(column)}.yaml",
                    [f"workload={ROUND_ONE}", f"workload.tick_s={1 / rate}"],
                )  # fmt: skip
                run = planner.simulate(spec)
                found, gpus = summarise(run), int(run.manifest["gpus"])
                served = found.number("requests_per_s")
                print(
                    f"| {pair.format('report')} | {rate} | {column} | {gpus} | {served:.2f} | {served / gpus:.2f} | "
                    f"{found.number('ttft_p50_ms') / 1e3:.2f} | {found.number('ttft_p99_ms') / 1e3:.2f} | "
                    f"{found.number('tpot_p50_ms'):.0f} |"
                )


def run_write() -> None:
    """The profile as it ships. Its KV size stands in the configs (`num_gpu_blocks_override`)."""
    notes = (
        "fitted, not validated: three parameters to the four independent numbers of one published table (July 2025)",
        "fitted are prefill_per_token_s and the overhead of a step (prefill_s), and the KV size in configs/report",
        "the GPU is inferred: memory and bandwidth of an L40S explain the table, the report does not name its GPU",
        "weights and KV reads: datasheet bandwidth at 0.8; attention: datasheet FLOP/s at 0.5",
        "made by benchmarks/fit_report.py",
    )
    file = profile(FITTED, "l40s", "report-l40s")
    file = file.model_copy(update={"notes": notes, "fitted_to": "the report's four numbers"})
    (ROOT / "configs" / "profiles" / "report-l40s.yaml").write_text(dump_profile(file))


RUNS: dict[str, Callable[[], None]] = {
    "fit": run_fit,
    "leave-one-out": run_leave_one_out,
    "alternatives": run_alternatives,
    "below": run_below,
    "write": run_write,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in RUNS:
        sys.exit(f"usage: python benchmarks/fit_report.py {'|'.join(RUNS)}")
    RUNS[sys.argv[1]]()
