"""Small CSV files that people write by hand, read whole."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from planner.messages import message
from planner.spec.strict_yaml import SpecError, read_text


def read_rows(path: Path) -> list[dict[str, str | None]]:
    """{column: cell} of every row after the header; None where a row ends early. Raises SpecError."""
    try:
        text = read_text(path, message("a CSV file")).removeprefix("\ufeff")
        return list(csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True))
    except csv.Error as error:
        most = csv.field_size_limit()
        raise SpecError(
            "{path}: not CSV ({error}); allowed: cells of at most {most} characters", path, error, most
        ) from None
