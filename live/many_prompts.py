"""A completion of several prompts as one request for each: their answers and streams become one again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from live.openai_api import DONE, EventSplitter, event

Stream = AsyncGenerator[bytes, None]
USED = ("prompt_tokens", "completion_tokens", "total_tokens")


def merged(answers: Sequence[dict[str, Any]], choices_each: int) -> dict[str, Any]:
    """One answer: choices numbered on from prompt to prompt, usage added up."""
    whole = dict(answers[0])
    whole["choices"] = [
        choice | {"index": number * choices_each + choice["index"]}
        for number, answer in enumerate(answers)
        for choice in answer["choices"]
    ]
    whole["usage"] = _sum([answer.get("usage") for answer in answers])
    return whole


def _sum(usages: Sequence[dict[str, Any] | None]) -> dict[str, int]:
    return {name: sum(int((usage or {}).get(name) or 0) for usage in usages) for name in USED}


async def merged_streams(streams: Sequence[Stream], choices_each: int) -> Stream:
    """One stream of events as they come, with one usage at its end and one [DONE]. The first fault ends it."""
    ready: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue(maxsize=len(streams))

    async def read(number: int, stream: Stream) -> None:
        splitter = EventSplitter()
        try:
            async with contextlib.aclosing(stream):
                async for piece in stream:
                    for data in splitter.feed(piece):
                        if data != b"[DONE]":
                            await ready.put(_numbered(json.loads(data), number * choices_each))
            await ready.put(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the streams are joined
            await ready.put(error)

    tasks = [asyncio.create_task(read(number, stream)) for number, stream in enumerate(streams)]
    usages: list[dict[str, Any]] = []
    head: dict[str, Any] = {}
    try:
        left = len(streams)
        while left:
            item = await ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            elif not item.get("choices") and item.get("usage"):
                usages.append(item["usage"])
                head = item
            else:
                yield event(item)
        if usages:
            yield event(head | {"choices": [], "usage": _sum(usages)})
        yield DONE
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _numbered(chunk: dict[str, Any], first: int) -> dict[str, Any]:
    for choice in chunk.get("choices") or ():
        choice["index"] = first + choice.get("index", 0)
    return chunk
