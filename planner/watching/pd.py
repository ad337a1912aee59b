"""Is it P/D? What the counters of both pools, and the tails of the gaps between tokens, say together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.messages import message
from planner.report.words import gigabytes, number, percent
from planner.system.resolve import System
from planner.watching.observe import ITL, NAN, Observed, first_of, histogram
from planner.watching.scrape import Role, Values

Word = Literal[
    "a true pair", "the connector is off", "the decode engines prefill", "the link is overloaded", "not known"
]

COMPUTED = 0.02  # of the prompt tokens: more than this on decode engines is prefill, not the last token of each
EVERYTHING = 0.95
SLOW_LINK = 3.0  # times as long as the bytes take alone: the wire is shared by too many
WAITS = 0.25  # of the requests inside the decode engines wait for their KV
FEWEST = 10  # requests below which nothing is said
POST_SHARE = 0.2  # of the decode engines' time
STALLED = 0.1  # of the time between tokens


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps between tokens, in seconds: what any benchmark prints of them."""

    mean_s: float
    median_s: float
    p99_s: float

    @property
    def stalled_share(self) -> float:
        """Of the time between tokens, what is beyond the usual gap: (mean - median) / mean."""
        return max(0.0, (self.mean_s - self.median_s) / self.mean_s) if self.mean_s > 0 else NAN

    @property
    def stalls_a_token(self) -> float:
        """How often a gap is a stall, where stalls last as long as the 99th percentile: (mean - median) / p99."""
        return max(0.0, (self.mean_s - self.median_s) / self.p99_s) if self.p99_s > 0 else NAN


@dataclass(frozen=True, slots=True)
class Evidence:
    """Both pools over some time. Tokens are prompt tokens; NaN where an engine does not count it."""

    seconds: float
    requests: float  # that the decode engines finished
    prompts: float  # of them
    computed: float  # on decode engines, of which nothing was cached or transferred
    transferred: float
    prefilled: float  # computed on prefill engines
    kv_bytes: float
    expected_bytes: float  # of what was transferred, as the model's KV cache has it
    transfers: float
    transfer_s: float  # mean, from its post to its end
    alone_s: float  # what one would take with the wire to itself
    post_s: float  # mean
    descriptors: float  # mean of a transfer
    failed: float  # transfers, or KV that expired before it was fetched
    gaps: Gaps
    plain_s: float  # a decode step at the mean batch by the law, without prompts
    batch: float  # mean of the decode steps
    prefill_waiting: float  # mean over the rounds
    decode_waiting: float  # for room
    kv_waiting: float  # for their KV to come
    decode_inside: float  # running and waiting on the decode engines

    @property
    def computed_share(self) -> float:
        return self.computed / self.prompts if self.prompts else NAN

    @property
    def bytes_share(self) -> float:
        """Of the bytes that the prompts' KV has, how much came over the link."""
        return self.kv_bytes / self.expected_bytes if self.expected_bytes else NAN

    @property
    def post_each_s(self) -> float:
        """Seconds of posting a descriptor."""
        return self.post_s / self.descriptors if self.descriptors else NAN

    @property
    def post_share(self) -> float:
        """Of a decode engine's time, if that is where transfers are posted (pull)."""
        return self.transfers * self.post_s / self.seconds if self.seconds else NAN


@dataclass(frozen=True, slots=True)
class Verdict:
    word: Word
    sentence: str
    evidence: tuple[str, ...]


def total(growths: Sequence[Mapping[Role, Values]]) -> dict[Role, dict[str, float]]:
    """What several intervals grew by together."""
    found: dict[Role, dict[str, float]] = {}
    for growth in growths:
        for role, values in growth.items():
            pool = found.setdefault(role, {})
            for name, value in values.items():
                pool[name] = pool.get(name, 0.0) + value
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """A watch so far, as much as the evidence needs: growth together and gauges summed over intervals."""

    seconds: float = 0.0
    rounds: int = 0
    growth: Mapping[Role, Values] | None = None
    gauges: Mapping[Role, Values] | None = None

    def plus(self, one: Observed) -> Seen:
        return Seen(
            self.seconds + one.length_s,
            self.rounds + 1,
            total([self.growth or {}, one.growth]),
            total([self.gauges or {}, one.gauges]),
        )


WAITING = "vllm:num_requests_waiting"


