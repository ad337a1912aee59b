"""How long the host takes to launch a step, read from the steps of an engine that schedules ahead.

Such an engine does one thing after another: it takes in the results of step k-1, decides step k+1 and launches it
while the GPU runs step k, then waits for the results of step k. So a launch shows in three places:

- on an idle engine, between deciding a prompt's step and deciding the one after it;
- beside decodes, between deciding a prompt's step and seeing the results of the decode step before it, if the launch is
  the longer one;
- after a prompt whose kernels ended within their launch: its results are seen once the next decode step is launched.
  Such are short prompts. In a mixture of experts 64 tokens read every expert: if most of those waits outlast a decode
  step, which a launch does not, they show the GPU, and prompts little beyond the largest CUDA graph are taken instead.

The workers of a pair show it elsewhere. A prefill worker has nothing to launch after its last prompt, so that a short
one takes as long as its launch, and only prompts follow prompts. A decode worker begins from idle with a decode step.

Elsewhere prompts that other prompts follow at once are left out: the engine's other threads are then busy with taking
them in. So are steps that post a transfer (the column `posts`), which planner.calibration.hand_over explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.calibration.chunks import single_tokens
from planner.calibration.cost_fits import robust_line
from planner.engine.law import launch_seconds

LEAST_ROWS = 5  # of a kind of launch
LONGER = 1.3  # a wait of so many decode steps is not that of a decode step
BEYOND = 2  # largest CUDA graphs: up to so many tokens, kernels launched one by one end with their launch
CLEARLY = 1.5
SHORT = 256  # tokens: kernels of a prompt up to this end with their launch
MANY = 4  # sequences: fewer do not tell what each takes
KINDS = ("launch_decode_s", "launch_graph_s", "launch_eager_s")

Array = NDArray[np.float64]
Waits = list[tuple[float, float]]  # decodes of the step that was launched, seconds


@dataclass(frozen=True)
class LaunchFit:
    """The law's launch terms by name, and their standard errors. A term that was not seen is left out: zero."""

    values: dict[str, float]
    errors: dict[str, float]
    largest: int  # tokens of the largest CUDA graph; 0: none

    def seconds(self, prompt_tokens: Array, decodes: Array) -> Array:
        return launch_seconds(prompt_tokens, decodes, self.largest, self.values)

    @property
    def head_s(self) -> float:
        """From deciding a step on an idle engine to its first kernel."""
        return self.values.get("launch_decode_s", 0.0)


def seen_ends(ordered: pd.DataFrame) -> Array:
    """When each step's results were taken in, rows by worker and start.

    A step that was scheduled while another ran lasts from that one's end on.
    """
    ends: Array = ordered["start_s"].to_numpy(dtype=float) + ordered["duration_s"].to_numpy(dtype=float)
    workers, durations = ordered["worker"].tolist(), ordered["duration_s"].tolist()
    for index in range(1, len(ends)):
        if workers[index] == workers[index - 1]:
            ends[index] = max(ends[index], ends[index - 1] + durations[index])
    return ends


def launch_rows(steps: pd.DataFrame, largest: int) -> pd.DataFrame:
    """One row a launch that was seen: its `kind` (a term of the law), `decodes` of the step, `seconds`."""
    parts = [_of_worker(own, largest) for _, own in steps.groupby("worker")]
    rows = [row for part in parts for row in part]
    table = pd.DataFrame(rows, columns=["kind", "decodes", "seconds"])
    return table.astype({"decodes": "float64", "seconds": "float64"})


