"""Tokens that leave an API server late, because it does something else when their step ends.

It is one process: while it takes in a prompt, hands out the first token of a long one or answers who reads its
/metrics, the tokens of all its sequences wait until it has done so, and the next ones follow that much closer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.run.columns import Columns, by_worker, equal
from planner.run.gaps import Gaps, of_answers

SAME_S = 1e-7  # times of one moment

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Steps:
    """Rows of one worker's steps, by time: each is `count` steps, every one `growth` longer than the one before."""

    start: Array
    duration: Array
    growth: Array
    count: Array

    @cached_property
    def end(self) -> Array:
        return self.start + self.duration

    @cached_property
    def first(self) -> Array:
        """How long each row's first step is."""
        return self.duration / self.count - self.growth * (self.count - 1) / 2

    @cached_property
    def number(self) -> Whole:
        """Of each row's first step, among all of the worker."""
        return np.asarray(np.cumsum(self.count) - self.count, dtype=np.int64)

    @property
    def total(self) -> int:
        return int(self.count.sum())

    def due(self, step: Whole) -> Array:
        """When steps of these numbers end."""
        row = np.searchsorted(self.number, step, side="right") - 1
        more = step - self.number[row]
        times: Array = self.start[row] + (more + 1) * (self.first[row] + self.growth[row] * more / 2)
        return times

    def near(self, time_s: Array) -> Whole:
        """Numbers of steps of which none that ends at these times, or later, comes before."""
        row = np.searchsorted(self.end, time_s)
        inside = row < len(self.end)
        at = np.minimum(row, len(self.end) - 1)
        passed, first, growth = np.maximum(time_s - self.start[at], 0.0), self.first[at], self.growth[at]
        head = first - growth / 2
        root = np.sqrt(head * head + 2 * growth * passed)
        steps = 2 * passed / np.maximum(head + root, SAME_S)  # of first, first + growth and so on
        place = np.clip(np.floor(steps) - 1, 0, self.count[at] - 1)
        return np.where(inside, self.number[at] + place.astype(np.int64), self.total)


def _distinct(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each once, in order. Asked for places too, numpy need not import its masked arrays, which take a start 10 ms."""
    return np.asarray(np.unique(values, return_index=True)[0], dtype=np.int64)


def reads(steps: Steps, every_s: float, seconds: float) -> Array:
    """When somebody who reads each `every_s` begins to, as far as it holds up steps: a quarter into each period."""
    lowest = np.ceil((steps.start - seconds) / every_s - 0.25)
    many = np.maximum(np.floor(steps.end / every_s - 0.25) - lowest + 1, 0).astype(np.int64)
    turns = np.repeat(lowest - np.cumsum(many) + many, many) + np.arange(many.sum())
    times: Array = np.asarray((_distinct(turns) + 0.25) * every_s, dtype=np.float64)
    return times


def late(steps: Steps, begin_s: Array, seconds: Array) -> tuple[Whole, Array]:
    """Numbers of the steps that end while the server works, and how late their tokens leave.

    It works from `begin_s` on for so many seconds. What begins together is done one after another; that other work
    that overlaps waits for each other as well is left out.
    """
    begin_s, same = np.unique(begin_s, return_inverse=True)
    free_s = np.maximum.accumulate(begin_s + np.bincount(same, weights=seconds, minlength=len(begin_s)))
    until_s = np.minimum(free_s, np.append(begin_s[1:], np.inf))  # what begins next sees to those after
    at, which, found = steps.near(begin_s), np.arange(len(begin_s)), []
    while True:
        inside = at < steps.total
        at, which = at[inside], which[inside]
        if not len(at):
            break
        due_s = steps.due(at)
        early = due_s < until_s[which]
        found.append(at[early & (due_s >= begin_s[which])])
        at, which = at[early] + 1, which[early]
    held = _distinct(np.concatenate([np.empty(0, dtype=np.int64), *found]))
    due_s = steps.due(held)
    return held, free_s[np.searchsorted(begin_s, due_s, side="right") - 1] - due_s


def gaps(steps: Columns, requests: Columns, counted: Mask, costs: Mapping[str, Any], first_by_prefill: bool) -> Gaps:
    """Of a simulated run's steps, of which those `counted` count, as clients see them; `costs` is the manifest's."""
    codes, names = by_worker(steps)
    start, duration, growth, count, seqs = (
        steps.floats(name) for name in ("start_s", "duration_s", "growth_s", "count", "decode_seqs")
    )
    seqs = np.where(counted, seqs, 0.0)
    found = []
    for code, name in enumerate(names):
        own = np.flatnonzero((codes == code) & (count > 0))
        own = own[np.argsort(start[own], kind="stable")]
        rows = Steps(start[own], duration[own], np.nan_to_num(growth[own]), count[own])
        if not seqs[own].any():
            continue
        work = [*_of_requests(rows, requests, name, costs, first_by_prefill)]
        for every_s in costs["read_every_s"]:
            times = reads(rows, every_s, costs["read_s"])
            work.append((times, np.full(len(times), costs["read_s"])))
        held, late_s = late(rows, *(np.concatenate(column) for column in zip(*work, strict=True)))
        step = _distinct(np.concatenate([held, held[held + 1 < rows.total] + 1]))
        more = np.zeros(len(step))
        more[np.searchsorted(step, held)] += late_s
        after = held + 1 < rows.total
        more[np.searchsorted(step, held[after] + 1)] -= late_s[after]
        found.append(of_answers(rows.duration, rows.growth, rows.count, seqs[own], step, more))
    nothing = Gaps(*(np.empty(0) for _ in fields(Gaps)))
    return Gaps(*(np.concatenate([getattr(one, of.name) for one in (nothing, *found)]) for of in fields(Gaps)))


def _of_requests(
    rows: Steps, requests: Columns, name: str, costs: Mapping[str, Any], first_by_prefill: bool
) -> tuple[tuple[Array, Array], ...]:
    """What an API server works on for requests, as (from when on, how long): their prompts, their first tokens."""
    prompts = requests.floats("prompt_tokens")
    moved = ~np.isnan(requests.floats("transfer_start_s"))
    here, decoded = (equal(requests.texts(column), name) for column in ("worker", "decode_worker"))
    answered = ~np.isnan(requests.floats("first_token_s"))

    queued_s, left_s = requests.floats("queued_s"), requests.floats("prefill_end_s")
    request_s, way_s = (costs[f"{of}_s"] + costs[f"{of}_per_token_s"] * prompts for of in ("request", "way"))
    sent, handed = here & ~np.isnan(queued_s), moved & decoded & ~np.isnan(left_s)  # which parses the prompt again

    ended = here & ~moved & answered & ~np.isnan(left_s)
    place = np.minimum(np.searchsorted(rows.end, left_s[ended] - SAME_S), len(rows.end) - 1)
    begun_s = requests.floats("decode_start_s")
    begun = decoded & moved & answered & ~np.isnan(begun_s) & (not first_by_prefill)  # else another hands it out alone
    places = np.concatenate([place, np.maximum(np.searchsorted(rows.start, begun_s[begun] + SAME_S) - 1, 0)])
    first = np.concatenate([prompts[ended], prompts[begun]]) * costs["first_token_per_token_s"]
    return (
        ((queued_s - request_s)[sent], request_s[sent]),
        ((left_s + way_s - request_s)[handed], request_s[handed]),
        (rows.end[places] - SAME_S, first + SAME_S),
    )
