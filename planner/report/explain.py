"""What limits a deployment, in two sentences and the numbers behind them.

The order of the questions matters, because a full station fills those before it: a slow link keeps KV blocks taken on
both sides, a full decode pool keeps prompts on the prefill workers. So the most downstream cause that the numbers
support is named: link, retrieval (it comes first and hides nothing), decode side, prefill side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from planner.messages import Message, capital, joined, message
from planner.report.words import gigabytes, milliseconds, number, percent
from planner.run.facts import ROLES, SATURATED, STAGE_NAMES
from planner.run.metrics import Summary
from planner.run.refusals import KvRoom
from planner.run.usage import LinkUse, PoolUse

Kind = Literal[
    "prefill", "decode", "kv-memory", "link", "hand-over", "retrieval", "refused", "none", "unknown", "fault"
]

BUSY = 0.9  # from here a station has no room for the next burst
FULL = 0.9  # KV cache in use, averaged over the steps: no room for the next prompt
PRESSED = 0.8  # KV cache in use at its highest: a long prompt may have had to wait for room
BURSTY = 0.5  # of the time with prompts, below which those that wait have come together
ROOM = 0.7  # busy less than this, a pool has time to spare
BLOCKED = 0.5  # share of the time in steps that take no prompt although some wait
CARRYING = 0.5  # of its time, below which a link is not what holds requests up
TARGET = 0.8  # a link sized for this share keeps its queues short
FAILURES = 3  # kinds of failed requests that are told apart
NOTABLE = 0.2  # a stage that takes this share of TTFT is worth naming


@dataclass(frozen=True)
class Explanation:
    """The bottleneck of a run. `where` names the pool, link or station; `enough_bytes_s` is for links only."""

    kind: Kind
    where: str
    sentences: tuple[str, str]
    enough_bytes_s: float | None = None

    @property
    def text(self) -> str:
        return joined(" ", self.sentences)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(summary: Summary) -> Explanation:
    """Name the bottleneck, or say that there is none and what is closest to being one.

    Where a server died, or one stood still and requests failed, the times say nothing about bottlenecks: the fault is
    named instead, as is what requests failed with where more failed than the targets forgive. Requests that are too
    long for any engine come next: no bottleneck explains them.
    """
    if summary.is_failed:
        return _fault(summary)
    found = _bottleneck(summary)
    too_long = sum(refusal.requests for refusal in summary.refusals)
    if too_long <= (1 - summary.slo.attainment) * summary.number("requests"):
        return found
    if not summary["completed"]:
        return Explanation(
            "refused", "", (message("{refused}.", refused(summary)), message("No request could be served."))
        )
    return Explanation(
        "refused", "", (message("{refused}.", refused(summary)), message("Of the others: {first}", found.sentences[0]))
    )


def refused(summary: Summary) -> Message:
    """How many requests were too long, and for what."""
    return message(
        "{refused} of {count:.0f} requests were refused: longer than {limits}",
        sum(refusal.requests for refusal in summary.refusals),
        summary.number("requests"),
        joined(" / ", [refusal.limit for refusal in summary.refusals]),
    )


def _bottleneck(summary: Summary) -> Explanation:
    late, slow, long = (_misses(summary, name) for name in ("ttft", "tpot", "e2e"))
    behind = summary.saturation.saturated or not summary.saturation.steady
    if behind or late or long:
        for suspect in (_link, _retrieval):
            found = suspect(summary)
            if found is not None:
                return found
    if late or (summary.saturation.saturated and not _held_back(summary)):
        found = _first_token(summary)
        if not slow or summary.saturation.saturated:
            return found
        first, second = found.sentences  # a cure for the first tokens alone would not be enough
        return replace(found, sentences=(first, joined(" ", [second, message("Also, {speed}.", _speed(summary))])))
    if slow or long or _held_back(summary):
        posts = _posting(summary)
        return posts if posts and posts.where == "decode" else _token_speed(summary)
    return _headroom(summary)


def _held_back(summary: Summary) -> bool:
    """Sessions wait for slow answers, not for first tokens: no line grows."""
    state = summary.saturation
    return state.held_back and state.waiting_slope_per_s <= _grows(summary) and not summary.number("rejected") > 0


def _misses(summary: Summary, name: str) -> bool:
    """Too few requests are within the target of a latency, where one is set."""
    attained = summary[f"{name}_attainment"]
    served = 1 - sum(refusal.requests for refusal in summary.refusals) / max(summary.number("requests"), 1.0)
    return attained is not None and attained < summary.slo.attainment * served


def waterfall(summary: Summary) -> list[tuple[str, float, float]]:
    """(stage, mean ms, share of TTFT) of the stages that take time. The milliseconds add up to the mean TTFT."""
    whole = sum(summary.stages_ms.values())
    return [
        (stage, mean, mean / whole if whole else 0.0) for stage, mean in summary.stages_ms.items() if abs(mean) > 1e-6
    ]


def _fault(summary: Summary) -> Explanation:
    failed = failures(summary)
    if summary.faults:
        first = joined("; ", [said for _, said in summary.faults])
        return Explanation("fault", summary.faults[0][0], (message("{text}.", first), failed))
    others = (
        message("Times are those of the others.") if summary["completed"] else message("No request could be served.")
    )
    return Explanation("fault", "", (failed, others))


def failures(summary: Summary) -> Message:
    """How many requests failed, and with what."""
    failed = message("{failed:.0f} of {sent:.0f} requests failed", summary.number("failed"), summary.number("requests"))
    kinds = [message("{count} with {text!r}", count, text) for text, count in summary.failures[:FAILURES]]
    more = len(summary.failures) - FAILURES
    if more > 0:
        kinds.append(message("{count} other kinds", more))
    return message("{failed}: {kinds}.", failed, joined("; ", kinds)) if kinds else message("{failed}.", failed)


# --- stations ----------------------------------------------------------------------------------


def _link(summary: Summary) -> Explanation | None:
    """A link that is offered nearly all it can carry, or more, and carries much: an idle one waits for something."""
    carrying = [link for link in summary.links if link.utilization >= CARRYING]
    worst = max(carrying, key=lambda link: link.offered, default=None)
    if worst is None or worst.offered < BUSY:
        return None
    return _link_bound(summary, worst)


def _link_bound(summary: Summary, link: LinkUse) -> Explanation:
    enough = link.offered_bytes_s / TARGET
    first = message(
        "The KV link {link} {state}: the traffic needs {needed} moved and it carries {most} at most.",
        link.name,
        message("cannot keep up") if link.offered > 1 else message("is full"),
        gigabytes(link.offered_bytes_s),
        gigabytes(link.bandwidth_bytes_s),
    )
    return Explanation(
        "link",
        link.name,
        (
            first,
            message(
                "A transfer takes {time} on average; {enough} would be enough ({busy} busy).",
                milliseconds(link.transfer_mean_s * 1e3),
                gigabytes(enough),
                percent(TARGET),
            ),
        ),
        enough,
    )


POSTING = 0.15  # of a pool's time, from which posting is what to change first
LARGER = 128  # tokens of a block: the largest that attention kernels of vLLM take


def _posting(summary: Summary) -> Explanation | None:
    """Workers that spend much of their time posting the pieces of hand-overs instead of computing.

    Named in place of their pool, where that is what holds the requests, and of the wire that waits for the posts.
    """
    found = summary.posting
    if found is None or found.share < POSTING:
        return None
    pool = _find(summary, found.role)
    first = message(
        "Hand-overs are the bottleneck: the {role} workers spend {share} of their time posting {count:,.0f} "
        "descriptors a prompt",
        ROLES[found.role],
        percent(found.share),
        found.descriptors,
    )
    if pool is not None and pool.utilization is not None:
        first = message("{posting}, of {busy} that they are busy", first, percent(pool.utilization))
    first = message("{text}.", first)
    if found.block_size < LARGER:
        share = percent(found.share * found.block_size / LARGER)
        second = message("With engine.block_size {size}: {share}.", LARGER, share)
    else:
        second = message("The other connector (link.connector) would free it.")
    return Explanation("hand-over", found.role, (first, second))


def _wanted(link: LinkUse) -> float:
    """What the traffic wants of a link's bandwidth. A burst wants more than all, and is done soon: what it carries."""
    return link.offered if link.offered <= 1 else link.utilization


