"""What handing a request over costs a pair, beside its steps: posts, the wire, the way between workers, slower prompts.

With pull the decode worker posts, inside the launch of a step: it decides that step, posts, launches, and only then
takes in the results of the step before. Steps whose start is that of transfers carry their posts: what they and the
step before took, less what the GPU computed in the later one, is how long that was. With push a thread of the prefill
worker posts, and no step shows it: posting is then what transfers take beside the bytes at the bandwidth of the wire
that the spec names. Posts of pull take longer while the GPU that is read from computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from planner.calibration.chunks import single_tokens
from planner.calibration.cost_fits import robust_line
from planner.calibration.fitting import ROBUST_FROM, Array, Fitted, covariance_of, digits, predict
from planner.calibration.launches import LaunchFit, seen_ends
from planner.engine.profile_file import HandOverLaw, WireLaw
from planner.engine.warmth import after, fallen, heat, mean
from planner.run.tables import Run
from planner.spec import Link
from planner.system.hand_over import AFTER_S, ALONE, LOOKS, SEEN_S, SPLIT, move_work, post_work
from planner.system.resolve import System

SAME_S = 1e-5  # a step and the transfers that it posts have one start
LEAST = 5  # posts, ways or prompts of each kind that a fit takes
FEW = 2  # prompts or bursts that a transfer was under way beside, at least
FEW_PIECES = 0.05  # of the descriptors of a row: those of the other kind do not count
WHOLE = 1000  # descriptors of a transfer from which what each transfer takes besides does not count
LEAST_PROMPTS, UNLIKE = 10, 0.2  # prompts, and what their warmth differs by, that tell what it does
USUALLY = 0.04  # what GPUs of one kind differ by in that: their loads say 1.17 to 1.2
CLEARLY, LEAST_SLOWER = 3.0, 0.02  # standard errors from nothing, and how far
QUIET, UNDER_WAY = 0.05, 0.5  # share of a prompt's step in which KV was read from its GPU


@dataclass(frozen=True)
class PostCost:
    """Seconds a descriptor and their standard error, from so many steps; times as long `beside` steps of the source."""

    post_s: float
    error_s: float
    steps: int
    beside: float = 1.0
    beside_error: float = 0.0
    alone: float = ALONE
    alone_error: float = 0.0

    def seconds(self, posts: Any, beside: Any, few: Any = 0.0) -> Any:
        """Of so many descriptors, `beside` of them while the GPU that they name computed, and `few` by one thread."""
        return self.post_s * (posts + self.alone * few + (self.beside - 1.0) * beside)


def descriptors_a_byte(system: System) -> float:
    """Of the transfers as the engine cuts them: one for K and V of every layer of a block, or one a block."""
    return system.block_descriptors / (system.kv_bytes_per_token * system.pools[-1].limits.block_size)


def post_work_of(pieces: Array, others: Array) -> Array:
    """planner.system.hand_over.post_work of many transfers."""
    return np.array([post_work(each, bool(there)) for each, there in zip(pieces, others, strict=True)])


def behind(sent: pd.DataFrame) -> Array:
    """Whether another transfer, in the table's order by start, has begun and has not ended as each begins."""
    begins, ends = (sent[name].to_numpy(dtype=float) for name in ("start_s", "end_s"))
    order = np.argsort(begins, kind="stable")
    latest = np.concatenate([[-np.inf], np.maximum.accumulate(ends[order])[:-1]])
    found = np.zeros(len(sent), dtype=bool)
    found[order] = latest > begins[order]
    return found


