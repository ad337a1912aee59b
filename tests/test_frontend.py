"""The frontend against engines of known timing: routing, hand-off, retries, shedding, faults."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fake_engine import FakeEngine, system_of, until
from live.client import ClientOptions, run_load
from live.frontend import Frontend
from planner.spec import SpecError
from planner.traffic.requests import Arrival
from test_client import Listed, request

AGGREGATED = {"mode": "aggregated", "replicas": 2}
SPLIT: dict[str, Any] = {"mode": "disaggregated"}
PROMPT = {"prompt": list(range(300, 340)), "max_tokens": 6}
Test = Callable[[Frontend, aiohttp.ClientSession], Awaitable[None]]


def pair() -> list[FakeEngine]:
    return [FakeEngine("prefill-0", "prefill", ttft_s=0.03), FakeEngine("decode-0", "decode")]


def served(test: Test, engines: list[FakeEngine], deployment: dict[str, Any], **options: Any) -> Frontend:
    """Run `test` with a frontend before the engines; its records outlive it."""
    top = options.pop("top", {})

    async def main() -> Frontend:
        for engine in engines:
            await engine.__aenter__()
        try:
            system = system_of(deployment, **top)
            async with Frontend(system, [engine.address for engine in engines], **options) as frontend:
                async with aiohttp.ClientSession(frontend.base_url) as session:
                    await test(frontend, session)
                return frontend
        finally:
            for engine in engines:
                await engine.__aexit__()

    return asyncio.run(main())


async def post(session: aiohttp.ClientSession, body: dict[str, Any], path: str = "/v1/completions") -> tuple[int, Any]:
    async with session.post(path, json=body) as response:
        text = await response.text()
        return response.status, text if body.get("stream") is True else json.loads(text)


def chunks(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_answers_and_streams() -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, PROMPT | {"model": "fake"})
        assert (status, answer["usage"]["completion_tokens"]) == (200, 6)
        assert answer["choices"][0]["finish_reason"] == "length"
        status, text = await post(session, PROMPT | {"stream": True})
        assert [len(chunk["choices"]) for chunk in chunks(text)] == [1] * 6  # no usage chunk: not asked for
        status, text = await post(session, PROMPT | {"stream": True, "stream_options": {"include_usage": True}})
        assert chunks(text)[-1]["usage"]["prompt_tokens"] == 40
        chat = {"model": "llama-3.1-8b", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 30}
        for path in ("/chat", "/v1/chat/completions"):
            status, answer = await post(session, chat, path)
            assert (status, answer["choices"][0]["finish_reason"]) == (200, "stop")
        async with session.get("/v1/models") as response:
            assert [item["id"] for item in (await response.json())["data"]] == ["fake", "llama-3.1-8b"]
        async with session.get("/health") as response:
            assert response.status == 200

    engines = [FakeEngine("aggregated-0"), FakeEngine("aggregated-1")]
    frontend = served(test, engines, AGGREGATED)
    records = list(frontend.records().values())
    assert [record.status for record in records] == [200] * 5
    assert [record.cached_tokens for record in records] == [3] * 5
    assert {record.worker for record in records} == {"aggregated-0", "aggregated-1"}
    assert all(record.received_s <= (record.queued_s or 0) <= (record.finish_s or 0) for record in records)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"messages": []}, 400, None),
        ({"messages": [{"role": "user", "content": "x"}], "model": "other"}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": "yes"}, 400, None),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": -1}, 400, 400),  # the engine's own refusal
    ],
)
def test_refusals_have_openais_shape(body: dict[str, Any], status: int, code: object) -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        got, answer = await post(session, body, "/v1/chat/completions")
        assert (got, answer["error"]["code"]) == (status, code)
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        async with session.post("/v1/completions", data=b"{") as response:
            assert (response.status, "error" in await response.json()) == (400, True)
        async with session.get("/nowhere") as response:
            assert (response.status, "error" in await response.json()) == (404, True)

    served(test, [FakeEngine("aggregated-0")], {"mode": "aggregated"})


def test_hand_off() -> None:
    engines = pair()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        body = PROMPT | {"stream": True, "min_tokens": 6, "ignore_eos": True, "n": 1}
        status, text = await post(session, body)
        assert (status, len(chunks(text))) == (200, 6)
        assert "kv_transfer_params" not in text

    frontend = served(test, engines, SPLIT)
    prefill, decode = engines[0].requests[0], engines[1].requests[0]
    assert (prefill["max_tokens"], prefill["stream"]) == (1, False)
    assert not {"min_tokens", "stream_options"} & prefill.keys()
    assert prefill["kv_transfer_params"]["do_remote_decode"] is True
    assert (decode["max_tokens"], decode["min_tokens"]) == (6, 6)
    assert decode["kv_transfer_params"] == {"do_remote_prefill": True, "remote_engine_id": "prefill-0"}
    assert engines[0].ids == engines[1].ids  # both engines trace the same id
    (record,) = frontend.records().values()
    assert (record.worker, record.decode_worker, record.local_prefill) == ("prefill-0", "decode-0", False)
    assert record.cached_tokens == 3  # the prefill worker's
    assert record.queued_s is not None
    assert record.prefill_end_s is not None
    assert record.finish_s is not None
    assert record.queued_s + 0.025 < record.prefill_end_s < record.finish_s


def test_prefill_without_connector_is_an_error() -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, PROMPT)
        assert status == 502
        assert "no kv_transfer_params" in answer["error"]["message"]

    engines = pair()
    engines[0]._answer = engines[0]._stream  # type: ignore[method-assign]  # an engine that hands nothing over

    async def plain(request: Any, body: dict[str, Any], arrived: float) -> Any:
        return web.json_response({"choices": [{"text": "x"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    engines[0]._answer = plain  # type: ignore[method-assign]
    served(test, engines, SPLIT)


@pytest.mark.parametrize(
    ("rule", "length", "local"),
    [({"max_tokens": 39}, 40, False), ({"max_tokens": 40}, 40, True), ({"max_queue": 1}, 40, False)],
)
def test_local_prefill(rule: dict[str, int], length: int, local: bool) -> None:
    engines = pair()

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        assert (await post(session, PROMPT))[0] == 200

    frontend = served(test, engines, SPLIT | {"local_prefill": rule})
    (record,) = frontend.records().values()
    assert record.local_prefill is local
    assert record.worker == ("decode-0" if local else "prefill-0")
    assert len(engines[0].requests) == (not local)


def test_a_long_prefill_queue_sends_prompts_to_the_decode_worker() -> None:
    engines = pair()
    engines[0].held = True

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        answers = asyncio.gather(*(post(session, PROMPT) for _ in range(6)))
        await until(lambda: len(engines[1].requests) == 4)
        engines[0].held = False
        await answers

    frontend = served(test, engines, SPLIT | {"local_prefill": {"max_queue": 2}})
    assert sum(record.local_prefill for record in frontend.records().values()) == 4


def test_shared_queue_gives_each_prefill_worker_one_request_at_a_time() -> None:
    engines = [*pair(), FakeEngine("prefill-1", "prefill", ttft_s=0.03)]
    busiest = 0

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        async def watch() -> None:
            nonlocal busiest
            while True:
                busiest = max(busiest, engines[0].running, engines[2].running)
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*(post(session, PROMPT) for _ in range(8)))
        watching.cancel()
        assert [status for status, _ in answers] == [200] * 8

    deployment = SPLIT | {"prefill": {"replicas": 2}, "router": {"prefill_dispatch": "shared_queue"}}
    served(test, engines, deployment)
    assert busiest == 1
    assert len(engines[0].requests) + len(engines[2].requests) == 8
    assert engines[0].requests
    assert engines[2].requests


def test_first_token_from_prefill() -> None:
    """The client has the prefill worker's token while the decode worker is still reading, and no token twice."""
    engines = pair()
    engines[1].held = True

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        body = PROMPT | {"stream": True, "temperature": 0, "return_token_ids": True}
        async with session.post("/v1/completions", json=body) as response:
            pieces = []
            async for piece in response.content.iter_any():
                engines[1].held = False
                pieces.append(piece)
        made = chunks(b"".join(pieces).decode())
        assert [token for chunk in made for token in chunk["choices"][0]["token_ids"]] == [100, 101, 102, 103, 104, 105]
        assert "".join(chunk["choices"][0]["text"] for chunk in made) == "w0 w1 w2 w3 w4 w5 "
        body["temperature"] = 0.7  # sampled: the decode worker's token may be another, so nothing goes ahead
        assert len(chunks((await post(session, body))[1])) == 6

    served(test, engines, SPLIT | {"first_token": "prefill"})


