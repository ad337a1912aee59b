"""A run in words and tables: the answer first. Shared by the command line and the UI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from planner.engine.provenance import ROOFLINE
from planner.messages import Message, joined, message
from planner.report.explain import Explanation, explain, failures, refused, waterfall
from planner.report.words import number, percent
from planner.run.facts import ROLES
from planner.run.metrics import METRICS, Metric, Summary

if TYPE_CHECKING:
    from rich.table import Table

# The small table: label, unit, and the metric in each column.
LATENCY_ROWS = ("ttft", "tpot", "itl", "e2e")
LATENCY_COLUMNS = ("mean", "p50", "p90", "p99")
RATES = (
    "requests_per_s", "offered_requests_per_s", "goodput_requests_per_s", "goodput_requests_per_s_per_gpu",
    "input_tokens_per_s", "output_tokens_per_s", "total_tokens_per_s_per_gpu", "tokens_per_s_per_user",
)  # fmt: skip
USES = (
    "aggregated_load", "aggregated_utilization", "aggregated_kv_used", "prefill_load", "prefill_utilization",
    "prefill_kv_used", "decode_load", "decode_utilization", "decode_kv_used", "link_utilization",
    "retrieval_utilization", "gpu_utilization", "cache_hit_rate", "local_prefill_share", "preemptions",
    "cost_per_million_output_tokens",
)  # fmt: skip
COMPARED = (
    "requests_per_s", "goodput_requests_per_s", "goodput_requests_per_s_per_gpu", "attainment",
    "output_tokens_per_s", "total_tokens_per_s_per_gpu", "tokens_per_s_per_user",
    "ttft_mean_ms", "ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms", "tpot_mean_ms", "tpot_p50_ms", "tpot_p90_ms",
    "tpot_p99_ms", "itl_p50_ms", "itl_p99_ms", "e2e_p50_ms", "e2e_p99_ms", "cache_hit_rate", "preemptions",
    "waiting_slope_per_s", "cost_per_million_output_tokens",
)  # fmt: skip


EQUAL = 0.001  # two goodputs closer than this are called equal
GAP = "    "  # between tables that stand side by side
SAME_RATE = 0.1  # two draws of one rate seldom differ by more


class Screen(Protocol):
    """Where a report goes: rich's Console, or `Pipe`."""

    @property
    def width(self) -> int: ...

    @property
    def is_terminal(self) -> bool: ...

    def print(self, *objects: Any, **how: Any) -> None: ...


class Pipe:
    """Standard output that is no terminal: 80 columns, lines as they are."""

    width = 80
    is_terminal = False

    def print(self, *objects: Any, **how: Any) -> None:
        print(*objects)


# --- words -------------------------------------------------------------------------------------


def shown(metric: Metric, value: float | None) -> str:
    """A metric's value with its unit."""
    if value is None:
        return "-"
    if metric.unit == "share":
        return percent(value)
    if metric.unit in ("", "price"):
        return number(value)
    return f"{number(value)} {metric.unit}"


def targets(summary: Summary) -> str:
    """TTFT <= 500 ms and TPOT <= 30 ms"""
    slo = summary.slo
    limits = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms), ("E2E", slo.e2e_ms))
    named = [message("{metric} <= {limit:g} ms", name, limit) for name, limit in limits if limit is not None]
    return joined(" and ", named)


def provenance(summary: Summary) -> str:
    """Where the numbers are from, in brackets."""
    if summary.provenance == "measured":
        return message("[{origin}]", message("measured"))
    if summary.provenance == "mocked":
        return message("[{origin}]", message("mocked: routing and queueing are measured, step times are not"))
    if summary.provenance == "calibrated" and summary.origin == ROOFLINE:  # a run of before it had an origin
        return message("[{origin}]", message("calibrated: {profiles}", summary.profile))
    return message("[{origin}]", summary.origin)


def machine(summary: Summary) -> str:
    """1P1D on 2x H200"""
    if not summary.gpus:  # another tool's result: it does not say what it measured
        return message("The deployment behind {name}", summary.name)
    if summary.deployment.endswith("aggregated"):
        count = int(summary.deployment.split()[0])
        one, many = message("1 aggregated worker"), message("{count} aggregated workers", count)
        workers: str = many if count > 1 else one
    else:
        workers = summary.deployment
    return message("{workers} on {gpus}x {gpu}", workers, summary.gpus, summary.hardware.upper())


