"""Cases for one engine, and their replay in the simulator. Shared by the tests and by benchmarks/record_oracle.py."""

from __future__ import annotations

import gzip
import heapq
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from planner.system.resolve import EngineLimits
from planner.traffic.requests import Request
from simulator.worker import ADMITTED, FINISHED, Decision, Outcome, Worker
from simulator.worker import Sequence as EngineSequence


@dataclass(frozen=True)
class LinearLaw:
    """Seconds of a step; a prompt chunk of one token costs what a decode does, as in the worker."""

    step: float = 5e-3
    per_token: float = 2e-5
    per_decode: float = 3e-5
    per_context: float = 1e-8

    def decode(self, batch: int) -> tuple[float, float]:
        return self.step + self.per_decode * batch, self.per_context

    def mixed(self, chunks: Sequence[tuple[int, int]], batch: int, context: float) -> float:
        tokens = sum(tokens for tokens, _ in chunks)
        return self.step + self.per_token * tokens + self.per_decode * batch + self.per_context * context

    def launch(self, tokens: int, batch: int) -> float:
        return 0.0

    def duration(self, chunks: Sequence[tuple[int, int]], batch: int, context: float) -> float:
        wide = [chunk for chunk in chunks if chunk[0] > 1]
        ones = [done for tokens, done in chunks if tokens == 1]
        batch, context = batch + len(ones), context + sum(ones)
        if wide:
            return self.mixed(wide, batch, context)
        base, slope = self.decode(batch)
        return base + slope * context


@dataclass(frozen=True)
class Job:
    """A request, when it comes, what it is for the engine, and how long its KV transfer or its release takes."""

    time_s: float
    request: Request
    mode: str = "full"
    transfer_s: float = 0.0


def chosen(limits: EngineLimits) -> dict[str, Any]:
    """The limits that are not left at their defaults, so that a recording outlives new options."""
    return {f.name: value for f in fields(limits) if (value := getattr(limits, f.name)) != f.default}


@dataclass(frozen=True)
class Case:
    name: str
    limits: EngineLimits
    jobs: tuple[Job, ...]
    law: LinearLaw = LinearLaw()
    decisions: tuple[Decision, ...] = ()
    ends: dict[int, tuple[float, int, int]] = field(default_factory=dict)  # last token, cached tokens, preemptions

    def save(self, path: Path) -> None:
        head: dict[str, Any] = {"name": self.name, "limits": chosen(self.limits), "law": asdict(self.law)}
        lines: list[Any] = [head, *([job.time_s, job.mode, job.transfer_s, asdict(job.request)] for job in self.jobs)]
        lines += [[str(key), *value] for key, value in sorted(self.ends.items())]
        lines += self.decisions
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
            file.write(text.encode())

    @staticmethod
    def load(path: Path) -> Case:
        with gzip.open(path, "rt") as file:
            head, *lines = [json.loads(line) for line in file]
        jobs, ends, decisions = [], {}, []
        for line in lines:
            if isinstance(line[0], str):
                ends[int(line[0])] = (line[1], line[2], line[3])
            elif isinstance(line[0], list):
                decisions.append((tuple((n, done) for n, done in line[0]), *line[1:]))
            else:
                known = dict(line[3])
                for name in ("segments", "history"):
                    known[name] = tuple(tuple(pair) for pair in known[name])
                known["documents"] = tuple(known["documents"])
                jobs.append(Job(line[0], Request(**known), line[1], line[2]))
        limits, law = EngineLimits(**head["limits"]), LinearLaw(**head["law"])
        return Case(head["name"], limits, tuple(jobs), law, tuple(decisions), ends)


@dataclass
class Replay:
    worker: Worker
    outcomes: list[Outcome]
    decisions: list[Decision]
    sequences: list[EngineSequence]

    @property
    def ends(self) -> dict[int, tuple[float, int, int]]:
        return {
            seq.request.request_id: (seq.last_token_s, seq.cached_tokens, seq.preemptions) for seq in self.sequences
        }


def replay(
    case: Case,
    *,
    fast_forward: bool = False,
    check: Callable[[Worker, float], None] | None = None,
    looks: Sequence[float] = (),
) -> Replay:
    """Play a case through one Worker. `check(worker, now)` is called after every event, and at the times of `looks`."""
    decisions: list[Decision] = []
    consumer = any(job.mode == "remote" for job in case.jobs)
    worker = Worker("w", case.limits, case.law, fast_forward=fast_forward, trace=decisions, kv_consumer=consumer)
    sequences = [EngineSequence(job.request, job.mode) for job in case.jobs]  # type: ignore[arg-type]
    wait = {id(seq): job.transfer_s for seq, job in zip(sequences, case.jobs, strict=True)}
    outcomes: list[Outcome] = []
    order = itertools.count()
    events: list[tuple[float, int, str, EngineSequence]] = [
        (job.time_s, next(order), "submit", seq) for seq, job in zip(sequences, case.jobs, strict=True)
    ]
    events += [(time_s, next(order), "look", sequences[0]) for time_s in looks]
    heapq.heapify(events)

    def step(now: float) -> None:
        for outcome in worker.advance(now):
            outcomes.append(outcome)
            time_s, kind, seq = outcome
            if kind == ADMITTED:
                heapq.heappush(events, (time_s + wait[id(seq)], next(order), "arrived", seq))
            elif kind == FINISHED and seq.mode == "prefill_only":
                heapq.heappush(events, (time_s + wait[id(seq)], next(order), "release", seq))

    while True:
        inner, outer = worker.next_event_s(), events[0][0] if events else math.inf
        if inner == outer == math.inf:
            return Replay(worker, outcomes, decisions, sequences)
        if inner < outer:
            step(inner)
        else:
            now, _, what, seq = heapq.heappop(events)
            if what != "look":
                {"submit": worker.submit, "arrived": worker.kv_arrived, "release": worker.release}[what](seq, now)
        if check is not None:
            check(worker, min(inner, outer))
