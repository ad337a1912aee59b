"""Trace files as they lie on a disk: plain or gzip, read line by line or value by value, never as a whole."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from planner.messages import system
from planner.spec import SpecError
from planner.spec.strict_yaml import shorten
from planner.traffic.rows import BadLine, Lines, json_object

MOST_LINE = 64 * 2**20  # the whole result of `vllm bench serve` is one line
MOST_TEXT = 256 * 2**20  # of a file that has to be read as a whole
MOST_RATIO = 200  # a trace's text is at most 40 times its gzip; a bomb is 1,000 times
FREE = 4 * 2**20  # bytes of text before the ratio counts
OFTEN = 2**17  # bytes of text from one word on how far the reading is to the next
HEAD = 2**16  # bytes that tell a format


def _list_in(head: str) -> str | None:
    """Where ijson finds the list of objects that a file is; None for lines of objects."""
    text = head.lstrip()
    if text.startswith("["):
        return "item"
    inside = re.match(r"\{[ \t]*\r?\n(?:[ \t]*\"\w+\":[^\[{\n]*\n)*[ \t]*\"(\w+)\":\s*\[\s*\{", text)
    return None if inside is None else f"{inside[1]}.item"


class _Counted:
    """A binary file that refuses to unpack to much more than it is."""

    def __init__(self, path: str, file: BufferedReader, told: Callable[[float], None] | None = None) -> None:
        """`told` is given the share of the file that was read, now and then."""
        self._path, self._file, self._told = path, file, told
        self._size, self._next = os.fstat(file.fileno()).st_size, OFTEN
        self.packed = file.peek(2)[:2] == b"\x1f\x8b"
        self._source = GzipFile(fileobj=file) if self.packed else file
        self._text = 0

    def _count(self, data: bytes) -> bytes:
        self._text += len(data)
        if self._told is not None and self._text >= self._next:
            self._next += OFTEN
            self._told(min(self._file.tell() / self._size, 1.0) if self._size else 1.0)
        if self.packed and self._text > FREE and self._text > MOST_RATIO * self._file.tell():
            raise SpecError(
                "{path}: unpacks to more than {most} times its size; must be at most that, or plain text",
                self._path,
                MOST_RATIO,
            )
        return data

    def read(self, size: int = -1) -> bytes:
        return self._count(self._source.read(size))

    def readline(self) -> bytes:
        line = self._source.readline(MOST_LINE + 1)
        if len(line) > MOST_LINE:
            raise SpecError("{path}: a line of more than {most} bytes; must be at most that", self._path, MOST_LINE)
        return self._count(line)


@dataclass(frozen=True, slots=True)
class TraceSource:
    """A trace file, or a folder of them. Every method opens it anew. Raises SpecError for what cannot be read.

    `start_s` and `end_s` tell readers that draw their requests which ones are wanted.
    """

    path: str
    start_s: float = 0.0
    end_s: float = math.inf
    told: Callable[[float], None] | None = None  # the share of a file that was read

    @contextmanager
    def open(self) -> Iterator[_Counted]:
        try:
            with Path(self.path).open("rb") as file:
                yield _Counted(self.path, file, self.told)
        except (EOFError, zlib.error, BadGzipFile) as error:
            raise SpecError("{path}: damaged gzip file ({error})", self.path, error) from None
        except OSError as error:
            raise SpecError(
                "{path}: {fault}; workload.path must be a readable trace file", shorten(self.path), system(error)
            ) from None
        except ValueError as error:
            if isinstance(error, SpecError | BadLine) or "null byte" not in str(error):
                raise
            raise SpecError("workload.path: a path with a null byte; must be a readable trace file") from None

    def head(self) -> str:
        """The beginning of its text."""
        with self.open() as file:
            return file.read(HEAD).decode("utf-8-sig", errors="replace")

    def lines(self) -> Lines:
        """Numbered lines that are not blank."""
        place = 0
        with self.open() as file:
            number = 0
            while raw := file.readline():
                number += 1
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise SpecError(
                        "{path}: byte {place} is not UTF-8; must be CSV or JSON text, plain or gzip",
                        self.path,
                        place + error.start,
                    ) from None
                place += len(raw)
                if line.strip():
                    yield number, line

    def text(self) -> str:
        """All of it, for formats that are one JSON value."""
        with self.open() as file:
            data = file.read(MOST_TEXT + 1)
        if len(data) > MOST_TEXT:
            raise SpecError("{path}: more than {most} bytes in one value; must be at most that", self.path, MOST_TEXT)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SpecError(
                "{path}: byte {place} is not UTF-8; must be CSV or JSON text, plain or gzip", self.path, error.start
            ) from None

    def values(self, prefix: str) -> Iterator[Any]:
        """The values of a JSON file at an ijson prefix (`item`: of the outermost list), one at a time."""
        import ijson

        with self.open() as file:
            try:
                yield from ijson.items(cast("Any", file), prefix, use_float=True)
            except (ijson.JSONError, UnicodeDecodeError) as error:
                text = " ".join(str(error).split())[:200]
                raise BadLine("not JSON ({error}); must be one JSON value", text) from None

    def objects(self) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
        """Numbered JSON objects: one a line, or those of one list, be it inside an object; BadLine for what is none."""
        prefix = _list_in(self.head())
        if prefix is not None:
            for number, value in enumerate(self.values(prefix), start=1):
                kind = type(value).__name__
                bad = BadLine("a JSON {what}; must be one object a line", kind)
                yield number, value if isinstance(value, dict) else bad
            return
        for number, line in self.lines():
            try:
                yield number, json_object(line)
            except BadLine as error:
                yield number, error

    def members(self, *endings: str) -> list[str]:
        """The files of a folder by name, or the file itself."""
        if not os.path.isdir(self.path):
            return [self.path]
        names = sorted(name for name in os.listdir(self.path) if name.endswith(endings))
        return [os.path.join(self.path, name) for name in names]
