"""Observed arrivals through the simulator: what the plan says that the intervals should have been."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from planner.backends import backend
from planner.engine.law import TERMS
from planner.engine.profile_file import ProfileFile
from planner.engine.profiles import from_file
from planner.messages import message
from planner.spec import SpecError
from planner.system.knobs import changed_step
from planner.system.resolve import System
from planner.traffic.contents import ANSWER, PROMPT, SYSTEM, content_id, segments_of
from planner.traffic.loads import Chained
from planner.traffic.random_streams import stream
from planner.traffic.requests import Arrival, Request
from planner.watching.observe import NAN, Histogram, Observed

METRICS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "output_tokens_s": message("output")}
MOST = 1_000_000  # requests that a prediction simulates
FEW = 8  # requests of an interval below which its lengths are those of the intervals around it


@dataclass(frozen=True, slots=True)
class Levels:
    """What the profile's times are multiplied by: steps with prompts and the host's costs, and decode-only steps."""

    prompts: float = 1.0
    decodes: float = 1.0


AS_PLANNED = Levels()
DECODES = ("decode", "context")  # parts of the law
PROMPTS = ("floor", "line", "prompt")


def levelled(system: System, levels: Levels) -> System:
    """The system whose profiles take so many times as long. Those made by hand, without a law, stay as they are."""
    if levels == AS_PLANNED:
        return system
    pools = []
    for pool in system.pools:
        if pool.profile.file is None:
            pools.append(pool)
            continue
        profile = replace(from_file(_scaled(pool.profile.file, levels)), warnings=pool.profile.warnings)
        profile = profile.for_engine(pool.engine, pool.limits.max_num_seqs, pool.limits.max_num_batched_tokens)
        profile = changed_step(profile, pool.setup, system.spec.optimizations, pool.role != "prefill")
        pools.append(replace(pool, profile=profile))
    return replace(system, pools=tuple(pools))


def _scaled(file: ProfileFile, levels: Levels) -> ProfileFile:
    """Launches go with the decodes: it is decode-only steps that are short enough to feel them."""
    parts = dict.fromkeys((*DECODES, "launch"), levels.decodes) | dict.fromkeys(PROMPTS, levels.prompts)
    step = {name: getattr(file.step, name) * parts[term.part] for name, term in TERMS.items() if term.part in parts}
    host = {name: value * levels.prompts for name, value in file.host.model_dump().items()}
    return file.model_copy(
        update={
            "step": file.step.model_copy(update=step),
            "host": file.host.model_copy(update=host),
        }
    )


def load_of(intervals: Sequence[Observed], system: System) -> Chained:
    """Requests as they were observed: counts, lengths and cached share of each interval, sent at even chances in it.

    Time 0 is the start of the first interval. The same interval always gives the same requests. Raises
    SpecError for more than MOST.
    """
    longest = min(pool.limits.max_model_len for pool in system.pools)
    zero_s = intervals[0].start_s
    all_prompts, all_outputs = (_together([getattr(one, name) for one in intervals]) for name in ("prompts", "outputs"))
    asked = sum(one.arrivals for one in intervals)
    if asked > MOST:
        raise SpecError("{asked:.3g} requests in {count} intervals; allowed: up to {most}", asked, len(intervals), MOST)
    arrivals: list[Arrival] = []
    for one in intervals:
        rng = stream(int(one.start_s * 1e3) % 2**32, "watched")
        times = np.sort(rng.random(one.arrivals)) * one.length_s + one.start_s - zero_s
        prompts, outputs = (
            (own if own.count >= FEW else every).draws(one.arrivals, rng)
            for own, every in ((one.prompts, all_prompts), (one.outputs, all_outputs))
        )
        if np.isnan(prompts).any() or np.isnan(outputs).any():
            continue
        for time_s, prompt, output in zip(times.tolist(), prompts.tolist(), outputs.tolist(), strict=True):
            answer = max(1, min(round(output), longest - 1))
            length = max(1, min(round(prompt), longest - answer))
            arrivals.append(Arrival(time_s, _request(len(arrivals), length, answer, one.cached_share)))
    return Chained(tuple(arrivals), {})


def _request(number: int, prompt: int, output: int, cached_share: float) -> Request:
    """A prompt whose beginning, as much as was found in caches, is everybody's."""
    shared = int(prompt * cached_share)
    segments = segments_of((content_id(SYSTEM, 0), shared), (content_id(PROMPT, number), prompt - shared))
    return Request(number, number, prompt, output, output, segments, shared, content_id(ANSWER, number))


