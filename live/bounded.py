"""Answers of servers that nobody here wrote: read up to a size, whatever they send."""

from __future__ import annotations

from pathlib import Path

import aiohttp

MOST_TEXT = 2**20  # bytes: a list of models, an error, the answer to a probe
MOST_METRICS = 2**24  # of a /metrics; vLLM's has some 100 kB
MOST_ANSWER = 2**26  # of an answer that is not streamed: 128 choices of a long one, with log probabilities
MOST_LOG = 2**20  # of the end of a server's log


async def text_of(response: aiohttp.ClientResponse, most: int = MOST_TEXT) -> str:
    """The beginning of a body, at most so many bytes. What is not text is replaced."""
    return (await _read(response, most))[:most].decode("utf-8", errors="replace")


async def whole_text(response: aiohttp.ClientResponse, most: int) -> str:
    """All of a body, where half of it is of no use. Raises ClientPayloadError beyond `most` bytes."""
    raw = await _read(response, most)
    if len(raw) > most:
        raise aiohttp.ClientPayloadError(f"an answer of more than {most} bytes")
    return raw.decode("utf-8", errors="replace")


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """A body, or a little more than `most` bytes of it; the connection is closed then."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            response.close()
            break
    return b"".join(pieces)


def log_end(path: Path, most: int = MOST_LOG) -> str:
    """The last bytes of a file, which may be missing or still be written."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - most))
        return file.read(most).decode("utf-8", errors="replace")