def _retrieval(summary: Summary) -> Explanation | None:
    busy = summary["retrieval_utilization"]
    if busy is None or busy < BUSY:
        return None
    return Explanation(
        "retrieval",
        "retrieval",
        (
            message(
                "Retrieval is the bottleneck: its workers ({count}) are busy {busy} of the time.",
                summary.retrieval_workers,
                percent(busy),
            ),
            message(
                "Waiting and searching take {time} of a mean TTFT of {ttft}; {count} workers would be enough.",
                milliseconds(summary.stages_ms["retrieval"]),
                milliseconds(summary.number("ttft_mean_ms")),
                _workers_enough(summary, busy),
            ),
        ),
    )


def _workers_enough(summary: Summary, busy: float) -> int:
    rate, served = summary.saturation.wanted_per_s, summary.saturation.achieved_per_s
    need = busy * summary.retrieval_workers / TARGET
    if rate and served:
        need *= max(rate / served, 1.0)
    return int(need) + 1


# --- a first token that comes late -------------------------------------------------------------


def _first_token(summary: Summary) -> Explanation:
    """TTFT misses its target or the line grows: which stage holds the requests, and what holds the stage?"""
    late = any(summary.missed_stages_ms.values())
    stages = summary.missed_stages_ms if late else summary.stages_ms
    stage = max(stages, key=lambda name: stages[name])
    growing = summary.stage_growth_per_s
    longest = max(growing, key=lambda name: growing[name], default=stage)
    if summary.saturation.saturated and growing.get(longest, 0.0) > _grows(summary):
        stage = longest  # it may wait after the first token, where TTFT does not see it
    share = stages[stage] / sum(stages.values()) if sum(stages.values()) else 0.0
    name, part, spent = STAGE_NAMES[stage], percent(share), milliseconds(stages[stage])
    if late:
        time = message(
            "{stage} is {share} of the time to first token of requests that miss its target ({time})", name, part, spent
        )
    else:
        time = message("{stage} is {share} of the time to first token ({time})", name, part, spent)
    causes: dict[str, Callable[[Summary, str], Explanation]] = {
        "retrieval": lambda s, t: Explanation(
            "retrieval", "retrieval", (message("Retrieval makes first tokens late."), _line(s, t))
        ),
        "transfer": _slow_transfer,
        "decode_wait": _decode_side,
        "first_decode": _decode_side,
        "queue": _queue,
        "prefill": _long_prefill,
    }
    found = causes.get(stage, _unknown)(summary, time if share > 0 else "")
    posts = _posting(summary)
    return posts if posts and (found.where == posts.where or found.kind == "link") else found


