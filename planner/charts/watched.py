"""A watch: what was predicted of each interval, with its own interval, and what was measured in it."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from planner.charts.style import COLOURS, TARGET, Chart, Say, plain


def how_it_held(table: pd.DataFrame, metric: str, events: Sequence[tuple[float, str]] = (), say: Say = plain) -> Chart:
    """One metric of planner.watching.tables.row over time (UTC): its band, the prediction, the measured points.

    `metric` is ttft, tpot or e2e; points outside of the band have the colour of a missed target. `events`: Unix time
    and what was said then.
    """
    columns = {name: table[f"{metric}_s_{name}"] * 1e3 for name in ("predicted", "low", "high", "measured")}
    data = pd.DataFrame({"time": _time(table["end_unix_s"]), **columns})
    held = data["measured"].between(data["low"], data["high"]) | data["low"].isna()
    data["held"] = held.map({True: say("inside, or not judged yet"), False: say("outside")})
    x = alt.X("time:T", title=say("Time, UTC"), axis=alt.Axis(format="%H:%M", tickCount=8), scale=alt.Scale(type="utc"))
    colour = COLOURS["decode" if metric == "tpot" else "prefill"]
    top = float(pd.concat([data["measured"], data["predicted"]]).max()) * 1.5
    scale = alt.Scale(domain=[0, top], clamp=True)
    y = alt.Y("measured:Q", title=f"{metric.upper()}, ms", scale=scale)
    base = alt.Chart(data)
    band = base.mark_area(opacity=0.2, color=colour).encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
    line = base.mark_line(strokeDash=[5, 3], color=colour).encode(x=x, y=alt.Y("predicted:Q", scale=scale))
    names = alt.Scale(domain=[say("inside, or not judged yet"), say("outside")], range=[colour, TARGET])
    titles = {"measured": say("measured"), "predicted": say("predicted"), "low": say("low"), "high": say("high")}
    numbers = [alt.Tooltip(f"{name}:Q", title=text, format=".4g") for name, text in titles.items()]
    shapes = alt.Scale(domain=names.domain, range=["circle", "diamond"])
    points = base.mark_point(filled=True).encode(
        x=x,
        y=y,
        size=alt.condition(alt.datum.held == say("outside"), alt.value(130), alt.value(50)),
        shape=alt.Shape("held:N", scale=shapes, legend=alt.Legend(title=None, orient="top")),
        color=alt.Color("held:N", scale=names, legend=alt.Legend(title=None, orient="top")),
        tooltip=[alt.Tooltip("time:T", format="%H:%M:%S", title=say("Time, UTC")), *numbers],
    )
    said = pd.DataFrame(
        {"time": _time(pd.Series([at for at, _ in events], dtype=float)), "what": [w for _, w in events]}
    )
    rules = (
        alt.Chart(said)
        .mark_rule(color="#808080", strokeDash=[2, 3], size=1.5)
        .encode(x=x, tooltip=[alt.Tooltip("what:N", title=" ")])
    )
    return alt.layer(band, line, rules, points).properties(height=260)


def _time(unix_s: pd.Series[float]) -> pd.Series[pd.Timestamp]:
    return pd.to_datetime(unix_s, unit="s", utc=True)
