"""How often `prefix_aware` picks the worker that NVIDIA Dynamo's KV router picked, request by request.

    python benchmarks/dynamo_router.py --python PYTHON_THAT_HAS_DYNAMO

Sessions with a shared system prompt go to Dynamo's own frontend and mockers. For every choice it made, the state of the
workers is put together from the run as our frontend would know it at that moment (what each was given and has not
answered, whose prompts are computed, whose blocks it has), and our policy is asked. Dynamo's choice then stands, so
that one difference does not lead to the next. A pick among equal costs counts as its share.

The figures are in docs/dynamo.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.session import LiveSession
from planner.routing import POLICIES, Query, RouterState, WorkerLoad
from planner.run.tables import Run
from planner.spec import Spec
from planner.system.resolve import System, resolve
from planner.traffic import workload
from planner.traffic.requests import Load, Request

DRAWS = 32  # of a policy that may draw lots
POOLS = {
    "aggregated, 4 workers": {"mode": "aggregated", "replicas": 4},
    "P/D, 3 and 3": {"mode": "disaggregated", "prefill": {"replicas": 3}, "decode": {"replicas": 3}},
}
OTHERS = ("least_loaded", "round_robin", "random")


def spec_of(deployment: dict[str, Any], sessions: int, rate: float, seed: int) -> Spec:
    return Spec.model_validate(
        {
            "name": "dynamo-router",
            "model": "deepseek-r1-distill-llama-8b",
            "hardware": "l40s",
            "profile": "report-l40s",
            "deployment": deployment | {"router": {"policy": "prefix_aware"}},
            "engine": {"max_num_batched_tokens": 8192, "max_model_len": 16384, "block_size": 16},
            "workload": {
                "kind": "sessions", "rate": rate, "sessions": sessions, "turns": 4, "think_time_s": 1.0,
                "system_tokens": 512, "prompt_tokens": {"kind": "uniform", "low": 128, "high": 1024},
                "output_tokens": {"kind": "uniform", "low": 16, "high": 128},
            },
            "slo": {"ttft_ms": 2000, "tpot_ms": 100},
            "run": {"seed": seed},
        }
    )  # fmt: skip


class Recorded(Load):
    """A load that keeps what it sent, by request id."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.sent: dict[int, Request] = {}

    @property
    def expected_requests(self) -> int:
        return self._load.expected_requests

    def start(self) -> Any:
        return self._kept(self._load.start())

    def finished(self, request: Request, time_s: float) -> Any:
        return self._kept(self._load.finished(request, time_s))

    def _kept(self, arrivals: Any) -> Any:
        for one in arrivals:
            self.sent[one.request.request_id] = one.request
        return arrivals


@dataclass(frozen=True)
class Given:
    """One request that a worker has: when it was given, computed, done, and the keys of its prompt's whole blocks."""

    worker: str
    given_s: float
    computed_s: float
    done_s: float
    tokens: int
    cached: int
    keys: tuple[Any, ...]


