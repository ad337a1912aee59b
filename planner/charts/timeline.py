"""What each GPU does with the same few requests: prefill, hand-over and decode, from the records of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from planner.charts.style import COLOURS, NAMES, Chart, Say, plain, scale_of
from planner.messages import message
from planner.run.tables import Run

FOLLOWED = 24  # requests
AROUND = 110  # pixels of the legend and the axis, which a page takes from the height of a chart
BUSY_FROM = 0.4  # of the requests come before: the system is filled by then
# Stage -> whose row it is in, from when, to when.
SPANS = {
    "queue": ("worker", "queued_s", "prefill_start_s"),
    "prefill": ("worker", "prefill_start_s", "prefill_end_s"),
    "transfer": ("decode_worker", "transfer_start_s", "transfer_end_s"),
    "decode": ("decode_worker", "decode_start_s", "finish_s"),
}
ROLE_ORDER = ("aggregated", "prefill", "decode")


def followed(run: Run, most: int = FOLLOWED) -> list[int]:
    """Ids of requests that were sent one after the other, in the middle of the run."""
    ids = run.requests.sort_values("arrival_s")["request_id"].tolist()
    first = max(0, min(int(BUSY_FROM * len(ids)), len(ids) - most))
    return [int(one) for one in ids[first : first + most]]


def spans_table(run: Run, ids: Sequence[int]) -> pd.DataFrame:
    """One row a stage of a request: request, stage, worker, start_s and end_s since the first of them was sent, lane.

    Stages of one worker that overlap are in different lanes; a request keeps its lane while it stays on a worker.
    """
    rows = run.requests[run.requests["request_id"].isin(list(ids))].sort_values("arrival_s")
    begun = float(rows["arrival_s"].min()) if len(rows) else 0.0
    spans = [
        {
            "request": int(row["request_id"]), "stage": stage, "worker": str(row[where]),
            "start_s": float(row[start]) - begun, "end_s": float(row[end]) - begun,
        }
        for row in rows.to_dict("records")
        for stage, (where, start, end) in SPANS.items()
        if not pd.isna(row[where]) and not pd.isna(row[start]) and not pd.isna(row[end])
    ]  # fmt: skip
    table = pd.DataFrame(spans, columns=["request", "stage", "worker", "start_s", "end_s"])
    return table.assign(lane=_lanes(table))


def _lanes(table: pd.DataFrame) -> list[int]:
    """The first lane of its worker that is free for as long as a request stays there."""
    stays = table.groupby(["worker", "request"], sort=False).agg(start=("start_s", "min"), end=("end_s", "max"))
    ends: dict[str, list[float]] = {}
    lane_of: dict[tuple[str, int], int] = {}
    for stay in stays.sort_values("start").reset_index().to_dict("records"):
        lanes = ends.setdefault(stay["worker"], [])
        free = next((at for at, end in enumerate(lanes) if end <= stay["start"]), len(lanes))
        lanes[free : free + 1] = [float(stay["end"])]
        lane_of[stay["worker"], stay["request"]] = free
    return [lane_of[worker, request] for worker, request in zip(table["worker"], table["request"], strict=True)]


def what_requests_do(run: Run, ids: Sequence[int], until_s: float, say: Say = plain) -> Chart:
    """One row of lanes a worker, time to the right; bars are stages of the requests `ids`. Measured is filled."""
    roles: dict[str, str] = dict(run.manifest.get("workers") or {})
    table = spans_table(run, ids)
    workers = sorted(roles, key=lambda name: (ROLE_ORDER.index(roles[name]), len(name), name))
    deep = table.groupby("worker")["lane"].max().to_dict()
    heights = [int(deep.get(name, 0)) + 1 for name in workers]
    tops = dict(zip(workers, np.cumsum([0, *(height + 1 for height in heights)]).tolist(), strict=False))
    names = {name: _named(name, roles[name], say) for name in workers}
    table = table[table["worker"].isin(workers)]
    table = table.assign(
        top=[tops[worker] + lane for worker, lane in zip(table["worker"], table["lane"], strict=True)],
        kind=[say(NAMES[stage]) for stage in table["stage"]],
        told=[
            say(
                message(
                    "Request {number}: {stage} on {worker}, {seconds} ms",
                    row["request"], say(NAMES[row["stage"]]), names[row["worker"]],
                    f"{1e3 * (row['end_s'] - row['start_s']):.0f}",
                )
            )
            for row in table.to_dict("records")
        ],
    )  # fmt: skip
    table["bottom"] = table["top"] + 0.85
    middles = {tops[name] + height / 2: names[name] for name, height in zip(workers, heights, strict=True)}
    labels = {f"{at:g}": name for at, name in middles.items()}  # as JavaScript writes numbers
    axis = alt.Axis(
        values=list(middles), labelExpr=f"{json.dumps(labels)}[datum.value]", grid=False, ticks=False, domain=False,
        labelOverlap=False,
    )  # fmt: skip
    total = sum(height + 1 for height in heights)
    colours = {**COLOURS, "queue": "#AAAAAA"}
    scale = scale_of(list(SPANS), say, colours)
    down = alt.Scale(domain=[-0.5, total - 0.5], reverse=True, nice=False, zero=False)
    rules = pd.DataFrame({"y": [tops[name] - 0.5 for name in workers[1:]]})
    bars = (
        alt.Chart(table)
        .mark_bar(clip=True, fillOpacity=1.0 if run.manifest.get("backend") == "live" else 0.6, strokeWidth=1)
        .encode(
            x=alt.X("start_s:Q", title=say("Time, s"), scale=alt.Scale(domain=[0, until_s], nice=False)),
            x2="end_s:Q",
            y=alt.Y(
                "top:Q",
                title=None,
                axis=axis,
                scale=down,
            ),
            y2="bottom:Q",
            color=alt.Color("kind:N", scale=scale, legend=alt.Legend(title=None, orient="top")),
            stroke=alt.Stroke("kind:N", scale=scale, legend=None),
            tooltip=[alt.Tooltip("told:N", title=" ")],
        )
    )
    lines = alt.Chart(rules).mark_rule(color="#808080", opacity=0.4).encode(y="y:Q")
    return alt.layer(lines, bars).properties(height=max(190, min(700, AROUND + 9 * total)))


def _named(worker: str, role: str, say: Say) -> str:
    """prefill-0 is the first of its pool."""
    number = worker.rpartition("-")[2]
    return f"{say(NAMES[role])} {int(number) + 1}" if number.isdigit() else worker
