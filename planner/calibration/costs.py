"""What a calibration finds besides step times: host times, the link, and how engines of one host slow each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from planner.calibration.cost_fits import HostFit, LinkFit, fit_host, fit_link, robust_line
from planner.calibration.fitting import Array, FitError, Fitted, digits, predict
from planner.calibration.launches import seen_ends
from planner.calibration.observations import company, from_steps, host_samples
from planner.engine.profile_file import HostLaw, WireLaw
from planner.run.tables import Run
from planner.spec import Link
from planner.system.resolve import System

SAME_END_S = 1e-4  # time stamps of one step
DIGITS = 5  # of seconds: two time stamps of one moment
LONELY = 10  # requests without company from which host times are taken; steps to compare
CROWD = 128  # sequences of a step: tokens of more wait for a client that takes all of them in, too
KEPT_UP = 20  # sequences: an API server hands out so many tokens within any decode step
ALONE, TOGETHER = 0.1, 0.9  # share of a step's time in which another engine of the host worked


def interference(runs: Sequence[Run], sizes: Sequence[int], fitted: Fitted) -> float | None:
    """How many times as long a step takes while another engine of the host works; None: too few steps show it."""
    steps = pd.concat([run.steps for run in runs], ignore_index=True)
    shared = np.concatenate([company(run.steps) for run in runs]) if len(steps) else np.zeros(0)
    alone, together = (
        from_steps(steps[chosen], sizes, given=fitted.values) for chosen in (shared < ALONE, shared > TOGETHER)
    )
    if min(len(alone), len(together)) < LONELY:
        return None
    slow, quick = (
        float(np.median(rows["seconds"].to_numpy() / predict(fitted.values, rows))) for rows in (together, alone)
    )
    return max(1.0, slow / quick)


def stretched(run: Run, slowing: float) -> pd.DataFrame:
    """The run's steps with how much longer than alone each took, for the time that another engine worked too."""
    return run.steps.assign(stretch=1.0 + (slowing - 1.0) * company(run.steps))


def host_of(
    runs: Sequence[Run], rows: pd.DataFrame, values: Mapping[str, float], notes: list[str]
) -> tuple[HostLaw, dict[str, float]]:
    """Client to engine queue, engine to client, and the hop between pools; and the standard errors.

    The way back is longer after a long prompt, too, and from a step of many sequences, whose tokens the API server
    hands out one after another.
    """
    done = pd.concat([_finished(run.requests).join(_beside(run)) for run in runs], ignore_index=True)
    every = done
    sole = done[done["sole"] & (done["worker"] == done["decode_worker"])]
    if done["lonely"].sum() >= LONELY:  # under load host times hold the host's own queues
        done = done[done["lonely"]]
    queued = done.dropna(subset=["queued_s"])
    found: HostFit
    if len(queued) >= 3:
        found = fit_host(
            queued["prompt_tokens"].to_numpy(dtype=float),
            (queued["queued_s"] - queued["arrival_s"]).to_numpy(dtype=float),
        )
    else:
        prompts, seconds = host_samples(done, rows, values) if "request_id" in rows else ([], [])
        if len(seconds) < 3:
            notes.append("host times were not seen and are taken as 0")
            return HostLaw(), {}
        found = fit_host(np.array(prompts), np.array(seconds))
    local = done[done["worker"] == done["decode_worker"]]
    moved = done[done["worker"] != done["decode_worker"]]
    largest = _largest_step(runs)
    response, per_token, per_token_error = _response(local[local["prompt_tokens"] <= largest])
    per_seq, per_seq_error = _per_sequence(sole[sole["prompt_tokens"] <= largest], response or 0.0, per_token)
    read = _read_response(every[every["worker"] != every["decode_worker"]], runs) if response is None else None
    if read is not None:
        (alone, per_token, per_seq), (_, per_token_error, per_seq_error) = read
        response = alone + per_seq  # a sequence of its own
    hop = _median(moved["transfer_start_s"] - moved["prefill_end_s"])
    if response is None:
        notes.append("the way from engine to client was not seen; it is part of the request's host time or missing")
    law = HostLaw(
        request_s=digits(found.request_s),
        request_per_token_s=digits(found.request_per_token_s),
        response_s=digits(max((response or 0.0) - per_seq, 0.0)),
        response_per_seq_s=digits(per_seq),
        response_per_token_s=digits(per_token),
        hop_s=digits(hop or 0.0),
    )
    seen = {"response_per_seq_s": (per_seq, per_seq_error), "response_per_token_s": (per_token, per_token_error)}
    return law, found.errors | {name: error for name, (value, error) in seen.items() if value}


