"""Golden summaries of every shipped deployment: `python tests/golden.py` writes them anew.

They show in review what a change does to predictions. They prove nothing: invariants and theory do, elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from planner import load, simulate, summarise

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if "\ndeployment:" in path.read_text())
NAMES = (
    "completed", "rejected", "failed", "requests_per_s", "output_tokens_per_s", "attainment",
    "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "e2e_p50_ms", "cache_hit_rate", "preemptions",
)  # fmt: skip


def page(config: Path) -> Path:
    name = "-".join(config.relative_to(ROOT / "configs").with_suffix("").parts)
    return ROOT / "tests" / "golden" / f"{name}.json"


def summary(config: Path) -> dict[str, Any]:
    """What the deployment is predicted to do, in six digits: enough to see a change, not the platform's last bit."""
    found = summarise(simulate(load(config)))
    numbers = {name: None if found[name] is None else float(f"{found.number(name):.6g}") for name in NAMES}
    return {
        "deployment": found.deployment,
        "provenance": found.provenance,
        "saturated": found.saturation.saturated,
        **numbers,
    }


if __name__ == "__main__":
    for path in CONFIGS:
        page(path).parent.mkdir(exist_ok=True)
        text = json.dumps(summary(path), indent=2) + "\n"
        if not page(path).is_file() or page(path).read_text() != text:
            page(path).write_text(text)
            print(page(path).stem, "changed", file=sys.stderr)
