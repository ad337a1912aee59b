"""Inputs for one engine: the named cases that are recorded from vLLM, and random ones."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from engine_replay import Case, Job, LinearLaw
from planner.system.resolve import EngineLimits
from planner.traffic.requests import Request, Segments


def limits_of(**changes: Any) -> EngineLimits:
    base = EngineLimits(max_num_batched_tokens=512, max_num_seqs=16, block_size=16, kv_blocks=400, max_model_len=4096)
    return dataclasses.replace(base, **changes)


class Draw:
    """Random requests with content that may be shared."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.next_content = 1000

    def content(self) -> int:
        self.next_content += 1
        return self.next_content

    def plain(self, prompt: int, output: int, spare: int = 0) -> Request:
        return self.of(((self.content(), prompt),), 0, output, spare)

    def of(
        self,
        segments: list[tuple[int, int]] | Segments,
        shared: int,
        output: int,
        spare: int = 0,
        answer_shared: bool = False,
    ) -> Request:
        prompt = sum(size for _, size in segments)
        number = self.content()
        return Request(
            request_id=number, session_id=number, prompt_tokens=prompt, output_tokens=output,
            max_tokens=output + spare, segments=tuple(segments), shared_tokens=shared, output_content=-number,
            output_shared=answer_shared,
        )  # fmt: skip

    def jobs(self, requests: list[Request], rate: float, modes: tuple[str, ...] = ("full",)) -> tuple[Job, ...]:
        rng, now, jobs = self.rng, 0.0, []
        for request in requests:
            mode = rng.choice(modes)
            jobs.append(Job(now, request, mode, rng.expovariate(50.0) if mode != "full" else 0.0))
            if rng.random() > 0.2:  # some arrive together with the one before
                now += rng.expovariate(rate)
        return tuple(jobs)

    def many(self, count: int, prompt: tuple[int, int], output: tuple[int, int], spare: bool) -> list[Request]:
        rng = self.rng
        return [
            self.plain(rng.randint(*prompt), rng.randint(*output), rng.choice((0, 5)) if spare else 0)
            for _ in range(count)
        ]

    def prefixed(
        self, count: int, prefixes: int, prefix: tuple[int, int], tail: tuple[int, int], output: tuple[int, int]
    ) -> list[Request]:
        """Prompts of one or two of a few segments, whole or cut short, and a private or a repeated tail."""
        rng = self.rng
        pool = [(self.content(), rng.randint(*prefix)) for _ in range(prefixes)]
        tails = [(self.content(), rng.randint(*tail)) for _ in range(3)]
        requests = []
        for _ in range(count):
            segments = [rng.choice(pool) for _ in range(rng.randint(1, 2))]
            if rng.random() < 0.3:
                segments[-1] = (segments[-1][0], rng.randint(1, segments[-1][1]))
            shared = sum(size for _, size in segments)
            if rng.random() < 0.4:
                segments.append(rng.choice(tails))
                shared += segments[-1][1]
            elif rng.random() < 0.9:
                segments.append((self.content(), rng.randint(*tail)))
            requests.append(self.of(segments, shared, rng.randint(*output)))
        return requests


Jobs = Callable[[Draw], tuple[Job, ...]]


