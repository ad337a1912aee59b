"""The prefill/decode hand-off of vLLM's KV connectors, as changes of a request's body.

The prefill worker gets the request with one token to make and `do_remote_decode`; its answer carries the
`kv_transfer_params` that tell the decode worker where the KV lies; the decode worker gets the whole request with them.

Both must carry the same x-request-id, which no other request may have at that time. `NixlConnector` (the decode worker
reads) does not look at it, but with `NixlPushConnector` the decode worker only tells the prefill worker which blocks
wait, and the prefill worker writes those of its own finished request that has that id: without it nothing is ever
written, and with another request's id the wrong prompt is.
"""

from __future__ import annotations

from typing import Any

# What has no meaning, or the wrong one, in a request that makes a single token. All else goes along, so that what the
# decode worker would refuse is refused before the prompt is read: NixlPushConnector would keep its KV for a lease.
_DROPPED = ("stream_options", "min_tokens", "max_completion_tokens", "n", "best_of", "echo")


def prefill_body(body: dict[str, Any], *, return_token_ids: bool = False) -> dict[str, Any]:
    """The request that computes the prompt and keeps its KV for another worker."""
    kept = {key: value for key, value in body.items() if key not in _DROPPED}
    if return_token_ids:
        kept["return_token_ids"] = True
    return kept | {
        "max_tokens": 1,
        "stream": False,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }


def decode_body(body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The request that reads the KV and makes the tokens. Raises ValueError when prefill handed nothing over."""
    params = answer.get("kv_transfer_params")
    if not isinstance(params, dict):
        raise ValueError("its answer has no kv_transfer_params; was it started with a KV connector?")
    return body | {"kv_transfer_params": params}


class FirstToken:
    """`first_token: prefill`: the client has the prefill worker's token already, so the decode worker's copy is cut.

    Both sample it from the same state, and only greedy requests come here, so the two agree. A token that ends within
    a character has no text of its own yet: its id goes ahead, its text comes with the decode worker's next.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        choice = answer["choices"][0]
        self.ids: list[int] = list(choice.get("token_ids") or [])
        self.text: str = choice.get("text") or (choice.get("message") or {}).get("content") or ""
        if self.text.endswith("\ufffd"):
            self.text = ""
        self._text_left, self._ids_left = self.text, len(self.ids)

    def chunk(self, answer: dict[str, Any], kind: str, *, with_ids: bool) -> dict[str, Any]:
        """The streamed chunk that carries it."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": None, "logprobs": None}
        if kind == "chat":
            choice["delta"] = {"role": "assistant", "content": self.text}
        else:
            choice["text"] = self.text
        if with_ids:
            choice["token_ids"] = self.ids
        name = "chat.completion.chunk" if kind == "chat" else "text_completion"
        return {key: answer.get(key) for key in ("id", "created", "model")} | {"object": name, "choices": [choice]}

    def cut(self, choice: dict[str, Any]) -> bool:
        """Take the token out of a decode chunk; whether anything is left. Raises ValueError when the two disagree."""
        holder = choice["delta"] if isinstance(choice.get("delta"), dict) else choice
        name = "content" if holder is not choice else "text"
        text = holder.get(name) or ""
        common = min(len(text), len(self._text_left))
        if text[:common] != self._text_left[:common]:
            raise ValueError(f"prefill made {self.text!r} first, decode {text!r}")
        self._text_left = self._text_left[common:]
        holder[name] = text[common:]
        ids = choice.get("token_ids")
        if ids:
            choice["token_ids"] = ids[min(self._ids_left, len(ids)) :]
            self._ids_left -= min(self._ids_left, len(ids))
        return bool(holder[name] or choice.get("token_ids") or choice.get("finish_reason"))
