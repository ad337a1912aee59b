"""Times the making of request lists: python benchmarks/load_speed.py. Prints the best of five, in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from planner.spec import Spec
from planner.traffic.traces import read, to_requests
from planner.traffic.workload import build

REQUESTS = 10_000
LOADS: dict[str, dict[str, object]] = {
    "poisson": {"rate": 8.0, "requests": REQUESTS, "prompt_tokens": 2048, "output_tokens": 256},
    "rag": {"rate": 8.0, "requests": REQUESTS},
    "sessions": {"rate": 8.0, "sessions": REQUESTS // 4, "turns": 4},
}
TRACES = Path(__file__).parents[1] / "traces"


def best_ms(action: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def spec(kind: str) -> Spec:
    fields = {
        "schema": 1,
        "name": kind,
        "deployment": {"mode": "aggregated"},
        "workload": {"kind": kind, **LOADS[kind]},
    }
    return Spec.model_validate({**fields, "retrieval": {} if kind == "rag" else None})


def main() -> None:
    for kind in LOADS:
        given = spec(kind)
        print(f"{kind}, {REQUESTS} requests: {best_ms(lambda given=given: build(given)):.1f} ms")
    for path in sorted((*TRACES.glob("*.jsonl"), *TRACES.glob("*.csv"))):
        ms = best_ms(lambda path=path: to_requests(read(path)))
        print(f"{path.name}, {len(read(path).requests)} requests: {ms:.1f} ms")


if __name__ == "__main__":
    main()
