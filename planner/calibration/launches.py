"""How long the host takes to launch a step, read from the steps of an engine that schedules ahead.

Such an engine does one thing after another: it takes in the results of step k-1, decides step k+1 and launches it
while the GPU runs step k, then waits for the results of step k. So a launch shows in three places:

- on an idle engine, between deciding a prompt's step and deciding the one after it;
- beside decodes, between deciding a prompt's step and seeing the results of the decode step before it, if the launch is
  the longer one: whatever ran before that step had ended when the prompt's was decided;
- after a prompt whose kernels ended within their launch: its results are seen once the next decode step is launched.
  Such are short prompts. In a mixture of experts 64 tokens read every expert: if most of those waits outlast a decode
  step, which a launch does not, they show the GPU, and prompts little beyond the largest CUDA graph are taken instead.

The workers of a pair show it elsewhere. A prefill worker has nothing to launch after its last prompt, so that a short
one takes as long as its launch, and only prompts follow prompts. A decode worker begins from idle with a decode step.

Elsewhere on an idle engine prompts that other prompts follow at once are left out: its other threads are then busy with
taking them in. So are steps that post a transfer (the column `posts`), which planner.calibration.hand_over explains,
and launches in which a kernel was compiled for a shape that came first: one of 1.5 s among some tens of 70 ms.

The host is uneven: on H200 servers launches of one kind take 15, 21 or 27 ms and keep such a level for about half a
second, whatever the step holds, whatever arrives or ends and whatever the other worker does (`fit_levels`). What
decides it is outside of the engine's records. A run sees some tens of stays, so that means of runs differ by a tenth;
servers differ by more (planner.calibration.spread). Launches of one stay tell one level: errors count them so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.calibration.chunks import single_tokens
from planner.calibration.cost_fits import robust_line
from planner.calibration.fitting import digits
from planner.engine.law import launch_seconds
from planner.engine.profile_file import Launches

LEAST_ROWS = 5  # of a kind of launch
LONGER = 1.3  # a wait of so many decode steps is not that of a decode step
BEYOND = 2  # largest CUDA graphs: up to so many tokens, kernels launched one by one end with their launch
CLEARLY = 1.5
SHORT = 256  # tokens: kernels of a prompt up to this end with their launch
FIRST = 3  # steps of an engine that is hardly warm
COMPILED = 4.0  # times the median of its kind: host levels are up to twice as long, compiling twenty times
MANY = 4  # sequences: fewer do not tell what each takes
LEVELS = (10, 30, 50, 70, 90)  # percentiles: the middles of five equal parts
ENOUGH = 20  # launches that show how uneven they are
PAIRS, NEAR_S = 1000, 1.0  # so many pairs that close in time show how long a level stays
STAYS_S = np.geomspace(0.05, 10.0, 60)  # tried
# Where a calibration's tens of launches do not show it: they said 0.05 to 1 s of 13 H200 servers, the servers' loads,
# with hundreds of launches each, 0.2 to 0.8 s, the median 0.33.
USUAL_STAY_S = 0.33
KINDS = ("launch_decode_s", "launch_graph_s", "launch_eager_s")

Array = NDArray[np.float64]
Waits = list[tuple[float, float, float]]  # decodes of the step that was launched, seconds, when
Row = tuple[str, float, float, float]


@dataclass(frozen=True)
class LaunchFit:
    """The law's launch terms by name, and their standard errors. A term that was not seen is left out: zero."""

    values: dict[str, float]
    errors: dict[str, float]
    largest: int  # tokens of the largest CUDA graph; 0: none
    compiled_s: tuple[float, ...] = ()  # launches that were left out because kernels were compiled in them

    def seconds(self, prompt_tokens: Array, decodes: Array) -> Array:
        return launch_seconds(prompt_tokens, decodes, self.largest, self.values)

    @property
    def told(self) -> bool:
        """Whether they are the launches of kernels: with TP other processes launch them, which no step shows."""
        return self.values.get("launch_eager_s", 0.0) > self.values.get("launch_decode_s", 0.0)

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
    """A row for each launch seen: `kind` (a term of the law), `decodes` of the step, `seconds`, `at_s`, `worker`."""
    rows = [(*row, worker) for worker, own in steps.groupby("worker") for row in _of_worker(own, largest)]
    table = pd.DataFrame(rows, columns=["kind", "decodes", "seconds", "at_s", "worker"])
    return table.astype({"decodes": "float64", "seconds": "float64", "at_s": "float64"})


