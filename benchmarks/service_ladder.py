"""Public P:D ladders from a black-box law fitted to two of their points: predicted against measured throughput.

    python benchmarks/service_ladder.py

DeepSeek-V3 on H200 under TensorRT-LLM (configs/public), which nothing here models: 8 GPUs a worker, attention data
parallel in decode. Of each ladder two rows fit the law (planner.calibration.service), all are simulated with it.
Requests a second by Little's law from mean TTFT and TPOT, on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.backends import backend
from planner.calibration.service import fit_service
from planner.run.facts import Facts
from planner.spec import Concurrency, Disaggregated, PoolSpec, Spec, Uniform
from planner.spec.service import MeasuredService, Point
from planner.system.resolve import resolve
from planner.traffic import workload
from planner.validation.public import REQUESTS, SHORTEST, PublicRow, read_rows, shipped_rows

LONGEST = 6144  # requests in flight that are worth the minutes


@dataclass(frozen=True)
class Rung:
    """A row beside what the law says. Milliseconds, and requests a second."""

    row: PublicRow
    fitted: bool
    ttft_ms: float
    tpot_ms: float

    def throughput(self, ttft_ms: float, tpot_ms: float) -> float:
        decode_ms = tpot_ms * (mean(self.row.output) - 1)
        return 1e3 * self.row.concurrency / (ttft_ms + decode_ms)

    @property
    def off(self) -> float:
        """Predicted over measured throughput, less one."""
        measured = self.throughput(self.row.ttft_ms, self.row.tpot_ms)
        return self.throughput(self.ttft_ms, self.tpot_ms) / measured - 1


def mean(tokens: int) -> float:
    return (1 + SHORTEST) / 2 * tokens


def ladder(prompt: int) -> list[PublicRow]:
    """Rows whose decode workers are attention data parallel, the fewest prefill workers for their load first."""
    rows = [
        row
        for row in read_rows(shipped_rows())
        if "DeepSeek" in row.model and row.gpu == "h200_sxm" and row.engine == "trtllm" and row.prompt == prompt
        and row.workers[1][2] > 1
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.concurrency, row.name))


def spec_of(row: PublicRow, profile: MeasuredService | None) -> Spec:
    """The row's deployment and its closed loop, ten requests for each in flight."""
    prefill, decode = (PoolSpec(replicas=replicas, tp=gpus) for replicas, gpus, _, _ in row.workers)
    lengths = (Uniform(low=round(SHORTEST * tokens), high=tokens) for tokens in (row.prompt, row.output))
    prompts, outputs = lengths
    return Spec(
        name="ladder",
        model="deepseek-v3",
        hardware="h200",
        profile=profile,
        deployment=Disaggregated(mode="disaggregated", prefill=prefill, decode=decode),
        workload=Concurrency(
            kind="concurrency",
            concurrency=row.concurrency,
            requests=REQUESTS * row.concurrency,
            prompt_tokens=prompts,
            output_tokens=outputs,
        ),
    )


def point(row: PublicRow) -> Point:
    (prefill, *_), (decode, *_) = row.workers
    return Point(
        concurrency=row.concurrency, prompt_tokens=mean(row.prompt), output_tokens=mean(row.output),
        ttft_ms=row.ttft_ms, tpot_ms=row.tpot_ms, prefill_workers=prefill, decode_workers=decode, source=row.name,
        requests=REQUESTS * row.concurrency,
    )  # fmt: skip


def climb(rows: Sequence[PublicRow], fitted: Sequence[int]) -> tuple[MeasuredService, list[Rung]]:
    """The law of the rows at `fitted`, and every row simulated with it."""
    law = fit_service([point(rows[at]) for at in fitted], resolve(spec_of(rows[0], None)))
    rungs = []
    for place, row in enumerate(rows):
        if row.concurrency > LONGEST:
            continue
        spec = spec_of(row, law)
        facts = Facts(backend("simulate").run(resolve(spec), workload.build(spec)))
        ttft, tpot = (1e3 * float(np.nanmean(of)) for of in (facts.ttft, facts.tpot))
        rungs.append(Rung(row, place in fitted, ttft, tpot))
    return law, rungs


def main() -> None:
    for prompt, fitted in ((8192, (0, 3)), (1024, (0, 2))):
        law, rungs = climb(ladder(prompt), fitted)
        print(f"{prompt}: {law.prefill_tokens_per_s:.0f} tokens/s, {law.tpot_ms.base} + {law.tpot_ms.per_request} ms")
        for rung in rungs:
            workers = ":".join(str(replicas) for replicas, *_ in rung.row.workers)
            print(
                f"  P:D {workers} at {rung.row.concurrency}: throughput {100 * rung.off:+.1f} %, "
                f"TPOT {rung.tpot_ms:.1f} "
                f"({rung.row.tpot_ms:.1f}) ms, TTFT {rung.ttft_ms:.0f} ({rung.row.ttft_ms:.0f})"
                f"{', fitted' if rung.fitted else ''}"
            )


if __name__ == "__main__":
    main()
