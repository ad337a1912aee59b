"""What clients should not do, and the hand-off by request id: the frontend answers, frees and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from fake_engine import FakeEngine, system_of, until
from live import bodies, fleet, openai_api, proxy
from live import frontend as frontend_module
from live.frontend import Frontend
from live.servers import ReadyServer
from live.warmup import warm_up
from test_frontend import PROMPT, SPLIT, chunks, pair, post, served

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
        (b'{"prompt": ["a", 7]}', "prompt must be"),
        (b'{"prompt": ["a", "b", []]}', "prompt must be"),
        (b'{"prompt": [' + b'"a",' * 64 + b'"a"]}', "65 prompts in one request; allowed: 64"),
        (b'{"prompt": "a", "n": 100000}', "n must be a whole number from 1 to 128"),
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


def test_a_body_beyond_the_bound_is_413() -> None:
    """The bound is what the model's context can need."""
    engine = FakeEngine()
    limit = openai_api.body_limit(1000)

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        fits = json.dumps(PROMPT).encode().ljust(limit - 1)
        async with session.post("/v1/completions", data=fits) as response:
            assert response.status == 200
        for size in (limit + 1, 4 * limit):
            async with session.post("/v1/completions", data=fits.ljust(size)) as response:
                answer = await response.json()
                assert (response.status, answer["error"]["type"]) == (413, "invalid_request_error")

    frontend = served(test, [engine], ONE, top={"max_model_len": 1000})
    assert [record.status for record in frontend.records().values()] == [200, 413, 413]
    assert len(engine.requests) == 1


def test_the_bound_of_a_body() -> None:
    assert openai_api.body_limit(1000) == 64_000 + 2**20
    assert openai_api.body_limit(10**7) == 64 * 2**20
    longest = 131_072  # a prompt of as many ids fits, however large they are
    assert len(json.dumps({"prompt": [10**6] * longest})) < openai_api.body_limit(longest)


@pytest.mark.parametrize("late", [False, True])
def test_a_client_that_leaves_a_pair(late: bool) -> None:
    """While the prompt is read it ends at the prefill worker, in mid-stream at the decode worker; no ticket stays."""
    engines = pair()
    engines[0].held = not late
    engines[1].itl_s = 0.05

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        body = PROMPT | {"stream": True, "max_tokens": 100_000, "ignore_eos": True}
        if late:
            async with session.post("/v1/completions", json=body) as response:
                async for _ in response.content.iter_any():
                    break
        else:
            call = asyncio.create_task(post(session, body))
            await until(lambda: engines[0].running)
            call.cancel()
        pools = frontend.pools
        await until(lambda: engines[late].abandoned and not any(pool.workers[0].tickets for pool in pools))
        assert [engine.running for engine in engines] == [0, 0]
        assert [engine.abandoned for engine in engines] == [int(not late), int(late)]
        assert [pool.workers[0].load.active_blocks for pool in pools] == [0, 0]

    frontend = served(test, engines, SPLIT)
    assert [record.status for record in frontend.records().values()] == [499]
    assert len(engines[1].requests) == int(late)