def _of_worker(steps: pd.DataFrame, largest: int) -> list[Row]:
    own = steps.sort_values("start_s", ignore_index=True)
    decided, seen = own["start_s"].to_numpy(dtype=float), seen_ends(own)
    tokens, decodes = own["prefill_tokens"].to_numpy(dtype=float), own["decode_seqs"].to_numpy(dtype=float)
    if "chunks" in own:
        ones, _ = single_tokens(own["chunks"])
        tokens, decodes = tokens - ones, decodes + ones
    posts = own["posting"].to_numpy(dtype=float) > 0 if "posting" in own else np.zeros(len(own), dtype=bool)
    prompt = tokens > 0
    only_prompts = bool(prompt.all())
    kind = np.where(tokens + decodes > largest, "launch_eager_s", "launch_graph_s")
    usual_s = _step_seconds(seen, prompt, decodes)
    rows: list[Row] = []
    short, beyond = Waits(), Waits()
    for step in range(len(own)):
        idle = step == 0 or decided[step] >= seen[step - 1]
        followed = step + 1 < len(own) and decided[step + 1] < seen[step]
        if only_prompts and idle and not followed and tokens[step] <= SHORT:
            rows.append((kind[step], decodes[step], seen[step] - decided[step], decided[step]))
        if not followed or posts[step] or posts[step + 1]:
            continue
        if not prompt[step]:
            if idle:
                rows.append(("launch_decode_s", decodes[step], decided[step + 1] - decided[step], decided[step]))
            continue
        if only_prompts and idle:
            rows.append((kind[step], decodes[step], decided[step + 1] - decided[step], decided[step]))
        if not idle and not prompt[step - 1]:
            waited = seen[step - 1] - decided[step]
            if waited > LONGER * usual_s.get(decodes[step - 1], np.inf):
                rows.append((kind[step], decodes[step], waited, decided[step]))
        if step < FIRST or prompt[step + 1]:
            continue
        if idle:
            rows.append((kind[step], decodes[step], decided[step + 1] - decided[step], decided[step]))
        after = (decodes[step + 1], seen[step] - decided[step + 1], decided[step + 1])
        if tokens[step] <= SHORT:
            short.append(after)
        elif kind[step] == "launch_eager_s" and tokens[step] <= BEYOND * largest:
            beyond.append(after)
    chosen = beyond if _of_gpu(short, beyond, usual_s) else short
    return rows + [("launch_decode_s", *after) for after in chosen]


def _of_gpu(short: Waits, beyond: Waits, usual_s: pd.Series) -> bool:
    """Waits after short prompts outlast a decode step of their batch, those after the others are clearly shorter.

    Without decodes in a row, as where the host alone is measured, the second says it.
    """
    if not short or not beyond:
        return False
    outlast = [seconds > usual_s[batch] for batch, seconds, _ in short if batch in usual_s.index]
    one, other = (float(np.median([seconds for _, seconds, _ in waits])) for waits in (short, beyond))
    return (not outlast or float(np.mean(outlast)) > 0.5) and one > CLEARLY * other


def _step_seconds(seen: Array, prompt: NDArray[np.bool_], decodes: Array) -> pd.Series:
    """What a decode step takes that follows another of the same batch, by batch."""
    alike = ~prompt[1:] & ~prompt[:-1] & (decodes[1:] == decodes[:-1])
    return pd.Series(np.diff(seen)[alike]).groupby(decodes[1:][alike]).median()


def fit_launches(
    runs: Sequence[pd.DataFrame], sizes: Sequence[int], per_seq_s: float | None = None
) -> LaunchFit | None:
    """From the steps tables of runs; None where steps do not overlap or no launch was longer than what hid it.

    `per_seq_s` is what each sequence takes, where that is known: few moments of a host would blur it with its levels.
    """
    largest = max(sizes, default=0)
    rows, compiled_s = _warm_rows(runs, largest)
    known = [name for name in KINDS if (rows["kind"] == name).sum() >= LEAST_ROWS]
    if "launch_decode_s" not in known or len(known) < 2:
        return None
    rows = rows[rows["kind"].isin(known)]
    counts = {name: (rows["kind"] == name).astype(float) for name in known}
    if per_seq_s is None and rows["decodes"].nunique() >= 3 and (rows["decodes"] >= MANY).sum() >= LEAST_ROWS:
        counts["launch_per_seq_s"] = rows["decodes"]
    seconds = rows["seconds"].to_numpy(dtype=float)
    design = np.column_stack(list(counts.values())) / seconds[:, None]  # relative: launches differ by ten times
    known_s = (per_seq_s or 0.0) * rows["decodes"].to_numpy(dtype=float)
    found, errors = robust_line(design, 1.0 - known_s / seconds)
    values = {name: max(value, 0.0) for name, value in zip(counts, found, strict=True)}
    alike = _alike(rows)
    known_to = {
        name: error * math.sqrt(float(alike[counts[name] > 0].mean()) if name in KINDS[1:] else 1.0)
        for name, error in zip(counts, errors, strict=True)
    }
    if per_seq_s is not None:
        values, known_to = values | {"launch_per_seq_s": per_seq_s}, known_to | {"launch_per_seq_s": 0.0}
    return LaunchFit(values, known_to, largest, compiled_s)