def block_keys(request: Request, size: int) -> tuple[Any, ...]:
    """One key a whole block of the prompt, equal where everything up to its end is."""
    keys, before, filled = [], [], 0
    for content, tokens in request.segments:
        first = math.floor(filled / size) + 1
        ends = range(first, (filled + tokens) // size + 1)
        keys += [(*before, (content, number * size - filled)) for number in ends]
        before.append((content, tokens))
        filled += tokens
    return tuple(keys)


def state(names: Sequence[str], given: Sequence[Given], now: float, role: str, once: bool) -> list[WorkerLoad]:
    """The workers of a pool at a moment; `once`: blocks that requests share are counted once, as the simulator does."""
    loads = []
    for name in names:
        here = [one for one in given if one.worker == name and one.done_s > now]
        queued = 0 if role == "decode" else sum(one.tokens - one.cached for one in here if one.computed_s > now)
        keys = [key for one in here for key in one.keys]
        blocks = len(set(keys) if once else keys)
        running = sum(one.computed_s <= now for one in here)
        loads.append(WorkerLoad(name, running, len(here) - running, queued, blocks, 10**6))
    return loads


def overlaps(names: Sequence[str], given: Sequence[Given], now: float, keys: Sequence[Any], size: int) -> list[int]:
    """Leading prompt tokens that each worker has computed before."""
    found = []
    for name in names:
        there = {key for one in given if one.worker == name and one.computed_s <= now for key in one.keys}
        count = 0
        while count < len(keys) and keys[count] in there:
            count += 1
        found.append(count * size)
    return found


def picks(policy: str, query: Query, loads: Sequence[WorkerLoad], turn: int) -> dict[int, float]:
    """How often a policy picks each worker."""
    counts: dict[int, float] = {}
    for draw in range(DRAWS):
        chosen = POLICIES[policy](query, loads, RouterState(random.Random(draw), turn=turn))
        counts[chosen] = counts.get(chosen, 0.0) + 1 / DRAWS
    return counts


def agreement(run: Run, sent: dict[int, Request], system: System, role: str, once: bool) -> dict[str, float]:
    """Share of Dynamo's choices for one pool that each policy makes too, and of those among the cheapest for ours."""
    pool = next(pool for pool in system.pools if pool.role == role)
    decode, size = role == "decode", pool.limits.block_size
    names = [place.name for place in pool.workers]
    column = "decode_worker" if decode else "worker"
    rows = run.requests[run.requests["error"].isna() & run.requests[column].notna()]
    when = "prefill_end_s" if decode else "queued_s"
    rows = rows[rows[when].notna()].sort_values(when)
    given: list[Given] = []
    numbers: dict[Any, int] = {}  # of block keys
    shares = dict.fromkeys(("prefix_aware", *OTHERS), 0.0)
    allowed = 0.0
    for turn, row in enumerate(rows.itertuples()):
        request = sent[int(row.request_id)]
        keys = tuple(numbers.setdefault(key, len(numbers)) for key in block_keys(request, size))
        now = float(getattr(row, when))
        loads = state(names, given, now, role, once)
        overlap = [0] * len(names) if decode else overlaps(names, given, now, keys, size)
        query = Query(request.session_id, request.prompt_tokens, size, overlap, holds_blocks=role != "prefill")
        chosen = names.index(getattr(row, column))
        for policy in shares:
            found = picks(policy, query, loads, turn)
            shares[policy] += found.get(chosen, 0.0)
            allowed += policy == "prefix_aware" and chosen in found
        computed, done = row.first_token_s, row.finish_s
        if role == "prefill":
            computed = done = row.prefill_end_s
        given.append(Given(names[chosen], now, computed, done, request.prompt_tokens, overlap[chosen], keys))
    return {name: share / len(rows) for name, share in shares.items()} | {
        "among the cheapest": allowed / len(rows), "choices": len(rows), "workers": len(names)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the Python that has ai-dynamo")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--rate", type=float, default=2.0, help="new sessions a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the runs")
    options = parser.parse_args()
    answer: dict[str, Any] = {}
    for title, deployment in POOLS.items():
        spec = spec_of(deployment, options.sessions, options.rate, options.seed)
        system = resolve(spec)
        load = Recorded(workload.build(spec))
        with LiveSession(system, options.keep and options.keep / title, dynamo=options.python) as session:
            run = session.measure(load)
        if options.keep:
            run.save(options.keep / title)
        for pool in system.pools:
            for seen, once in (("as the simulator counts", True), ("as our frontend counts", False)):
                answer[f"{title}: {pool.role}, {seen}"] = agreement(run, load.sent, system, pool.role, once)
        answer[f"{title}: load average"] = run.manifest["host"]["load_average"][0]
    print(json.dumps(answer, indent=1))


if __name__ == "__main__":
    main()
