"""Measured runs -> rows to fit: from an engine's own step records, or from token times at the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.calibration.chunks import single_tokens
from planner.calibration.fitting import POSTS, SLOWED, WARMED, FitError, decode_seconds, observations
from planner.calibration.launches import LONGER, LaunchFit, seen_ends
from planner.engine.law import Steps, columns
from planner.engine.step_time import graph_size

SAME_STEP_S = 0.0015  # tokens of one step reach the client within this time
LOOP_S = 0.005  # a longer pause between two steps is idling, not the loop's own work
LONGEST_LAUNCH_S = 0.1  # launching the kernels of two steps takes less, whatever else the host does
CLEARLY_POSTED = 1.3  # posting so many usual steps is felt
CLEARLY = 2.5  # a wait of so many launches was for the GPU
OUTLASTS = 1.5  # a step that takes so many of its launches was the GPU's: hosts are at times 1.4 times as slow
OVERLAP_S = 1e-5  # time stamps are rounded to microseconds
SMOOTH = 2.0  # a gap above so many medians hides something else than one decode step


def from_steps(
    steps: pd.DataFrame,
    sizes: Sequence[int],
    *,
    synchronous: bool = False,
    launches: LaunchFit | None = None,
    given: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rows from the steps table of a run (`planner.run.tables.STEP_COLUMNS`), one a step or a run of equal steps.

    The optional column `stretch` says how many times as long a step took as it would have with the host to itself. The
    optional column `prefill_pairs` holds the sum of n * (p + n / 2) over the step's prompt chunks. Without it each
    step's prompt tokens are taken as one whole prompt, which is what `calibrate` sends. Idle steps are dropped.
    A step that another follows at once lasts until that one starts: what the engine's loop does between them counts.
    With asynchronous scheduling steps overlap: the results of a step are taken in once the next one is launched, which
    takes longer than a short step runs when that next one holds a prompt, so that the times of both, and of the step
    after, say little by themselves. Such steps make one row: their sum is right. With `launches` it is known which
    ends of steps were seen when they came, and rows in which a launch may have kept the GPU waiting are left out.
    The optional column `posts` says how many descriptors of KV transfers the worker posted before it launched a step.
    Where that took longer than the step before, both make one row: the GPU waits, and then runs the second one.
    `given` are the law's shapes that features need.
    """
    ordered = steps.sort_values(["worker", "start_s"], ignore_index=True)
    ends = seen_ends(ordered)
    next_start = ordered.groupby("worker")["start_s"].shift(-1)
    gap = next_start - ends
    follows = (gap > 0) & (gap <= np.minimum(ordered["duration_s"], LOOP_S))
    ordered["duration_s"] += gap.where(follows, 0.0)
    used = ordered[(ordered["prefill_tokens"] > 0) | (ordered["decode_seqs"] > 0)]
    tokens = used["prefill_tokens"].to_numpy(dtype=float)
    seqs = used["decode_seqs"].to_numpy(dtype=float)
    count = used["count"].to_numpy(dtype=float) if "count" in used else np.ones(len(used))
    context = used["context_tokens"].to_numpy(dtype=float) + seqs * (count - 1) / 2
    pairs = used["prefill_pairs"].to_numpy(dtype=float) if "prefill_pairs" in used else tokens**2 / 2
    if "chunks" in used:
        ones, had = single_tokens(used["chunks"])
        tokens, seqs, context, pairs = tokens - ones, seqs + ones, context + had, pairs - had - ones / 2
    stretch = used["stretch"].to_numpy(dtype=float) if "stretch" in used else 1.0
    has_prompt = tokens > 0
    pads = np.array([graph_size(int(n), sizes) for n in seqs], dtype=float)
    prompts = has_prompt.astype(float)
    pairs, eager = np.where(has_prompt, pairs, 0.0), _eager(tokens + seqs, sizes)
    features = columns(Steps(prompts, tokens, pairs, seqs, pads, context, eager), given or {})
    kinds = np.where(~has_prompt, "decode", np.where(seqs > 0, "mixed", "prefill"))
    rows = observations(
        {
            "kind": kinds,
            "seconds": used["duration_s"].to_numpy(dtype=float) / count / stretch,
            "decode_seqs": seqs * ~has_prompt,
            "sync": np.full(len(used), float(synchronous)),
            **_warmed(used, features),
            **{name: used[name] * used["duration_s"] for name in ("sending", "warmth") if name in used},
            **features,
        }
    )
    early = (gap < -OVERLAP_S)[used.index].to_numpy()  # the next step of the worker is scheduled before this one ends
    if launches is None:
        return _joined(rows, early)
    waited = (ends - next_start)[used.index].to_numpy()
    taken = ends[used.index] - used["start_s"].to_numpy(dtype=float)
    launch = launches.seconds(tokens, seqs)
    prefill_only = pd.Series(has_prompt).groupby(used["worker"].to_numpy()).transform("all").to_numpy(dtype=bool)
    if "posting" in used:
        carried = {name: used[name].to_numpy() for name in POSTS}
        rows, last = _posted(rows.assign(**carried), used["worker"].to_numpy(), early, waited)
        early, waited, taken = early[last], waited[last], taken[last]
        launch, prefill_only = launch[last], prefill_only[last]
    return _launched(rows, early, waited, taken, launch, prefill_only, launches)