def _together(histograms: Sequence[Histogram]) -> Histogram:
    found = Histogram()
    for one in histograms:
        found = found.plus(one)
    return found


def predict(intervals: Sequence[Observed], system: System, levels: Levels) -> tuple[Mapping[str, float], ...]:
    """For each interval the metrics of `Observed.measured`, NaN where the simulation has none."""
    nothing = dict.fromkeys(METRICS, NAN)
    load = load_of(intervals, system)
    if not load.arrivals:
        return tuple(nothing for _ in intervals)
    found = levelled(system, levels)
    spec = found.spec.model_copy(update={"run": found.spec.run.model_copy(update={"step_records": False})})
    run = backend("simulate").run(replace(found, spec=spec), load)
    served = run.requests[run.requests["finish_reason"].isin(["length", "stop"])]
    zero_s = intervals[0].start_s
    return tuple(_within(served, one.start_s - zero_s, one.end_s - zero_s) for one in intervals)


def _within(served: pd.DataFrame, start_s: float, end_s: float) -> dict[str, float]:
    """As an engine counts it: TTFT when the first token comes, the others when the last does, tokens as they come."""
    sent, first, last, tokens = (
        served[name].to_numpy(np.float64) for name in ("arrival_s", "first_token_s", "finish_s", "output_tokens")
    )
    began, ended = (first > start_s) & (first <= end_s), (last > start_s) & (last <= end_s)
    many = ended & (tokens > 1)
    span = np.maximum(last - first, 1e-9)
    share = np.clip(np.minimum(last, end_s) - np.maximum(first, start_s), 0.0, None) / span
    made = float((share * (tokens - 1)).sum() + began.sum())
    return {
        "ttft": _mean((first - sent)[began]),
        "tpot": _mean(((last - first) / np.maximum(tokens - 1, 1))[many]),
        "e2e": _mean((last - sent)[ended]),
        "output_tokens_s": made / (end_s - start_s) if made else NAN,
    }


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(values.mean()) if len(values) else NAN


def score(measured: float, predicted: float) -> float:
    """log(measured / predicted); NaN where either is unknown or zero."""
    return math.log(measured / predicted) if measured > 0 and predicted > 0 else NAN


# --- refitting ---------------------------------------------------------------------------------

ROUNDS, STRIDE, WIDEST = 6, 3.0, 50.0


def refit(intervals: Sequence[Observed], system: System, levels: Levels) -> Levels:
    """The levels under which the medians of TTFT and TPOT over `intervals` come out as measured.

    A fixed point: each round multiplies a level by what its metric is off by, at most STRIDE times.
    """
    for _ in range(ROUNDS):
        found = predict(intervals, system, levels)
        off = {
            name: _median([score(one.measured[name], said[name]) for one, said in zip(intervals, found, strict=True)])
            for name in ("ttft", "tpot")
        }
        prompts, decodes = _moved(levels.prompts, off["ttft"]), _moved(levels.decodes, off["tpot"])
        levels = Levels(prompts, decodes)
        if max(map(abs, off.values())) < 0.01:
            break
    return levels


def _median(scores: Sequence[float]) -> float:
    known = [one for one in scores if math.isfinite(one)]
    return float(np.median(known)) if known else 0.0


def _moved(level: float, off: float) -> float:
    stride = math.log(STRIDE)
    return min(max(level * math.exp(min(max(off, -stride), stride)), 1 / WIDEST), WIDEST)
