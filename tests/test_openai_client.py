"""The official Python client talks to the frontend without noticing a difference."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fake_engine import FakeEngine
from live.frontend import Frontend
from test_frontend import SPLIT, pair, served

openai = pytest.importorskip("openai")
Test = Callable[["openai.AsyncOpenAI"], Awaitable[None]]
MESSAGES = [{"role": "user", "content": "Why split prefill and decode?"}]


def with_client(test: Test, *, split: bool = False, engines: list[FakeEngine] | None = None, key: str = "none") -> None:
    async def main(frontend: Frontend, _: object) -> None:
        async with openai.AsyncOpenAI(base_url=f"{frontend.base_url}/v1", api_key=key, max_retries=0) as client:
            await test(client)

    engines = engines or (pair() if split else [FakeEngine("aggregated-0", max_prompt=50)])
    served(main, engines, SPLIT if split else {"mode": "aggregated"}, token="secret" if key != "none" else None)


@pytest.mark.parametrize("split", [False, True])
def test_chat_completions_and_finish_reasons(split: bool) -> None:
    async def test(client: openai.AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=5)
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].message.content == "w0 w1 w2 w3 w4 "
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
        answer = await client.chat.completions.create(model="fake", messages=MESSAGES, max_completion_tokens=100)
        assert answer.choices[0].finish_reason == "stop"
        text = await client.completions.create(model="fake", prompt="Once upon a time", max_tokens=4)
        assert (text.choices[0].text, text.choices[0].finish_reason) == ("w0 w1 w2 w3 ", "length")

    with_client(test, split=split)


@pytest.mark.parametrize("split", [False, True])
def test_streaming(split: bool) -> None:
    async def test(client: openai.AsyncOpenAI) -> None:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="fake", messages=MESSAGES, max_tokens=100, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).split()[-1] == "w11"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 12)
        stream = await client.completions.create(model="fake", prompt="Once", max_tokens=3, stream=True)
        plain = [chunk async for chunk in stream]
        assert [chunk.choices[0].finish_reason for chunk in plain] == [None, None, "length"]
        assert all(chunk.usage is None for chunk in plain)

    with_client(test, split=split)


def test_models_and_errors() -> None:
    async def test(client: openai.AsyncOpenAI) -> None:
        assert [model.id async for model in client.models.list()] == ["fake", "llama-3.1-8b"]
        with pytest.raises(openai.NotFoundError, match="'gpt' does not exist") as missing:
            await client.chat.completions.create(model="gpt", messages=MESSAGES)
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="longer than 50 tokens"):
            await client.completions.create(model="fake", prompt="word " * 60)
        with pytest.raises(openai.BadRequestError) as empty:
            await client.chat.completions.create(model="fake", messages=[])
        assert empty.value.param == "messages"

    with_client(test)


def test_server_errors() -> None:
    async def dead(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.InternalServerError, match="engine is dead"):
            await client.chat.completions.create(model="fake", messages=MESSAGES)

    with_client(dead, engines=[FakeEngine("aggregated-0", fail=500)])

    async def breaks(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=9, stream=True)
        seen = []
        with pytest.raises(openai.APIError, match="aggregated-0"):
            async for chunk in stream:
                seen.append(chunk)  # noqa: PERF401
        assert len(seen) == 4

    with_client(breaks, engines=[FakeEngine("aggregated-0", break_after=4)])


def test_overload_and_token() -> None:
    async def test(client: openai.AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=1)
        assert answer.choices[0].message.content == "w0 "
        stranger = client.with_options(api_key="wrong")
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()

    with_client(test, key="secret")

    async def crowd(frontend: Frontend, _: object) -> None:
        async with openai.AsyncOpenAI(base_url=f"{frontend.base_url}/v1", api_key="-", max_retries=0) as client:
            calls = [client.completions.create(model="fake", prompt="x", max_tokens=1) for _ in range(5)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(answer, openai.RateLimitError) for answer in answers) == 3

    served(crowd, [FakeEngine("aggregated-0", ttft_s=0.3)], {"mode": "aggregated", "router": {"max_queue": 2}})