def _of_worker(steps: pd.DataFrame, largest: int) -> list[tuple[str, float, float]]:
    own = steps.sort_values("start_s", ignore_index=True)
    decided, seen = own["start_s"].to_numpy(dtype=float), seen_ends(own)
    tokens, decodes = own["prefill_tokens"].to_numpy(dtype=float), own["decode_seqs"].to_numpy(dtype=float)
    if "chunks" in own:
        ones, _ = single_tokens(own["chunks"])
        tokens, decodes = tokens - ones, decodes + ones
    posts = own["posts"].to_numpy(dtype=float) > 0 if "posts" in own else np.zeros(len(own), dtype=bool)
    prompt = tokens > 0
    only_prompts = bool(prompt.all())
    kind = np.where(tokens + decodes > largest, "launch_eager_s", "launch_graph_s")
    rows: list[tuple[str, float, float]] = []
    short, beyond = Waits(), Waits()
    for step in range(len(own)):
        idle = step == 0 or decided[step] >= seen[step - 1]
        followed = step + 1 < len(own) and decided[step + 1] < seen[step]
        if only_prompts and idle and not followed and tokens[step] <= SHORT:
            rows.append((kind[step], decodes[step], seen[step] - decided[step]))
        if not followed or posts[step] or posts[step + 1]:
            continue
        if not prompt[step]:
            if idle:
                rows.append(("launch_decode_s", decodes[step], decided[step + 1] - decided[step]))
            continue
        if only_prompts and idle:
            rows.append((kind[step], decodes[step], decided[step + 1] - decided[step]))
        if step < 3 or prompt[step + 1]:
            continue
        if idle:
            rows.append((kind[step], decodes[step], decided[step + 1] - decided[step]))
        elif not prompt[step - 3 : step].any():
            waited, usual = seen[step - 1] - decided[step], seen[step - 2] - seen[step - 3]
            if waited > LONGER * usual:
                rows.append((kind[step], decodes[step], waited))
        after = (decodes[step + 1], seen[step] - decided[step + 1])
        if tokens[step] <= SHORT:
            short.append(after)
        elif kind[step] == "launch_eager_s" and tokens[step] <= BEYOND * largest:
            beyond.append(after)
    chosen = beyond if _of_gpu(short, beyond, _step_seconds(seen, prompt, decodes)) else short
    return rows + [("launch_decode_s", *after) for after in chosen]


def _of_gpu(short: Waits, beyond: Waits, usual_s: pd.Series) -> bool:
    """Waits after short prompts outlast a decode step of their batch, those after the others are clearly shorter."""
    if not short or not beyond:
        return False
    outlast = [seconds > usual_s.get(batch, np.inf) for batch, seconds in short]
    one, other = (float(np.median([seconds for _, seconds in waits])) for waits in (short, beyond))
    return float(np.mean(outlast)) > 0.5 and one > CLEARLY * other


def _step_seconds(seen: Array, prompt: NDArray[np.bool_], decodes: Array) -> pd.Series:
    """What a decode step takes that follows another of the same batch, by batch."""
    alike = ~prompt[1:] & ~prompt[:-1] & (decodes[1:] == decodes[:-1])
    return pd.Series(np.diff(seen)[alike]).groupby(decodes[1:][alike]).median()


def fit_launches(runs: Sequence[pd.DataFrame], sizes: Sequence[int]) -> LaunchFit | None:
    """From the steps tables of runs; None where steps do not overlap or no launch was longer than what hid it."""
    largest = max(sizes, default=0)
    tables = [launch_rows(steps, largest) for steps in runs if len(steps)]
    if not tables:
        return None
    rows = pd.concat(tables, ignore_index=True)
    known = [name for name in KINDS if (rows["kind"] == name).sum() >= LEAST_ROWS]
    if "launch_decode_s" not in known or len(known) < 2:
        return None
    rows = rows[rows["kind"].isin(known)]
    counts = {name: (rows["kind"] == name).astype(float) for name in known}
    if rows["decodes"].nunique() >= 3 and (rows["decodes"] >= MANY).sum() >= LEAST_ROWS:
        counts["launch_per_seq_s"] = rows["decodes"]
    seconds = rows["seconds"].to_numpy(dtype=float)
    design = np.column_stack(list(counts.values())) / seconds[:, None]  # relative: launches differ by ten times
    found, errors = robust_line(design, np.ones_like(seconds))
    values = {name: max(value, 0.0) for name, value in zip(counts, found, strict=True)}
    return LaunchFit(values, dict(zip(counts, errors, strict=True)), largest)
