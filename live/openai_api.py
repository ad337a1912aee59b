"""The shapes of the OpenAI HTTP API that the frontend speaks: requests in, errors and event streams out. No I/O."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from live.nested_fields import nested_fault

Kind = Literal["chat", "completions"]

PATHS: dict[Kind, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
DONE = b"data: [DONE]\n\n"
# Used where a prompt's length must be guessed before any tokenizer saw it: English text in common tokenizers.
CHARS_PER_TOKEN = 4.0


class ApiError(Exception):
    """An answer other than 200: HTTP status and OpenAI's `type`, `param` and `code`."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def __reduce__(self) -> tuple[Any, ...]:
        error = self.body["error"]
        return _error, (self.status, error["message"], error["type"], error["param"], error["code"])

    @staticmethod
    def upstream(status: int, text: str) -> ApiError:
        """An engine's refusal, kept as it is where it has OpenAI's shape already."""
        error = ApiError(status, text.strip()[:2000] or f"the worker answered {status}", error_type(status))
        try:
            body = json.loads(text)
        except ValueError:
            return error
        if isinstance(body, dict) and isinstance(body.get("error"), dict) and "message" in body["error"]:
            error.args = (str(body["error"]["message"]),)
            error.body = {"error": {"param": None, "code": None, "type": error_type(status)} | body["error"]}
        return error


def _error(status: int, message: str, kind: str, param: str | None, code: str | None) -> ApiError:
    return ApiError(status, message, kind, param=param, code=code)


def error_type(status: int) -> str:
    """OpenAI's error type for an HTTP status."""
    named = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    return named.get(status, "server_error" if status >= 500 else "invalid_request_error")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A parsed request body. `token_ids` is the prompt when it came as ids, else `text` holds all of it."""

    kind: Kind
    body: dict[str, Any]
    stream: bool
    include_usage: bool
    text: str
    token_ids: tuple[int, ...] | None
    retrieval: Any = None  # the extension field `retrieval`: False turns it off, an object names the query
    session_id: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Known length, or an estimate from the number of characters."""
        if self.token_ids is not None:
            return len(self.token_ids)
        return max(1, round(len(self.text) / CHARS_PER_TOKEN))

    @property
    def greedy(self) -> bool:
        return self.body.get("temperature") == 0


# What a client may say to an engine. All else is refused: kv_transfer_params could make an engine connect to a host
# that the client names, or end it; and a field that a later vLLM adds waits here until someone has looked at it.
# `retrieval` is the frontend's own and goes no further than `parse`. Engines ignore what of OpenAI's they lack.
_SAMPLING = frozenset(
    "model stream stream_options max_tokens max_completion_tokens temperature top_p top_k min_p n seed stop "
    "stop_token_ids include_stop_str_in_output ignore_eos min_tokens frequency_penalty presence_penalty "
    "repetition_penalty length_penalty use_beam_search logit_bias allowed_token_ids bad_words logprobs "
    "prompt_logprobs return_tokens_as_token_ids return_token_ids skip_special_tokens spaces_between_special_tokens "
    "truncate_prompt_tokens add_special_tokens response_format structured_outputs guided_json guided_regex "
    "guided_choice guided_grammar user metadata store retrieval".split()
)
PASSED: dict[Kind, frozenset[str]] = {
    "completions": _SAMPLING | frozenset("prompt best_of echo suffix".split()),
    "chat": _SAMPLING
    | frozenset(
        "messages top_logprobs tools tool_choice parallel_tool_calls functions function_call reasoning_effort "
        "include_reasoning thinking_token_budget add_generation_prompt continue_final_message chat_template_kwargs "
        "documents echo audio modalities moderation prediction prompt_cache_key prompt_cache_options "
        "prompt_cache_retention safety_identifier service_tier verbosity web_search_options".split()
    ),
}
MAX_BODY_BYTES = 64 * 2**20
MOST_PROMPTS = 64  # of one completion
MOST_CHOICES = 128  # OpenAI's own bound of n


