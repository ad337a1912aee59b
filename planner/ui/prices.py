"""List prices of GPUs: data with its date and source, for users who have not typed what they pay."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from planner.spec import config_root
from planner.spec.strict_yaml import read_mapping, read_text


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per GPU and hour, by the catalogue's name of a GPU."""

    date: str
    source: str
    usd_per_gpu_hour: dict[str, float]


@lru_cache(maxsize=1)
def prices() -> Prices:
    path = config_root() / "prices" / "list.yaml"
    data: dict[str, Any] = read_mapping(read_text(path), str(path))
    return Prices(str(data["date"]), str(data["source"]), dict(data["usd_per_gpu_hour"]))


def list_price(hardware: str) -> float | None:
    """None: not listed."""
    return prices().usd_per_gpu_hour.get(hardware)