def _queue(summary: Summary, time: str) -> Explanation:
    """Prompts wait: for compute, or because KV blocks or batch slots are taken, on this side or the other."""
    pool = _prefilling(summary)
    if pool is None or pool.utilization is None:
        return _unknown(summary, time)
    if pool.role == "aggregated" and _no_room(summary, pool) and (pool.prefill_time_share or 0.0) < BUSY:
        return _memory(summary, pool, time)
    idle = pool.role == "prefill" and pool.utilization < BUSY  # an aggregated worker is busy while anything decodes
    if (pool.blocked_share or 0.0) < BLOCKED and not (idle and _most(pool) >= PRESSED):
        return _prefill_side(summary, time)
    decode = _find(summary, "decode")
    if decode is not None and (_full(decode) or (decode.blocked_share or 0.0) >= BLOCKED):
        return _decode_side(summary, time)  # prompts stay in the prefill workers until the decode side has read them
    if pool.role == "prefill" or _full(pool) or _no_room(summary, pool):
        return _memory(summary, pool, time)
    first = message(
        "Decoding is the bottleneck: every slot of the batch is taken ({batch}) while prompts wait.", _batch(pool)
    )
    return Explanation("decode", pool.role, (first, _line(summary, time)))


def _long_prefill(summary: Summary, time: str) -> Explanation:
    """Prompts are being computed rather than waiting: too long for the target, or too many at once."""
    pool = _prefilling(summary)
    if pool is None or (spent := _prefills(pool)) is None or spent >= ROOM:
        return _prefill_side(summary, time)
    if pool.role == "aggregated":
        first = message(
            "Prefill takes too long by itself: the aggregated workers spend only {share} of the time in steps with "
            "prompt tokens, so more of them would help little; a larger tp or a faster GPU would.",
            percent(spent),
        )
    else:
        first = message(
            "Prefill takes too long by itself: the prefill workers are busy only {busy} of the time, so more of them "
            "would help little; a larger tp or a faster GPU would.",
            percent(spent),
        )
    return Explanation("prefill", pool.role, (first, _line(summary, time)))


def _prefills(pool: PoolUse) -> float | None:
    """Share of the time in steps with prompt tokens; aggregated workers decode in others, or in the same."""
    if pool.utilization is None or pool.role == "prefill":
        return pool.utilization
    return pool.utilization * (pool.prefill_time_share or 0.0)


