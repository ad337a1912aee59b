"""An aggregated and a disaggregated deployment beside each other: what differs besides the split, and a fair pair."""

from __future__ import annotations

from dataclasses import dataclass

from planner.spec import Aggregated, Disaggregated, Engine, Spec, SpecError

# Engine keys that change speed, with what a difference does to the comparison.
WATCHED = {
    "enforce_eager": "without CUDA graphs small decode batches are slower",
    "enable_chunked_prefill": "chunks let decodes run beside long prompts",
    "enable_prefix_caching": "shared prompt beginnings are computed once on one side only",
    "max_num_batched_tokens": "prompts are batched differently",
    "max_num_seqs": "batches may grow further on one side",
    "scheduler": "prompts wait for each other differently",
    "gpu_memory_utilization": "one side has more KV memory",
    "kv_cache_dtype": "one side stores and moves less KV",
    "quantization": "one side reads fewer weight bytes",
}


@dataclass(frozen=True, slots=True)
class Asymmetry:
    """One difference that is not the split itself."""

    key: str
    aggregated: str
    disaggregated: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}: {self.aggregated} against {self.disaggregated}: {self.effect}"


def _engine(spec: Spec, role: str) -> Engine:
    deployment = spec.deployment
    pool = getattr(deployment, role) if isinstance(deployment, Disaggregated) else None
    if pool is None or pool.engine is None:
        return spec.engine
    own = {key: getattr(pool.engine, key) for key in pool.engine.model_fields_set}
    return spec.engine.model_copy(update=own)


def gpus(spec: Spec) -> int:
    deployment = spec.deployment
    if isinstance(deployment, Aggregated):
        return deployment.replicas * deployment.tp * deployment.dp
    return sum(pool.replicas * pool.tp * pool.dp for pool in (deployment.prefill, deployment.decode))


def order(first: Spec, second: Spec) -> tuple[Spec, Spec]:
    """(aggregated, disaggregated). Raises SpecError when it is not one of each."""
    split = [isinstance(spec.deployment, Disaggregated) for spec in (first, second)]
    if split[0] == split[1]:
        kind = "disaggregated" if split[0] else "aggregated"
        raise SpecError("both files are {kind}; allowed: an aggregated and a disaggregated one", kind)
    return (second, first) if split[0] else (first, second)


def asymmetries(aggregated: Spec, disaggregated: Spec) -> list[Asymmetry]:
    """What else differs between the two, so that a comparison is not of the split alone."""
    found = []
    for key in ("model", "hardware", "profile"):
        ours, theirs = getattr(aggregated, key), getattr(disaggregated, key)
        if ours != theirs:
            found.append(Asymmetry(key, str(ours), str(theirs), "not the same thing is compared"))
    mine, other = gpus(aggregated), gpus(disaggregated)
    if mine != other:
        effect = f"throughput must be read per GPU: {other / mine:g} times the GPUs on the disaggregated side"
        found.append(Asymmetry("GPUs", str(mine), str(other), effect))
    engine = _engine(aggregated, "")
    for key, effect in WATCHED.items():
        roles = {role: getattr(_engine(disaggregated, role), key) for role in ("prefill", "decode")}
        differing = {role: value for role, value in roles.items() if value != getattr(engine, key)}
        if differing:
            text = ", ".join(f"{_word(value)} ({role})" for role, value in differing.items())
            found.append(Asymmetry(f"engine.{key}", _word(getattr(engine, key)), text, effect))
    kept, moved = (spec.optimizations.decode.preemption for spec in (aggregated, disaggregated))
    if kept != moved:
        effect = "what a full KV cache throws out is computed again, or comes back from the host"
        found.append(Asymmetry("optimizations.decode.preemption", kept, moved, effect))
    return found


def _word(value: object) -> str:
    if value is None:
        return "default"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def fair_pair(aggregated: Spec, disaggregated: Spec) -> tuple[Spec, Spec]:
    """The same two with equal GPUs, one engine and the same knobs for every worker, and no conditional local prefill.

    The engine is the aggregated side's with CUDA graphs, prefix caching on and, where a pool cannot chunk, no chunking.
    Raises SpecError when the GPUs of the disaggregated side are no multiple of the aggregated worker's.
    """
    deployment, split = aggregated.deployment, disaggregated.deployment
    assert isinstance(deployment, Aggregated) and isinstance(split, Disaggregated)
    total = gpus(disaggregated)
    worker = deployment.tp * deployment.dp
    if total % worker:
        raise SpecError(
            "deployment.tp: workers of {tp} GPUs cannot fill {total}; allowed: a tp that divides {total}",
            worker,
            total,
        )
    chunked = all(_engine(disaggregated, role).enable_chunked_prefill for role in ("prefill", "decode"))
    engine = aggregated.engine.model_copy(
        update={
            "enforce_eager": False,
            "enable_prefix_caching": True,
            "enable_chunked_prefill": aggregated.engine.enable_chunked_prefill and chunked,
        }
    )
    shared = {
        "engine": engine,
        "workload": aggregated.workload,
        "slo": aggregated.slo,
        "optimizations": aggregated.optimizations,
    }
    same = {"model": aggregated.model, "hardware": aggregated.hardware, "profile": aggregated.profile}
    pools = {role: getattr(split, role).model_copy(update={"engine": None}) for role in ("prefill", "decode")}
    whole = deployment.model_copy(update={"replicas": total // worker})
    parts = split.model_copy(update={**pools, "local_prefill": type(split.local_prefill)()})
    first = aggregated.model_copy(update={**shared, "deployment": whole, "name": f"{aggregated.name}-fair"})
    second = disaggregated.model_copy(
        update={**shared, **same, "deployment": parts, "name": f"{disaggregated.name}-fair"}
    )
    return first, second