def _eager(rows: Any, sizes: Sequence[int]) -> Any:
    """1 where steps of so many tokens and sequences are more than the largest CUDA graph holds, else 0."""
    return 1.0 * (rows > (sizes[-1] if sizes else 0))


def _warmed(used: pd.DataFrame, features: Mapping[str, Any]) -> dict[str, object]:
    """What a warm GPU makes longer, times how warm it was."""
    if "warmth" not in used:
        return {}
    warmth = used["warmth"].to_numpy(dtype=float)
    return {column: warmth * features[SLOWED[name].column] for column, name in WARMED.items()}


def _posted(
    rows: pd.DataFrame, worker: NDArray[np.object_], early: NDArray[np.bool_], waited: NDArray[np.float64]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Each step before which posting was felt takes in the one before it, whose end nobody saw when it came.

    That step counts for nothing: the GPU ran it while the host posted. Also returned: which steps' rows are left.
    Posts that hid behind the step before count for nothing either.
    """
    usual = rows["seconds"].groupby(worker).transform("median").to_numpy(dtype=float)
    before = np.concatenate([[0.0], np.where(early, waited, 0.0)[:-1]])
    felt = (rows["posting"].to_numpy() > 0) & (rows["mixed_steps"].to_numpy() == 0) & (before > CLEARLY_POSTED * usual)
    group = np.cumsum(~felt)
    last = np.concatenate([group[1:] != group[:-1], [True]])
    counts = rows[list(POSTS)].mul(felt, axis=0).groupby(group).sum().set_axis(rows.index[last])
    joined = rows[last].assign(
        seconds=rows["seconds"].groupby(group).sum().to_numpy(),
        **{name: counts[name] for name in POSTS},
        kind=np.where(counts["posting"] > 0, "posting", rows["kind"][last]),
    )
    return joined.reset_index(drop=True), last


def _launched(
    rows: pd.DataFrame,
    early: NDArray[np.bool_],
    waited: NDArray[np.float64],
    taken: NDArray[np.float64],
    launch: NDArray[np.float64],
    prefill_only: NDArray[np.bool_],
    launches: LaunchFit,
) -> pd.DataFrame:
    """Steps between two ends that were seen when they came make one row; without those that a launch may have held up.

    `waited`: from deciding the next step to seeing the end of this one. An end that was seen then was seen by an engine
    that had launched the next step already, so that the GPU had no pause. `taken`: from deciding a step to seeing its
    own end. A step with prompts for which that is hardly longer than its launch may have ended with it instead of with
    its work; nobody knows where launches are not `told`. Small prompts beside decodes are known by their sum with the
    decode steps around them, and several steps with prompts before an end was seen by their mean.
    """
    prompt = rows["mixed_steps"].to_numpy() > 0
    seen = (~prompt[:-1] & ~prompt[1:]) | (waited[:-1] > CLEARLY * launch[1:])
    idle = np.concatenate([[True], ~early[:-1]])
    lone = idle & prompt & ~early & prefill_only
    rows = rows.assign(seconds=rows["seconds"] - np.where(idle & prompt & (early | prefill_only), launches.head_s, 0.0))
    group = np.concatenate([[0], np.cumsum(~early[:-1] | seen)])
    unseen = np.concatenate([prompt[:-1] & early[:-1] & ~seen, [False]])
    hidden = unseen & (idle | prefill_only | (taken < OUTLASTS * launch) | (not launches.told))
    hidden |= lone & (rows["seconds"].to_numpy() < LONGER * launch)
    numbers = [name for name in rows if name != "kind"]
    sums = rows.groupby(group)[numbers].sum()
    means = sums.div(np.maximum(sums["mixed_steps"], 1.0), axis=0)
    joined = means.assign(decode_seqs=_mean_batch(sums)["decode_seqs"])
    joined.insert(
        0, "kind", rows["kind"].where(prompt).groupby(group).first().fillna(rows["kind"].groupby(group).last())
    )
    doubtful = pd.Series(hidden).groupby(group).any().to_numpy()
    return joined[~doubtful & (joined["seconds"] > 0)].reset_index(drop=True)


def _joined(rows: pd.DataFrame, early: NDArray[np.bool_]) -> pd.DataFrame:
    """Overlapping steps whose borders were not seen make one row; those that then hold several prompt steps go.

    A border was seen where the engine waited for results: between two decode steps, and after a step that is longer
    than any launch. Around other prompt steps it was launching kernels when the results came.
    """
    if not early.any():
        return rows
    prompt = rows["mixed_steps"].to_numpy() > 0
    seen = (~prompt[:-1] & ~prompt[1:]) | (rows["seconds"].to_numpy()[:-1] > LONGEST_LAUNCH_S)
    group = np.concatenate([[0], np.cumsum(~early[:-1] | seen)])
    numbers = [name for name in rows if name != "kind"]
    joined = _mean_batch(rows.groupby(group)[numbers].sum())
    with_prompt = rows["kind"].where(prompt).groupby(group).first()
    joined.insert(0, "kind", with_prompt.fillna("decode"))
    return joined[joined["mixed_steps"] <= 1].reset_index(drop=True)


def _mean_batch(joined: pd.DataFrame) -> pd.DataFrame:
    return joined.assign(decode_seqs=joined["decode_seqs"] / np.maximum(joined["decode_steps"], 1.0))


def company(steps: pd.DataFrame) -> NDArray[np.float64]:
    """Share of each step's time in which an engine other than its own was in a step too; 0 for a lone engine."""
    start = steps["start_s"].to_numpy(dtype=float)
    end = start + steps["duration_s"].to_numpy(dtype=float)
    shared = np.zeros(len(steps))
    for worker in steps["worker"].unique():
        own = (steps["worker"] == worker).to_numpy(dtype=bool)
        order = np.argsort(start[own], kind="stable")
        edges = np.maximum.accumulate(np.column_stack([start[own][order], end[own][order]]).ravel())
        busy = np.concatenate([[0.0], np.cumsum(np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0))])
        found = (np.interp(end, edges, busy) - np.interp(start, edges, busy)) / (end - start)
        shared = np.where(own, shared, np.maximum(shared, found))
    return np.minimum(shared, 1.0)


