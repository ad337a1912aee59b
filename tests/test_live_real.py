"""Real vLLM servers on this machine, small enough for two cores: aggregated, 1P1D with real KV transfer, faults.

Weights are random from a seed and in float32, so that greedy tokens depend on the whole context and are equal
whenever the KV cache is. Two sets of servers are started, one after the other, each for all tests that need it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")

from live.launch import LiveError, Runtime, detect
from live.servers import CPU_START_MOST_S, Servers
from live.session import LiveSession, model_of
from planner.run.tables import Run
from planner.spec import Spec, parse
from planner.system.resolve import System, resolve
from planner.traffic import workload


def cpu_runtime() -> Runtime | None:
    try:
        found = detect()
    except (ImportError, LiveError):
        return None
    return found if found.kind == "cpu" and found.nixl else None


RUNTIME = cpu_runtime()
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(RUNTIME is None, reason="no CPU build of vLLM with NIXL: python -m live.install_cpu"),
]

REQUESTS = 24
SPEC = """
name: parity
model: tiny
hardware: cpu
deployment: {mode: aggregated, replicas: 1}
engine: {dtype: float32, max_model_len: 2048, max_num_batched_tokens: 512, kv_cache_memory_bytes: 134217728}
workload:
  kind: poisson
  rate: 4
  requests: 24
  prompt_tokens: {kind: empirical, values: [16, 127, 128, 129, 300, 513, 700]}
  output_tokens: 16