def _largest_step(runs: Sequence[Run]) -> float:
    """Prompt tokens. Where a prompt took several steps that overlapped, its end is known to a step only."""
    return min((float(run.steps["prefill_tokens"].max()) for run in runs if len(run.steps)), default=np.inf)


def _read_response(moved: pd.DataFrame, runs: Sequence[Run]) -> tuple[tuple[float, float, float], Array] | None:
    """A pair's engine to client, and standard errors: seconds, more a prompt token and a sequence of the step.

    From the ends of the decode worker's steps that computed what was left of prompts; None where too few are known.
    """
    steps = pd.concat([run.steps for run in runs], ignore_index=True)
    if steps.empty:
        return None
    ordered = steps.sort_values(["worker", "start_s"], ignore_index=True)
    ended = pd.DataFrame(
        {
            "decode_worker": ordered["worker"],
            "start_s": ordered["start_s"].round(DIGITS),
            "end_s": seen_ends(ordered),
            "seqs": ordered["decode_seqs"] + ordered["prefill_tokens"],  # one token of each prompt
        }
    )
    keys = ["decode_worker", "start_s"]
    known = moved.assign(start_s=moved["decode_start_s"].round(DIGITS)).merge(ended.drop_duplicates(keys), on=keys)
    known = known[known["seqs"] <= CROWD]
    if len(known) < LONELY or known["seqs"].nunique() < 3 or known["prompt_tokens"].nunique() < 3:
        return None
    tokens = known.groupby(keys)["prompt_tokens"].transform("sum").to_numpy(dtype=float)
    design = np.column_stack([np.ones(len(known)), tokens, known["seqs"].to_numpy(dtype=float) - 1.0])
    found, errors = robust_line(design, (known["first_token_s"] - known["end_s"]).to_numpy(dtype=float))
    return (max(found[0], 0.0), max(found[1], 0.0), max(found[2], 0.0)), np.array(errors)


def _response(local: pd.DataFrame) -> tuple[float | None, float, float]:
    """Engine to client: seconds, more of them per prompt token, and the standard error of those."""
    local = local.dropna(subset=["prefill_end_s"])
    seconds = local["first_token_s"] - local["prefill_end_s"]
    if len(local) < LONELY:
        return _median(seconds), 0.0, 0.0
    found = fit_host(local["prompt_tokens"].to_numpy(dtype=float), seconds.to_numpy(dtype=float))
    return found.request_s, found.request_per_token_s, found.per_token_error_s


def _per_sequence(sole: pd.DataFrame, alone_s: float, per_token_s: float) -> tuple[float, float]:
    """Seconds from a step's end to a first token for each sequence of the step, and their standard error.

    From requests that nobody else came beside, into batches of several sizes; 0 where there are too few of them. A
    batch whose tokens take the API server longer than a step shows the queue before it: such are left out.
    """
    known = sole.dropna(subset=["prefill_end_s", "beside"]).sort_values("beside")
    late = known["first_token_s"] - known["prefill_end_s"] - per_token_s * known["prompt_tokens"] - alone_s
    others = known["beside"].to_numpy(dtype=float) - 1.0
    slope, error = 0.0, 0.0
    for batch in known["beside"].unique():
        kept = (known["beside"] <= batch).to_numpy()
        step_s = float(known["step_s"][known["beside"] == batch].median())
        if batch > KEPT_UP and (slope - 2 * error) * batch > step_s:
            break
        if kept.sum() < LONELY or known["beside"][kept].nunique() < 3:
            continue
        design = np.column_stack([np.ones(kept.sum()), others[kept]])
        found, errors = robust_line(design, late.to_numpy(dtype=float)[kept])
        slope, error = max(found[1], 0.0), errors[1]
    return slope, error