@dataclass(frozen=True, slots=True)
class Emission:
    """Tokens that one engine step produced, as the client saw them."""

    time_s: float
    members: tuple[tuple[int, int], ...]  # (request id, token index)

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(request for request, _ in self.members)

    @property
    def first(self) -> list[int]:
        """Requests whose first token this is."""
        return [request for request, index in self.members if index == 0]


def emissions(tokens: pd.DataFrame) -> list[Emission]:
    """Token arrivals grouped into steps: close in time, and no request twice."""
    found: list[Emission] = []
    current: list[tuple[float, int, int]] = []
    ordered = tokens.sort_values(["time_s", "request_id", "index"])
    rows = zip(ordered["time_s"].tolist(), ordered["request_id"].tolist(), ordered["index"].tolist(), strict=True)
    for time_s, request, index in rows:
        if current and (time_s - current[-1][0] > SAME_STEP_S or any(request == other for _, other, _ in current)):
            found.append(Emission(current[0][0], tuple((other, n) for _, other, n in current)))
            current = []
        current.append((time_s, request, index))
    if current:
        found.append(Emission(current[0][0], tuple((other, n) for _, other, n in current)))
    return found


def from_tokens(
    requests: pd.DataFrame, tokens: pd.DataFrame, sizes: Sequence[int], given: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Rows from what a client of an asynchronously scheduled server saw, prefix caching off.

    Only unambiguous stretches count. A gap between two emissions of one unchanged batch is a decode step. The output of
    the decode step before a prompt comes late, because the engine first launches the prompt's kernels; so a prompt is
    seen as the span of that decode step and the prompt's own, from the emission before both, when exactly one prompt
    waited and everything else was steady. Extra columns: `request_id` (-1 for decode rows).
    `given`: as in `from_steps`.
    """
    shapes = given or {}

    def decodes(seqs: int, context: float) -> dict[str, float]:
        step = Steps(0.0, seqs=float(seqs), padded=float(graph_size(seqs, sizes)), context=context)
        return {"decode_seqs": float(seqs), **columns(step, shapes)}

    steps = emissions(tokens)
    prompt = dict(zip(requests["request_id"].tolist(), requests["prompt_tokens"].tolist(), strict=True))
    sent = dict(zip(requests["request_id"].tolist(), requests["arrival_s"].tolist(), strict=True))
    first_token = {request: step.time_s for step in steps for request in step.first}
    gaps = np.diff([step.time_s for step in steps])
    usual = SMOOTH * float(np.median(gaps)) if len(gaps) else 0.0
    rows: list[dict[str, float | str]] = []
    for j in range(3, len(steps) - 1):
        before, here = steps[j - 3 : j], steps[j]
        context = float(sum(prompt[request] + index for request, index in here.members if index))
        if not here.first and before[1].ids == before[2].ids == here.ids == steps[j + 1].ids:
            around = gaps[j - 2 : j + 1]  # 0: two steps' tokens came in one piece, and tell nothing of either
            if not any(step.first for step in (*before[1:], steps[j + 1])) and min(around) > 0 and max(around) < usual:
                row: dict[str, float | str] = {
                    "kind": "served decode",
                    "seconds": float(gaps[j - 1]),
                    "request_id": -1.0,
                }
                rows.append({**row, **decodes(len(here.ids), context)})
        elif len(here.first) == 1 and not any(step.first for step in before) and gaps[j - 3] < usual:
            request, others = here.first[0], here.ids - set(here.first)
            waiting = [r for r, s in sent.items() if s < here.time_s and first_token.get(r, np.inf) >= here.time_s]
            late = [r for r in waiting if r != request and sent[r] < before[1].time_s + usual]
            if late or before[2].ids != others or before[1].ids != others or not gaps[j - 1]:
                continue
            new, count = prompt[request], len(others)
            row = {"kind": "served prompt", "seconds": here.time_s - before[1].time_s, "request_id": request}
            first = decodes(count, context - count)
            own = Steps(1.0, new, new * new / 2, count, count, context, _eager(new + count, sizes))
            both = {name: first[name] + value for name, value in columns(own, shapes).items()}
            rows.append({**row, **first, **both})
    if not rows:
        raise FitError("the token times hold no stretch of steady steps; allowed: streamed answers of many tokens")
    table = pd.DataFrame(rows)
    found = observations({str(name): table[name] for name in table})
    return found.assign(request_id=table["request_id"].astype("int64"))


def host_samples(
    requests: pd.DataFrame, rows: pd.DataFrame, values: Mapping[str, float]
) -> tuple[list[float], list[float]]:
    """(prompt tokens, host seconds) of the prompts of `from_tokens` under a law's `values`.

    A prompt that arrives while only decodes run waits for the rest of the running step (half a step on average) and for
    the one that asynchronous scheduling has queued already; what remains of its TTFT besides its own step is host time.
    """
    prompts = rows[rows["kind"] == "served prompt"].set_index("request_id")
    known = requests.set_index("request_id").loc[prompts.index]
    decode = decode_seconds(values, prompts)
    host = known["first_token_s"] - known["arrival_s"] - (prompts["seconds"] - decode) - 1.5 * decode
    return prompts["prefill_tokens"].tolist(), host.tolist()
