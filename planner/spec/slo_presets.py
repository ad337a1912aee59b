"""Latency targets that others have agreed on, by name. TTFT and TPOT are bounds on the 99th percentile.

Source: the latency constraints of MLPerf Inference, datacenter suite, server and interactive scenarios.
"""

from __future__ import annotations

import difflib

from planner.messages import message
from planner.spec import Slo, SpecError

SOURCE = "MLPerf Inference datacenter rules, p99 of TTFT and TPOT"

# name -> (TTFT ms, TPOT ms)
MLPERF: dict[str, tuple[int, int]] = {
    "mlperf-llama-3.1-8b-server": (2000, 100),
    "mlperf-llama-3.1-8b-interactive": (500, 30),
    "mlperf-llama-2-70b-server": (2000, 200),
    "mlperf-llama-2-70b-interactive": (450, 40),
    "mlperf-llama-3.1-405b-server": (6000, 175),
    "mlperf-llama-3.1-405b-interactive": (4500, 80),
    "mlperf-mixtral-8x7b-server": (2000, 200),
    "mlperf-deepseek-r1-server": (2000, 80),
    "mlperf-deepseek-r1-interactive": (1500, 15),
    "mlperf-gpt-oss-120b-server": (3000, 80),
    "mlperf-gpt-oss-120b-interactive": (2000, 20),
}


def preset(name: str) -> Slo:
    """The targets of a name. Raises SpecError."""
    if name not in MLPERF:
        near = difflib.get_close_matches(name, MLPERF, n=1)
        hint = message("did you mean {near}? ", near[0]) if near else ""
        raise SpecError("--slo {name}: is unknown; {hint}allowed: {mlperf}", name, hint, ", ".join(MLPERF))
    ttft, tpot = MLPERF[name]
    return Slo(ttft_ms=ttft, tpot_ms=tpot, attainment=0.99)