run: {sample_interval_s: 0.25}
"""
SPLIT_SPEC = SPEC.replace("{mode: aggregated, replicas: 1}", "{mode: disaggregated, link: {preset: cpu_shm}}")


def spec_of(**changes: str) -> Spec:
    text = SPEC
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse(text, "test")


def split_spec() -> Spec:
    return parse(SPLIT_SPEC, "test")


@contextlib.contextmanager
def session_of(spec: Spec, folder: Path) -> Iterator[LiveSession]:
    with LiveSession(resolve(spec), folder, weights_seed=0) as session:
        pids = [worker.pid for worker in session.workers]
        yield session
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "a server is still there"


@pytest.fixture(scope="module")
def aggregated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[int, list[int]], Run]:
    """A run of SPEC and its tokens; then a closed loop of one request at a time."""
    with session_of(spec_of(), tmp_path_factory.mktemp("aggregated")) as session:
        run = session.measure(workload.build(spec_of()))
        tokens = session.results[-1].answers()
        alone = session.measure(workload.build(ALONE), repeat=1)
    return run, tokens, alone


ALONE = parse(
    SPEC[: SPEC.index("workload:")]
    + "workload: {kind: concurrency, concurrency: 1, requests: 4, shared_prefix_tokens: 300, output_tokens: 5, "
    "prompt_tokens: {kind: empirical, values: [600, 1100, 1300]}}",
    "test",
)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSession]:
    with session_of(split_spec(), tmp_path_factory.mktemp("split")) as session:
        yield session


@pytest.fixture(scope="module")
def split_run(split: LiveSession) -> tuple[Run, dict[int, list[int]]]:
    run = split.measure(workload.build(split_spec()))
    return run, split.results[-1].answers()


# --- aggregated ----------------------------------------------------------------------------------


def test_aggregated_run_is_whole(aggregated: tuple[Run, dict[int, list[int]], Run]) -> None:
    requests = aggregated[0].requests
    assert len(requests) == REQUESTS
    assert set(requests["finish_reason"]) == {"length"}
    assert (requests["output_tokens"] == 16).all()
    order = ["arrival_s", "queued_s", "prefill_start_s", "prefill_end_s", "first_token_s", "finish_s"]
    for earlier, later in itertools.pairwise(order):
        assert (requests[earlier] <= requests[later]).all(), f"{earlier} after {later}"
    manifest = aggregated[0].manifest
    assert manifest["tokens"]["prompt_equal"] == manifest["tokens"]["output_equal"] == REQUESTS
    assert manifest["provenance"] == "measured"
    assert manifest["kv_blocks"]["aggregated"] == 255


def test_steps_hold_every_token_once(aggregated: tuple[Run, dict[int, list[int]], Run]) -> None:
    run = aggregated[0]
    computed = run.requests["prompt_tokens"].sum() - run.requests["cached_tokens"].sum()
    assert run.steps["prefill_tokens"].sum() == computed
    assert run.steps["decode_seqs"].sum() == (run.requests["output_tokens"] - 1).sum()
    assert (run.steps["prefill_tokens"] + run.steps["decode_seqs"] <= 512).all()


def test_step_composition_equals_the_simulators(aggregated: tuple[Run, dict[int, list[int]], Run]) -> None:
    """One request at a time: nothing is left to timing, so chunks, decodes, contexts and cache hits must agree."""
    from planner.backends import backend

    simulated = backend("simulate").run(resolve(ALONE), workload.build(ALONE))

    def composition(run: Run) -> list[tuple[int, int, int]]:
        columns = ("count", "prefill_tokens", "decode_seqs", "context_tokens")
        return [
            (prefill, decodes, context + step * decodes)
            for count, prefill, decodes, context in zip(*(run.steps[name] for name in columns), strict=True)
            for step in range(count)
        ]

    assert composition(aggregated[2]) == composition(simulated)
    assert list(aggregated[2].requests["cached_tokens"]) == list(simulated.requests["cached_tokens"])


# --- 1P1D ----------------------------------------------------------------------------------------


def test_decode_worker_computes_one_prompt_token_a_request(split_run: tuple[Run, dict[int, list[int]]]) -> None:
    run = split_run[0]
    counters = run.manifest["counters"]["decode-0"]
    assert counters["vllm:prompt_tokens_by_source_total[local_compute]"] == 0
    assert counters["vllm:prompt_tokens_by_source_total[external_kv_transfer]"] >= run.requests["prompt_tokens"].sum()
    assert counters["vllm:nixl_num_failed_transfers_total"] == 0
    steps = run.steps[run.steps["worker"] == "decode-0"]
    chunks = [chunk for text in steps["chunks"].dropna() for chunk in json.loads(text)]
    assert sorted(chunks) == sorted([1, n - 1] for n in run.requests["prompt_tokens"])
    assert (run.steps[run.steps["worker"] == "prefill-0"]["decode_seqs"] == 0).all()


def test_tokens_equal_the_aggregated_ones(
    split_run: tuple[Run, dict[int, list[int]]], aggregated: tuple[Run, dict[int, list[int]], Run]
) -> None:
    expected, got = aggregated[1], split_run[1]
    assert len(got) == REQUESTS
    assert got == expected
    assert len({tuple(tokens) for tokens in got.values()}) > REQUESTS // 2, "the model must depend on its prompt"


def test_transfers_are_whole_blocks_of_the_prompt(
    split_run: tuple[Run, dict[int, list[int]]], split: LiveSession
) -> None:
    run = split_run[0]
    per_block = 128 * split.system.kv_bytes_per_token
    moved = run.transfers.set_index("request_id")["bytes"]
    prompts = run.requests.set_index("request_id")["prompt_tokens"]
    assert (moved == -(-prompts // 128) * per_block).all()
    assert (run.transfers["end_s"] >= run.transfers["start_s"]).all()
    counted = run.manifest["counters"]["decode-0"]["vllm:nixl_bytes_transferred_sum"]
    assert counted >= moved.sum()


def test_a_wrong_kv_cache_changes_the_tokens(split: LiveSession) -> None:
    """Negative control: the decode worker is handed the KV of another prompt, and parity must break."""
    import asyncio
    import random

    import aiohttp

    from live.launch import MODEL_NAME
    from live.pd import decode_body, prefill_body

    prefill, decode = split.workers
    rng = random.Random("wrong")

    def body() -> dict[str, object]:
        ids = [rng.randrange(300, 31_000) for _ in range(300)]
        return {
            "model": MODEL_NAME,
            "prompt": ids,
            "max_tokens": 8,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }

    async def go() -> tuple[int, int]:
        async with aiohttp.ClientSession() as http:

            async def post(url: str, content: dict[str, object]) -> dict[str, object]:
                async with http.post(f"{url}/v1/completions", json=content) as answer:
                    assert answer.status == 200, await answer.text()
                    found: dict[str, object] = await answer.json()
                    return found

            async def tokens(content: dict[str, object], handed: dict[str, object]) -> list[int]:
                answer = await post(decode.url, decode_body(content, handed))
                return answer["choices"][0]["token_ids"]  # type: ignore[index,no-any-return]

            wrong_equal = right_equal = 0
            for _ in range(8):
                mine, other = body(), body()
                spoiled = await tokens(mine, await post(prefill.url, prefill_body(other)))
                truth = await post(prefill.url, {**mine})
                expected = truth["choices"][0]["token_ids"]  # type: ignore[index]
                wrong_equal += spoiled == expected
                fresh = body()
                right = await tokens(fresh, await post(prefill.url, prefill_body(fresh)))
                right_equal += right == (await post(prefill.url, {**fresh}))["choices"][0]["token_ids"]  # type: ignore[index]
            return wrong_equal, right_equal

    wrong_equal, right_equal = asyncio.run(go())
    assert right_equal == 8
    assert wrong_equal == 0


def test_pushed_kv_gives_the_same_tokens(aggregated: tuple[Run, dict[int, list[int]], Run], tmp_path: Path) -> None:
    """NixlPushConnector: the prefill worker writes into the decode worker's blocks, found by the request's id."""
    push = parse(SPLIT_SPEC.replace("preset: cpu_shm", "preset: cpu_shm, connector: NixlPushConnector"), "test")
    with session_of(push, tmp_path) as session:
        run = session.measure(workload.build(push))
        got = session.results[-1].answers()
    assert set(run.requests["finish_reason"]) == {"length"}
    assert got == aggregated[1]
    counters = run.manifest["counters"]
    assert counters["decode-0"]["vllm:prompt_tokens_by_source_total[local_compute]"] == 0
    moved = run.transfers["bytes"].sum()
    assert moved >= run.requests["prompt_tokens"].sum() * session.system.kv_bytes_per_token
    assert counters["prefill-0"]["vllm:nixl_bytes_transferred_sum"] >= moved  # whoever drives a transfer counts it


def test_a_watch_calls_the_pair_one(split: LiveSession, split_run: tuple[Run, dict[int, list[int]]]) -> None:
    """Its counters before and after a load, as planner watch reads them."""
    from live.scrape import Scraper
    from planner.watching.observe import observe
    from planner.watching.pd import Seen, evidence, judge
    from planner.watching.scrape import Round, Scrape

    def read(scraper: Scraper) -> Round:
        answers = zip(split.workers, scraper.read(), strict=True)
        found = [Scrape(one.time_s, worker.name, worker.role, one.values) for worker, one in answers if one]
        return Round(time.time(), tuple(found))

    with Scraper([worker.url for worker in split.workers]) as scraper:
        before = read(scraper)
        split.measure(workload.build(split_spec()), repeat=3)
        observed = observe(before, read(scraper))
    assert observed is not None
    assert observed.arrivals >= REQUESTS  # and the few with which the client finds out what the frontend takes
    found = evidence(Seen().plus(observed), split.system)
    assert judge(found).word == "a true pair", judge(found)
    assert found.transferred >= found.prompts > 0


# --- a driver that is stopped while its servers start -------------------------------------------------


def started_by(mark: str) -> list[int]:
    """Processes that got the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])  # SIGINT has the handler of SIGTERM
