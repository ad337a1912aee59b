"""The frontend before two real vLLM servers on the CPU: KV events, documents, the official client."""

from __future__ import annotations

import asyncio
import importlib.util
import time
import warnings
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")
pytest.importorskip("openai")

import openai

from live.address import ServerAddress
from live.client import ClientOptions, run_load
from live.frontend import Frontend
from live.launch import LiveError, detect
from live.prompts import PromptMaker
from live.servers import Servers
from live.session import model_of
from planner.spec import parse
from planner.system.resolve import resolve
from planner.traffic import workload

pytestmark = pytest.mark.live

SPEC = """
name: documents
model: tiny
hardware: cpu
deployment: {mode: aggregated, replicas: 2, router: {policy: prefix_aware}}
engine: {dtype: float32, max_model_len: 4096, kv_cache_memory_bytes: 134217728}
retrieval: {workers: 2, top_k: 3, chunk_tokens: 300, popularity: {documents: 4, zipf_s: 1.0}}
workload: {kind: rag, rate: 2, requests: 12, system_tokens: 128, question_tokens: 40, output_tokens: 6}
"""


def test_events_documents_and_the_official_client(tmp_path: Path) -> None:
    try:
        runtime = detect()
    except (ImportError, LiveError) as error:
        pytest.skip(str(error))
    if runtime.kind != "cpu":
        pytest.skip("written for the CPU build")
    system = resolve(parse(SPEC, "test"))
    asyncio.run(scenario(system, runtime, tmp_path))


async def scenario(system: object, runtime: object, folder: Path) -> None:
    model = model_of(system)
    async with Servers(system, runtime, model, folder, kv_events=True) as servers:
        addresses = [ServerAddress(one.name, one.role, one.url, one.kv_events) for one in servers.workers]
        async with Frontend(system, addresses) as frontend:
            await asyncio.sleep(1)  # publishers connect to the subscriber in their own time
            await load_run(frontend, system)
            await known_prefix_is_what_the_engine_finds(frontend)
            async with openai.AsyncOpenAI(base_url=f"{frontend.base_url}/v1", api_key="-", max_retries=0) as client:
                await ask(client)


async def load_run(frontend: Frontend, system: object) -> None:
    result = await run_load([frontend.base_url], workload.build(system.spec), options=ClientOptions(rag=True))
    table = result.request_table(frontend.records())
    assert table["error"].isna().all()
    assert result.tokens().equal
    assert (table["retrieval_end_s"] > table["retrieval_start_s"]).all()
    assert set(table["worker"]) == {"aggregated-0", "aggregated-1"}
    assert table["cached_tokens"].sum() > 0


async def known_prefix_is_what_the_engine_finds(frontend: Frontend) -> None:
    """What the events say a worker holds is what it reports as cached when the prompt comes to it."""
    maker = PromptMaker(77, 32_000)
    prefix = maker.segment(1, 500)
    (pool,) = frontend.pools
    async with openai.AsyncOpenAI(base_url=f"{frontend.base_url}/v1", api_key="-", max_retries=0) as client:
        for number, length in enumerate((500, 500, 256, 129, 128, 60)):
            prompt = [*prefix[:length], *maker.segment(100 + number, 20)]
            held = {worker.name: pool.cached(worker, prompt) for worker in pool.workers}
            header = {"x-request-id": f"prefix-{number}"}
            answer = await client.completions.create(model="served", prompt=prompt, max_tokens=2, extra_headers=header)
            worker = frontend.records()[header["x-request-id"]].worker
            assert answer.usage.prompt_tokens_details.cached_tokens == held[worker], (number, held, worker)
            assert held[worker] == max(held.values())
            assert number == 0 or held[worker] == length // 128 * 128
            await asyncio.sleep(0.5)  # the events of this prompt come in
    seen = frontend.observations()
    assert seen["kv_event_age_s"]["batches"] > 5
    assert 0 < seen["kv_event_age_s"]["p50"] < 1
    assert (seen["kv_event_gaps"], seen["notes"]) == (0, [])


async def ask(client: object) -> None:
    question = [{"role": "user", "content": "What is Little's law?"}]
    answer = await client.chat.completions.create(model="tiny", messages=question, max_tokens=4)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 4)
    assert answer.model_extra["documents"][0].startswith("littles-law.md")
    stream = await client.chat.completions.create(model="tiny", messages=question, max_tokens=4, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    begin = time.monotonic()
    told = await client.chat.completions.create(
        model="tiny", messages=question, max_tokens=2, logprobs=True, top_logprobs=2
    )
    assert len(told.choices[0].logprobs.content) == 2
    print(f"first log probabilities after {time.monotonic() - begin:.1f} s")
    if importlib.util.find_spec("lmformatenforcer") is None:  # installed by hand, or by an install_cpu of before
        warnings.warn("lm-format-enforcer is not installed: JSON mode is not asked for", stacklevel=2)
    else:
        answer = await client.chat.completions.create(
            model="tiny", messages=question, max_tokens=8, response_format={"type": "json_object"}
        )
        assert answer.choices[0].message.content.lstrip().startswith("{")
    with pytest.raises(openai.BadRequestError, match="tool-call-parser"):  # a model of random weights calls nothing
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        await client.chat.completions.create(model="tiny", messages=question, tools=[tool])
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await client.completions.create(model="tiny", prompt="x" * 5000, extra_body={"retrieval": False})