def answer(summary: Summary, found: Explanation | None = None) -> str:
    """The one sentence: what it serves, who meets the targets, and where the numbers are from."""
    return message("{sentence} {provenance}", sentence(summary, found), provenance(summary))


def sentence(summary: Summary, found: Explanation | None = None) -> Message:
    """The answer without its provenance. 1P1D serves; 2 aggregated workers serve."""
    found = found or explain(summary)
    who, many = machine(summary), " workers " in machine(summary)
    serves = message("serve") if many else message("serves")
    rate, limits = number(summary["requests_per_s"]), targets(summary)
    within = percent(summary["attainment"], summary.slo.attainment)
    served = message("{who} {serve} {rate} req/s", who, serves, rate)
    if found.kind == "fault":
        return message("{fault} What was measured beside that: {served}.", found.text, served)
    if not summary["completed"]:
        finishes = message("finish") if many else message("finishes")
        none = message("{who} {finishes} none of {count:.0f} requests", who, finishes, summary.number("requests"))
        if found.kind == "refused":
            return message("{none}; {limit}.", none, _limit(summary, found))
        return message("{none}.", none)
    state = summary.saturation
    if state.saturated:
        asked, limit = number(state.wanted_per_s), _limit(summary, found)
        if state.asked_per_s is not None:
            text = message(
                "Past saturation: sessions ask {who} for {asked} req/s and get {rate}; {limit}", who, asked, rate, limit
            )
        else:
            text = message(
                "Past saturation: {who} {are} offered {asked} req/s and {serve} {rate}; {limit}",
                who,
                message("are") if many else message("is"),
                asked,
                serves,
                rate,
                limit,
            )
        if limits:
            return message("{saturated}, and {share} meet {targets}.", text, within, limits)
        return message("{saturated}.", text)
    if state.held_back or not state.reached:
        rate = message("{rate} of the {asked} wanted", rate, number(state.asked_per_s))
    if not limits:
        return message("{who} {serve} {rate} req/s.", who, serves, rate)
    verdict = message("meets the targets")
    if not summary.meets_targets:
        verdict = message("misses the targets; {limit}", _limit(summary, found))
    return message(
        "{who} {serve} {rate} req/s; {share} meet {targets} (target {wanted}): {verdict}.",
        who,
        serves,
        rate,
        within,
        limits,
        percent(summary.slo.attainment),
        verdict,
    )


def _limit(summary: Summary, found: Explanation) -> Message:
    match found.kind:
        case "link":
            return message("the KV link is the bottleneck")
        case "retrieval":
            return message("retrieval is the bottleneck")
        case "kv-memory" if found.where in ROLES:
            return message("the KV memory of the {role} workers is the bottleneck", ROLES[found.where])
        case "kv-memory":
            return message("the KV memory is the bottleneck")
        case "hand-over" if found.where in ROLES:
            return message("posting hand-overs of the {role} workers is the bottleneck", ROLES[found.where])
        case "hand-over":
            return message("posting hand-overs is the bottleneck")
        case "prefill":
            return message("prefill is the bottleneck")
        case "decode":
            return message("decoding is the bottleneck")
        case "refused":
            return refused(summary)
        case "none":
            return message("no station is full")
        case "fault":
            if summary.died:
                return message("a server died")
            return message("a server stood still") if summary.faults else message("requests failed")
    return message("the cause was not recorded")


FEW = 10  # answered requests, of which p90 is the slowest


def warnings(summary: Summary) -> list[str]:
    """What a reader must know before using the numbers."""
    found = list(summary.warnings)
    state = summary.saturation
    if state.held_back and not state.saturated:
        found.append(
            message(
                "Slow answers keep sessions from sending the {asked} req/s that are asked (sessions a second x turns): "
                "{sent} req/s are sent. The run is too short to tell whether they would pile up: more sessions tell "
                "(workload.sessions).",
                number(state.asked_per_s),
                number(state.offered_per_s),
            )
        )
    elif not state.reached and not state.saturated:
        found.append(
            message(
                "Too few sessions for the {asked} req/s that are asked (sessions a second x turns): the last begins "
                "before their number has settled, and {sent} req/s are sent. More reach it (workload.sessions).",
                number(state.asked_per_s),
                number(state.offered_per_s),
            )
        )
    elif not state.steady:
        found.append(
            message(
                "The run is too short to be steady: requests in the system still grew at its end. Send more requests."
            )
        )
    if 0 < (answered := summary["completed"] or 0) < FEW:
        found.append(message("Only {count:.0f} answered: percentiles and shares of so few say little.", answered))
    if summary.refusals:
        found.append(message("{refused}.", refused(summary)))
    if summary["rejected"] and not summary.refusals:
        count, every = summary.number("rejected"), summary.number("requests")
        found.append(message("{count:.0f} of {all:.0f} requests were rejected.", count, every))
    if summary["failed"] and not summary.is_failed:  # else that is the headline
        found.append(failures(summary))
    return found