def evidence(seen: Seen, system: System) -> Evidence:
    """The evidence of a watch of a P/D system. Raises KeyError when a pool was not seen."""
    growth, gauges = seen.growth or {}, seen.gauges or {}
    prefill, decode = growth["prefill"], growth["decode"]
    source = "vllm:prompt_tokens_by_source_total"
    transferred = decode.get(f"{source}[external_kv_transfer]", NAN)
    prompts = decode.get("vllm:request_prompt_tokens_sum", decode.get("vllm:prompt_tokens_total", 0.0))
    transfers = decode.get("vllm:nixl_bytes_transferred_count", 0.0)
    if not transfers:  # push: the prefill engines move the bytes, and count them
        transfers = prefill.get("vllm:nixl_bytes_transferred_count", 0.0)
    mover = decode if decode.get("vllm:nixl_bytes_transferred_count") else prefill
    kv_bytes = mover.get("vllm:nixl_bytes_transferred_sum", 0.0)
    steps = decode.get("vllm:iteration_tokens_total_count", 0.0)
    batch = decode.get("vllm:generation_tokens_total", 0.0) / steps if steps else NAN
    name = first_of(decode, ITL)
    spread = histogram(decode, name)
    lengths = (
        decode.get("vllm:request_prompt_tokens_sum", 0.0) + decode.get("vllm:request_generation_tokens_sum", 0) / 2
    )
    requests = decode.get("vllm:e2e_request_latency_seconds_count", 0.0)

    def gauge(role: Role, wanted: str) -> float:
        return gauges.get(role, {}).get(wanted, 0.0) / max(seen.rounds, 1)

    wire = system.wires.intra_node if system.wires else None
    alone = wire.setup_s + wire.latency_s + kv_bytes / transfers / wire.bandwidth if wire and transfers else NAN
    deferred = gauge("decode", f"{WAITING}_by_reason[deferred]")
    return Evidence(
        seconds=seen.seconds,
        requests=requests,
        prompts=prompts,
        computed=decode.get(f"{source}[local_compute]", NAN),
        transferred=transferred,
        prefilled=prefill.get(f"{source}[local_compute]", prefill.get("vllm:prompt_tokens_total", 0.0)),
        kv_bytes=kv_bytes,
        expected_bytes=prompts * system.kv_bytes_per_token,
        transfers=transfers,
        transfer_s=mover.get("vllm:nixl_xfer_time_seconds_sum", 0.0) / transfers if transfers else NAN,
        alone_s=alone,
        post_s=mover.get("vllm:nixl_post_time_seconds_sum", 0.0) / transfers if transfers else NAN,
        descriptors=mover.get("vllm:nixl_num_descriptors_sum", 0.0) / transfers if transfers else NAN,
        failed=sum(
            one.get(f"vllm:nixl_num_{what}_total", 0.0)
            for one in (prefill, decode)
            for what in ("failed_transfers", "kv_expired_reqs")
        ),
        gaps=Gaps(spread.mean, spread.quantile(0.5), spread.quantile(0.99)),
        plain_s=_plain(system, batch, lengths / requests if requests else NAN),
        batch=batch,
        prefill_waiting=gauge("prefill", WAITING),
        decode_waiting=max(0.0, gauge("decode", WAITING) - deferred),
        kv_waiting=deferred,
        decode_inside=gauge("decode", "vllm:num_requests_running") + gauge("decode", WAITING),
    )


def _plain(system: System, batch: float, context: float) -> float:
    """Seconds of a decode step without prompts, by the law."""
    if not (math.isfinite(batch) and math.isfinite(context)):
        return NAN
    size = max(1, round(batch))
    base, slope = system.pools[-1].profile.step.decode(size)
    return base + slope * size * context


def judge(one: Evidence) -> Verdict:
    """One sentence and what it stands on. The first of the cases whose evidence is there."""
    word = _word(one)
    return Verdict(word, _sentence(one, word), tuple(_facts(one)))


def _word(one: Evidence) -> Word:
    if one.requests < FEWEST or not one.prompts:
        return "not known"
    computed, came = one.computed_share, one.bytes_share
    if math.isnan(computed):
        computed = 1 - came  # an engine that does not say where its prompt tokens are from
    if computed > EVERYTHING and not one.transfers and one.prefilled > WAITS * one.prompts:
        return "the connector is off"
    if computed > COMPUTED:
        return "the decode engines prefill"
    if one.transfer_s > SLOW_LINK * one.alone_s and one.kv_waiting > WAITS * one.decode_inside:
        return "the link is overloaded"
    return "a true pair"