def _prefill_side(summary: Summary, time: str) -> Explanation:
    pool = _prefilling(summary)
    where = pool.role if pool else "prefill"
    spent = None if pool is None else _prefills(pool)
    if pool is not None and spent is not None and spent < BURSTY and not summary.saturation.saturated:
        first = message(
            "Prompts come in bursts and wait for one another: the {role} workers spend only {share} of the time in "
            "steps with prompt tokens. More workers, a larger tp or a faster GPU make the wait shorter.",
            ROLES[pool.role],
            percent(spent),
        )
        return Explanation("prefill", where, (first, _line(summary, time)))
    if pool is None or pool.utilization is None:
        first = message("Prefill is the bottleneck of the {role} pool.", ROLES[where])
    elif pool.role == "aggregated":
        first = message(
            "Prefill is the bottleneck: the aggregated workers are busy {busy} of the time, {share} of it in steps "
            "with prompt tokens.",
            percent(pool.utilization),
            percent(pool.prefill_time_share or 0.0),
        )
    else:
        first = message(
            "Prefill is the bottleneck: the prefill workers are busy {busy} of the time.", percent(pool.utilization)
        )
    return Explanation("prefill", where, (first, _line(summary, time)))


def _decode_side(summary: Summary, time: str) -> Explanation:
    pool = _find(summary, "decode") or _find(summary, "aggregated")
    if pool is None or pool.utilization is None:
        return _unknown(summary, time)
    if _full(pool) or _no_room(summary, pool):
        return _memory(summary, pool, time)
    first = message(
        "Decoding is the bottleneck: the {role} workers hold {batch} and take new ones slowly.",
        ROLES[pool.role],
        _batch(pool),
    )
    return Explanation("decode", pool.role, (first, _line(summary, time)))


def _no_room(summary: Summary, pool: PoolUse) -> bool:
    """What is free of a worker's KV cache on average is too little for the mean request."""
    room = _room(summary, pool)
    return room is not None and (1 - (pool.kv_used_mean or 0.0)) * room.blocks < room.wanted


def _room(summary: Summary, pool: PoolUse) -> KvRoom | None:
    return next((room for room in summary.kv_rooms if room.role == pool.role), None)


def _memory(summary: Summary, pool: PoolUse, time: str) -> Explanation:
    room = _room(summary, pool)
    if room is not None and not _full(pool) and _no_room(summary, pool):
        first = message(
            "KV memory is the bottleneck: a request wants {wanted:,.0f} blocks and each of the {role} workers has "
            "{blocks:,}, {share} of them in use on average.",
            room.wanted,
            ROLES[pool.role],
            room.blocks,
            percent(pool.kv_used_mean),
        )
        return Explanation("kv-memory", pool.role, (first, _line(summary, time)))
    first = message(
        "KV memory is the bottleneck: the cache of the {role} workers is {mean} full on average and {most} at most, "
        "with {count:.0f} preemptions.",
        ROLES[pool.role],
        percent(pool.kv_used_mean),
        percent(pool.kv_used_max),
        summary.number("preemptions"),
    )
    return Explanation("kv-memory", pool.role, (first, _line(summary, time)))


def _slow_transfer(summary: Summary, time: str) -> Explanation:
    worst = max(summary.links, key=lambda link: link.offered, default=None)
    if worst is None:
        return _unknown(summary, time)
    first = message(
        "The KV link {link} is slow rather than full ({offered} offered): {time}.",
        worst.name,
        percent(_wanted(worst)),
        time,
    )
    size = worst.bytes / worst.transfers
    limit_ms = summary.slo.ttft_ms
    others = sum(ms for stage, ms in summary.missed_stages_ms.items() if stage != "transfer")
    if limit_ms is None or others >= limit_ms:
        moved = message("a transfer moves {size:.0f} MB", size / 1e6)
        return Explanation("link", worst.name, (first, _line(summary, moved)))
    # n transfers at once share the link, so one takes size / (bandwidth - offered) on average
    enough = worst.offered_bytes_s + size / ((limit_ms - others) / 1e3)
    return Explanation(
        "link",
        worst.name,
        (
            first,
            message(
                "About {enough} would bring TTFT within the {limit:g} ms target on average.",
                gigabytes(enough),
                limit_ms,
            ),
        ),
        enough,
    )


def _unknown(summary: Summary, time: str) -> Explanation:
    return Explanation(
        "unknown",
        "",
        (message("First tokens are late, and this run does not record why."), _line(summary, time)),
    )


# --- tokens that come slowly; nothing short ----------------------------------------------------


