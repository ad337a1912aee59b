"""An OpenAI-compatible engine of known timing, with vLLM's extensions, for tests that need no model."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from live.address import ServerAddress
from planner.engine.engine_limits import EngineLimits
from planner.spec import Router, Spec


async def until(holds: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait for what must come, however slow the host is."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


class FakeEngine:
    """First token after `ttft_s`, and `prompt_token_s` a prompt token, then one each `itl_s`.

    `requests` are the bodies it was sent. `written` holds for each streamed request when it came in and when each
    token was written (loop time).
    `last`: after so many answers of a load its engine is dead, and /health says so; its process ends `dies_s` later.
    `fail`: an HTTP status instead of an answer. `break_after`: drop the connection after so many tokens. `dies_s`: its
    process ends so long after it has done so.
    `pushed_by`: a prefill engine whose KV this one waits for, for ever where that had no request of the same id (as
    vLLM's NixlPushConnector). `refuse`: request fields answered with 400. `token_prompts`: takes token ids.
    An answer is over after `natural` tokens unless `ignore_eos`, which a `deaf` engine takes and does not follow.
    """

    def __init__(self, name: str = "aggregated-0", role: str = "aggregated", **options: Any) -> None:
        self.name, self.role = name, role
        self.ttft_s: float = options.pop("ttft_s", 0.01)
        self.prompt_token_s: float = options.pop("prompt_token_s", 0.0)
        self.itl_s: float = options.pop("itl_s", 0.002)
        self.fail: int | None = options.pop("fail", None)
        self.break_after: int | None = options.pop("break_after", None)
        self.dies_s: float | None = options.pop("dies_s", None)
        self.last: int | None = options.pop("last", None)
        self.refuse: set[str] = set(options.pop("refuse", ()))
        self.token_prompts: bool = options.pop("token_prompts", True)
        self.natural: int = options.pop("natural", 12)
        self.deaf: bool = options.pop("deaf", False)
        self.kv_events: str | None = options.pop("kv_events", None)
        self.pushed_by: FakeEngine | None = options.pop("pushed_by", None)
        self.max_prompt: int = options.pop("max_prompt", 1_000_000)
        self.port: int = options.pop("port", 0)
        assert not options, options
        self.mute = False  # /metrics does not answer
        self.held = False  # no answer begins
        self.requests: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.written: dict[str, list[float]] = {}
        self.running = self.most_running = 0
        self.abandoned = self.loaded = 0  # loaded: answered requests of a load
        self.ended: list[dict[str, float]] = []  # answered requests, as columns of planner.run.tables
        self.url = ""

    async def __aenter__(self) -> FakeEngine:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=2048).start()  # as uvicorn's
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def address(self) -> ServerAddress:
        return ServerAddress(self.name, self.role, self.url, self.kv_events)  # type: ignore[arg-type]

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503) if self._is_dead else await self._models(request)

    @property
    def _is_dead(self) -> bool:
        return self.last is not None and self.loaded >= self.last

    async def _metrics(self, _: web.Request) -> web.Response:
        while self.mute:
            await asyncio.sleep(0.01)
        labels = '{engine="0",model_name="fake"}'
        text = f"vllm:num_requests_running{labels} {self.running}.0\nvllm:kv_cache_usage_perc{labels} 0.25\n"
        blocks = 'vllm:cache_config_info{block_size="128",num_gpu_blocks="65"} 1.0'
        return web.Response(text=f"{text}vllm:num_requests_waiting{labels} 0.0\n{blocks}\n{self._counted()}")

    def _counted(self) -> str:
        """vLLM's counters of the requests that were streamed to their end; nothing before the first."""
        if not self.ended:
            return ""
        import pandas as pd

        from fake_counters import GAUGES, counters, exposition

        found = counters(pd.DataFrame(self.ended), math.inf)
        return exposition({name: value for name, value in found.items() if name not in GAUGES})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body.get("prompt") or "".join(message["content"] for message in body["messages"])
        tokens = [ord(letter) % 200 for letter in text]  # one token a character
        return web.json_response({"count": len(tokens), "tokens": tokens})

    def _prompt_tokens(self, body: dict[str, Any]) -> int:
        if "messages" in body:
            return 5 + sum(len(str(message["content"]).split()) for message in body["messages"])
        prompt = body["prompt"]
        return len(prompt.split()) if isinstance(prompt, str) else len(prompt)

    def _refusal(self, body: dict[str, Any]) -> str | None:
        for name in self.refuse & body.keys():
            return f"unknown field {name}"
        if not self.token_prompts and isinstance(body.get("prompt"), list):
            return "prompt must be a string"
        if body.get("temperature", 1) < 0:
            return "temperature must not be negative"
        if self._prompt_tokens(body) > self.max_prompt:
            return f"the prompt is longer than {self.max_prompt} tokens"
        return None

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        arrived = asyncio.get_running_loop().time()
        body = await request.json()
        self.requests.append(body)
        self.ids.append(request.headers.get("x-request-id", ""))
        if self.fail is not None:
            return web.json_response({"error": {"message": "engine is dead", "type": "x"}}, status=self.fail)
        refusal = self._refusal(body)
        if refusal is not None:
            error = {"message": refusal, "type": "BadRequestError", "param": None, "code": 400}
            return web.json_response({"error": error}, status=400)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            while self.held:
                await asyncio.sleep(0.01)
            await self._wait_for_kv(body, self.ids[-1])
            return await (self._stream if body.get("stream") else self._answer)(request, body, arrived)
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned += 1
            raise
        finally:
            self.running -= 1

    async def _wait_for_kv(self, body: dict[str, Any], request_id: str) -> None:
        source = self.pushed_by
        if source is None or not (body.get("kv_transfer_params") or {}).get("do_remote_prefill"):
            return
        while not request_id or request_id not in source.ids:
            await asyncio.sleep(0.01)

    def _first_s(self, body: dict[str, Any]) -> float:
        return self.ttft_s + self.prompt_token_s * self._prompt_tokens(body)

    def _plan(self, body: dict[str, Any]) -> tuple[int, str]:
        wanted = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        if (body.get("ignore_eos") and not self.deaf) or wanted <= self.natural:
            return wanted, "length"
        return self.natural, "stop"

    def _usage(self, body: dict[str, Any], made: int) -> dict[str, Any]:
        prompt = self._prompt_tokens(body)
        cached = prompt - 1 if (body.get("kv_transfer_params") or {}).get("do_remote_prefill") else 3
        details = {"cached_tokens": cached}
        return {
            "prompt_tokens": prompt,
            "completion_tokens": made,
            "total_tokens": prompt + made,
            "prompt_tokens_details": details,
        }

    def _head(self, body: dict[str, Any], chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion" if "messages" in body else "text_completion") + (
            ".chunk" if chunk and "messages" in body else ""
        )
        return {"id": "gen-1", "object": kind, "created": 1, "model": body["model"]}

    @staticmethod
    async def _until(time_s: float) -> None:
        await asyncio.sleep(time_s - asyncio.get_running_loop().time())

    async def _answer(self, request: web.Request, body: dict[str, Any], arrived: float) -> web.StreamResponse:
        count, reason = self._plan(body)
        await self._until(arrived + self._first_s(body) + (count - 1) * self.itl_s)
        text = "".join(f"w{number} " for number in range(count))
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if body.get("return_token_ids"):
            choice["token_ids"] = [100 + number for number in range(count)]
        answer = self._head(body, False) | {"choices": [choice], "usage": self._usage(body, count)}
        if (body.get("kv_transfer_params") or {}).get("do_remote_decode"):
            answer["kv_transfer_params"] = {"do_remote_prefill": True, "remote_engine_id": self.name}
        return web.json_response(answer)

    async def _stream(self, request: web.Request, body: dict[str, Any], arrived: float) -> web.StreamResponse:
        count, reason = self._plan(body)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        times = self.written.setdefault(request.headers.get("x-request-id", ""), [arrived])
        begin = len(times)  # requests without an id share a list
        first = arrived + self._first_s(body)
        await self._until(first)
        await response.prepare(request)
        for number in range(count):
            await self._until(first + number * self.itl_s)
            if number == self.break_after:
                assert request.transport is not None
                request.transport.abort()
                if self.dies_s is not None:
                    asyncio.get_running_loop().call_later(self.dies_s, os._exit, 1)
                raise ConnectionResetError
            last = number == count - 1
            choice: dict[str, Any] = {"index": 0, "finish_reason": reason if last else None, "logprobs": None}
            if "messages" in body:
                choice["delta"] = {"content": f"w{number} "} | ({"role": "assistant"} if number == 0 else {})
            else:
                choice["text"] = f"w{number} "
            if body.get("return_token_ids"):
                choice["token_ids"] = [100 + number]
            times.append(asyncio.get_running_loop().time())
            await self._write(response, self._head(body, True) | {"choices": [choice]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await self._write(response, self._head(body, True) | {"choices": [], "usage": self._usage(body, count)})
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        self.ended.append(
            {
                "arrival_s": arrived, "first_token_s": times[begin], "finish_s": times[-1],
                "prompt_tokens": self._prompt_tokens(body), "output_tokens": count,
            }
        )  # fmt: skip
        self.loaded += "-" in request.headers.get("x-request-id", "")  # the load client's ids
        if self._is_dead and self.dies_s is not None:
            asyncio.get_running_loop().call_later(self.dies_s, os._exit, 1)
        return response

    @staticmethod
    async def _write(response: web.StreamResponse, payload: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(payload).encode() + b"\n\n")


def system_of(deployment: dict[str, Any], max_model_len: int = 100_000, **top: Any) -> Any:
    """The parts of a resolved System that the frontend reads, without a catalogue."""
    spec = Spec.model_validate({"schema": 1, "name": "test", "model": "llama-3.1-8b", "deployment": deployment} | top)
    limits = EngineLimits(2048, 64, 16, 1000, max_model_len)
    split = deployment["mode"] == "disaggregated"
    pools = []
    for role in ("prefill", "decode") if split else ("aggregated",):
        own = getattr(spec.deployment, role, None)
        router = (own.router if own is not None else None) or spec.deployment.router or Router()
        pools.append(SimpleNamespace(role=role, limits=limits, router=router, dp=1, profile=SimpleNamespace(draw=0)))
    return SimpleNamespace(spec=spec, pools=tuple(pools), disaggregated=split)


async def _serve(port: int, options: dict[str, Any]) -> None:
    await asyncio.sleep(options.pop("start_s", 0))
    async with FakeEngine(port=port, **options):
        await asyncio.Event().wait()


if __name__ == "__main__":  # a server process of its own: PORT and the engine's options (and start_s) as JSON
    asyncio.run(_serve(int(sys.argv[1]), json.loads(sys.argv[2])))