def body_limit(longest: int) -> int:
    """Bytes of a request body that a context of `longest` tokens can need: a token as text or id, and all the rest."""
    return min(MAX_BODY_BYTES, 64 * longest + 2**20)


def check_fields(kind: Kind, body: Mapping[str, Any]) -> None:
    """Raises ApiError for a field that is not to reach an engine."""
    for name in body:
        if name not in PASSED[kind]:
            short = name[:80]
            text = f"{short!r} is not a field that clients may send to the engines"
            raise ApiError(400, text, param=short)
    if (fault := nested_fault(body)) is not None:
        raise ApiError(400, fault[1], param=fault[0])


def parse(
    kind: Kind, raw: bytes, headers: Mapping[str, str], models: Sequence[str], alias: str | None = None
) -> ApiRequest:
    """Check what the frontend itself relies on; the engine checks the rest. `alias` stands for the first model.

    Raises ApiError.
    """
    return _checked(kind, _body(raw), headers, models, alias)


def parse_prompts(
    kind: Kind, raw: bytes, headers: Mapping[str, str], models: Sequence[str], alias: str | None = None
) -> list[ApiRequest]:
    """As `parse`; a completion of several prompts becomes a request for each. Raises ApiError."""
    body = _body(raw)
    prompts = body.get("prompt")
    if kind == "chat" or not isinstance(prompts, list) or len(prompts) < 2 or not isinstance(prompts[0], (str, list)):
        return [_checked(kind, body, headers, models, alias)]
    if len(prompts) > MOST_PROMPTS:
        raise ApiError(400, f"{len(prompts)} prompts in one request; allowed: {MOST_PROMPTS}", param="prompt")
    return [_checked(kind, body | {"prompt": prompt}, headers, models, alias) for prompt in prompts]