def with_hand_overs(run: Run, system: System) -> Run:
    """The run with what its transfers did to its steps, as columns.

    `posts`: what the step's launch posts, in descriptors of a large transfer; `few`: descriptors of small ones;
    `posting`: 1 if any; `beside`: of `posts`, posted while
    the worker that is read from was in a step; `sending`: share of the step's time in which KV was read from its
    worker's GPU.
    """
    steps, sent = run.steps, run.transfers.dropna(subset=["start_s", "end_s"])
    if system.wires is None or sent.empty or steps.empty:
        return run
    posts, few, count, beside, sending = (np.zeros(len(steps)) for _ in range(5))
    starts = steps["start_s"].to_numpy(dtype=float)
    spans = worked(steps)
    for worker, rows in steps.reset_index(drop=True).groupby("worker"):
        order = rows["start_s"].sort_values(kind="stable").index.to_numpy()
        begins, ends = spans[str(worker)]
        read = sent[sent["source"] == worker]
        if len(read):
            sending[order] = covered(begins, ends, read["start_s"].to_numpy(float), read["end_s"].to_numpy(float))
        taken = sent[sent["target"] == worker]
        if system.wires.hand_over.push or taken.empty:
            continue
        begun = taken["start_s"].to_numpy(dtype=float)
        place = np.minimum(np.searchsorted(starts[order], begun - SAME_S), len(order) - 1)
        known = np.abs(starts[order][place] - begun) <= SAME_S
        pieces = taken["bytes"].to_numpy(dtype=float) * descriptors_a_byte(system)
        many = pieces >= SPLIT
        size = np.where(many, post_work_of(pieces, behind(taken)), 0.0)
        np.add.at(posts, order[place[known]], size[known])
        np.add.at(few, order[place[known]], np.where(many, 0.0, pieces)[known])
        np.add.at(count, order[place[known]], 1.0)
        until = np.minimum(ends, np.concatenate([starts[order][1:], [np.inf]]))[place]  # the next one is decided then
        for source in set(taken["source"]) & set(spans):
            here = known & (taken["source"] == source).to_numpy()
            share = covered(starts[order][place[here]], until[here], *spans[str(source)])
            np.add.at(beside, order[place[here]], share * size[here])
    return replace(
        run, steps=steps.assign(posts=posts, few=few, posting=1.0 * (count > 0), beside=beside, sending=sending)
    )


def worked(steps: pd.DataFrame) -> dict[str, tuple[Array, Array]]:
    """When the steps of each worker begin and end, in order, none before the one before it has ended."""
    spans = {}
    for worker, rows in steps.groupby("worker"):
        ordered = rows.sort_values("start_s", kind="stable", ignore_index=True)
        ends = seen_ends(ordered)
        begins = np.maximum(ordered["start_s"].to_numpy(dtype=float), np.concatenate([[-np.inf], ends[:-1]]))
        spans[str(worker)] = (begins, ends)
    return spans


def with_warmth(run: Run) -> Run:
    """The run with how warm its GPU was in each step with prompts, as the column `warmth` (planner.engine.warmth)."""
    steps = run.steps.reset_index(drop=True)
    if steps.empty:
        return run
    ones = single_tokens(steps["chunks"])[0] if "chunks" in steps else 0.0
    tokens = steps["prefill_tokens"].to_numpy(dtype=float) - ones
    found, spans = np.zeros(len(steps)), worked(steps)
    for worker, rows in steps.groupby("worker"):
        order = rows["start_s"].sort_values(kind="stable").index.to_numpy()
        value, ended = 0.0, -np.inf
        for place, begin, end in zip(order, *spans[str(worker)], strict=True):
            if tokens[place] > 0:
                before, seconds = fallen(value, max(begin - ended, 0.0)), max(end - begin, 0.0)
                share = heat(tokens[place])
                found[place], value, ended = share * mean(before, seconds), after(before, seconds, share), end
    return replace(run, steps=steps.assign(warmth=found))


def fit_posts(rows: pd.DataFrame, fitted: Fitted, launches: LaunchFit | None) -> PostCost | None:
    """From steps that the GPU waited to begin; None where too few of them show it. `fitted` is the law of steps."""
    seen = rows[(rows["posts"] > 0) & (rows["few"] < FEW_PIECES * rows["posts"])]
    if len(seen) < LEAST:
        return None
    cost = _many(seen, fitted, launches)
    others = rows[(rows["few"] > 0) & (rows["posts"] < FEW_PIECES * rows["few"])]
    if len(others) < FEW or not cost.post_s:
        return cost
    root = np.sqrt(others["few"].to_numpy(dtype=float))
    left = others["seconds"].to_numpy(dtype=float) - predict(fitted.values, others.assign(known_s=0.0))
    left = left - heads_s(others, launches) - cost.seconds(others["posts"], 0.0)
    found, errors = robust_line(root[:, None], left / root)
    if found[0] <= cost.post_s:
        return cost
    return replace(cost, alone=found[0] / cost.post_s, alone_error=errors[0] / cost.post_s)


