"""What clients should not do, and the hand-off by request id: the frontend answers, frees and goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from fake_engine import FakeEngine, system_of
from live import frontend as frontend_module
from live import openai_api
from live.frontend import Frontend
from live.servers import Worker
from live.warmup import warm_up
from test_frontend import PROMPT, SPLIT, pair, post, served

CHAT = {"messages": [{"role": "user", "content": "a b"}]}
ONE = {"mode": "aggregated"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"prompt": "a", "temperature": NaN}', "NaN is no JSON number"),
        (b'{"prompt": "a", "temperature": 1e999}', "1e999 is too large"),
        (b'{"prompt": "\\ud800"}', "not Unicode"),
        (b'{"prompt": 7}', "prompt must be one text or one list of token ids"),
        (b'{"prompt": []}', "prompt must be"),
        (b'{"prompt": [1, -5]}', "0 or more"),
        (b'{"prompt": [1, true]}', "prompt must be"),
        (b'{"prompt": ["a", "b"]}', "prompt must be"),
        (b'{"prompt": "a", "max_tokens": -1}', "max_tokens must be a whole number from 1 to 1000"),
        (b'{"prompt": "a", "max_tokens": 1000000000000000000000}', "max_tokens must be"),
        (b'{"prompt": "a", "max_tokens": 3.5}', "max_tokens must be"),
        (b'{"prompt": "a", "max_tokens": true}', "max_tokens must be"),
        (b'{"prompt": "a", "max_completion_tokens": "9"}', "max_completion_tokens must be"),
        (b'{"prompt": [' + b"1," * 1000 + b"1]}", "the prompt has 1001 tokens"),
        (b'{"prompt": "a", "n": 2}', "n must be 1"),
        (b'{"prompt": "a", "retrieval": "yes"}', "retrieval must be"),
        (b'{"prompt": "a", "retrieval": {"known_prefix_tokens": -1}}', "retrieval must be"),
        (b'{"prompt": "a", "stream_options": 1}', "stream_options must be"),
        (b'{"prompt": "a", "stream_options": {"include_usage": true}}', "stream_options go with stream"),
        (
            b'{"prompt": "a", "max_tokens": 5, "min_tokens": 6}',
            "min_tokens must be a whole number from 0 to max_tokens (5)",
        ),
        (b'{"prompt": "a", "min_tokens": -1}', "min_tokens must be"),
        (b'{"prompt": "a", "model": ["x"]}', "does not exist"),
    ],
)
def test_nonsense_is_refused_before_any_engine(raw: bytes, words: str) -> None:
    engines = pair()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        async with session.post("/v1/completions", data=raw) as response:
            answer = await response.json()
            assert response.status in (400, 404)
        assert words in answer["error"]["message"]
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert (await post(session, PROMPT))[0] == 200  # it still serves

    served(test, engines, SPLIT, top={"max_model_len": 1000})
    assert [len(engine.requests) for engine in engines] == [1, 1]


def test_strange_headers_and_questions_are_served() -> None:
    engine = FakeEngine()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        headers = {"x-session-id": "9" * 6000}  # beyond what Python turns into a number
        async with session.post("/v1/completions", json=PROMPT, headers=headers) as response:
            assert response.status == 200
        assert (await post(session, PROMPT | {"user": "\ud800"}))[0] == 200
        asked = {"messages": [{"role": "system", "content": "x"}], "retrieval": {"query": "decode"}}
        assert (await post(session, asked, "/chat"))[0] == 200  # nobody to give the documents to

    served(test, [engine], ONE, top={"retrieval": {"top_k": 2}})
    assert "documents" not in engine.requests[-1]


def test_what_the_decode_worker_refuses_the_prefill_worker_has_refused() -> None:
    """So that no prompt is read, and no KV kept, for an answer that cannot be."""
    engines = pair()
    for engine in engines:
        engine.refuse = {"logprobs"}

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, PROMPT | {"logprobs": 100_000})
        assert (status, answer["error"]["message"]) == (400, "unknown field logprobs")

    served(test, engines, SPLIT)
    assert [len(engine.requests) for engine in engines] == [1, 0]


def test_a_body_beyond_the_bound_is_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend_module, "MAX_BODY_BYTES", 1000)
    engine = FakeEngine()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, {"prompt": "a" * 2000})
        assert (status, answer["error"]["type"]) == (413, "invalid_request_error")

    frontend = served(test, [engine], ONE)
    assert [record.status for record in frontend.records().values()] == [413]
    assert not engine.requests


@pytest.mark.parametrize("late", [False, True])
def test_a_client_that_leaves_a_pair(late: bool) -> None:
    """While the prompt is read it ends at the prefill worker, in mid-stream at the decode worker; no ticket stays."""
    engines = pair()
    engines[0].ttft_s = 0.01 if late else 5.0
    engines[1].itl_s = 0.05

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        body = PROMPT | {"stream": True, "max_tokens": 200, "ignore_eos": True}
        if late:
            async with session.post("/v1/completions", json=body) as response:
                async for _ in response.content.iter_any():
                    break
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(post(session, body), 0.1)
        for _ in range(100):
            if engines[late].abandoned:
                break
            await asyncio.sleep(0.02)
        assert [engine.running for engine in engines] == [0, 0]
        assert [engine.abandoned for engine in engines] == [int(not late), int(late)]
        for crew in frontend.crews:
            assert not crew.workers[0].tickets
            assert crew.workers[0].load.active_blocks == 0

    frontend = served(test, engines, SPLIT)
    assert [record.status for record in frontend.records().values()] == [499]
    assert len(engines[1].requests) == int(late)


@pytest.mark.parametrize("retrieval", [False, True])
def test_two_hundred_at_once_with_a_bound(retrieval: bool) -> None:
    """No more than the bound wait at the engine, also when all of them came while none had been routed yet."""
    engine = FakeEngine(ttft_s=1.0)

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        body = CHAT | {"max_tokens": 5, "stream": False}
        answers = await asyncio.gather(*(post(session, body, "/chat") for _ in range(200)))
        statuses = [status for status, _ in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) == len(engine.requests) >= 32
        async with session.get("/metrics") as response:
            assert 'planner_requests_total{path="/v1/chat/completions",status="429"}' in await response.text()
        assert (await post(session, body, "/chat"))[0] == 200  # and it serves on

    top = {"retrieval": {"top_k": 1}} if retrieval else {}
    frontend = served(test, [engine], ONE | {"router": {"max_queue": 32}}, top=top)
    assert engine.most_running == 32
    records = list(frontend.records().values())
    assert len(records) == 201
    assert all(record.finish_s is not None and (record.status == 200) == (record.error is None) for record in records)


def test_a_pushing_prefill_worker_finds_the_decode_worker() -> None:
    """Both engines get one id for a request, and no two requests ever share one, whatever the client sends."""
    engines = pair()
    engines[1].pushed_by = engines[0]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        async def ask(prompt: int) -> str:
            body = {"prompt": [prompt] * 20, "max_tokens": 3}
            async with session.post("/v1/completions", json=body, headers={"x-request-id": "mine"}) as response:
                assert response.status == 200
                return response.headers["x-request-id"]

        ids = await asyncio.wait_for(asyncio.gather(*map(ask, range(5))), 5)
        ids.append(await asyncio.wait_for(ask(9), 5))  # after the others: their blocks may still be kept
        assert len(set(ids)) == 6
        assert ids.count("mine") == 1

    served(test, engines, SPLIT)
    first = dict(zip(engines[0].ids, (body["prompt"] for body in engines[0].requests), strict=True))
    second = dict(zip(engines[1].ids, (body["prompt"] for body in engines[1].requests), strict=True))
    assert len(first) == 6
    assert first == second


def test_the_warm_up_of_a_pushing_pair_ends() -> None:
    engines = pair()
    engines[1].pushed_by = engines[0]

    async def main() -> None:
        async with engines[0], engines[1]:
            workers: Any = [
                SimpleNamespace(name=one.name, role=one.role, url=one.url, log=Path("none")) for one in engines
            ]
            typed: list[Worker] = workers
            await asyncio.wait_for(warm_up(typed, system_of(SPLIT), 500, lambda _done: None), 10)

    asyncio.run(main())
    assert len(engines[0].ids) == len(set(engines[0].ids)) == 10
    assert sorted(engines[0].ids) == sorted(engines[1].ids)


@pytest.mark.parametrize(
    "field", ["kv_transfer_params", "priority", "cache_salt", "request_id", "vllm_xargs", "a_field_of_tomorrow"]
)
@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_what_is_not_the_clients_to_say_is_refused(field: str, kind: str) -> None:
    body = {"prompt": [5, 6, 7], "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    body.pop("messages" if kind == "completions" else "prompt")
    fine = json.dumps(body).encode()
    assert openai_api.parse(kind, fine, {}, ["m"]).body["max_tokens"] == 3  # type: ignore[arg-type]
    with pytest.raises(openai_api.ApiError, match=field):
        openai_api.parse(kind, json.dumps(body | {field: {"do_remote_prefill": True}}).encode(), {}, ["m"])  # type: ignore[arg-type]
