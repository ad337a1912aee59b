"""A table of a run as numpy columns, and as the Parquet file that pandas would write of it.

pandas takes longer to import than a small deployment to simulate. So what a simulation leaves, what metrics read and
what a run folder holds is made of these; `Run` makes a DataFrame of them where somebody asks for one.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from planner.core import installed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]

# A column's dtype in pandas -> that of its array here. Null is nan in floats and None in objects.
ARRAYS: dict[str, Any] = {"int64": np.int64, "float64": np.float64, "Int64": np.float64, "string": object}
PANDAS_TYPES = {"int64": "int64", "float64": "float64", "Int64": "int64", "string": "object"}  # as its metadata says


def equal(values: Values, other: Any) -> Mask:
    """Which texts (None: null) are the same; `other` is one or as many."""
    same: Mask = np.equal(values, other).astype(np.bool_)
    return same


class Columns:
    """Arrays of one length by name, with the dtype that each has in pandas."""

    def __init__(self, schema: Mapping[str, str], given: Mapping[str, Iterable[Any]], size: int) -> None:
        """`given` are columns of `size` values each; those of `schema` that it lacks are null."""
        self._schema = schema
        self._size = size
        self._arrays = {name: _array(given.get(name), dtype, size) for name, dtype in schema.items()}

    def __len__(self) -> int:
        return self._size

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def floats(self, name: str) -> Floats:
        """Numbers; null is nan."""
        return self._arrays[name].astype(np.float64, copy=False)

    def whole(self, name: str) -> npt.NDArray[np.int64]:
        """Whole numbers of a column without nulls."""
        return self._arrays[name].astype(np.int64, copy=False)

    def texts(self, name: str) -> Values:
        """Objects: texts, None where null."""
        return self._arrays[name]

    def taken(self, rows: npt.NDArray[Any]) -> Columns:
        """The rows of a mask or of indices, in their order."""
        chosen = {name: values[rows] for name, values in self._arrays.items()}
        return Columns(self._schema, chosen, len(next(iter(chosen.values()))))

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({name: pd.Series(self._arrays[name], dtype=kind) for name, kind in self._schema.items()})

    def write_parquet(self, path: Path) -> None:
        """The bytes that `frame().to_parquet(path, index=False, compression="zstd")` writes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = [_arrow(self._arrays[name], dtype) for name, dtype in self._schema.items()]
        table = pa.Table.from_arrays(arrays, names=list(self._schema))
        table = table.replace_schema_metadata({b"pandas": _pandas_metadata(self._schema)})
        pq.write_table(table, path, compression="zstd")


class FrameColumns(Columns):
    """The same of a DataFrame: each column is converted when it is read."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return len(self._frame)

    def __contains__(self, name: object) -> bool:
        return name in self._frame

    def floats(self, name: str) -> Floats:
        found: Floats = self._frame[name].to_numpy(np.dtype(np.float64), na_value=np.nan)
        return found

    def whole(self, name: str) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = self._frame[name].to_numpy(np.dtype(np.int64))
        return found

    def texts(self, name: str) -> Values:
        values = self._frame[name].astype(object)
        found: Values = values.where(values.notna(), None).to_numpy(dtype=np.dtype(object))
        return found

    def taken(self, rows: npt.NDArray[Any]) -> Columns:
        return FrameColumns(self._frame[rows] if rows.dtype == np.bool_ else self._frame.iloc[rows])

    def frame(self) -> pd.DataFrame:
        return self._frame

    def write_parquet(self, path: Path) -> None:
        self._frame.to_parquet(path, index=False, compression="zstd")


def by_worker(table: Columns) -> tuple[npt.NDArray[np.int64], list[str]]:
    """(index of the worker of each row, worker names in order of appearance)."""
    places: dict[str, int] = {}
    codes = [places.setdefault(name, len(places)) for name in table.texts("worker")]
    return np.array(codes, dtype=np.int64), [str(name) for name in places]


def _array(values: Iterable[Any] | None, dtype: str, size: int) -> Values:
    kind = ARRAYS[dtype]
    if values is None:
        if dtype == "int64" and size:
            raise KeyError("a column of whole numbers is required")
        return np.full(size, None if kind is object else np.nan if kind is np.float64 else 0, dtype=kind)
    if isinstance(values, (np.ndarray, array)):
        return np.asarray(values).astype(kind, copy=False)
    return np.fromiter((cast("list[Any]", values)), dtype=kind, count=size)


def _arrow(values: Values, dtype: str) -> pa.Array:
    """From buffers: `pa.array` imports pandas to ask whether its argument is of it."""
    import pyarrow as pa

    size = len(values)
    null = equal(values, None) if dtype == "string" else np.isnan(values)
    nulls = int(null.sum())
    valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if nulls else None
    if dtype == "string":
        known = {text: (text or "").encode() for text in set(values)}  # names repeat
        texts = [known[text] for text in values]
        ends = np.zeros(size + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=size), out=ends[1:])
        buffers = [valid, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        return pa.Array.from_buffers(pa.large_string(), size, buffers, null_count=nulls)
    if dtype == "float64":
        return pa.Array.from_buffers(pa.float64(), size, [valid, pa.py_buffer(values)], null_count=nulls)
    whole = np.where(null, 1, values).astype(np.int64)  # pandas keeps 1 under a null, too
    return pa.Array.from_buffers(pa.int64(), size, [valid, pa.py_buffer(whole)], null_count=nulls)


def _pandas_metadata(schema: Mapping[str, str]) -> bytes:
    """What pandas finds its dtypes by when it reads the file."""
    columns = [
        {"name": name, "field_name": name, "pandas_type": PANDAS_TYPES[dtype], "numpy_type": dtype, "metadata": None}
        for name, dtype in schema.items()
    ]
    found = {
        "index_columns": [],
        "column_indexes": [],
        "columns": columns,
        "attributes": {},
        "creator": {"library": "pyarrow", "version": installed("pyarrow")},
        "pandas_version": installed("pandas"),
    }
    return json.dumps(found).encode()
