"""The tables of a run and the folder they are kept in.

Both backends fill the same columns; what a backend cannot observe is null (NaN or None). All times are seconds
since the start of the run, on one clock, as float64.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from planner.messages import Message, message, packed, said, unpacked
from planner.run.columns import Columns, FrameColumns
from planner.spec.strict_yaml import SpecError, shorten

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, float], None]  # (stage, fraction of it done, 0 to 1)

# column -> pandas dtype. Order is part of the contract.
REQUEST_COLUMNS: dict[str, str] = {
    "request_id": "int64",
    "session_id": "int64",
    "arrival_s": "float64",  # the client sends
    "prompt_tokens": "int64",
    "cached_tokens": "Int64",  # prompt tokens found in the prefix cache of the worker that prefilled
    "output_tokens": "int64",  # tokens received
    "max_tokens": "int64",
    "worker": "string",  # prefills (aggregated: does everything)
    "decode_worker": "string",  # decodes; equal to `worker` when aggregated or prefilled locally
    "retrieval_start_s": "float64",
    "retrieval_end_s": "float64",
    "shared_queued_s": "float64",  # enters the queue that prefill workers pull from; null without one
    "queued_s": "float64",  # enters the engine's waiting queue
    "prefill_start_s": "float64",
    "prefill_end_s": "float64",
    "transfer_start_s": "float64",
    "transfer_end_s": "float64",
    "decode_start_s": "float64",  # start of the first step on the decode worker after prefill
    "first_token_s": "float64",  # at the client
    "finish_s": "float64",  # at the client
    "preemptions": "Int64",
    "finish_reason": "string",  # stop, length, rejected, error
    "error": "string",
}

# One row is `count` consecutive engine steps of equal composition: step i lasts first + i * growth_s, and
# duration_s is their sum. Live rows have count 1. context_tokens is that of the first step of the row.
STEP_COLUMNS: dict[str, str] = {
    "worker": "string",
    "start_s": "float64",
    "duration_s": "float64",
    "prefill_tokens": "int64",
    "decode_seqs": "int64",
    "context_tokens": "int64",
    "count": "int64",
    "growth_s": "float64",
    "running": "int64",
    "waiting": "int64",
    "kv_used_fraction": "float64",
}

SAMPLE_COLUMNS: dict[str, str] = {
    "time_s": "float64",
    "worker": "string",
    "running": "Int64",
    "waiting": "Int64",
    "kv_used_fraction": "float64",
    "gpu_utilization": "float64",
    "power_w": "float64",
}

# Bytes moved between two workers, one row a transfer.
TRANSFER_COLUMNS: dict[str, str] = {
    "request_id": "int64",
    "source": "string",
    "target": "string",
    "link": "string",
    "bytes": "int64",
    "start_s": "float64",
    "end_s": "float64",
}

# Live only: the arrival of each streamed token at the client.
TOKEN_COLUMNS: dict[str, str] = {"request_id": "int64", "index": "int64", "time_s": "float64"}

TABLES: dict[str, dict[str, str]] = {
    "requests": REQUEST_COLUMNS,
    "steps": STEP_COLUMNS,
    "samples": SAMPLE_COLUMNS,
    "transfers": TRANSFER_COLUMNS,
    "tokens": TOKEN_COLUMNS,
}


def read_parquet(path: Path) -> pd.DataFrame:
    """A table that was written before. Raises ArrowException for a damaged one, of which pandas reads texts unseen."""
    import pandas as pd
    import pyarrow as pa

    table = pd.read_parquet(path)
    for name in table.select_dtypes(include=["string", "object"]):
        pa.Array.from_pandas(table[name]).validate(full=True)
    return table


def _checked(table: str, columns: dict[str, Any] | None) -> tuple[dict[str, Any], int]:
    """The columns of `table` that are given, and their length."""
    columns = columns or {}
    schema = TABLES[table]
    if unknown := set(columns) - set(schema):
        raise KeyError(f"{table}: unknown columns {sorted(unknown)}")
    size = len(next(iter(columns.values()))) if columns else 0
    for name, dtype in schema.items():
        if size and dtype == "int64" and name not in columns:
            raise KeyError(f"{table}: column {name!r} is required")
    return columns, size


def columns(table: str, given: dict[str, Any] | None = None) -> Columns:
    """Exactly the columns of `table` as arrays; those not given are null."""
    found, size = _checked(table, given)
    return Columns(TABLES[table], found, size)


def frame(table: str, columns: dict[str, Any] | None = None) -> pd.DataFrame:
    """A DataFrame with exactly the columns and dtypes of `table`; columns not given are null."""
    import pandas as pd

    found, size = _checked(table, columns)
    data = {}
    for name, dtype in TABLES[table].items():
        nothing = None if dtype in ("string", "Int64") else float("nan")
        data[name] = pd.Series(found[name] if name in found else [nothing] * size, dtype=dtype)
    return pd.DataFrame(data)


def _manifest(folder: Path) -> dict[str, Any]:
    """A run's manifest with what every reader takes for granted. Raises SpecError."""
    from planner.run.manifest_shape import Manifest
    from planner.spec.faults import validate

    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        validate(Manifest, manifest, "manifest.json")
    except SpecError as error:
        fault = said(error)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or a number of too many digits
        fault = message("manifest.json: {fault}", shorten(" ".join(str(error).split())))
    else:
        return _with_messages(manifest)
    raise SpecError("{folder}: damaged ({fault}); allowed: a folder as a run wrote it", folder, fault)