def _many(seen: pd.DataFrame, fitted: Fitted, launches: LaunchFit | None) -> PostCost:
    seconds, counts, beside = (seen[name].to_numpy(dtype=float) for name in ("seconds", "posts", "beside"))
    left = seconds - predict(fitted.values, seen.assign(known_s=0.0)) - heads_s(seen, launches)
    root = np.sqrt(counts)  # what a post is off by adds up over its descriptors
    share = beside / counts
    if min((share < QUIET).sum(), (share > UNDER_WAY).sum()) < FEW:
        found, errors = robust_line(root[:, None], left / root)
        return PostCost(max(found[0], 0.0), errors[0], len(seen))
    found, errors = robust_line(np.column_stack([counts, beside]) / root[:, None], left / root)
    post_s = max(found[0], 0.0)
    if not post_s or found[1] <= 0.0:
        return PostCost(post_s, errors[0], len(seen))
    return PostCost(post_s, errors[0], len(seen), 1.0 + found[1] / post_s, errors[1] / post_s)


def heads_s(rows: pd.DataFrame, launches: LaunchFit | None) -> Array:
    """What the launches of the steps that post take beside the posts until the GPU begins."""
    count = rows["posting"].to_numpy(dtype=float)
    if launches is None:
        return 0.0 * count
    decodes = rows["decode_seqs"].to_numpy(dtype=float) / np.maximum(rows["decode_steps"].to_numpy(dtype=float), 1.0)
    return count * np.maximum(launches.seconds(0.0 * count, decodes) - AFTER_S, 0.0)


def fit_logs(design: Array, seconds: Array, known_s: Array) -> tuple[Array, Array]:
    """Values >= 0 and standard errors of design @ x + known_s = seconds; noise multiplies, so logarithms are fitted."""
    scale = np.maximum(np.linalg.norm(design, axis=0) / np.sqrt(len(seconds)), 1e-12)
    unit = np.median(seconds) / scale
    start, noise = np.full(design.shape[1], 0.5), 0.2
    for _ in range(4):
        width = noise * ROBUST_FROM
        found = least_squares(
            lambda x, width=width: (np.log(design @ (x * unit) + known_s) - np.log(seconds)) / width,
            start, bounds=(1e-9, np.inf), loss="soft_l1",
        )  # fmt: skip
        start = found.x
        total = design @ (start * unit) + known_s
        wrong = np.log(total) - np.log(seconds)
        used, noise = noise, max(1.4826 * float(np.median(np.abs(wrong))), 1e-6)
    covariance = covariance_of(design * unit / total[:, None] / used, wrong / used)
    return start * unit, np.sqrt(np.diag(covariance)) * unit


def fit_way(runs: Sequence[Run]) -> tuple[Array, Array] | None:
    """Seconds between the workers, fixed and a prompt token, and their standard errors. From lonely requests."""
    tables = []
    for run in runs:
        done = run.requests[run.requests["finish_reason"].isin(["stop", "length"])].sort_values("arrival_s")
        before = done["finish_s"].cummax().shift(1, fill_value=-np.inf)
        alone = (before <= done["arrival_s"]) & (
            done["arrival_s"].shift(-1, fill_value=np.inf) >= done["first_token_s"]
        )
        tables.append(done[alone & (done["worker"] != done["decode_worker"])])
    table = pd.concat(tables, ignore_index=True).dropna(subset=["transfer_start_s", "prefill_end_s"])
    seconds = (table["transfer_start_s"] - table["prefill_end_s"]).to_numpy(dtype=float)
    prompts = table["prompt_tokens"].to_numpy(dtype=float)
    seen = seconds > 0
    if seen.sum() < LEAST or len(np.unique(prompts[seen])) < 3:
        return None
    design = np.column_stack([np.ones(seen.sum()), prompts[seen]])
    return fit_logs(design, seconds[seen], np.zeros(seen.sum()))


def slowed_prompts(rows: pd.DataFrame, largest: int, fitted: Fitted) -> float | None:
    """How many times as long prompts compute while KV is read from their GPU; None: too few show it.

    `rows` as they were measured, of steps whose borders were seen: a prompt that was launched while the one before it
    ran shows the sum of both.
    """
    prompts = rows[(rows["kind"] == "prefill") & (rows["prefill_tokens"] > largest)]
    seconds = prompts["seconds"].to_numpy(dtype=float)
    share = np.minimum(prompts["sending"].to_numpy(dtype=float) / seconds, 1.0)
    if min((share < QUIET).sum(), (share > UNDER_WAY).sum()) < FEW:
        return None
    found, _ = robust_line(np.column_stack([np.ones_like(share), share]), seconds / predict(fitted.values, prompts))
    return max(1.0, 1.0 + found[1] / found[0])