@pytest.mark.parametrize("retrieval", [False, True])
def test_two_hundred_at_once_with_a_bound(retrieval: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the bound wait at the engine, also when all of them came while none had been routed yet."""
    engine = FakeEngine(ttft_s=1.0)
    monkeypatch.setattr(fleet, "POLL_S", 60.0)  # this engine says that nobody waits

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
            typed: list[ReadyServer] = workers
            await asyncio.wait_for(warm_up(typed, system_of(SPLIT), 500, lambda _done: None), 10)

    asyncio.run(main())
    assert len(engines[0].ids) == len(set(engines[0].ids)) == 10
    assert sorted(engines[0].ids) == sorted(engines[1].ids)


# What vLLM takes that is not a client's to say: where KV lies, whose turn it is, what is cached, which code runs.
INTERNAL = {
    "kv_transfer_params": {"do_remote_prefill": True},
    "ec_transfer_params": {"a": 1},
    "priority": -5,
    "cache_salt": "x",
    "request_id": "x",
    "session_id": "x",
    "vllm_xargs": {"kv_transfer_params": 1},
    "logits_processors": ["os.system"],
    "prompt_embeds": "AAAA",
    "chat_template": "{{ x }}",
    "mm_processor_kwargs": {},
    "media_io_kwargs": {},
    "stream_interval": 4,
    "a_field_of_tomorrow": None,
}
DEPLOYMENTS = [ONE, SPLIT, SPLIT | {"local_prefill": {"max_tokens": 1000}}]
OURS = {"completions": {"prompt": [5, 6, 7, 8, 9], "max_tokens": 3}, "chat": CHAT | {"max_tokens": 3}}


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_the_clients_to_say_reaches_no_engine(deployment: dict[str, Any], stream: bool) -> None:
    engines = [FakeEngine()] if deployment is ONE else pair()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        for kind, path in (*openai_api.PATHS.items(), ("chat", "/chat")):
            for name, value in INTERNAL.items():
                async with session.post(path, json=OURS[kind] | {"stream": stream, name: value}) as response:
                    answer = await response.json()
                assert (response.status, answer["error"]["param"]) == (400, name)
                assert name in answer["error"]["message"]
                assert "\n" not in answer["error"]["message"]

    frontend = served(test, engines, deployment)
    assert not any(engine.requests for engine in engines)
    assert {record.status for record in frontend.records().values()} == {400}


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_engines_get_what_is_allowed_and_the_frontends_own(
    deployment: dict[str, Any], stream: bool, kind: openai_api.Kind
) -> None:
    engines = [FakeEngine()] if deployment is ONE else pair()
    # Fields that the frontend itself reads have values of their own, all others any.
    read = {"model": "fake", "n": 1, "best_of": 1, "max_completion_tokens": 3, "min_tokens": 0, "retrieval": False}
    body = dict.fromkeys(openai_api.PASSED[kind]) | read | OURS[kind] | {"temperature": 0.5, "stream": stream}
    body = {name: value for name, value in body.items() if name in openai_api.PASSED[kind]}

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        assert (await post(session, body, openai_api.PATHS[kind]))[0] == 200

    served(test, engines, deployment)
    got = [(engine.role, sent) for engine in engines for sent in engine.requests]
    assert [role for role, _ in got] == (["prefill", "decode"] if deployment is SPLIT else [engines[-1].role])
    for role, sent in got:
        handed = {"kv_transfer_params"} if deployment is SPLIT else set()
        assert sent.keys() - openai_api.PASSED[kind] == handed
        assert "retrieval" not in sent
        if role != "prefill":
            assert sent.keys() - handed == openai_api.PASSED[kind] - {"retrieval"}


def _openai_fields(kind: openai_api.Kind) -> set[str]:
    pytest.importorskip("openai", reason="the OpenAI client is not installed")
    from openai.types import completion_create_params as completions
    from openai.types.chat import completion_create_params as chat

    module: Any = {"completions": completions, "chat": chat}[kind]
    return {
        *module.CompletionCreateParamsNonStreaming.__annotations__,
        *module.CompletionCreateParamsStreaming.__annotations__,
        *module.CompletionCreateParamsBase.__annotations__,
    }


@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_all_of_openais_fields_are_passed(kind: openai_api.Kind) -> None:
    fields = _openai_fields(kind)
    assert len(fields) > 15
    assert fields <= openai_api.PASSED[kind]


@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_what_is_passed_is_openais_or_in_vllms_schema(kind: openai_api.Kind) -> None:
    """A name that neither has would be a mistake here, or vLLM gave it up."""
    where = "completion" if kind == "completions" else "chat_completion"
    why = "vllm is not installed: nothing to compare with"
    module: Any = pytest.importorskip(f"vllm.entrypoints.openai.{where}.protocol", reason=why, exc_type=ImportError)
    schema = module.CompletionRequest if kind == "completions" else module.ChatCompletionRequest
    older = {"best_of", "guided_json", "guided_regex", "guided_choice", "guided_grammar"}
    ours = {"retrieval", "max_completion_tokens", "user", "metadata", "store"}  # on both routes, in every version
    fields = set(schema.model_fields)
    assert openai_api.PASSED[kind] - fields - _openai_fields(kind) - older - ours == set()
    assert {"kv_transfer_params", "priority", "cache_salt", "request_id"} <= fields - openai_api.PASSED[kind]


@pytest.mark.parametrize(
    "given", [b"Bearer \xff\xfe", "Bearer sécret".encode(), "Bearer sécret".encode("latin-1"), b"\x80"]
)
def test_a_token_that_is_not_ascii_is_401(given: bytes) -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        head, body = await _raw(frontend, b"authorization: " + given)
        assert b" 401 " in head
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
        assert b" 200 " in (await _raw(frontend, b"authorization: Bearer secret"))[0]

    served(test, [FakeEngine()], ONE, token="secret")


def test_a_request_id_that_no_header_can_carry_is_replaced() -> None:
    engines = pair()
    engines[1].pushed_by = engines[0]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        for name in (b"\xff\xe9", "é".encode(), b"a\tb"):
            head, _ = await asyncio.wait_for(_raw(frontend, b"x-request-id: " + name), 5)
            assert b" 200 " in head

    served(test, engines, SPLIT)
    assert engines[0].ids == engines[1].ids
    assert all(len(name) == 32 for name in engines[0].ids)


async def _raw(frontend: Frontend, header: bytes) -> tuple[bytes, bytes]:
    """First line and body of the answer to a request with a header that HTTP clients would not send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(frontend.base_url.rsplit(":", 1)[1]))
    body = json.dumps(PROMPT).encode()
    rest = b"\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(b"POST /v1/completions HTTP/1.1\r\n" + header + rest + body)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.splitlines()[0], body


