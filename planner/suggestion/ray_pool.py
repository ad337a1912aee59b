"""The sweep's tasks on an existing Ray cluster (extra `ray`). `planner` must be installed on its nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.suggestion.spread import Done, Spread


@contextmanager
def ray_tasks() -> Iterator[Spread]:
    """Joins the cluster of RAY_ADDRESS, or the one on this machine. Raises ImportError without ray, and
    ConnectionError when there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("--cluster ray needs the package ray: pip install 'llm-capacity-planner[ray]'") from error
    joined = not ray.is_initialized()
    if joined:
        ray.init(address="auto", log_to_driver=False, configure_logging=False)

    def spread(function: Callable[[Any], Any], inputs: Sequence[Any], done: Done) -> list[Any]:
        task = ray.remote(function)
        waiting = [task.remote(one) for one in inputs]
        results = []
        for reference in waiting:
            results.append(ray.get(reference))
            done()
        return results

    try:
        yield spread
    finally:
        if joined:
            ray.shutdown()
