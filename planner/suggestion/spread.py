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
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol, TypeVar

from planner import core
from planner.messages import message

T = TypeVar("T")
R = TypeVar("R")
TICK_S = 0.25
LOOKED = 32  # inputs of a worker, after which it looks for reference cycles
KEPT = 16  # lists of requests that a worker is taken to keep
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


def _shares(one: object) -> int | None:
    """A number for what a worker keeps of an input that others need too: its `shares`, whatever it comes with."""
    while isinstance(one, tuple) and one:
        one = one[-1]
    shares = getattr(one, "shares", None)
    return None if shares is None else hash(shares)


@dataclass(eq=False)
class _Call:
    """One call of a pool: whether it goes before others, which of its inputs wait, and how many are at work.

    `shares`: of each input, what a worker keeps of it.
    """

    first: bool
    shares: list[int | None]
    waiting: list[int]
    flying: int = 0


@dataclass(eq=False)
class _Worker:
    """One process, whether it is at work, and what it keeps, the latest last."""

    executor: ProcessPoolExecutor
    free: bool = True
    lost: bool = False  # it, or one beside it, was killed
    keeps: list[int] = field(default_factory=list)

    def keep(self, one: int | None) -> None:
        if one is not None:
            self.keeps = [*(other for other in self.keeps if other != one), one][-KEPT:]


class ProcessPool:
    """`count` processes that stay for the next answer; a `Spread` that several threads may use at once.

    They start at the first call, and end with this process, however it ends. A free process takes an input of a call
    that goes `first`, then of the call that has fewest at work, so that a long answer does not keep another caller's
    short one waiting; of these the first whose list of requests it has made before, then the first whose list no other
    one has. A worker that was killed (out of memory) fails the calls of that moment with a ChildProcessError; the next
    call starts new ones.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._workers: list[_Worker] | None = None
        self._turn = threading.Condition()
        self._calls: list[_Call] = []

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
        workers = self._started()
        call = _Call(first, [_shares(one) for one in inputs], [*range(len(inputs))])
        found: dict[int, R] = {}
        flying: dict[Future[R], int] = {}
        with self._turn:
            self._calls.append(call)
        try:
            while len(found) < len(inputs):
                if going is not None:
                    going()
                while given := self._given_a_turn(call, workers):
                    worker, at = given
                    flying[self._submitted(worker, call, function, inputs[at])] = at
                with self._turn:
                    if not any(one.done() for one in flying) and not self._is_next(call, workers):
                        self._turn.wait(TICK_S)
                for one in [one for one in flying if one.done()]:
                    at = flying.pop(one)
                    found[at] = one.result()
                    done(at, found[at])
        except (BrokenProcessPool, CancelledError) as error:
            if isinstance(error, CancelledError) and not workers[0].lost:
                raise
            for worker in workers:
                worker.lost = True
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

    def _is_next(self, call: _Call, workers: Sequence[_Worker]) -> bool:
        """Whether the next free process is this call's."""
        waiting = [one for one in self._calls if one.waiting]
        return (
            bool(call.waiting)
            and any(worker.free for worker in workers)
            and call is min(waiting, key=lambda one: (not one.first, one.flying))
        )

    def _given_a_turn(self, call: _Call, workers: Sequence[_Worker]) -> tuple[_Worker, int] | None:
        """A free process and the place of the input that it takes."""
        with self._turn:
            if not self._is_next(call, workers):
                return None
            kept = {one for worker in workers for one in worker.keeps}

            def strange(worker: _Worker, at: int) -> int:
                share = call.shares[at]
                return 0 if share is None or share in worker.keeps else 2 if share in kept else 1

            free = [worker for worker in workers if worker.free]
            worker, at = min(((worker, at) for at in call.waiting for worker in free), key=lambda each: strange(*each))
            call.waiting.remove(at)
            call.flying += 1
            worker.free = False
            worker.keep(call.shares[at])
            return worker, at

    def _submitted(self, worker: _Worker, call: _Call, function: Callable[[T], R], one: T) -> Future[R]:
        """The input as a future; its process is free again when it ends, also if its caller gave up."""

        def free(_: object = None) -> None:
            with self._turn:
                call.flying -= 1
                worker.free = True
                self._turn.notify_all()

        try:
            future = worker.executor.submit(_work, function, one)
        except BaseException as error:
            free()
            if self._workers is None or worker not in self._workers:  # the pool was stopped
                raise CancelledError from error
            raise
        future.add_done_callback(free)
        return future

    def warm(self, function: Callable[[T], object], one: T) -> None:
        """Give every worker `one` to do, so that it has imported and read what the real work needs. Returns at once."""
        for worker in self._started():
            worker.executor.submit(function, one)

    def stop(self) -> None:
        with self._lock:
            workers, self._workers = self._workers, None
        for worker in workers or ():
            worker.executor.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> list[_Worker]:
        with self._lock:
            if self._workers is None:
                context = multiprocessing.get_context("spawn")
                self._workers = [
                    _Worker(ProcessPoolExecutor(1, mp_context=context, initializer=_begin)) for _ in range(self._count)
                ]
            return self._workers


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