def _token_speed(summary: Summary) -> Explanation:
    """TTFT is within its target and TPOT (or E2E) is not."""
    pool = _find(summary, "decode") or _find(summary, "aggregated")
    speed = _speed(summary)
    first = message("Decoding is the bottleneck: {speed}.", speed)
    if pool is None or pool.utilization is None:
        return Explanation("decode", "decode", (first, _line(summary, "")))
    if summary.number("preemptions") > 0 and (pool.kv_used_max or 0.0) >= FULL:
        return _memory(summary, pool, speed)
    who, batch = ROLES[pool.role], _batch(pool)
    if pool.role == "aggregated" and (pool.prefill_time_share or 0.0) > NOTABLE:
        second = message(
            "The {role} workers decode {batch} on average, and {share} of their time goes to steps that also prefill "
            "prompts.",
            who,
            batch,
            percent(pool.prefill_time_share),
        )
    else:
        second = message("The {role} workers decode {batch} on average.", who, batch)
    return Explanation("decode", pool.role, (first, second))


def _speed(summary: Summary) -> Message:
    median, high = milliseconds(summary.number("tpot_p50_ms")), milliseconds(summary.number("tpot_p99_ms"))
    speed = message("TPOT is {median} at the median and {high} at p99", median, high)
    if summary.slo.tpot_ms is None:
        return speed
    return message("{speed} (target {limit:g} ms)", speed, summary.slo.tpot_ms)


def _headroom(summary: Summary) -> Explanation:
    """Nothing is short: say what is closest to it."""
    uses: list[tuple[float, str]] = []
    for pool in summary.pools:
        if pool.utilization is not None and pool.role == "prefill":
            text = message("prefill workers, busy {busy} of the time", percent(pool.utilization))
            uses.append((pool.utilization, text))
        if pool.kv_used_max is not None:
            full = percent(pool.kv_used_max)
            text = message("KV cache of the {role} workers, {full} full at most", ROLES[pool.role], full)
            uses.append((pool.kv_used_max, text))
    uses += [
        (_wanted(link), message("KV link {link}, {share} of its bandwidth", link.name, percent(_wanted(link))))
        for link in summary.links
    ]
    busy = summary["retrieval_utilization"]
    if busy is not None:
        uses.append((busy, message("retrieval workers, busy {busy} of the time", percent(busy))))
    for name in ("ttft", "tpot"):
        limit: float | None = getattr(summary.slo, f"{name}_ms")
        p99 = summary[f"{name}_p99_ms"]
        if limit and p99 is not None:
            share = p99 / limit
            uses.append((share, message("{metric} target, p99 at {share} of it", name.upper(), percent(share))))
    closest = max(uses, default=None)
    first = message("Nothing is a bottleneck: there is headroom.")
    second = message("Closest to its limit: {what}.", closest[1]) if closest else _line(summary, "")
    return Explanation("none", "", (first, second))


# --- words -------------------------------------------------------------------------------------


def _line(summary: Summary, time: str) -> str:
    """The second sentence: where the time goes, and how fast the line grows when it does."""
    state = summary.saturation
    if not state.saturated or state.offered_per_s is None:
        return capital(message("{time}.", time)) if time else message("This run records no engine steps to say more.")
    if state.waiting_slope_per_s <= _grows(summary):
        if _held_back(summary):
            then = message("sessions wait for their answers and pile up")
        else:
            then = message("{count:.0f} requests are turned away", summary.number("rejected"))
    else:
        growing = {stage: rate for stage, rate in summary.stage_growth_per_s.items() if rate > 0}
        longest = max(growing, key=lambda stage: growing[stage], default="")
        then = message("the line grows by {rate} requests a second", number(state.waiting_slope_per_s))
        if longest:
            then = message("{growth}, most of it in {stage}", then, STAGE_NAMES[longest])
    return capital(message("{time}; {then}.", time, then) if time else message("{time}.", then))


def _find(summary: Summary, role: str) -> PoolUse | None:
    return next((pool for pool in summary.pools if pool.role == role), None)


def _prefilling(summary: Summary) -> PoolUse | None:
    return _find(summary, "prefill") or _find(summary, "aggregated")


def _grows(summary: Summary) -> float:
    """Requests a second from which a line counts as growing: the share of the offered rate that saturation allows."""
    return SATURATED * (summary.saturation.offered_per_s or 0.0)


def _full(pool: PoolUse) -> bool:
    return (pool.kv_used_mean or 0.0) >= FULL


def _most(pool: PoolUse) -> float:
    return pool.kv_used_max or 0.0


def _batch(pool: PoolUse) -> str:
    mean = pool.decode_seqs_mean or 0.0
    return message("1 sequence each") if round(mean) == 1 else message("{count:.0f} sequences each", mean)