def _beside(run: Run) -> pd.DataFrame:
    """Of the step that ended each finished request's prompt, by arrival; NaN where it is not known.

    `beside`: its sequences; `step_s`: what a decode step of as many takes, nothing where there was none.
    """
    table = _finished(run.requests)
    beside, step_s = pd.Series(np.nan, index=table.index), pd.Series(np.nan, index=table.index)
    for worker, own in run.steps.groupby("worker"):
        ordered = own.sort_values("start_s", ignore_index=True)
        ends, ended = seen_ends(ordered), table["prefill_end_s"].to_numpy(dtype=float)
        after = np.clip(np.searchsorted(ends, ended - SAME_END_S), 0, len(ends) - 1)
        seqs = ordered["decode_seqs"].to_numpy(dtype=float) + 1.0
        here = (table["worker"] == worker).to_numpy(dtype=bool) & (np.abs(ends[after] - ended) <= SAME_END_S)
        beside[here] = seqs[after][here]
        decodes = ordered[ordered["prefill_tokens"] == 0]
        usual = decodes.groupby("decode_seqs")["duration_s"].median()
        step_s[here] = usual.reindex(seqs[after][here], method="nearest").to_numpy() if len(usual) else np.inf
    return pd.DataFrame({"beside": beside, "step_s": step_s})


def _finished(requests: pd.DataFrame) -> pd.DataFrame:
    """Finished requests by arrival. `lonely`: alone until its first token; `sole`: nobody else came until then."""
    table = requests[requests["finish_reason"].isin(["stop", "length"])].sort_values("arrival_s", ignore_index=True)
    before = table["finish_s"].cummax().shift(1, fill_value=-np.inf)
    first = table["first_token_s"].cummax().shift(1, fill_value=-np.inf)
    last = table["arrival_s"].shift(-1, fill_value=np.inf) >= table["first_token_s"]
    return table.assign(lonely=(before <= table["arrival_s"]) & last, sole=(first <= table["arrival_s"]) & last)


def _median(values: pd.Series) -> float | None:
    """None when there is no value; clocks of one host do not give negative ones but by rounding."""
    known = values.dropna()
    return max(float(known.median()), 0.0) if len(known) else None


def link_of(system: System, runs: Sequence[Run], notes: list[str]) -> WireLaw | None:
    """Time against bytes of transfers that had the link to themselves.

    Engines notice an arrival at a step's border, which is in the fixed part.
    """
    if system.wires is None:
        return None
    quiet = pd.concat([quiet_transfers(run) for run in runs], ignore_index=True)
    table = quiet if len(quiet) >= LONELY else pd.concat([_alone(run.transfers) for run in runs], ignore_index=True)
    seconds = (table["end_s"] - table["start_s"]).to_numpy(dtype=float)
    sizes = table["bytes"].to_numpy(dtype=float)
    seen = (seconds > 0) & (sizes > 0)
    try:
        found: LinkFit = fit_link(sizes[seen], seconds[seen])
    except FitError as error:
        notes.append(f"no link was fitted: {error}")
        return None
    link = getattr(system.spec.deployment, "link", Link())
    return WireLaw(bandwidth_gb_s=digits(found.bandwidth_gb_s), setup_s=digits(found.fixed_s), connector=link.connector)


def quiet_transfers(run: Run) -> pd.DataFrame:
    """Those of `_alone` whose target computed nothing meanwhile: a busy engine notices an arrival late."""
    table = _alone(run.transfers)
    steps = run.steps[(run.steps["prefill_tokens"] > 0) | (run.steps["decode_seqs"] > 0)].sort_values("start_s")
    busy = np.zeros(len(table), dtype=bool)
    for worker, own in steps.groupby("worker"):
        ends = (own["start_s"] + own["duration_s"]).cummax().to_numpy(dtype=float)
        here = (table["target"] == worker).to_numpy(dtype=bool)
        begun = np.searchsorted(own["start_s"].to_numpy(dtype=float), table["end_s"].to_numpy(dtype=float))
        last = np.concatenate([[-np.inf], ends])[begun]
        busy |= here & (last > table["start_s"].to_numpy(dtype=float))
    return table[~busy]


def _alone(transfers: pd.DataFrame) -> pd.DataFrame:
    """Transfers during which no other was under way."""
    table = transfers.dropna(subset=["start_s", "end_s"]).sort_values("start_s", ignore_index=True)
    before = table["end_s"].cummax().shift(1, fill_value=-np.inf)
    after = table["start_s"].shift(-1, fill_value=np.inf)
    return table[(before <= table["start_s"]) & (after >= table["end_s"])]
