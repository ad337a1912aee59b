"""Numbers as people read them."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three significant digits, without an exponent up to a million; a dash when unknown."""
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 1e6:
        return f"{value:.3g}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 0.001 or size == 0 else f"{value:.1g}"


def percent(share: float | None, wanted: float | None = None) -> str:
    """A share as per cent; below 1 it is never rounded up to 100 %, nor below `wanted` to that: 98.96 % of 99 %."""
    if share is not None and wanted is not None and share < wanted and percent(share) == percent(wanted):
        exact = (f"{100 * share:.{places}f}" for places in (2, 3))
        cut = f"{math.floor(1e6 * share) / 1e4:.4f}"
        return f"{next((text for text in exact if float(text) < round(100 * wanted, 9)), cut)} %"
    if share is None or not math.isfinite(share):
        return "-"
    text = f"{share * 100:.1f}" if share < 10 else f"{share * 100:,.0f}"
    return "99.9 %" if text == "100.0" and share < 1 else f"{text.removesuffix('.0')} %"


def milliseconds(value: float) -> str:
    """12.3 ms, or 4.56 s from a second on."""
    return f"{number(value / 1e3)} s" if abs(value) >= 1000 else f"{number(value)} ms"


def gigabytes(rate: float) -> str:
    """Bytes a second as GB/s (1e9 bytes)."""
    return f"{number(rate / 1e9)} GB/s"