# --- tables ------------------------------------------------------------------------------------


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    return table


@dataclass(frozen=True, slots=True)
class Block:
    """A small table of a run's report: what a row is in its first column, figures at the right of the others.

    Not of rich, whose import and measuring took a fifteenth of a simulation's start.
    """

    title: str
    head: tuple[str, ...]  # none: ()
    rows: tuple[tuple[str, ...], ...]
    bars: bool = False  # the last column begins at the left

    def lines(self) -> list[list[tuple[str, str]]]:
        """Lines of (text, style), all equally wide."""
        widths = [max(map(len, column)) for column in zip(*filter(None, (self.head, *self.rows)), strict=True)]
        wide = max(sum(widths) + 3 * len(widths) - 1, len(self.title))
        body = [[(self._row(row, widths).ljust(wide), "")] for row in self.rows]
        if self.head:
            body[:0] = [[(self._row(self.head, widths).ljust(wide), "bold")], [(f" {'─' * (wide - 2)} ", "")]]
        empty = [(" " * wide, "")]
        return [[(self.title.ljust(wide), "bold")], empty, *body, empty]

    def _row(self, cells: tuple[str, ...], widths: list[int]) -> str:
        left = {0, len(cells) - 1} if self.bars else {0}
        placed = (
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f" {'   '.join(placed)} "


def latency_table(summary: Summary) -> Block:
    names = {name: name.upper() for name in LATENCY_ROWS}
    if summary["retrieval_mean_ms"] is not None:
        names |= {"ttft_without_retrieval": "TTFT without retrieval", "retrieval": "Retrieval"}
    rows = (
        (label, *(number(summary[f"{name}_{column}_ms"]) for column in LATENCY_COLUMNS))
        for name, label in names.items()
    )
    return Block("Latency, ms", ("", *LATENCY_COLUMNS), tuple(rows))


def value_table(summary: Summary, title: str, names: Iterable[str]) -> Block:
    """Metrics that are known, one a line."""
    known = (name for name in names if summary[name] is not None)
    return Block(title, (), tuple((METRICS[name].label, _shown_of(summary, name)) for name in known))


FULL_LOAD = 1.05  # the closed form of a pool's highest rate is not nearer


def _shown_of(summary: Summary, name: str) -> str:
    """A metric's value with its unit. A pool may carry more than the rate within its target: that is no share of it."""
    value = summary.number(name)
    if not name.endswith("_load") or value <= FULL_LOAD:
        return shown(METRICS[name], value)
    if summary.slo.tpot_ms is None or name.startswith("prefill"):
        return message("{times} x its highest rate", number(value))
    return message("{times} x its rate within TPOT", number(value))


def stage_table(summary: Summary) -> Block:
    rows = (
        (stage.replace("_", " "), number(mean), percent(share), "#" * round(share * 12))
        for stage, mean, share in waterfall(summary)
    )
    return Block("Where the time to first token goes", ("", "mean ms", "share", ""), tuple(rows), bars=True)


def _uses(summary: Summary) -> list[str]:
    """Load where it is known, else busy. A simulated GPU's utilisation is its worker's: only a sampled one is shown."""

    def shown(name: str) -> bool:
        if name.endswith("_utilization") and summary.values.get(name.replace("utilization", "load")) is not None:
            return False
        return name != "gpu_utilization" or summary.provenance == "measured"

    return [name for name in USES if shown(name)]


def _beside(screen: Screen, blocks: list[Block]) -> None:
    """Tables side by side where they fit, else one under the other."""
    parts = [block.lines() for block in blocks]
    widths = [len(lines[0][0][0]) for lines in parts]
    if sum(widths) + len(GAP) * (len(parts) - 1) > screen.width:
        for line in chain.from_iterable(parts):
            _line(screen, line)
        return
    for first, *others in zip_longest(*parts):
        line = first or [(" " * widths[0], "")]
        for width, other in zip(widths[1:], others, strict=True):
            line = [*line, (GAP, ""), *(other or [(" " * width, "")])]
        _line(screen, line)


def _line(screen: Screen, line: list[tuple[str, str]]) -> None:
    if not screen.is_terminal:
        say(screen, "".join(text for text, _ in line))
        return
    from rich.text import Text

    screen.print(Text.assemble(*line), soft_wrap=True)


def write(console: Screen, summary: Summary, folder: str | None) -> None:
    """The whole report of a run: answer, tables, bottleneck, folder, warnings."""
    found = explain(summary)
    say(console, answer(summary, found))
    say(console, "")
    for tables in (
        (latency_table(summary), value_table(summary, "Rates", RATES)),
        (stage_table(summary), value_table(summary, "In use (steady window)", _uses(summary))),
    ):
        _beside(console, [table for table in tables if table.rows])
    say(console, f"{'Fault' if found.kind == 'fault' else f'Bottleneck: {found.kind}'}. {found.text}")
    for warning in warnings(summary):
        say(console, f"Warning: {warning}")
    if folder is not None:
        say(console, f"Run: {folder}")


def say(console: Screen, text: str) -> None:
    """Plain text: brackets are not markup, and nothing is coloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


# --- two runs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of two runs. `change` is b / a - 1, None where one is negative, as slopes are.

    `better` names the better run, "" when neither is.
    """

    name: str
    a: float | None
    b: float | None
    change: float | None
    better: str


def compare(a: Summary, b: Summary) -> list[Difference]:
    """The metrics that at least one of two runs shows."""
    found = []
    for name in COMPARED:
        first, second = a[name], b[name]
        if first is None and second is None:
            continue
        change = second / first - 1 if first and second is not None and first > 0 <= second else None
        better = ""
        if first is not None and second is not None and first != second and METRICS[name].better != "none":
            better = "A" if (first > second) == (METRICS[name].better == "higher") else "B"
        found.append(Difference(name, first, second, change, better))
    return found


def compared(a: Summary, b: Summary) -> str:
    """The one sentence of a comparison: goodput per GPU, because runs may differ in GPUs, where both say how many."""
    known = a.gpus and b.gpus
    name = "goodput_requests_per_s_per_gpu" if known else "goodput_requests_per_s"
    first, second = a[name] or 0.0, b[name] or 0.0
    low, high = sorted((first, second))
    ahead = "A" if first > second else "B"
    if high == low:
        verdict = message("neither is ahead")
    elif low and high / low - 1 < EQUAL:
        verdict = message("they are within {share} of each other", percent(EQUAL))
    elif low == 0:
        verdict = message("only {ahead} serves requests within the targets", ahead)
    else:
        verdict = message("{ahead} is ahead by {more:.1f} %", ahead, (high / low - 1) * 100)
    past = [name for name, run in (("A", a), ("B", b)) if run.saturation.saturated]
    if past:
        verdict = message("{verdict} ({which} past saturation)", verdict, joined(" and ", past))
    sent, other = (run["offered_requests_per_s"] for run in (a, b))
    if sent and other and abs(sent / other - 1) > SAME_RATE:
        verdict = message("{verdict}, but A was sent {x} req/s and B {z}", verdict, number(sent), number(other))
    rate = message("{rate} req/s per GPU", number(first)) if known else message("{rate} req/s", number(first))
    return message(
        "A ({a}) has a goodput of {rate} and B ({b}) of {y}: {verdict}. A {of_a}, B {of_b}",
        machine(a),
        rate,
        machine(b),
        number(second),
        verdict,
        provenance(a),
        provenance(b),
    )


def compare_table(a: Summary, b: Summary) -> Table:
    table = _table(f"A = {a.name}, B = {b.name}", "", "A", "B", "B against A", "better")
    for row in compare(a, b):
        metric = METRICS[row.name]
        change = "-" if row.change is None else f"{row.change * 100:+z.1f} %"
        unit = f", {metric.unit}" if metric.unit and metric.unit != "share" else ""
        value = percent if metric.unit == "share" else number
        table.add_row(f"{metric.label}{unit}", value(row.a), value(row.b), change, row.better)
    return table


def to_dict(summary: Summary, folder: str | None) -> dict[str, Any]:
    """What `--json` prints."""
    found = explain(summary)
    return {
        "answer": answer(summary, found),
        "bottleneck": found.to_dict(),
        **summary.to_dict(),
        "warnings": warnings(summary),
        "run_folder": folder,
    }
