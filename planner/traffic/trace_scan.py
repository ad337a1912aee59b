"""One pass over a trace file: which rows are wanted, which do not fit, and what a reader of the results must know."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from planner.messages import Message, joined, message
from planner.spec import SpecError
from planner.spec.strict_yaml import shorten
from planner.traffic.formats import FORMATS, KEYS, recognised
from planner.traffic.rows import BadLine, Found, TraceRequest, delimiter_of, hash_ids, tokens
from planner.traffic.trace_files import TraceSource

BLOCKS = (512, 16, 32, 64, 128, 256, 1024)  # tokens that a hash id may stand for, the likeliest first
LOOKED_AT = 20  # lines that tell the size of a block
NAMED = 5  # bad rows whose lines are told


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a trace is wanted. Seconds after its first row; `sample` is a share of the sessions (or requests).

    `strict`: the first row that does not fit ends the reading. `dequantise`: coarse stamps are spread over their grid.
    `closed_loop`: a session's next request waits for the answer to the one before, and the recorded pause.
    """

    start_s: float = 0.0
    end_s: float = math.inf
    sample: float = 1.0
    requests: int | None = None
    strict: bool = False
    dequantise: bool = True
    closed_loop: bool = False


ALL = Selection()


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file or folder, by its beginning. SpecError when it is none of FORMATS."""
    name = os.fspath(path)
    if os.path.isdir(name):
        files = os.listdir(name)
        if "requests.parquet" in files:
            return "planner"
        if any(file.endswith(("-trace.csv", "-trace.csv.gz")) for file in files):
            return "servegen"
        if any(file.endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz")) for file in files):
            return "agents"
        raise SpecError(
            "{path}: a folder that holds no trace; must be one of {formats}", shorten(name), ", ".join(FORMATS)
        )
    source = TraceSource(name)
    found = recognised(source.head())
    if found is None:
        line, _ = next(source.lines(), (0, ""))
        if line == 0:
            raise SpecError("{path}: the trace is empty; it must hold at least one request", name)
        raise SpecError(
            "{path}: line {line}: unknown format{columns}; workload.format must be one of {formats} (CSV or JSON lines "
            "with a time, prompt_tokens and output_tokens)",
            name,
            line,
            _columns(source.head()),
            ", ".join(FORMATS),
        )
    return found


def _columns(text: str) -> str:
    """What the columns or keys of a file that is not recognised are called, where it has any."""
    text = text.lstrip("\ufeff \t\r\n")
    first = text.partition("\n")[0]
    if text.startswith(("{", "[")):
        names = list(dict.fromkeys(KEYS.findall(text)))
    else:
        names = [cell.strip() for cell in first.split(delimiter_of(first))]
        if len(names) < 2 or not all(re.fullmatch(r"[A-Za-z_][\w .()/-]{0,40}", name) for name in names):
            return ""
    return message(" with the columns {names}", shorten(", ".join(names))) if names else ""


class Scan:
    """The wanted requests of a trace file, in its order; iterating counts what was left out.

    Raises SpecError for a file that cannot be used: damaged, of another format, or most of its rows do not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str,
        block_tokens: int | None,
        selection: Selection = ALL,
        told: Callable[[float], None] | None = None,
    ) -> None:
        """`told` is given the share of the file that was read, now and then."""
        self.path = os.fspath(path)
        self.format = format_of(self.path) if format == "auto" else format
        if self.format not in FORMATS:
            raise SpecError(
                "workload.format: {name} is unknown; must be auto or one of {formats}",
                shorten(repr(self.format)),
                ", ".join(FORMATS),
            )
        self._reader = FORMATS[self.format]
        self.starts = self._reader.starts
        if self.starts in ("together", "unknown") and (selection.start_s > 0 or selection.end_s < math.inf):
            raise SpecError("workload.start_s: {path} has no send times; allowed: without start_s and end_s", self.path)
        self._selection = selection
        self._source = TraceSource(self.path, selection.start_s, selection.end_s, told)
        self.remarks: list[Message] = [self._reader.note] if self._reader.note else []
        self.block_tokens = block_tokens or self._blocks()
        self.good = self.failed = self.bad = self._met = 0
        self._faults: list[Message] = []

    @property
    def warnings(self) -> list[Message]:
        """What was left out and assumed, after the pass."""
        found = list(self.remarks)
        if self.bad:
            untold = self.bad - len(self._faults)
            more = [message("{count} more", untold)] if untold else []
            found.append(
                message(
                    "{count} of {all} rows of the trace were left out ({faults}).",
                    self.bad,
                    self.good + self.bad + self.failed,
                    joined("; ", [*self._faults, *more]),
                )
            )
        if self.failed:
            found.append(
                message(
                    "{count} requests that had failed, or were to warm up, when they were recorded were left out.",
                    self.failed,
                )
            )
        return found

    def __iter__(self) -> Iterator[TraceRequest]:
        selection = self._selection
        low, high = selection.start_s, selection.end_s
        base: float | None = 0.0 if self.starts == "drawn" else None
        kept: set[str] = set()  # sessions of which a request is kept
        given = 0
        for line, found in self._rows():
            row = self._fits(line, found)
            self._met += 1
            if row is None:
                continue
            if row.arrival_s is None:
                if row.session not in kept:
                    if low == 0 and high == math.inf and selection.sample == 1.0 and not row.after:
                        self._refuse(
                            message(
                                "line {line}: first request of session {session!r} needs a timestamp",
                                line,
                                shorten(row.session or ""),
                            )
                        )
                    continue
            else:
                base = row.arrival_s if base is None else base
                after_s = row.arrival_s - base
                if (low > 0 and after_s < low) or after_s >= high or not self._sampled(row, line):
                    continue
                if row.session is not None:
                    kept.add(row.session)
            self.good += 1
            yield row
            given += 1
            if given == selection.requests:
                break
        if self.bad > self.good:
            if self.bad > 1:
                raise SpecError("{path}: {fault} ({count} such rows)", self.path, self._faults[0], self.bad)
            raise SpecError("{path}: {fault}", self.path, self._faults[0])

    def _rows(self) -> Iterator[tuple[int, Found]]:
        try:
            yield from self._reader.read(self._source, self.block_tokens)
        except BadLine as error:
            raise SpecError("{path}: {error}", self.path, error) from None

    def _fits(self, line: int, found: Found) -> TraceRequest | None:
        if isinstance(found, BadLine):
            self._refuse(found.args[0])
            return None
        if found is None:
            self.failed += 1
        return found

    def _refuse(self, fault: Message) -> None:
        if self._selection.strict:
            raise SpecError("{path}: {fault}", self.path, fault)
        self.bad += 1
        if len(self._faults) < NAMED:
            self._faults.append(fault)

    def _sampled(self, row: TraceRequest, line: int) -> bool:
        share = self._selection.sample
        if share >= 1.0:
            return True
        key = f"{line}/{self._met}" if row.session is None else row.session
        return int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()) / 2**64 < share

    def _blocks(self) -> int:
        """Tokens of a block: the format's own, or the only usual size that fits the first lines."""
        usual = self._reader.block_tokens
        if self.format != "mooncake":
            return usual
        rows = []
        for _, row in self._source.objects():
            try:
                if isinstance(row, BadLine):
                    raise row
                rows += [(row, tokens(row, "input_length"))] if row.get("hash_ids") else []
            except BadLine:
                pass  # counted when it is read
            if len(rows) == LOOKED_AT:
                break
        for size in BLOCKS:
            try:
                for row, prompt in rows:
                    hash_ids(row, prompt, size)
            except BadLine:
                continue
            if size != usual:
                self.remarks.append(message("The trace's hash_ids stand for blocks of {size} tokens.", size))
            return size
        return usual
