"""The answer for the user's own load: how few GPUs it needs, what it costs, and what else may be preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from planner.report import printing
from planner.report.printing import shown
from planner.report.words import number, percent
from planner.run.metrics import METRICS, Summary
from planner.run.tables import Progress
from planner.spec import dump
from planner.suggestion.answer import Row, Suggestion
from planner.suggestion.splits import Split, apply
from planner.suggestion.words import engines, pick, sentence
from planner.ui import compute
from planner.ui.scenario import Scenario
from planner.ui.texts import say, t

COMPARED = 6  # of the candidates that serve the load, those that are run under it to find the fastest


@dataclass(frozen=True)
class Option:
    """One deployment under the user's own load. `highest`: requests/s within the targets; None: not searched."""

    why: str  # what it is the best in, in the session's language
    name: str
    gpus: int
    highest: float | None
    summary: Summary

    @property
    def cost(self) -> float | None:
        """US dollars per million tokens, read and written; None without a price."""
        return self.summary["cost_per_million_tokens"]


def serves(found: Suggestion, rate: float) -> bool:
    """Whether the GPUs asked about serve the load: by the answer's own highest rate, or by the count."""
    fewest = found.smallest
    return pick(found.rows, found.verdict).rate >= rate or (fewest is not None and fewest.gpus is not None)


def lead(now: Scenario, found: Suggestion, rate: float | None) -> None:
    """The sentence for the user's load, then that of the comparison."""
    verdict = say(sentence(found.rows, found.verdict, found.gpus, found.slo))
    best = pick(found.rows, found.verdict)
    if rate is None or not best.rate > 0:
        st.subheader(verdict, anchor=False)
        return
    if not serves(found, rate):
        st.subheader(f":material/block: {too_much(found, rate)}", anchor=False)
    else:
        st.subheader(_needs(now, found, best, rate), anchor=False)
    st.markdown(f"**{verdict}**")


def too_much(found: Suggestion, rate: float) -> str:
    """That these GPUs do not serve the load, and what they reach."""
    best = pick(found.rows, found.verdict)
    reached = {"rate": number(rate), "most": number(best.rate), "engines": say(engines(best))}
    if found.gpus == 1:
        return t(
            "{rate} requests/s cannot be served within the targets: 1 GPU reaches {most}, as {engines}.", **reached
        )
    return t(
        "{rate} requests/s cannot be served within the targets: all {gpus} GPUs reach {most}, as {engines}.",
        gpus=found.gpus, **reached,
    )  # fmt: skip


def _needs(now: Scenario, found: Suggestion, best: Row, rate: float) -> str:
    cheapest = options(now, found, rate)[0]
    figures = [f"{METRICS[name].label} {shown(METRICS[name], cheapest.summary[name])}" for name in LATENCIES]
    if cheapest.cost is not None:
        figures.append(t("{cost} per million tokens", cost=dollars(cheapest.cost)))
    text = t(
        "{rate} requests/s needs {count}: run {name}; {figures}.",
        rate=number(rate), count=_count(cheapest.gpus), name=cheapest.name, figures=t(", ").join(figures),
    )  # fmt: skip
    text += edge(cheapest.summary)
    if found.gpus > cheapest.gpus:
        text += t(" ") + t("All {gpus} would reach {most} requests/s.", gpus=found.gpus, most=number(best.rate))
    return text


def edge(summary: Summary) -> str:
    """That a run under the load misses its targets by a little, which other lists of requests met; else nothing."""
    share = summary["attainment"]
    if share is None or share >= summary.slo.attainment:
        return ""
    told = {"share": percent(share), "target": percent(summary.slo.attainment)}
    return t(" ") + t("This is the edge: {share} of the requests meet the targets, {target} should.", **told)


LATENCIES = ("ttft_p99_ms", "tpot_p99_ms")


def _count(gpus: int) -> str:
    return t("1 GPU") if gpus == 1 else t("{n} GPUs", n=gpus)


def dollars(cost: float) -> str:
    """The sign is escaped: two of them would be a formula."""
    return rf"\${number(cost)}"


def options(now: Scenario, found: Suggestion, rate: float, progress: Progress | None = None) -> list[Option]:
    """The cheapest, the fastest for a user, and that with the most room; each run under the user's load."""
    fewest, best = found.smallest, pick(found.rows, found.verdict)
    smaller = compute.fewest_yaml(now, fewest) if fewest and fewest.gpus and fewest.gpus < found.gpus else None
    enough = [row for row in found.rows if row.rate >= rate][:COMPARED]
    room = max(enough, key=lambda row: row.low, default=None)
    rows = [row for row in (best if best.rate > 0 and not smaller else None, *enough, room) if row is not None]
    texts = {row.name: _text(now, found, row) for row in rows}
    runs = compute.under_load([*([smaller] if smaller else []), *texts.values()], rate, progress)

    def option(why: str, row: Row) -> Option:
        summary = runs[texts[row.name]]
        return Option(why, say(engines(row)), found.gpus, row.rate, summary)

    made: list[Option] = []
    if smaller and fewest and fewest.gpus:
        name, summary = _named(compute.fewest_split(now, fewest)), runs[smaller]
        made.append(Option(t("cheapest"), name, fewest.gpus, None, summary))
    elif best.rate > 0:
        made.append(option(t("cheapest"), best))
    if room is not None:
        fastest = max(enough, key=lambda row: runs[texts[row.name]]["tokens_per_s_per_user"] or 0.0)
        made += [option(t("fastest for a user"), fastest), option(t("most room"), room)]
    return made


def _named(split: Split) -> str:
    """3 aggregated engines; another split is its name."""
    count = split.first.replicas
    if split.second is not None or split.first.size:
        return say(split.name)
    return t("1 aggregated engine") if count == 1 else t("{n} aggregated engines", n=count)


def _text(now: Scenario, found: Suggestion, row: Row) -> str:
    return found.yaml if row == pick(found.rows, found.verdict) else dump(apply(now.spec(), row.split))


def alternatives(found: Suggestion, made: list[Option], rate: float) -> None:
    """One row a deployment, with all that it is best in."""
    if not made:
        return
    st.markdown(t("Under your traffic of {rate} requests/s:", rate=number(rate)))
    best_in: dict[tuple[str, int], list[Option]] = {}
    for one in made:
        best_in.setdefault((one.name, one.gpus), []).append(one)
    rows = []
    for same in best_in.values():
        one = same[0]
        row = {
            t("What it is best in"): " · ".join(other.why for other in same),
            t("Deployment"): one.name,
            t("GPUs"): str(one.gpus),
        }
        for name in (*LATENCIES, "tokens_per_s_per_user", "attainment"):
            row[say(METRICS[name].label)] = shown(METRICS[name], one.summary[name])
        row[t("Highest rate within the targets, requests/s")] = "–" if one.highest is None else number(one.highest)
        row[t("US dollars per million tokens")] = "–" if one.cost is None else number(one.cost)
        rows.append(row)
    st.table(pd.DataFrame(rows).set_index(t("What it is best in")))
    warned([one.summary for one in made])


def warned(summaries: Sequence[Summary]) -> None:
    """What a reader must know of these runs before using their numbers."""
    for warning in dict.fromkeys(text for summary in summaries for text in printing.warnings(summary)):
        st.caption(f":material/warning: {say(warning)}")
