"""One self-contained HTML file: the answer, its charts as SVG and its tables. It loads nothing and runs no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version

import pandas as pd

from planner import charts
from planner.report import printing
from planner.report.explain import explain
from planner.report.words import number
from planner.run.metrics import METRICS, Summary
from planner.run.tables import Run
from planner.suggestion.answer import Row, Suggestion
from planner.suggestion.words import explanation, sentence

STYLE = """
body{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:left}
svg{max-width:100%;height:auto}
pre{background:#f4f4f4;padding:1rem;overflow:auto}
.badge{border:1px solid #0072b2;color:#0072b2;border-radius:1rem;padding:.1rem .7rem;font-size:.85rem}
"""


def _svg(chart: charts.Chart, width: int = 760) -> str:
    """The drawing of a chart. Fonts are the reader's."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.properties(width=width).to_dict()))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _page(title: str, parts: Iterable[str]) -> str:
    return (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _sentences(lines: Iterable[str], say: charts.Say) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(say(line))}</li>" for line in lines) + "</ul>"


def suggestion_report(
    found: Suggestion,
    summary: Summary,
    rate: float | None,
    say: charts.Say = str,
    curves: Mapping[str, tuple[Row, pd.DataFrame]] | None = None,
    lead: str | None = None,
) -> str:
    """An answer of `suggest`; `summary` is the suggested deployment under the user's traffic.

    `curves`: load curves by name, each with its candidate. `lead`: a sentence that comes before the comparison's.
    """
    answer = say(sentence(found.rows, found.verdict, found.gpus, found.slo))
    made = [
        f"planner {version('llm-capacity-planner')}", date.today().isoformat(), f"{say('seeds')}: {found.seeds}",
        f"run.seed {summary.seed}",
    ]  # fmt: skip
    parts = [
        f"<h1>{html.escape(lead or answer)}</h1>",
        f"<p>{html.escape(answer)}</p>" if lead else "",
        f'<p><span class="badge">{html.escape(say(found.provenance).strip("[]"))}</span></p>',
        f"<p><small>{html.escape(', '.join(made))}</small></p>",
        _svg(charts.which_split(found, rate, say)),
    ]
    shown = {say(name): (row.mode, table) for name, (row, table) in (curves or {}).items()}
    if shown:
        parts += [_svg(charts.how_latency_grows(shown, metric, found.slo, rate, say)) for metric in ("ttft", "tpot")]
    if found.pareto:
        parts.append(_svg(charts.what_trade(found, say, curves)))
    if found.verdict is not None:
        parts += [_sentences(explanation(found.verdict), say), _svg(charts.what_would_change(found, say))]
    columns = [say(text) for text in ("Split", "requests/s", "95 % from", "95 % to", "requests/s per GPU")]
    rows = [
        [say(row.name), number(row.rate), number(row.low), number(row.high), number(row.per_gpu)] for row in found.rows
    ]
    parts += [_table(columns, rows), _sentences(found.notes, say)]
    parts += [*_run_parts(summary, say), f"<pre>{html.escape(found.yaml)}</pre>"]
    return _page(answer, parts)


def run_report(summary: Summary, run: Run, say: charts.Say = str) -> str:
    """One run: its answer, its stages, its workers over time and every metric."""
    parts = [f"<h1>{html.escape(summary.name)}</h1>", *_run_parts(summary, say)]
    if len(run.steps) or len(run.samples):
        parts += [_svg(charts.when_busy(run, measure, say)) for measure in ("busy", "waiting", "kv_used_fraction")]
    text = run.manifest.get("spec_yaml")
    if text:
        parts.append(f"<pre>{html.escape(str(text))}</pre>")
    return _page(summary.name, parts)


def _run_parts(summary: Summary, say: charts.Say) -> list[str]:
    found = explain(summary)
    rows = [
        [say(metric.label), printing.shown(metric, summary[name]), say(metric.help)]
        for name, metric in METRICS.items()
        if summary[name] is not None
    ]
    return [
        f"<h2>{html.escape(say(printing.answer(summary, found)))}</h2>",
        _sentences(found.sentences, say),
        _svg(charts.where_time_goes({summary.deployment: summary}, say)),
        _table([say(text) for text in ("Metric", "Value", "Meaning")], rows),
        _sentences(printing.warnings(summary), say),
    ]
