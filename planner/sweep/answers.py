"""Questions of a grid answered over processes or a Ray cluster, each row kept as it comes.

The folder of a sweep holds `rows.jsonl`, a line for each question that has been answered, and at the end `table.csv`
and `table.parquet`, in the order of the grid. A sweep that was stopped or killed goes on from its rows. What is in the
tables does not depend on how many workers there were, nor on how often it was stopped.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.core import installed
from planner.run.tables import Progress
from planner.spec import SpecError
from planner.suggestion.spread import Spread
from planner.sweep.grid import Question

ROWS, CSV, PARQUET = "rows.jsonl", "table.csv", "table.parquet"
Answer = dict[str, Any]  # column -> number, text, truth or None


# --- a question --------------------------------------------------------------------------------


def answer(question: Question) -> Answer:
    """The row of a question. One that cannot be built, or does not fit its GPUs, has a `fault` in place of figures."""
    try:
        return _simulated(question) if question.gpus is None else _suggested(question, question.gpus)
    except SpecError as error:
        return {"fault": str(error)}


def _simulated(question: Question) -> Answer:
    """Every metric of `planner simulate`, and what limits the run."""
    from planner.report.explain import explain
    from planner.run.metrics import summarise
    from planner.system.resolve import resolve
    from planner.traffic import workload
    from simulator.backend import SimulatorBackend

    summary = summarise(SimulatorBackend().run(resolve(question.spec), workload.build(question.spec)))
    return {
        "deployment": summary.deployment,
        "deployment_gpus": summary.gpus,
        "provenance": summary.provenance,
        "meets_targets": summary.meets_targets,
        "saturated": summary.saturation.saturated,
        "bottleneck": explain(summary).kind,
        **summary.values,
    }


def _suggested(question: Question, gpus: int) -> Answer:
    """What `planner suggest` picks, the best of both modes, and whether P/D is worth it."""
    from planner.suggestion.answer import best_of
    from planner.suggestion.suggest import suggest

    found = suggest(question.spec, gpus, requests=question.requests, processes=1)
    best, verdict = found.best, found.verdict
    aggregated, split = (best_of(found.rows, mode) for mode in ("aggregated", "disaggregated"))
    return {
        "best": best.name,
        "rate": best.rate,
        "rate_low": best.low,
        "rate_high": best.high,
        "rate_per_gpu": best.per_gpu,
        "output_tokens_s_gpu": best.output_tokens_s_gpu,
        "tokens_s_user": best.tokens_s_user,
        "cost_per_million_tokens": best.cost_per_million_tokens,
        "aggregated": aggregated and aggregated.name,
        "aggregated_rate": aggregated and aggregated.rate,
        "split": split and split.name,
        "split_rate": split and split.rate,
        "worth_it": verdict and str(verdict.word),
        "advantage": verdict and verdict.advantage.value,
        "advantage_low": verdict and verdict.advantage.low,
        "advantage_high": verdict and verdict.advantage.high,
        "provenance": found.provenance,
        "answer": str(found.sentence),
    }


# --- the rows as they come ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rows:
    """The file of rows. Its first line says which program wrote it: another's figures are not mixed with these."""

    path: Path

    @property
    def head(self) -> Answer:
        return {"sweep": 1, "planner": installed("llm-capacity-planner")}

    def known(self) -> dict[str, Answer]:
        """{key of a question: its row}; nothing where there is no file. Raises SpecError for what is not ours."""
        if not self.path.exists():
            return {}
        lines = self.path.read_bytes().split(b"\n")
        whole = lines[:-1]  # what follows the last line's end was cut off
        try:
            parsed = [json.loads(line) for line in whole]
            ours = not parsed or parsed[0] == self.head
            rows = {str(row["question"]): dict(row["row"]) for row in parsed[1:]} if ours else {}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SpecError(
                "{path}: damaged ({fault}); allowed: rows as a sweep wrote them", self.path, error
            ) from None
        if not ours:
            raise SpecError("{path}: rows of another version; allowed: another --out, or none there", self.path)
        return rows

    def write(self, rows: dict[str, Answer]) -> None:
        """These rows and no others, whole or not at all."""
        part = self.path.with_name(f".{self.path.name}.part")
        lines = [self.head, *({"question": key, "row": row} for key, row in rows.items())]
        part.write_text("".join(map(_line, lines)), encoding="utf-8")
        part.replace(self.path)


def _line(data: Answer) -> str:
    return json.dumps(data) + "\n"


# --- a sweep -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """A row for each question: its axes, then its figures; None where it has none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> list[Any]:
        at = self.columns.index(name)
        return [row[at] for row in self.rows]


def sweep(questions: Sequence[Question], folder: Path, workers: Spread, progress: Progress | None = None) -> Table:
    """Answer what `folder` does not know yet, and write its tables.

    Raises SpecError when the folder holds something else.
    """
    other = folder.is_dir() and any(folder.iterdir()) and not (folder / ROWS).exists()
    if other or (folder.exists() and not folder.is_dir()):
        raise SpecError("--out {folder}: holds something else; allowed: a new or empty folder, or a sweep's", folder)
    folder.mkdir(parents=True, exist_ok=True)
    file, keys = Rows(folder / ROWS), [question.key for question in questions]
    known = file.known()
    file.write(known)  # without a line that was cut off
    waiting = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
    missing = list(waiting)
    if progress and len(missing) < len(questions):
        progress("sweep", 1 - len(missing) / len(questions))
    with file.path.open("a", encoding="utf-8") as rows:

        def done(at: int, row: Answer) -> None:
            line = _line({"question": missing[at], "row": row})
            rows.write(line)
            rows.flush()
            known[missing[at]] = json.loads(line)["row"]  # as one that goes on reads it
            if progress:
                progress("sweep", sum(key in known for key in keys) / len(keys))

        workers(answer, list(waiting.values()), done)
    file.write({key: known[key] for key in keys} | known)  # in the order of the grid, then of others before
    found = table(questions, [known[key] for key in keys])
    write_csv(found, folder / CSV)
    write_parquet(found, folder / PARQUET)
    return found


def table(questions: Sequence[Question], answers: Sequence[Answer]) -> Table:
    axes = list(questions[0].axes)
    figures = dict.fromkeys(name for row in answers for name in row if name != "fault")
    columns = (*axes, *(name for name in figures if name not in axes), "fault")
    rows = ({**row, **question.axes} for question, row in zip(questions, answers, strict=True))
    return Table(columns, tuple(tuple(row.get(name) for name in columns) for row in rows))


def write_csv(found: Table, path: Path) -> None:
    """Nothing for None, JSON for lists and sections."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(found.columns)
        writer.writerows([_plain(value) for value in row] for row in found.rows)


def write_parquet(found: Table, path: Path) -> None:
    """Columns of numbers, truths or texts; one of several kinds is text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = []
    for name in found.columns:
        values = [_plain(value) for value in found.column(name)]
        kinds = {float if type(value) is int else type(value) for value in values if value is not None}
        if len(kinds) > 1:
            values = [None if value is None else json.dumps(value) for value in values]
        arrays.append(pa.array(values))
    pq.write_table(pa.table(arrays, names=list(found.columns)), path, compression="zstd")


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