def _warm_rows(runs: Sequence[pd.DataFrame], largest: int) -> tuple[pd.DataFrame, tuple[float, ...]]:
    """`launch_rows` of runs, with the column `run`, but those in which kernels were compiled: the seconds of these."""
    tables = [launch_rows(steps, largest).assign(run=number) for number, steps in enumerate(runs) if len(steps)]
    if not tables:
        return launch_rows(pd.DataFrame({"worker": []}), largest).assign(run=0), ()
    rows = pd.concat(tables, ignore_index=True)
    compiled = rows["seconds"] > COMPILED * rows.groupby("kind")["seconds"].transform("median")
    compiled &= rows["kind"].isin(KINDS[1:])
    return rows[~compiled].reset_index(drop=True), tuple(rows["seconds"][compiled].tolist())


def _alike(rows: pd.DataFrame) -> Array:
    """How many launches with prompts of its worker tell the level that each of them tells, itself among them."""
    found = np.ones(len(rows))
    prompts = rows[rows["kind"].isin(KINDS[1:])]
    for _, own in prompts.groupby(["run", "worker"]):
        at_s = own["at_s"].to_numpy()
        found[own.index] = np.exp(-np.abs(at_s[:, None] - at_s[None, :]) / USUAL_STAY_S).sum(axis=1)
    return found


def fit_levels(runs: Sequence[pd.DataFrame], fitted: LaunchFit) -> Launches | None:
    """How uneven launches of steps with prompts are, as multiples of the fit; None where too few were seen.

    Steps with prompts alone: a decode step hides its launch. Levels are percentiles; how long one stays follows from
    how alike two launches of a worker are by the time between them.
    """
    rows, _ = _warm_rows(runs, fitted.largest)
    rows = rows[rows["kind"].isin([kind for kind in KINDS[1:] if fitted.values.get(kind)])]
    law = rows["kind"].map(fitted.values) + fitted.values.get("launch_per_seq_s", 0.0) * rows["decodes"]
    rows = rows.assign(ratio=np.log(rows["seconds"] / law)).sort_values("at_s")
    workers = [(own["at_s"].to_numpy(), own["ratio"].to_numpy()) for _, own in rows.groupby(["run", "worker"])]
    workers = [(at_s, ratio) for at_s, ratio in workers if len(ratio) >= LEAST_ROWS]
    if sum(len(ratio) for _, ratio in workers) < ENOUGH:
        return None
    every = np.concatenate([ratio for _, ratio in workers])
    levels = np.percentile(every, LEVELS)
    usual, deviation = float(every.mean()), float(every.std())
    apart_s, alike = [], []
    for at_s, ratio in workers:
        one, other = np.triu_indices(len(at_s), 1)
        near = at_s[other] - at_s[one] < STAYS_S[-1]
        apart_s.append((at_s[other] - at_s[one])[near])
        off = np.clip((ratio - usual) / max(deviation, 1e-9), -2.0, 2.0)  # a single long one says nothing
        alike.append((off[one] * off[other])[near])
    waits, products = np.concatenate(apart_s), np.concatenate(alike)
    if deviation == 0:
        return None
    stays_s = USUAL_STAY_S
    if (waits < NEAR_S).sum() >= PAIRS:
        errors = [float(((products - np.exp(-waits / stays)) ** 2).sum()) for stays in STAYS_S]
        stays_s = digits(float(STAYS_S[int(np.argmin(errors))]))
    return Launches(levels=tuple(digits(level) for level in np.exp(levels).tolist()), stays_s=stays_s)
