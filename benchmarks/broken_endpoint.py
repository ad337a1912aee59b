"""An OpenAI-compatible server that answers the first questions well and the load in a broken way.

    python benchmarks/broken_endpoint.py MODE      # prints its address

MODES lists the ways; those before `BEFORE_THE_LOAD` break the first questions too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_engine import FakeEngine

ITL_S = 0.01


def chunk(**more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "text": "a", "finish_reason": None}]} | more).encode()


async def three(response: web.StreamResponse) -> None:
    for _ in range(3):
        await response.write(chunk() + b"\n\n")
        await asyncio.sleep(ITL_S)


class Reset(Exception):
    """The connection is cut."""


async def reset(response: web.StreamResponse) -> None:
    await three(response)
    raise Reset


async def no_done(response: web.StreamResponse) -> None:
    await three(response)


async def no_json(response: web.StreamResponse) -> None:
    await three(response)
    await response.write(b"data: {'choices'\n\ndata: [DONE]\n\n")


async def no_chunk(response: web.StreamResponse) -> None:
    await three(response)
    await response.write(b"data: [1]\n\ndata: [DONE]\n\n")


async def error_event(response: web.StreamResponse) -> None:
    await three(response)
    await response.write(b'data: {"error": {"message": "the engine is out of breath"}}\n\ndata: [DONE]\n\n')


async def endless_tokens(response: web.StreamResponse) -> None:
    while True:
        await response.write((chunk() + b"\n\n") * 1000)


async def endless_line(response: web.StreamResponse) -> None:
    await three(response)
    while True:
        await response.write(b"x" * 2**20)


async def silent(response: web.StreamResponse) -> None:
    await three(response)
    await asyncio.sleep(3600)


async def wild_usage(response: web.StreamResponse) -> None:
    await three(response)
    usage = {"prompt_tokens": -5, "completion_tokens": 10**30, "total_tokens": "many"}
    await response.write(chunk(usage=usage) + b"\n\ndata: [DONE]\n\n")


async def byte_by_byte(response: web.StreamResponse) -> None:
    last = chunk(choices=[{"index": 0, "text": "a", "finish_reason": "length"}])
    for one in chunk() + b"\r\n\r\n" + chunk() + b"\n\n" + last + b"\n\ndata: [DONE]\n\n":
        await response.write(bytes([one]))


async def html(response: web.StreamResponse) -> None:
    await response.write(b"<html><body>503 Service Temporarily Unavailable</body></html>")


STREAMS = {
    "reset": reset, "no [DONE]": no_done, "no JSON": no_json, "no chunk": no_chunk, "error event": error_event,
    "endless tokens": endless_tokens, "endless line": endless_line, "silent": silent, "wild usage": wild_usage,
    "byte by byte": byte_by_byte, "HTML": html,
}  # fmt: skip
STATUSES = {"500": 500, "429": 429, "404": 404}
FIRST = ("refuses connections", "closes connections", "models: no JSON", "models: none", "models: silent")
MODES = (*FIRST, *STATUSES, *STREAMS, "half")


class BrokenEngine(FakeEngine):
    """A fake engine of one of MODES; the load is known by its header x-session-id."""

    def __init__(self, mode: str) -> None:
        super().__init__(itl_s=ITL_S)
        self.mode, self.seen = mode, 0

    async def _models(self, request: web.Request) -> web.Response:
        if self.mode == "closes connections":
            assert request.transport is not None
            request.transport.abort()
        if self.mode == "models: silent":
            await asyncio.sleep(3600)
        if self.mode == "models: no JSON":
            return web.Response(text="<html>welcome</html>", content_type="application/json")
        if self.mode == "models: none":
            return web.json_response({"object": "list", "data": []})
        return await super()._models(request)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        if "x-session-id" not in request.headers:
            return await super()._generate(request)
        self.seen += 1
        assert request.transport is not None
        if self.mode in STATUSES:
            return web.json_response({"error": {"message": "not now"}}, status=STATUSES[self.mode])
        if self.mode in STREAMS:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            try:
                await STREAMS[self.mode](response)
            except Reset:
                request.transport.abort()
            return response
        if self.mode == "half" and self.seen > 10:
            request.transport.abort()
        return await super()._generate(request)


async def serve(mode: str) -> None:
    async with BrokenEngine(mode) as engine:
        if mode == "refuses connections":
            await engine._runner.cleanup()
        print(engine.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
