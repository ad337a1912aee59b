"""Judged records as Markdown: the tables of docs/validation.md, written between its marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from planner.calibration.costs import quiet_transfers
from planner.engine.profile_file import ProfileFile
from planner.run.metrics import summarise
from planner.run.tables import Run
from planner.spec import SpecError
from planner.validation.parity import MetricError, rank_agreement
from planner.validation.recorded import CALIBRATION, Judged, Record

BEGIN, END = "<!-- recorded: begin -->", "<!-- recorded: end -->"
# What a prediction aims at, as a share of the repeats' mean; where live's own spread is larger, that.
Aims = dict[tuple[str, str], float]
ON_CPU: Aims = {("ttft", "p50"): 0.10, ("tpot", "p50"): 0.10, ("throughput", "requests"): 0.03}
ON_GPU: Aims = {
    ("ttft", "p50"): 0.05,
    ("ttft", "p99"): 0.15,
    ("tpot", "p50"): 0.03,
    ("tpot", "p99"): 0.08,
    ("e2e", "p50"): 0.05,
    ("throughput", "requests"): 0.01,
}
STATISTICS = [(metric, name) for metric in ("ttft", "tpot", "itl", "e2e") for name in ("mean", "p50", "p90", "p99")]
SHOWN = (*STATISTICS, ("throughput", "requests"), ("attainment", "requests"))
NOISY = 0.25  # of live's own spread: beyond it an error inside the spread says nothing
LEAST_TRANSFERS = 3  # of a size, for its median

Table = list[str]
Verdicts = Sequence[tuple[Record, Sequence[Judged]]]


def document(verdicts: Verdicts) -> str:
    """All sections: one a record, then the wires, then which deployment wins."""
    lines: list[str] = []
    for record, judged in verdicts:
        lines += record_table(record, judged)
    by_name = {record.name: judged for record, judged in verdicts}
    lines += wire_table([record for record, _ in verdicts if record.reading.wire])
    for record, judged in verdicts:
        if record.reading.against in by_name:
            lines += winners(record, judged, by_name[record.reading.against])
    return "\n".join(lines).rstrip() + "\n"


def write(path: Path, text: str) -> None:
    """Replace what is between the marks. Raises SpecError when the file has none."""
    old = path.read_text() if path.is_file() else ""
    if BEGIN not in old or END not in old:
        raise SpecError("{path}: has no lines `{begin}` and `{end}`; allowed: a file with both", path, BEGIN, END)
    head, rest = old.split(BEGIN, 1)
    path.write_text(f"{head}{BEGIN}\n{text}{END}{rest.split(END, 1)[1]}")


def aims(measured: Run) -> Aims:
    """By what the run was served on."""
    hardware = str((measured.manifest.get("spec") or {}).get("hardware", ""))
    return ON_CPU if hardware.startswith("cpu") else ON_GPU


def within(error: MetricError, aim: float) -> bool:
    """Whether the aim is met. Where live hardly repeats itself, only the aim itself counts."""
    spread = error.spread or 0.0
    return abs(error.error) <= (aim if spread > NOISY else max(aim, spread))


def _verdict(error: MetricError, aim: float) -> str:
    if within(error, aim):
        return "met"
    return "no verdict: live does not repeat itself" if (error.spread or 0.0) > NOISY else "missed"


def missed(judged: Sequence[Judged]) -> list[Judged]:
    """Those with an aim that is not met, or with other tokens."""
    return [
        one
        for one in judged
        if not one.comparison.tokens.agrees
        or any(
            not within(error, aim)
            for error in one.comparison.errors
            if (aim := aims(one.measured[0]).get((error.metric, error.statistic))) is not None
        )
    ]


def record_table(record: Record, judged: Sequence[Judged]) -> Table:
    lines = [f"### {record.title}", ""]
    lines += [line for name, file in record.profiles.items() if file for line in _profile(name, file, record)]
    lines += ["", *_circumstances(record)]
    lines += [
        "| load | requests | profile | statistic | predicted | measured | error | 95 % interval | live's spread | aim |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for one in judged:
        lines += _rows(one)
    lines += highest(judged)
    good = len(judged) - len(missed(judged))
    lines += ["", f"Every aim is met in {good} of {len(judged)} comparisons.", ""]
    doubts = dict.fromkeys(text for one in judged for text in one.comparison.warnings)
    return lines + [line for doubt in doubts for line in (f"- {doubt}",)] + ([""] if doubts else [])


def _profile(name: str, file: ProfileFile, record: Record) -> Table:
    measured, fitted = file.measured, file.fit
    lines = []
    if measured is not None:
        gpu = "no GPU" if measured.gpu == "none" else f"{measured.gpu}, driver {measured.driver}"
        rounds = f", {len(record.rounds)} rounds of calibration" if name == CALIBRATION else ""
        lines += [
            f"- Profile *{name}*: {gpu}, vLLM {measured.vllm.split()[-1]}, {measured.date}{rounds}; {measured.how}."
        ]
    if fitted is not None:
        rows = "; ".join(
            f"{kind} {one.rows} rows, off by {one.mean_abs_pct:.1f} % (at most {one.max_abs_pct:.0f} %)"
            for kind, one in fitted.residuals.items()
        )
        lines += [f"  - Fit: {rows}."]
    if file.interference is not None:
        lines += [f"  - A step takes {file.interference:.2f} times as long while another engine of its host works."]
    return [*lines, *(f"  - {note[0].upper()}{note[1:]}." for note in file.notes if note)]


def _circumstances(record: Record) -> Table:
    """Notes, and how busy the host was when each run began."""
    lines = [line for note in record.reading.notes for line in (note, "")]
    runs = [run for measured in (record.rounds, *record.loads.values()) for run in measured]
    hosts = [run.manifest["host"] for run in runs if run.manifest.get("host")]
    if hosts:
        loads = [host["load_average"][0] for host in hosts]
        lines.append(
            f"The host's load average when runs began: {min(loads):.1f} to {max(loads):.1f}, {hosts[0]['cpus']} CPUs."
        )
    return [*lines, ""] if lines else []


def _rows(one: Judged) -> Table:
    """The statistics of one comparison; its name stands in the first row only."""
    tokens = one.comparison.tokens
    title = one.load + (" (fitted, not predicted)" if one.comparison.label == "fitted" else "")
    title += "" if tokens.agrees else f" (not comparable: {tokens.sentence()})"
    head, lines = f"{title} | {tokens.requests} | {one.profile}", []
    known = {(error.metric, error.statistic): error for error in one.comparison.errors}
    for key in SHOWN:
        if key in known:
            lines.append(f"| {head} | {_cells(known[key], aims(one.measured[0]).get(key))} |")
            head = " | | "
    return lines


def label(error: MetricError) -> str:
    rates = {"throughput": "requests per s", "attainment": "attainment"}
    return rates.get(error.metric) or f"{error.metric.upper()} {error.statistic}, ms"


def _cells(error: MetricError, aim: float | None) -> str:
    spread = "not repeated" if error.spread is None else f"{100 * error.spread:.1f} %"
    interval = "" if error.low is None or error.high is None else f"{100 * error.low:+.0f} to {100 * error.high:+.0f} %"
    verdict = "" if aim is None else f"{100 * aim:.0f} %: {_verdict(error, aim)}"
    values = f"{error.predicted:.4g} | {error.measured:.4g} | {100 * error.error:+z.1f} %"
    return f"{label(error)} | {values} | {interval} | {spread} | {verdict}"


def highest(judged: Sequence[Judged]) -> Table:
    """For each profile the highest rate of the loads that meet their targets, as predicted and as measured."""
    lines = []
    for profile in dict.fromkeys(one.profile for one in judged):
        own = [one for one in judged if one.profile == profile]
        sides = [[(one.load, summarise(one.simulated)) for one in own]]
        sides += [[(one.load, summarise(one.measured[0])) for one in own]]
        best = [
            max(((run.number("requests_per_s"), load) for load, run in side if run.meets_targets), default=None)
            for side in sides
        ]
        if len(own) > 1:
            predicted, measured = (f"{one[0]:.4g} requests per s ({one[1]})" if one else "none" for one in best)
            lines += [
                "",
                f"Highest rate within the targets, profile {profile}: predicted {predicted}, measured {measured}.",
            ]
    return lines


# --- wires ------------------------------------------------------------------------------------------------------------


def measured_bandwidth(record: Record) -> float | None:
    """GB/s between the smallest and the largest transfers of the loads, which no fit has seen: set-up cancels out."""
    table = pd.concat([quiet_transfers(run) for runs in record.loads.values() for run in runs])
    seconds = (table["end_s"] - table["start_s"]).groupby(table["bytes"]).agg(["median", "size"])
    seconds = seconds[seconds["size"] >= LEAST_TRANSFERS]
    if len(seconds) < 2:
        return None
    span_s = float(seconds["median"].iloc[-1] - seconds["median"].iloc[0])
    return 1e-9 * float(seconds.index[-1] - seconds.index[0]) / span_s if span_s > 0 else None


def wire_table(records: Sequence[Record]) -> Table:
    """Fitted against measured bandwidth of each wire, and whether the fit follows a change of the wire."""
    lines = [
        "### The wire, fitted and measured",
        "",
        "| wire | fitted, GB/s | set-up, ms | measured, GB/s | fit's error |",
    ]
    lines.append("|---|---|---|---|---|")
    pairs = []
    for record in records:
        files = [file for file in record.profiles.values() if file is not None and file.link is not None]
        seen = measured_bandwidth(record)
        if not files or files[0].link is None or seen is None:
            lines.append(
                f"| {record.reading.wire} | {'-' if not files else 'fitted'} | | not shown by the transfers | |"
            )
            continue
        link = files[0].link
        pairs.append((link.bandwidth_gb_s, seen))
        error = f"{100 * (link.bandwidth_gb_s / seen - 1):+.0f} %"
        lines.append(
            f"| {record.reading.wire} | {link.bandwidth_gb_s:.3g} | {1e3 * link.setup_s:.2f} | {seen:.3g} | {error} |"
        )
    if not records:
        return []
    if len(pairs) == 2:
        (fast, fast_seen), (slow, slow_seen) = pairs
        fitted, measured = fast / slow, fast_seen / slow_seen
        lines += [
            "",
            f"The first wire is {fitted:.2f} times as fast as the second as fitted, {measured:.2f} as measured:",
        ]
        lines += [f"the fit follows the change to {100 * abs(fitted / measured - 1):.0f} % (aim: 20 %)."]
    return [*lines, ""]


# --- which deployment wins --------------------------------------------------------------------------------------------


def winners(record: Record, ours: Sequence[Judged], theirs: Sequence[Judged]) -> Table:
    """Two deployments on the same loads: the better one as predicted and as measured, and Kendall's tau over all."""
    other = {one.load: one for one in theirs}
    lines = [f"### {record.title} against {record.reading.against}", ""]
    lines += ["| load | statistic | predicted winner | measured winner |", "|---|---|---|---|"]
    for key in (("ttft", "p50"), ("tpot", "p50"), ("e2e", "p50")):
        predicted, measured = [], []
        for one in ours:
            if one.load not in other:
                continue
            pair = [side.comparison.error(*key) for side in (one, other[one.load])]
            values, truth = [error.predicted for error in pair], [error.measured for error in pair]
            predicted += values
            measured += truth
            noise = max(error.spread or 0.0 for error in pair)
            close = " (within the spread)" if abs(truth[0] / truth[1] - 1) <= noise else ""
            right = "" if np.argmin(values) == np.argmin(truth) else " (wrong)"
            names = (record.name, record.reading.against)
            lines.append(
                f"| {one.load} | {key[0].upper()} {key[1]} | {names[int(np.argmin(values))]} "
                f"| {names[int(np.argmin(truth))]}{right}{close} |"
            )
        if len(predicted) > 1:
            tau = rank_agreement(predicted, measured, higher=False).kendall_tau
            lines.append(f"| all | {key[0].upper()} {key[1]} | Kendall's tau {tau:.2f} over {len(predicted)} | |")
    return [*lines, ""]
