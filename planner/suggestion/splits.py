"""The ways to use N GPUs: aggregated engines, or pools of prefill and decode workers, each with its own TP size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from planner.engine.model_config import load_model
from planner.messages import joined, message
from planner.spec import Aggregated, Disaggregated, Engine, LocalPrefill, PoolSpec, Spec, SpecError
from planner.suggestion.tuning import UNTUNED, Tuning
from planner.system.resolve import resolve

Mode = Literal["aggregated", "disaggregated"]


@dataclass(frozen=True, slots=True, order=True)
class PoolSize:
    """`replicas` engines of `dp` ranks of `tp` GPUs. Several ranks share experts that are whole on their GPUs."""

    replicas: int
    tp: int
    dp: int = 1

    def to_dict(self) -> dict[str, int]:
        """As a pool's keys; `dp` where there are ranks."""
        return {"replicas": self.replicas, "tp": self.tp} | ({"dp": self.dp} if self.dp > 1 else {})

    @property
    def engine_gpus(self) -> int:
        """Of one engine."""
        return self.tp * self.dp

    @property
    def gpus(self) -> int:
        return self.replicas * self.engine_gpus

    @property
    def size(self) -> str:
        """TP2, DP8, TP2 DP4; empty for one GPU."""
        parts = (("TP", self.tp), ("DP", self.dp))
        return " ".join(f"{word}{count}" for word, count in parts if count > 1)


@dataclass(frozen=True, slots=True)
class Split:
    """One way to use the GPUs. `first` prefills (aggregated: does everything), `second` decodes.

    `router` and `local_prefill_tokens` are set only where they are swept; None keeps the spec's. `tuning` is what the
    candidate was found to do best with.
    """

    first: PoolSize
    second: PoolSize | None = None
    router: str | None = None
    local_prefill_tokens: int | None = None
    tuning: Tuning = UNTUNED

    @property
    def mode(self) -> Mode:
        return "aggregated" if self.second is None else "disaggregated"

    @property
    def gpus(self) -> int:
        return self.first.gpus + (self.second.gpus if self.second else 0)

    @property
    def largest_tp(self) -> int:
        return max(self.first.engine_gpus, self.second.engine_gpus if self.second else 1)

    @property
    def untuned(self) -> Split:
        return replace(self, tuning=UNTUNED)

    @property
    def name(self) -> str:
        """8 agg, 4 agg TP2, 2P6D, 6P+1D(TP2)."""
        swept = [self.router] if self.router else []
        if self.local_prefill_tokens is not None:
            swept.append(f"local<={self.local_prefill_tokens}")
        return joined(", ", [self._workers(), *swept])

    def _workers(self) -> str:
        if self.second is None:
            count, tp, size = self.first.replicas, self.first.tp, self.first.size
            if self.first.dp > 1:
                return message("{count} agg {size}", count, size)
            return message("{count} agg", count) if tp == 1 else message("{count} agg TP{tp}", count, tp)
        parts = [
            f"{workers.replicas}{letter}" + (f"({workers.size})" if workers.size else "")
            for workers, letter in ((self.first, "P"), (self.second, "D"))
        ]
        return ("+" if any("(" in part for part in parts) else "").join(parts)


def tp_sizes(spec: Spec, gpus: int) -> tuple[list[int], list[str]]:
    """TP sizes of up to `gpus` GPUs on which the model fits and that vLLM can split it by; and why others are left out.

    Powers of two only: that is what NVLink domains and published deployments use. Raises SpecError when none fits.
    """
    fitting: list[int] = []
    left_out: list[str] = []
    fault: SpecError | None = None
    sizes = _powers_of_two(_node_gpus(spec))
    for size in (one for one in sizes if one <= gpus):
        if (error := _refused(spec, size)) is None:
            fitting.append(size)
        else:
            fault = error
            left_out.append(message("TP {tp}: {fault}", size, error))
    if fault is not None and not fitting:
        for size in (one for one in sizes if one > gpus):
            if _refused(spec, size) is None:
                raise SpecError(
                    "GPUs: {gpus} is too few for {model} on {hardware}, whose smallest engine takes {enough}; "
                    "allowed: {enough} or more (--gpus {enough})",
                    gpus,
                    spec.model,
                    spec.hardware,
                    size,
                )
        raise fault
    return fitting, left_out


def _node_gpus(spec: Spec) -> int:
    """GPUs of the largest node, which no engine reaches beyond."""
    return max((node.gpus for node in spec.cluster.nodes), default=spec.deployment.gpus_per_node)


def _powers_of_two(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length())]


def _refused(spec: Spec, tp: int) -> SpecError | None:
    """Why there can be no engine of that size."""
    try:
        resolve(aggregated_spec(spec, PoolSize(1, tp)))
    except SpecError as error:
        return error
    return None


