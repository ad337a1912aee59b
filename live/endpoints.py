"""What an OpenAI-compatible server accepts, found out by asking it before the load starts."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from live.bounded import text_of
from live.openai_api import PATHS, Kind, Usage, error_type
from live.prompts import WORDS
from planner.messages import message
from planner.spec import SpecError

log = logging.getLogger("planner.client")
PromptForm = Literal["token_ids", "text"]
MODELS_S = 30.0  # for the list of models, which needs no engine
PROBE_TOKENS = 8  # output tokens of a probe
PROBE_WORDS = (24, 120)  # two lengths give tokens a word and what the template adds

# Extensions, in the order in which they are given up when a server refuses a request that has them.
EXTENSIONS: dict[str, Any] = {"return_token_ids": True, "min_tokens": 0, "ignore_eos": True}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server and how to talk to it. `extensions` are the request fields beyond OpenAI's that it takes."""

    url: str
    model: str
    kind: Kind
    prompt: PromptForm
    extensions: frozenset[str]
    include_usage: bool
    notes: tuple[str, ...]
    tokens_per_word: float = 1.0  # text prompts
    overhead_tokens: float = 0.0  # what a chat template or a BOS token adds to every prompt

    @property
    def path(self) -> str:
        return self.url + PATHS[self.kind]

    def body(self, prompt: list[int] | str, output_tokens: int) -> dict[str, Any]:
        """A streaming request for exactly `output_tokens`, as far as the server lets that be pinned."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": output_tokens, "temperature": 0, "stream": True}
        if self.kind == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.include_usage:
            body["stream_options"] = {"include_usage": True}
        pinned = EXTENSIONS | {"min_tokens": output_tokens}
        return body | {name: pinned[name] for name in EXTENSIONS if name in self.extensions}


async def find_endpoint(
    session: aiohttp.ClientSession,
    url: str,
    *,
    model: str | None = None,
    kind: Kind = "completions",
    prompt: PromptForm = "token_ids",
    headers: Mapping[str, str] | None = None,
) -> Endpoint:
    """Try requests from the richest to the plainest until one is accepted. Raises SpecError when none is."""
    url = url.rstrip("/").removesuffix("/v1")
    probe = _Probe(session, dict(headers or {}))
    model = model or await probe.first_model(url)
    forms: list[tuple[Kind, PromptForm]] = [("completions", "token_ids")] if prompt == "token_ids" else []
    forms += [(kind, "text")]
    if kind == "completions":
        forms.append(("chat", "text"))
    if kind == "chat":
        forms = [("chat", "text"), ("completions", "text")]
    refusals: list[str] = []
    for form in forms:
        extensions, usage = set(EXTENSIONS), True
        while True:
            endpoint = Endpoint(url, model, form[0], form[1], frozenset(extensions), usage, ())
            refusal = await probe.refusal(endpoint)
            if refusal is None:
                return await probe.describe(endpoint, refusals)
            refusals.append(refusal)
            named = [name for name in EXTENSIONS if name in extensions and name in refusal]
            if extensions:
                extensions -= {named[0] if named else next(name for name in EXTENSIONS if name in extensions)}
            elif usage:
                usage = False
            else:
                break
    raise SpecError("endpoint {url}: refuses every form of request; the last answer: {refusal}", url, refusals[-1])


class _Probe:
    def __init__(self, session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
        self._session, self._headers = session, headers

    async def first_model(self, url: str) -> str:
        allowed = message("allowed: the address of an OpenAI-compatible server, http://HOST:PORT")
        if not url.startswith(("http://", "https://")):
            raise SpecError("endpoint {url}: is no URL; {allowed}", url, allowed)
        try:
            timeout = aiohttp.ClientTimeout(total=MODELS_S)
            async with self._session.get(f"{url}/v1/models", headers=self._headers, timeout=timeout) as response:
                status, text = response.status, await text_of(response)
        except TimeoutError:
            raise SpecError(
                "endpoint {url}: /v1/models is not answered within {seconds:.0f} s; {allowed}", url, MODELS_S, allowed
            ) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise SpecError(
                "endpoint {url}: cannot be reached ({error}); {allowed}",
                url,
                str(error) or type(error).__name__,
                allowed,
            ) from None
        if status in (401, 403):
            raise SpecError(
                "endpoint {url}: {status} {reason}; give its token: --token or PLANNER_TOKEN",
                url,
                status,
                error_type(status),
            )
        try:
            return str(json.loads(text)["data"][0]["id"])
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise SpecError(
                "endpoint {url}: /v1/models names no model (it answers {status}); {allowed}", url, status, allowed
            ) from None

    async def _ask(self, endpoint: Endpoint, size: int) -> tuple[int, str]:
        """A small request, not streamed, of `size` prompt words or ids."""
        ids = [1024 + 7 * number for number in range(size)]
        words = " ".join(WORDS[(size * 31 + number * 7) % len(WORDS)] for number in range(size))
        body = endpoint.body(ids if endpoint.prompt == "token_ids" else words, PROBE_TOKENS)
        if not endpoint.include_usage:
            body["stream"] = False
        try:
            async with self._session.post(endpoint.path, json=body, headers=self._headers) as response:
                return response.status, await text_of(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SpecError("endpoint {url}: {kind}: {error}", endpoint.url, type(error).__name__, error) from None

    async def refusal(self, endpoint: Endpoint) -> str | None:
        """None when accepted; else what the server said. Raises SpecError where asking again cannot help."""
        status, text = await self._ask(endpoint, PROBE_WORDS[0])
        if status == 200:
            return None
        said = " ".join(text.split())[:300]
        if status in (401, 403):
            raise SpecError(
                "endpoint {url}: {status} {reason}; give its token: {said}",
                endpoint.url,
                status,
                error_type(status),
                said,
            )
        if status >= 500 or status == 429:
            raise SpecError("endpoint {url}: answered {status} before any load: {said}", endpoint.url, status, said)
        return f"{status} {said}"

    async def describe(self, endpoint: Endpoint, refusals: list[str]) -> Endpoint:
        """The accepted endpoint with its notes, and for texts the measured tokens a word."""
        notes: list[str] = []
        if refusals:
            kept = ", ".join(sorted(endpoint.extensions)) or message("none")
            notes.append(
                message(
                    "{url} refused some fields ({refusal}); used: {kind} with {prompt} prompts, extensions: {kept}",
                    endpoint.url,
                    refusals[0],
                    endpoint.kind,
                    endpoint.prompt,
                    kept,
                )
            )
        counts = []
        for size in PROBE_WORDS:
            usage = _usage(await self._ask(endpoint, size))
            if usage is None:
                notes.append(
                    message("{url} reports no usage: lengths are those that were asked for or streamed", endpoint.url)
                )
                return _with(endpoint, notes, 1.0, 0.0)
            counts.append(usage)
        if counts[-1].output != PROBE_TOKENS:
            notes.append(
                message(
                    "{url} made {count} tokens where {asked} were asked for: output lengths are not pinned",
                    endpoint.url,
                    counts[-1].output,
                    PROBE_TOKENS,
                )
            )
        ratio = (counts[1].prompt - counts[0].prompt) / (PROBE_WORDS[1] - PROBE_WORDS[0])
        overhead = counts[0].prompt - ratio * PROBE_WORDS[0]
        if endpoint.prompt == "token_ids":
            if (ratio, overhead) != (1.0, 0.0):
                notes.append(
                    message(
                        "{url} counts {count} tokens in a prompt of {ids} ids",
                        endpoint.url,
                        counts[0].prompt,
                        PROBE_WORDS[0],
                    )
                )
            return _with(endpoint, notes, 1.0, 0.0)
        notes.append(
            message(
                "{url} gets texts: {ratio:.2f} tokens a word, {overhead:.0f} added by the template; prompt lengths are "
                "approximate",
                endpoint.url,
                ratio,
                overhead,
            )
        )
        return _with(endpoint, notes, max(ratio, 0.1), max(overhead, 0.0))


def _usage(answer: tuple[int, str]) -> Usage | None:
    """Usage of a probe's answer, which is JSON or an event stream."""
    lines = [line.removeprefix("data:").strip() for line in answer[1].splitlines() if line.startswith("data:")]
    found = None
    for text in lines or [answer[1]]:
        with contextlib.suppress(ValueError, RecursionError):  # [DONE], or what is no answer: it tells no usage
            found = Usage.of(json.loads(text)) or found
    return found


def _with(endpoint: Endpoint, notes: list[str], ratio: float, overhead: float) -> Endpoint:
    return Endpoint(
        endpoint.url,
        endpoint.model,
        endpoint.kind,
        endpoint.prompt,
        endpoint.extensions,
        endpoint.include_usage,
        (*endpoint.notes, *notes),
        ratio,
        overhead,
    )
