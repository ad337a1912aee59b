"""Answers of servers that nobody here wrote: read up to a size, whatever they send."""

from __future__ import annotations

import aiohttp

MOST_TEXT = 2**20  # bytes: a list of models, an error, the answer to a probe


async def text_of(response: aiohttp.ClientResponse, most: int = MOST_TEXT) -> str:
    """The beginning of a body, at most so many bytes. What is not text is replaced."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size >= most:
            response.close()
            break
    return b"".join(pieces)[:most].decode("utf-8", errors="replace")
