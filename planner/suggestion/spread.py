"""One function over many inputs: in this process, on all cores, or on a Ray cluster. Results come in order of inputs,
so that an answer never depends on how many workers there were.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol, TypeVar

from planner import core
from planner.messages import message

T = TypeVar("T")
R = TypeVar("R")
TICK_S = 0.25
LOOKED = 32  # inputs of a worker, after which it looks for reference cycles
RETRIES = 20  # of a task on Ray whose node was lost; one that raises is not tried again
Done = Callable[[int, Any], None]  # the place of an input, and its result


class Spread(Protocol):
    """`done` is called for each result as it comes, whatever its place."""

    def __call__(self, function: Callable[[T], R], inputs: Sequence[T], done: Done) -> list[R]: ...


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def here(function: Callable[[T], R], inputs: Sequence[T], done: Done) -> list[R]:
    """In this process, one after the other."""
    results = []
    for at, one in enumerate(inputs):
        results.append(function(one))
        done(at, results[-1])
    return results


@contextmanager
def processes(count: int) -> Iterator[Spread]:
    """A pool of `count` processes, started anew (spawn) so that no state is inherited; 1 stays in this process."""
    if count == 1:
        yield here
        return
    pool = ProcessPool(count)
    try:
        yield pool
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():  # else this process waits for what they are at
            worker.terminate()
        raise
    finally:
        pool.stop()


@dataclass(eq=False)
class _Call:
    """One call of a pool: whether it goes before others, how many of its inputs are at work and how many wait."""

    first: bool
    left: int
    flying: int = 0


class ProcessPool:
    """`count` processes that stay for the next answer; a `Spread` that several threads may use at once.

    They start at the first call, and end with this process, however it ends. A free process takes an input of a call
    that goes `first`, then of the call that has fewest at work, so that a long answer does not keep another caller's
    short one waiting. A worker that was killed (out of memory) fails the calls of that moment with a
    ChildProcessError; the next call starts new ones.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._executor: ProcessPoolExecutor | None = None
        self._turn = threading.Condition()
        self._calls: list[_Call] = []
        self._busy = 0  # inputs at work, also those of callers that gave up

    def __call__(
        self,
        function: Callable[[T], R],
        inputs: Sequence[T],
        done: Done,
        *,
        first: bool = False,
        going: Callable[[], None] | None = None,
    ) -> list[R]:
        """`going` is called at least every TICK_S seconds; what it raises ends the call."""
        executor, call = self._started(), _Call(first, len(inputs))
        found: dict[int, R] = {}
        flying: dict[Future[R], int] = {}
        with self._turn:
            self._calls.append(call)
        try:
            while len(found) < len(inputs):
                if going is not None:
                    going()
                while self._given_a_turn(call):
                    flying |= self._submitted(executor, call, function, inputs, len(inputs) - call.left - 1)
                with self._turn:
                    if not any(one.done() for one in flying) and not self._is_next(call):
                        self._turn.wait(TICK_S)
                for one in [one for one in flying if one.done()]:
                    at = flying.pop(one)
                    found[at] = one.result()
                    done(at, found[at])
        except BrokenProcessPool:
            self.stop()
            raise ChildProcessError(
                message("a worker process was killed, perhaps for want of memory; try again")
            ) from None
        finally:
            with self._turn:
                self._calls.remove(call)
                self._turn.notify_all()
            for one in flying:
                one.cancel()
        return [found[at] for at in range(len(inputs))]

    def _is_next(self, call: _Call) -> bool:
        """Whether the next free process is this call's."""
        waiting = [one for one in self._calls if one.left]
        return (
            self._busy < self._count
            and call.left > 0
            and call is min(waiting, key=lambda one: (not one.first, one.flying))
        )

    def _given_a_turn(self, call: _Call) -> bool:
        with self._turn:
            if not self._is_next(call):
                return False
            call.left -= 1
            call.flying += 1
            self._busy += 1
            return True

    def _submitted(
        self, executor: ProcessPoolExecutor, call: _Call, function: Callable[[T], R], inputs: Sequence[T], at: int
    ) -> dict[Future[R], int]:
        """The input at this place as a future; its process is free again when it ends."""

        def free(_: object = None) -> None:
            with self._turn:
                call.flying -= 1
                self._busy -= 1
                self._turn.notify_all()

        try:
            future = executor.submit(_work, function, inputs[at])
        except BaseException:
            free()
            raise
        future.add_done_callback(free)
        return {future: at}

    def warm(self, function: Callable[[T], object], one: T) -> None:
        """Give every worker `one` to do, so that it has imported and read what the real work needs. Returns at once."""
        executor = self._started()
        for _ in range(self._count):
            executor.submit(function, one)

    def stop(self) -> None:
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._executor is None:
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(self._count, mp_context=context, initializer=_begin)
            return self._executor


def _begin() -> None:
    """What a worker does before its first input is read, which imports nearly all."""
    core.start_quickly()
    gc.disable()
    _end_with_parent()


_works = count(1)


def _work(function: Callable[[T], R], one: T) -> R:
    """A worker keeps lists of requests, which Python would look through for cycles after each run: every some inputs
    do, and what is left then is looked at no more.
    """
    try:
        return function(one)
    finally:
        if next(_works) % LOOKED == 0:
            gc.collect()
            gc.freeze()


def _end_with_parent() -> None:
    """A worker waits for work on a pipe that it holds itself: it would not notice that its parent was killed.

    Ctrl-C is for all processes of a terminal; a worker ends by it without a word.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait_for([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _ray_tasks() -> Iterator[Spread]:
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
        task = ray.remote(max_retries=RETRIES)(function)
        flying = {task.remote(one): at for at, one in enumerate(inputs)}
        found: dict[int, Any] = {}
        while flying:
            for reference in ray.wait(list(flying), num_returns=1)[0]:
                at = flying.pop(reference)
                found[at] = ray.get(reference)
                done(at, found[at])
        return [found[at] for at in range(len(inputs))]

    try:
        yield spread
    finally:
        if joined:
            ray.shutdown()


@contextmanager
def spread(cluster: str | None, count: int) -> Iterator[Spread]:
    """`cluster`: None for this machine's cores, or "ray". Raises ImportError when ray is asked for and missing."""
    if cluster == "ray":
        with _ray_tasks() as tasks:
            yield tasks
    else:
        with processes(count) as pool:
            yield pool