def _sentence(one: Evidence, word: Word) -> str:
    if word == "not known":
        return message(
            "Not known yet whether it is P/D: {seen} requests seen, {fewest} are needed.", number(one.requests), FEWEST
        )
    if word == "the connector is off":
        return message(
            "It is not P/D: the connector is off. Every prompt is computed twice, on a prefill engine and again on a"
            " decode engine, and no KV moves."
        )
    if word == "the decode engines prefill":
        return message(
            "It is P/D in part: decode engines compute {computed} of the prompt tokens themselves, and {stalled} of the"
            " time between tokens is stalls.",
            percent(one.computed_share),
            percent(one.gaps.stalled_share),
        )
    if word == "the link is overloaded":
        return message(
            "It is P/D, held up by its link: a transfer takes {each} ms, {times} times as long as alone, and {waiting}"
            " of {inside} requests on the decode engines wait for their KV.",
            number(one.transfer_s * 1e3),
            number(one.transfer_s / one.alone_s),
            number(one.kv_waiting),
            number(one.decode_inside),
        )
    return message(
        "It is P/D: decode engines compute {computed} of the prompt tokens, and {came} of the prompts' KV comes over"
        " the link.",
        percent(one.computed_share),
        percent(min(one.bytes_share, 1.0)),
    )


def _facts(one: Evidence) -> list[str]:
    found: list[str] = [
        message(
            "Prompt tokens on decode engines: {computed} computed, {transferred} transferred, of {prompts}; prefill"
            " engines computed {prefilled}.",
            number(one.computed),
            number(one.transferred),
            number(one.prompts),
            number(one.prefilled),
        )
    ]
    if one.transfers:
        found.append(
            message(
                "KV: {megabytes} MB moved, {share} of what the prompts have ({bytes} bytes a prompt token); a transfer"
                " takes {each} ms ({alone} by the plan's wire), {speed} each.",
                number(one.kv_bytes / 1e6),
                percent(one.bytes_share),
                number(one.kv_bytes / one.prompts),
                number(one.transfer_s * 1e3),
                number(one.alone_s * 1e3),
                _speed(one),
            )
        )
        found.append(
            message(
                "Posting: {post} ms a transfer of {descriptors} descriptors, {each} us each: {share} of the time.",
                number(one.post_s * 1e3),
                number(one.descriptors),
                number(one.post_each_s * 1e6),
                percent(one.post_share),
            )
        )
    gaps = one.gaps
    if math.isfinite(gaps.mean_s):
        found.append(
            message(
                "Gaps between tokens: mean {mean}, median {median}, p99 {p99} ms; a decode step of {batch} without"
                " prompts takes {plain} ms by the law. Stalls are {stalled} of the time.",
                number(gaps.mean_s * 1e3),
                number(gaps.median_s * 1e3),
                number(gaps.p99_s * 1e3),
                number(one.batch),
                number(one.plain_s * 1e3),
                percent(gaps.stalled_share),
            )
        )
    found.append(who_waits(one))
    if one.failed:
        found.append(message("{count} transfers failed or expired.", number(one.failed)))
    return found


def _speed(one: Evidence) -> str:
    return gigabytes(one.kv_bytes / one.transfers / one.transfer_s if one.transfer_s else NAN)


def who_waits(one: Evidence) -> str:
    """Who waits for whom, on average over the rounds."""
    if max(one.prefill_waiting, one.decode_waiting, one.kv_waiting) < 0.1:
        return message("Nobody waits: neither for a prefill engine nor for a decode engine.")
    return message(
        "Requests that wait, on average: {prefill} for a prefill engine, {room} for room on a decode engine, {kv} on a"
        " decode engine for their KV.",
        number(one.prefill_waiting),
        number(one.decode_waiting),
        number(one.kv_waiting),
    )


def from_aggregates(gaps: Gaps, plain_s: float | None = None) -> Verdict:
    """A published pair of which only its gaps between tokens are known. `plain_s`: a decode step without prompts.

    A decode engine that computes no prompts has gaps of one kind: its 99th percentile stays near its median.
    """
    usual = plain_s or gaps.median_s
    stalled, tail = gaps.stalled_share, gaps.p99_s / usual
    facts = (
        message(
            "(mean - median) / mean = {stalled} of the time between tokens is stalls; (mean - median) / p99: one in"
            " {count} gaps, if they last as p99.",
            percent(stalled),
            number(1 / gaps.stalls_a_token) if gaps.stalls_a_token else "inf",
        ),
        message("The p99 of {p99} ms is {times} times a usual step.", number(gaps.p99_s * 1e3), number(tail)),
    )
    if stalled > STALLED and tail > SLOW_LINK:
        text = message(
            "Its decode engines stall: {stalled} of the time between tokens. Engines that only decode do not; they"
            " compute prompts, or post transfers, between tokens.",
            percent(stalled),
        )
        return Verdict("the decode engines prefill", text, facts)
    return Verdict("a true pair", message("The gaps between tokens are those of engines that only decode."), facts)
