"""What each knob of `optimizations` does to the report's pair: as it was run, and the fair pair below saturation.

python benchmarks/knob_effects.py            Markdown for docs/knobs.md
"""

from __future__ import annotations

import planner
from planner.run.metrics import Summary, summarise
from planner.spec import load

# knob -> (the deployments it applies to, overrides)
SLOW_LINK = ("deployment.link.preset=ethernet_10g",)
TIGHT = ("engine.num_gpu_blocks_override=400",)
KNOBS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ("prefill.streams, chunked engine", ("agg",), ("engine.scheduler=v1", "engine.enable_chunked_prefill=true"),
     ("optimizations.prefill.streams={}",)),
    ("prefill.sparse_attention, 2048 keys", ("agg", "disagg"), (), ("optimizations.prefill.sparse_attention={}",)),
    ("transfer.staging: host", ("disagg",), (), ("optimizations.transfer.staging=host",)),
    ("transfer.staging: host, 10 Gb/s", ("disagg",), SLOW_LINK, ("optimizations.transfer.staging=host",)),
    ("transfer.compression, 10 Gb/s", ("disagg",), SLOW_LINK, ("optimizations.transfer.compression={queue: 0}",)),
    ("transfer.compression, NVLink", ("disagg",), ("deployment.link.preset=nvlink",),
     ("optimizations.transfer.compression={queue: 0}",)),
    ("transfer.layerwise, 10 Gb/s", ("disagg",), SLOW_LINK, ("optimizations.transfer.layerwise={}",)),
    ("engine.kv_cache_dtype: fp8", ("agg", "disagg"), ("engine.num_gpu_blocks_override=null",),
     ("engine.kv_cache_dtype=fp8",)),
    ("decode.micro_batches: 2", ("agg", "disagg"), (), ("optimizations.decode.micro_batches=2",)),
    ("engine.enforce_eager", ("agg", "disagg"), ("engine.enforce_eager=false",), ("engine.enforce_eager=true",)),
    ("decode.persistent", ("agg", "disagg"), (), ("optimizations.decode.persistent={}",)),
    ("decode.preemption: swap, 400 blocks", ("agg",), TIGHT,
     ("optimizations.decode.preemption=swap", "optimizations.decode.swap_gb=32")),
    ("decode.offload, host 32 GB", ("agg",), (), ("optimizations.decode.offload=[{capacity_gb: 32}]",)),
    ("decode.key_only", ("agg", "disagg"), (), ("optimizations.decode.key_only=true",)),
    ("decode.key_only above 3,100 tokens", ("agg",), (), ("optimizations.decode.key_only=true",
     "optimizations.decode.key_only_above_tokens=3100")),
    ("engine.enable_prefix_caching", ("agg", "disagg"), ("engine.enable_prefix_caching=false",),
     ("engine.enable_prefix_caching=true",)),
    ("engine.enable_chunked_prefill (v1)", ("agg",), ("engine.scheduler=prefill_first",),
     ("engine.scheduler=v1", "engine.enable_chunked_prefill=true")),
    ("engine.max_num_batched_tokens: 4096", ("agg", "disagg"),
     ("engine.max_model_len=4096", "engine.max_num_batched_tokens=16384"),
     ("engine.max_model_len=4096", "engine.max_num_batched_tokens=4096")),
    ("local_prefill.max_queue: 2", ("disagg",), (), ("deployment.local_prefill.max_queue=2",)),
)  # fmt: skip
METRICS = (("TTFT", "ttft_mean_ms"), ("TPOT", "tpot_mean_ms"), ("req/s", "requests_per_s"))


def run(config: str, overrides: tuple[str, ...]) -> Summary:
    return summarise(planner.simulate(load(f"report/{config}", overrides)))


def digits(value: float) -> str:
    """Four of them: 89,940 and 34.61."""
    return f"{float(f'{value:.4g}'):,.0f}" if value >= 10_000 else f"{value:.4g}"


def cells(before: Summary, after: Summary) -> str:
    return " | ".join(
        f"{digits(before.number(name))} → {digits(after.number(name))} "
        f"({after.number(name) / before.number(name) - 1:+.1%})"
        for _, name in METRICS
    )


def main() -> None:
    print("| knob | run | " + " | ".join(f"{label}{' ms' if 'T' in label else ''}" for label, _ in METRICS) + " |")
    print("|---|---|---:|---:|---:|")
    for knob, configs, base, on in KNOBS:
        for config in (name + suffix for suffix in ("", "-fair") for name in configs):
            print(f"| {knob} | {config} | {cells(run(config, base), run(config, (*base, *on)))} |", flush=True)


if __name__ == "__main__":
    main()
