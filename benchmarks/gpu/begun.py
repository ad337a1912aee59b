"""Traffic as if it had come for ever, made of requests that any server takes.

Whose answers are under way when a run begins sends what they had come to as a prompt. Servers fill within seconds
instead of within the longest answers, so that a minute is enough to judge a rate by.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.spec import Sessions, Spec
from planner.suggestion.probe import load_at
from planner.suggestion.underway import Start
from planner.traffic.loads import Chained, Underway
from planner.traffic.random_streams import draw, stream
from planner.traffic.workload import offered_rate


def begun(spec: Spec, wanted: dict[str, Any]) -> Chained:
    """What begins within `seconds` at the spec's rate; answers have taken `token_ms` a token before.

    Sessions that think when the run begins come again within the time of thinking.
    """
    workload, seed = spec.workload, spec.run.seed
    thinking_s = 0.0
    if isinstance(workload, Sessions):
        thinking_s = float(np.mean(draw(workload.think_time_s, 1000, stream(seed, "think_time_s"))))
    rate = offered_rate(spec)
    assert rate is not None
    load = load_at(spec, seed, rate, wanted["seconds"], Start(thinking_s, wanted["token_ms"] / 1e3, 0.0))
    assert isinstance(load, Underway)
    return load.load