def fit_warm(rows: pd.DataFrame, largest: int, usual: float) -> float | None:
    """How many times as long prompts take on a warm GPU; None: it is not seen. `rows` as for `slowed_prompts`.

    Longer prompts are warmer at their end, so that the law of rested ones is fitted along. Aggregated engines, whose
    GPUs decode between prompts, do not show it. What rows say is held to what is `usual` of the GPU.
    """
    prompts = rows[(rows["kind"] == "prefill") & (rows["prefill_tokens"] > largest)]
    seconds = prompts["seconds"].to_numpy(dtype=float)
    warmth = np.minimum(prompts["warmth"].to_numpy(dtype=float) / seconds, 1.0)
    if len(prompts) < LEAST_PROMPTS or np.ptp(warmth) < UNLIKE:
        return None
    design = np.column_stack([np.ones(len(prompts)), prompts["prefill_tokens"], prompts["prefill_pairs"]])
    design = design / np.linalg.norm(design, axis=0)
    start = np.append(np.maximum(np.linalg.lstsq(design, seconds, rcond=None)[0], 1e-9), usual - 1.0)
    width = 0.02 * ROBUST_FROM
    for _ in range(4):
        found = least_squares(
            lambda x, width=width: (np.log(design @ x[:3] * (1.0 + x[3] * warmth)) - np.log(seconds)) / width,
            start, bounds=([1e-12, 1e-12, 1e-12, 0.0], np.inf), loss="soft_l1", x_scale="jac",
        )  # fmt: skip
        start, used = found.x, width
        width = max(1.4826 * ROBUST_FROM * used * float(np.median(np.abs(found.fun))), 1e-4)
    rested, slower = design @ start[:3], 1.0 + start[3] * warmth
    slopes = np.column_stack([design / rested[:, None], warmth / slower]) * ROBUST_FROM / used
    error = float(np.sqrt(covariance_of(slopes, found.fun * ROBUST_FROM)[3, 3]))
    if start[3] < max(CLEARLY * error, LEAST_SLOWER):
        return None
    weights = np.array([error, USUALLY]) ** -2.0
    return 1.0 + float(weights @ [start[3], usual - 1.0] / weights.sum())


def covered(begins: Array, ends: Array, starts: Array, stops: Array) -> Array:
    """Share of each span from `begins` to `ends` in which at least one of those from `starts` to `stops` was open."""
    order = np.argsort(starts, kind="stable")
    edges = (
        np.maximum.accumulate(np.column_stack([starts[order], stops[order]]).ravel()) if len(starts) else np.zeros(2)
    )
    open_s = np.concatenate([[0.0], np.cumsum(np.diff(edges) * (np.arange(len(edges) - 1) % 2 == 0))])
    return np.asarray((np.interp(ends, edges, open_s) - np.interp(begins, edges, open_s)) / (ends - begins))


def bursts(run: Run, system: System) -> pd.DataFrame:
    """Transfers that overlap as one row: `start_s`, `end_s`, `bytes`, `posts`, `least` descriptors of one of them, and
    `busy`, the seconds in which the worker that they read from computed.

    A transfer that is larger than all before it goes: what a connector has of requests grows then, and it takes twice
    as long.
    """
    sent = run.transfers.dropna(subset=["start_s", "end_s"]).sort_values("start_s", ignore_index=True)
    larger = sent["bytes"] > sent["bytes"].cummax().shift(1, fill_value=0)
    burst = (sent["start_s"] >= sent["end_s"].cummax().shift(1, fill_value=-np.inf)).cumsum()
    sent = sent.assign(burst=burst, posts=sent["bytes"] * descriptors_a_byte(system))
    sent = sent[~burst.isin(burst[larger])]
    how = {"start_s": ("start_s", "min"), "end_s": ("end_s", "max"), "bytes": ("bytes", "sum")}
    table = sent.groupby("burst").agg(
        **how, posts=("posts", "sum"), least=("posts", "min"), count=("posts", "size"), source=("source", "first")
    )
    busy = np.zeros(len(table))
    for worker, (begins, ends) in worked(run.steps).items():
        start, end = table["start_s"].to_numpy(dtype=float), table["end_s"].to_numpy(dtype=float)
        here = (table["source"] == worker).to_numpy()
        busy[here] = (covered(start, end, begins, ends) * (end - start))[here]
    return table.assign(busy=busy).reset_index(drop=True)