def sessions(draw: Draw, count: int, turns: int, rate: float, gap_s: float, scale: int = 100) -> tuple[Job, ...]:
    """Chats: each turn repeats the history with its answers; turns come well after the answer before."""
    rng, jobs = draw.rng, []
    system = (draw.content(), rng.randint(scale // 4, scale))
    start = 0.0
    for _ in range(count):
        start += rng.expovariate(rate)
        history: list[tuple[int, int]] = [system]
        for turn in range(turns):
            history = [*history, (draw.content(), rng.randint(1, scale))]
            request = draw.of(history, sum(size for _, size in history), rng.randint(1, scale), 0, True)
            jobs.append(Job(start + turn * gap_s, request))
            history = [*history, (request.output_content, request.output_tokens)]
    return tuple(sorted(jobs, key=lambda job: job.time_s))


def named_cases() -> list[Case]:
    """The cases whose oracle is kept in tests/data/oracle."""
    cases: list[Case] = []
    few, many = (1, 60), (20, 200)

    def case(name: str, limits: EngineLimits, jobs: Callable[[Draw], tuple[Job, ...]]) -> None:
        cases.append(Case(name, limits, jobs(Draw(len(cases) + 1))))

    def plain(count: int, prompt: tuple[int, int], output: tuple[int, int], rate: float, spare: bool = False) -> Jobs:
        return lambda draw: draw.jobs(draw.many(count, prompt, output, spare), rate)

    def prefixed(count: int, prefixes: int, prefix: tuple[int, int], rate: float, *modes: str) -> Jobs:
        return lambda draw: draw.jobs(draw.prefixed(count, prefixes, prefix, (1, 100), few), rate, modes or ("full",))

    def chats(draw: Draw) -> tuple[Job, ...]:
        return sessions(draw, 8, 4, 2.0, 4.0)

    remote = ("remote", "remote", "full")
    gpu = limits_of(max_num_batched_tokens=8192, max_num_seqs=1024, kv_blocks=27000, max_model_len=32768)
    whole = limits_of(chunked_prefill=False, max_num_batched_tokens=1024, max_model_len=1024)
    case("chunking", limits_of(), plain(30, (1, 1500), (1, 40), 20))
    case("preemption", limits_of(kv_blocks=60), plain(40, (10, 200), many, 60))
    case("preemption-no-cache", limits_of(kv_blocks=60, prefix_caching=False), plain(40, (10, 200), many, 60))
    case("prefix-hits", limits_of(kv_blocks=2000), prefixed(60, 4, (50, 400), 20))
    case("prefix-evictions", limits_of(kv_blocks=90), prefixed(80, 6, (50, 400), 30))
    case("full-kv", limits_of(kv_blocks=40), plain(40, (300, 600), (1, 20), 50))
    case(
        "mixed-lengths", limits_of(max_num_batched_tokens=256, kv_blocks=1000), plain(60, (1, 1000), (1, 120), 30, True)
    )
    case("gpu-limits", gpu, plain(120, (500, 9000), (20, 80), 12))
    case("no-chunks", whole, plain(50, (1, 800), few, 30))
    case("watermark", limits_of(kv_blocks=80, watermark_blocks=8), plain(50, (10, 300), (20, 100), 50))
    case("long-prefill-threshold", limits_of(long_prefill_token_threshold=100), plain(40, (1, 900), few, 30))
    tight = limits_of(long_prefill_token_threshold=60, max_num_batched_tokens=128)
    case("long-prefill-over-budget", tight, plain(40, (1, 600), few, 30))
    wide = limits_of(block_size=128, kv_blocks=40, max_num_batched_tokens=2048)
    case("block-128", wide, prefixed(60, 4, (100, 900), 20))
    case("multi-turn", limits_of(kv_blocks=600), chats)
    case("multi-turn-evictions", limits_of(kv_blocks=70), chats)
    case("first-chunk-admission", limits_of(reserve_full_prompt=False, kv_blocks=120), plain(40, (100, 1500), few, 30))
    case("few-places", limits_of(max_num_seqs=4), plain(40, (1, 600), few, 30))
    case("decode-side", limits_of(kv_blocks=150), prefixed(60, 4, (50, 300), 40, *remote))
    case("decode-side-preemption", limits_of(kv_blocks=50), prefixed(80, 6, (50, 300), 200, *remote))
    case("prefill-side", limits_of(kv_blocks=60), prefixed(60, 4, (50, 300), 200, "prefill_only"))
    case("async", limits_of(kv_blocks=1000, async_scheduling=True), plain(40, (10, 300), (1, 150), 40, True))
    case("async-preemption", limits_of(kv_blocks=60, async_scheduling=True), plain(40, (10, 300), (1, 150), 40, True))
    case("async-multi-turn", limits_of(kv_blocks=70, async_scheduling=True), chats)
    case(
        "async-prefill-side",
        limits_of(kv_blocks=60, async_scheduling=True),
        prefixed(60, 4, (50, 300), 200, "prefill_only"),
    )
    tight = limits_of(kv_blocks=50, async_scheduling=True)
    case("async-decode-side", tight, prefixed(80, 6, (50, 300), 200, *remote))
    return cases


def random_case(seed: int, kind: str) -> Case:
    rng = random.Random(seed)
    d = Draw(seed)
    size = rng.choice((1, 2, 4, 16, 16, 16, 32, 128))
    chunked = rng.random() < 0.85
    longest = rng.choice((200, 600, 1500))
    budget = rng.choice((64, 128, 256, 512, 1024, 2048)) if chunked else 2048
    limits = EngineLimits(
        max_num_batched_tokens=budget,
        max_num_seqs=min(budget, rng.choice((1, 2, 4, 16, 64, 256))),
        block_size=size,
        kv_blocks=max(2, int((longest + 200) / size * rng.choice((1.1, 1.5, 3, 10))) + 2),
        max_model_len=2048,
        prefix_caching=rng.random() < 0.8,
        chunked_prefill=chunked,
        async_scheduling="async" in kind,
        long_prefill_token_threshold=rng.choice((0, 0, 0, 20, 50, 200)),
        reserve_full_prompt=rng.random() < 0.7,
        watermark_blocks=rng.choice((0, 0, 0, 1, 3)),
    )
    outputs = rng.choice(((1, 3), (1, 60), (30, 200)))
    count = rng.randint(2, 40)
    rate = rng.choice((5.0, 30.0, 200.0, 5000.0))
    modes: tuple[str, ...] = ("full",)
    if "decode" in kind:
        modes = ("remote", "remote", "full")
    elif "prefill" in kind:
        modes = ("prefill_only",)
    style = rng.random()
    if style < 0.3:
        jobs = d.jobs(d.many(count, (1, longest), outputs, True), rate, modes)
    elif style < 0.8:
        part = (1, max(2, longest // 3))
        jobs = d.jobs(d.prefixed(count, rng.randint(1, 6), part, part, outputs), rate, modes)
    else:
        jobs = sessions(d, rng.randint(1, 8), rng.randint(1, 4), rng.choice((1.0, 5.0)), 15.0, min(100, longest // 4))
        if modes != ("full",):
            jobs = tuple(dataclasses.replace(j, mode=rng.choice(modes), transfer_s=rng.expovariate(50.0)) for j in jobs)
    step = rng.choice((1e-3, 5e-3, 2e-2))
    return Case(f"random-{kind}-{seed}", limits, jobs, LinearLaw(step=step))
