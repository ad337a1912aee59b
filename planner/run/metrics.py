"""The summary of a run: every metric of the catalogue, and what stands behind them.

`METRICS` (planner.run.catalogue) says for each metric its name, unit, which way is better, and what it means.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from planner.engine.provenance import ROOFLINE
from planner.messages import Message, message
from planner.run import usage
from planner.run.catalogue import METRICS, Metric
from planner.run.columns import Columns, equal
from planner.run.facts import STAGES, Facts, Mask, Saturation, not_null
from planner.run.refusals import KvRoom, Refusal, kv_rooms, refusals
from planner.run.tables import STOPPED, Run
from planner.spec import Slo

__all__ = ["METRICS", "STAGES", "Metric", "Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    """A run in numbers. `values` holds every metric of `METRICS`, in its order; None is unknown."""

    name: str
    deployment: str  # 1P1D, 2 aggregated
    hardware: str
    gpus: int
    provenance: str  # simulated, calibrated, measured, mocked
    profile: str | None
    seed: int | None
    slo: Slo
    values: dict[str, float | None]
    stages_ms: dict[str, float]  # mean of each stage of TTFT; they add up to its mean
    pools: tuple[usage.PoolUse, ...]
    workers: tuple[usage.WorkerUse, ...]
    links: tuple[usage.LinkUse, ...]
    saturation: Saturation
    stage_growth_per_s: dict[str, float]  # growth of the number of requests in each stage
    missed_stages_ms: dict[str, float]  # as stages_ms, of the requests that miss the TTFT target
    retrieval_workers: int
    warnings: tuple[str, ...]
    refusals: tuple[Refusal, ...] = ()  # for their length
    kv_rooms: tuple[KvRoom, ...] = ()
    posting: usage.Posting | None = None
    origin: str = ROOFLINE  # where the step times of a simulation are from
    died: tuple[tuple[str, str], ...] = ()  # servers that ended by themselves, and why
    paused: tuple[tuple[str, str], ...] = ()  # servers that got no requests for a while, why and for how long
    failures: tuple[tuple[str, int], ...] = ()  # what requests failed with, the most frequent first

    def __getitem__(self, name: str) -> float | None:
        """Raises KeyError for a name that is not in `METRICS`."""
        return self.values[name]

    def number(self, name: str) -> float:
        """The metric, nan when it is unknown."""
        value = self.values[name]
        return math.nan if value is None else value

    @property
    def meets_targets(self) -> bool:
        """Enough requests meet the targets, and the deployment keeps up with what it is offered."""
        attained = self.values["attainment"]
        return attained is not None and attained >= self.slo.attainment and not self.saturation.saturated

    @property
    def faults(self) -> tuple[tuple[str, Message], ...]:
        """(server, what became of it) of those that make the run a failed one: it died, or it stood still and requests
        failed.
        """
        died = [(name, message("{name} died: {why}", name, why)) for name, why in self.died]
        paused = [(name, message("{name} was {state}", name, state)) for name, state in self.paused]
        return (*died, *(paused if self.failures else ()))

    @property
    def is_failed(self) -> bool:
        """Whether there is a fault, or more requests failed than the targets forgive: times say little then."""
        failed = sum(count for _, count in self.failures)
        return bool(self.faults) or failed > (1 - self.slo.attainment) * self.number("requests")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: stable order, units in the names, unknown numbers null."""
        return {
            "name": self.name,
            "deployment": self.deployment,
            "hardware": self.hardware,
            "gpus": self.gpus,
            "provenance": self.provenance,
            "origin": self.origin,
            "profile": self.profile,
            "seed": self.seed,
            "targets": self.slo.model_dump(),
            "meets_targets": self.meets_targets,
            "saturation": asdict(self.saturation),
            "metrics": dict(self.values),
            "ttft_stages_mean_ms": dict(self.stages_ms),
            "pools": [asdict(pool) for pool in self.pools],
            "workers": [asdict(worker) for worker in self.workers],
            "links": [asdict(link) for link in self.links],
            "posting": None if self.posting is None else asdict(self.posting),
            "warnings": list(self.warnings),
        }


def _deployment(spec: dict[str, Any]) -> str:
    deployment = spec.get("deployment") or {}
    if deployment.get("mode") == "disaggregated":
        prefill, decode = deployment.get("prefill") or {}, deployment.get("decode") or {}
        return f"{prefill.get('replicas', 1)}P{decode.get('replicas', 1)}D"
    return f"{deployment.get('replicas', 1)} aggregated"


def _profile(names: Any) -> str | None:
    """The name of the latency profile, or of each role's when they differ."""
    if not isinstance(names, dict):
        return None if names is None else str(names)
    if len(set(names.values())) == 1:
        return str(next(iter(names.values())))
    return ", ".join(f"{role} {name}" for role, name in names.items()) or None


def _means_ms(facts: Facts, of: Mask) -> dict[str, float]:
    chosen = {name: not_null(seconds[of]) for name, seconds in facts.stages.items()}
    return {name: float(seconds.mean()) * 1e3 if len(seconds) else 0.0 for name, seconds in chosen.items()}


def summarise(run: Run, slo: Slo | None = None) -> Summary:
    """Every metric of a run. `slo` judges it by other targets than its own.

    Raises ValueError when the manifest names no spec.
    """
    facts = Facts(run, slo)
    manifest, spec = facts.manifest, facts.spec
    limit = facts.slo.ttft_ms
    missed = facts.ok if limit is None else facts.ttft * 1e3 > limit
    return Summary(
        name=str(spec.get("name", "run")),
        deployment=_deployment(spec),
        hardware=str(spec.get("hardware", "h200")),
        gpus=int(manifest.get("gpus") or 0),
        provenance=str(manifest.get("provenance", "simulated")),
        profile=_profile(manifest.get("profile")),
        seed=manifest.get("seed"),
        slo=facts.slo,
        values={name: _finite(metric.value(facts)) for name, metric in METRICS.items()},
        stages_ms=_means_ms(facts, facts.ok),
        pools=usage.pools(facts),
        workers=usage.workers(facts),
        links=usage.links(facts),
        posting=usage.posting(facts),
        saturation=facts.saturation,
        stage_growth_per_s=usage.stage_growth(facts),
        missed_stages_ms=_means_ms(facts, missed),
        retrieval_workers=usage.retrieval_workers(facts),
        warnings=tuple(str(warning) for warning in manifest.get("warnings") or ()),
        refusals=refusals(facts),
        kv_rooms=kv_rooms(facts),
        origin=str(manifest.get("origin", ROOFLINE)),
        died=_said_of(manifest.get("died")),
        paused=_said_of(manifest.get("paused")),
        failures=_failures(facts.requests),
    )


def _said_of(found: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(said)) for name, said in found.items()) if isinstance(found, dict) else ()


def _failures(requests: Columns) -> tuple[tuple[str, int], ...]:
    errors = requests.texts("error")[equal(requests.texts("finish_reason"), "error")]
    return tuple(Counter(str(text) for text in errors if text not in (None, STOPPED)).most_common())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