def test_retries_only_while_nothing_was_streamed() -> None:
    bad, good = FakeEngine("aggregated-0", fail=500), FakeEngine("aggregated-1")

    async def dead_first(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        for _ in range(4):
            assert (await post(session, PROMPT | {"stream": True}))[0] == 200

    frontend = served(dead_first, [bad, good], AGGREGATED)
    assert {record.worker for record in frontend.records().values()} == {"aggregated-1"}
    assert 2 in [record.attempts for record in frontend.records().values()]

    async def breaks(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, text = await post(session, PROMPT | {"stream": True})
        made = chunks(text)
        assert status == 200
        assert [("error" in chunk) for chunk in made] == [False] * 3 + [True]

    broken = FakeEngine("aggregated-0", break_after=3)
    frontend = served(breaks, [broken, FakeEngine("aggregated-1", fail=503)], AGGREGATED)
    first = next(iter(frontend.records().values()))
    assert (first.status, first.worker) == (502, "aggregated-0")
    assert first.error is not None


def test_nobody_left_is_one_error() -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, PROMPT)
        assert status == 502
        assert "answered 500: engine is dead" in answer["error"]["message"]

    served(test, [FakeEngine("aggregated-0", fail=500)], {"mode": "aggregated"})


def test_a_dead_worker_is_left_out_and_health_says_so() -> None:
    engines = [FakeEngine("aggregated-0"), FakeEngine("aggregated-1")]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        await engines[0].__aexit__()
        answers = [await post(session, PROMPT) for _ in range(6)]
        assert [status for status, _ in answers] == [200] * 6
        one, two = frontend.pools[0].workers
        await until(lambda: not one.healthy)
        async with session.get("/health") as response:
            assert (await response.json())["workers"] == {"aggregated-0": False, "aggregated-1": True}
        await engines[1].__aexit__()
        await until(lambda: not two.healthy)
        async with session.get("/health") as response:
            assert response.status == 503
        status, answer = await post(session, PROMPT)
        assert (status, answer["error"]["code"]) == (503, "no_worker")
        await engines[0].__aenter__()  # so that leaving finds it running
        await engines[1].__aenter__()

    served(test, engines, AGGREGATED)


def test_load_is_shed() -> None:
    engine = FakeEngine("aggregated-0")
    engine.held = True

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        calls = [asyncio.create_task(post(session, PROMPT)) for _ in range(6)]
        await until(lambda: sum(call.done() for call in calls) == 3)
        engine.held = False
        answers = await asyncio.gather(*calls)
        statuses = sorted(status for status, _ in answers)
        assert statuses == [200] * 3 + [429] * 3
        refused = next(answer for status, answer in answers if status == 429)
        assert refused["error"]["code"] == "overloaded"

    served(test, [engine], {"mode": "aggregated", "router": {"max_queue": 3}})


def test_a_client_that_leaves_stops_its_request() -> None:
    engine = FakeEngine("aggregated-0", ttft_s=0.05, itl_s=0.05)

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        body = PROMPT | {"max_tokens": 100_000, "ignore_eos": True}
        for left, stream in enumerate((True, False)):
            call = asyncio.create_task(post(session, body | {"stream": stream}))
            await until(lambda: engine.running)
            call.cancel()
            await until(lambda left=left: engine.abandoned == left + 1 and not engine.running)
        await until(lambda: not frontend.pools[0].workers[0].tickets)
        assert frontend.pools[0].workers[0].load.active_blocks == 0

    frontend = served(test, [engine], {"mode": "aggregated"})
    assert [record.status for record in frontend.records().values()] == [499, 499]


def test_a_client_found_gone_while_it_is_written_to_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closing, and the handler has not been told yet."""
    engine = FakeEngine("aggregated-0", itl_s=0.01)
    write = web.StreamResponse.write

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        async def closing(response: web.StreamResponse, data: bytes) -> None:
            if "x-request-id" in response.headers:  # the frontend's own
                for one in frontend._serving:
                    one.transport.close()
            await write(response, data)

        monkeypatch.setattr(web.StreamResponse, "write", closing)
        body = PROMPT | {"max_tokens": 100_000, "ignore_eos": True, "stream": True}
        with pytest.raises(aiohttp.ClientError):
            await post(session, body)
        await until(lambda: engine.abandoned == 1 and not engine.running)
        await until(lambda: not frontend._serving)

    frontend = served(test, [engine], {"mode": "aggregated"})
    assert [record.status for record in frontend.records().values()] == [499]
    assert not [line for line in caplog.records if line.levelname == "ERROR"]


def test_loads_return_to_zero_and_metrics_count(caplog: pytest.LogCaptureFixture) -> None:
    engines = [FakeEngine("aggregated-0"), FakeEngine("aggregated-1")]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        await asyncio.gather(*(post(session, PROMPT | {"stream": True}) for _ in range(20)))
        workers = frontend.pools[0].workers
        await until(lambda: not any(worker.tickets for worker in workers) and all(worker.polled for worker in workers))
        await until(lambda: "running 0 waiting 0 KV 25 % GPU 50 %" in caplog.text)
        for worker in workers:
            load = worker.load
            assert (load.running, load.waiting, load.queued_tokens, load.active_blocks) == (0, 0, 0, 0)
        async with session.get("/metrics") as response:
            text = await response.text()
        assert 'planner_requests_total{path="/v1/completions",status="200"} 20.0' in text
        assert "planner_time_to_first_token_seconds_count 20.0" in text
        assert 'planner_worker_kv_used_fraction{worker="aggregated-1"} 0.25' in text
        assert 'planner_worker_gpu_utilization{worker="aggregated-0"} 0.5' in text

    with caplog.at_level(logging.INFO, "planner.frontend"):
        use = {"aggregated-0": 0.5}
        served(test, engines, AGGREGATED, log_interval_s=0.1, gpu_utilization=lambda: use)
    assert any("aggregated-0 running 0 waiting 0 KV 25 % GPU 50 %" in message for message in caplog.messages)


def test_token_guards_all_but_health() -> None:
    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        status, answer = await post(session, PROMPT)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        async with session.get("/health") as response:
            assert response.status == 200
        async with session.post("/v1/completions", json=PROMPT, headers={"authorization": "Bearer s"}) as response:
            assert response.status == 200

    served(test, [FakeEngine("aggregated-0")], {"mode": "aggregated"}, token="s")


def test_what_cannot_work_is_said_before_it_starts() -> None:
    engine = FakeEngine("aggregated-0")
    engine.url = "http://127.0.0.1:1"
    system = system_of({"mode": "aggregated"})
    with pytest.raises(SpecError, match="give a token"):
        Frontend(system, [engine.address], host="0.0.0.0")
    with pytest.raises(SpecError, match="no worker of role 'prefill'"):
        Frontend(system_of(SPLIT), [engine.address])
    aware = system_of(AGGREGATED | {"router": {"policy": "prefix_aware"}})
    with pytest.raises(SpecError, match="needs the KV events of aggregated-0, aggregated-0"):
        Frontend(aware, [engine.address, engine.address])

    async def nothing(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        raise AssertionError("started")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SpecError, match="cannot listen on .*in use"):
            served(nothing, [FakeEngine("aggregated-0")], {"mode": "aggregated"}, port=taken.getsockname()[1])


def test_session_affinity_follows_the_header() -> None:
    engines = [FakeEngine(f"aggregated-{number}") for number in range(3)]

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        for number in range(12):
            headers = {"x-session-id": str(number % 4), "x-request-id": f"r{number}"}
            async with session.post("/v1/completions", json=PROMPT, headers=headers) as response:
                assert response.headers["x-request-id"] == f"r{number}"

    deployment = {"mode": "aggregated", "replicas": 3, "router": {"policy": "session_affinity"}}
    frontend = served(test, engines, deployment)
    records = frontend.records()
    for session in range(4):
        assert len({records[f"r{number}"].worker for number in range(session, 12, 4)}) == 1


@pytest.mark.parametrize("split", [False, True])
def test_client_and_frontend_records_join(split: bool) -> None:
    """A load run through the frontend: one table, on one clock with the engines."""
    engines = pair() if split else [FakeEngine("aggregated-0", ttft_s=0.04)]

    async def test(frontend: Frontend, _: aiohttp.ClientSession) -> None:
        load = Listed([Arrival(0.03 * number, request(number)) for number in range(20)])
        result = await run_load([frontend.base_url], load, options=ClientOptions())
        table = result.request_table(frontend.records())
        assert table["error"].isna().all()
        assert result.tokens().equal
        assert set(table["worker"]) == {"prefill-0" if split else "aggregated-0"}
        assert (table["queued_s"] >= table["arrival_s"]).all()
        assert table["prefill_end_s"].notna().all() == split
        assert table["cached_tokens"].tolist() == [3] * 20
        for row in result.outcomes:
            came_in, first, *_ = [time_s - result.start_s for time_s in engines[-1].written[row.header_id]]
            assert row.arrival_s <= came_in < first <= row.first_token_s

    served(test, engines, SPLIT if split else {"mode": "aggregated"})


def test_an_aged_router_sees_a_copy() -> None:
    """`router.state_age_s`: between two looks the loads stand still, as in the simulator."""
    engines = [FakeEngine("aggregated-0"), FakeEngine("aggregated-1")]
    seen: list[tuple[int, int]] = []

    async def test(frontend: Frontend, session: aiohttp.ClientSession) -> None:
        (pool,) = frontend.pools
        await until(lambda: pool._seen is not None)
        for engine in engines:
            engine.held = True
        calls = [asyncio.create_task(post(session, PROMPT)) for _ in range(4)]
        await until(lambda: sum(engine.running for engine in engines) == 4)
        assert pool._seen is not None
        seen.append((sum(load.requests for load in pool._seen.values()), sum(w.load.requests for w in pool.workers)))
        for engine in engines:
            engine.held = False
        await asyncio.gather(*calls)

    served(test, engines, AGGREGATED | {"router": {"state_age_s": 3600.0}})
    assert seen == [(0, 4)]