STOPPED = "stopped before it ended"  # the error of a request that was in flight when a run was told to stop
SAID = ("warnings", "origin", "recorded", "died", "paused")  # keys of a manifest that hold texts for people


def _texts(manifest: dict[str, Any]) -> list[Any]:
    found = [manifest.get(name) for name in SAID]
    lists = [one.values() if isinstance(one, dict) else one if isinstance(one, list) else [one] for one in found]
    return [text for one in lists for text in one]


def _with_messages(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest whose texts are messages again, where it was written with them."""
    try:
        known = {str(text): text for text in map(unpacked, manifest.get("messages") or ())}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        known = {}  # another version's or a damaged one: their English is in the manifest
    found = {name: value for name, value in manifest.items() if name != "messages"}
    for name in SAID:
        value = found.get(name)
        if isinstance(value, list):
            found[name] = [known.get(text, text) if isinstance(text, str) else text for text in value]
        elif isinstance(value, dict):
            found[name] = {key: known.get(text, text) if isinstance(text, str) else text for key, text in value.items()}
        elif isinstance(value, str):
            found[name] = known.get(value, value)
    return found


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write that takes its name when it is complete, and goes when it cannot be."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class _Table:
    """A field that holds a table as columns or as a DataFrame, and gives the latter."""

    def __init__(self, default: Columns | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, run: None, owner: type) -> Columns: ...
    @overload
    def __get__(self, run: Run, owner: type) -> pd.DataFrame: ...
    def __get__(self, run: Run | None, owner: type) -> pd.DataFrame | Columns:
        if run is None:  # dataclass asks for the field's default
            if self._default is None:
                raise AttributeError(self._name)
            return self._default
        held: Columns | pd.DataFrame = run.__dict__[self._name]
        if isinstance(held, Columns):
            held = run.__dict__[self._name] = held.frame()
        return held

    def __set__(self, run: Run, table: Columns | pd.DataFrame) -> None:
        run.__dict__[self._name] = table


@dataclass(frozen=True)
class Run:
    """What a backend returns: tables, and a manifest of spec, versions, seed, profile and provenance.

    A table is given as `Columns` or as a DataFrame. As an attribute it is a DataFrame; `columns` gives arrays.
    """

    requests: _Table = _Table()
    steps: _Table = _Table()
    samples: _Table = _Table()
    transfers: _Table = _Table()
    tokens: _Table = _Table(columns("tokens"))
    manifest: dict[str, Any] = field(default_factory=dict)

    def columns(self, table: str) -> Columns:
        """A table by its name in `TABLES`."""
        held = self.__dict__[table]
        return held if isinstance(held, Columns) else FrameColumns(held)

    def save(self, folder: Path) -> Path:
        """Write the tables as Parquet and the manifest as JSON, over those of an earlier run in the same folder.

        The same run gives the same bytes. The manifest comes last and every file appears whole, so that a folder with
        a manifest is a whole run. Raises OSError, with nothing half-written left, when there is no room.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
        for name in TABLES:
            table = self.columns(name)
            path = folder / f"{name}.parquet"
            path.unlink(missing_ok=True)
            if len(table) or name not in ("tokens", "transfers"):
                with _whole(path) as part:
                    table.write_parquet(part)
        manifest = self.manifest
        if messages := [packed(text) for text in _texts(manifest) if isinstance(text, Message)]:
            manifest = manifest | {"messages": messages}  # for other languages
        with _whole(folder / "manifest.json") as part:
            part.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        return folder

    @staticmethod
    def load(folder: Path) -> Run:
        """Read a run folder. Raises FileNotFoundError when it is none, SpecError when its manifest is damaged."""
        manifest = _manifest(folder)
        tables = {
            name: read_parquet(path) if (path := folder / f"{name}.parquet").exists() else frame(name)
            for name in TABLES
        }
        return Run(**tables, manifest=manifest)