def test_stopped_while_servers_start(number: signal.Signals, tmp_path: Path) -> None:
    config, out = tmp_path / "pair.yaml", tmp_path / "run"
    config.write_text(SPLIT_SPEC)
    command = [sys.executable, "-m", "planner.cli", "live", str(config), "--out", str(out)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    logs = [out / "logs" / f"{name}.log" for name in ("prefill-0", "decode-0")]
    begin = time.monotonic()
    while not all(log.exists() and log.read_text().count("\n") > 3 for log in logs):  # vLLM has begun to speak
        assert driver.poll() is None
        assert time.monotonic() - begin < CPU_START_MOST_S
        time.sleep(0.2)
    mark = str(out)
    assert len(started_by(mark)) >= 6  # two servers, their watchdogs and guards
    driver.send_signal(number)
    begin = time.monotonic()
    said = driver.communicate(timeout=60)[1]
    while left := started_by(mark):
        assert time.monotonic() - begin < 60, left
        time.sleep(0.1)
    print(f"{number.name}: driver and servers gone after {time.monotonic() - begin:.1f} s")
    if number == signal.SIGKILL:
        return
    assert driver.returncode == 130
    assert said.splitlines()[-1] == "planner: interrupted"


# --- faults (last: they break the servers) ----------------------------------------------------------


def test_killed_decode_worker_loses_no_request(split: LiveSession, split_run: tuple[Run, dict[int, list[int]]]) -> None:
    victim = next(worker for worker in split.workers if worker.role == "decode")
    children = Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split()

    def kill(stage: str, done: float) -> None:
        if stage == "load" and done >= 0.25:
            while children:
                os.kill(int(children.pop()), signal.SIGKILL)

    begin = time.monotonic()
    run = split.measure(workload.build(split_spec()), repeat=2, progress=kill)
    assert not children
    assert time.monotonic() - begin < 120
    requests = run.requests
    assert len(requests) == REQUESTS
    assert requests["finish_reason"].isin(["length", "error", "rejected"]).all()
    failed = requests[requests["finish_reason"] != "length"]
    assert 0 < len(failed) < REQUESTS
    assert failed["error"].notna().all()
    assert any("decode-0 ended during the run" in warning for warning in run.manifest["warnings"])


def test_model_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    import asyncio

    system: System = resolve(spec_of())
    assert RUNTIME is not None
    runtime = RUNTIME

    async def go() -> None:
        extra = ("--max-model-len=8192", "--kv-cache-memory-bytes=8388608")
        async with Servers(system, runtime, model_of(system), tmp_path, extra=extra):
            pass

    begin = time.monotonic()
    with pytest.raises(LiveError, match="aggregated-0 did not start: the model does not fit") as error:
        asyncio.run(go())
    assert "\n" not in str(error.value)
    assert time.monotonic() - begin < CPU_START_MOST_S
