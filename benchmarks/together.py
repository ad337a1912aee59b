"""When a request that came together with others is in its engine's queue: recorded, and by the simulator's rule.

    python benchmarks/together.py RUN ... [--share 0.2] [--most 3]

Groups are requests no more than 5 ms apart that came to an idle engine, so that the first of them in its queue waited
for the API server only. A group alone on the way takes what the same runs' single requests took. Prints for every run
how far the rule is from the recorded first, beside no sharing (share and most that `planner.engine.profiles` names by
default).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from planner.calibration.launches import seen_ends
from planner.engine.host_costs import MOST_TOGETHER, REQUEST_SHARED
from planner.run.tables import Run

APART_S = 0.005
ALONE_S = 0.02


def groups(run: Run) -> list[pd.DataFrame]:
    """Requests of one worker that came within APART_S of each other while its engine had no step under way."""
    found = []
    for worker, requests in run.requests.dropna(subset=["queued_s"]).groupby("worker"):
        steps = run.steps[run.steps["worker"] == worker].sort_values("start_s", ignore_index=True)
        begins, ends = steps["start_s"].to_numpy(dtype=float), np.maximum.accumulate(seen_ends(steps))
        rows = requests.sort_values("arrival_s", kind="stable").reset_index(drop=True)
        after = rows["arrival_s"].diff().fillna(np.inf)
        for _, group in rows.groupby((after > APART_S).cumsum()):
            first = group.index[0]
            before = int(np.searchsorted(begins, group["arrival_s"].iloc[0]))
            alone = after[first] > ALONE_S
            if alone and not (before and ends[before - 1] > group["arrival_s"].iloc[0]):
                found.append(group)
    return found


def way(found: list[pd.DataFrame]) -> tuple[float, float]:
    """(seconds, seconds a token) from arrival to queue of requests that came alone; each counts by its share."""
    alone = pd.concat([group for group in found if len(group) == 1])
    took = (alone["queued_s"] - alone["arrival_s"]).to_numpy()
    terms = np.column_stack([np.ones(len(alone)), alone["prompt_tokens"]])
    (fixed, per_token), *_ = np.linalg.lstsq(terms / took[:, None], np.ones(len(took)), rcond=None)
    return float(fixed), float(per_token)


def first_s(group: pd.DataFrame, law: tuple[float, float], share: float, most: int) -> float:
    """When the first is in the queue, by the rule of `simulator.pool.Intake`."""
    prompts = group["prompt_tokens"].to_numpy(dtype=float)
    work = share * law[0] + law[1] * prompts if share else np.zeros(len(prompts))
    reached = group["arrival_s"].to_numpy() + law[0] + law[1] * prompts - work
    order = np.argsort(reached, kind="stable")[:most]
    end = reached[order[0]] + work[order[0]]
    for index in order[1:]:
        if reached[index] > end:
            break
        end += work[index]
    return float(end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=REQUEST_SHARED)
    parser.add_argument("--most", type=int, default=MOST_TOGETHER)
    given = parser.parse_args()
    for path in given.runs:
        found = groups(Run.load(path))
        law = way(found)
        several = [group for group in found if len(group) > 1]
        recorded = np.array([group["queued_s"].min() for group in several])
        line = [f"{path}: {len(several)} groups, alone {1e3 * law[0]:.1f} ms and {1e6 * law[1]:.2f} us a token"]
        for share, most in ((given.share, given.most), (0.0, 1)):
            off = 1e3 * (np.array([first_s(group, law, share, most) for group in several]) - recorded)
            line.append(
                f"share {share:g}, {most} at most: off by {np.abs(off).mean():.1f} ms, median {np.median(off):+.1f}"
            )
        print("; ".join(line))


if __name__ == "__main__":
    main()