NESTED: list[tuple[dict[str, Any], str]] = [
    ({"stream": True, "stream_options": {"include_usage": True, "kv_transfer_params": {}}}, "stream_options"),
    ({"response_format": {"type": "text", "_backend": "x"}}, "response_format"),
    ({"structured_outputs": {"json": {}, "_backend": "x"}}, "structured_outputs"),
    ({"chat_template_kwargs": {"chat_template": "{{ x }}"}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"x": {"y": 1}}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": 7}, "chat_template_kwargs"),
    ({"messages": [{"role": "user", "content": "a", "priority": 1}]}, "messages"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages",
    ),
    ({"messages": [{"role": "user", "content": [{"image_url": {"url": "http://10.0.0.1/"}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "video_url": "x"}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}, "messages"),
]


def test_nested_fields_are_on_a_list_too() -> None:
    engine = FakeEngine()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        for more, param in NESTED:
            async with session.post("/chat", json=CHAT | more) as response:
                error = (await response.json())["error"]
                assert (response.status, error["param"]) == (400, param), (more, error)
                assert "\n" not in error["message"]
        assert engine.requests == []
        good = [
            {"stream": True, "stream_options": {"include_usage": True}},
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"_any": 1}}}},
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]},
        ]
        for more in good:
            assert (await post(session, CHAT | more, "/chat"))[0] == 200
        assert len(engine.requests) == len(good)

    served(test, [engine], ONE)


def test_large_bodies_hold_up_no_stream() -> None:
    """A megabyte of ids is parsed elsewhere: the loop goes on, the engine gets them, and a refusal is a refusal."""
    engine = FakeEngine(itl_s=0.005, natural=10**6)
    gaps: list[float] = []

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        ids = json.dumps({"prompt": [7] * 600_000, "max_tokens": 2}).encode()
        many = json.dumps({"prompt": [7] * 2_000_000}).encode()
        assert len(ids) > bodies.LARGE_BYTES
        async with session.post("/v1/completions", data=ids) as response:  # starts the other process
            assert response.status == 200

        async def tick() -> None:
            loop = asyncio.get_running_loop()
            while True:
                before = loop.time()
                await asyncio.sleep(0.002)
                gaps.append(loop.time() - before)

        parsing = asyncio.create_task(tick())
        async with session.post("/v1/completions", data=many) as response:
            assert response.status == 400
            assert "2000000 tokens" in (await response.json())["error"]["message"]
        parsing.cancel()

    served(test, [engine], ONE, top={"max_model_len": 1_000_000})
    assert engine.requests[0]["prompt"] == [7] * 600_000
    assert max(gaps) < 0.15  # in the loop itself it takes 0.3 s and more


