"""One function over many inputs: in this process, on all cores, or on a Ray cluster. Results come in order of inputs,
so that an answer never depends on how many workers there were.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Done = Callable[[], None]


class Spread(Protocol):
    """`done` is called for each result as it comes."""

    def __call__(self, function: Callable[[T], R], inputs: Sequence[T], done: Done) -> list[R]: ...


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _here(function: Callable[[T], R], inputs: Sequence[T], done: Done) -> list[R]:
    results = []
    for one in inputs:
        results.append(function(one))
        done()
    return results


@contextmanager
def processes(count: int) -> Iterator[Spread]:
    """A pool of `count` processes, started anew (spawn) so that no state is inherited; 1 stays in this process."""
    if count == 1:
        yield _here
        return
    executor = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))

    def spread(function: Callable[[Any], Any], inputs: Sequence[Any], done: Done) -> list[Any]:
        results = []
        for result in executor.map(function, inputs):
            results.append(result)
            done()
        return results

    try:
        yield spread
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def spread(cluster: str | None, count: int) -> Iterator[Spread]:
    """`cluster`: None for this machine's cores, or "ray". Raises ImportError when ray is asked for and missing."""
    if cluster == "ray":
        from planner.ray_pool import ray_tasks

        with ray_tasks() as tasks:
            yield tasks
    else:
        with processes(count) as pool:
            yield pool
