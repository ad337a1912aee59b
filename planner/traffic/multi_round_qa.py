"""production-stack's multi-round-qa as a load: its tick, its joins, its rounds.

Users join whatever the server does; inside a user the next round waits for the answer. The original's main loop runs
in ticks, so all launches fall on ticks, at most one user joins a tick, and every comparison is strict. `time` bounds
launching only: what is in flight is awaited and counted. The original's ten warm-up requests end before its clock
starts and are in none of its results, so they are not part of the load.
Source: vllm-project/production-stack, benchmarks/multi-round-qa/multi-round-qa.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from planner.spec import MultiRoundQa
from planner.traffic.contents import ANSWER, PROMPT, SYSTEM, USER, content_id, segments_of
from planner.traffic.requests import Arrival, Request, Segments

SHARED_TEXT_TOKENS = 8  # words before and after the shared system prompt, up to the user's number
TOLERANCE = 1e-12  # relative; keeps float noise from turning "equal to the gap" into "after the gap"


def number_tokens(number: int, digits_per_token: int) -> int:
    """Tokens of a written number: tokenizers cut digits into groups (Llama 3: three; Qwen: one)."""
    return math.ceil(len(str(number)) / digits_per_token)


def tick_times(workload: MultiRoundQa) -> list[float]:
    """Start of every tick, in seconds: one each `tick_s`, later by `summary_s` after each printed summary."""
    times, now, last_summary = [], 0.0, 0.0
    pauses, tick = 0, 0
    while now <= workload.time:
        times.append(now)
        tick += 1
        now = tick * workload.tick_s + pauses * workload.summary_s
        if now - last_summary > workload.log_interval:
            pauses += 1
            now += workload.summary_s
            last_summary = now
    return times


def join_gap_s(workload: MultiRoundQa) -> float:
    """Seconds between two new users, before ticks round it up."""
    gap_s = workload.num_users / workload.qps
    return gap_s * (workload.num_rounds - 1) / workload.num_users


def steady_rate(workload: MultiRoundQa) -> float:
    """Requests per second once ramped up: num_rounds a join. Without ticks: qps * R / (R - 1); R = 1: one a tick."""
    ticks = math.floor(join_gap_s(workload) / workload.tick_s + TOLERANCE) + 1
    return workload.num_rounds / (ticks * workload.tick_s)


def sped_up(workload: MultiRoundQa, factor: float) -> dict[str, float]:
    """The fields of the same workload `factor` times faster."""
    return {
        "qps": workload.qps * factor,
        "tick_s": workload.tick_s / factor,
        "summary_s": workload.summary_s / factor,
        "log_interval": workload.log_interval / factor,
        "time": workload.time / factor,
    }


@dataclass(slots=True)
class User:
    """One user session. `question` counts rounds passed, also those that ramp-up only pretends."""

    number: int  # the user id in the prompt
    first_request_id: int
    last_launch_s: float
    question: int
    sent: int = 0
    segments: Segments = ()
    prompt_tokens: int = 0
    history: tuple[tuple[int, int], ...] = ()


class MultiRoundQaLoad:
    """The load of one run. Request ids are (user, round) in order, so rounds that never start leave their id unused."""

    def __init__(self, workload: MultiRoundQa) -> None:
        self._workload = workload
        self._gap_s = workload.num_users / workload.qps
        self._ticks = tick_times(workload)
        ramp_up, joins = self._ramp_up(), self._join_ticks()
        # (tick of the first request, pretended last launch, rounds passed) of every user
        self._plan = [
            *((self._tick_after(last_s, self._gap_s), last_s, passed) for last_s, passed in ramp_up),
            *((tick, self._ticks[tick], 0) for tick in joins),
        ]
        self._users: dict[int, User] = {}
        self.expected_requests = sum(map(self._most_requests, self._plan))

    def _sends(self, tick: int, passed: int) -> bool:
        return tick < len(self._ticks) and passed < self._workload.num_rounds

    def _most_requests(self, plan: tuple[int, float, int]) -> int:
        """Requests of a user whose answers come at once."""
        tick, _, passed = plan
        launches = 0
        while self._sends(tick, passed + launches):
            launches += 1
            tick = self._tick_after(self._ticks[tick], self._gap_s)
        return launches

    def start(self) -> list[Arrival]:
        """The first request of each user: these depend on the clock alone."""
        self._users, first_id, launches = {}, 0, []
        for index, (tick, last_launch_s, passed) in enumerate(self._plan):
            user = User(self._workload.init_user_id + index + 1, first_id, last_launch_s, passed)
            self._users[user.number] = user
            first_id += self._workload.num_rounds - passed
            if self._sends(tick, passed):
                launches.append((tick, user.number))
        return [self._launch(self._users[number], tick) for tick, number in sorted(launches)]

    def finished(self, request: Request, time_s: float) -> list[Arrival]:
        """The user's next round: on the first tick that sees both the answer and the gap since the last launch over."""
        user = self._users[request.session_id]
        if user.question >= self._workload.num_rounds:
            return []
        tick = max(self._tick_after(user.last_launch_s, self._gap_s), bisect_left(self._ticks, time_s))
        return [] if tick >= len(self._ticks) else [self._launch(user, tick)]

    def _ramp_up(self) -> list[tuple[float, int]]:
        """(pretended last launch, rounds passed) of the users there at the start, as if they had joined earlier.

        The first has passed all its rounds and never sends; with one round none of them does.
        """
        workload, join_gap = self._workload, join_gap_s(self._workload)
        users = []
        for index in range(workload.num_users):
            age_s = (workload.num_users - index) * join_gap
            passed = int(age_s / self._gap_s * (1 + TOLERANCE)) + 1
            users.append(((passed - 1) * self._gap_s - age_s, passed))
        return users

    def _join_ticks(self) -> list[int]:
        """Ticks on which a user joins: the first, then each first one more than the join gap after the last."""
        joins, gap_s = [0], join_gap_s(self._workload)
        while (tick := self._tick_after(self._ticks[joins[-1]], gap_s)) < len(self._ticks):
            joins.append(tick)
        return joins

    def _tick_after(self, since_s: float, gap_s: float) -> int:
        """The first tick strictly more than `gap_s` after `since_s`."""
        due_s = since_s + gap_s
        tick = bisect_left(self._ticks, due_s)
        while tick < len(self._ticks) and self._ticks[tick] - due_s <= TOLERANCE * max(1.0, due_s):
            tick += 1
        return tick

    def _launch(self, user: User, tick: int) -> Arrival:
        workload = self._workload
        request_id = user.first_request_id + user.sent
        user.question += 1
        if user.sent == 0:
            words = min(SHARED_TEXT_TOKENS, workload.text_overhead_tokens)
            known = words + workload.shared_system_prompt
            number = number_tokens(user.number, workload.digits_per_token) - 1  # one is in the overhead
            text = workload.user_history_prompt + workload.text_overhead_tokens - words
            own = text + workload.template_tokens + number
            user.segments = segments_of((content_id(SYSTEM, 0), known), (content_id(USER, user.number), own))
            user.prompt_tokens = known + own
        else:
            known = user.prompt_tokens
            question = workload.question_tokens + workload.template_tokens
            user.segments += ((content_id(PROMPT, request_id), question),)
            user.prompt_tokens += question
        user.sent += 1
        user.last_launch_s = self._ticks[tick]
        last, answer = user.question >= workload.num_rounds, content_id(ANSWER, request_id)
        request = Request(
            request_id, user.number, user.prompt_tokens, workload.answer_len, workload.answer_len, user.segments,
            known if last else user.prompt_tokens, answer, not last, None, (), user.history,
        )  # fmt: skip
        user.segments += ((answer, workload.answer_len),)
        user.prompt_tokens += workload.answer_len
        user.history = (*user.history, (answer, request_id))
        return Arrival(self._ticks[tick], request)