def test_connections_that_send_nothing_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend_module, "HEADER_S", 0.5)
    monkeypatch.setattr(frontend_module, "IDLE_S", 0.5)
    monkeypatch.setattr(frontend_module, "BODY_S", 0.5)
    engine = FakeEngine(ttft_s=1.5)

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        port = int(frontend.base_url.rsplit(":", 1)[1])

        async def held(first: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(first)
            try:
                return await asyncio.wait_for(reader.read(), 12)
            finally:
                writer.close()

        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
        started = asyncio.get_running_loop().time()
        half = [
            head + b"content-length: 100\r\n\r\n{",
            b"",
            b"POST /v1",
            head,
            b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
        ]
        answers = await asyncio.gather(*(held(first) for first in half * 20))
        assert asyncio.get_running_loop().time() - started < 12  # on a busy machine; HEADER_S is 15 else
        assert all(b" 408 " in answer for answer in answers[::5])
        assert all(answer == b"" for index in (1, 2, 3) for answer in answers[index::5])
        assert all(b" 200 " in answer for answer in answers[4::5])
        assert (await post(session, PROMPT))[0] == 200  # a request that takes longer than that is not idle

    served(test, [engine], ONE)


@pytest.mark.parametrize("deployment", [ONE, SPLIT])
def test_two_prompts_in_a_list(deployment: dict[str, Any]) -> None:
    engines = [FakeEngine()] if deployment is ONE else pair()
    body = {"prompt": ["a b", [1, 2, 3], "c"], "max_tokens": 4}

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, body)
        assert status == 200
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
        assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 12, "total_tokens": 18}
        status, text = await post(session, body | {"stream": True, "stream_options": {"include_usage": True}})
        made = chunks(text)
        assert text.count("[DONE]") == 1
        indexes = [choice["index"] for chunk in made for choice in chunk["choices"]]
        assert sorted(indexes) == [0] * 4 + [1] * 4 + [2] * 4
        usages = [chunk["usage"] for chunk in made if chunk.get("usage")]
        assert usages == [{"prompt_tokens": 6, "completion_tokens": 12, "total_tokens": 18}]
        engines[-1].fail = 500
        assert (await post(session, body))[0] == 502
        assert (await post(session, body | {"stream": True}))[0] == 502
        assert all(not worker.tickets for pool in frontend.pools for worker in pool.workers)

    frontend = served(test, engines, deployment)
    for engine in engines:
        assert len(set(engine.ids)) == len(engine.ids)
    assert all(record.status for record in frontend.records().values())


def test_a_model_can_be_asked_for() -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        for name in ("fake", "llama-3.1-8b"):
            async with session.get(f"/v1/models/{name}") as response:
                assert (response.status, (await response.json())["id"]) == (200, name)
        async with session.get("/v1/models/meta/none") as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (404, "model_not_found")

    served(test, [FakeEngine()], ONE)


def test_a_client_that_stops_reading_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer ends without its last event; one that reads slowly is left alone."""
    monkeypatch.setattr(frontend_module, "HEADER_S", 0.5)
    monkeypatch.setattr(frontend_module, "UNREAD_S", 3.0)
    engine = FakeEngine(itl_s=0.0)
    body = json.dumps(PROMPT | {"stream": True, "max_tokens": 90_000, "ignore_eos": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def test(frontend: Frontend, _: aiohttp.ClientSession) -> None:
        port = int(frontend.base_url.rsplit(":", 1)[1])
        small = socket.socket()  # else the kernel's buffers hold most of the answer
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        small.connect(("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=small, limit=2**15)
        writer.write(head + body)
        slow = asyncio.get_running_loop().time() + 4.5
        while asyncio.get_running_loop().time() < slow:
            assert await reader.read(2**15)
            await asyncio.sleep(0.05)
        assert frontend._in_flight == 1
        while frontend._in_flight:  # it reads no more
            await asyncio.sleep(0.05)
        rest = b""
        with contextlib.suppress(ConnectionError):
            rest = await reader.read()
        assert b"[DONE]" not in rest
        writer.close()

    served(test, [engine], ONE)
    assert not engine.running


def test_a_burst_of_connections_finds_room_while_the_frontend_is_busy() -> None:
    count = 500
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())

    async def test(frontend: Frontend, _: aiohttp.ClientSession) -> None:
        port = int(frontend.base_url.rsplit(":", 1)[1])
        with contextlib.ExitStack() as stack:
            for _ in range(min(count, most)):  # the event loop takes none meanwhile
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.9))

    served(test, [FakeEngine()], ONE)


def test_streams_leave_the_engines_connection_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the stream is read too, not only its [DONE]."""
    monkeypatch.setattr(frontend_module, "KEEPALIVE_S", 60.0)
    monkeypatch.setattr(proxy, "END_S", 60.0)
    made: list[Any] = []
    create = aiohttp.TCPConnector._create_connection

    async def counted(self: Any, request: Any, *more: Any) -> Any:
        made.append(request.url)
        return await create(self, request, *more)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", counted)
    engine = FakeEngine()

    async def test(_: Frontend, session: aiohttp.ClientSession) -> None:
        for _ in range(5):
            async with session.post("/v1/completions", json=PROMPT | {"stream": True}) as response:
                assert (await response.read()).endswith(b"data: [DONE]\n\n")
        assert len(engine.ended) == 5
        assert sum(str(url).startswith(f"{engine.url}/v1/completions") for url in made) <= 1

    served(test, [engine], ONE)
