"""What a run in the browser may ask of its server, whose pages it must not stop. The commands have no bounds."""

from __future__ import annotations

from collections.abc import Iterator

from planner.messages import message
from planner.spec import Aggregated, Spec, SpecError
from planner.traffic.workload import offered_rate

MOST_REQUESTS = 100_000  # about ten seconds of one core
MOST_GPUS = 1024
MOST_DOCUMENTS = 10_000_000
MOST_SAMPLES = 2_000_000  # polled states of workers


def bounded(spec: Spec) -> Spec:
    """The spec itself. Raises SpecError for one that is better run by `planner simulate`."""
    for where, value, most in _sizes(spec):
        if value > most:
            raise SpecError(
                "{where}: {value:.7g} is too large; allowed: up to {most} in the browser", where, value, most
            )
    return spec


def _sizes(spec: Spec) -> Iterator[tuple[str, float, int]]:
    """(key, what it asks for, the most)."""
    workload, deployment = spec.workload, spec.deployment
    requests = 0.0
    for key in ("requests", "sessions", "num_users", "concurrency"):
        count = getattr(workload, key, None)
        if count is not None:
            requests = max(requests, count)
            yield f"workload.{key}", count, MOST_REQUESTS
    if spec.retrieval is not None:
        yield "retrieval.popularity.documents", spec.retrieval.popularity.documents, MOST_DOCUMENTS
    if isinstance(deployment, Aggregated):
        gpus = deployment.replicas * deployment.tp * deployment.dp
    else:
        gpus = sum(pool.replicas * pool.tp * pool.dp for pool in (deployment.prefill, deployment.decode))
    yield message("GPUs of the deployment"), gpus, MOST_GPUS
    rate = None if workload.kind == "trace" else offered_rate(spec)
    if rate is not None:
        yield message("seconds of the run"), requests / rate, int(MOST_SAMPLES * spec.run.sample_interval_s / gpus)