def fit_wire(
    system: System, runs: Sequence[Run], cost: PostCost | None, notes: list[str]
) -> tuple[WireLaw, PostCost, float] | None:
    """The wire, the posts, and seconds until an idle engine sees that all is there.

    With push a transfer is seen to be over once the worker that writes has launched a step: of those beside its steps
    nobody knows when they were.

    With one block size bytes grow with descriptors, so that one of the two must be known: posts (from steps, with
    pull), or the bandwidth. None where too few transfers show it.
    """
    assert system.wires is not None
    table = pd.concat([bursts(run, system) for run in runs if len(run.transfers)], ignore_index=True)
    lone = not system.wires.hand_over.push  # steps tell of the posts: what a lone transfer takes beside them is wanted
    table = table[(table["least"] >= WHOLE) & ((table["count"] == 1) | (not lone))]
    table = table if lone else table[table["busy"] < QUIET * (table["end_s"] - table["start_s"])]
    if len(table) < LEAST or table["bytes"].nunique() < 3:
        notes.append(f"no link was fitted: {len(table)} transfers of {table['bytes'].nunique()} sizes show it")
        return None
    seconds = (table["end_s"] - table["start_s"]).to_numpy(dtype=float)
    size, posts, busy = (table[name].to_numpy(dtype=float) for name in ("bytes", "posts", "busy"))
    connector = getattr(system.spec.deployment, "link", Link()).connector
    wire, ones = system.wires.intra_node, np.ones_like(size)
    if system.wires.hand_over.push:
        found, errors = fit_logs(np.column_stack([ones, posts]), seconds, SEEN_S + size / wire.bandwidth)
        notes.append(f"posting and bytes are not told apart: bandwidth is that of {wire.name}")
        cost, bandwidth = PostCost(float(found[1]), float(errors[1]), len(seconds)), wire.bandwidth
    else:
        cost = cost or PostCost(0.0, 0.0, 0)  # no step waited: few descriptors, or quick ones
        posts = np.maximum([move_work(each) for each in posts], post_work_of(posts, np.zeros(len(posts))))
        posted = SEEN_S + cost.seconds(posts, posts * np.minimum(busy / seconds, 1.0))
        found, errors = fit_logs(np.column_stack([ones, size]), seconds, posted)
        bandwidth = 1.0 / max(found[1], 1.0 / wire.bandwidth)
    law = WireLaw(bandwidth_gb_s=digits(1e-9 * bandwidth), connector=connector)
    return law, cost, float(found[0]) / (LOOKS if system.wires.hand_over.push else 1.0)


def hand_over_of(
    system: System, runs: Sequence[Run], cost: PostCost | None, slowing: float | None, notes: list[str]
) -> tuple[WireLaw, HandOverLaw] | None:
    """What a pair of GPUs shows of its hand-overs; None where its transfers do not."""
    found = fit_wire(system, runs, cost, notes)
    if found is None:
        return None
    wire, posts, look_s = found
    values = {"post_s": posts.post_s}
    errors = {"post_s": posts.error_s}
    if posts.beside_error:
        errors["pull_beside"] = posts.beside_error
    if posts.alone_error:
        values["alone"], errors["alone"] = posts.alone, posts.alone_error
    way = fit_way(runs)
    if way is None:
        notes.append("the way between the workers was not seen: too few lonely requests")
    else:
        for name, value, error in zip(("way_s", "way_per_token_s"), *way, strict=True):
            values[name], errors[name] = float(value), float(error)
    assert system.wires is not None
    known = system.wires.hand_over  # of the link that the spec names, where the rounds show nothing
    if slowing is None:
        notes.append(
            f"how a transfer slows the prompts of its GPU was not seen: {known.slowing:g} times, as the link says"
        )
    prices: dict[str, Any] = {name: digits(value) for name, value in values.items()}
    law = HandOverLaw(
        connector=wire.connector,
        slowing=digits(slowing or known.slowing),
        pull_beside=digits(posts.beside if posts.beside_error else known.pull_beside),
        idle_look_s=digits(look_s),
        block_size=system.pools[-1].limits.block_size,
        piece_bytes=round(system.piece_bytes) or None,
        tp=system.pools[-1].setup.tp,
        errors={name: digits(value) for name, value in errors.items()},
        **prices,
    )
    return wire, law
