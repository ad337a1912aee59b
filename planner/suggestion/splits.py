"""The ways to use N GPUs: aggregated engines, or pools of prefill and decode workers, each with its own TP size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from planner.messages import joined, message
from planner.spec import Aggregated, Disaggregated, LocalPrefill, PoolSpec, Spec, SpecError
from planner.suggestion.tuning import UNTUNED, Tuning
from planner.system.resolve import resolve

Mode = Literal["aggregated", "disaggregated"]


@dataclass(frozen=True, slots=True, order=True)
class PoolSize:
    """`replicas` engines of `tp` GPUs."""

    replicas: int
    tp: int

    @property
    def gpus(self) -> int:
        return self.replicas * self.tp


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
        return max(self.first.tp, self.second.tp if self.second else 1)

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
            count, tp = self.first.replicas, self.first.tp
            return message("{count} agg", count) if tp == 1 else message("{count} agg TP{tp}", count, tp)
        parts = [
            f"{workers.replicas}{letter}" + ("" if workers.tp == 1 else f"(TP{workers.tp})")
            for workers, letter in ((self.first, "P"), (self.second, "D"))
        ]
        return ("+" if any("(" in part for part in parts) else "").join(parts)


def tp_sizes(spec: Spec, gpus: int) -> tuple[list[int], list[str]]:
    """TP sizes of up to `gpus` GPUs on which the model fits and that vLLM can split it by; and why others are left out.

    Powers of two only: that is what NVLink domains and published deployments use. Raises SpecError when none fits.
    """
    nodes = spec.cluster.nodes
    most = min(gpus, max((node.gpus for node in nodes), default=spec.deployment.gpus_per_node))
    fitting: list[int] = []
    left_out: list[str] = []
    fault: SpecError | None = None
    size = 1
    while size <= most:
        try:
            resolve(aggregated_spec(spec, PoolSize(1, size)))
            fitting.append(size)
        except SpecError as error:
            fault = error
            left_out.append(message("TP {tp}: {fault}", size, error))
        size *= 2
    if fault is not None and not fitting:
        raise fault
    return fitting, left_out


def splits(gpus: int, sizes: list[int]) -> list[Split]:
    """Every aggregated deployment and every pair of pools that leaves too few GPUs idle for one more worker."""
    found = [Split(PoolSize(gpus // tp, tp)) for tp in sizes if tp <= gpus]
    for prefill_tp in sizes:
        for decode_tp in sizes:
            for prefill in range(1, gpus // prefill_tp + 1):
                decode, idle = divmod(gpus - prefill * prefill_tp, decode_tp)
                if decode >= 1 and idle < min(prefill_tp, decode_tp):
                    found.append(Split(PoolSize(prefill, prefill_tp), PoolSize(decode, decode_tp)))
    return found


def aggregated_spec(spec: Spec, workers: PoolSize) -> Spec:
    """The same model and traffic on aggregated engines of the spec's own hardware."""
    old = spec.deployment
    deployment = Aggregated(
        mode="aggregated",
        replicas=workers.replicas,
        tp=workers.tp,
        router=old.router,
        gpus_per_node=old.gpus_per_node,
        placement=old.placement if isinstance(old, Aggregated) else "pack",
    )
    return spec.model_copy(update={"deployment": deployment})


def disaggregated_spec(spec: Spec, prefill: PoolSize, decode: PoolSize) -> Spec:
    """The same model and traffic on two pools; hardware, engine, link and the like of the spec's own pools are kept."""
    old = spec.deployment
    if not isinstance(old, Disaggregated):
        old = Disaggregated(mode="disaggregated", router=old.router, gpus_per_node=old.gpus_per_node)

    def pool(base: PoolSpec, workers: PoolSize) -> PoolSpec:
        return base.model_copy(update={"replicas": workers.replicas, "tp": workers.tp})

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
