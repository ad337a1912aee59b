"""Sessions as if they had come for ever: whose answers are under way when a run begins, and what is cached.

As many answers are under way as the closed form says; who they are, and how far, is drawn in proportion to their
lengths. Later turns come as often as ever from the first second on; those who are there take them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate, count
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from planner.spec import Sessions
from planner.traffic.loads import Chained, Underway
from planner.traffic.random_streams import stream
from planner.traffic.requests import Arrival, Memory, Request
from planner.traffic.workload import DrawnSessions

BEGINS, COMES, ANSWERED, ENDED = PARTS = range(4)  # what a session does, or did when the run began
FIRST = 1024  # sessions that are drawn at first
GOLDEN = (math.sqrt(5) - 1) / 2
BLOCK = 256  # that are met at a time
FEW = 4  # sessions of unequal length, of which one is met


@dataclass(frozen=True, slots=True)
class Start:
    """How a run of traffic that has long gone on begins."""

    entering_s: float  # so long sessions come in that began before
    token_s: float  # that answers took which have begun
    ended_s: float  # so long ago the first of the sessions ended that may be cached


class Met(NamedTuple):
    session: int
    turn: int
    done: float  # share of its answer, 0 to 1


class Turn(NamedTuple):
    """A turn of a session, what is sent of it, and how many turns are left with it."""

    request: Request
    sent: Request
    left: int


class Cast:
    """Who of a list of sessions does what, in order: the same at all rates.

    Sessions take their parts by turns. The list grows as they are asked for; requests are made when they are sent.
    """

    def __init__(self, workload: Sessions, seed: int) -> None:
        self._workload, self._seed = workload, seed
        self._drawn = drawn = self._of(FIRST)
        turns = len(drawn.answers)
        self.turns = turns / FIRST  # mean of a session
        self.output_tokens = sum(drawn.answers) / turns  # mean of an answer
        self._thinking_s = sum(drawn.thinking_s) / turns
        self._chance = NormalDist().inv_cdf((0.5 + GOLDEN * seed) % 1.0)
        self._met: dict[int, list[Met]] = {COMES: [], ANSWERED: []}
        self._times_s: list[float] = []  # when they come, one a second
        even = isinstance(workload.turns, int)  # no session is met more often again than others
        self._few = {COMES: 1 if even else FEW, ANSWERED: 2 if even else FEW}
        self._blocks = dict.fromkeys(self._met, 0)
        self.followers: dict[int, tuple[float, Request]] = {}
        self._made: dict[int, Turn] = {}

    def _of(self, sessions: int) -> DrawnSessions:
        return DrawnSessions.of(self._workload.model_copy(update={"sessions": sessions}), self._seed, whole=False)

    def _with(self, session: int) -> DrawnSessions:
        """The list, long enough for this session. Lists of one seed begin alike."""
        drawn = long = len(self._drawn.turns)
        while long <= session:
            long *= 2
        if long > drawn:
            self._drawn = self._of(long)
        return self._drawn

    def _chances(self, part: int, session: int) -> list[float]:
        """How often each of its turns is met: any but the first comes, long answers are the likelier under way."""
        first, turns = self._drawn.firsts[session], self._drawn.turns[session]
        if part == COMES:
            return [0.0, *[1.0] * (turns - 1)]
        return [float(one) for one in self._drawn.answers[first : first + turns]]

    def crowd(self, rate: float, token_s: float) -> float:
        """How many sessions there are when the run begins, as a share of how many there are on average.

        Sessions begin by chance, so their number is a Poisson one, and it stays as it is for as long as they last: some
        seeds begin with more and some with fewer. Neighbours are spread evenly.
        """
        last_s = self.output_tokens * token_s + self._thinking_s
        return max(1 + self._chance / math.sqrt(max(rate * last_s, 1.0)), 0.0)

    def begin(self, rate: float, seconds: float) -> list[tuple[float, int]]:
        """(when, session) of those that begin within so many seconds, at so many sessions a second; at least one."""
        found: list[tuple[float, int]] = []
        factor = self._workload.rate / rate
        for place in count():
            session = place * len(PARTS) + BEGINS
            time_s = self._with(session).starts_s[place] * factor
            if time_s > seconds and found:
                break
            found.append((time_s, session))
        return found

    def come(self, rate: float, seconds: float) -> list[tuple[float, Met]]:
        """(when, who) for so many seconds, at so many a second: later turns of sessions that began before."""
        if not rate > 0:
            return []
        while not self._times_s or self._times_s[-1] / rate <= seconds:
            more = stream(self._seed, f"underway times {len(self._times_s)}").standard_exponential(FIRST)
            self._times_s += (np.cumsum(more) + (self._times_s[-1] if self._times_s else 0.0)).tolist()
        times_s = [time_s / rate for time_s in self._times_s if time_s / rate <= seconds]
        return list(zip(times_s, self.met(COMES, len(times_s)), strict=True))

    def met(self, part: int, sessions: int) -> list[Met]:
        """So many that come again, or are answered."""
        met = self._met[part]
        if len(met) < sessions:
            self._with((sessions + BLOCK) * self._few[part] * len(PARTS))
        while len(met) < sessions:
            met += self._block(part, self._blocks[part])
            self._blocks[part] += 1
        return met[:sessions]

    def _block(self, part: int, number: int) -> list[Met]:
        """The next ones: of every few sessions one, the likelier the more of it there is to meet."""
        step, few, found = len(PARTS), self._few[part], []
        draws = stream(self._seed, f"underway {part} {number}").random((BLOCK, 2)).tolist()
        for place, (which, done) in enumerate(draws, start=number * BLOCK):
            group = range(place * few * step + part, (place + 1) * few * step, step)
            self._with(group[-1])
            turns = [(one, turn) for one in group for turn in range(self._drawn.turns[one])]
            reached = list(accumulate(chance for one in group for chance in self._chances(part, one)))
            if reached[-1]:
                at = bisect_right(reached, which * reached[-1])
                found.append(Met(*turns[at], done if part == ANSWERED else 0.0))
        return found

    def last(self, session: int) -> Request:
        """The last turn of a session that has ended."""
        return self.turn(Met(session, self._with(session).turns[session] - 1, 0.0)).request

    def turn(self, met: Met) -> Turn:
        """One turn of a session is asked for."""
        found = self._made.get(met.session)
        if found is None:
            requests = self._drawn.requests(met.session, met.turn)
            self.followers |= self._drawn.followers(requests)
            sent = gone_on(requests[0], int(met.done * requests[0].output_tokens))
            found = self._made[met.session] = Turn(requests[0], sent, len(requests))
        return found


def underway(cast: Cast, rate: float, seconds: float, start: Start) -> Underway:
    """What is sent within so many seconds at `rate` requests a second, by sessions that begin in them or before."""
    begin = [(time_s, cast.turn(Met(one, 0, 0.0))) for time_s, one in cast.begin(rate / cast.turns, seconds)]
    crowd = cast.crowd(rate, start.token_s)
    answers = round(crowd * rate * start.token_s * cast.output_tokens)
    answered = [cast.turn(one) for one in cast.met(ANSWERED, answers)]
    seats = [
        (time_s, cast.turn(one)) for time_s, one in cast.come(crowd * rate * (1 - 1 / cast.turns), start.entering_s)
    ]
    between_s = cast.turns / rate
    ended = [cast.last(place * len(PARTS) + ENDED) for place in range(round(start.ended_s / between_s))]
    every = [*((0.0, one) for one in answered), *begin, *seats]
    arrivals = sorted([Arrival(time_s, one.sent) for time_s, one in every], key=lambda one: one.time_s)
    return Underway(
        Chained(tuple(arrivals), cast.followers),
        sum(one.left for _, one in every),
        frozenset(one.sent.request_id for one in answered),
        (*(Memory(one, "all") for one in reversed(ended)), *(Memory(one.request, "prefill") for one in answered)),
        frozenset(one.sent.request_id for _, one in seats),
        start.entering_s,
    )


def gone_on(request: Request, tokens: int) -> Request:
    """A request whose answer has so many tokens already: they belong to its prompt."""
    if tokens == 0:
        return request
    prompt = request.prompt_tokens + tokens
    return replace(
        request,
        prompt_tokens=prompt,
        output_tokens=request.output_tokens - tokens,
        max_tokens=request.max_tokens - tokens,
        segments=(*request.segments, (request.output_content, tokens)),
        shared_tokens=prompt if request.output_shared else request.shared_tokens,
    )
