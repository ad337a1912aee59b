"""What servers are sent before anything is measured: kernels compile, and P/D pairs shake hands, at first use."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp

from live.bounded import MOST_ANSWER, text_of, whole_text
from live.launch import MODEL_NAME, LiveError
from live.openai_api import PATHS
from live.pd import decode_body, prefill_body
from live.prompts import token_range
from live.servers import ReadyServer
from planner.messages import message
from planner.system.resolve import System

# (prompt tokens, output tokens, requests at once): one alone, a small batch, a long prompt.
SHAPES = ((32, 4, 1), (64, 8, 8), (1024, 4, 1))
TIMEOUT_S = 300.0


class NoAnswer(LiveError):
    """A server that broke off, or that its engine failed."""


async def warm_up(
    workers: Sequence[ReadyServer],
    system: System,
    vocab: int,
    progress: Callable[[float], None],
    *,
    token: str | None = None,
) -> None:
    """Every worker, and every pair of a prefill and a decode worker, serves SHAPES once. Raises LiveError."""
    prefills = [worker for worker in workers if worker.role == "prefill"]
    pairs: list[tuple[ReadyServer | None, ReadyServer]]
    if prefills:
        pairs = [(one, other) for one in prefills for other in workers if other.role == "decode"]
    else:
        pairs = [(None, worker) for worker in workers]
    rng = random.Random("warm up")
    low, high = token_range(vocab)
    ranks = max(pool.dp for pool in system.pools)  # vLLM spreads what comes together over them
    longest = min(pool.limits.max_model_len for pool in system.pools)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
        for done, (prefill, worker) in enumerate(pairs):
            for prompt, output, together in SHAPES:
                length = min(prompt, longest // 2)
                bodies = [
                    {
                        "model": MODEL_NAME,
                        "prompt": [rng.randrange(low, high) for _ in range(length)],
                        "max_tokens": output,
                        "ignore_eos": True,
                        "temperature": 0,
                    }
                    for _ in range(together * ranks)
                ]
                await asyncio.gather(*(_serve(session, prefill, worker, body) for body in bodies))
            progress((done + 1) / len(pairs))


async def _serve(
    session: aiohttp.ClientSession, prefill: ReadyServer | None, worker: ReadyServer, body: dict[str, Any]
) -> None:
    request_id = uuid.uuid4().hex  # one for both: a pushing prefill worker finds the waiting decode worker by it
    if prefill is not None:
        body = decode_body(body, await _post(session, prefill, prefill_body(body), request_id))
    await _post(session, worker, body, request_id)


async def _post(
    session: aiohttp.ClientSession, worker: ReadyServer, body: dict[str, Any], request_id: str
) -> dict[str, Any]:
    headers = {"x-request-id": request_id}
    try:
        async with session.post(worker.url + PATHS["completions"], json=body, headers=headers) as answer:
            if answer.status != 200:
                text = " ".join((await text_of(answer)).split())[:300]
                refused = message(
                    "{name} refused a warm-up request: {status} {text}; log: {log}",
                    worker.name,
                    answer.status,
                    text,
                    worker.log,
                )
                raise NoAnswer(refused) if answer.status >= 500 else LiveError(refused)
            found: dict[str, Any] = json.loads(await whole_text(answer, MOST_ANSWER))
            return found
    except (aiohttp.ClientError, TimeoutError) as error:
        reason = f"{type(error).__name__} {error}".strip()
        failed = message("{name} failed while warming up: {reason}; log: {log}", worker.name, reason, worker.log)
        raise NoAnswer(failed) from error
