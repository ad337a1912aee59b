"""What limits a deployment, in two sentences and the numbers behind them.

The order of the questions matters, because a full station fills those before it: a slow link keeps KV blocks taken on
both sides, a full decode pool keeps prompts on the prefill workers. So the most downstream cause that the numbers
support is named: link, retrieval (it comes first and hides nothing), decode side, prefill side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from planner.report.words import gigabytes, milliseconds, percent
from planner.run.facts import SATURATED
from planner.run.metrics import Summary
from planner.run.usage import LinkUse, PoolUse

Kind = Literal["prefill", "decode", "kv-memory", "link", "hand-over", "retrieval", "none", "unknown"]

BUSY = 0.9  # from here a station has no room for the next burst
FULL = 0.9  # KV cache in use, averaged over the steps: no room for the next prompt
PRESSED = 0.8  # KV cache in use at its highest: a long prompt may have had to wait for room
ROOM = 0.7  # busy less than this, a pool has time to spare
BLOCKED = 0.5  # share of the time in steps that take no prompt although some wait
TARGET = 0.8  # a link sized for this share keeps its queues short
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
        return " ".join(self.sentences)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(summary: Summary) -> Explanation:
    """Name the bottleneck, or say that there is none and what is closest to being one."""
    late, slow, long = (_misses(summary, name) for name in ("ttft", "tpot", "e2e"))
    behind = summary.saturation.saturated or not summary.saturation.steady
    if behind or late or long:
        for suspect in (_link, _retrieval):
            found = suspect(summary)
            if found is not None:
                return found
    if summary.saturation.saturated or late:
        return _first_token(summary)
    if slow or long:
        posts = _posting(summary)
        return posts if posts and posts.where == "decode" else _token_speed(summary)
    return _headroom(summary)


def _misses(summary: Summary, name: str) -> bool:
    """Too few requests are within the target of a latency, where one is set."""
    attained = summary[f"{name}_attainment"]
    return attained is not None and attained < summary.slo.attainment


def waterfall(summary: Summary) -> list[tuple[str, float, float]]:
    """(stage, mean ms, share of TTFT) of the stages that take time. The milliseconds add up to the mean TTFT."""
    whole = sum(summary.stages_ms.values())
    return [
        (stage, mean, mean / whole if whole else 0.0) for stage, mean in summary.stages_ms.items() if abs(mean) > 1e-6
    ]


# --- stations ----------------------------------------------------------------------------------


def _link(summary: Summary) -> Explanation | None:
    """A link that is offered nearly all it can carry, or more."""
    worst = max(summary.links, key=lambda link: link.offered, default=None)
    if worst is None or worst.offered < BUSY:
        return None
    return _link_bound(summary, worst)


def _link_bound(summary: Summary, link: LinkUse) -> Explanation:
    enough = link.offered_bytes_s / TARGET
    verb = "cannot keep up" if link.offered > 1 else "is full"
    first = (
        f"The KV link {link.name} {verb}: the traffic needs {gigabytes(link.offered_bytes_s)} moved"
        f" and it carries {gigabytes(link.bandwidth_bytes_s)} at most."
    )
    return Explanation(
        "link",
        link.name,
        (
            first,
            f"A transfer takes {milliseconds(link.transfer_mean_s * 1e3)} on average;"
            f" {gigabytes(enough)} would be enough ({percent(TARGET)} busy).",
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
    busy = f", of {percent(pool.utilization)} that they are busy" if pool and pool.utilization is not None else ""
    first = (
        f"Hand-overs are the bottleneck: the {found.role} workers spend {percent(found.share)} of their time posting"
        f" {found.descriptors:,.0f} descriptors a prompt{busy}."
    )
    second = (
        f"With engine.block_size {LARGER}: {percent(found.share * found.block_size / LARGER)}."
        if found.block_size < LARGER
        else "Fewer and larger pieces (link.cross_layer_blocks) or the other connector (link.connector) would free it."
    )
    return Explanation("hand-over", found.role, (first, second))


def _retrieval(summary: Summary) -> Explanation | None:
    busy = summary["retrieval_utilization"]
    if busy is None or busy < BUSY:
        return None
    return Explanation(
        "retrieval",
        "retrieval",
        (
            f"Retrieval is the bottleneck: its workers ({summary.retrieval_workers}) are busy"
            f" {percent(busy)} of the time.",
            f"Waiting and searching take {milliseconds(summary.stages_ms['retrieval'])} of a mean TTFT of"
            f" {milliseconds(summary.number('ttft_mean_ms'))}; {_workers_enough(summary, busy)}.",
        ),
    )


def _workers_enough(summary: Summary, busy: float) -> str:
    rate, served = summary.saturation.offered_per_s, summary.saturation.achieved_per_s
    need = busy * summary.retrieval_workers / TARGET
    if rate and served:
        need *= max(rate / served, 1.0)
    return f"{int(need) + 1} workers would be enough"


# --- a first token that comes late -------------------------------------------------------------


def _first_token(summary: Summary) -> Explanation:
    """TTFT misses its target or the line grows: which stage holds the requests, and what holds the stage?"""
    stages = summary.missed_stages_ms if any(summary.missed_stages_ms.values()) else summary.stages_ms
    stage = max(stages, key=lambda name: stages[name])
    growing = summary.stage_growth_per_s
    longest = max(growing, key=lambda name: growing[name], default=stage)
    if summary.saturation.saturated and growing.get(longest, 0.0) > _grows(summary):
        stage = longest  # it may wait after the first token, where TTFT does not see it
    share = stages[stage] / sum(stages.values()) if sum(stages.values()) else 0.0
    time = f"{stage.replace('_', ' ')} is {percent(share)} of the time to first token ({milliseconds(stages[stage])})"
    causes: dict[str, Callable[[Summary, str], Explanation]] = {
        "retrieval": lambda s, t: Explanation(
            "retrieval", "retrieval", ("Retrieval makes first tokens late.", _line(s, t))
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
    idle = pool.role == "prefill" and pool.utilization < BUSY  # an aggregated worker is busy while anything decodes
    if (pool.blocked_share or 0.0) < BLOCKED and not (idle and _most(pool) >= PRESSED):
        return _prefill_side(summary, time)
    decode = _find(summary, "decode")
    if decode is not None and (_full(decode) or (decode.blocked_share or 0.0) >= BLOCKED):
        return _decode_side(summary, time)  # prompts stay in the prefill workers until the decode side has read them
    if pool.role == "prefill" or _full(pool):
        return _memory(summary, pool, time)
    first = f"Decoding is the bottleneck: every slot of the batch is taken ({_batch(pool)}) while prompts wait."
    return Explanation("decode", pool.role, (first, _line(summary, time)))


def _long_prefill(summary: Summary, time: str) -> Explanation:
    """Prompts are being computed rather than waiting: too long for the target, or too many at once."""
    pool = _find(summary, "prefill")  # aggregated workers share their steps with decodes, so busy says nothing
    if pool is None or pool.utilization is None or pool.utilization >= ROOM:
        return _prefill_side(summary, time)
    first = (
        f"Prefill takes too long by itself: the prefill workers are busy only {percent(pool.utilization)} of the time,"
        " so more of them would help little; a larger tp or a faster GPU would."
    )
    return Explanation("prefill", "prefill", (first, _line(summary, time)))


def _prefill_side(summary: Summary, time: str) -> Explanation:
    pool = _prefilling(summary)
    where = pool.role if pool else "prefill"
    if pool is None or pool.utilization is None:
        first = f"Prefill is the bottleneck of the {where} pool."
    elif pool.role == "aggregated":
        first = (
            f"Prefill is the bottleneck: the aggregated workers are busy {percent(pool.utilization)} of the time,"
            f" {percent(pool.prefill_time_share or 0.0)} of it in steps with prompt tokens."
        )
    else:
        first = f"Prefill is the bottleneck: the prefill workers are busy {percent(pool.utilization)} of the time."
    return Explanation("prefill", where, (first, _line(summary, time)))


def _decode_side(summary: Summary, time: str) -> Explanation:
    pool = _find(summary, "decode") or _find(summary, "aggregated")
    if pool is None or pool.utilization is None:
        return _unknown(summary, time)
    if _full(pool):
        return _memory(summary, pool, time)
    first = f"Decoding is the bottleneck: the {pool.role} workers hold {_batch(pool)} and take new ones slowly."
    return Explanation("decode", pool.role, (first, _line(summary, time)))


def _memory(summary: Summary, pool: PoolUse, time: str) -> Explanation:
    first = (
        f"KV memory is the bottleneck: the cache of the {pool.role} workers is {percent(pool.kv_used_mean)} full on"
        f" average and {percent(pool.kv_used_max)} at most, with {summary.number('preemptions'):.0f} preemptions."
    )
    return Explanation("kv-memory", pool.role, (first, _line(summary, time)))


def _slow_transfer(summary: Summary, time: str) -> Explanation:
    worst = max(summary.links, key=lambda link: link.offered, default=None)
    if worst is None:
        return _unknown(summary, time)
    first = f"The KV link {worst.name} is slow rather than full ({percent(worst.offered)} offered): {time}."
    size = worst.bytes / worst.transfers
    limit_ms = summary.slo.ttft_ms
    others = sum(ms for stage, ms in summary.missed_stages_ms.items() if stage != "transfer")
    if limit_ms is None or others >= limit_ms:
        return Explanation("link", worst.name, (first, _line(summary, f"a transfer moves {size / 1e6:.0f} MB")))
    # n transfers at once share the link, so one takes size / (bandwidth - offered) on average
    enough = worst.offered_bytes_s + size / ((limit_ms - others) / 1e3)
    return Explanation(
        "link",
        worst.name,
        (first, f"About {gigabytes(enough)} would bring TTFT within the {limit_ms:g} ms target on average."),
        enough,
    )


def _unknown(summary: Summary, time: str) -> Explanation:
    return Explanation(
        "unknown",
        "",
        ("First tokens are late, and this run does not record why.", _line(summary, time)),
    )


# --- tokens that come slowly; nothing short ----------------------------------------------------


def _token_speed(summary: Summary) -> Explanation:
    """TTFT is within its target and TPOT (or E2E) is not."""
    pool = _find(summary, "decode") or _find(summary, "aggregated")
    limit = f" (target {summary.slo.tpot_ms:g} ms)" if summary.slo.tpot_ms is not None else ""
    median, high = milliseconds(summary.number("tpot_p50_ms")), milliseconds(summary.number("tpot_p99_ms"))
    speed = f"TPOT is {median} at the median and {high} at p99{limit}"
    if pool is None or pool.utilization is None:
        return Explanation("decode", "decode", (f"Decoding is the bottleneck: {speed}.", _line(summary, "")))
    if summary.number("preemptions") > 0 and (pool.kv_used_max or 0.0) >= FULL:
        return _memory(summary, pool, speed)
    second = f"The {pool.role} workers decode {_batch(pool)} on average"
    if pool.role == "aggregated" and (pool.prefill_time_share or 0.0) > NOTABLE:
        second += f", and {percent(pool.prefill_time_share)} of their time goes to steps that also prefill prompts"
    return Explanation("decode", pool.role, (f"Decoding is the bottleneck: {speed}.", f"{second}."))


def _headroom(summary: Summary) -> Explanation:
    """Nothing is short: say what is closest to it."""
    uses: list[tuple[float, str]] = []
    for pool in summary.pools:
        if pool.utilization is not None and pool.role == "prefill":
            uses.append((pool.utilization, f"prefill workers, busy {percent(pool.utilization)} of the time"))
        if pool.kv_used_max is not None:
            uses.append(
                (pool.kv_used_max, f"KV cache of the {pool.role} workers, {percent(pool.kv_used_max)} full at most")
            )
    uses += [(link.offered, f"KV link {link.name}, {percent(link.offered)} of its bandwidth") for link in summary.links]
    busy = summary["retrieval_utilization"]
    if busy is not None:
        uses.append((busy, f"retrieval workers, busy {percent(busy)} of the time"))
    for name in ("ttft", "tpot"):
        limit: float | None = getattr(summary.slo, f"{name}_ms")
        p99 = summary[f"{name}_p99_ms"]
        if limit and p99 is not None:
            uses.append((p99 / limit, f"{name.upper()} target, p99 at {percent(p99 / limit)} of it"))
    closest = max(uses, default=None)
    first = "Nothing is a bottleneck: there is headroom."
    return Explanation("none", "", (first, f"Closest to its limit: {closest[1]}." if closest else _line(summary, "")))


# --- words -------------------------------------------------------------------------------------


def _line(summary: Summary, time: str) -> str:
    """The second sentence: where the time goes, and how fast the line grows when it does."""
    state = summary.saturation
    if not state.saturated or state.offered_per_s is None:
        return f"{time[:1].upper()}{time[1:]}." if time else "This run records no engine steps to say more."
    if state.waiting_slope_per_s <= _grows(summary):
        turned = f"{summary.number('rejected'):.0f} requests are turned away"
        return f"{time[:1].upper()}{time[1:]}; {turned}." if time else f"{turned}."
    growing = {stage: rate for stage, rate in summary.stage_growth_per_s.items() if rate > 0}
    longest = max(growing, key=lambda stage: growing[stage], default="")
    where = f", most of it in {longest.replace('_', ' ')}" if longest else ""
    rate = f"the line grows by {state.waiting_slope_per_s:.2g} requests a second{where}"
    text = f"{time}; {rate}." if time else f"{rate}."
    return f"{text[:1].upper()}{text[1:]}"


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
    return f"{pool.decode_seqs_mean or 0.0:.0f} sequences each"