def _body(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # half characters, which pass; else what json calls it
        try:
            body = json.loads(raw, parse_constant=_not_finite, parse_float=_finite)
        except (ValueError, RecursionError) as error:  # the latter: a hundred thousand brackets
            raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    return body


def _checked(
    kind: Kind, body: dict[str, Any], headers: Mapping[str, str], models: Sequence[str], alias: str | None
) -> ApiRequest:
    check_fields(kind, body)
    if body.get("model") in (None, alias):
        body["model"] = models[0]
    if body["model"] not in models:
        raise ApiError(
            404,
            f"the model {body['model']!r} does not exist; served: {', '.join(models)}",
            "not_found_error",
            param="model",
            code="model_not_found",
        )
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise ApiError(400, "stream must be true or false", param="stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise ApiError(400, "stream_options must be an object", param="stream_options")
    if options and not stream:
        raise ApiError(400, "stream_options go with stream: true only", param="stream_options")
    text, token_ids = _chat_text(body) if kind == "chat" else _prompt(body)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can name half of a character
        raise ApiError(400, f"the text is not Unicode: {error.reason}") from None
    retrieval = _retrieval(body.pop("retrieval", None))
    return ApiRequest(
        kind, body, stream, bool(options.get("include_usage")), text, token_ids, retrieval, _session(body, headers)
    )


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def check_lengths(body: Mapping[str, Any], longest: int, *, split: bool) -> None:
    """Refuse at once what the engine would refuse late, or only after another one has read the prompt for it.

    `longest` is the engine's context. `split`: a prompt's KV is handed over once, so it can have one answer only.
    Raises ApiError.
    """
    for name in ("max_tokens", "max_completion_tokens"):
        value = body.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= longest):
            raise ApiError(400, f"{name} must be a whole number from 1 to {longest}, the model's context", param=name)
    least = body.get("min_tokens")
    most = body.get("max_completion_tokens") or body.get("max_tokens") or longest
    if least is not None and (type(least) is not int or not 0 <= least <= most):
        raise ApiError(400, f"min_tokens must be a whole number from 0 to max_tokens ({most})", param="min_tokens")
    ids = body.get("prompt")
    if isinstance(ids, list) and len(ids) > longest:
        raise ApiError(
            400,
            f"the prompt has {len(ids)} tokens; the model's context is {longest}",
            param="prompt",
            code="context_length_exceeded",
        )
    for name in ("n", "best_of"):
        count = body.get(name)
        if count is not None and (type(count) is not int or not 1 <= count <= MOST_CHOICES):
            raise ApiError(400, f"{name} must be a whole number from 1 to {MOST_CHOICES}", param=name)
        if split and body.get(name) not in (None, 1):
            raise ApiError(400, f"{name} must be 1: prefill and decode run on different workers", param=name)


def _retrieval(options: Any) -> Any:
    """The extension field: true, false, or {query, known_prefix_tokens, assembled}."""
    if options is None or isinstance(options, bool):
        return options
    known = options.get("known_prefix_tokens") if isinstance(options, dict) else -1
    if known is not None and (type(known) is not int or known < 0):
        raise ApiError(400, "retrieval must be true, false or an object with `query`", param="retrieval")
    return options


def _chat_text(body: dict[str, Any]) -> tuple[str, None]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise ApiError(400, "messages must be a list of at least one object", param="messages")
    return "\n".join(message_text(item) for item in messages), None


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a chat message, whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _prompt(body: dict[str, Any]) -> tuple[str, tuple[int, ...] | None]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = body["prompt"] = prompt[0]
    if isinstance(prompt, str):
        return prompt, None
    if isinstance(prompt, list) and set(map(type, prompt)) == {int} and min(prompt) >= 0:
        return "", tuple(prompt)
    raise ApiError(400, "prompt must be one text or one list of token ids (0 or more)", param="prompt")


def _session(body: Mapping[str, Any], headers: Mapping[str, str]) -> int:
    """A number for the session: a header, or OpenAI's `user` field; texts are hashed, the same way everywhere."""
    name = headers.get("x-session-id") or headers.get("x-user-id") or body.get("user") or "0"
    text = str(name)
    return int(text) if text.isdecimal() and len(text) < 19 else zlib.crc32(text.encode(errors="surrogatepass"))


def event(payload: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def parsed(data: bytes) -> Any:
    """One event's payload, in a fifth of json's time: every token of every stream comes this way. Raises ValueError."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:  # NaN and half characters are no JSON, but some engines write them
        return json.loads(data)


def encoded(body: dict[str, Any]) -> bytes:
    """A body for an engine, in a fraction of json's time: prompts are thousands of ids."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:  # half a character
        return json.dumps(body).encode()


MOST_COUNT = 10**9  # tokens of a request that a server may speak of
MOST_LINE = 2**24  # bytes of one event of a stream


class SplitError(ValueError):
    """A line without an end."""


class EventSplitter:
    """Cuts a byte stream into the payloads of its `data:` lines, whatever the sizes of the pieces it comes in.

    Raises SplitError.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MOST_LINE:
            raise SplitError(f"a line of more than {MOST_LINE} bytes in a stream")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as a server reports them; `cached` is None where it does not."""

    prompt: int
    output: int
    cached: int | None

    @staticmethod
    def of(body: Any) -> Usage | None:
        """None where the body says nothing that can be a count."""
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(usage, dict):
            return None
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt, output = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        return None if prompt is None or output is None else Usage(prompt, output, _count(cached) if cached else cached)


def _count(value: Any) -> int | None:
    """A number of tokens as servers write it; null is 0. None for what cannot be one."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_COUNT:
        return None
    return int(value)


def chunk_tokens(choice: Mapping[str, Any]) -> tuple[int, list[int], str]:
    """(number of tokens, their ids where given, text) that a streamed choice carries.

    Without ids a chunk counts as one token when it has text, or (completions) when it is not the closing one: a token
    may be half a character and show no text yet.
    """
    delta = choice.get("delta")
    text = choice.get("text")
    if isinstance(delta, dict):
        text = (delta.get("reasoning_content") or delta.get("reasoning") or "") + (delta.get("content") or "")
    ids = choice.get("token_ids")
    if ids is not None:
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise TypeError("token_ids is no list of whole numbers")
        return len(ids), ids, text or ""
    counts = bool(text) or (delta is None and choice.get("finish_reason") is None)
    return int(counts), [], text or ""
