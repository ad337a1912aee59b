"""Where a pair's time to first token goes: recorded runs beside their simulation, part by part.

    python benchmarks/first_token_parts.py RUN [RUN ...] [--profile NAME]

RUN is a run folder of 1P1D with its steps. Without `--profile` each is simulated by the profile that its spec names.
Mean milliseconds, measured / simulated, of all requests and of those around the median (35 to 65 % by TTFT):

    prefill   from the client to the end of the prompt's last step
    way       from there until the decode worker has made room
    transfer  posts, bytes, and until a step of the decode worker takes the request up
    first     that step, and the way to the client

Records and simulations mean the same by all but the last two, which live counts a step earlier: their sum compares.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from planner import simulate
from planner.calibration.hand_over import worked
from planner.run.tables import Run
from planner.spec import parse

EDGES = {
    "prefill": ("arrival_s", "prefill_end_s"),
    "way": ("prefill_end_s", "transfer_start_s"),
    "transfer": ("transfer_start_s", "decode_start_s"),
    "first": ("decode_start_s", "first_token_s"),
}
MIDDLE = (0.35, 0.65)


def parts(run: Run) -> pd.DataFrame:
    """A row for each request that was handed over: its parts and TTFT, in ms."""
    done = run.requests.dropna(subset=["first_token_s", "transfer_start_s"])
    found = {name: 1e3 * (done[end] - done[begin]) for name, (begin, end) in EDGES.items()}
    return pd.DataFrame({**found, "ttft": 1e3 * (done["first_token_s"] - done["arrival_s"])})


def busy_s(run: Run) -> float:
    """Seconds that prefill workers spent in steps."""
    spans = worked(run.steps[run.steps["prefill_tokens"] > 0])
    return sum(float((ends - begins).sum()) for name, (begins, ends) in spans.items() if name.startswith("prefill"))


def middle(table: pd.DataFrame) -> pd.DataFrame:
    rank = table["ttft"].rank(pct=True)
    return table[rank.between(*MIDDLE)]


def simulated(run: Run, profile: str | None) -> Run:
    data: dict[str, Any] = yaml.safe_load(run.manifest["spec_yaml"])
    if profile is not None:
        data["profile"] = profile
    return simulate(parse(yaml.safe_dump(data)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--profile")
    given = parser.parse_args()
    for path in given.runs:
        run = Run.load(path)
        twin = simulated(run, given.profile)
        live, told = parts(run), parts(twin)
        half = [table["ttft"].median() for table in (live, told)]
        print(f"{path}: TTFT p50 {half[0]:.1f} / {half[1]:.1f} ms ({100 * (half[1] / half[0] - 1):+.1f} %), ", end="")
        print(f"prefill steps {busy_s(run):.2f} / {busy_s(twin):.2f} s")
        for name, cut in (("all", lambda table: table), ("middle", middle)):
            means = [cut(table).mean() for table in (live, told)]
            print(f"  {name:7}", *(f"{key} {means[0][key]:.1f} / {means[1][key]:.1f}" for key in EDGES), sep="  ")


if __name__ == "__main__":
    main()