def rank_sizes(spec: Spec, gpus: int, sizes: Sequence[int]) -> list[PoolSize]:
    """Engines of several ranks to try for a mixture of experts: of all the GPUs, and of half of them.

    The smallest TP size that fits leaves the most to ranks; smaller groups save less memory and are left out, so that
    there are few more candidates.
    """
    most = min(gpus, _node_gpus(spec))
    found = []
    for size in dict.fromkeys(1 << max(part, 1).bit_length() - 1 for part in (most // 2, most)):
        for tp in (1, *sizes):
            if 2 * tp > size:
                break
            engine = PoolSize(1, tp, size // tp)
            try:
                pool = resolve(aggregated_spec(spec, engine)).pools[0]
            except SpecError:
                continue
            if pool.in_lockstep and pool.hardware.kind == "gpu":
                found.append(engine)
            break
    return found


def splits(gpus: int, sizes: Sequence[int], ranks: Sequence[PoolSize] = ()) -> list[Split]:
    """Every aggregated deployment and every pair of pools that leaves too few GPUs idle for one more worker.

    Of engines of each TP size, and of `ranks`.
    """
    engines = [*(PoolSize(1, tp) for tp in sizes), *ranks]
    found = [Split(replace(one, replicas=gpus // one.engine_gpus)) for one in engines if one.engine_gpus <= gpus]
    for first in engines:
        for second in engines:
            prefill_gpus, decode_gpus = first.engine_gpus, second.engine_gpus
            for prefill in range(1, gpus // prefill_gpus + 1):
                decode, idle = divmod(gpus - prefill * prefill_gpus, decode_gpus)
                if decode >= 1 and idle < min(prefill_gpus, decode_gpus):
                    found.append(Split(replace(first, replicas=prefill), replace(second, replicas=decode)))
    return found


def aggregated_spec(spec: Spec, workers: PoolSize) -> Spec:
    """The same model and traffic on aggregated engines of the spec's own hardware."""
    old = spec.deployment
    deployment = Aggregated(
        mode="aggregated",
        replicas=workers.replicas,
        tp=workers.tp,
        dp=workers.dp,
        router=old.router,
        gpus_per_node=old.gpus_per_node,
        placement=old.placement if isinstance(old, Aggregated) else "pack",
    )
    engine = spec.engine.model_copy(update={"enable_expert_parallel": True}) if _spreads(spec, workers) else spec.engine
    return spec.model_copy(update={"deployment": deployment, "engine": engine})


def _spreads(spec: Spec, workers: PoolSize) -> bool:
    """Whether ranks that the spec has not get whole experts on each of their GPUs."""
    old = spec.deployment
    own = (old,) if isinstance(old, Aggregated) else (old.prefill, old.decode)
    return workers.dp > 1 and all(pool.dp == 1 for pool in own) and load_model(spec.model).experts > 0


def disaggregated_spec(spec: Spec, prefill: PoolSize, decode: PoolSize) -> Spec:
    """The same model and traffic on two pools; hardware, engine, link and the like of the spec's own pools are kept."""
    old = spec.deployment
    if not isinstance(old, Disaggregated):
        old = Disaggregated(mode="disaggregated", router=old.router, gpus_per_node=old.gpus_per_node)

    def pool(base: PoolSpec, workers: PoolSize) -> PoolSpec:
        update: dict[str, object] = {"replicas": workers.replicas, "tp": workers.tp, "dp": workers.dp}
        if _spreads(spec, workers):
            update["engine"] = (base.engine or Engine()).model_copy(update={"enable_expert_parallel": True})
        return base.model_copy(update=update)

    pools = {"prefill": pool(old.prefill, prefill), "decode": pool(old.decode, decode)}
    return spec.model_copy(update={"deployment": old.model_copy(update=pools)})


def apply(spec: Spec, split: Split) -> Spec:
    """The spec with its GPUs used as `split` says."""
    if split.second is None:
        spec = aggregated_spec(spec, split.first)
    else:
        spec = disaggregated_spec(spec, split.first, split.second)
    change: dict[str, object] = {}
    if split.router is not None:
        change["router"] = spec.deployment.router.model_copy(update={"policy": split.router, "preset": None})
    if split.local_prefill_tokens is not None:
        change["local_prefill"] = LocalPrefill(max_tokens=split.local_prefill_tokens)
    spec = spec.model_copy(update={"deployment": spec.deployment.model_copy(update=change)}) if change else spec
    return split.tuning.set_on(spec)


ROUTERS = ("round_robin", "least_loaded", "power_of_two", "prefix_aware")


def variants(split: Split, sweep: frozenset[str], thresholds: list[int]) -> list[Split]:
    """The split under every swept router, and (P/D only) every threshold of local prefill."""
    routers: list[str | None] = [*ROUTERS] if "router" in sweep else [None]
    local: list[int | None] = [*thresholds] if "local_prefill" in sweep and split.second else [None]
    return [replace(split, router=router, local_prefill_tokens=tokens) for router in routers for tokens in local]
