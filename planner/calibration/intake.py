"""What share of a request's way to the engine is the API server's own work, from requests that were sent together.

It is one process. Requests that come within TOGETHER_S leave it together, after the work of all, as in the simulator
(`simulator.pool.Intake`); the rest of the way each goes by itself. The engines that say so are idle: the first of such
requests that an engine has in its queue has waited for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from planner.calibration.fitting import Array
from planner.calibration.launches import seen_ends
from planner.engine.profile_file import HostLaw
from planner.engine.profiles import TOGETHER_S
from planner.run.tables import Run

APART_S = 0.005  # a request that comes later than so after the one before it was not sent together with it
LEAST = 5  # groups that a fit takes
SHARES = np.linspace(0.0, 1.0, 101)  # tried
DRAWS = 200  # of groups, for the standard error


@dataclass(frozen=True)
class Together:
    """Requests sent to an idle worker: when each came, its prompt, and when the first was in the engine's queue."""

    arrival_s: Array
    prompt_tokens: Array
    first_queued_s: float

    def predicted_s(self, host: HostLaw, share: float) -> float:
        """When the first is in the engine's queue if this share of the way is work that they share."""
        way = host.request_s + host.request_per_token_s * self.prompt_tokens
        reached = self.arrival_s + (1.0 - share) * way
        order = np.argsort(reached, kind="stable")
        reached, work = reached[order], share * way[order]
        return float(reached[0] + work[reached <= reached[0] + min(TOGETHER_S, work[0])].sum())


def together(run: Run) -> Iterator[Together]:
    """Groups of at least two."""
    known = run.requests.dropna(subset=["queued_s"])
    if run.steps.empty:
        return
    for worker, requests in known.groupby("worker"):
        steps = run.steps[run.steps["worker"] == worker].sort_values("start_s", ignore_index=True)
        begins, ends = steps["start_s"].to_numpy(dtype=float), np.maximum.accumulate(seen_ends(steps))
        rows = requests.sort_values("arrival_s", kind="stable")
        arrival = rows["arrival_s"].to_numpy(dtype=float)
        for group in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(arrival) > APART_S) + 1):
            before = int(np.searchsorted(begins, arrival[group[0]]))
            if len(group) > 1 and not (before and ends[before - 1] > arrival[group[0]]):
                one: pd.DataFrame = rows.iloc[group]
                yield Together(arrival[group], one["prompt_tokens"].to_numpy(dtype=float), float(one["queued_s"].min()))


def fit_shared(runs: Sequence[Run], host: HostLaw) -> tuple[float, float] | None:
    """The share, and its standard error over groups; None where too few were sent together, or none waited."""
    groups = [group for run in runs for group in together(run)]
    if len(groups) < LEAST:
        return None
    wrong = np.array(
        [[abs(group.predicted_s(host, share) - group.first_queued_s) for share in SHARES] for group in groups]
    )
    best = int(np.argmin(np.median(wrong, axis=0)))
    if not best:
        return None
    index = np.random.default_rng(0).integers(0, len(groups), size=(DRAWS, len(groups)))
    drawn = SHARES[np.argmin(np.median(wrong[index], axis=1), axis=1)]
    return float(SHARES[best]), float(np.std(drawn))
