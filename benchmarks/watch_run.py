"""`planner watch` on real engines of this machine (vLLM's CPU build), on stacks whose truth is known.

    python benchmarks/watch_run.py CASE OUT [--minutes M] [--every S]

`changing` is one engine for 20 minutes, whose load doubles for a while and which is stopped for 75 % of the time later:
coverage of the intervals, refits, how soon changes are noticed, memory of the watch. The others are pairs that are what
they are called, for three minutes each. OUT gets the recording, the lines of the watch and summary.json.
`slow-link` needs the right to make a network namespace: its loopback is slowed down in there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from live.address import ServerAddress
from live.frontend import Frontend
from live.launch import MODEL_NAME, detect
from live.pd import prefill_body
from live.servers import Servers
from live.session import model_of, needs_kv_events, with_reported_blocks
from live.warmup import warm_up
from planner.spec import Spec, dump, load
from planner.system.resolve import resolve
from planner.watching.scrape import Head, Recorder, read_recording

SLICE_S = 0.1  # of which a throttled engine is stopped for STOPPED
STOPPED = 0.75
SETTLE_S = 30.0  # of load before the watch begins


@dataclass(frozen=True)
class Case:
    """`phases`: until which share of the time how many requests a second. `served`: what is really served otherwise."""

    config: str
    what: str  # for the recording's source
    phases: tuple[tuple[float, float], ...]
    prompts: tuple[int, ...] = (256,)
    outputs: int = 32
    minutes: float = 3.0
    sets: tuple[str, ...] = ()
    served: tuple[str, ...] = ()
    twice: bool = False  # both engines get the whole request, and nothing passes between them
    throttled: tuple[float, float] | None = None  # from which share of the time to which the last engine is held up
    link_mbit: int | None = None  # of the loopback
    changed: str | None = None  # a key of the plan, with which the engines are started again and watched as long


PAIR = ("model=tiny",)
TWO = "deployment={mode: aggregated, replicas: 2}"
CASES = {
    "changing": Case(
        "cpu-agg",
        "one engine; 1.5, from {change0} 3 and from {change1} 1.5 requests a second; from {throttle0} to {throttle1} it"
        " was stopped for 75 % of the time",
        ((0.3, 1.5), (0.5, 3.0), (1.0, 1.5)),
        minutes=20.0,
        sets=PAIR,
        throttled=(0.7, 0.85),
    ),
    "small-budget": Case(
        "cpu-agg",
        "one engine, started again with a token budget of 64",
        ((1.0, 1.0),),
        prompts=(512,),
        minutes=2.5,
        sets=PAIR,
        changed="engine.max_num_batched_tokens=64",
    ),
    "true-pair": Case("cpu-1p1d", "one prefill and one decode engine", ((1.0, 1.5),), sets=PAIR),
    "no-connector": Case(
        "cpu-1p1d",
        "one prefill and one decode engine without a KV connector: each prompt is sent to both",
        ((1.0, 1.5),),
        sets=PAIR,
        served=(TWO,),
        twice=True,
    ),
    "local-prefill": Case(
        "cpu-1p1d",
        "one prefill and one decode engine; the decode engine computes prompts of up to 300 tokens itself",
        ((1.0, 1.5),),
        prompts=(200, 600),
        sets=PAIR,
        served=("deployment.local_prefill.max_tokens=300",),
    ),
    "slow-link": Case(
        "cpu-1p1d",
        "one prefill and one decode engine on a loopback of 20 Mbit/s, which more KV is asked of than it carries",
        ((1.0, 0.9),),
        prompts=(1800,),
        outputs=16,
        sets=(*PAIR, "deployment.link={preset: cpu_tcp, bandwidth_gb_s: 0.0025}"),
        served=("deployment.link={preset: cpu_tcp}",),
        link_mbit=20,
    ),
}


def arrivals(case: Case, seconds: float) -> list[float]:
    """Poisson arrivals from -SETTLE_S on, 0 being the begin of the watch."""
    rng = np.random.default_rng(7)
    now, found = -SETTLE_S, []
    while now < seconds:
        rate = next(rate for share, rate in case.phases if now <= share * seconds)
        now += rng.exponential(1 / rate)
        found.append(now)
    return found


async def send(case: Case, seconds: float, begin: float, frontend: str, engines: Sequence[str], vocab: int) -> int:
    """Every request at its time; the number of failed ones."""
    rng = np.random.default_rng(8)
    failed = 0
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def post(url: str, body: dict[str, Any], name: str) -> None:
            async with http.post(f"{url}/v1/completions", json=body, headers={"x-request-id": name}) as answer:
                answer.raise_for_status()
                await answer.read()

        async def one(body: dict[str, Any], name: str) -> None:
            nonlocal failed
            try:
                if case.twice:
                    first = {k: v for k, v in prefill_body(body).items() if k != "kv_transfer_params"}
                    await post(engines[0], first, name)
                    await post(engines[1], body, name)
                else:
                    await post(frontend, body, name)
            except aiohttp.ClientError as error:
                failed += 1
                print(f"{name}: {error}", file=sys.stderr)

        async with asyncio.TaskGroup() as group:
            for number, at in enumerate(arrivals(case, seconds)):
                await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
                ids = rng.integers(300, vocab - 300, int(rng.choice(case.prompts))).tolist()
                body = {"model": MODEL_NAME, "prompt": ids, "max_tokens": case.outputs, "temperature": 0}
                group.create_task(one(body | {"ignore_eos": True}, f"watch-{os.getpid()}-{number}"))
    return failed


def below(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [one for child in children for one in (child, *below(child))]


async def hold_up(pid: int, begin: float, until: float) -> None:
    """Stop a server for STOPPED of the time."""
    await asyncio.sleep(max(0.0, begin - time.monotonic()))
    held = below(pid)
    try:
        while time.monotonic() < until:
            for number, share in ((signal.SIGSTOP, STOPPED), (signal.SIGCONT, 1 - STOPPED)):
                for one in held:
                    os.kill(one, number)
                await asyncio.sleep(share * SLICE_S)
    finally:
        for one in held:
            os.kill(one, signal.SIGCONT)


async def sample(watch: asyncio.subprocess.Process, every_s: float) -> list[dict[str, float]]:
    """Memory of the watch and load of the host while it runs."""
    found = []
    while watch.returncode is None:
        status = Path(f"/proc/{watch.pid}/status").read_text()
        rss = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
        found.append({"unix_s": time.time(), "rss_mb": rss / 1024, "load": os.getloadavg()[0]})
        try:
            await asyncio.wait_for(asyncio.shield(watch.wait()), every_s)
        except TimeoutError:
            continue
    return [one for one in found if one["rss_mb"]]


async def run(case: Case, out: Path, minutes: float, every_s: float, before: Path | None = None) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    plan = load(case.config, list(case.sets))
    (out / "config.yaml").write_text(dump(plan))
    spec = load(case.config, [*case.sets, *case.served, "run.step_records=false"])
    system, seconds = resolve(spec), minutes * 60
    servers = Servers(system, detect(), model_of(system), out / "logs", kv_events=needs_kv_events(system))
    async with servers:
        system = with_reported_blocks(system, servers.workers)
        addresses = [ServerAddress(one.name, one.role, one.url, one.kv_events) for one in servers.workers]
        vocab = system.model.vocab
        async with Frontend(system, addresses) as frontend:
            await warm_up(servers.workers, system, vocab, lambda _: None)
            begin = time.monotonic() + SETTLE_S
            zero = time.time() + SETTLE_S
            urls = [one.url for one in servers.workers]
            sending = asyncio.create_task(send(case, seconds, begin, frontend.base_url, urls, vocab))
            await asyncio.sleep(max(0.0, begin - time.monotonic()))
            watch = await start_watch(plan, out, urls, every_s, int(seconds // every_s), before)
            tasks: list[Awaitable[Any]] = [sample(watch, every_s), sending]
            if case.throttled is not None:
                first, last = (begin + share * seconds for share in case.throttled)
                tasks.append(hold_up(servers.workers[-1].pid, first, last))
            samples, failed, *_ = await asyncio.gather(*tasks)
            if await watch.wait():
                raise SystemExit(f"the watch ended with {watch.returncode}: {out}/watch.err")
    return summary(case, out, zero, seconds, samples, failed)


async def start_watch(
    plan: Spec, out: Path, urls: Sequence[str], every_s: float, count: int, before: Path | None
) -> asyncio.subprocess.Process:
    roles = [pool.role for pool in resolve(plan).pools]
    named = [f"--metrics={role}={url}" for role, url in zip(roles, urls, strict=True)]
    words = ["watch", str(out / "config.yaml"), *named, f"--every={every_s}", f"--intervals={count}", "--json"]
    words += [f"--record={out / 'raw.jsonl.gz'}", f"--out={out / 'intervals'}"]
    words += [] if before is None else [f"--before={before}"]
    with (out / "watch.jsonl").open("w") as lines, (out / "watch.err").open("w") as faults:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "planner.cli", *words, stdout=lines, stderr=faults
        )


# --- what came of it ---------------------------------------------------------------------------


def clock(unix_s: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(unix_s))


def summary(
    case: Case, out: Path, zero: float, seconds: float, samples: list[dict[str, float]], failed: int
) -> dict[str, Any]:
    lines = [json.loads(line) for line in (out / "watch.jsonl").read_text().splitlines()]
    intervals = [line for line in lines if "start_unix_s" in line]
    marks = {f"change{at}": zero + share * seconds for at, (share, _) in enumerate(case.phases[:-1])}
    marks |= {f"throttle{at}": zero + share * seconds for at, share in enumerate(case.throttled or ())}
    loads = [one["load"] for one in samples]
    what = case.what.format(**{name: clock(at) for name, at in marks.items()})
    busy = f"{os.cpu_count()} cores that other work shared, load average {min(loads):.0f} to {max(loads):.0f}"
    day = time.strftime("%Y-%m-%d", time.gmtime(zero))
    source = f"Own recording, Apache-2.0: vLLM {detect().version} on CPU ({busy}), random weights, {day} UTC: {what}."
    head, rounds = read_recording(out / "raw.jsonl.gz")
    with Recorder(out / "recording.jsonl.gz", Head(head.config, head.interval_s, source)) as recorder:
        for one in rounds:
            recorder.add(one)
    held = [inside for line in intervals for inside in judged(line)]
    quarter = max(1, len(samples) // 4)
    return {
        "source": source,
        "host": platform.processor() or platform.machine(),
        "intervals": len(intervals),
        "judged": len(held),
        "inside": sum(held),
        "coverage": sum(held) / len(held) if held else None,
        "marks": {name: clock(at) for name, at in marks.items()},
        "events": [[clock(line["end_unix_s"]), text] for line in intervals for text in line["events"]],
        "refits": sum("Refitted" in text for line in intervals for text in line["events"]),
        "rss_mb": [round(sum(one["rss_mb"] for one in part) / len(part), 1) for part in
                   (samples[at * quarter : (at + 1) * quarter] for at in range(4)) if part],
        "load_average": [min(loads), sum(loads) / len(loads), max(loads)],
        "failed_requests": failed,
        "pd": next((line["pd"] for line in lines if "pd" in line), None),
        "changed": next((line["changed"] for line in lines if "changed" in line), None),
    }  # fmt: skip


def judged(line: dict[str, Any]) -> list[bool]:
    """Whether each interval that was given held what was measured."""
    found = []
    for name in (key.removesuffix("_low") for key in line if key.endswith("_low")):
        low, high, measured = (line[f"{name}_{what}"] for what in ("low", "high", "measured"))
        if None not in (low, high, measured) and math.isfinite(measured):
            found.append(low <= measured <= high)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--every", type=float, default=10.0, help="seconds of an interval")
    parser.add_argument("--inside", action="store_true", help="in a network namespace of its own already")
    args = parser.parse_args()
    case: Case = CASES[args.case]
    if case.link_mbit is not None:
        if not args.inside:
            os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv, "--inside"])
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        rate = f"{case.link_mbit}mbit"
        shape = ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", rate, "burst", "256kb", "latency", "2s"]
        subprocess.run(shape, check=True)
    minutes = args.minutes or case.minutes
    before = None
    if case.changed is not None:
        before = args.out / "before" / "raw.jsonl.gz"
        asyncio.run(run(case, before.parent, minutes, args.every))
        case = replace(case, sets=(*case.sets, case.changed))
    found = asyncio.run(run(case, args.out, minutes, args.every, before))
    (args.out / "summary.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
